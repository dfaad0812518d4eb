"""The async store: the same signatures, closing, loops and threads.

What its operations mean is tested with those of the sync store, over both (see the fixture
`store`). Here is what only an event loop can do to them.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import re
import threading
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from eventstore import (
    AsyncEventStore,
    ConcurrencyError,
    ConfigurationError,
    EventStore,
    NewSnapshot,
    Position,
    StoreClosedError,
)
from eventstore.concurrency import run_sync
from graph import (
    AsyncPostgresSaver,
    AsyncSqliteSaver,
    CompiledGraph,
    PostgresSaver,
    SqliteSaver,
)
from tests.awaited import lent, opened, others, run
from tests.eventstore.async_support import MOMENTS, batch, data_of, pass_by
from tests.eventstore.support import FINGERPRINT

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
        # Savers are read as LangGraph's are: each kind has both halves.
        assert waits or name in ("now_us", "serve", "with_tenant") or f"a{name}" in theirs, (
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
    describing = {"get_context_jsonschema", "get_graph", "get_input_jsonschema"}
    describing |= {"get_output_jsonschema", "get_subgraphs"}
    describing |= {"get_input_schema", "get_output_schema"}
    assert unpaired == describing | {
        "as_runnable",
        "check_sync",
        "get_name",
        "history",
        "log_on",
        "nested",
        "output",
        "reader_on",
        "with_checkpointer",
        "with_config",
    }
    for name in twins:
        assert described(methods[name]) == described(methods[name[1:]]), name
        assert methods[name].__doc__
        assert methods[name[1:]].__doc__


def asynchronous(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


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


@pytest.mark.slow
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


# --- connections of aiosqlite -----------------------------------------------------------


def test_the_file_of_an_aiosqlite_connection(tmp_path: Path) -> None:
    aiosqlite = pytest.importorskip("aiosqlite")
    path = tmp_path / "a.db"

    async def main() -> None:
        async with aiosqlite.connect(path) as connection:
            async with AsyncEventStore(connection) as store:
                assert await asyncio.gather(*(store.append(f"t{n}", batch(n), 0) for n in range(9)))
            async with connection.execute("SELECT count(*) FROM events") as cursor:
                assert await cursor.fetchone() == (9,), "the connection stays the caller's and open"

    run(main())
    with EventStore(path) as store:
        assert store.thread_counts() == {"idle": 9}


def test_what_an_aiosqlite_connection_cannot_be(tmp_path: Path) -> None:
    aiosqlite = pytest.importorskip("aiosqlite")

    async def main() -> None:
        async with (
            aiosqlite.connect(":memory:") as connection,
            AsyncEventStore(connection) as store,
        ):
            with pytest.raises(ConfigurationError, match="cannot be shared"):
                await store.head("t")
        async with aiosqlite.connect(tmp_path / "a.db") as connection:
            with pytest.raises(ConfigurationError, match="read_only needs the file's path"):
                AsyncEventStore(connection, read_only=True)
            async with AsyncEventStore(connection) as store:
                with pytest.raises(ConfigurationError, match="use its async methods"):
                    run_sync(store.core.head("t"))  # as a graph's invoke() would in a coroutine

    run(main())
