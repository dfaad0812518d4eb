"""Worker threads: calls that block run side by side, and quick ones need few threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from eventstore.concurrency import Workers

WAIT_S = 10.0


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
    calls = [workers.submit(everybody.wait, WAIT_S) for _ in range(40)]
    assert sorted(call.result(WAIT_S) for call in calls) == list(range(40))


def test_a_call_that_blocks_keeps_none_waiting(workers: Workers) -> None:
    for _ in range(20):  # threads that are there already, and idle or on their way
        last = threading.Event()
        waits = workers.submit(last.wait, WAIT_S)
        quick = [workers.submit(int) for _ in range(20)]
        workers.submit(last.set)
        assert waits.result(WAIT_S)
        assert [call.result(WAIT_S) for call in quick] == [0] * 20


def test_calls_may_wait_for_calls_of_their_own(workers: Workers) -> None:
    def nested(depth: int) -> int:
        return depth and 1 + workers.submit(nested, depth - 1).result(WAIT_S)

    assert [each.result(WAIT_S) for each in [workers.submit(nested, 10) for _ in range(5)]] == [
        10
    ] * 5


def test_quick_calls_need_few_threads(workers: Workers) -> None:
    calls = [workers.submit(threading.get_ident) for _ in range(400)]
    assert len({call.result(WAIT_S) for call in calls}) < 40


def test_what_a_call_raises_is_its_own(workers: Workers) -> None:
    calls = [workers.submit(divmod, 6, number) for number in (0, 2, 0, 3)]
    with pytest.raises(ZeroDivisionError):
        calls[0].result(WAIT_S)
    assert calls[1].result(WAIT_S) == (3, 0)
    assert isinstance(calls[2].exception(WAIT_S), ZeroDivisionError)
    assert calls[3].result(WAIT_S) == (2, 0)


def test_a_call_that_was_cancelled_is_not_made(worker: Workers) -> None:
    made: list[str] = []
    gate = threading.Event()
    first = worker.submit(gate.wait, WAIT_S)
    second, third = worker.submit(made.append, "second"), worker.submit(made.append, "third")
    while not first.running():
        pass
    assert second.cancel()
    assert not first.cancel()
    gate.set()
    third.result(WAIT_S)
    assert made == ["third"]


def test_more_calls_than_threads_wait_and_are_made(worker: Workers) -> None:
    gate = threading.Event()
    first = worker.submit(gate.wait, WAIT_S)
    others = [worker.submit(int, number) for number in range(10)]
    gate.set()
    assert first.result(WAIT_S)
    assert [call.result(WAIT_S) for call in others] == list(range(10))


def test_calls_that_wait_are_made_although_the_pool_is_shut_down(worker: Workers) -> None:
    gate = threading.Event()
    worker.submit(gate.wait, WAIT_S)
    waiting = [worker.submit(int, number) for number in range(3)]
    worker.shutdown(wait=False)
    gate.set()
    assert [call.result(WAIT_S) for call in waiting] == list(range(3))


def test_a_pool_that_was_shut_down_takes_no_calls(worker: Workers) -> None:
    worker.submit(int).result(WAIT_S)
    worker.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        worker.submit(int)


def test_a_pool_goes_on_after_it_could_not_start_a_thread(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            workers.submit(int)
    assert workers.submit(int, 7).result(WAIT_S) == 7
