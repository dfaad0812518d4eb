"""Finding a batch that was appended before, by the keys of its events.

An application that cannot know whether its append went through sends it again under the same keys:
the batch is then found, not stored twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from eventstore import queries
from eventstore.core.read import Reading
from eventstore.errors import CorruptEventError, DuplicateKeyError
from eventstore.format.segments import payload_of, unseal
from eventstore.models import Event, Fork, Head


class Duplicates(Reading):
    """Finds events by their keys."""

    async def find_batch(self, head: Head, events: Sequence[Event | Fork]) -> int | None:
        """The seq of the last event, if the log already holds the whole batch under its keys."""
        named = [e for e in events if isinstance(e, Event) and e.key is not None]
        keys = [event.key for event in named if event.key is not None]
        if not head.exists or not events or len(named) != len(events):
            return None
        rows = await self.transactions.run(
            "read", queries.events.events_by_key, head.thread_key, head.ns, keys
        )
        await self._load_dictionaries(row.payload for row in rows)
        found = {row.key: row for row in rows}
        for event, key in zip(named, keys, strict=True):
            row = found.get(key)
            if row is None:
                return None
            payload = row.payload or await self._sealed_payload(head, row.seq, key)
            same = row.kind == event.kind and (
                not payload  # trimmed: it cannot be compared any more
                or payload == self.codec.encode(event.data)
                or self.codec.decode(payload) == event.data
            )
            if not same:
                raise DuplicateKeyError(head.thread_id, head.ns, key, row.seq)
        return int(max(row.seq for row in rows))

    async def _sealed_payload(self, head: Head, seq: int, key: str) -> bytes:
        """The payload of a sealed event that has a key; empty if it was trimmed."""
        found = await self.transactions.run(
            "read", queries.events.read_segments, head.thread_key, head.ns, seq - 1, seq, 1
        )
        for event in unseal(found[0]) if found else ():
            if event.seq == seq:
                return payload_of(event)
        # It may have left its segment since its row was read.
        rows = await self.transactions.run(
            "read", queries.events.events_by_key, head.thread_key, head.ns, [key]
        )
        if rows and rows[0].payload:
            return bytes(rows[0].payload)
        if await self.transactions.run(
            "read", queries.lineage.is_trimmed, head.thread_key, head.ns, seq
        ):
            return b""
        raise CorruptEventError("the event has no payload").at(head.thread_id, head.ns, seq)
