"""What every test shares: a store on each backend, and the proof that nothing is left behind.

A test that takes `store` runs with the sync API on SQLite in memory and with the async API on
PostgreSQL; one that is marked `every_backend`, on every pair of the two that there is. One that
takes `store_url` runs once on each backend. README.md beside this file holds the matrix and says
why that is enough. After every test no thread that it started may live on, and a `store` must
have all its connections back.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, cast

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Connection, Engine, event

from eventstore import EventStore
from eventstore.leases import Leases
from eventstore.workers import WORKER_NAME
from tests import awaited, postgres
from tests.effort import PROFILE, THOROUGH
from tests.pairwise import pairwise

# No deadline and no check for slowness: on a busy machine both would fail for a reason that is
# not the code's. print_blob, so that a failure found elsewhere can be repeated here.
settings.register_profile(
    "usual",
    deadline=None,
    max_examples=30,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.register_profile("thorough", settings.get_profile("usual"), max_examples=2_000)
settings.load_profile(PROFILE)

THREAD_END_SECONDS_MAX: Final = 5.0
MEMORY_MIN_BYTES: Final = 2 * 2**30

USUAL: Final = {("sync", "sqlite-memory"), ("async", "postgresql")}
"""API and backend of what every test that takes `store` runs on: see README.md."""

EVERY: Final = USUAL | {("sync", "sqlite-file"), ("async", "sqlite-file"), ("sync", "postgresql")}
"""… of tests marked `every_backend`, and of all tests in `make thorough`."""


_FILES_AND_SERVERS: Final = frozenset(
    {"sqlite", "sqlite-file", "postgres", "postgresql", "postgresql_url"}
)
"""Parameters and fixtures of tests that need a file or a server."""


def _memory() -> Path | None:
    """A file system in memory, where there is one with room, unless TMPDIR names another place.

    Files are as real there as on a disk. But most tests make a new one, and on a disk each waits
    for `fsync` dozens of times. What a failure of the machine itself leaves, no test can see.
    """
    folder = Path("/dev/shm")
    if "TMPDIR" in os.environ or not os.access(folder, os.W_OK):
        return None
    may_execute = not os.statvfs(folder).f_flag & os.ST_NOEXEC
    return folder if may_execute and shutil.disk_usage(folder).free > MEMORY_MIN_BYTES else None


MEMORY: Final = _memory()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three workers for two processors: tests wait for servers, leases and other processes."""
    return max(1, (os.cpu_count() or 1) * 3 // 2)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Heap())
    if MEMORY is not None:
        # Of this process, and of those that it starts.
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)
    # A shell that starts us in the background lets us ignore Ctrl-C, and so would every process
    # that a test starts; some of them are interrupted on purpose.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before -m and -k choose
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if _is_in_the_matrix(item)]
    if not THOROUGH:
        items[:] = pairwise(items)
    for item in items:
        if not item.get_closest_marker("slow") and not _needs_more_than_memory(item):
            item.add_marker("fast")
        if _is_hypothesis_test(item) or _pair(item) not in {*USUAL, None}:
            # Measuring would make it take half as long again, and find nothing covered that
            # the other tests do not cover.
            item.add_marker("no_cover")


class _Heap:
    """Leaves what stays (tests, their modules, reports) out of every later search for garbage.

    Else each search would look at all of it: those that Python starts by itself, and those of
    tests that want one, hundreds of them in the measurements.
    """

    TESTS: Final = 100

    def __init__(self) -> None:
        self._tests = 0

    def pytest_collection_finish(self) -> None:
        gc.collect()
        gc.freeze()

    def pytest_runtest_logfinish(self) -> None:
        self._tests += 1
        if self._tests % self.TESTS == 0:
            self.pytest_collection_finish()


def _is_in_the_matrix(item: pytest.Item) -> bool:
    pair = _pair(item)
    if pair is None:
        return True
    return pair in (EVERY if THOROUGH or item.get_closest_marker("every_backend") else USUAL)


def _pair(item: pytest.Item) -> tuple[object, object] | None:
    """API and backend; none of a test that says itself what it runs on."""
    params = _params(item)
    pair = params.get("store"), params.get("store_url")
    return None if None in pair else pair


def _params(item: pytest.Item) -> dict[str, object]:
    callspec = getattr(item, "callspec", None)
    return {} if callspec is None else callspec.params


def _needs_more_than_memory(item: pytest.Item) -> bool:
    params = {value for value in _params(item).values() if isinstance(value, str)}
    wanted = params.union(getattr(item, "fixturenames", ()))
    return not wanted.isdisjoint(_FILES_AND_SERVERS)


def _is_hypothesis_test(item: pytest.Item) -> bool:
    return bool(getattr(getattr(item, "obj", None), "is_hypothesis_test", False))


class _Compiled(dict[Any, Any]):
    """Statements that were compiled, for all engines of one kind together.

    SQLAlchemy keeps them for each engine. Nearly every test opens one, and would spend half of
    its time with compiling the same statements again.
    """

    @staticmethod
    def _of_a_kind(key: Any) -> Any:
        dialect, *rest = key
        kind = dialect.name, dialect.driver, dialect.dbapi, dialect.server_version_info
        return (*kind, dialect.paramstyle, *rest)

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(self._of_a_kind(key), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        super().__setitem__(self._of_a_kind(key), compiled)


_COMPILED: Final = _Compiled()


@event.listens_for(Engine, "engine_connect")
def _compile_once(connection: Connection) -> None:
    connection.execution_options(compiled_cache=_COMPILED)


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
        for thread in leaked:
            _renew_now(thread)
        if time.monotonic() > give_up_at:
            pytest.fail(f"threads still alive after the test: {', '.join(map(repr, leaked))}")
        time.sleep(0.005)


def _renew_now(thread: threading.Thread) -> None:
    """A thread that renews leases looks for runs that go on, and ends if there are none.

    That of a store which nobody closes, as in a short example, would first wait for its next turn.
    """
    leases = getattr(vars(thread).get("_target"), "__self__", None)
    if isinstance(leases, Leases):
        leases._wake.put(None)


def _is_kept(thread: threading.Thread) -> bool:
    """The process keeps the threads on which parallel tasks run, for all graphs together."""
    return thread.name.startswith(WORKER_NAME)


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


@pytest.fixture
def without_langchain(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program that has not imported langchain-core: messages are shown as dicts."""
    monkeypatch.delitem(sys.modules, "langchain_core.messages", raising=False)
