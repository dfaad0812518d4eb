"""The events that led to a position, newest first, a page at a time.

Owns walking a lineage backwards: within a log, then through forks into other logs and threads. It
composes operations of the store, and works with any kind of events.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from eventstore import Position, RecordedEvent
from eventstore.core.core import Core


@dataclass(frozen=True, slots=True)
class Trail:
    """A page of the events that led to a position.

    Attributes:
        events: newest first; the first one of each log but the last is a fork.
        earlier: the position before them; ``None``: history begins there, or was trimmed.
    """

    events: tuple[RecordedEvent, ...]
    earlier: Position | None


async def trail(core: Core, thread_id: str, upto: Position, limit: int) -> Trail:
    """At most ``limit`` of the events that led to a position, newest first.

    Raises:
        LineageMovedError: it was trimmed meanwhile.
        PositionNotFoundError: the thread of a log does not exist.
    """
    at: Position | None = upto if upto.seq else None
    found: list[RecordedEvent] = []
    while at is not None and len(found) < limit:
        lineage = await core.lineage(at)
        first = max(lineage.first, at.seq - (limit - len(found)) + 1)
        span: list[RecordedEvent] = []
        after = at._replace(seq=first - 1)
        async with aclosing(await core.read_span(thread_id, after, at.seq)) as pages:
            async for page in pages:
                span += page
        found += reversed(span)
        at = at._replace(seq=first - 1) if first > lineage.first else lineage.source
    return Trail(tuple(found), at)
