"""Inserting: one append to the logs of a thread, in one transaction.

Everything is encoded before the transaction begins. The caller names the ends of the logs that it
knows; of two writers one wins. An append whose commit is in doubt is looked up before it is tried
again, so that it happens once (rule 3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, NamedTuple

from eventstore import queries, telemetry
from eventstore.core.read import Reading
from eventstore.core.threads import stored_ttl
from eventstore.db.driver_errors import CommitInDoubt, RolledBack
from eventstore.db.options import Mode
from eventstore.errors import (
    ConcurrencyError,
    ConfigurationError,
    CorruptEventError,
    DuplicateKeyError,
    EventStoreError,
    PositionNotFoundError,
    StoreBusyError,
    ThreadNotFoundError,
)
from eventstore.format import checks, digests, records
from eventstore.limits import (
    INT_MAX,
    NS_BYTES_MAX,
    TENANT_BYTES_MAX,
    THREAD_ID_BYTES_MAX,
    check_name,
    check_number,
    check_type,
)
from eventstore.models import (
    STATUSES,
    Addition,
    Head,
    NewSnapshot,
    Status,
    check_status,
)
from eventstore.queries import Conflict, Connection

ACTIVE_EVERY_US: Final = 60_000_000
"""``active_at`` is rewritten at most once a minute."""


class Inserting(Reading):
    """Appends to the logs of a thread whose ends are known."""

    async def append_together(
        self,
        additions: Sequence[Addition],
        *,
        status: Status | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        now_us: int | None = None,
        owner: str | None = None,
        exclusive: bool = False,
    ) -> list[Head]:
        """Append to several logs of one thread in one transaction, all or nothing.

        Args:
            additions: each to another log. Their ends may have been read at different moments,
                some of them before the thread existed.
            now_us: the time of the events; ``None`` asks the clock.
            owner: the run that goes on, while the status is ``"running"``.
            exclusive: refuse the append if another run has claimed the thread since its end was
                read, even if that run has appended nothing.

        Returns:
            The new ends of the logs, in the same order.

        Raises:
            As :meth:`append`, naming the log that refused. Nothing was stored in any.
            ValueError: the heads are of several threads, or two are of one log.
        """
        _check(additions, status, self.tenant, now_us)
        with telemetry.append(self.tenant, additions) as span:
            if self.codec.writes_with not in self.stored_dictionaries:
                await self._store_dictionary()
            append = _Insertion(self, additions, status, owner, metadata, ttl, now_us)
            append.claims = exclusive and append.exists
            in_doubt = 0
            while True:
                try:
                    if await self.transactions.run(*append.plan()):
                        break
                    if not append.try_longer():
                        raise _Refused
                except CommitInDoubt as error:
                    if await append.is_stored():
                        break
                    in_doubt += 1
                    await self.transactions.pause(in_doubt, error)
                except (Conflict, _Refused, ConcurrencyError) as error:
                    # The rows in our way may be our own, if a commit was in doubt.
                    if in_doubt and await append.is_stored():
                        break
                    if append.try_longer():
                        continue
                    if isinstance(error, ConcurrencyError):
                        telemetry.conflict()
                        raise
                    refusal = await append.refusal()
                    if isinstance(refusal, ConcurrencyError):
                        telemetry.conflict()
                    raise refusal from error
            append.update_cache()
            heads = [each.new for each in append.logs]
            telemetry.appended(span, additions, heads)
            return heads

    async def _store_dictionary(self) -> None:
        """Store the dictionary that the codec compresses with, so that others can read."""
        dict_id = self.codec.writes_with
        if dict_id in self.stored_dictionaries:
            return
        data = self.codec.own_dictionary(dict_id)
        if not data:
            self.stored_dictionaries.add(dict_id)  # nobody needs it of us
            return

        def store(conn: Connection) -> None:
            try:
                queries.dictionaries.keep_dictionary(conn, dict_id, data)
            except Conflict as error:
                raise RolledBack("another process stored the dictionary first") from error

        try:
            await self.transactions.run("idempotent_write", store)
        except queries.dictionaries.OtherDictionary as error:
            raise ConfigurationError(
                f"payloads in this database are compressed with another dictionary {dict_id}; "
                "train yours with another dict_id"
            ) from error
        self.stored_dictionaries.add(dict_id)


class _LogAppend(NamedTuple):
    """An append to one log: the end it continues, its rows, and the new end."""

    head: Head
    batch: records.Batch
    new: Head
    touch: queries.append.Touch | None
    snapshot: NewSnapshot | None

    @property
    def reached(self) -> int | None:
        """Where the root log ends, if it is this one."""
        return None if self.head.ns else self.new.seq


class _Insertion:
    """One append under way: its rows, how to insert them, and why the database refused.

    Attributes:
        exists: the thread was there when its end was read.
        logs: the end that each continues, its rows, and its new end.
        claims: claim the thread for the owner first, if it is as it was read.
        is_first_generation: try the single statement that creates a thread with its first
            events, which works only if no thread of that name was ever deleted.
        is_simple_fork: try the single statement that forks a log within itself, which works only
            if the event to go on from is neither sealed nor trimmed.
    """

    def __init__(
        self,
        core: Reading,
        additions: Sequence[Addition],
        status: str | None,
        owner: str | None,
        metadata: Mapping[str, Any] | None,
        ttl: timedelta | None,
        now_us: int | None,
    ) -> None:
        self._core = core
        self._additions = additions
        self._status = status
        self._owner = owner if status == "running" else None
        self._claimant = owner or ""
        self.claims = False
        self._now = core.now_us() if now_us is None else now_us
        self._ttl = stored_ttl(ttl)
        # The ends were read at different moments: one that knows the thread places all logs.
        self._place = next((e.head for e in additions if e.head.exists), additions[0].head)
        self.exists = self._place.exists
        self._metadata = "" if self.exists else checks.metadata_text(metadata or {})
        self.logs = self._encoded(self._place)
        first = self.logs[0]
        self._is_plain = len(additions) == 1 and first.snapshot is None and not first.batch.forks
        self.is_first_generation = (
            self._is_plain
            and not self._place.exists
            and self._place.thread_key == digests.thread_key(core.tenant, first.head.thread_id, 0)
        )

        self.is_simple_fork = (
            len(additions) == 1
            and len(first.batch.forks) == 1
            and core.is_server
            and self._is_within(first)
        )

    @staticmethod
    def _is_within(only: _LogAppend) -> bool:
        """Whether an append is a fork of a log within itself, and nothing else."""
        fork, head = only.batch.forks[0], only.head
        if only.snapshot is not None or digests.is_prefix(head.ns):
            return False
        source = (fork["source_thread_key"], fork["source_ns"])
        is_first = fork["seq"] == head.seq + 1 and 1 <= fork["source_seq"] <= head.seq
        return is_first and source == (head.thread_key, head.ns)

    def try_longer(self) -> bool:
        """Give up a single statement that refused, for one that needs less; false if it was none.

        What it needs is seldom missing.
        """
        was_short = self.is_first_generation or self.is_simple_fork
        self.is_first_generation = self.is_simple_fork = False
        return was_short

    def plan(self) -> tuple[Mode, Callable[[Connection], bool]]:
        """How to insert everything, and what does so.

        It returns false if the thread cannot be a first generation, or if the event to append
        behind was not there. Where it is one statement, it needs no transaction around it.
        """
        if self.is_first_generation:
            if not self._core.is_server:
                return "statement", self.insert
            return "statement", queries.append.beginning(
                self._first_thread_row(), self.logs[0].batch.events
            )
        if self.claims or not self._place.seq or not (self._is_plain or self.is_simple_fork):
            return "append", self.insert
        only = self.logs[0]
        rows, touch = only.batch.events, only.touch
        if not self.is_simple_fork:
            if self._core.is_server:
                return "statement", queries.append.continuing(rows, touch)
            return "statement", partial(queries.append.append, rows=rows, touch=touch)
        seq = only.batch.forks[0]["source_seq"]
        return "statement", partial(queries.append.fork, rows=rows, touch=touch, source_seq=seq)

    def insert(self, conn: Connection) -> bool:
        """Insert everything; false if the thread cannot be a first generation.

        Events go first, since forks may go on from any of them. All writers take the logs in one
        order and the thread's row last, so that no two of them wait for each other.
        """
        place = self._place
        tombstone_key: int | None = place.thread_key
        if self.is_first_generation:
            return queries.append.begin(conn, self._first_thread_row(), self.logs[0].batch.events)
        if not place.exists:
            created, tombstone_key = self._create_thread(conn)
            if created != self.logs[0].head:  # another has our first key, or made the thread
                self.logs = self._encoded(created)
        elif self.claims and not queries.threads.claim(
            conn,
            place.thread_key,
            self._claimant,
            place.status,
            place.owner,
            place.ns,
            place.seq,
        ):
            raise ConcurrencyError(place.thread_id, place.ns, place.seq, place.seq)
        elif any(each.head.seq == 0 for each in self.logs):
            has_events = queries.threads.lock_with_events(conn, place.thread_key)
            if has_events is None:
                raise ThreadNotFoundError(place.thread_id, self._core.tenant)
            if not has_events:
                raise CorruptEventError(
                    f"thread {place.thread_id!r} exists, and none of its events is found: an index "
                    "is damaged or rows were lost; run eventstore verify",
                    thread_id=place.thread_id,
                )
        ordered = sorted(self.logs, key=lambda each: each.head.ns)
        for each in ordered:
            touch = each.touch if each is ordered[-1] else None
            if touch is not None:
                touch = touch._replace(reached=ordered[0].reached)  # the root log comes first
            if not queries.append.append(conn, each.batch.events, touch, tombstone_key):
                if not each.head.exists:
                    raise RolledBack("a thread of that name came and went in the meantime")
                raise _Refused
        if not self._is_plain:
            self._insert_forks_and_snapshots(conn)
        return True

    def _insert_forks_and_snapshots(self, conn: Connection) -> None:
        for fork in [fork for each in self.logs for fork in each.batch.forks]:
            fault = queries.forks.insert_fork(conn, fork, self._core.tenant)
            if fault is not None:
                place = (fork["source_ns"], fork["source_seq"])
                thread_id = self._place.thread_id
                raise PositionNotFoundError(thread_id, *place, f"cannot fork there: {fault}")
        for each in self.logs:
            if each.snapshot is not None:
                queries.snapshots.put_snapshot(conn, records.snapshot_row(each.new, each.snapshot))

    def _encoded(self, place: Head) -> list[_LogAppend]:
        """All additions, to the thread that has a log ending at ``place``."""
        heads = [
            place if each.head is place else self._head_beside(place, each.head)
            for each in self._additions
        ]
        return list(map(self._log_append, heads, self._additions))

    def _head_beside(self, place: Head, head: Head) -> Head:
        """The end of a log, in the thread that has another log ending at ``place``."""
        if head.ns == place.ns:
            return place
        key = place.thread_key
        if not head.exists:
            head = Head(
                head.thread_id, key, head.ns, 0, digests.genesis(key, head.ns), exists=False
            )
        elif head.thread_key != key:  # one of the two is of an earlier thread of that name
            raise ThreadNotFoundError(head.thread_id, self._core.tenant)
        return replace(
            head,
            exists=place.exists,
            status=place.status,
            owner=place.owner,
            active_us=place.active_us,
        )

    def _log_append(self, head: Head, addition: Addition) -> _LogAppend:
        events, status = addition.events, self._status
        batch = records.encode(self._core.codec, head, events, self._now)
        late = self._now - head.active_us >= ACTIVE_EVERY_US
        changes = status is not None and (status, self._owner) != (head.status, head.owner)
        touches = head.exists and (late or changes)
        new = Head(
            head.thread_id,
            head.thread_key,
            head.ns,
            head.seq + len(events),
            batch.events[-1]["new_digest"],
            exists=True,
            status=status or head.status,
            active_us=self._now if late or not head.exists else head.active_us,
            written=batch.size,
            owner=self._owner if status else head.owner,
        )
        found = _LogAppend(head, batch, new, None, addition.snapshot)
        if not touches:
            return found
        touch = queries.append.Touch(status, self._owner, new.active_us, found.reached)
        return found._replace(touch=touch)

    def _create_thread(self, conn: Connection) -> tuple[Head, int | None]:
        """Create the thread; the end of its log, empty, under the key that it got.

        Also the tombstone that must not be there: that of an erased thread of this key.
        """
        thread_id, ns, tenant = self._place.thread_id, self.logs[0].head.ns, self._core.tenant
        try:
            key, tombstone_key = queries.threads.create_thread(conn, self._thread_row())
        except queries.threads.NameTaken as error:
            found = queries.threads.look_up(conn, tenant, thread_id, ns)
            made = records.head(tenant, thread_id, ns, found)
            if made.seq > 0:
                raise ConcurrencyError(thread_id, ns, 0, made.seq) from error
            return made, made.thread_key
        except Conflict as error:  # its logs need not be in our way
            raise RolledBack("another writer made the thread at the same moment") from error
        except queries.threads.NoKeyFree as error:
            raise StoreBusyError(
                f"{queries.threads.PROBES} former threads named {thread_id!r} are still being "
                "deleted; call finish_deletions() or try again later"
            ) from error
        return Head(thread_id, key, ns, 0, digests.genesis(key, ns), exists=False), tombstone_key

    def _first_thread_row(self) -> dict[str, Any]:
        return {**self._thread_row(), "thread_key": self._place.thread_key, "generation": 0}

    def _thread_row(self) -> dict[str, Any]:
        new = self.logs[0].new
        checksum = digests.row_checksum(new.active_us, self._ttl, False, self._metadata, None)
        return {
            "checksum": checksum,
            "tenant": self._core.tenant,
            "thread_id": new.thread_id,
            "created_at": new.active_us,
            "active_at": new.active_us,
            "status": new.status,
            "ttl": self._ttl,
            "pinned": False,
            "deleting_since": None,
            "metadata": self._metadata,
            "pin": None,
            "deletion": None,
            "owner": new.owner,
            "reached": self.logs[0].reached,
        }

    async def is_stored(self) -> bool:
        """Whether the log holds exactly these rows: the commit in doubt went through.

        What was appended to other logs in the same transaction went through, too.
        """
        head, last = self.logs[0].head, self.logs[0].new.seq
        # The last digest covers the others, which may have been trimmed by now.
        rows = await self._core.transactions.run(
            "read", queries.events.read_events, head.thread_key, head.ns, last - 1, last, 1
        )
        return [row.digest for row in rows] == self.logs[0].batch.digests[-1:]

    async def refusal(self) -> EventStoreError:
        """Why the database refused the rows."""
        for each in self.logs:
            reason = await self._obstacle(each.head, each.batch)
            if reason is not None:
                return reason
        return _other_history(self.logs[0].head)

    async def _obstacle(self, head: Head, batch: records.Batch) -> EventStoreError | None:
        """What is in the way of an append to one log; ``None`` where nothing is."""
        now = await self._core.head(head.thread_id, head.ns)
        if head.exists and (not now.exists or now.thread_key != head.thread_key):
            return ThreadNotFoundError(head.thread_id, self._core.tenant)
        if now.seq != head.seq:
            return ConcurrencyError(head.thread_id, head.ns, head.seq, now.seq)
        taken = await self._core.transactions.run(
            "read", queries.events.events_by_key, now.thread_key, head.ns, batch.keys
        )
        hidden = await self._core.transactions.run(
            "read",
            queries.events.hidden_seq,
            now.thread_key,
            head.ns,
            now.seq,
            queries.append.HIDDEN_ROWS,
        )
        if hidden is not None:
            return CorruptEventError(
                f"the log ends at seq {now.seq} by its index, and seq {hidden} is stored: the "
                "index is damaged; run eventstore verify, and rebuild it (REINDEX)"
            ).at(head.thread_id, head.ns, hidden)
        if taken:
            return DuplicateKeyError(head.thread_id, head.ns, taken[0].key, taken[0].seq)
        if len(set(batch.keys)) < len(batch.keys):
            twice = max(batch.keys, key=Counter(batch.keys).__getitem__)
            return DuplicateKeyError(head.thread_id, head.ns, twice, head.seq)
        return _other_history(head) if now.digest != head.digest else None

    def update_cache(self) -> None:
        """Add what was stored to the cache of stored bytes."""
        cache, logs = self._core.cache, self.logs
        if any(each.batch.forks for each in logs):
            cache.forget(logs[0].new.thread_key)  # only the end: what is before a fork stays
        else:
            for each in logs:
                cache.appended(each.head, each.new, each.batch.events, each.snapshot)


class _Refused(Exception):
    """The event to append behind was not there."""


def _check(
    additions: Sequence[Addition], status: str | None, tenant: str, now_us: int | None
) -> None:
    """Refuse what cannot be appended together, as far as that shows without the database."""
    if not isinstance(additions, list | tuple):
        check_type("additions", additions, Sequence)
    for each in additions:
        if not (isinstance(each, Addition) and isinstance(each.head, Head)):
            check_type("an addition", each, Addition)
            check_type("the head of an addition", each.head, Head)
        if not isinstance(each.events, list | tuple):
            check_type("the events of an addition", each.events, Sequence)
        if not (each.snapshot is None or isinstance(each.snapshot, NewSnapshot)):
            check_type("the snapshot of an addition", each.snapshot, NewSnapshot)
    if now_us is not None and not (type(now_us) is int and 0 <= now_us <= INT_MAX):
        check_number("now_us", now_us, 0)
    if not additions or not all(each.events for each in additions):
        raise ValueError("an append needs at least one event")
    if status is not None and status not in STATUSES:
        check_status(status)
    heads = [each.head for each in additions]
    for head in heads:
        if head.seq == 0:
            _check_lengths(head, tenant)
        elif type(head.seq) is not int or head.seq > records.SEQ_MAX:
            check_number("the seq of a head", head.seq, 0, records.SEQ_MAX)
        if digests.is_prefix(head.ns):
            raise ConfigurationError(
                f"the namespace {head.ns!r} is reserved for events given to forks"
            )
        if head.thread_id != heads[0].thread_id:
            raise ValueError(
                "append_together() takes events of one thread, not of "
                f"{heads[0].thread_id!r} and {head.thread_id!r}"
            )
    names = [head.ns for head in heads]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise ValueError(
            f"namespace {twice!r} is given twice; give each log all its events at once"
        )


def _check_lengths(head: Head, tenant: str) -> None:
    """Refuse names of a new log that are too long for every database to store."""
    check_name("a namespace", head.ns, NS_BYTES_MAX)
    if not head.exists:
        check_name("a thread_id", head.thread_id, THREAD_ID_BYTES_MAX)
        check_name("a tenant", tenant, TENANT_BYTES_MAX)


def _other_history(head: Head) -> CorruptEventError:
    return CorruptEventError("the event to append after is not the one that was read").at(
        head.thread_id, head.ns, head.seq
    )
