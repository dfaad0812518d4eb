"""An open database, and the one way to run an operation in it: :meth:`Transactions.run`.

Owns the engine, set-up, and the rule of what may be tried again:

- A transaction that was rolled back for certain (a serialization failure, a deadlock, a
  connection lost before its COMMIT was sent) is tried again, with growing pauses and a bound.
- If the connection was lost *during* the commit, the transaction may have gone through. What only
  reads, or does no harm when it happens twice, is tried again all the same; any other writer gets
  :class:`~eventstore.db.driver_errors.CommitInDoubt` and has to look.

Operations are synchronous functions of a connection, for sync and async callers: SQLAlchemy runs
them over an asynchronous driver. Encoding, decoding and waiting happen outside of them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar, cast

from sqlalchemy import Connection, Engine, Transaction, exc

from eventstore import telemetry
from eventstore.concurrency import (
    Asyncio,
    Blocking,
    Cancellation,
    Concurrency,
    StoreThreads,
)
from eventstore.db import gates, migrations, postgresql, process_forks, sqlite
from eventstore.db.driver_errors import (
    TRANSLATION,
    CommitInDoubt,
    RolledBack,
    classify,
    message,
)
from eventstore.db.file_watch import FileWatch
from eventstore.db.loops import LoopEngines
from eventstore.db.options import READS, SHORT_WRITES, Mode
from eventstore.errors import (
    ConfigurationError,
    EventStoreError,
    StoreClosedError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

ATTEMPTS: Final = 20
"""Attempts at one transaction: half a minute, in which a server may restart or fail over."""

FIRST_ATTEMPTS: Final = 4
"""Attempts while the database has never answered: its address may simply be wrong."""

PAUSE_S: Final = 0.05
PAUSE_MAX_S: Final = 2.0

CANCELLING_S: Final = 5.0
"""How long a cancelled task waits for what it commits, before that is cancelled, too."""

_REPEATABLE: Final[frozenset[Mode]] = READS | {"idempotent_write", "background_write"}
"""What is tried again although its commit is in doubt."""

_NO_TURN: Final[frozenset[Mode]] = READS | {"autocommit"}
"""What does not wait for other writers of this process on SQLite."""

_AS_IT_IS: Final = nullcontext()


class Transactions:
    """Runs operations, each in a transaction of its own, on an engine for sync or async use.

    Attributes:
        concurrency: how an operation waits between its transactions.
        asyncio: how an event loop runs a whole operation.
        blocking: how a sync caller does; ``None``: it cannot, the driver is asynchronous.
        read_only: refuse everything that would write, also to set the database up.
        is_shared: other processes may open the same database.
    """

    def __init__(
        self,
        engine: Engine | AsyncEngine,
        *,
        owned: bool,
        now_us: Callable[[], int],
        read_only: bool = False,
        reopen: Callable[[], AsyncEngine] | None = None,
    ) -> None:
        self.engine = engine
        self.read_only = read_only
        self._owned = owned
        self._now_us = now_us
        self._is_set_up = False
        self._closed = False
        self._threads: StoreThreads | None = None
        self._sync = engine if isinstance(engine, Engine) else None
        self._twin: Transactions | None = None
        self.blocking: Blocking | None = None
        self.concurrency: Concurrency
        if isinstance(engine, Engine):
            sync_engine = engine
            self._threads = StoreThreads()
            self.concurrency = self.blocking = Blocking()
            self.asyncio = Asyncio(self._threads)
        else:
            sync_engine = engine.sync_engine
            self._loops = LoopEngines(engine, reopen if owned else None)
            self.concurrency = self.asyncio = Asyncio()
        self._is_sqlite = sync_engine.dialect.name == "sqlite"
        self._begin = (sqlite if self._is_sqlite else postgresql).beginner(sync_engine)
        self._turns = gates.turns(sync_engine)
        self._writers = gates.Writers()
        self._watch: FileWatch | None = None
        self._refusal: EventStoreError | None = None
        self.is_shared = not gates.is_memory(sync_engine)
        process_forks.track(self)

    async def run(
        self,
        mode: Mode,
        operation: Callable[Concatenate[Connection, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What ``operation(conn, …)`` returns, once it is committed.

        Raises:
            CommitInDoubt: a write that must not happen twice may or may not have happened.
            StoreUnavailableError: the last attempt failed, too.
        """
        if not self._is_set_up and operation not in _SETTING_UP:
            await self.setup()
        if self.read_only and mode not in READS:
            raise ConfigurationError(
                "this event store was opened for reading only; open it without read_only to write"
            )
        attempt = 1
        while True:
            if self._closed:  # perhaps while this waited
                raise self._refusal or StoreClosedError()
            try:
                if self._sync is None:
                    attempt_ = self._attempt if mode in READS else self._attempt_to_write
                    return await attempt_(mode, operation, args, kwargs)
                takes_turn = self._is_sqlite and mode not in _NO_TURN
                if takes_turn and not self._writers.turn.acquire(blocking=False):
                    return self._write_in_turn(mode, lambda conn: operation(conn, *args, **kwargs))
                try:
                    with self._connected(mode) as conn:
                        return operation(conn, *args, **kwargs)
                finally:
                    if takes_turn:
                        self._writers.leave()
            except RolledBack as error:
                await self.pause(attempt, error)
            except CommitInDoubt as error:
                if mode not in _REPEATABLE:
                    raise
                await self.pause(attempt, error)
            attempt += 1

    @contextmanager
    def _connected(self, mode: Mode) -> Iterator[Connection]:
        """A connection with a transaction, which ends with the block."""
        assert self._sync is not None
        with self._turns, TRANSLATION, self._sync.connect() as conn:
            watch = self._watch
            if watch is not None and time.monotonic() >= watch.next_look:
                watch.look()
            is_background = mode == "background_write" and self._is_sqlite
            with (
                sqlite.in_background(conn) if is_background else _AS_IT_IS,
                _transaction(self._begin(conn, mode), conn, mode),
            ):
                yield conn
            if watch is not None and mode not in READS:
                watch.wrote(conn)

    def _write_in_turn(self, mode: Mode, operation: Callable[[Connection], T]) -> T:
        """What a write returns that has to wait for others, and may be done together with them."""
        writers, job = self._writers, gates.Job(operation, mode in SHORT_WRITES)
        try:
            if not writers.wait(job, sqlite.BUSY_TIMEOUT_S):
                return cast("T", job.outcome())
        except TimeoutError as error:
            raise sqlite.translate("locked by other writers of this process") from error
        try:
            group = writers.join(job)
            if len(group) > 1:
                self._write_together(group)
                return cast("T", job.outcome())
            with self._connected(mode) as conn:
                return operation(conn)
        finally:
            writers.leave()

    def _write_together(self, group: list[gates.Job]) -> None:
        """Do several writes in one transaction, each with an outcome of its own.

        The first is that of this thread; the threads of the others go on when this returns. If
        the transaction fails, nothing of it was stored, and each is done by itself.
        """
        others, phase = group[1:], "begins"
        try:
            with self._connected("append") as conn:
                phase = "writes"
                raw: Any = conn.connection.dbapi_connection
                for job in group:
                    raw.execute("SAVEPOINT one")
                    try:
                        with TRANSLATION:
                            job.result = job.operation(conn)
                    except Exception as error:
                        if conn.invalidated or not raw.in_transaction:
                            raise
                        raw.execute("ROLLBACK TO one")
                        job.error = error
                    raw.execute("RELEASE one")
                phase = "commits"
        except Exception as error:
            if phase == "begins" or isinstance(error, CommitInDoubt):
                for job in group:
                    job.error = error
            else:
                self._write_apart(group)
        except BaseException as error:  # this thread was interrupted
            lost: type[StoreUnavailableError] = CommitInDoubt if phase == "commits" else RolledBack
            for job in others:
                job.error = lost(f"the thread that wrote it was interrupted: {error!r}")
            raise
        finally:
            for job in others:
                job.end()

    def _write_apart(self, group: list[gates.Job]) -> None:
        for job in group:
            job.error = job.result = None
            try:
                with self._connected("append") as conn:
                    job.result = job.operation(conn)
            except Exception as error:
                job.error = error

    async def _attempt(
        self,
        mode: Mode,
        operation: Callable[..., T],
        args: Any,
        kwargs: Any,
        commits: list[bool] | None = None,
    ) -> T:
        """One attempt over an asynchronous driver."""
        used = self._loops.current()
        used.under_way += 1
        try:
            with TRANSLATION:
                async with used.engine.connect() as conn:
                    result: T = await conn.run_sync(
                        self._in_transaction, mode, operation, args, kwargs, commits
                    )
                    return result
        finally:
            used.under_way -= 1

    async def _attempt_to_write(
        self, mode: Mode, operation: Callable[..., T], args: Any, kwargs: Any
    ) -> T:
        """An attempt whose outcome is known although the task that awaits it is cancelled.

        What has begun to be committed ends first, and its result goes to the operation; the
        cancellation comes out of the whole operation. The driver would cancel the statement, and
        nobody could say whether it took effect.
        """
        Cancellation.check()
        commits: list[bool] = []
        writing = _task(self._attempt(mode, operation, args, kwargs, commits))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            if not commits:
                writing.cancel()
            limit = asyncio.get_running_loop().call_later(CANCELLING_S, writing.cancel)
            while not writing.done():
                with suppress(asyncio.CancelledError):  # again: it is being cancelled
                    await asyncio.wait([writing])
            limit.cancel()
            if writing.cancelled() or not Cancellation.defer():
                writing.cancelled() or writing.exception()  # nobody else asks for it
                raise
            return writing.result()

    def _in_transaction(
        self,
        conn: Connection,
        mode: Mode,
        operation: Callable[..., T],
        args: Any,
        kwargs: Any,
        commits: list[bool] | None,
    ) -> T:
        with _transaction(self._begin(conn, mode), conn, mode, commits):
            return operation(conn, *args, **kwargs)

    async def pause(self, attempt: int, error: Exception) -> None:
        """Wait before the next attempt, longer each time and never in step with others.

        Raises:
            StoreUnavailableError: that was the last one.
        """
        if attempt >= (ATTEMPTS if self._is_set_up else FIRST_ATTEMPTS):
            raise StoreUnavailableError(f"gave up after {attempt} attempts: {error}") from error
        Cancellation.check()
        pause = min(PAUSE_MAX_S, PAUSE_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)
        reason = "commit_in_doubt" if isinstance(error, CommitInDoubt) else "rolled_back"
        sqlstate = getattr(getattr(error.__cause__, "orig", None), "sqlstate", None)
        log.warning(
            "attempt %d failed, trying again: %s",
            attempt,
            error,
            extra={"attempt": attempt, "reason": reason, "sqlstate": sqlstate, "pause_s": pause},
        )
        telemetry.retry(reason, sqlstate, attempt)
        await self.concurrency.sleep(pause)

    # --- setting up ---------------------------------------------------------------------

    async def setup(self) -> None:
        """Create or migrate the tables. Done at first use; safe from many processes at once."""
        missing = await self.pending()
        may_lack_log = False
        if self._is_sqlite and len(missing) == len(migrations.MIGRATIONS):
            may_lack_log = await self.run("read", sqlite.may_lack_log)
        if self.read_only:
            migrations.demand_none(missing, may_lack_log)
        else:
            if may_lack_log:
                log.warning("making an event store in an empty file: %s", migrations.LACKS_LOG)
            if self._is_sqlite:
                await self.run("autocommit", sqlite.settle)
            if missing:
                await self.run("idempotent_write", migrations.migrate, self._now_us())
        self._is_set_up = True
        if self._is_sqlite and self._watch is None:
            watch = FileWatch()
            await self.run("read", watch.begin)
            self._watch = watch

    async def pending(self) -> list[str]:
        """Names of the migrations that the database lacks; runs none of them."""
        return await self.run("read", migrations.pending)

    # --- forks of the process ---------------------------------------------------------

    def calm(self) -> gates.Calm | None:
        """What has to be calm while the process is forked: connections to SQLite."""
        return gates.Calm(self._sync) if self._is_sqlite and self._sync is not None else None

    def after_fork(self, was_calm: bool) -> object:
        """Begin anew in a child; returns what it inherited and must not free."""
        self._twin = None
        if isinstance(self._turns, gates.Turns):
            self._turns = gates.Turns()
        self._writers = gates.Writers()
        if self._sync is None:
            inherited: object = self._loops.forget()
        elif self._is_sqlite:
            inherited = None if was_calm else self._sync.pool
        else:
            inherited = self._sync.pool
            self._sync.dispose(close=False)
        if postgresql.borrows(self._sync or self._loops.first):
            self._refuse(
                "the caller's pool was opened before this process was forked, and its connections "
                "belong to the parent; open the pool, and a store on it, in each process"
            )
        elif not was_calm:
            self._refuse(
                "this process was forked while a thread of its parent used this SQLite database; "
                "fork when no thread uses the store, or start the process by other means (spawn)"
            )
        return inherited

    def _refuse(self, reason: str) -> None:
        self._closed, self._refusal = True, ConfigurationError(reason)

    def for_threads(self) -> Transactions:
        """The same database for a thread of our own, where the driver is bound to an event loop.

        Raises:
            StoreClosedError: the store was closed.
        """
        if self._closed:
            raise StoreClosedError
        if self._sync is not None:
            return self
        if self._twin is None:
            twin = Transactions(postgresql.sync_twin(self.engine), owned=True, now_us=self._now_us)
            twin._is_set_up = True
            self._twin = twin
        return self._twin

    # --- closing ------------------------------------------------------------------------

    def close(self) -> None:
        """Close what was opened here, after the operations under way. Harmless when closed.

        For sync engines; :meth:`aclose` closes either kind.
        """
        if self._closed:
            return
        self._closed = True
        if self._threads is not None:
            self._threads.close()
        if self._owned and self._sync is not None:
            self._sync.dispose()

    async def aclose(self) -> None:
        """Close what was opened here, after the operations under way. Harmless when closed."""
        if self._threads is not None:
            if self._closed or self._threads.are_idle:
                self.close()
            else:
                await asyncio.to_thread(self.close)
        elif not self._closed:
            self._closed = True
            if self._twin is not None:
                await asyncio.to_thread(self._twin.close)
            await self._loops.close(self._owned)


def _task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that has begun already, where Python can do that: it saves a turn of the loop."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)


_SETTING_UP: Final[tuple[Callable[..., Any], ...]] = (
    migrations.pending,
    migrations.migrate,
    sqlite.may_lack_log,
    sqlite.settle,
)
"""Operations that do not need the database to be set up."""


@contextmanager
def _transaction(
    transaction: Transaction, conn: Connection, mode: Mode, commits: list[bool] | None = None
) -> Iterator[None]:
    """Ends a transaction with its block: commits it, or rolls it back after an error.

    Args:
        commits: gets an item when it begins to be committed; a single statement commits itself.

    Raises:
        CommitInDoubt: the connection was lost while it was being committed.
    """
    if commits is not None and mode == "statement":
        commits.append(True)
    try:
        yield
    except BaseException as error:
        transaction.rollback()
        # A statement by itself may have been committed before the connection was lost.
        if mode == "statement" and isinstance(error, exc.SQLAlchemyError):
            _raise_if_in_doubt(error)
        raise
    if commits is not None:
        commits.append(True)
    try:
        transaction.commit()
    except exc.SQLAlchemyError as failed:
        sqlite.roll_back(conn)
        _raise_if_in_doubt(failed)
        raise


def _raise_if_in_doubt(error: exc.SQLAlchemyError) -> None:
    if classify(error) == "lost":
        raise CommitInDoubt(message(error)) from error
