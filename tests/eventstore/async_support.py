"""What the tests of the async store share."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import create_engine, make_url

from eventstore import (
    AsyncEventStore,
    Event,
)
from tests import processes
from tests.effort import effort

MOMENTS: Final = [*range(12), *(round(12 * 1.4**n) for n in range(1, 12))][:: effort(2, 1)]
"""Iterations of the loop to let pass before something is cancelled: each of the first ones, and
then ever fewer, up to the end of what takes long."""


async def pass_by(iterations: int) -> None:
    """Let the event loop go round so many times."""
    for _ in range(iterations):
        await asyncio.sleep(0)


def batch(*values: Any) -> list[Event]:
    return [Event(1, value) for value in values]


async def data_of(store: AsyncEventStore, thread_id: str) -> list[Any]:
    return [event.data async for event in store.read(thread_id) if event.kind]


async def add(store: AsyncEventStore, mark: str) -> Any:
    return await store.append(f"{mark}old", batch(*range(3, 6)), 2)


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
        process = processes.Popen(
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
