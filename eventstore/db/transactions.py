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
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, NamedTuple, ParamSpec, TypeVar, cast

from sqlalchemy import Connection, Engine, exc
from sqlalchemy.util import greenlet_spawn

from eventstore import telemetry
from eventstore.concurrency import (
    Asyncio,
    Blocking,
    Cancellation,
    Concurrency,
    StoreThreads,
    eager_task,
)
from eventstore.db import migrations, process_forks, sqlite, writers
from eventstore.db.background import Background
from eventstore.db.driver_errors import (
    TRANSLATION,
    CommitInDoubt,
    RolledBack,
    classify,
    message,
)
from eventstore.db.engines import Lender, Loan
from eventstore.db.file_watch import FileWatch
from eventstore.db.loops import LoopEngine, LoopEngines
from eventstore.db.options import READS, SHORT_WRITES, Mode
from eventstore.db.postgresql import borrowing, opening, preparing
from eventstore.db.prepared import Change
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

_NO_NAMES: Final[Mapping[str, Any]] = {}

_NO_TURN: Final[frozenset[Mode]] = READS | {"autocommit", "background_write"}
"""What does not wait for other writers of this process on SQLite. Background work takes the lock
late and is not done when it gives it back: it is a writer like those of other processes."""

_AS_IT_IS: Final = nullcontext()


class Transactions:
    """Runs operations, each in a transaction of its own, on an engine for sync or async use.

    Attributes:
        concurrency: how an operation waits between its transactions.
        asyncio: how an event loop runs a whole operation.
        blocking: how a sync caller does; ``None``: it cannot, the driver is asynchronous.
        read_only: refuse everything that would write, also to set the database up.
        is_shared: other processes may open the same database.
        lender: lends the connections of a sync engine.
        background: how background work leaves room for others.
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
        self._begin = (sqlite if self._is_sqlite else opening).beginner(sync_engine)
        self._turns = writers.turns(sync_engine)
        self._writers = writers.Writers(self._is_sqlite)
        self._watch: FileWatch | None = None
        self._refusal: EventStoreError | None = None
        self.is_shared = not writers.is_memory(sync_engine)
        self.lender = Lender(sync_engine, keeps=owned and self._is_sqlite and self.is_shared)
        self.background = Background(self.lender)
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
                if self._is_sqlite:
                    takes_turn = mode not in _NO_TURN
                else:
                    takes_turn = writers.may_join(self._sync, operation)
                if takes_turn and not self._writers.turn.acquire(blocking=False):
                    return self._writers.write(self._attempt_here, mode, operation, args, kwargs)
                try:
                    is_background = mode == "background_write" and self._is_sqlite
                    with (
                        self._turns,
                        TRANSLATION,
                        Loan(self.lender) as conn,
                        self.background.using(conn) if is_background else _AS_IT_IS,
                        _Transaction(self, conn, mode),
                    ):
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

    def _attempt_here(
        self,
        mode: Mode,
        operation: Callable[..., T],
        args: Any = (),
        kwargs: Any = _NO_NAMES,
    ) -> T:
        """One attempt over a blocking driver."""
        is_background = mode == "background_write" and self._is_sqlite
        with (
            self._turns,
            TRANSLATION,
            Loan(self.lender) as conn,
            self.background.using(conn) if is_background else _AS_IT_IS,
            _Transaction(self, conn, mode),
        ):
            return operation(conn, *args, **kwargs)

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

        def attempt() -> T:
            with (
                TRANSLATION,
                used.engine.sync_engine.connect() as conn,
                _Transaction(self, conn, mode, commits),
            ):
                return operation(conn, *args, **kwargs)

        used.under_way += 1
        try:
            # All of it in one greenlet: an AsyncConnection starts three, and a task to close it.
            return await greenlet_spawn(attempt)
        finally:
            used.under_way -= 1

    async def _attempt_to_write(
        self, mode: Mode, operation: Callable[..., T], args: Any, kwargs: Any
    ) -> T:
        """An attempt whose outcome is known although the task that awaits it is cancelled."""
        used = self._loops.current()
        if isinstance(operation, Change) and writers.may_join(used.engine.sync_engine, operation):
            begin = partial(self._gathering(used).begin, operation)
            with suppress(writers.Apart):
                return cast("T", await self._uncancelled(used, begin))
        return await self._uncancelled(
            used,
            lambda commits: eager_task(self._attempt(mode, operation, args, kwargs, commits)),
        )

    async def _uncancelled(
        self, used: LoopEngine, begin: Callable[[list[bool]], asyncio.Future[T]]
    ) -> T:
        """The result of a write, which goes on when the task that awaits it is cancelled.

        What has begun to be committed ends first, and its result goes to the operation; the
        cancellation comes out of the whole operation. The driver would cancel the statement, and
        nobody could say whether it took effect.

        Args:
            begin: begins the write, given a list that gets an item when it may be committed.
        """
        Cancellation.check()
        commits: list[bool] = []
        writing = begin(commits)
        used.under_way += 1
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
        finally:
            used.under_way -= 1

    def _gathering(self, used: LoopEngine) -> writers.Gathering:
        """The appends of an event loop that wait at the same moment."""
        if used.gathering is None:

            def one(change: Change, commits: list[bool]) -> Coroutine[Any, Any, bool]:
                return self._attempt("statement", change, (), _NO_NAMES, commits)

            def several(changes: Sequence[Change]) -> Coroutine[Any, Any, list[bool]]:
                return self._attempt("statement", writers.send, (changes,), _NO_NAMES)

            used.gathering = writers.Gathering(one, several)
        return used.gathering

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
                log.warning(
                    "making an event store in an empty file: %s",
                    migrations.LACKS_LOG,
                    extra={"reason": migrations.LACKS_LOG},
                )
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

    def calm(self) -> process_forks.Calm | None:
        """What has to be calm while the process is forked: connections to SQLite."""
        if self._sync is None or not self._is_sqlite:
            return None
        return process_forks.Calm(self._sync, self.lender)

    def after_fork(self, was_calm: bool) -> object:
        """Begin anew in a child; returns what it inherited and must not free."""
        self._twin = None
        if isinstance(self._turns, writers.Turns):
            self._turns = writers.Turns()
        self._writers = writers.Writers(self._is_sqlite)
        if self._sync is None:
            inherited: object = self._loops.forget()
        elif self._is_sqlite:
            inherited = None if was_calm else (self._sync.pool, self.lender.forget())
        else:
            inherited = self._sync.pool
            self._sync.dispose(close=False)
        if borrowing.borrows(self._sync or self._loops.first):
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
            twin = Transactions(opening.sync_twin(self.engine), owned=True, now_us=self._now_us)
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
        self.lender.close()
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


_SETTING_UP: Final[tuple[Callable[..., Any], ...]] = (
    migrations.pending,
    migrations.migrate,
    sqlite.may_lack_log,
    sqlite.settle,
)
"""Operations that do not need the database to be set up."""


class _Transaction(NamedTuple):
    """Begins with a ``with`` block and ends with it: committed, or rolled back after an error.

    Attributes:
        commits: gets an item when it begins to be committed; a single statement commits itself.

    Raises:
        CommitInDoubt: the connection was lost while it was being committed.
    """

    database: Transactions
    conn: Connection
    mode: Mode
    commits: list[bool] | None = None

    def __enter__(self) -> None:
        watch = self.database._watch
        if watch is not None and time.monotonic() >= watch.next_look:
            watch.look()
        self.database._begin(self.conn, self.mode)
        if self.commits is not None and self.mode == "statement":
            self.commits.append(True)

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if error is not None:
            if preparing.is_useless(self.conn, error):
                self.conn.invalidate()
            try:
                self.conn.rollback()
            finally:
                # A statement by itself may have been committed before the connection was lost. A
                # lost connection may refuse the rollback as well: it says nothing of the commit.
                if self.mode == "statement" and isinstance(error, exc.SQLAlchemyError):
                    _raise_if_in_doubt(error)
            return
        if self.commits is not None:
            self.commits.append(True)
        try:
            self.conn.commit()
        except exc.SQLAlchemyError as failed:
            sqlite.roll_back(self.conn)
            _raise_if_in_doubt(failed)
            raise
        if self.mode in READS:
            return
        if self.mode in SHORT_WRITES:
            self.database.background.is_alone = False
        watch = self.database._watch
        if watch is not None:
            watch.wrote(self.conn)


def _raise_if_in_doubt(error: exc.SQLAlchemyError) -> None:
    if classify(error) == "lost":
        raise CommitInDoubt(message(error)) from error
