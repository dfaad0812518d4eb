"""Events that are yet to be encoded: how depends on what is appended with them. Pure.

LangGraph stores the writes of a superstep right before the checkpoint that follows them. Where
both are appended together, and the writes are small, they become one event: it is compressed
once, and the checkpoint repeats its writes for a few bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from eventstore import Event
from graph.langgraph.state import records
from graph.langgraph.state.coding import encode, encode_writes
from graph.langgraph.state.records import (
    ID,
    NS,
    PARENT,
    REFS,
    REPLACE,
    SIDE,
    WITH,
    Batch,
    Saved,
)
from graph.langgraph.state.sealing import Seal

JOINED_BYTES: Final = 4 * 1024
"""Up to so many bytes of writes become one event with the checkpoint that follows."""


@dataclass(frozen=True, slots=True)
class WritesDraft:
    """Writes of a task.

    Attributes:
        target: the checkpoint that they are for.
        prior: the current checkpoint; ``None``: they are stored as they are.
        is_early: the target is yet to come.
        key: for writes that came after a later checkpoint.
    """

    seal: Seal
    ns: str
    target: str
    batch: Batch
    prior: Saved | None
    is_early: bool
    key: str | None

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return sum(len(write.data) for _, write in self.batch.writes)

    @property
    def is_for_current(self) -> bool:
        """Whether it is for the current checkpoint."""
        return self.key is None and not self.is_early

    def event(self) -> Event:
        """It as an event of its own."""
        data: dict[str, Any] = {REPLACE: True} if self.batch.replaces else {}
        if self.key is None and self.ns:
            data[NS] = self.ns
        if self.is_early:
            data[ID] = self.target
        refs, body = encode_writes(self.batch, self.prior)
        data |= {REFS: refs, **self.seal.close(body)}
        return Event(records.WRITES, data, self.key)


@dataclass(frozen=True, slots=True)
class CheckpointDraft:
    """A checkpoint, as the difference to a prior one.

    Attributes:
        prior, inherits: as :meth:`~graph.langgraph.state.fold.Fold.prior` says.
        is_next: its parent is the current checkpoint.
        can_join: it is a new one there, to which nothing but writes was added since.
        carry: its writes and its past cannot be derived from events before.
        written: writes for its parent that are stored with it.
    """

    seal: Seal
    ns: str
    saved: Saved
    key: str
    prior: Saved | None
    inherits: bool
    is_next: bool
    can_join: bool
    carry: bool = False
    written: Sequence[Batch] = ()

    def event(self) -> Event:
        """It as an event."""
        saved, written = self.saved, self.written
        refs, body = encode(
            saved, self.prior, inherits=self.inherits, carry=self.carry, written=written
        )
        data: dict[str, Any] = {SIDE: True} if saved.is_side else {}
        if not self.is_next:
            data[PARENT] = saved.parent
        if written:
            data[WITH] = True
        data |= {REFS: refs, **self.seal.close(body)}
        return Event(records.CHECKPOINT, data, self.key)


Draft = WritesDraft | CheckpointDraft | Event


def event_of(draft: Draft) -> Event:
    """A draft as an event."""
    return draft if isinstance(draft, Event) else draft.event()


def joined(drafts: Sequence[Draft], new: Sequence[Draft]) -> list[Draft]:
    """New drafts behind others, those that can be one event joined."""
    found = list(drafts)
    for each in new:
        if isinstance(each, CheckpointDraft) and each.can_join:
            writes = _to_join(found, each)
            if writes:
                del found[-len(writes) :]
                batches = [draft.batch for draft in writes]
                each = replace(each, prior=writes[0].prior, written=batches)
        found.append(each)
    return found


def _to_join(drafts: Sequence[Draft], new: CheckpointDraft) -> list[WritesDraft]:
    """The last drafts, as many as are writes that become one event with a checkpoint."""
    found: list[WritesDraft] = []
    room = JOINED_BYTES
    for draft in reversed(drafts):
        if not (isinstance(draft, WritesDraft) and draft.is_for_current):
            break
        room -= draft.size
        if room < 0 or (draft.ns, draft.target) != (new.ns, new.saved.parent):
            break
        found.append(draft)
    return found[::-1]
