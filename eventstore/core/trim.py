"""Trimming: a snapshot becomes the base of a log, earlier events are removed, the state stays.

Done in steps, each of them one transaction after which the thread is whole. A log is trimmed only
at a sound snapshot that is stored already, so no type and no reducer of the application is needed;
and only where no fork of the thread goes back further. Forks of other threads are first given the
bytes they need.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any, Final, Literal, NamedTuple

from eventstore import queries
from eventstore.core.read import MOVES_MAX, Reading
from eventstore.errors import CorruptEventError, ThreadNotFoundError
from eventstore.format import namespaces, records
from eventstore.limits import check_name, check_number
from eventstore.models import SqlRow, ThreadInfo, from_micros
from eventstore.queries import Conflict, Connection
from eventstore.queries.removing.trim import Kept, Survey

log = logging.getLogger(__name__)

STEP: Final = 1_000
"""Events trimmed in one transaction, unless two trim points are farther apart."""


@dataclass(frozen=True, slots=True)
class TrimPoint:
    """A position at which a log can be trimmed.

    Attributes:
        seq: of the snapshot that would become the base; events up to here would be removed.
        step: how many checkpoints there were up to it, as the layer above counts.
        recorded_at: when the event at ``seq`` was recorded, UTC.
        events: how many events of that log would be removed.
    """

    seq: int
    step: int | None
    recorded_at: datetime
    events: int


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a trim removed, or would remove.

    Attributes:
        events: in all logs of the thread.
        bytes: stored bytes of these events and of the snapshots that were removed.
        snapshots: older ones that the base does not rest on.
        logs: logs removed whole, because nothing leads to them any more.
        base: seq after which the history of the root log begins now; 0: it is complete.
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
    """The snapshot to become the base was removed or replaced."""


class Trimming(Reading):
    """Removes the old history of threads."""

    async def trim_points(self, thread_id: str, ns: str = "") -> list[TrimPoint]:
        """Where a log can be trimmed, oldest first: at sound snapshots that no fork goes back past.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        check_name("a namespace", ns)

        def find(conn: Connection) -> list[TrimPoint]:
            key = self.key_of(conn, thread_id)
            survey = queries.trim.survey(conn, key, ns)
            sound = _Soundness(conn, key, ns, survey)
            return [
                TrimPoint(
                    kept.seq, kept.step, from_micros(kept.recorded_at or 0), kept.seq - survey.base
                )
                for kept in _possible(survey, ns)
                if sound.of(kept)
            ]

        return await self.transactions.run("read", find)

    async def trim(
        self,
        thread_id: str,
        seq: int,
        reason: str = "trimmed",
        *,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
        dry_run: bool = False,
    ) -> Trimmed:
        """Remove the history before the last of the :meth:`trim_points` at or before ``seq``.

        The state stays, and so does the history from that point on: its snapshot becomes the base
        of the root log. The events up to it are removed, and the logs of subgraphs that ran for
        them (if the snapshot has a ``step``, as a graph's have; other logs are never removed,
        whatever their names). Forks of the thread are first given the bytes they need. It is done
        in steps, each a transaction after which the thread is whole: a process that is killed
        leaves a thread that is trimmed less far. Without such a point nothing happens.

        Keys of removed events are forgotten: an append with such a key is stored again. Do not
        trim past what somebody may still send again.

        Args:
            reason: for the program's own log.
            keep_if: called in each step's transaction; true leaves the thread as it is then.
            dry_run: only count what would be removed.

        Raises:
            ThreadNotFoundError: no such thread.
            CorruptEventError: the thread is damaged, so that a step would change nothing.
        """
        check_number("seq", seq)
        if dry_run:
            return await self.transactions.run("read", self._measure, thread_id, seq, keep_if)
        total, moves = Trimmed(), 0
        detached: set[tuple[Any, ...]] = set()
        while moves < MOVES_MAX and not self.should_stop():
            key, base, cut = await self.transactions.run("read", self._next, thread_id, seq)
            if cut is None:
                total = _sum(total, Trimmed(base=base))
                break
            if cut.seq <= total.base:
                raise _without_effect(thread_id, cut.seq)
            total = _sum(total, Trimmed(base=base))
            done = await self._step(thread_id, key, cut, keep_if)
            self.forget(key)
            if done == "kept":
                break
            if done == "needed":
                found = await self._detach_forks(key, cut.chain[0])
                if found & detached:  # they depend on the thread even so
                    raise _without_effect(thread_id, cut.seq)
                detached |= found
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

    def _next(self, conn: Connection, thread_id: str, upto: int) -> tuple[int, int, _Cut | None]:
        """A thread's key, where its history begins, and the next step towards ``upto``."""
        key = self.key_of(conn, thread_id)
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
        key = self.key_of(conn, thread_id)
        survey = queries.trim.survey(conn, key, "")
        sound = _Soundness(conn, key, "", survey)
        points = [kept for kept in _possible(survey, "") if kept.seq <= upto]
        last = next(filter(sound.of, reversed(points)), None)
        row = queries.threads.thread_by_key(conn, key)
        kept = row is None or (keep_if is not None and keep_if(records.thread_info(row)))
        if last is None or kept:
            return Trimmed(base=survey.base)
        cut = _cut_at(survey, last.seq)
        return _measured(
            conn, key, survey, last.seq, _dropped(survey, cut), _unreachable(survey, last)
        )

    async def _step(
        self,
        thread_id: str,
        key: int,
        cut: _Cut,
        keep_if: Callable[[ThreadInfo], bool] | None,
    ) -> Trimmed | Literal["kept", "needed", "moved"]:
        """One step, if it is still possible and no other thread needs what would be removed."""
        removed: list[Trimmed] = []

        def run(conn: Connection) -> Trimmed | Literal["kept", "needed", "moved"]:
            row = queries.delete.lock(conn, key)
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            survey = queries.trim.survey(conn, key, "")
            if removed and survey.base >= cut.seq:
                return removed[-1]  # the commit in doubt went through
            if keep_if is not None and keep_if(records.thread_info(row)):
                return "kept"
            if _cut_at(survey, cut.seq) != cut or not _may_cut(survey, "", cut.chain[0]):
                return "moved"
            unreachable = _unreachable(survey, cut.chain[0])
            if _needed(queries.forks.all_dependants(conn, key), cut.seq, unreachable):
                return "needed"
            dropped = _dropped(survey, cut)
            removed.append(_measured(conn, key, survey, cut.seq, dropped, unreachable))
            if not queries.trim.make_base(conn, key, "", [each.seq for each in cut.chain]):
                raise _Moved
            queries.trim.cut(conn, key, "", cut.seq, is_end=cut.seq == survey.head)
            queries.trim.drop(conn, key, "", dropped, sorted(unreachable))
            left = queries.events.read_events(conn, key, "", 0, cut.seq - 1, 1)
            if left or queries.lineage.beginning(conn, key, "") != cut.seq:
                raise _without_effect(thread_id, cut.seq)  # nothing of it is stored
            return removed[-1]

        try:
            return await self.transactions.run("idempotent_write", run)
        except _Moved:
            return "moved"
        except Conflict as error:
            raise _without_effect(thread_id, cut.seq) from error

    async def _detach_forks(self, key: int, cut: Kept) -> set[tuple[Any, ...]]:
        """Give the forks of other threads the bytes they need of a thread to be trimmed.

        Returns:
            The links of these forks, as they were before.
        """

        def find(conn: Connection) -> list[SqlRow]:
            survey = queries.trim.survey(conn, key, "")
            unreachable = _unreachable(survey, cut)
            return _needed(queries.forks.all_dependants(conn, key), cut.seq, unreachable)

        def detach_fork(conn: Connection, fork: SqlRow) -> None:
            # Locked, so that nobody trims it while we copy.
            if queries.threads.is_live(conn, key):
                queries.forks.detach_fork(conn, fork)

        forks = await self.transactions.run("read", find)
        for fork in forks:
            await self.transactions.run("idempotent_write", detach_fork, fork)
        return {tuple(fork) for fork in forks}


def _without_effect(thread_id: str, seq: int) -> CorruptEventError:
    return CorruptEventError(
        "trimming here changes nothing: an index or a row of the thread is damaged; run "
        "eventstore verify"
    ).at(thread_id, "", seq)


class _Soundness:
    """Whether complete snapshots of a log are what was stored; each is checked once."""

    def __init__(self, conn: Connection, key: int, ns: str, survey: Survey) -> None:
        self._conn = conn
        self._log = (key, ns)
        self._by_seq = {kept.seq: kept for kept in survey.snapshots}
        self._known: dict[int, bool] = {}

    def of(self, kept: Kept) -> bool:
        """Whether a snapshot and all snapshots that it rests on are sound."""
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
    """Where a log may be trimmed, oldest first, judged without the bytes of its snapshots."""
    whole: set[int] = set()
    for kept in survey.snapshots:  # oldest first: a snapshot comes after those it rests on
        if kept.rests_on is None or kept.rests_on in whole:
            whole.add(kept.seq)
    return [kept for kept in survey.snapshots if kept.seq in whole and _may_cut(survey, ns, kept)]


def _may_cut(survey: Survey, ns: str, kept: Kept) -> bool:
    """Whether a log may be trimmed at a complete snapshot.

    Which code reads the log is unknown here: a snapshot counts if it was made by the same code as
    the newest.
    """
    return (
        survey.base < kept.seq <= survey.head
        and kept.recorded_at is not None
        and kept.fingerprint == survey.snapshots[-1].fingerprint
        and not _is_forbidden(survey, ns, kept)
    )


def _cut_at(survey: Survey, seq: int) -> _Cut:
    """The cut at a snapshot, with the snapshots that it rests on, as far as they exist."""
    return _Cut(tuple(_chain({kept.seq: kept for kept in survey.snapshots}, seq)))


def _chain(by_seq: Mapping[int, Kept], seq: int) -> Iterator[Kept]:
    """A snapshot and those that it rests on, as far as they exist."""
    at: int | None = seq
    while at is not None and (kept := by_seq.get(at)) is not None:
        yield kept
        at = kept.rests_on if kept.rests_on is not None and kept.rests_on < at else None


def _unreachable(survey: Survey, cut: Kept) -> frozenset[str]:
    """The logs that nothing leads to after a cut at this snapshot.

    Only a layer that names logs by the rule of :mod:`eventstore.format.namespaces` counts steps:
    where snapshots have none, the names follow no rule, whatever they look like.
    """
    named = cut.step is not None
    return namespaces.outlived(survey.events, survey.links, cut.seq, named=named)


def _is_forbidden(survey: Survey, ns: str, cut: Kept) -> bool:
    """Whether a fork that stays goes on from a position before the cut.

    It may go on from the base itself, which can still be read.
    """
    back = [link for link in survey.links if link.source_ns == ns and link.source_seq < cut.seq]
    if any(link.ns == ns and link.seq > cut.seq for link in back):
        return True
    others = {link.ns for link in back if link.ns != ns}
    return bool(others) and not others <= _unreachable(survey, cut)


def _weight(survey: Survey, cut: Kept) -> int:
    """About how many events would be removed."""
    inner = sum(
        count
        for name, count in survey.events.items()
        if (began := namespaces.began(name)) is not None and began < cut.seq
    )
    return cut.seq - survey.base + inner


def _dropped(survey: Survey, cut: _Cut) -> list[int]:
    """The snapshots to remove: older ones, and (of other code) later ones that rest on them."""
    stay = {kept.seq for kept in cut.chain}
    dropped: dict[int, None] = {}
    for kept in survey.snapshots:  # oldest first: a snapshot comes after those it rests on
        if kept.seq not in stay and (kept.seq < cut.seq or kept.rests_on in dropped):
            dropped[kept.seq] = None
    return list(dropped)


def _needed(forks: Sequence[SqlRow], cut: int, unreachable: Collection[str]) -> list[SqlRow]:
    """The forks of other threads that must be detached before a cut.

    With each of them the other forks of its thread are detached, except those that go on from the
    root log after the cut: what they go on from together must be found together.
    """
    moving = {
        fork.thread_key
        for fork in forks
        if (fork.source_seq < cut if not fork.source_ns else fork.source_ns in unreachable)
    }
    return [
        fork
        for fork in forks
        if fork.thread_key in moving and (fork.source_ns or fork.source_seq < cut)
    ]


def _measured(
    conn: Connection,
    key: int,
    survey: Survey,
    cut: int,
    dropped: Iterable[int],
    unreachable: Collection[str],
) -> Trimmed:
    """What a cut removes."""
    size = queries.trim.size(conn, key, "", cut, dropped, sorted(unreachable))
    events = cut - survey.base + size.events
    return Trimmed(events, size.bytes, size.snapshots, len(unreachable), cut)


def _sum(one: Trimmed, other: Trimmed) -> Trimmed:
    return Trimmed(
        one.events + other.events,
        one.bytes + other.bytes,
        one.snapshots + other.snapshots,
        one.logs + other.logs,
        max(one.base, other.base),
    )
