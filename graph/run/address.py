"""Reads configs: above all where one points, as an :class:`Address`.

Owns how ``thread_id``, ``checkpoint_ns``, ``checkpoint_id``, ``ttl``, ``metadata``, ``tags`` and
``run_id`` are read. Public methods read them once and pass the results down. Below them, a config
is only what a node's function gets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self

from eventstore import Position
from eventstore.format.digests import origin
from eventstore.limits import TTL_MAX, shown
from graph.errors import InvalidConfigError

_OF_NODE: Final = frozenset({"checkpoint_id", "checkpoint_ns"})
_OF_THE_RUNTIME: Final = _OF_NODE | {
    "thread_id",
    "checkpoint_map",
    "ttl",
    "langgraph_step",
    "langgraph_node",
    "langgraph_triggers",
    "langgraph_path",
    "langgraph_checkpoint_ns",
}
"""Names in a config that say where it points, or which node it was made for."""

_CHECKPOINT_ID: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{10})(i?)")


@dataclass(frozen=True, slots=True)
class Address:
    """A thread, one of its logs, and perhaps a checkpoint there.

    Attributes:
        ns: the log: ``""`` for the root graph's, else a subgraph's.
        position: of the checkpoint that is named, as its id says; ``None``: the end of the log.
        before_input: the checkpoint is the one before the input at this position.
    """

    thread_id: str
    ns: str = ""
    position: Position | None = None
    before_input: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """The address that a config holds.

        Raises:
            InvalidConfigError: it has no ``thread_id``, or a ``checkpoint_id`` of another library.
        """
        thread_id = named_thread(config)
        if thread_id is None or thread_id == "":
            raise InvalidConfigError(
                "a graph with a checkpointer needs a thread_id; pass "
                "config={'configurable': {'thread_id': '…'}}"
            )
        if isinstance(thread_id, bytes | bool | float):  # as text they would be another name
            raise InvalidConfigError(
                "a thread_id must be text, a whole number or a UUID, not "
                f"{type(thread_id).__name__}"
            )
        # A fork's copy of another log's events counts as that log.
        ns = origin(0, _ns(config))[1]
        position = position_of(config)
        return cls(str(thread_id), ns, position, position is not None and is_before_input(config))


def position_of(config: Mapping[str, Any]) -> Position | None:
    """The position of the checkpoint that a config names, if it names one.

    Raises:
        InvalidConfigError: its ``checkpoint_id`` was not made by this library.
    """
    given = _configurable(config).get("checkpoint_id")
    if not given:
        return None
    match = _CHECKPOINT_ID.fullmatch(str(given))
    if match is None:
        raise InvalidConfigError(
            f"{given!r} is not a checkpoint_id of this library; take it from "
            "get_state(config).config or get_state_history(config)"
        )
    return Position(int(match[1], 16), _ns(config), int(match[2], 16) + len(match[3]))


def is_before_input(config: Mapping[str, Any]) -> bool:
    """Whether a config names the checkpoint before an input, whose position is the input's."""
    return str(_configurable(config).get("checkpoint_id") or "").endswith("i")


def named_thread(config: Mapping[str, Any]) -> Any:
    """The ``thread_id`` in a config as it was passed; ``None`` without one."""
    return _configurable(config).get("thread_id")


def ttl_of(config: Mapping[str, Any]) -> timedelta | None:
    """How long a config wants its thread kept after its last event; ``None`` if it does not say.

    Raises:
        InvalidConfigError: it is not a time, or negative.
    """
    ttl = _configurable(config).get("ttl")
    if ttl is None:
        return None
    try:
        found = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidConfigError(f"ttl must be seconds or a timedelta, not {shown(ttl)}") from error
    if not timedelta(0) <= found <= TTL_MAX:
        raise InvalidConfigError(
            f"ttl must not be negative or longer than {TTL_MAX.days} days, not {shown(ttl)}"
        )
    return found


def metadata_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata to record with a run: that of the config, its tags, and the texts and numbers in
    its ``configurable``.
    """
    of_caller = {
        name: value
        for name, value in _configurable(config).items()
        if isinstance(value, str | int | float)
    }
    tags = {"tags": list(config["tags"])} if config.get("tags") else {}
    found = {**of_caller, **tags, **(config.get("metadata") or {})}
    return {
        name: value
        for name, value in found.items()
        if name not in _OF_THE_RUNTIME and not str(name).startswith("__")
    }


def as_seen_by_caller(config: Mapping[str, Any], node_ns: str | None) -> Mapping[str, Any]:
    """A config without the place that the runtime added for the running node: a node that passes
    its config on means its thread.
    """
    if node_ns is None or _ns(config) != node_ns:
        return config
    kept = {n: v for n, v in _configurable(config).items() if n not in _OF_NODE}
    return {**config, "configurable": kept}


def run_id_of(config: Mapping[str, Any]) -> str | None:
    """The id that a caller gives a run, if it does."""
    given = config.get("run_id")
    return None if given is None else str(given)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One config over another. Metadata, tags and ``configurable`` of both are merged."""
    both = {**below, **above}
    for name in ("configurable", "metadata"):
        if name in below and name in above:
            both[name] = {**(below[name] or {}), **(above[name] or {})}
    if "tags" in below and "tags" in above:
        both["tags"] = [*dict.fromkeys([*(below["tags"] or []), *(above["tags"] or [])])]
    return both


def _ns(config: Mapping[str, Any]) -> str:
    return str(_configurable(config).get("checkpoint_ns") or "")


def _configurable(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config.get("configurable") or {}
