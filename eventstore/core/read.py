"""Reading: heads, events, lineages, where snapshots are. Reading never writes.

Events are verified and decoded page by page, each page in a transaction of its own: a log only
grows, so a long read needs no long transaction.

Streams of events are asynchronous iterators of *pages*. A page is decoded while it is iterated
over, and has to be used up before the next one is requested.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Final

from eventstore import queries, telemetry
from eventstore.core.threads import Threads
from eventstore.errors import (
    CorruptEventError,
    EventStoreError,
    LineageMovedError,
    PositionNotFoundError,
    ThreadNotFoundError,
)
from eventstore.format import records
from eventstore.format.segments import Segment
from eventstore.limits import check_name, check_number, check_position
from eventstore.models import (
    Head,
    Lineage,
    Position,
    RecordedEvent,
    SqlRow,
    check_at,
)
from eventstore.queries import Connection

PAGE: Final = 256
"""Events in one page."""

MOVES_MAX: Final = 5
"""How often the lineage of a position may move while it is looked up once."""

Page = Iterator[RecordedEvent]
Pages = AsyncGenerator[Page, None]

Rows = Sequence[SqlRow | Segment]


class Reading(Threads):
    """Reads logs."""

    async def head(self, thread_id: str, ns: str = "") -> Head:
        """The end of a log; of a thread that does not exist, an end at 0."""
        row = await self.transactions.run(
            "read", queries.threads.look_up, self.tenant, thread_id, ns
        )
        return records.head(self.tenant, thread_id, ns, row)

    async def read(
        self, thread_id: str, ns: str = "", after: int = 0, upto: int | None = None
    ) -> Pages:
        """The events of a log, oldest first, verified and decoded, a page at a time.

        Those of a trimmed log begin after its base.
        """
        check_name("a thread_id", thread_id)
        check_name("a namespace", ns)
        check_number("after", after, None)
        if upto is not None:
            check_number("upto", upto, None)

        def look_up(conn: Connection, after: int) -> queries.lineage.Stretch:
            row = queries.threads.look_up(conn, self.tenant, thread_id, ns)
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            last = records.head(self.tenant, thread_id, ns, row).seq
            begins = queries.lineage.beginning(conn, row.thread_key, ns) or 0
            first = max(after, begins, 0) + 1
            end = last if upto is None else min(upto, last)
            return queries.lineage.Stretch(row.thread_key, ns, first, end)

        stretch = await self.transactions.run("read", look_up, after)

        async def pages() -> Pages:
            nonlocal stretch
            while True:
                last_read = stretch.first - 1

                def tracked(page: Page) -> Page:
                    nonlocal last_read
                    for event in page:
                        last_read = event.seq
                        yield event

                try:
                    async with aclosing(
                        self._stream(thread_id, [stretch], own=stretch.thread_key)
                    ) as found:
                        async for page in found:
                            yield tracked(page)
                    return
                except LineageMovedError:  # it was trimmed meanwhile: go on with what is left
                    key, stretch = (
                        stretch.thread_key,
                        await self.transactions.run("read", look_up, last_read),
                    )
                    if stretch.thread_key != key:
                        raise ThreadNotFoundError(thread_id, self.tenant) from None

        return pages()

    async def _stream(
        self,
        thread_id: str,
        stretches: Sequence[queries.lineage.Stretch],
        digest: bytes | None = None,
        own: int | None = None,
        ready: Rows = (),
        trace: telemetry.Span = telemetry.NOTHING,
    ) -> Pages:
        """The events of these stretches.

        Args:
            digest: of the event before the first, if it is known.
            own: the key of the thread that is being read; the stretches may be its ancestors'.
            ready: the first page, if it has been read already.
            trace: counts what is read.
        """
        for key, ns, first, last in stretches:
            reader = records.EventReader(self.codec, thread_id, key, ns, first - 1, digest, last)
            digest = None
            missed: int | None = None
            while reader.after < last:
                rows = ready or await self.transactions.run(
                    "read", queries.events.read_events, key, ns, reader.after, last, PAGE
                )
                ready = ()
                if reader.lacks_link(rows):  # it begins after a base, which has the digest
                    before = Position(key, ns, first - 1)
                    reader.begin(
                        await self.transactions.run("read", queries.lineage.base_digest, before)
                    )
                telemetry.read(trace, rows)
                await self._load_dictionaries(row.payload for row in rows)
                yield reader.feed(rows)
                if not rows or reader.after != min(last, records.end_of(rows)):
                    # Read once more: it may have left its segment while we looked there.
                    if missed == reader.after:
                        raise await self._gap(thread_id, own, key, ns, reader.after + 1)
                    missed = reader.after

    async def _load_dictionaries(self, payloads: Iterable[bytes]) -> None:
        """Give the codec the dictionaries that others compressed these payloads with.

        A dictionary that the database does not have either is the codec's to report.
        """
        for dict_id in self.codec.lacks(payloads):
            data = await self.transactions.run(
                "read", queries.dictionaries.read_dictionary, dict_id
            )
            if data is not None:
                self.codec.add_dictionary(dict_id, data, write=False)

    async def _gap(
        self, thread_id: str, own: int | None, key: int, ns: str, seq: int
    ) -> EventStoreError:
        """Why an event is missing: damage, or a thread that was trimmed or deleted."""
        row = await self.transactions.run("read", queries.threads.thread_by_key, key)
        if row is not None and row.deleting_since is None:
            if await self.transactions.run("read", queries.lineage.is_trimmed, key, ns, seq):
                return LineageMovedError(thread_id)
            return CorruptEventError(
                "the event is missing, or history no longer reaches back this far"
            ).at(thread_id, ns, seq)
        if own is None:
            own = (await self.head(thread_id)).thread_key
        return (
            ThreadNotFoundError(thread_id, self.tenant)
            if own == key
            else LineageMovedError(thread_id)
        )

    async def lineage(self, at: Position) -> Lineage:
        """What the events up to a position begin with: the start of the log, a fork, or a base."""
        check_at("at", at)

        return await self.transactions.run("read", queries.lineage.begins, at)

    async def end(self, thread_id: str, ns: str = "") -> tuple[Head, Lineage | None]:
        """As :meth:`head`, and what the log begins with; ``None``: ask :meth:`lineage`."""
        row = await self.transactions.run(
            "read", queries.threads.look_up, self.tenant, thread_id, ns, marks=True
        )
        head = records.head(self.tenant, thread_id, ns, row)
        is_simple = isinstance(row, queries.loading.ThreadRow) and (row.fork, row.base) == (0, 0)
        return head, Lineage(1, None, None) if is_simple else None

    async def read_span(self, thread_id: str, after: Position, upto: int | None) -> Pages:
        """Events after a position of one log, up to seq ``upto`` or its end.

        The log may belong to another thread of this tenant, as in the lineage of a fork.
        """
        check_position("after", after)
        if upto is not None:
            check_number("upto", upto)

        def begin(conn: Connection) -> tuple[int, Rows]:
            row, page = queries.loading.span(conn, after, upto)
            if row is None or row.tenant != self.tenant:
                raise PositionNotFoundError(thread_id, *after[1:], "its thread does not exist")
            if upto is not None:
                return upto, page
            if type(row.last_seq) is int and row.last_seq > after.seq:
                return row.last_seq, page  # the last event of a log is never sealed
            return queries.events.head_seq(conn, after.thread_key, after.ns), page

        last, page = await self.transactions.run("read", begin)
        stretch = queries.lineage.Stretch(after.thread_key, after.ns, after.seq + 1, last)
        return self._stream(thread_id, [stretch], ready=page)

    async def keys(
        self, at: Position, span: tuple[str, str], after: int = 0
    ) -> list[tuple[int, int, str]]:
        """Seq, kind and key of a log's events up to a position whose keys lie in a span of texts.

        Args:
            span: the first key, and the text before which the last one ends.
            after: only events after this seq.
        """
        rows = await self.transactions.run(
            "read", queries.events.keys_between, at.thread_key, at.ns, span, after, at.seq
        )
        return [(row.seq, row.kind, row.key) for row in rows]

    async def snapshot_positions(
        self, thread_id: str, fingerprint: str, ns: str = ""
    ) -> list[Position]:
        """Where a log's usable snapshots are, oldest first, without bases.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        check_name("a namespace", ns)
        key = (await self.thread(thread_id)).thread_key
        rows = await self.transactions.run("read", queries.snapshots.snapshots_of, key, ns)
        return [
            Position(key, ns, row.seq)
            for row in rows
            if row.fingerprint == fingerprint and not row.is_base
        ]
