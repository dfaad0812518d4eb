"""Writers of one process: their turns, and the transactions that they share.

On SQLite one writes at a time; of those that wait for their turn, short ones share a transaction.

On PostgreSQL a few appends go each by itself, as soon as they come. While those are under way,
others gather, and then go together: one commit and one round trip for all, and less work than a
statement sent by itself.

Of each it is known whether it was refused. A transaction that fails has stored nothing, and then
each of its writers goes by itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.pool import QueuePool, StaticPool
from sqlalchemy.util import await_only

from eventstore.concurrency import eager_task
from eventstore.db import sqlite
from eventstore.db.driver_errors import TRANSLATION, CommitInDoubt, RolledBack
from eventstore.db.options import SHORT_WRITES, Mode
from eventstore.db.prepared import Change
from eventstore.errors import EventStoreError, StoreBusyError, StoreUnavailableError

T = TypeVar("T")

GROUP_MAX: Final = 64
"""Writes that share one transaction."""

PARALLEL: Final = 8
"""Transactions with appends under way at once on PostgreSQL, of an event loop or of all threads."""


class Turns:
    """A lock that admits threads in the order in which they arrive.

    For a database in memory, which has one connection: its pool would give that to a busy thread
    again and again, while others wait until they give up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        turn = threading.Lock()
        turn.acquire()
        with self._lock:
            self._line.append(turn)
            if len(self._line) == 1:
                return
        turn.acquire()

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._line.popleft()
            if self._line:
                self._line[0].release()


class Job:
    """A write that waits for its turn, and what became of it.

    Attributes:
        joins: it is short, and may share a transaction with others.
        place: what no two writes of a transaction may share; ``None``: nothing.
        leads: its thread has the turn; otherwise it has ended.
    """

    def __init__(
        self, operation: Callable[[Connection], Any], joins: bool, place: int | None = None
    ) -> None:
        self.operation = operation
        self.joins = joins
        self.place = place
        self.leads = False
        self.error: BaseException | None = None
        self.result: Any = None
        self.woken = threading.Lock()
        self.woken.acquire()

    def end(self, error: BaseException | None = None) -> None:
        """Let its thread go on, with the result or with this error."""
        self.error = self.error or error
        self.woken.release()

    def outcome(self) -> Any:
        """Its result; raises its error."""
        if self.error is not None:
            raise self.error
        return self.result


class Writers:
    """The turns of the threads of this process that write to a database.

    SQLite lets one in at a time, and the others would look again and again whether it is free.
    The first of those that wait gets the next turn, and takes along what waits behind it: so many
    short writes share one commit.

    Attributes:
        turn: held by the one that writes. It may be taken without waiting if it is free.
    """

    def __init__(self, is_sqlite: bool) -> None:
        self.turn = threading.Lock() if is_sqlite else threading.Semaphore(PARALLEL)
        self._is_sqlite = is_sqlite
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()

    def _wait(self, job: Job, timeout_s: float) -> bool:
        """Wait until the turn is this job's (true), or until it has ended (false).

        Raises:
            TimeoutError: others wrote all the time, and it was not begun.
        """
        with self._lock:
            if self.turn.acquire(blocking=False):
                job.leads = True
                return True
            self._waiting.append(job)
        try:
            if not job.woken.acquire(timeout=timeout_s):
                if self._withdraw(job):
                    raise TimeoutError
                job.woken.acquire()  # it has the turn, or another thread is at it
        except BaseException:
            if not self._withdraw(job) and job.leads:
                self.leave()
            raise
        return job.leads

    def _withdraw(self, job: Job) -> bool:
        """Wait no more; false if the job has the turn or has ended, or another thread is at it."""
        with self._lock:
            waits = job in self._waiting
            if waits:
                self._waiting.remove(job)
        return waits

    def _join(self, job: Job) -> list[Job]:
        """The job that has the turn, and those that are to share its transaction."""
        group, places = [job], {job.place}
        with self._lock:
            while job.joins and self._waiting and len(group) < GROUP_MAX:
                following = self._waiting[0]
                if not following.joins or (following.place in places and following.place):
                    break
                places.add(following.place)
                group.append(self._waiting.popleft())
        return group

    def leave(self) -> None:
        """Give the turn to the one that has waited longest."""
        with self._lock:
            if self._waiting:
                job = self._waiting.popleft()
                job.leads = True
                job.woken.release()
            else:
                self.turn.release()

    def write(
        self,
        attempt: Callable[..., Any],
        mode: Mode,
        operation: Callable[..., T],
        args: Any,
        kwargs: Any,
    ) -> T:
        """What a write returns that has to wait for others, and may be done together with them.

        Args:
            attempt: makes one attempt at an operation: mode, operation and its arguments.
        """
        if isinstance(operation, Change):
            job = Job(operation, True, operation.place)
        else:
            job = Job(partial(_called, operation, args, kwargs), mode in SHORT_WRITES)
        try:
            if not self._wait(job, sqlite.BUSY_TIMEOUT_S):
                return cast("T", job.outcome())
        except TimeoutError as error:
            raise _busy(self._is_sqlite) from error
        try:
            group = self._join(job)
            if len(group) == 1:
                return cast("T", attempt(mode, operation, args, kwargs))
            if self._is_sqlite:
                self._write_together(attempt, group)
            else:
                self._send_together(attempt, group)
            return cast("T", job.outcome())
        finally:
            self.leave()

    def _write_together(self, attempt: Callable[..., Any], group: list[Job]) -> None:
        """Do several writes in one transaction, each with an outcome of its own.

        The first is that of this thread; the threads of the others go on when this returns. If
        the transaction fails, nothing of it was stored, and each is done by itself.
        """
        others, phase = group[1:], "begins"

        def write(conn: Connection) -> None:
            nonlocal phase
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

        try:
            attempt("append", write)
        except Exception as error:
            if phase == "begins" or isinstance(error, CommitInDoubt):
                for job in group:
                    job.error = error
            else:
                self._write_apart(attempt, "append", group)
        except BaseException as error:  # this thread was interrupted
            lost: type[StoreUnavailableError] = CommitInDoubt if phase == "commits" else RolledBack
            for job in others:
                job.error = lost(f"the thread that wrote it was interrupted: {error!r}")
            raise
        finally:
            for job in others:
                job.end()

    def _send_together(self, attempt: Callable[..., Any], group: list[Job]) -> None:
        """As :meth:`_write_together`, of single statements on a server."""
        others = group[1:]
        try:
            changes = [cast("Change", job.operation) for job in group]
            changes.sort(key=attrgetter("place"))
            found = attempt("statement", send, (changes,))
            results = dict(zip(map(id, changes), found, strict=True))
            for job in group:
                job.result = results[id(job.operation)]
        except (CommitInDoubt, RolledBack) as error:
            for job in group:
                job.error = same(error)
        except Exception:
            self._write_apart(attempt, "statement", group)
        except BaseException as error:  # this thread was interrupted
            for job in others:
                job.error = CommitInDoubt(f"the thread that wrote it was interrupted: {error!r}")
            raise
        finally:
            for job in others:
                job.end()

    def _write_apart(self, attempt: Callable[..., Any], mode: Mode, group: list[Job]) -> None:
        for job in group:
            job.error = job.result = None
            try:
                job.result = attempt(mode, job.operation)
            except Exception as error:
                job.error = error


def _called(operation: Callable[..., T], args: Any, kwargs: Any, conn: Connection) -> T:
    return operation(conn, *args, **kwargs)


def _busy(is_sqlite: bool) -> EventStoreError:
    if is_sqlite:
        return sqlite.translate("locked by other writers of this process")
    return StoreBusyError(
        f"other writers of this process kept the database busy for {sqlite.BUSY_TIMEOUT_S:.0f} s; "
        "run fewer operations at the same time"
    )


def turns(engine: Engine) -> AbstractContextManager[None]:
    """The lock that each transaction needs in addition to the database's own."""
    return Turns() if is_memory(engine) else nullcontext()


def is_memory(engine: Engine) -> bool:
    """Whether an engine has a single connection, which holds a database in memory."""
    if engine.dialect.name != "sqlite":
        return False
    pool = engine.pool
    alone = isinstance(pool, QueuePool) and pool.size() == 1 and pool._max_overflow == 0
    return alone or isinstance(pool, StaticPool)


# --- sent together to PostgreSQL ---------------------------------------------------------

_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
_COMMIT: Final = "COMMIT"

_Statement = tuple[str, Any]


class Apart(Exception):
    """Nothing was stored of several changes together, and each is to be made by itself."""


def may_join(engine: Engine, operation: object) -> bool:
    """Whether an operation may be made together with others; who listens is to see it alone."""
    if not isinstance(operation, Change):
        return False
    events: Any = engine.dispatch
    return not (engine._has_events and events.before_cursor_execute)


def send(conn: Connection, changes: Sequence[Change]) -> list[bool]:
    """Make changes, each to another thread, in one transaction; false for those refused.

    Args:
        conn: commits each statement, where no transaction is begun.
    """
    statements = [each.statement.bound(conn.engine, each.values) for each in changes]
    raw: Any = conn.connection.driver_connection
    try:
        if conn.dialect.is_async:
            counts = await_only(_send_async(raw, statements))
        else:
            counts = _send(raw, statements)
    except Exception as error:
        # No statement is named: an error that the server did not send is no refusal of one by the
        # driver, but of a connection whose commit is in doubt.
        conn._handle_dbapi_exception(error, None, None, None, None)
    except BaseException:  # interrupted: nobody knows where the pipeline stands
        conn.invalidate()
        raise
    return [count == change.rows for count, change in zip(counts, changes, strict=True)]


def _send(conn: Any, statements: Sequence[_Statement]) -> list[int]:
    errors: list[Exception] = []
    cursors: list[Any] = []
    with _noted(errors), conn.pipeline(), _noted(errors):
        conn.execute(_BEGIN)
        cursors.extend(conn.execute(*each) for each in statements)
        conn.execute(_COMMIT)
    return _counts(cursors, errors)


async def _send_async(conn: Any, statements: Sequence[_Statement]) -> list[int]:
    errors: list[Exception] = []
    cursors: list[Any] = []
    with _noted(errors):
        async with conn.pipeline():
            with _noted(errors):
                await conn.execute(_BEGIN)
                cursors.extend([await conn.execute(*each) for each in statements])
                await conn.execute(_COMMIT)
    return _counts(cursors, errors)


@contextmanager
def _noted(errors: list[Exception]) -> Iterator[None]:
    """Lets a pipeline end in order, with the first error kept: what follows it are its effects."""
    try:
        yield
    except Exception as error:
        errors.append(error)


def _counts(cursors: Sequence[Any], errors: Sequence[Exception]) -> list[int]:
    if errors:
        raise errors[0]
    return [cursor.rowcount for cursor in cursors]


class _Waiting(NamedTuple):
    """A change that gathers with others.

    Attributes:
        result: cancelled, if nobody waits for it any more.
        commits: gets an item when it may be committed.
    """

    change: Change
    result: asyncio.Future[bool]
    commits: list[bool]


class Gathering:
    """The changes of the tasks of one event loop.

    Args:
        one: makes a change by itself.
        several: makes several with :func:`send`.
    """

    def __init__(
        self,
        one: Callable[[Change, list[bool]], Coroutine[Any, Any, bool]],
        several: Callable[[Sequence[Change]], Coroutine[Any, Any, list[bool]]],
    ) -> None:
        self._one = one
        self._several = several
        self._under_way: set[asyncio.Future[Any]] = set()
        self._waiting: deque[_Waiting] = deque()

    def begin(self, change: Change, commits: list[bool]) -> asyncio.Future[bool]:
        """Whether the change was made, and not refused.

        Raises:
            Apart: it was not made, and is to be made by itself.
        """
        if len(self._under_way) < PARALLEL:
            return self._start(self._one(change, commits))
        waiting = _Waiting(change, asyncio.get_running_loop().create_future(), commits)
        self._waiting.append(waiting)
        return waiting.result

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        task = eager_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Future[Any]) -> None:
        self._under_way.discard(task)
        while self._waiting and len(self._under_way) < PARALLEL:
            group = self._take()
            if group:
                self._start(self._write(group))

    def _take(self) -> list[_Waiting]:
        """The first that wait, of each thread one."""
        group: dict[int, _Waiting] = {}
        others: list[_Waiting] = []
        while self._waiting and len(group) < GROUP_MAX:
            each = self._waiting.popleft()
            if each.result.cancelled():
                continue
            if each.change.place in group:
                others.append(each)
            else:
                group[each.change.place] = each
        self._waiting.extendleft(reversed(others))
        # All take the threads' rows in one order, so that no two of them wait for each other.
        return [group[place] for place in sorted(group)]

    async def _write(self, group: Sequence[_Waiting]) -> None:
        """Make these changes; their results, or what they have to do, go to those who wait."""
        for each in group:
            each.commits.append(True)
        error: BaseException | None = None
        found: Sequence[bool] = ()
        try:
            if len(group) == 1:
                found = [await self._one(group[0].change, group[0].commits)]
            else:
                found = await self._several([each.change for each in group])
        except (CommitInDoubt, RolledBack) as failed:
            error = failed
        except Exception as failed:
            error = Apart(str(failed))
        except BaseException as failed:  # the event loop ends
            error = CommitInDoubt(f"the task that wrote it was interrupted: {failed!r}")
            raise
        finally:
            for at, each in enumerate(group):
                if each.result.done():
                    continue
                if error is None:
                    each.result.set_result(found[at])
                else:
                    each.result.set_exception(same(error))


def same(error: BaseException) -> BaseException:
    """An error of ours once more: each that raises one adds to its traceback."""
    copy = type(error)(str(error))
    copy.__cause__ = error.__cause__
    return copy
