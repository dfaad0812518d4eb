"""What every test shares: a store on each backend, and the proof that nothing is left behind.

A test that takes `store` runs on each backend, over the blocking calls and (but for SQLite in
memory, which would be the same threads as with a file) over their asynchronous twins; one that
takes `store_url` runs once on each backend. After every test no thread that it started may live
on, and a `store` must have all its connections back.
HYPOTHESIS_PROFILE=thorough looks for counterexamples much longer than the default.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Final, cast

import pytest
from hypothesis import HealthCheck, settings

from eventstore import EventStore
from graph.run import workers
from tests import awaited, postgres

# No deadline and no check for slowness: on a busy machine both would fail for a reason that is
# not the code's. print_blob, so that a failure found elsewhere can be repeated here.
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=50,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

THREAD_END_SECONDS_MAX: Final = 5.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if not _is_said_already(item)]


SAMPLED: Final = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 3
"""Of what is mostly said by others too (event loops on a file, blocking calls in memory), every
third test is run; event loops on PostgreSQL and blocking calls on a file have all of them."""


def _is_said_already(item: pytest.Item) -> bool:
    params = (
        item.callspec.params
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else {}
    )
    pair = (params.get("store"), params.get("store_url"))
    if pair in {("async", "sqlite-file"), ("sync", "sqlite-memory")}:
        return zlib.crc32(item.nodeid.encode()) % SAMPLED != 0
    return pair == ("async", "sqlite-memory")


@contextmanager
def _postgresql(prepare: Callable[[str], None] | None) -> Iterator[str]:
    with ExitStack() as stack:
        try:
            url = stack.enter_context(postgres.database(prepare))
        except postgres.NoServer as error:
            if os.environ.get("CI"):  # there, what is not tested must not look as if it were
                pytest.fail(str(error))
            pytest.skip(str(error))
        yield url


def _set_up(url: str) -> None:
    with EventStore(url) as store:
        store.setup()


BACKENDS: Final[dict[str, Callable[[Path], AbstractContextManager[str]]]] = {
    "sqlite-file": lambda directory: nullcontext(f"sqlite:///{directory / 'store.db'}"),
    "sqlite-memory": lambda directory: nullcontext("sqlite://"),
    "postgresql": lambda directory: _postgresql(_set_up),
}
"""Name of a backend → the URL of a database of its own for one test, with nothing in it. (On
PostgreSQL its tables are there: a copy of a database that was set up once is made sooner.)"""


@pytest.fixture(autouse=True)
def no_thread_leaks() -> Iterator[None]:
    """Every thread that a test starts has ended soon after it."""
    before = set(threading.enumerate())
    yield
    give_up_at = time.monotonic() + THREAD_END_SECONDS_MAX
    while leaked := [t for t in threading.enumerate() if t not in before and not _is_kept(t)]:
        if time.monotonic() > give_up_at:
            pytest.fail(f"threads still alive after the test: {', '.join(map(repr, leaked))}")
        time.sleep(0.005)


def _is_kept(thread: threading.Thread) -> bool:
    """The process keeps the threads on which parallel tasks run, for all graphs together."""
    return thread.name.startswith(workers.NAME)


@pytest.fixture(params=list(BACKENDS))
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with nothing in it, once for each backend."""
    backend: str = request.param
    with BACKENDS[backend](tmp_path) as url:
        yield url


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    """The URL of a database on PostgreSQL without any tables, for what is only there."""
    with _postgresql(None) as url:
        yield url


@pytest.fixture
def blocking_store(store_url: str) -> Iterator[EventStore]:
    """As `store`, over the blocking calls alone: for tests of what both kinds have in common."""
    with EventStore(store_url, tenant="test") as opened:
        yield opened
        # Asked before closing: a closed engine starts afresh with an empty pool.
        assert awaited.lent(opened) == 0, "connections were not given back to the pool"


@pytest.fixture(params=["sync", "async"])
def store(request: pytest.FixtureRequest, store_url: str) -> Iterator[EventStore]:
    """An open store of tenant ``test``; closed afterwards, with every connection given back.

    With ``async`` it is an `AsyncEventStore`, and so are the calls of graphs: see `Awaited`.
    """
    if request.param == "sync":
        yield request.getfixturevalue("blocking_store")
        return
    with awaited.Awaited(store_url, tenant="test") as twin, awaited.in_place_of_blocking(twin.loop):
        yield cast("EventStore", twin)
        assert awaited.lent(twin.store) == 0, "connections were not given back to the pool"
