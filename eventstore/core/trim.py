"""Trimming: a snapshot becomes the base of a log, what was before it goes, the state stays.

Done in steps, each of them one transaction after which the thread is whole. A log is cut only
where a sound snapshot is there already, so no type and no reducer of the application is needed;
and only where no fork of the thread still goes back behind it. Forks of other threads are given
what they need of it first.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Final, Literal, NamedTuple

from eventstore import queries
from eventstore.core.read import MOVES_MAX, Reading
from eventstore.errors import ThreadNotFoundError
from eventstore.format import namespaces, records
from eventstore.models import SqlRow, ThreadInfo, from_micros
from eventstore.queries import Connection
from eventstore.queries.trim import Kept, Survey

log = logging.getLogger(__name__)

STEP: Final = 1_000
"""Events that are trimmed in one transaction, unless two points are farther apart."""


@dataclass(frozen=True, slots=True)
class TrimPoint:
    """A place where a log can be cut.

    Attributes:
        seq: of the snapshot that would become the base; up to here events would go.
        step: how many checkpoints there were up to it, as the layer above counts.
        recorded_at: when the event at ``seq`` was recorded, UTC.
        events: how many events of that log would go.
    """

    seq: int
    step: int | None
    recorded_at: datetime
    events: int


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a trim removed, or would remove.

    Attributes:
        events: of all logs of the thread.
        bytes: stored bytes of these events and of the snapshots that went.
        snapshots: older ones, which the base does not rest on.
        logs: those that went whole, because nothing leads to them any more.
        base: seq at which the history of the root's log begins now; 0: at its first event.
    """

    events: int = 0
    bytes: int = 0
    snapshots: int = 0
    logs: int = 0
    base: int = 0


class _Cut(NamedTuple):
    """One step: the snapshot that becomes the base, with all that it rests on, newest first."""

    chain: tuple[Kept, ...]

    @property
    def seq(self) -> int:
        return self.chain[0].seq


class _Moved(Exception):
    """What was to become the base went away, or was replaced."""


class Trimming(Reading):
    """What takes the old part away from a thread."""

    async def trim_points(self, thread_id: str, ns: str = "") -> list[TrimPoint]:
        """Where a log can be cut, oldest first."""

        def look(conn: Connection) -> list[TrimPoint]:
            key = self._key_of(conn, thread_id)
            survey = queries.trim.survey(conn, key, ns)
            sound = _Soundness(conn, key, ns, survey)
            return [
                TrimPoint(
                    kept.seq, kept.step, from_micros(kept.recorded_at or 0), kept.seq - survey.base
                )
                for kept in _possible(survey, ns)
                if sound.of(kept)
            ]

        return await self.transactions.run("read", look)

    async def trim(
        self,
        thread_id: str,
        seq: int,
        reason: str = "trimmed",
        *,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
        dry_run: bool = False,
    ) -> Trimmed:
        """Remove what is before the last point at or before ``seq`` at which that is possible."""
        if dry_run:
            return await self.transactions.run("read", self._measure, thread_id, seq, keep_if)
        total, moves, rounds = Trimmed(), 0, 0
        while moves < MOVES_MAX and rounds < queries.lineage.LINEAGE_MAX:
            key, base, cut = await self.transactions.run("read", self._next, thread_id, seq)
            total = _sum(total, Trimmed(base=base))
            if cut is None:
                break
            done = await self._step(thread_id, key, cut, keep_if)
            self.cache.forget(key)
            if done == "kept":
                break
            if done == "needed":
                rounds += 1
                await self._rehome(key, cut.chain[0])
            elif done == "moved":
                moves += 1
            else:
                total = _sum(total, done)
        if total.events:
            log.info(
                "thread %r trimmed (%s): its history begins at seq %d",
                thread_id,
                reason,
                total.base,
                extra={"thread_id": thread_id, "seq": total.base, "events": total.events},
            )
        return total

    def _key_of(self, conn: Connection, thread_id: str) -> int:
        row = queries.threads.look_up(conn, self.tenant, thread_id, "")
        if row is None:
            raise ThreadNotFoundError(thread_id, self.tenant)
        return int(row.thread_key)

    def _next(self, conn: Connection, thread_id: str, upto: int) -> tuple[int, int, _Cut | None]:
        """A thread's key, where its history begins, and the next step on the way to ``upto``."""
        key = self._key_of(conn, thread_id)
        survey = queries.trim.survey(conn, key, "")
        sound = _Soundness(conn, key, "", survey)
        points = [kept for kept in _possible(survey, "") if kept.seq <= upto]
        near = bisect_right(points, STEP, key=lambda kept: _weight(survey, kept))
        ordered = [*reversed(points[:near]), *points[near:]]
        found = next(filter(sound.of, ordered), None)
        return key, survey.base, found and _cut_at(survey, found.seq)

    def _measure(
        self,
        conn: Connection,
        thread_id: str,
        upto: int,
        keep_if: Callable[[ThreadInfo], bool] | None,
    ) -> Trimmed:
        key = self._key_of(conn, thread_id)
        survey = queries.trim.survey(conn, key, "")
        sound = _Soundness(conn, key, "", survey)
        points = [kept for kept in _possible(survey, "") if kept.seq <= upto]
        last = next(filter(sound.of, reversed(points)), None)
        row = queries.threads.thread_by_key(conn, key)
        kept = row is None or (keep_if is not None and keep_if(records.thread_info(row)))
        if last is None or kept:
            return Trimmed(base=survey.base)
        cut = _cut_at(survey, last.seq)
        return _told(conn, key, survey, last.seq, _dropped(survey, cut), _dead(survey, last))

    async def _step(
        self,
        thread_id: str,
        key: int,
        cut: _Cut,
        keep_if: Callable[[ThreadInfo], bool] | None,
    ) -> Trimmed | Literal["kept", "needed", "moved"]:
        """One step, if it is still possible, and nobody else needs what would go."""
        told: list[Trimmed] = []

        def run(conn: Connection) -> Trimmed | Literal["kept", "needed", "moved"]:
            row = queries.delete.lock(conn, key)
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            survey = queries.trim.survey(conn, key, "")
            if told and survey.base >= cut.seq:
                return told[-1]  # a commit in doubt went through
            if keep_if is not None and keep_if(records.thread_info(row)):
                return "kept"
            if _cut_at(survey, cut.seq) != cut or not _may_cut(survey, "", cut.chain[0]):
                return "moved"
            dead = _dead(survey, cut.chain[0])
            if _needed(queries.forks.all_dependants(conn, key), cut.seq, dead):
                return "needed"
            dropped = _dropped(survey, cut)
            told.append(_told(conn, key, survey, cut.seq, dropped, dead))
            if not queries.trim.make_base(conn, key, "", [each.seq for each in cut.chain]):
                raise _Moved
            queries.trim.cut(conn, key, "", cut.seq, is_end=cut.seq == survey.head)
            queries.trim.drop(conn, key, "", dropped, sorted(dead))
            return told[-1]

        try:
            return await self.transactions.run("idempotent_write", run)
        except _Moved:
            return "moved"

    async def _rehome(self, key: int, cut: Kept) -> None:
        """Give the forks of other threads what they need of a thread that will be cut."""

        def look(conn: Connection) -> list[SqlRow]:
            survey = queries.trim.survey(conn, key, "")
            dead = _dead(survey, cut)
            return _needed(queries.forks.all_dependants(conn, key), cut.seq, dead)

        def detach_fork(conn: Connection, fork: SqlRow) -> None:
            # Held, so that nobody cuts it while we copy.
            if queries.threads.is_live(conn, key):
                queries.forks.detach_fork(conn, fork)

        for fork in await self.transactions.run("read", look):
            await self.transactions.run("idempotent_write", detach_fork, fork)


class _Soundness:
    """Whether snapshots of a log, whole ones, are what was stored; each is looked at once."""

    def __init__(self, conn: Connection, key: int, ns: str, survey: Survey) -> None:
        self._conn = conn
        self._log = (key, ns)
        self._by_seq = {kept.seq: kept for kept in survey.snapshots}
        self._known: dict[int, bool] = {}

    def of(self, kept: Kept) -> bool:
        """Whether a snapshot and all that it rests on are sound."""
        links = _chain(self._by_seq, kept.seq)
        new = list(takewhile(lambda each: each.seq not in self._known, links))
        for each in reversed(new):
            below = each.rests_on is None or self._known[each.rests_on]
            self._known[each.seq] = below and self._is_sound(each)
        return self._known[kept.seq]

    def _is_sound(self, kept: Kept) -> bool:
        row = queries.trim.snapshot(self._conn, *self._log, kept.seq)
        event = queries.trim.event_digest(self._conn, *self._log, kept.seq)
        return (
            row is not None
            and row.checksum == kept.checksum
            and records.verifies(row)
            and event in (None, row.digest)
        )


def _possible(survey: Survey, ns: str) -> list[Kept]:
    """Where a log may be cut, oldest first, going by all but the bytes of its snapshots."""
    whole: set[int] = set()
    for kept in survey.snapshots:  # oldest first, so that what one rests on was there before it
        if kept.rests_on is None or kept.rests_on in whole:
            whole.add(kept.seq)
    return [kept for kept in survey.snapshots if kept.seq in whole and _may_cut(survey, ns, kept)]


def _may_cut(survey: Survey, ns: str, kept: Kept) -> bool:
    """Whether a log may be cut at a snapshot that is there with all that it rests on.

    Nobody here knows which code reads the log: a snapshot counts if it was made by the code that
    made the newest.
    """
    return (
        survey.base < kept.seq <= survey.head
        and kept.recorded_at is not None
        and kept.fingerprint == survey.snapshots[-1].fingerprint
        and not _is_forbidden(survey, ns, kept)
    )


def _cut_at(survey: Survey, seq: int) -> _Cut:
    """The cut at a snapshot, with what that rests on as far as it is there."""
    return _Cut(tuple(_chain({kept.seq: kept for kept in survey.snapshots}, seq)))


def _chain(by_seq: Mapping[int, Kept], seq: int) -> Iterator[Kept]:
    """A snapshot and what it rests on, as far as that is there."""
    at: int | None = seq
    while at is not None and (kept := by_seq.get(at)) is not None:
        yield kept
        at = kept.rests_on if kept.rests_on is not None and kept.rests_on < at else None


def _dead(survey: Survey, cut: Kept) -> frozenset[str]:
    """The logs that a cut at this snapshot makes useless.

    Only a layer that names logs by the rule of :mod:`eventstore.format.namespaces` counts steps:
    in a log whose snapshots have none, the names follow no rule, whatever they look like.
    """
    named = cut.step is not None
    return namespaces.outlived(survey.events, survey.links, cut.seq, named=named)


def _is_forbidden(survey: Survey, ns: str, cut: Kept) -> bool:
    """Whether a fork that stays goes on from a place before the cut.

    From the base itself it may: that can still be read.
    """
    back = [link for link in survey.links if link.source_ns == ns and link.source_seq < cut.seq]
    if any(link.ns == ns and link.seq > cut.seq for link in back):
        return True
    others = {link.ns for link in back if link.ns != ns}
    return bool(others) and not others <= _dead(survey, cut)


def _weight(survey: Survey, cut: Kept) -> int:
    """How many events would go, about."""
    inner = sum(
        count
        for name, count in survey.events.items()
        if (began := namespaces.began(name)) is not None and began < cut.seq
    )
    return cut.seq - survey.base + inner


def _dropped(survey: Survey, cut: _Cut) -> list[int]:
    """The snapshots that go: older ones, and (of other code) later ones that rest on them."""
    stay = {kept.seq for kept in cut.chain}
    dropped: dict[int, None] = {}
    for kept in survey.snapshots:  # oldest first, so that what one rests on was there before it
        if kept.seq not in stay and (kept.seq < cut.seq or kept.rests_on in dropped):
            dropped[kept.seq] = None
    return list(dropped)


def _needed(forks: Sequence[SqlRow], cut: int, dead: Collection[str]) -> list[SqlRow]:
    """The forks of other threads that must be given what they need before a cut.

    With each of them go the other forks of its thread, but for those that go on from the root's
    log behind the cut: what they go on from together is to be found together.
    """
    moving = {
        fork.thread_key
        for fork in forks
        if (fork.source_seq < cut if not fork.source_ns else fork.source_ns in dead)
    }
    return [
        fork
        for fork in forks
        if fork.thread_key in moving and (fork.source_ns or fork.source_seq < cut)
    ]


def _told(
    conn: Connection,
    key: int,
    survey: Survey,
    cut: int,
    dropped: Iterable[int],
    dead: Collection[str],
) -> Trimmed:
    """What a cut removes."""
    size = queries.trim.size(conn, key, "", cut, dropped, sorted(dead))
    events = cut - survey.base + size.events
    return Trimmed(events, size.bytes, size.snapshots, len(dead), cut)


def _sum(one: Trimmed, other: Trimmed) -> Trimmed:
    return Trimmed(
        one.events + other.events,
        one.bytes + other.bytes,
        one.snapshots + other.snapshots,
        one.logs + other.logs,
        max(one.base, other.base),
    )
