"""Verifying and measuring: is everything as it was written, and how much is stored?

Both only read, page by page. Verifying lists every problem instead of stopping at the first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from eventstore import queries
from eventstore.core.read import MOVES_MAX, Reading
from eventstore.core.replay import claim, source_of
from eventstore.db import maintenance, schema
from eventstore.errors import CorruptEventError, LineageMovedError, ThreadNotFoundError
from eventstore.format import checks, digests, records
from eventstore.limits import check_name
from eventstore.models import (
    FORK,
    DatabaseReport,
    Position,
    SqlRow,
    Stats,
    ThreadDamage,
    VerifyReport,
)
from eventstore.queries import Connection

_HEADER_BYTES: Final = 32

_HIDDEN_ROWS: Final = 10_000

_SIZES: Final = 4_000
"""Events whose sizes are read at once: a hundred bytes of each."""
"""Rows after the last event of a log among which verifying looks for more of it, on SQLite."""


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
            except CorruptEventError as error:
                return VerifyReport(thread_id, (), 0, 0, (str(error),))
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
                    snapshots = queries.snapshots.snapshots_of(conn, key, ns)
                    forks = queries.forks.forks_of(conn, key, ns)
                    floor = queries.lineage.beginning(conn, key, ns)
                except (ValueError, CorruptEventError) as error:
                    problems.append(f"namespace {ns!r}: a name or a seq was damaged: {error}")
                    continue
                logs.append(_Log(ns, runs, snapshots, forks))
                for fork in forks:
                    if not _is_whole(conn, fork):
                        problems.append(
                            f"{ns!r} seq {fork.seq}: the position that the fork goes on from is "
                            "missing"
                        )
                    elif not queries.forks.is_found_by_source(conn, fork):
                        problems.append(
                            f"{ns!r} seq {fork.seq}: the fork cannot be found by its source"
                        )
                problems.extend(
                    f"{ns!r}: the snapshot at seq {row.seq} is no base, and is marked as one"
                    for row in snapshots
                    if row.is_base and not digests.is_prefix(ns) and row.seq > (floor or 0)
                )
            return key, logs

        key, logs = await self.transactions.run("snapshot_read", survey)
        if not beginnings:
            problems.append(f"thread {thread_id!r} has no events: an index or rows are damaged")
        events = 0
        for each in logs:
            try:
                events += await self._verify_log(thread_id, key, each, problems)
            except (CorruptEventError, *records.WRONG_TYPE) as error:
                problems.append(f"namespace {each.ns!r}: it cannot be verified: {error}")
        row = await self.transactions.run("read", queries.threads.thread_by_key, key)
        if row is None or row.deleting_since is not None:
            raise ThreadNotFoundError(thread_id, self.tenant)  # so rows were missing
        last = await self.transactions.run("read", queries.events.head_seq, key, "")
        for check in (
            lambda: records.thread_info(row),
            lambda: checks.check_reached(thread_id, row.reached, last),
        ):
            try:
                check()
            except CorruptEventError as error:
                problems.append(str(error))
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
        wanted = {row.seq for row in each.snapshots}
        at_snapshots: dict[int, bytes] = {}
        keyed: dict[int, tuple[str, int, int, bytes]] = {}
        events = 0
        for stretch, digest in self._verifiable(key, each.ns, each.runs, each.snapshots, problems):
            try:
                async for page in self._stream(thread_id, [stretch], digest, key):
                    for event in page:
                        events += 1
                        if event.seq in wanted:
                            at_snapshots[event.seq] = event.digest
                        if event.key is not None:
                            row = (event.key, event.kind, event.recorded_us, event.digest)
                            keyed[event.seq] = row
                        if event.kind != FORK and event.seq in linked:
                            problems.append(
                                f"{each.ns!r} seq {event.seq}: a link stands at what is no fork"
                            )
                        if event.kind == FORK:
                            if linked.get(event.seq) != source_of(thread_id, event):
                                problems.append(
                                    f"{each.ns!r} seq {event.seq}: the fork's link is wrong"
                                )
            except CorruptEventError as error:
                problems.append(str(error))
        if each.runs:
            last = each.runs[-1][1]
            hidden = await self.transactions.run(
                "read", queries.events.hidden_seq, key, each.ns, last, _HIDDEN_ROWS
            )
            head = await self.transactions.run("read", queries.events.head_seq, key, each.ns)
            if hidden is not None and head == last:  # else it was appended meanwhile
                problems.append(f"{each.ns!r} seq {hidden}: the index of events does not find it")
            # A fork of a deleted thread is given a base for a position, without the events there.
            may_be_alone = digests.is_prefix(each.ns)
            within = [row for row in each.snapshots if not (row.is_base and may_be_alone)]
            problems += [
                f"{each.ns!r}: a snapshot or a fork stands at seq {row.seq}, after the log's end"
                for row in (*within, *each.forks)
                if row.seq > max(head, last)
            ]
        found = (
            await self.transactions.run("read", queries.events.keyed_rows, key, each.ns)
            if keyed
            else {}
        )
        problems += [
            f"{each.ns!r} seq {seq}: the event cannot be found by its key {row[0]!r}"
            for seq, row in keyed.items()
            if found.get(seq) != row
        ]
        for row in each.snapshots:
            where = f"thread {thread_id!r}, namespace {each.ns!r}, snapshot at seq {row.seq}"
            whole = await self.transactions.run(
                "read", queries.trim.snapshot, key, each.ns, row.seq
            )
            if whole is None:
                continue  # removed meanwhile
            if not records.verifies(whole):
                problems.append(f"{where}: does not match its checksum")
            elif row.rests_on is not None and row.rests_on not in wanted:
                problems.append(f"{where}: rests on one at seq {row.rests_on}, which is missing")
            elif at_snapshots.get(row.seq, row.digest) != row.digest:
                problems.append(f"{where}: was taken of another history")
        return events

    async def check_database(
        self, should_stop: Callable[[], bool] = lambda: False
    ) -> DatabaseReport:
        """Run the database's own check of all its tables and indexes; it reads all of them.

        On SQLite these are ``PRAGMA integrity_check`` and ``foreign_key_check``. On PostgreSQL it
        is the extension ``amcheck``, if it is installed and the user may call it.

        Args:
            should_stop: asked often, on SQLite, and before each index, on PostgreSQL: whether to
                stop. The report then says that nothing was checked.
        """
        tables = schema.metadata.sorted_tables
        return await self.transactions.run("read", maintenance.check, tables, should_stop)

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
            if start in bases:  # trimmed: the row of its last event stayed
                digest = bases[start]
                start += 1
            elif digest is None and start > 1:
                if digests.origin(key, ns) == (key, ns):
                    problems.append(f"{ns!r}: the events before seq {start} are missing")
                start += 1
            yield queries.lineage.Stretch(key, ns, start, end), digest

    async def stats(self, thread_id: str | None = None) -> Stats:
        """How much is stored, for one thread or for all of this tenant's.

        Damaged threads of a tenant are named in the result, and counted in nothing else.

        Raises:
            ThreadNotFoundError: no such thread.
            CorruptEventError: the thread is damaged.
        """
        if thread_id is not None:
            return await self._stats((await self.thread(thread_id)).thread_key)
        total, damaged = Stats(0, 0, 0, 0, 0, 0), dict[int, str]()

        def note(damage: ThreadDamage) -> None:
            damaged[damage.thread_key] = damage.thread_id

        after = None
        while page := await self.scan(after=after, on_damage=note):
            for info in page:
                try:
                    total = total.plus(await self._stats(info.thread_key))
                except CorruptEventError:
                    damaged[info.thread_key] = info.thread_id
            after = page[-1].thread_key
        return replace(total, damaged=tuple(damaged.values()))

    async def _stats(self, key: int) -> Stats:
        """How much is stored of one thread."""
        events = raw = stored = 0
        async for rows in self._sizes(key):
            events += len(rows)
            raw += sum(self.codec.raw_size(row.start, row.stored) for row in rows)
            stored += sum(row.stored for row in rows)
        sealed = await self.transactions.run("read", queries.events.sealed_totals, key)
        count, size = await self.transactions.run("read", queries.listing.snapshot_sizes, key)
        return Stats(
            1,
            events + sealed.events,
            raw + sealed.raw,
            stored + sealed.stored,
            count,
            size,
            sealed.events,
        )

    async def _sizes(self, key: int) -> AsyncIterator[Sequence[SqlRow]]:
        after = ("", 0)
        while rows := await self.transactions.run(
            "read", queries.listing.payload_sizes, key, after, _SIZES, _HEADER_BYTES
        ):
            yield rows
            following = (rows[-1].ns, rows[-1].seq)
            if (*map(type, following),) != (str, int) or following <= after:
                raise CorruptEventError("a namespace or a seq is damaged").at(None, *after)
            after = following


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
    except CorruptEventError:
        return False
