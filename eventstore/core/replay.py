"""Replays: what to fold to get the state at a position, from the nearest snapshot on.

Owns which snapshot a replay begins with, what of it comes from memory, and the way back through the
logs that a thread was forked from. Each fork on the way must lead on from the end before it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

from eventstore import queries, telemetry
from eventstore.cache import CachedLog, Marks
from eventstore.core.read import MOVES_MAX, PAGE, Page, Pages, Reading, Rows
from eventstore.errors import (
    CorruptEventError,
    LineageMovedError,
    PositionNotFoundError,
)
from eventstore.format import digests, records
from eventstore.limits import check_name
from eventstore.models import (
    FORK,
    Head,
    Position,
    RecordedEvent,
    Replay,
    Snapshot,
    SqlRow,
    check_at,
)
from eventstore.queries import Connection

log = logging.getLogger(__name__)

GENERATIONS_MAX: Final = 10_000
"""Names of threads that had former ones, of which the current generation is remembered."""


async def _no_pages() -> Pages:
    none: tuple[Page, ...] = ()
    for page in none:
        yield page


class Replaying(Reading):
    """Finds what leads to a state."""

    async def replay(
        self,
        thread_id: str,
        ns: str = "",
        upto: Position | None = None,
        fingerprint: str = "",
        snapshots: bool = True,
        cached: bool = False,
    ) -> Replay[Pages]:
        """What to fold to get the state of a thread: the nearest snapshot, then the events.

        Args:
            cached: use the log cache or the past cache, which :meth:`cache_replay` fills.
        """
        if upto is not None:
            check_at("upto", upto)
        if not isinstance(thread_id, str):
            check_name("a thread_id", thread_id)

        def find(conn: Connection) -> _Found:
            chosen = fingerprint if snapshots else None
            digest_at: bytes | None
            if upto is None:
                known = partial(self._known, ns, fingerprint) if cached else None
                generation = self.generations.get(thread_id, 0)
                loaded = queries.threads.load(
                    conn, self.tenant, thread_id, ns, chosen, generation, known
                )
                self._note_generation(thread_id, loaded.thread)
                head = records.head(self.tenant, thread_id, ns, loaded.thread)
                at, digest_at, marks = head.position, head.digest, _marks_of(loaded)
                if cached and marks is not None:
                    found = self._find_in_cache(conn, head, fingerprint, marks, loaded.page)
                    if found is not None:
                        return found
                if loaded.is_continued:  # what is cached cannot be used: it is of another log
                    loaded = queries.loading.load(conn, at, chosen)
            else:
                seen = self.past.known_at(upto, fingerprint) if cached else None
                loaded = queries.loading.load(conn, upto, chosen, seen)
                at, marks, row = upto, _marks_of(loaded), loaded.thread
                head = self._head_of(conn, thread_id, ns, upto, row)
                if at != head.position and not _is_there(row, self.tenant, at.seq):
                    self._check_at(conn, thread_id, at)
                digest_at = None if row is None else row.digest_at
                if loaded.is_continued and row is not None:
                    is_base = row.base == at.seq  # since it was cached: nothing is before it now
                    kept = None if is_base else self.past.get_at(at, digest_at, fingerprint)
                    if kept is not None:
                        here = queries.lineage.Route(at, [])
                        return _Found(head, at, digest_at, here, (), [], marks, kept)
                    loaded = queries.loading.load(conn, at, chosen)
            route, chain, pages = queries.loading.trace(conn, at, chosen, loaded)
            return _Found(head, at, digest_at, route, chain, pages, marks)

        span = telemetry.replay(self.tenant, thread_id, ns)
        with span.current():
            for _ in range(MOVES_MAX):
                found = await self.transactions.run("read", find)
                head, at, last, route, rows, pages, marks, hit = found
                if hit is not None:
                    snapshot, digest = hit.snapshot, hit.link
                    break
                if route.snapshot is not None and not rows:
                    continue  # it was replaced by another one a moment ago
                snapshot, digest = self._snapshot(thread_id, route.snapshot, rows, snapshots)
                if snapshot is not None or route.snapshot is None:
                    break
                snapshots = cached = False  # again, from as far back as the events go
            else:
                raise LineageMovedError(thread_id)
        if snapshot is not None and (hit is None or hit.notes is None):
            await self._load_dictionaries((snapshot.state, *snapshot.items))
        if cached and hit is None and marks is not None and last is not None and head.seq:
            page = pages[-1] if pages else ()
            whole = list(page) if upto is None and _is_whole(head, route, page) else None
            hit = CachedLog.of(at, last, fingerprint, marks, snapshot, digest, whole)
            hit = hit._replace(is_past=upto is not None)
        if snapshot is not None:
            telemetry.starts_at(span, snapshot)
        events = self._lineage(thread_id, head.thread_key, route, digest, pages, span)
        return Replay(head, at, snapshot, span.over(events), hit)

    def replay_known(self, thread_id: str, ns: str, fingerprint: str) -> Replay[Pages] | None:
        """A replay to where this process last saw the log end, if a snapshot in memory is there.

        It asks nobody, so the log may have gone on. An append behind its head is refused then.
        """
        head = self.ends.get(self.tenant, thread_id, ns)
        cached = None if head is None else self.cache.at_end(head, fingerprint)
        if head is None or cached is None:
            return None
        return Replay(head, head.position, cached.snapshot, _no_pages(), cached)

    def _known(self, ns: str, fingerprint: str, thread_key: int) -> tuple[int, int, int] | None:
        return self.cache.known(thread_key, ns, fingerprint)

    def _note_generation(self, thread_id: str, row: queries.loading.ThreadRow | None) -> None:
        """Remember under which key a thread was found, unless it is the first one of its name."""
        if row is not None and row.generation:
            if len(self.generations) >= GENERATIONS_MAX:
                self.generations.clear()
            self.generations[thread_id] = row.generation

    def _head_of(
        self,
        conn: Connection,
        thread_id: str,
        ns: str,
        at: Position,
        row: queries.loading.ThreadRow | None,
    ) -> Head:
        """The end of a log of a thread; ``row`` is that of the thread that a position is in."""
        own = (self.tenant, thread_id, ns)
        is_own = row is not None and (row.tenant, row.thread_id, at.ns) == own
        if row is None or not is_own or row.deleting_since is not None:
            return records.head(*own, queries.threads.look_up(conn, *own))
        return records.head(*own, row)

    def _find_in_cache(
        self,
        conn: Connection,
        head: Head,
        fingerprint: str,
        marks: Marks,
        newer: Rows,
    ) -> _Found | None:
        """What leads to the end of a log, as far as possible from the log cache.

        Args:
            newer: the first events after those in the cache, unless some of them were sealed.
        """
        hit = self.cache.get(head, fingerprint, marks)
        if hit is None or hit.rows is None or head.seq - hit.end.seq > PAGE:
            return None
        if head.seq > hit.end.seq:
            rows = newer
            if not records.is_run(rows, hit.end.seq + 1, head.seq):
                rows = queries.events.read_events(
                    conn, head.thread_key, head.ns, hit.end.seq, head.seq, PAGE
                )
            hit = hit.extended(head.position, rows[-1].digest if rows else b"", rows)
        if hit.digest != head.digest:
            return None
        start = hit.snapshot.position if hit.snapshot else None
        first = start.seq + 1 if start else 1
        stretch = queries.lineage.Stretch(head.thread_key, head.ns, first, head.seq)
        route = queries.lineage.Route(start, [stretch] if hit.rows else [])
        hit, pages = hit._replace(was_found=True), [hit.rows] if hit.rows else []
        return _Found(head, head.position, head.digest, route, (), pages, marks, hit)

    def cache_replay(
        self, replay: Replay[Pages], snapshot: Snapshot | None = None, notes: Any = None
    ) -> Replay[Pages]:
        """Cache the bytes of a replay that had no fault, for the next replay of its log.

        Args:
            snapshot, notes: what the reader folded (see :meth:`CachedLog.folded`); ``None``: keep
                the bytes as they were read.

        Returns:
            The replay, with what is cached now.
        """
        cached: CachedLog | None = replay.cached
        if cached is None:
            return replay
        cache = self.past if cached.is_past else self.cache
        if snapshot is not None:
            folded = cached.folded(snapshot, notes)
            if cache.put(folded):
                return replace(replay, cached=folded)
            cached = cached._replace(is_large=True)
        cache.put(cached)
        return replay if cached is replay.cached else replace(replay, cached=cached)

    async def _lineage(
        self,
        thread_id: str,
        own: int,
        route: queries.lineage.Route,
        digest: bytes | None,
        pages_ready: Sequence[Rows],
        trace: telemetry.Span,
    ) -> Pages:
        """The events of a route; each fork among them must lead from one stretch to the next."""
        come_from = route.snapshot
        for stretch, ready in zip(route.stretches, pages_ready, strict=True):
            link = digest if stretch.before == route.snapshot else None
            async with aclosing(
                self._stream(thread_id, [stretch], link, own, ready, trace)
            ) as pages:
                async for page in pages:
                    yield _checked(thread_id, stretch.first, come_from, page, trace)
            come_from = Position(stretch.thread_key, stretch.ns, stretch.last)

    def _check_at(self, conn: Connection, thread_id: str, at: Position) -> None:
        row = queries.threads.thread_by_key(conn, at.thread_key)
        if row is None or row.tenant != self.tenant or row.deleting_since is not None:
            raise PositionNotFoundError(thread_id, at.ns, at.seq, "its thread does not exist")
        begins = queries.lineage.beginning(conn, at.thread_key, at.ns)
        if begins is not None and at.seq < begins:
            raise _before_beginning(row.thread_id, at, begins)
        last = queries.events.head_seq(conn, at.thread_key, at.ns)
        if not last and queries.lineage.is_trimmed(conn, *at):
            raise _before_beginning(
                row.thread_id, at, queries.lineage.beginning(conn, at.thread_key, "")
            )
        if not 1 <= at.seq <= last and queries.lineage.floor(conn, at) != at.seq:
            given = digests.is_prefix(at.ns)
            reason = queries.lineage.NOT_KEPT if given else f"the log ends at seq {last}"
            raise PositionNotFoundError(row.thread_id, at.ns, at.seq, reason)

    def _snapshot(
        self, thread_id: str, at: Position | None, rows: Sequence[SqlRow], snapshots: bool
    ) -> tuple[Snapshot | None, bytes | None]:
        """A snapshot with its event's digest; ``None`` for a damaged one that is not a base.

        Without ``snapshots`` it can only be a base.
        """
        if at is None:
            return None, None
        try:
            return records.snapshot(at, rows), rows[0].digest
        except CorruptEventError as error:
            if not snapshots or (rows and rows[0].is_base):
                raise error.at(thread_id, at.ns, at.seq) from error
            log.warning(
                "unusable snapshot of thread %r at %d: %s",
                thread_id,
                at.seq,
                error,
                extra={"thread_id": thread_id, "ns": at.ns, "seq": at.seq},
            )
            return None, None


class _Found(NamedTuple):
    """What a replay begins with, as it was at one moment.

    Attributes:
        digest: of the event at the position; ``None``: it has no row of its own.
    """

    head: Head
    at: Position
    digest: bytes | None
    route: queries.lineage.Route
    rows: Rows
    pages: Sequence[Rows]
    marks: Marks | None
    hit: CachedLog | None = None


def _marks_of(loaded: queries.loading.Loaded) -> Marks | None:
    """The marks of a log; ``None`` if a row claims a seq that is none."""
    row = loaded.thread
    if row is None:
        return Marks(None, None)
    if type(row.fork) is not int or type(row.snapshot) is not int:
        return None
    is_base = row.base == row.snapshot
    return Marks(row.fork or None, row.snapshot or None, is_base)


def _is_there(row: queries.loading.ThreadRow | None, tenant: str, seq: int) -> bool:
    """Whether a log that was loaded up to a past position surely has it, not trimmed."""
    if row is None or row.tenant != tenant or row.deleting_since is not None:
        return False
    if type(row.last_seq) is not int or not 1 <= seq <= row.last_seq:
        return False
    return row.base is None or (type(row.base) is int and row.base <= seq)


def _is_whole(head: Head, route: queries.lineage.Route, page: Rows) -> bool:
    """Whether a page holds everything that leads to the end of a log, within that log."""
    own = (head.thread_key, head.ns)
    if not head.seq or (route.snapshot is not None and route.snapshot[:2] != own):
        return False
    if len(route.stretches) != 1:
        return not route.stretches
    stretch = route.stretches[0]
    begins = stretch.first == 1 if route.snapshot is None else stretch.before == route.snapshot
    return begins and stretch[:2] == own and records.is_run(page, stretch.first, head.seq)


def _checked(
    thread_id: str, first: int, come_from: Position | None, page: Page, trace: telemetry.Span
) -> Page:
    """A page of a lineage, with its forks checked.

    A fork may only be the first of a run of events, and must lead on from the end of the run
    before it.
    """
    try:
        for event in page:
            if event.kind == FORK:
                claimed = source_of(thread_id, event)
                led = come_from is not None and claim(*come_from) == claimed
                if event.seq != first or not led:
                    raise CorruptEventError(
                        "the fork's link is missing, or leads elsewhere than the event says"
                    ).at(thread_id, event.ns, event.seq)
            yield event
    except CorruptEventError as error:  # raised where the page is used, outside the span
        trace.fail(error)
        raise


def _before_beginning(thread_id: str, at: Position, begins: int | None) -> PositionNotFoundError:
    return PositionNotFoundError(
        thread_id,
        at.ns,
        at.seq,
        f"history of thread {thread_id!r} begins at seq {begins}: earlier events were trimmed",
    )


def source_of(thread_id: str, event: RecordedEvent) -> tuple[int, str, int]:
    """The position that a fork's event says it goes on from, as :func:`claim` names it.

    Raises:
        CorruptEventError: it says none.
    """
    source = event.data.get("source") if isinstance(event.data, dict) else None
    if not isinstance(source, list | tuple) or [*map(type, source)] != [int, str, int]:
        raise CorruptEventError("the fork does not say where it goes on from").at(
            thread_id, event.ns, event.seq
        )
    return claim(*source)


def claim(thread_key: int, ns: str, seq: int) -> tuple[int, str, int]:
    """A position, named by the log that it was first written to, wherever a copy of it is now."""
    return (*digests.origin(thread_key, ns), seq)
