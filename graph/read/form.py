"""The parts of a state as users see them: metadata, errors, results, entries of the audit trail.

Owns their translation from what events hold. Pure.
"""

from __future__ import annotations

from typing import Any, Final

from eventstore import RecordedEvent
from graph.build.schema import ROOT
from graph.state.events import Data, Kind, by_key, unpack, updates_of
from graph.state.state import COMMAND, INTERRUPT, State
from graph.types import START, AuditEntry, Interrupt

SHOWN: Final = {
    "input": "loop",
    COMMAND: "loop",
    INTERRUPT: "loop",
    f"{INTERRUPT}/update": "update",
    f"{INTERRUPT}/fork": "fork",
}
"""The sources that are shown by another name."""


def follows_input(state: State) -> bool:
    """Whether the checkpoint before this one is that of an input."""
    return state.source == "input" or (state.source == INTERRUPT and state.last == (START,))


def metadata_of(state: State, source: str, step: int) -> dict[str, Any]:
    own = {"source": source, "step": step, "parents": {}, "run_id": state.run_id}
    return {**state.metadata, **own}


def audit_entry(event: RecordedEvent) -> AuditEntry:
    data = event.data
    parts = updates_of(data) if event.kind == Kind.UPDATE else [data]
    writes: list[tuple[str, Any]] = []
    goto: list[str] = []
    for part in parts:
        writes += unpack(part) if "writes" in part else ()
        sends = (node for node, _ in part.get("sends", ()))
        joins = (target for target, _, _ in part.get("joins", ()))
        goto += (*part.get("to", ()), *part.get("later", ()), *sends, *joins)
    return AuditEntry(
        seq=event.seq,
        kind=Kind(event.kind).name.lower(),
        recorded_at=event.recorded_at.isoformat(),
        step=data.get("step"),
        node=", ".join(part["node"] for part in parts) if "node" in parts[0] else None,
        writes=by_key(writes),
        goto=tuple(goto),
        data=data,
    )


def interrupts_of(data: Data | None) -> tuple[Interrupt, ...]:
    found = data["interrupts"] if data else ()
    return tuple(Interrupt(each["value"], each["id"]) for each in found)


def error_of(data: Data | None) -> str | None:
    if data is None:
        return None
    kind, message = data["type"].rpartition(".")[2], data["message"]
    return f"{kind}({message!r})" if message else f"{kind}()"


def written(data: Data) -> Any:
    """What an event wrote, by key; the value itself in a state of a bare type."""
    found = by_key(unpack(data))
    return found.get(ROOT, found)
