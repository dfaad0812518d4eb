"""Worker threads: work that blocks runs side by side, and quick work needs few threads."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

import pytest

from eventstore.workers import Workers

T = TypeVar("T")

WAIT_S = 10.0


def start(workers: Workers, function: Callable[..., T], *args: Any) -> Future[T]:
    """Have a thread call a function."""

    async def call() -> T:
        return function(*args)

    return workers.start(call())


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Threads of a test's own."""
    with Workers(64, "test-worker") as made:
        yield made


@pytest.fixture
def worker() -> Iterator[Workers]:
    """The same with a single thread."""
    with Workers(1, "test-worker") as made:
        yield made


def test_calls_that_block_run_side_by_side(workers: Workers) -> None:
    everybody = threading.Barrier(40)
    calls = [start(workers, everybody.wait, WAIT_S) for _ in range(40)]
    assert sorted(call.result(WAIT_S) for call in calls) == list(range(40))


def test_a_call_that_blocks_keeps_none_waiting(workers: Workers) -> None:
    for _ in range(20):  # threads that are there already, and idle or on their way
        last = threading.Event()
        waits = start(workers, last.wait, WAIT_S)
        quick = [start(workers, int) for _ in range(20)]
        start(workers, last.set)
        assert waits.result(WAIT_S)
        assert [call.result(WAIT_S) for call in quick] == [0] * 20


def test_calls_may_wait_for_calls_of_their_own(workers: Workers) -> None:
    def nested(depth: int) -> int:
        return depth and 1 + start(workers, nested, depth - 1).result(WAIT_S)

    assert [each.result(WAIT_S) for each in [start(workers, nested, 10) for _ in range(5)]] == [
        10
    ] * 5


def test_quick_calls_need_few_threads(workers: Workers) -> None:
    calls = [start(workers, threading.get_ident) for _ in range(400)]
    assert len({call.result(WAIT_S) for call in calls}) < 40


def test_what_a_call_raises_is_its_own(workers: Workers) -> None:
    calls = [start(workers, divmod, 6, number) for number in (0, 2, 0, 3)]
    with pytest.raises(ZeroDivisionError):
        calls[0].result(WAIT_S)
    assert calls[1].result(WAIT_S) == (3, 0)
    assert isinstance(calls[2].exception(WAIT_S), ZeroDivisionError)
    assert calls[3].result(WAIT_S) == (2, 0)


def test_a_call_that_was_cancelled_is_not_made(worker: Workers) -> None:
    made: list[str] = []
    gate = threading.Event()
    first = start(worker, gate.wait, WAIT_S)
    second, third = start(worker, made.append, "second"), start(worker, made.append, "third")
    while not first.running():
        pass
    assert second.cancel()
    assert not first.cancel()
    gate.set()
    third.result(WAIT_S)
    assert made == ["third"]


def test_more_calls_than_threads_wait_and_are_made(worker: Workers) -> None:
    gate = threading.Event()
    first = start(worker, gate.wait, WAIT_S)
    others = [start(worker, int, number) for number in range(10)]
    gate.set()
    assert first.result(WAIT_S)
    assert [call.result(WAIT_S) for call in others] == list(range(10))


def test_calls_that_wait_are_made_although_the_pool_is_shut_down(worker: Workers) -> None:
    gate = threading.Event()
    start(worker, gate.wait, WAIT_S)
    waiting = [start(worker, int, number) for number in range(3)]
    worker.shutdown(wait=False)
    gate.set()
    assert [call.result(WAIT_S) for call in waiting] == list(range(3))


def test_a_pool_that_was_shut_down_takes_no_calls(worker: Workers) -> None:
    start(worker, int).result(WAIT_S)
    worker.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        start(worker, int)


def test_a_pool_goes_on_after_it_could_not_start_a_thread(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            start(workers, int)
    assert start(workers, int, 7).result(WAIT_S) == 7


def test_what_was_raised_is_not_kept(worker: Workers) -> None:
    class Large(Exception):
        pass

    def fail() -> None:
        raise Large

    gc.disable()
    try:
        failed = weakref.ref(start(worker, fail).exception(WAIT_S))
        start(worker, int).result(WAIT_S)
        assert failed() is None
    finally:
        gc.enable()


def test_work_that_needs_an_event_loop_says_so(worker: Workers) -> None:
    with pytest.raises(RuntimeError, match="needs an event loop"):
        worker.start(asyncio.sleep(0)).result(WAIT_S)
    assert start(worker, int).result(WAIT_S) == 0


def test_work_runs_in_the_context_of_its_caller(worker: Workers) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    for each in ("one", "two"):
        name.set(each)
        assert start(worker, name.get).result(WAIT_S) == each
