"""The state of a run at a position: by the application's graph, or by its log alone.

Owns reading without an application. The log then says only in part how a key merges updates: keys
without a reducer are exact, and so is what a snapshot holds. Other keys are merged as is usual for
their type, and named as assumed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eventstore import LineageMovedError, Position, RecordedEvent
from eventstore.core.core import Core
from eventstore.core.read import MOVES_MAX
from eventstore.explain import describe
from graph.app import CompiledGraph
from graph.build.channels import Channel
from graph.messages import add_messages
from graph.read.subgraphs import graph_of
from graph.run.snapshots import load
from graph.state import planner
from graph.state.events import unpack, updates_of
from graph.state.fold import fold
from graph.state.state import NOWHERE, State, initial

ANCESTORS_MAX: Final = 20
"""Logs that are searched for snapshots, from a fork to its source and so on."""


@dataclass(frozen=True, slots=True)
class Found:
    """A state, and how sure it is.

    Attributes:
        values: with what finished tasks of an incomplete superstep wrote.
        assumed: keys whose merging was assumed, because no graph was given.
    """

    state: State
    values: Mapping[str, Any]
    assumed: frozenset[str] = frozenset()


async def state_at(
    core: Core, thread_id: str, at: Position, graph: CompiledGraph | None
) -> Found | None:
    """The state at a position; ``None``: these are not the events of a run.

    Raises:
        GraphError: the graph cannot read it.
        LineageMovedError: it was trimmed meanwhile, again and again.
    """
    if graph is not None:
        inner = graph_of(graph, at.ns)
        _, state, _ = await inner.log_on(core).load(thread_id, at, at.ns)
        return Found(state, planner.shown(inner.topology, state, live=True))
    for _ in range(MOVES_MAX):
        try:
            return await _of_log(core, thread_id, at)
        except LineageMovedError:
            continue
    raise LineageMovedError(thread_id)


async def _of_log(core: Core, thread_id: str, at: Position) -> Found | None:
    fingerprint = await _fingerprint(core, at)
    replay = await core.replay(thread_id, at.ns, at, fingerprint)
    events = [event async for page in replay.events for event in page]
    start, known = State(), frozenset[str]()
    if not all(map(is_of_run, events)):
        return None
    forms: dict[str, str] = {}
    try:
        if replay.snapshot is not None:
            start, _ = load(core.codec.decode, replay.snapshot)
            forms.update(start.forms)
            known = frozenset(start.values)
        for event in events:
            forms.update(event.data.get("forms", {}))
        written = [key for event in events for key, _ in _writes(event)]
        channels = {key: _channel(key, forms.get(key)) for key in [*forms, *written]}
        start = start if start.at != NOWHERE else initial(channels)
        state = fold(channels, start, events)
        values = dict(state.values)
        for index in sorted(state.pending):
            for key, value in unpack(state.pending[index]):
                values[key] = channels[key].reduce(values.get(key), [value])
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return None  # events of another application, or of none
    merged = {key for key in written if channels[key].reducer is not None}
    assumed = frozenset(merged if known else merged & values.keys())
    return Found(state, values, assumed)


async def _fingerprint(core: Core, at: Position) -> str:
    """The fingerprint of the newest snapshot that leads to a position."""
    here: Position | None = at
    for _ in range(ANCESTORS_MAX):
        if here is None:
            break
        found = await core.fingerprints(here)
        if found:
            return found[0]
        lineage = await core.lineage(here)
        here = lineage.source
    return ""


def is_of_run(event: RecordedEvent) -> bool:
    """Whether a graph of this library wrote an event."""
    return describe.kind_of(event) in _KINDS


_KINDS: Final = frozenset("fork input output error interrupt resume update".split())


def _writes(event: RecordedEvent) -> list[tuple[str, Any]]:
    parts = updates_of(event.data) if isinstance(event.data, dict) else []
    return [pair for part in parts if "writes" in part for pair in unpack(part)]


# --- merging without the application ----------------------------------------------------


def _channel(key: str, form: str | None) -> Channel:
    """A channel that merges as is usual for the form in which a key was declared."""
    kind, has_reducer = (form or "").removesuffix("+"), (form or "").endswith("+")
    if not has_reducer:
        return Channel(key)
    merge, make = _USUAL.get(kind, (_by_value, None))
    return Channel(key, _or_last(merge), make)


def _or_last(merge: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def merged(value: Any, update: Any) -> Any:
        try:
            return merge(value, update)
        except Exception:  # values of another type than was declared
            return update

    return merged


def _append(value: Any, update: Any) -> Any:
    if value is None:
        return update
    added = update if isinstance(update, list) else [update]
    if all(map(_is_message, [*value[:1], *added])):
        return add_messages(value, added)
    return [*value, *added]


def _is_message(item: Any) -> bool:
    found = item if isinstance(item, dict) else getattr(item, "fields", None)
    if not isinstance(found, dict):
        return hasattr(item, "content") and hasattr(item, "id")
    return "id" in found and ("role" in found or "content" in found)


def _by_value(value: Any, update: Any) -> Any:
    return _append(value, update) if isinstance(value, list) else update


_USUAL: Final[Mapping[str, tuple[Callable[[Any, Any], Any], Callable[[], Any] | None]]] = {
    "list": (_append, list),
    "str": (operator.add, str),
    "int": (operator.add, int),
    "float": (operator.add, float),
    "tuple": (operator.add, tuple),
    "bool": (operator.or_, bool),
    "dict": (operator.or_, dict),
    "set": (operator.or_, set),
    "frozenset": (operator.or_, frozenset),
}


def keys_of(events: Sequence[RecordedEvent]) -> list[str]:
    """The state keys that events write, in order."""
    return list(dict.fromkeys(key for event in events for key, _ in _writes(event)))
