"""Cancelling what an async store does: it has happened whole or not at all."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import pytest

from eventstore import (
    AsyncEventStore,
    NewSnapshot,
)
from eventstore.db import transactions
from tests.awaited import opened, run
from tests.eventstore.async_support import MOMENTS, add, batch, data_of, holding, pass_by
from tests.eventstore.support import FINGERPRINT, set_everywhere


async def outcome(task: Awaitable[Any]) -> Any:
    """What a task returns, or the error that it ends with."""
    try:
        return await task
    except (Exception, asyncio.CancelledError) as error:
        return error


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


@pytest.mark.pairwise
@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("size", [1, 3])
def test_an_operation_knows_what_it_committed(store_url: str, times: int, size: int) -> None:
    """Cancelled while it commits, it learns how that ended; and the cancellation comes out."""

    async def main() -> None:
        ends = Counter[str]()
        async with opened(store_url) as store:
            head = await store.head("t")

            async def known() -> None:
                nonlocal head
                head = await store.core.append_after(head, batch(*range(size)))

            async def append() -> None:
                await store.concurrency.run(known())

            for moment in [*MOMENTS, *range(40)]:
                before = head
                task = asyncio.ensure_future(append())
                for _ in range(times):
                    await pass_by(moment)
                    task.cancel()
                ended = await outcome(task)
                assert ended is None or isinstance(ended, asyncio.CancelledError)
                ends["returned" if ended is None else "stored" if head != before else "not"] += 1
                assert (await store.head("t")).position == head.position
            assert await store.append("t", batch("last"), head.seq) == head.seq + 1
            assert (await store.verify("t")).ok
        assert ends["not"] and ends["stored"] + ends["returned"], ends

    run(main())


def test_a_cancelled_write_that_waits_for_a_lock_ends_soon(postgresql_url: str) -> None:
    async def main() -> None:
        async with opened(postgresql_url) as store:
            await store.append("t", batch(1), 0)
            with holding(postgresql_url, 8):
                tasks = [
                    asyncio.ensure_future(store.append("t", batch(2), 1, status="failed")),
                    asyncio.ensure_future(store.delete_thread("t")),
                ]
                await asyncio.sleep(0.3)
                began = time.monotonic()
                for task in tasks:
                    task.cancel()
                for task in tasks:
                    assert isinstance(await outcome(task), asyncio.CancelledError)
                assert time.monotonic() - began < transactions.CANCELLING_S + 1
            assert await data_of(store, "t") == [1]

    run(main())
