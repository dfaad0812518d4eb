"""The status of a thread: what its row says of the state that a run or an edit led to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eventstore.models import Status
from graph.state.events import Data, Kind
from graph.state.state import State

Draft = tuple[Kind, Data]
"""An event to be recorded."""

Stops = Callable[[State], bool]
"""Whether a run stops at a state, before or after one of its nodes."""


def status_of(state: State, stops: Stops, drafts: Sequence[Draft] = ()) -> Status:
    """The status of the thread after these events, of a run or an edit, which led to ``state``."""
    last = drafts[-1][0] if drafts else None
    if last in (None, Kind.RESUME):
        return "running"
    if not state.frontier:
        return "idle"
    if last == Kind.UPDATE:
        return "waiting"  # for the caller who edited it
    if state.errors:  # when every task has ended, the run says that it failed
        return "running"
    if last == Kind.INTERRUPT:
        return "waiting"  # for people: every task has ended
    if state.pending:
        return "running"
    return "waiting" if stops(state) else "running"


def status_after(state: State, error: BaseException | None) -> Status:
    """What the thread's row says of a run that has ended otherwise than by its last event."""
    if isinstance(error, Exception) or (error is not None and state.errors):
        return "failed"
    if error is not None:
        return "cancelled"
    return "waiting" if state.frontier else "idle"
