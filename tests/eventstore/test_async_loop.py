"""An async store does not block the loop while it waits for a lock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
from sqlalchemy import make_url

from eventstore import (
    AsyncEventStore,
    StoreClosedError,
    ThreadNotFoundError,
)
from eventstore.concurrency import STORE_THREADS
from tests.awaited import Heartbeat, opened, run
from tests.eventstore.async_support import batch, data_of, holding

LAG_MAX_S: Final = 0.75
HELD_S: Final = 1.5
"""A lock is held for so long; a loop that waits for it would not beat meanwhile."""


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
                    asyncio.ensure_future(store.append(f"u{n}", batch(1), 0))
                    for n in range(STORE_THREADS + 12)
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
                await again.thread(f"u{STORE_THREADS + 11}")

    run(main())
