"""Spans of streams and of what is closed or cancelled early."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Generator, Iterator
from contextlib import aclosing, contextmanager
from typing import Final

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from eventstore import (
    telemetry,
)
from tests.awaited import run
from tests.telemetry.support import Notes, Told, chain, node


class Caller:
    """Asks for items in a span of its own, and looks whether that stays as it is."""

    def __init__(self, told: Told) -> None:
        self._tracer = told.tracer
        self.items = 0

    @contextmanager
    def asking(self) -> Iterator[None]:
        with self._tracer.start_as_current_span("asking") as mine:
            yield
            assert trace.get_current_span() is mine
            self.items += 1


STREAMED: Final = ["graph.run", "  graph.task one", "  graph.task two"]


def test_a_stream_leaves_its_span_while_the_caller_has_the_item(told: Told) -> None:
    app = chain(None, ("one", node("one")), ("two", node("two")))
    caller = Caller(told)
    with told.tracer.start_as_current_span("request") as request:
        stream = app.stream({})
        for _ in range(2):
            with caller.asking():
                next(stream)
            assert trace.get_current_span() is request
        assert list(stream) == []
        assert trace.get_current_span() is request
    # The run belongs to whoever asked first, and its tasks to the run, whoever asks.
    assert told.lines() == [
        "request",
        "  asking",
        *(f"    {line}" for line in STREAMED),
        "  asking",
    ]


def test_a_stream_in_a_loop_leaves_its_span(told: Told) -> None:
    app = chain(None, ("one", node("one")), ("two", node("two")))
    caller = Caller(told)

    async def main() -> None:
        with told.tracer.start_as_current_span("request") as request:
            async with aclosing(app.astream({})) as stream:
                for _ in range(2):
                    with caller.asking():
                        # Each in a task of its own, as `wait_for` has it: contexts are copies.
                        await asyncio.wait_for(anext(stream), 30)
                    assert trace.get_current_span() is request
                assert [item async for item in stream] == []

    run(main())
    assert told.lines() == [
        "request",
        "  asking",
        *(f"    {line}" for line in STREAMED),
        "  asking",
    ]


def test_a_stream_may_move_between_contexts(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """A web framework may ask for each item on another thread."""
    stream = iter(chain(None, ("one", node("one")), ("two", node("two"))).stream({}))
    for expected in ({"one": {"log": ["one"]}}, {"two": {"log": ["two"]}}):
        assert contextvars.Context().run(next, stream) == expected
    contextvars.Context().run(list, stream)
    assert told.lines() == STREAMED
    assert caplog.records == []


def test_a_stream_that_is_closed_early_ends_its_span(told: Told) -> None:
    app = chain(None, ("one", node("one")), ("two", node("two")))
    stream = app.stream({})
    next(stream)
    assert told.lines() == []  # its task has ended, but the run has not
    stream.close()  # type: ignore[attr-defined]
    assert told.lines() == ["graph.run", "  graph.task one"]
    assert told.one("graph.run").status.status_code is StatusCode.UNSET

    async def main() -> None:
        async with aclosing(app.astream({})) as stream:
            async for _ in stream:
                break

    run(main())
    assert told.lines() == ["graph.run", "  graph.task one"] * 2


def test_a_coroutine_that_is_closed_elsewhere(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """As when a loop is gone before its tasks: its context is not the one it is closed in."""

    class Forever:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def work() -> None:
        with telemetry.Operation("test.work", "").begin():
            await Forever()

    running = work()
    contextvars.Context().run(running.send, None)
    with told.tracer.start_as_current_span("request") as request:
        running.close()
        assert trace.get_current_span() is request
    assert told.lines() == ["test.work", "request"]
    assert caplog.records == []


def test_a_cancelled_run_is_no_failure(told: Told) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def forever(_state: Notes) -> Notes:
            begun.set()
            await asyncio.sleep(3600)
            return {}

        running = asyncio.create_task(chain(None, ("one", forever)).ainvoke({}))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run(main())
    assert told.lines() == ["graph.run", "  graph.task one"]
    assert {span.status.status_code for span in told.spans} == {StatusCode.UNSET}
