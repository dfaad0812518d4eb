"""Whatever one of the runtime's own calls raises, the run ends, and the thread can go on.

Python calls a trace function at each call; one that raises makes that call raise. So an error can
come from any function of `graph/run`, without a change to it. A keyboard or a full memory can do a
part of this at any moment.
"""

from __future__ import annotations

import asyncio
import dis
import gc
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

import graph.run
from eventstore import EventStore, ThreadInfo, workers
from graph import Command, CompiledGraph
from graph.types import Durability
from tests.awaited import opened, run
from tests.effort import effort
from tests.graph import test_user_code_raises as users
from tests.graph.kit import on

pytestmark = pytest.mark.slow

OURS: Final = str(Path(graph.run.__file__).parent) + os.sep
RESUME: Final = dis.opmap["RESUME"]
TIME_LIMIT_S: Final = 30.0

ERRORS: Final[dict[str, Callable[[], BaseException]]] = {
    "Exception": lambda: Exception("an error of our own"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "MemoryError": MemoryError,
}


class OwnCalls:
    """Counts calls of functions of ours, and raises at one of them."""

    def __init__(self, at: int | None = None, error: Callable[[], BaseException] = Exception):
        self.sites: list[str] = []
        self.raised_in: str | None = None
        self._at, self._error, self._lock = at, error, threading.Lock()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch this thread, and those that begin meanwhile: the workers are new ones."""
        before, of_threads = sys.gettrace(), threading.gettrace()
        pool, workers._pool = workers._pool, None
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            yield
        finally:
            self._at = None  # a worker may still be at it
            sys.settrace(before)
            threading.settrace(of_threads)
            workers.worker_pool().shutdown(wait=False)
            workers._pool = pool

    def _trace(self, frame: FrameType, event: str, arg: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(OURS):
            return
        if code.co_name.startswith("<"):
            return  # a callback that the event loop calls, or part of the function around it
        instruction, argument = code.co_code[frame.f_lasti : frame.f_lasti + 2]
        if instruction != RESUME or argument & 3 > 1:
            return  # it goes on after an ``await``, where Python lets nothing interrupt it
        with self._lock:
            raises = len(self.sites) == self._at
            self.sites.append(f"{Path(code.co_filename).stem}.{code.co_qualname}")
            if raises:
                self.raised_in = self.sites[-1]
        if raises:
            raise self._error()

    def numbers(self, usual: slice) -> list[int]:
        """Calls of each function: the usual one of all; the first, the last and many between."""
        of: dict[str, list[int]] = {}
        for number, site in enumerate(self.sites):
            of.setdefault(site, []).append(number)
        assert len(of) > 80, "the runtime's calls are not seen"
        chosen: set[int] = set()
        for each in of.values():
            between = max(1, len(each) // 1000)
            chosen.update(effort(each[usual], [*each[::between], each[-1]]))
        return sorted(chosen)


FIRST: Final = slice(0, 1)
LAST: Final = slice(-1, None)


@pytest.fixture(autouse=True)
def coroutines_may_be_lost() -> Iterator[None]:
    """A call that raises instead of running never awaits what it was given.

    Garbage is collected afterwards: in some functions, such as those of named tuples, Python cannot
    import what it warns with, and the filter would not see the warning.
    """
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
            gc.collect()
    finally:
        gc.enable()


@pytest.mark.parametrize("streamed", effort([True], [False, True]))
@pytest.mark.parametrize("error", effort(["KeyboardInterrupt"], [*ERRORS]))
def test_sync(error: str, streamed: bool) -> None:
    def whole(app: CompiledGraph, thread_id: str, own: OwnCalls) -> Any:
        with own.watched():
            if streamed:
                return list(app.stream(users.GIVEN, on(thread_id), stream_mode=users.MODES))
            return app.invoke(users.GIVEN, on(thread_id))

    with EventStore() as store:
        clean = OwnCalls()
        whole(users.party(store, False), "clean", clean)
        for number in clean.numbers(FIRST):
            app, thread_id = users.party(store, False), f"t{number}"
            own = OwnCalls(number, ERRORS[error])
            users.calls.begin(None)
            found = users.in_time(partial(whole, app, thread_id, own))
            site, config = own.raised_in, on(thread_id)
            if not store.head(thread_id).exists:
                assert isinstance(found, BaseException), site
                app.invoke(users.GIVEN, config)
            else:
                check(store.thread(thread_id), found, site)
                assert app.verify(config).ok, site
                if not app.get_state(config).interrupts:
                    app.invoke(None, config, on_conflict="wait", conflict_timeout_s=5)
            assert app.get_state(config).interrupts, site
            users.check_end(app.invoke(Command(resume="yes"), config), site)
            assert store.thread(thread_id).status == "idle", site


@pytest.mark.parametrize("durability", effort(["sync"], ["sync", "async", "exit"]))
@pytest.mark.parametrize("error", effort(["Exception"], [*ERRORS]))
def test_async(error: str, durability: Durability) -> None:
    async def whole(app: CompiledGraph, thread_id: str, own: OwnCalls) -> Any:
        with own.watched():
            try:
                async with asyncio.timeout(TIME_LIMIT_S):
                    return await app.ainvoke(users.GIVEN, on(thread_id), durability=durability)
            except TimeoutError:
                pytest.fail(f"the run does not end: {own.raised_in}")
            except BaseException as raised:
                return raised

    async def main() -> None:
        async with opened(":memory:") as store:
            clean = OwnCalls()
            await whole(users.party(store, True), "clean", clean)
            for number in clean.numbers(LAST):
                app, thread_id = users.party(store, True), f"t{number}"
                own = OwnCalls(number, ERRORS[error])
                found = await whole(app, thread_id, own)
                site, config = own.raised_in, on(thread_id)
                if not (await store.head(thread_id)).exists:
                    assert isinstance(found, BaseException), site
                    await app.ainvoke(users.GIVEN, config)
                else:
                    check(await store.thread(thread_id), found, site)
                    assert (await app.averify(config)).ok, site
                    if not (await app.aget_state(config)).interrupts:
                        await app.ainvoke(None, config, on_conflict="wait", conflict_timeout_s=5)
                assert (await app.aget_state(config)).interrupts, site
                users.check_end(await app.ainvoke(Command(resume="yes"), config), site)
                assert (await store.thread(thread_id)).status == "idle", site

    run(main())


def check(thread: ThreadInfo, found: Any, site: str | None) -> None:
    """Nobody waits for a run that has ended."""
    if isinstance(found, BaseException):
        assert thread.status in ("failed", "cancelled", "waiting"), (site, found)
    else:  # it raised where nothing depends on it
        assert thread.status == "waiting", (site, found)
