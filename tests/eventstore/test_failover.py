"""A PostgreSQL server that goes away under its writers: nothing acknowledged is lost or doubled.

The server is real, has `fsync` on, and is restarted every second or two, in the ways in which
an operator, a fail-over and a crash end it.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from eventstore import AsyncEventStore, ConcurrencyError, Event, EventStore
from tests import postgres
from tests.effort import effort

pytestmark = pytest.mark.slow

WRITERS: Final = 16
RESTARTS: Final = effort(3, 5)
UP_S: Final = effort(0.8, 1.2)
"""How long the server is up between two restarts."""

SHARED: Final = "shared"
"""The thread to which a quarter of the writers append, each against the others."""


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server(fsync=True) as running:
        yield running


def _thread_of(writer: int) -> str:
    return SHARED if writer % 4 == 0 else f"own {writer}"


def _restart(server: postgres.Server, stop: threading.Event) -> None:
    """Restart it again and again, then let the writers end."""
    try:
        for mode in random.sample(["fast", "immediate"] * RESTARTS, RESTARTS):
            time.sleep(UP_S)
            server.restart(mode)  # type: ignore[arg-type]
        time.sleep(UP_S)
    finally:
        stop.set()


def _check(url: str, acknowledged: dict[int, int]) -> None:
    """What each writer was told is there, once and in order, and nothing else."""
    with EventStore(url, tenant="test") as store:
        found: dict[int, list[int]] = {}
        for thread_id in {_thread_of(writer) for writer in acknowledged}:
            assert store.verify(thread_id).ok
            events = list(store.read(thread_id))
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            for event in events:
                found.setdefault(event.data["writer"], []).append(event.data["n"])
        assert found == {
            writer: list(range(1, count + 1)) for writer, count in acknowledged.items()
        }
    assert min(acknowledged.values()) > 0


def test_restarts_under_sixteen_blocking_writers(server: postgres.Server) -> None:
    with server.database() as url, EventStore(url, tenant="test", pool_max_size=WRITERS) as store:
        store.setup()
        stop = threading.Event()

        def write(writer: int) -> int:
            thread_id, n = _thread_of(writer), 0
            while not (stop.is_set() and n):  # who lost every race has its turn at the end
                try:
                    head = store.head(thread_id)
                    store.append_after(head, [Event(1, {"writer": writer, "n": n + 1})])
                    n += 1
                except ConcurrencyError:
                    continue
            return n

        with ThreadPoolExecutor(WRITERS + 1) as pool:
            writers = {writer: pool.submit(write, writer) for writer in range(WRITERS)}
            pool.submit(_restart, server, stop).result()
            acknowledged = {writer: future.result() for writer, future in writers.items()}
        _check(url, acknowledged)


def test_restarts_under_sixteen_awaiting_writers(server: postgres.Server) -> None:
    stop = threading.Event()

    async def write(store: AsyncEventStore, writer: int) -> int:
        thread_id, n = _thread_of(writer), 0
        while not (stop.is_set() and n):  # who lost every race has its turn at the end
            try:
                head = await store.head(thread_id)
                await store.append_after(head, [Event(1, {"writer": writer, "n": n + 1})])
                n += 1
            except ConcurrencyError:
                continue
        return n

    async def main(url: str) -> dict[int, int]:
        async with AsyncEventStore(url, tenant="test", pool_max_size=WRITERS) as store:
            await store.setup()
            restarting = asyncio.create_task(asyncio.to_thread(_restart, server, stop))
            counts = await asyncio.gather(*(write(store, writer) for writer in range(WRITERS)))
            await restarting
            return dict(enumerate(counts))

    with server.database() as url:
        _check(url, asyncio.run(main(url)))
