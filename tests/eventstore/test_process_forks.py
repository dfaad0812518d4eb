"""Stores that are open when their process is forked: parent and child both go on with them."""

from __future__ import annotations

import asyncio
import operator
import os
import signal
import sqlite3
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine

from eventstore import AsyncEventStore, ConfigurationError, Event, EventStore
from eventstore.db import process_forks
from eventstore.db.sqlite import sqlite_driver
from graph import START, StateGraph
from tests.eventstore.support import check_whole, fill, numbers

pytestmark = [
    pytest.mark.every_backend,
    pytest.mark.slow,
    pytest.mark.no_cover,  # it would be measured in two processes
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no forks"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

LIMIT_S = 30


class Sums(TypedDict):
    total: Annotated[int, operator.add]


def forked(work: Callable[[], object], count: int = 1) -> list[str]:
    """What went wrong in children that do this, all side by side; nothing: they ended well."""
    children = []
    for _ in range(count):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            signal.alarm(LIMIT_S)  # a child that hangs is a failure
            failure = b""
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    work()
            except BaseException:
                failure = traceback.format_exc().encode()
            os.write(writing, failure)
            os._exit(0 if not failure else 1)
        os.close(writing)
        children.append((pid, reading))
    found = []
    for pid, reading in children:
        with os.fdopen(reading, "rb") as pipe:
            message = pipe.read().decode()
        status = os.waitpid(pid, 0)[1]
        if status:
            found.append(message or f"ended with {status}")
    return found


def own_thread(store: EventStore, count: int = 5) -> None:
    """Append to a thread of this process, and read it."""
    name = f"p{os.getpid()}"
    for number in range(1, count + 1):
        fill(store, name, 1, start=number)
    assert numbers(store.read(name)) == list(range(1, count + 1))


def is_memory(url: str) -> bool:
    return url == "sqlite://"


def test_both_go_on(store_url: str) -> None:
    with EventStore(store_url) as store:
        fill(store, "t", 3)

        def in_child() -> None:
            assert numbers(store.read("t")) == [1, 2, 3]
            own_thread(store)

        assert forked(in_child, count=4) == []
        own_thread(store)
        assert numbers(store.read("t")) == [1, 2, 3]
        if not is_memory(store_url):
            assert store.stats().threads == 1 + 4 + 1
        assert check_whole(store) == store.stats().threads


def test_a_child_sees_what_the_parent_wrote_and_the_other_way_round(store_url: str) -> None:
    if is_memory(store_url):
        pytest.skip("a database in memory stays in its process")
    with EventStore(store_url) as store:
        fill(store, "t", 1)

        def write_and_fork_again() -> None:
            assert fill(store, "t", 1, start=2) == 2
            assert forked(lambda: fill(store, "t", 1, start=3)) == []
            assert numbers(store.read("t")) == [1, 2, 3]

        assert forked(write_and_fork_again) == []
        assert numbers(store.read("t")) == [1, 2, 3]
        assert fill(store, "t", 1, start=4) == 4


def test_a_child_of_a_process_whose_threads_are_at_work(store_url: str) -> None:
    stop, failures = threading.Event(), []
    with EventStore(store_url) as store:
        fill(store, "t", 1)

        def work(name: str) -> None:
            number = 0
            try:
                while not stop.is_set():
                    number += 1
                    fill(store, name, 1, start=number)
                    store.head(name)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(10):
                assert forked(lambda: own_thread(store, 2)) == []
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failures == []
        assert check_whole(store) == store.stats().threads


@pytest.mark.parametrize("in_loop", [False, True])
def test_an_async_store(store_url: str, in_loop: bool) -> None:
    store = AsyncEventStore(store_url)

    async def use() -> None:
        name = f"p{os.getpid()}.{time.monotonic_ns()}"
        assert await store.append(name, [Event(1, 1)], 0) == 1
        assert [event.data async for event in store.read(name)] == [1]

    def in_child() -> None:
        async def main() -> None:
            for _ in range(2):
                await asyncio.gather(*(use() for _ in range(5)))
            await store.close()

        asyncio.run(main())

    async def main() -> None:
        await asyncio.gather(*(use() for _ in range(5)))
        if in_loop:  # a child has no running event loop of its own then
            assert await asyncio.to_thread(forked, in_child) == []
        await use()

    asyncio.run(main())
    assert forked(in_child) == []

    async def end() -> None:
        await use()
        await store.close()

    asyncio.run(end())


def test_a_graph(store_url: str) -> None:
    with EventStore(store_url) as store:
        built = StateGraph(Sums).add_node("n", lambda state: {"total": 1})
        app = built.add_edge(START, "n").compile(store)

        def run() -> None:
            config: Any = {"configurable": {"thread_id": f"p{os.getpid()}"}}
            for turn in range(1, 4):
                assert app.invoke({}, config)["total"] == turn

        run()
        assert forked(run, count=3) == []


def test_a_callers_engine(store_url: str) -> None:
    if is_memory(store_url):
        pytest.skip("engines on memory differ")
    options = {} if "postgresql" in store_url else {"module": sqlite_driver()}
    url = store_url.replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url, **options)
    with EventStore(engine) as store:
        own_thread(store)
        assert forked(lambda: own_thread(store), count=2) == []
        own_thread(store.with_tenant("other"))
    engine.dispose()


def test_a_callers_pool_serves_the_parent_alone(postgresql_url: str) -> None:
    url = postgresql_url.replace("postgresql+psycopg", "postgresql")
    with ConnectionPool(url, min_size=1, max_size=2) as pool, EventStore(pool) as store:
        fill(store, "t", 1)

        def refused() -> None:
            with pytest.raises(ConfigurationError, match="open the pool, and a store on it"):
                store.head("t")

        assert forked(refused) == []
        assert fill(store, "t", 1, start=2) == 2


def test_a_thread_that_does_not_end_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_forks, "WAIT_S", 0.2)
    with EventStore(tmp_path / "a.db") as store:
        fill(store, "t", 1)

        def refused() -> None:
            with pytest.raises(ConfigurationError, match="was forked while a thread"):
                store.head("t")

        with store.engine.connect():
            assert forked(refused) == []
        assert fill(store, "t", 1, start=2) == 2
        assert forked(lambda: own_thread(store)) == []


def test_a_closed_store_and_one_that_was_never_used(store_url: str) -> None:
    with EventStore(store_url) as unused:
        closed = EventStore(store_url)
        fill(closed, "t", 1)
        closed.close()
        assert forked(lambda: own_thread(unused)) == []
        own_thread(unused)


def test_the_locks_of_a_file_hold_between_parent_and_child(tmp_path: Path) -> None:
    """A child that shared the parent's view of the locks would have its log file deleted."""
    path = tmp_path / "a.db"
    store = EventStore(path)
    fill(store, "t", 1)
    reading, writing = os.pipe()

    def write_later() -> None:
        fill(store, "child", 1)
        os.write(writing, b"written")
        time.sleep(0.5)  # meanwhile the parent closes the file
        fill(store, "child", 1, start=2)
        store.close()

    def close_then() -> None:
        os.read(reading, 7)
        store.close()

    closer = threading.Thread(target=close_then)
    closer.start()
    assert forked(write_later) == []
    closer.join()
    os.close(reading)
    os.close(writing)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (3,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
