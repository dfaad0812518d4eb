"""Writers to one store: threads with the sync API, tasks of an event loop with the async one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, cast

import psycopg
from sqlalchemy import Engine

from eventstore import AsyncEventStore, Event, EventStore, Head
from tests.eventstore.support import data_of

WAIT_S: Final = 20.0

Call = Callable[[Any], Any]
"""Calls a method of a store, which is sync or async."""


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


class Threads:
    """Writers in threads, with the sync API."""

    def __init__(self, target: Any) -> None:
        self.store = EventStore(target)

    @property
    def engine(self) -> Engine:
        return self.store.engine

    def ask(self, call: Call) -> Any:
        return call(self.store)

    def together(self, held: Held, calls: Sequence[Call]) -> list[Any]:
        waiting = self.store.core.transactions._writers._waiting
        with ThreadPoolExecutor(len(calls) + 1) as pool, held:
            first = pool.submit(self.store.append, "first", [Event(1)], 0)
            held.wait()
            jobs = [pool.submit(outcome, partial(call, self.store)) for call in calls]
            until(lambda: len(waiting) == len(calls))
            held.release()
            assert first.result(WAIT_S) == 1
            return [job.result(WAIT_S) for job in jobs]

    def close(self) -> None:
        self.store.close()


class Tasks:
    """Writers in tasks of an event loop, with the async API."""

    def __init__(self, target: Any) -> None:
        self._runner = asyncio.Runner()
        self.store = self.run(self._opened(target))

    @staticmethod
    async def _opened(target: Any) -> AsyncEventStore:
        return AsyncEventStore(target)

    @property
    def engine(self) -> Engine:
        return cast("Engine", self.store.database.engine.sync_engine)

    def run(self, work: Any) -> Any:
        return self._runner.run(work)

    def ask(self, call: Call) -> Any:
        async def asked() -> Any:
            return await call(self.store)

        return self.run(asked())

    def together(self, held: Held, calls: Sequence[Call]) -> list[Any]:
        return list(self.run(self.gathered(held, calls)))

    async def gathered(
        self,
        held: Held,
        calls: Sequence[Call],
        meanwhile: Callable[[list[asyncio.Task[Any]]], Awaitable[Any]] | None = None,
    ) -> list[Any]:
        with held:
            first = asyncio.create_task(self.store.append("first", [Event(1)], 0))
            await asyncio.to_thread(held.wait)
            jobs = [asyncio.create_task(call(self.store)) for call in calls]
            while len(self.waiting) < len(calls):
                await asyncio.sleep(0.001)
            if meanwhile is not None:
                await meanwhile(jobs)
            held.release()
            assert await first == 1
            return await asyncio.gather(*jobs, return_exceptions=True)

    @property
    def waiting(self) -> Any:
        gathering = self.store.database._loops.current().gathering
        assert gathering is not None
        return gathering._waiting

    def close(self) -> None:
        self.run(self.store.close())
        self._runner.close()


class Held:
    """Holds up every append, from its begin on, until it is released."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        self._conn = psycopg.connect(self._url)
        self._conn.execute("LOCK TABLE events IN EXCLUSIVE MODE")

    def __exit__(self, *_error: object) -> None:
        self._conn.close()

    def wait(self) -> None:
        """Wait until an append is held up."""
        with psycopg.connect(self._url, autocommit=True) as conn:
            until(lambda: conn.execute(HELD_UP).fetchone() is not None)

    def release(self) -> None:
        self._conn.rollback()


HELD_UP: Final = (
    "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass LIMIT 1"
)


def until(is_so: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.001)


def begun(crowd: Threads | Tasks, name: str) -> Head:
    """The end of a thread with one event."""
    crowd.ask(lambda store: store.append(name, [Event(1, {"n": 1})], 0))
    head: Head = crowd.ask(lambda store: store.head(name))
    return head


def appends(heads: Sequence[Head], **data: Any) -> list[Call]:
    event = Event(1, data or {"n": 2})
    return [lambda store, head=head: store.append_after(head, [event]) for head in heads]  # type: ignore[misc]


def stored(url: str, name: str) -> list[Any]:
    with EventStore(url) as store:
        assert store.verify(name).ok
        return data_of(store, name)
