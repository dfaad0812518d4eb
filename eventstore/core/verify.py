"""Verifying and measuring: is everything as it was written, and how much is stored?

Both only read, page by page. Verifying lists every problem instead of stopping at the first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from eventstore import queries
from eventstore.core.read import MOVES_MAX, PAGE, Reading, claim
from eventstore.errors import CorruptEventError, LineageMovedError, ThreadNotFoundError
from eventstore.format import digests, records
from eventstore.limits import check_name
from eventstore.models import FORK, Position, SqlRow, Stats, VerifyReport
from eventstore.queries import Connection

_HEADER_BYTES: Final = 32


class Verifying(Reading):
    """Checks and measures what is stored."""

    async def verify(self, thread_id: str) -> VerifyReport:
        """Walk the digest chain of every log of a thread, decode everything, check every link.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        for _ in range(MOVES_MAX):
            try:
                report, beginnings = await self._verify(thread_id)
                if report.ok or beginnings == await self._beginnings(thread_id):
                    return report
            except LineageMovedError:
                continue  # trimmed while we read: verify what is left
        raise LineageMovedError(thread_id)

    async def _beginnings(self, thread_id: str) -> dict[str, int]:
        """Where each log of a thread begins."""

        def look_up(conn: Connection) -> dict[str, int]:
            key = self.key_of(conn, thread_id)
            return {ns: first for ns, first, _ in queries.events.namespaces(conn, key)}

        return await self.transactions.run("read", look_up)

    async def _verify(self, thread_id: str) -> tuple[VerifyReport, dict[str, int]]:
        """A report, and where the logs began before it was made."""
        problems: list[str] = []
        beginnings = await self._beginnings(thread_id)

        def survey(conn: Connection) -> tuple[int, list[_Log]]:
            problems.clear()  # a transaction may be tried again
            key, logs = self.key_of(conn, thread_id), []
            for ns, _, _ in queries.events.namespaces(conn, key):
                try:
                    check_name("a namespace", ns)
                    runs = queries.events.runs(conn, key, ns)
                except ValueError as error:
                    problems.append(f"namespace {ns!r}: a name or a seq was damaged: {error}")
                    continue
                snapshots = queries.snapshots.snapshots_of(conn, key, ns)
                forks = queries.forks.forks_of(conn, key, ns)
                logs.append(_Log(ns, runs, snapshots, forks))
                problems.extend(
                    f"{ns!r} seq {fork.seq}: the position that the fork goes on from is missing"
                    for fork in forks
                    if not _is_whole(conn, fork)
                )
            return key, logs

        key, logs = await self.transactions.run("snapshot_read", survey)
        events = 0
        for each in logs:
            try:
                events += await self._verify_log(thread_id, key, each, problems)
            except records.WRONG_TYPE as error:
                problems.append(f"namespace {each.ns!r}: a column was damaged: {error}")
        if await self.thread_at(key) is None:  # rows were missing because it was being deleted
            raise ThreadNotFoundError(thread_id, self.tenant)
        report = VerifyReport(
            thread_id,
            tuple(each.ns for each in logs),
            events,
            sum(len(each.snapshots) for each in logs),
            tuple(problems),
        )
        return report, beginnings

    async def _verify_log(self, thread_id: str, key: int, each: _Log, problems: list[str]) -> int:
        """Verify one log; adds to the problems, and returns how many events are intact."""
        linked = {
            fork.seq: claim(fork.source_thread_key, fork.source_ns, fork.source_seq)
            for fork in each.forks
        }
        digests: dict[int, bytes] = {}
        keys: dict[int, str] = {}
        for stretch, digest in self._verifiable(key, each.ns, each.runs, each.snapshots, problems):
            try:
                async for page in self._stream(thread_id, [stretch], digest, key):
                    for event in page:
                        digests[event.seq] = event.digest
                        if event.key is not None:
                            keys[event.seq] = event.key
                        if event.kind == FORK:
                            if linked.get(event.seq) != claim(*event.data["source"]):
                                problems.append(
                                    f"{each.ns!r} seq {event.seq}: the fork's link is wrong"
                                )
            except CorruptEventError as error:
                problems.append(str(error))
        found = (
            await self.transactions.run("read", queries.events.keys_of, key, each.ns)
            if keys
            else {}
        )
        problems += [
            f"{each.ns!r} seq {seq}: the event cannot be found by its key {name!r}"
            for seq, name in keys.items()
            if found.get(seq) != name
        ]
        problems += _snapshot_problems(thread_id, each.ns, each.snapshots, digests)
        return len(digests)

    def _verifiable(
        self,
        key: int,
        ns: str,
        runs: Sequence[tuple[int, int]],
        snapshots: Sequence[SqlRow],
        problems: list[str],
    ) -> Iterator[tuple[queries.lineage.Stretch, bytes | None]]:
        """The runs of events of a log, each with the digest before it.

        A log begins at seq 1, or after or at a base; a prefix, given to a fork of a deleted
        thread, may also begin with an event that is stored for its digest alone.
        """
        bases = {row.seq: row.digest for row in snapshots if row.is_base}
        for start, end in runs:
            digest = bases.get(start - 1)
            if digest is None and start in bases:  # trimmed: the row of its last event stayed
                digest = bases[start]
                start += 1
            elif digest is None and start > 1:
                if digests.origin(key, ns) == (key, ns):
                    problems.append(f"{ns!r}: the events before seq {start} are missing")
                start += 1
            yield queries.lineage.Stretch(key, ns, start, end), digest

    async def stats(self, thread_id: str | None = None) -> Stats:
        """How much is stored, for one thread or for all of this tenant's.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        total = [0] * 7
        async for key in self._keys(thread_id):
            total[0] += 1
            async for rows in self._sizes(key):
                for row in rows:
                    total[1] += 1
                    total[2] += self.codec.raw_size(row.start, row.stored)
                    total[3] += row.stored
            sealed = await self.transactions.run("read", queries.events.sealed_totals, key)
            total[1] += sealed.events
            total[2] += sealed.raw
            total[3] += sealed.stored
            total[6] += sealed.events
            count, size = await self.transactions.run("read", queries.listing.snapshot_sizes, key)
            total[4] += count
            total[5] += size
        return Stats(*total)

    async def _keys(self, thread_id: str | None) -> AsyncIterator[int]:
        if thread_id is not None:
            yield (await self.thread(thread_id)).thread_key
            return
        after = -1
        while page := await self.transactions.run(
            "read", queries.listing.thread_keys, self.tenant, after, PAGE
        ):
            for key in page:
                yield key
            after = page[-1]

    async def _sizes(self, key: int) -> AsyncIterator[Sequence[SqlRow]]:
        after = ("", 0)
        while rows := await self.transactions.run(
            "read", queries.listing.payload_sizes, key, after, PAGE, _HEADER_BYTES
        ):
            yield rows
            after = (rows[-1].ns, rows[-1].seq)


class _Log(NamedTuple):
    """A log as it was at one moment, without its events."""

    ns: str
    runs: list[tuple[int, int]]
    snapshots: Sequence[SqlRow]
    forks: Sequence[SqlRow]


def _is_whole(conn: Connection, fork: SqlRow) -> bool:
    """Whether the position that a fork goes on from is there."""
    source = Position(fork.source_thread_key, fork.source_ns, fork.source_seq)
    try:
        return queries.lineage.can_be_reached(conn, source)
    except records.WRONG_TYPE:
        return False


def _snapshot_problems(
    thread_id: str, ns: str, rows: Sequence[SqlRow], digests: Mapping[int, bytes]
) -> Iterator[str]:
    """The problems of a log's snapshots, given the digests of its events."""
    present = {row.seq for row in rows}
    for row in rows:
        where = f"thread {thread_id!r}, namespace {ns!r}, snapshot at seq {row.seq}"
        if not records.verifies(row):
            yield f"{where}: does not match its checksum"
        elif row.rests_on is not None and row.rests_on not in present:
            yield f"{where}: rests on one at seq {row.rests_on}, which is missing"
        elif digests.get(row.seq, row.digest) != row.digest:
            yield f"{where}: was taken of another history"
