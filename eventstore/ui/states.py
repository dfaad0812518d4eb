"""States as views show them: of our runtime by its graph or its log alone, of LangGraph's by its
saver's events. Redacted before anything else looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eventstore import Position, ThreadInfo
from eventstore.explain import langgraph
from eventstore.explain.states import state_at
from eventstore.explain.trail import trail
from eventstore.explain.values import simple
from eventstore.format.digests import origin
from eventstore.models import from_micros
from eventstore.ui.pages import Document, NotFound
from eventstore.ui.source import Source
from graph.state import planner
from graph.state.state import NOWHERE, State, checkpoint_id

LOOK_BACK: Final = 200
"""Events of a LangGraph thread in which its last checkpoint is searched."""


@dataclass(frozen=True)
class Shown:
    """A state that may be shown.

    Attributes:
        values: by key.
        facts: the rest: step, next nodes, metadata, questions and so on.
        checkpoint: the last position up to here at which a superstep was complete or waits.
        parent: the checkpoint before that.
        assumed: keys whose merging was assumed.
    """

    values: Mapping[str, Any]
    facts: Document
    checkpoint: Position
    parent: Position | None
    assumed: frozenset[str] = field(default_factory=frozenset)


def state(source: Source, info: ThreadInfo, at: Position) -> Shown | None:
    """The state at a position; ``None``: its events are not those of a graph."""
    if langgraph.is_langgraph(info):
        return _of_langgraph(source, info, at)
    found = source.run(state_at(source.core, info.thread_id, at, source.graph))
    if found is None:
        return None
    return Shown(
        _plain(source, found.values),
        _facts(source, found.state),
        found.state.checkpoint,
        found.state.parent,
        found.assumed,
    )


def _plain(source: Source, values: Mapping[str, Any]) -> Mapping[str, Any]:
    found = source.redaction.apply("state", dict(values))
    return found if isinstance(found, Mapping) else {"state": found}


def _facts(source: Source, state: State) -> Document:
    redact = source.redaction.apply
    due = planner.due(state)
    return {
        "checkpoint_id": checkpoint_id(state.checkpoint) if state.checkpoint != NOWHERE else None,
        "is_checkpoint": state.at == state.checkpoint,
        "step": state.step,
        "source": state.source,
        "created_at": from_micros(state.created_us).isoformat() if state.created_us else None,
        "run_id": state.run_id,
        "next": [task.node for _, task in due],
        "done": [data["node"] for data in state.pending.values()],
        "metadata": simple(redact("metadata", dict(state.metadata))),
        "version": state.version,
        "errors": [
            simple(redact("error", {name: data.get(name) for name in _ERROR}))
            for data in state.errors.values()
        ],
        "questions": [
            simple(redact("question", {"node": each["node"], **dict(asked)}))
            for each in state.interrupts.values()
            for asked in each["interrupts"]
        ],
    }


_ERROR = ("node", "type", "message", "attempts")


def _of_langgraph(source: Source, info: ThreadInfo, at: Position) -> Shown | None:
    """The checkpoint that was put last up to a position, with the writes for it since."""
    newest = source.run(trail(source.core, info.thread_id, at, LOOK_BACK))
    last = next((each for each in newest.events if langgraph.checkpoint_of(each)), None)
    fold = source.run(langgraph.fold_at(source.core, info.thread_id, at))
    if last is None or fold is None:
        return None
    space, name = langgraph.checkpoint_of(last) or ("", "")
    saved = fold.spaces[space].leaves.get(name) if space in fold.spaces else None
    if saved is None:
        return None
    facts = langgraph.metadata(saved)
    redact = source.redaction.apply
    key, ns = origin(last.thread_key, last.ns)
    checkpoint = Position(key, ns, last.seq)
    return Shown(
        _plain(source, langgraph.values(saved)),
        {
            "checkpoint_id": saved.id,
            "is_checkpoint": checkpoint.seq == at.seq,
            "step": facts.get("step"),
            "source": facts.get("source"),
            "created_at": last.recorded_at.isoformat(),
            "run_id": str(facts.get("run_id") or ""),
            "next": [],
            "done": [],
            "metadata": simple(redact("metadata", facts)),
            "version": None,
            "errors": [],
            "questions": [simple(redact("question", each)) for each in langgraph.interrupts(saved)],
            "namespace": space,
        },
        checkpoint,
        None,
    )


def needed(source: Source, info: ThreadInfo, at: Position) -> Shown:
    """The state at a position.

    Raises:
        NotFound: its events are not those of a graph.
    """
    found = state(source, info, at)
    if found is None:
        raise NotFound("no state can be read here: these events are not those of a graph")
    return found
