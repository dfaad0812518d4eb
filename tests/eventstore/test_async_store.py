"""The store in an event loop: the same signatures, and what cancelling, closing and waiting do.

What its operations mean is tested with those of the blocking store, over both (see the fixture
`store`). Here is what only an event loop can do to them.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import create_engine, make_url

from eventstore import (
    AsyncEventStore,
    ConcurrencyError,
    Event,
    EventStore,
    NewSnapshot,
    Position,
    StoreClosedError,
    ThreadNotFoundError,
)
from graph import (
    AsyncPostgresSaver,
    AsyncSqliteSaver,
    CompiledGraph,
    PostgresSaver,
    SqliteSaver,
)
from tests.awaited import Heartbeat, lent, opened, others, run
from tests.eventstore.support import FINGERPRINT, set_everywhere

MOMENTS: Final = [*range(12), *(round(12 * 1.4**n) for n in range(1, 12))]
"""Iterations of the loop to let pass before something is cancelled: each of the first ones, and
then ever fewer, up to the end of what takes long."""

LAG_MAX_S: Final = 0.75
HELD_S: Final = 1.5
"""A lock is held for so long; a loop that waits for it would not beat meanwhile."""


async def pass_by(iterations: int) -> None:
    """Let the event loop go round so many times."""
    for _ in range(iterations):
        await asyncio.sleep(0)


async def outcome(task: Awaitable[Any]) -> Any:
    """What a task returns, or the error that it ends with."""
    try:
        return await task
    except (Exception, asyncio.CancelledError) as error:
        return error


def batch(*values: Any) -> list[Event]:
    return [Event(1, value) for value in values]


async def data_of(store: AsyncEventStore, thread_id: str) -> list[Any]:
    return [event.data async for event in store.read(thread_id) if event.kind]


# --- signatures -------------------------------------------------------------------------


def public(kind: type) -> dict[str, Any]:
    """The methods and properties of a class, inherited ones too."""
    return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_")}


def described(function: Any) -> list[tuple[Any, ...]]:
    """A signature to be compared: an asynchronous generator counts as an iterator."""
    signature = inspect.signature(function)
    parameters = [
        (p.name, p.kind, p.default, str(p.annotation)) for p in signature.parameters.values()
    ]
    returned = str(signature.return_annotation)
    returned = re.sub(r"AsyncGenerator\[(\w+), None\]", r"Iterator[\1]", returned)
    return [*parameters, ("return", returned)]


@pytest.mark.parametrize(
    ("blocking", "asynchronous"),
    [
        (EventStore, AsyncEventStore),
        (SqliteSaver, AsyncSqliteSaver),
        (PostgresSaver, AsyncPostgresSaver),
    ],
)
def test_both_shells_have_the_same_methods(blocking: type, asynchronous: type) -> None:
    ours, theirs = public(blocking), public(asynchronous)
    assert ours.keys() == theirs.keys()
    for name, method in ours.items():
        twin = theirs[name]
        assert method.__doc__, f"{blocking.__name__}.{name} says nothing of itself"
        assert twin.__doc__, f"{asynchronous.__name__}.{name} says nothing of itself"
        if not callable(method) or name == "from_conn_string":
            assert type(method) is type(twin)
            continue
        assert described(method) == described(twin), name
        waits = inspect.iscoroutinefunction(twin) or inspect.isasyncgenfunction(twin)
        assert waits or name in ("now_us", "with_tenant"), (
            f"{name} of {asynchronous.__name__} blocks"
        )


def test_both_shells_are_opened_alike() -> None:
    blocking, asynchronous = [
        [(p.name, p.kind, p.default) for p in inspect.signature(kind).parameters.values()]
        for kind in (EventStore, AsyncEventStore)
    ]
    assert blocking == asynchronous


def test_every_call_of_a_graph_has_its_twin() -> None:
    methods = {name: each for name, each in public(CompiledGraph).items() if callable(each)}
    twins = {name for name in methods if name[0] == "a" and name[1:] in methods}
    waits = {name for name in methods if asynchronous(methods[name])}
    assert waits == twins | {"nested"}  # which a parent's run awaits
    unpaired = methods.keys() - twins - {name[1:] for name in twins}
    assert unpaired == {"get_graph", "log_on", "nested", "output", "reader_on", "with_config"}
    for name in twins:
        assert described(methods[name]) == described(methods[name[1:]]), name
        assert methods[name].__doc__
        assert methods[name[1:]].__doc__


def asynchronous(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


# --- cancelling -------------------------------------------------------------------------


async def add(store: AsyncEventStore, mark: str) -> Any:
    return await store.append(f"{mark}old", batch(*range(3, 6)), 2)


async def begin(store: AsyncEventStore, mark: str) -> Any:
    return await store.append(f"{mark}new", batch(1, 2, 3), 0, metadata={"a": 1})


async def fork(store: AsyncEventStore, mark: str) -> Any:
    return await store.fork(f"{mark}old", 1, f"{mark}new", metadata={"a": 1})


async def delete(store: AsyncEventStore, mark: str) -> Any:
    return await store.delete_thread(f"{mark}old")


async def change(store: AsyncEventStore, mark: str) -> Any:
    return await store.set_thread(f"{mark}old", status="failed", ttl=5, metadata={"b": 2})


async def snapshot(store: AsyncEventStore, mark: str) -> Any:
    head = await store.head(f"{mark}old")
    await store.put_snapshot(head, NewSnapshot(FINGERPRINT, b"s", b"i"))


OPERATIONS: Final = (add, begin, fork, delete, change, snapshot)


async def standing(store: AsyncEventStore, mark: str) -> Any:
    """Everything that one of the operations could have changed, times aside."""
    found = []
    infos = await store.threads(prefix=mark)
    for info in sorted(infos, key=lambda info: info.thread_id):
        assert (await store.verify(info.thread_id)).ok
        snapshots = await store.snapshot_positions(info.thread_id, FINGERPRINT)
        replay = await store.replay(info.thread_id)
        found.append(
            (
                *(info.thread_id.removeprefix(mark), info.status, info.ttl, info.metadata),
                [(event.seq, event.kind) async for event in store.read(info.thread_id)],
                [event.data async for event in replay.events if event.kind],
                [at.seq for at in snapshots],
            )
        )
    return found


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_what_is_cancelled_has_happened_whole_or_not_at_all(
    store_url: str,
    operation: Callable[[AsyncEventStore, str], Awaitable[Any]],
    times: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At whatever moment, and if it is cancelled again while it ends."""
    set_everywhere(monkeypatch, "DELETE_BATCH", 1)  # a deletion is many transactions

    async def main() -> None:
        whole: list[Any] = []
        cancelled = 0
        async with opened(store_url) as store:
            for moment in MOMENTS[:: times**2]:
                mark = f"{moment}."
                await store.append(f"{mark}old", batch(1, 2), 0)
                await store.fork(f"{mark}old", 2, f"{mark}child")
                before = await standing(store, mark)
                task = asyncio.ensure_future(operation(store, mark))
                for _ in range(times):
                    await pass_by(moment)
                    task.cancel()
                ended = await outcome(task)
                after = await standing(store, mark)  # on this very store: it must still work
                if after == before:
                    assert isinstance(ended, asyncio.CancelledError)
                    cancelled += 1
                    await operation(store, mark)
                    after = await standing(store, mark)
                whole.append(after)
        assert all(each == whole[0] != before for each in whole)
        assert cancelled > 0

    run(main())


def test_a_cancelled_operation_is_not_at_work_any_more(store_url: str) -> None:
    """Whoever sees the cancellation sees what became of it: nothing comes after."""

    async def main() -> None:
        async with opened(store_url) as store:
            await store.setup()
            for moment in MOMENTS:
                thread_id = f"t{moment}"
                task = asyncio.ensure_future(store.append(thread_id, batch(1, 2), 0))
                await pass_by(moment)
                task.cancel()
                await asyncio.sleep(0)
                task.cancel()
                await outcome(task)
                head = await store.head(thread_id)
                await asyncio.sleep(0.01)
                assert await store.head(thread_id) == head

    run(main())


def test_a_timeout_is_a_timeout(store_url: str) -> None:
    """`asyncio.timeout` counts cancellations; none may be swallowed or invented."""

    async def main() -> None:
        async with opened(store_url) as store:
            await store.setup()
            late = 0
            for number in range(40):
                thread_id = f"t{number}"
                try:
                    async with asyncio.timeout(number / 10_000):
                        for seq in range(30):
                            await store.append(thread_id, batch(seq), seq)
                except TimeoutError:
                    late += 1
                assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
                head = await store.head(thread_id)
                if head.exists:
                    assert await data_of(store, thread_id) == list(range(head.seq))
            assert late > 0

    run(main())


def test_an_inner_and_an_outer_timeout_end_together(tmp_path: Path) -> None:
    """The second cancellation comes while the first one waits for the thread to be done."""

    async def main() -> None:
        async with opened(url) as store:
            await store.append("t", batch(1), 0)
            with holding(url, 0.3):
                with pytest.raises(TimeoutError):
                    await twice_late(store)
                assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
            assert await data_of(store, "t") in ([1], [1, 2])

    url = f"sqlite:///{tmp_path / 'store.db'}"
    run(main())


async def twice_late(store: AsyncEventStore) -> None:
    async with asyncio.timeout(0.1), asyncio.timeout(0.05):
        await store.append("t", batch(2), 1)


def test_reading_can_be_cancelled_twice(store_url: str) -> None:
    """A page may be on its way on a thread just then; the reader waits for it and closes."""

    async def main() -> None:
        async with opened(store_url) as store:
            await store.append("t", batch(*range(600)), 0)

            async def read() -> None:
                async with aclosing(store.read("t")) as events:
                    async for _ in events:
                        pass

            for moment in MOMENTS:
                task = asyncio.ensure_future(read())
                await pass_by(moment)
                task.cancel()
                await asyncio.sleep(0)
                task.cancel()
                assert await outcome(task) is None or task.cancelled()

    run(main())


def test_a_storm_of_cancellations(store_url: str) -> None:
    """Writers and readers cancelled at random: what was acknowledged is there, once."""

    async def main() -> None:
        chance = random.Random(5)
        acknowledged: dict[str, int] = {}

        async def write(store: AsyncEventStore, thread_id: str) -> None:
            for _ in range(6):
                head = await store.head(thread_id)
                values = batch(*range(head.seq, head.seq + 2))
                acknowledged[thread_id] = await store.append(thread_id, values, head.seq)
                await data_of(store, thread_id)

        async with opened(store_url) as store:
            tasks = [asyncio.ensure_future(write(store, f"t{n}")) for n in range(60)]
            for task in tasks[::2]:
                await asyncio.sleep(chance.random() / 100)
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(each is None or type(each) is asyncio.CancelledError for each in ended)
            for number in range(60):
                thread_id = f"t{number}"
                head = await store.head(thread_id)
                assert head.seq >= acknowledged.get(thread_id, 0)
                assert head.seq == 12 or tasks[number].cancelled()
                if head.exists:
                    assert await data_of(store, thread_id) == list(range(head.seq))
                    assert (await store.verify(thread_id)).ok

    run(main())


# --- closing ----------------------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS[::3])
def test_closing_while_operations_run(store_url: str, moment: int) -> None:
    """Each has happened and says so, or has not and says that the store was closed."""

    async def main() -> None:
        store = AsyncEventStore(store_url)
        await store.setup()
        names = [f"t{number}" for number in range(24)]
        tasks = [asyncio.ensure_future(store.append(name, batch(1, 2), 0)) for name in names]
        await pass_by(moment)
        await store.close()
        assert lent(store) == 0
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        if make_url(store_url).database is None:  # in memory: gone
            assert all(end == 2 or type(end) is StoreClosedError for end in ended)
            return
        async with opened(store_url, tenant="default") as again:
            there = {info.thread_id for info in await again.threads()}
        for name, end in zip(names, ended, strict=True):
            if name in there:
                assert end == 2
            else:
                assert type(end) is StoreClosedError

    run(main())


def test_nothing_works_after_closing(store_url: str) -> None:
    async def main() -> None:
        async with opened(store_url) as store:
            await store.append("t", batch(1), 0)
            head = await store.head("t")
        fresh = AsyncEventStore(store_url)
        await fresh.close()
        threads = set(threading.enumerate())
        for closed in (store, fresh):
            await closed.close()  # a second time: does nothing
            calls = [
                closed.setup(),
                closed.head("t"),
                anext(aiter(closed.read("t"))),
                closed.replay("t"),
                closed.lineage(head.position),
                anext(aiter(closed.read_span("t", head.position, None))),
                closed.thread_at(head.thread_key),
                closed.thread("t"),
                closed.threads(),
                closed.snapshot_positions("t", FINGERPRINT),
                closed.append("t", batch(2), 1),
                closed.append_after(head, batch(2)),
                closed.fork("t", 1, "u"),
                closed.put_snapshot(head, NewSnapshot(FINGERPRINT, b"s", b"i")),
                closed.set_thread("t", ttl=1),
                closed.delete_thread("t"),
                closed.finish_deletions(),
                closed.delete_snapshots("t"),
                closed.verify("t"),
                closed.stats(),
            ]
            for call in calls:
                with pytest.raises(StoreClosedError):
                    await call
        assert set(threading.enumerate()) <= threads

    run(main())


@pytest.mark.parametrize("count", [1, 300])
def test_a_reader_that_stops_early_leaves_nothing(store_url: str, count: int) -> None:
    """Not even if the store is closed before the event loop gets to close the reader."""

    async def main() -> None:
        async with opened(store_url) as store:
            await store.append("t", batch(*range(600)), 0)
            at = Position((await store.head("t")).thread_key, "", 0)
            for events in (
                store.read("t"),
                store.read_span("t", at, None),
                (await store.replay("t")).events,
            ):
                left = count
                async with aclosing(events) as closing:
                    async for _ in closing:
                        left -= 1
                        if not left:
                            break
                assert not others()
            dropped = store.read("t")
            await anext(dropped)
        await dropped.aclose()

    run(main())


# --- loops and threads ------------------------------------------------------------------


def test_two_loops_one_after_the_other(tmp_path: Path) -> None:
    """On SQLite a store is bound to no loop (an asynchronous driver is)."""
    for target in (f"sqlite:///{tmp_path / 'store.db'}", ":memory:"):
        store = AsyncEventStore(target)
        for number in range(3):

            async def add(store: AsyncEventStore, number: int) -> list[Any]:
                await asyncio.gather(*(store.head(f"{n}") for n in range(10)))
                await store.append("t", batch(number), number)
                return await data_of(store, "t")

            assert run(add(store, number)) == list(range(number + 1))
        run(store.close())


def test_two_loops_side_by_side(tmp_path: Path) -> None:
    store = AsyncEventStore(tmp_path / "store.db")
    counts: list[int] = []

    async def add(name: str) -> None:
        for seq in range(20):
            await store.append(name, batch(seq), seq)
        counts.append(len(await data_of(store, name)))

    threads = [threading.Thread(target=run, args=(add(name),)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run(store.close())
    assert counts == [20, 20, 20]


def test_two_hundred_appends_at_once(store_url: str) -> None:
    async def main() -> None:
        async with opened(store_url) as store:  # not set up yet: they all come upon that
            names = [f"t{number}" for number in range(200)]
            ended = await asyncio.gather(*(store.append(n, batch(n, 2), 0) for n in names))
            assert ended == [2] * 200
            assert {info.thread_id for info in await store.threads(limit=1000)} == set(names)
            found = await asyncio.gather(*(data_of(store, name) for name in names))
            assert found == [[name, 2] for name in names]
            assert lent(store) == 0

    run(main())


def test_one_winner_for_every_seq(store_url: str) -> None:
    async def main() -> None:
        async with opened(store_url) as store:
            for seq in range(8):
                racers = (store.append("t", batch(n), seq) for n in range(16))
                ended = await asyncio.gather(*racers, return_exceptions=True)
                won = [n for n, end in enumerate(ended) if end == seq + 1]
                lost = [end for end in ended if isinstance(end, ConcurrencyError)]
                assert (len(won), len(lost)) == (1, 15)
                assert all((e.thread_id, e.expected, e.actual) == ("t", seq, seq + 1) for e in lost)
                assert (await data_of(store, "t"))[seq:] == won
            assert (await store.verify("t")).ok

    run(main())


def test_context_variables_go_along(store_url: str) -> None:
    """What the caller's functions see is the caller's context, wherever they run."""
    year: contextvars.ContextVar[int] = contextvars.ContextVar("year")

    def clock() -> datetime:
        return datetime(year.get(), 1, 1, tzinfo=UTC)

    async def add(store: AsyncEventStore, number: int) -> datetime:
        year.set(number)
        await store.append(f"t{number}", batch(1), 0)
        return (await store.thread(f"t{number}")).created_at

    async def main() -> None:
        year.set(1999)
        async with opened(store_url, clock=clock) as store:
            found = await asyncio.gather(*(add(store, 2000 + n) for n in range(20)))
        assert [at.year for at in found] == [2000 + n for n in range(20)]

    run(main())


# --- not blocking the loop --------------------------------------------------------------

_HOLD: Final = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


@contextmanager
def holding(url: str, seconds: float) -> Iterator[None]:
    """Another process (or, on PostgreSQL, session) holds what every writer needs, for a while."""
    if make_url(url).get_backend_name() == "sqlite":
        path = str(make_url(url).database)
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLD, path, str(seconds)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate()
        return
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    held = engine.connect()
    held.exec_driver_sql("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
    timer = threading.Timer(seconds, held.close)
    timer.start()
    yield
    timer.join()
    engine.dispose()


@asynccontextmanager
async def contended(url: str) -> AsyncIterator[AsyncEventStore]:
    """A store with one thread, on which writers have to wait for another process meanwhile."""
    if make_url(url).database is None:
        pytest.skip("no other process can use a database in memory")
    async with opened(url) as store:
        await store.append("t", batch(1), 0)
        with holding(url, HELD_S):
            yield store


def test_waiting_for_a_lock_does_not_block_the_loop(store_url: str) -> None:
    async def main() -> None:
        async with contended(store_url) as store, Heartbeat() as heart:
            began = time.monotonic()
            await asyncio.gather(*(store.append(f"u{n}", batch(1), 0) for n in range(20)))
            assert time.monotonic() - began > HELD_S / 2  # it did have to wait
        assert heart.longest < LAG_MAX_S
        assert heart.beats > 10

    run(main())


def test_closing_does_not_block_the_loop(store_url: str) -> None:
    async def main() -> None:
        async with contended(store_url) as store, Heartbeat() as heart:
            tasks = [asyncio.ensure_future(store.append(f"u{n}", batch(1), 0)) for n in range(20)]
            await asyncio.sleep(0.1)
            await store.close()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(end == 1 or type(end) is StoreClosedError for end in ended)
        assert heart.longest < LAG_MAX_S

    run(main())


def test_cancelling_what_waits_for_a_lock_does_not_block_the_loop(store_url: str) -> None:
    async def main() -> None:
        async with contended(store_url) as store:
            async with Heartbeat() as heart:
                tasks = [
                    asyncio.ensure_future(store.append(f"u{n}", batch(1), 0)) for n in range(20)
                ]
                await asyncio.sleep(0.1)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            assert heart.longest < LAG_MAX_S
            for number, task in enumerate(tasks):
                if not task.cancelled():
                    assert task.result() == 1
                    assert await data_of(store, f"u{number}") == [1]
        with pytest.raises(ThreadNotFoundError):  # one that never got a thread
            async with opened(store_url) as again:
                await again.thread("u19")

    run(main())
