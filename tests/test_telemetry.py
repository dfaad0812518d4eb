"""What the library tells of itself: traces, metrics and log records, and what it keeps quiet.

Spans go through the SDK to an exporter of each test's own. Metrics go where the process sends
them, which can be said once only: to a reader that gives what came since it was last asked.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import operator
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter as SdkCounter
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from eventstore import (
    Addition,
    AsyncEventStore,
    ConcurrencyError,
    CorruptEventError,
    Event,
    EventStore,
    NewSnapshot,
    PositionNotFoundError,
    StoreUnavailableError,
    telemetry,
)
from graph import START, CompiledGraph, RetryPolicy, StateGraph
from tests.awaited import run
from tests.eventstore.support import fill, numbers, sql
from tests.graph.kit import Boom, on

ROOT: Final = Path(__file__).resolve().parents[1]
SECRET: Final = "sk-94f1"
FINGERPRINT: Final = "test/1"
LABELS: Final = {
    "graph.name",
    "graph.node",
    "error.type",
    "eventstore.retry.reason",
    "db.response.status_code",
}
"""All that metrics may be told apart by: few values each, and none that names a thread."""

_DELTA: Final = AggregationTemporality.DELTA
_READER: Final = InMemoryMetricReader({SdkCounter: _DELTA, SdkHistogram: _DELTA})


class Told:
    """What was told since the test began."""

    def __init__(self, exporter: InMemorySpanExporter, tracer: trace.Tracer) -> None:
        self._exporter = exporter
        self.tracer = tracer

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, by when they began."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        """The only span of that name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def lines(self, of: ReadableSpan | None = None, depth: int = 0) -> list[str]:
        """The spans as a tree, one line each."""
        found = []
        for span in self.spans:
            if (span.parent and span.parent.span_id) == (of and of.context.span_id):
                found += ["  " * depth + span.name, *self.lines(span, depth + 1)]
        return found

    def parents(self) -> set[tuple[str, str]]:
        """Each span's name, and its parent's."""
        names = {span.context.span_id: span.name for span in self.spans}
        return {(s.name, names[s.parent.span_id] if s.parent else "") for s in self.spans}

    def metrics(self) -> dict[str, dict[tuple[tuple[str, Any], ...], Any]]:
        """What was measured since this was last asked: a sum, or how many durations."""
        found: dict[str, dict[tuple[tuple[str, Any], ...], Any]] = defaultdict(dict)
        data: Any = _READER.get_metrics_data()
        for scope in (s for r in data.resource_metrics for s in r.scope_metrics) if data else ():
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    labels = tuple(sorted((point.attributes or {}).items()))
                    value = getattr(point, "value", None)
                    found[metric.name][labels] = point.count if value is None else value
        return found

    def everything(self) -> str:
        """All of it, as it would be sent."""
        data: Any = _READER.get_metrics_data()
        return "\n".join([*(span.to_json() for span in self.spans), data.to_json() if data else ""])


@pytest.fixture(scope="module", autouse=True)
def metered() -> None:
    """Have this process's metrics read."""
    metrics.set_meter_provider(MeterProvider(metric_readers=[_READER], shutdown_on_exit=False))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Where this test's spans and metrics go."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    monkeypatch.setattr(telemetry, "_tracer", tracer)
    _READER.get_metrics_data()
    return Told(exporter, tracer)


class Notes(TypedDict, total=False):
    text: str
    log: Annotated[list[str], operator.add]


def node(name: str, inside: Callable[[], Any] = lambda: None) -> Callable[[Notes], Notes]:
    """A node that does something and logs its name."""

    def work(_state: Notes) -> Notes:
        inside()
        return {"log": [name]}

    return work


def chain(checkpointer: Any, *nodes: tuple[str, Any], **options: Any) -> CompiledGraph:
    """Nodes one after the other."""
    graph = StateGraph(Notes)
    graph.add_sequence(nodes)
    graph.add_edge(START, nodes[0][0])
    return graph.compile(checkpointer=checkpointer, **options)


def fan(checkpointer: Any, nodes: Mapping[str, Any]) -> CompiledGraph:
    """Nodes side by side."""
    graph = StateGraph(Notes)
    for name, action in nodes.items():
        graph.add_node(name, action)
        graph.add_edge(START, name)
    return graph.compile(checkpointer=checkpointer)


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# --- what a run looks like --------------------------------------------------------------

CHAIN: Final = """\
request
  graph.run
    eventstore.replay
    eventstore.append
    graph.task one
      mine
    eventstore.append
    graph.task two
    eventstore.append
""".splitlines()


@pytest.fixture(params=["sync", "async"])
def invoked(
    request: pytest.FixtureRequest, store_url: str
) -> Callable[[Callable[[Any], CompiledGraph], Any, Any], Any]:
    """Runs a graph that is made for a store, by blocking or in an event loop."""

    def by_blocking(make: Callable[[Any], CompiledGraph], given: Any, config: Any) -> Any:
        with EventStore(store_url, tenant="test") as store:
            store.setup()
            return make(store).invoke(given, config)

    async def in_a_loop(make: Callable[[Any], CompiledGraph], given: Any, config: Any) -> Any:
        async with AsyncEventStore(store_url, tenant="test") as store:
            await store.setup()
            return await make(store).ainvoke(given, config)

    if request.param == "sync":
        return by_blocking
    return lambda *args: run(in_a_loop(*args))


def test_a_run_is_one_trace(told: Told, invoked: Any) -> None:
    def mine() -> None:
        with told.tracer.start_as_current_span("mine"):
            pass

    with told.tracer.start_as_current_span("request"):
        invoked(
            lambda store: chain(store, ("one", node("one", mine)), ("two", node("two"))),
            {"text": "hello"},
            on("t"),
        )
    assert told.lines() == CHAIN
    assert facts(told.one("graph.run")) == {
        "graph.name": "graph",
        "eventstore.thread.id": "t",
        "graph.run.status": "idle",
        "graph.step": 2,
    }
    assert facts(told.one("graph.task two")) == {
        "graph.name": "graph",
        "graph.node": "two",
        "graph.step": 2,
        "graph.task.index": 0,
        "graph.task.attempts": 1,
    }
    begins, *_, last = (span for span in told.spans if span.name == "eventstore.append")
    for span, seq in ((begins, 1), (last, 3)):
        size = facts(span).pop("eventstore.bytes")
        assert size > 0
        assert facts(span) == {
            "eventstore.thread.id": "t",
            "eventstore.namespace": "",
            "eventstore.tenant": "test",
            "eventstore.events": 1,
            "eventstore.seq": seq,
            "eventstore.bytes": size,
        }
    assert {span.status.status_code for span in told.spans} == {StatusCode.UNSET}


def test_tasks_side_by_side_belong_to_their_run(told: Told, invoked: Any) -> None:
    meet = threading.Barrier(3)

    def plain(name: str) -> Callable[[Notes], Notes]:
        def work(_state: Notes) -> Notes:
            with told.tracer.start_as_current_span(f"in {name}"):
                meet.wait(30)  # all at once: contexts would mix now, if ever
            return {"log": [name]}

        return work

    names = ("a", "b", "c")
    invoked(lambda store: fan(store, {name: plain(name) for name in names}), {}, on("t"))
    assert {pair for pair in told.parents() if not pair[0].startswith("eventstore")} == {
        ("graph.run", ""),
        *((f"graph.task {name}", "graph.run") for name in names),
        *((f"in {name}", f"graph.task {name}") for name in names),
    }
    assert {p for n, p in told.parents() if n.startswith("eventstore")} == {"graph.run"}


def test_coroutines_side_by_side_belong_to_their_run(told: Told) -> None:
    async def main() -> None:
        meet = asyncio.Barrier(3)

        def waits(name: str) -> Any:
            async def work(_state: Notes) -> Notes:
                with told.tracer.start_as_current_span(f"in {name}"):
                    await meet.wait()
                return {"log": [name]}

            return work

        await fan(None, {name: waits(name) for name in "abc"}).ainvoke({})

    run(main())
    assert told.parents() == {
        ("graph.run", ""),
        *((f"graph.task {name}", "graph.run") for name in "abc"),
        *((f"in {name}", f"graph.task {name}") for name in "abc"),
    }


RUNS: Final = 20


def check_requests(told: Told) -> None:
    """Each of many requests has a trace of its own, with all of its run and nothing else."""
    traces: dict[int, list[ReadableSpan]] = defaultdict(list)
    for span in told.spans:
        traces[span.context.trace_id].append(span)
    assert len(traces) == RUNS
    threads = set()
    for spans in traces.values():
        assert Counter(span.name for span in spans) == {
            "request": 1,
            "graph.run": 1,
            "eventstore.replay": 1,
            "eventstore.append": 3,
            "graph.task one": 1,
            "graph.task two": 1,
        }
        (thread,) = {id_ for each in spans if (id_ := facts(each).get(telemetry.THREAD))}
        threads.add(thread)
    assert threads == {f"t{number}" for number in range(RUNS)}


def test_many_runs_in_one_loop_do_not_mix(told: Told, store_url: str) -> None:
    async def slow(_state: Notes) -> Notes:
        await asyncio.sleep(0.001)
        return {"log": ["one"]}

    async def main() -> None:
        async with AsyncEventStore(store_url, tenant="test") as store:
            await store.setup()
            app = chain(store, ("one", slow), ("two", node("two")))

            async def request(number: int) -> None:
                with told.tracer.start_as_current_span("request"):
                    await app.ainvoke({}, on(f"t{number}"))

            await asyncio.gather(*map(request, range(RUNS)))

    run(main())
    check_requests(told)


def test_many_runs_on_threads_do_not_mix(told: Told, tmp_path: Path) -> None:
    with EventStore(tmp_path / "a.db", tenant="test") as store:
        store.setup()
        app = chain(store, ("one", node("one")), ("two", node("two")))

        def request(number: int) -> None:
            with told.tracer.start_as_current_span("request"):
                app.invoke({}, on(f"t{number}"))

        threads = [threading.Thread(target=request, args=(n,)) for n in range(RUNS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    check_requests(told)


def test_the_runs_of_a_batch_belong_to_its_caller(told: Told) -> None:
    app = chain(None, ("one", node("one")))
    with told.tracer.start_as_current_span("request"):
        app.batch([{}, {}])
        run(app.abatch([{}, {}]))
    assert told.lines() == ["request", *["  graph.run", "    graph.task one"] * 4]


def test_a_graph_in_a_graph(told: Told) -> None:
    inner = chain(None, ("deep", node("deep")), name="inner")
    chain(None, ("outer", inner)).invoke({})
    assert told.lines() == [
        "graph.run",
        "  graph.task outer",
        "    graph.run",
        "      graph.task deep",
    ]
    assert [facts(s)["graph.name"] for s in told.spans if s.name == "graph.run"] == [
        "graph",
        "inner",
    ]


def test_a_run_that_waits_for_a_person_says_so(told: Told) -> None:
    app = chain(EventStore(), ("one", node("one")), interrupt_before=["one"])
    app.invoke({}, on("t"))
    assert facts(told.one("graph.run"))["graph.run.status"] == "waiting"


def test_a_run_that_waits_for_another_one_says_so(told: Told) -> None:
    app = chain(EventStore(), ("one", node("one")))
    app.invoke({}, on("t"), on_conflict="wait")
    assert ("graph.wait", "graph.run") in told.parents()


# --- streams ----------------------------------------------------------------------------


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


# --- failures ---------------------------------------------------------------------------


def test_an_error_is_told_by_its_kind_only(
    told: Told, caplog: pytest.LogCaptureFixture, invoked: Any
) -> None:
    caplog.set_level(logging.DEBUG)

    def fails(_state: Notes) -> Notes:
        raise Boom(f"cannot use {SECRET}")

    again = RetryPolicy(max_attempts=2, initial_interval=0, jitter=False)

    def make(store: Any) -> CompiledGraph:
        graph = StateGraph(Notes)
        graph.add_node("fails", fails, retry_policy=again)
        graph.add_edge(START, "fails")
        return graph.compile(checkpointer=store)

    with pytest.raises(Boom):
        invoked(make, {"text": SECRET}, on("t", metadata={"note": SECRET}))
    kind = "tests.graph.kit.Boom"
    for name in ("graph.run", "graph.task fails"):
        span = told.one(name)
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description is None
        assert facts(span)["error.type"] == kind
    task = told.one("graph.task fails")
    assert facts(task)["graph.task.attempts"] == 2
    (retried,) = task.events
    assert retried.name == "graph.retry"
    assert dict(retried.attributes or {}) == {"graph.task.attempt": 1, "error.type": kind}

    measured = told.metrics()
    named = (("graph.name", "graph"), ("graph.node", "fails"))
    assert measured["graph.retries"] == {named: 1}
    assert measured["graph.task.duration"] == {(("error.type", kind), *named): 1}

    (record,) = (each for each in caplog.records if each.name == "graph.driver")
    assert record.getMessage() == f"node 'fails' failed with {kind}, trying again"
    assert (
        vars(record).items()
        >= {
            "graph": "graph",
            "node": "fails",
            "step": 1,
            "attempt": 1,
            "error_type": kind,
            "wait_s": 0,
        }.items()
    )


def test_no_value_of_a_state_is_told(
    told: Told, caplog: pytest.LogCaptureFixture, store_url: str
) -> None:
    caplog.set_level(logging.DEBUG)
    with EventStore(store_url, tenant="test") as store:

        def fails(_state: Notes) -> Notes:
            raise KeyError(SECRET)

        app = chain(store, ("one", lambda state: {"text": SECRET * 2}), ("two", fails))
        config = on("t", metadata={"note": SECRET}, run_id=SECRET)
        with pytest.raises(KeyError):
            app.invoke({"text": SECRET}, config)
        app.update_state(on("t"), {"text": SECRET}, as_node="two")
        list(app.get_state_history(on("t")))
        store.append("u", [Event(1, {"a": SECRET}, key=SECRET)], 0, metadata={"m": SECRET})
        head = store.head("u")
        store.append_after(head, [Event(1, SECRET)])
        with pytest.raises(ConcurrencyError):
            store.append_after(head, [Event(1, SECRET)])
    assert "graph.task one" in told.everything()
    assert SECRET not in told.everything()
    ours = [each for each in caplog.records if each.name.split(".")[0] in ("eventstore", "graph")]
    assert SECRET not in "".join(str(vars(each)) + each.getMessage() for each in ours)


# --- the log ----------------------------------------------------------------------------


def test_a_conflict_is_counted_whoever_finds_it(told: Told, store_url: str) -> None:
    with EventStore(store_url, tenant="test") as store:
        fill(store, "t", 1)
        head = store.head("t")
        fill(store, "t", 1, start=2)
        with pytest.raises(ConcurrencyError):
            store.append_after(head, [Event(1)])
        with pytest.raises(ConcurrencyError):
            store.append("t", [Event(1)], 1)
    *_, failed = (span for span in told.spans if span.name == "eventstore.append")
    assert failed.status.status_code is StatusCode.ERROR
    assert facts(failed)["error.type"] == "eventstore.errors.ConcurrencyError"
    assert told.metrics()["eventstore.conflicts"] == {(): 2}


def test_an_append_to_several_logs_is_told_once(told: Told, store_url: str) -> None:
    with EventStore(store_url, tenant="test") as store:
        snapshot = NewSnapshot(FINGERPRINT, b"state", b"items")
        ends = [store.head("t", ns) for ns in ("", "sub")]
        store.append_together([Addition(end, [Event(1)] * 2, snapshot) for end in ends])
        with pytest.raises(ConcurrencyError):
            store.append_together([Addition(end, [Event(1)]) for end in ends])
        with pytest.raises(ValueError):
            store.append_together([])
        stored = store.stats("t").stored_bytes
    first, second = (span for span in told.spans if span.name == "eventstore.append")
    assert facts(first) | {
        "eventstore.namespace": "",
        "eventstore.events": 4,
        "eventstore.bytes": stored,
        "eventstore.snapshot.bytes": 20,
    } == facts(first)
    assert facts(second)["error.type"] == "eventstore.errors.ConcurrencyError"
    measured = told.metrics()
    assert measured["eventstore.appended.events"] == {(): 4}
    assert measured["eventstore.snapshots"] == {(): 2}
    assert measured["eventstore.conflicts"] == {(): 1}


def test_what_is_appended_and_read_is_counted(told: Told, store_url: str) -> None:
    with EventStore(store_url, tenant="test") as store:
        fill(store, "t", 600)
        snapshot = NewSnapshot(FINGERPRINT, b"state", b"items")
        store.append_after(store.head("t"), [Event(1, {"n": 601})], snapshot=snapshot)
        fill(store, "t", 2, start=602)
        stored = store.stats("t")
        measured = told.metrics()
        assert measured["eventstore.appended.events"] == {(): 603}
        assert measured["eventstore.appended.bytes"] == {(): stored.stored_bytes}
        assert measured["eventstore.snapshots"] == {(): 1}
        assert measured["eventstore.snapshot.bytes"] == {(): 10}
        assert measured["eventstore.append.duration"] == {(): 3}
        assert [facts(s).get("eventstore.snapshot.bytes") for s in told.spans] == [None, 10, None]

        assert numbers(store.replay("t").events) == list(range(1, 604))
        assert numbers(store.replay("t", fingerprint=FINGERPRINT).events) == [602, 603]
        store.put_snapshot(store.head("t"), snapshot)
    whole, short = (span for span in told.spans if span.name == "eventstore.replay")
    place = {
        "eventstore.thread.id": "t",
        "eventstore.namespace": "",
        "eventstore.tenant": "test",
    }
    assert facts(whole) == {
        **place,
        "eventstore.events": 603,
        "eventstore.bytes": stored.stored_bytes,
    }
    size = facts(short)["eventstore.bytes"]
    assert facts(short) == {
        **place,
        "eventstore.snapshot.seq": 601,
        "eventstore.snapshot.bytes": 10,
        "eventstore.events": 2,
        "eventstore.bytes": size,
    }
    alone = told.one("eventstore.snapshot")
    assert facts(alone) == {**place, "eventstore.seq": 603, "eventstore.snapshot.bytes": 10}
    measured = told.metrics()
    assert measured["eventstore.replayed.events"] == {(): 605}
    assert measured["eventstore.replayed.bytes"] == {(): stored.stored_bytes + size}
    assert measured["eventstore.replay.duration"] == {(): 2}
    assert measured["eventstore.snapshots"] == {(): 1}


def test_a_replay_ends_when_it_has_been_read(told: Told) -> None:
    with EventStore() as store:
        fill(store, "t", 300)
        replay = store.replay("t")
        next(replay.events)
        assert "eventstore.replay" not in told.lines()
        list(replay.events)
        assert "eventstore.replay" in told.lines()


def test_a_replay_that_nobody_reads_is_not_told(told: Told) -> None:
    with EventStore() as store:
        fill(store, "t", 1)
        store.replay("t")
    assert told.lines() == ["eventstore.append"]


def test_a_replay_that_finds_nothing_to_begin_with_has_failed(told: Told) -> None:
    with EventStore() as store:
        head = store.head("t")
        with pytest.raises(PositionNotFoundError):
            store.replay("t", upto=head.position._replace(seq=7))
    failed = told.one("eventstore.replay")
    assert facts(failed)["error.type"] == "eventstore.errors.PositionNotFoundError"


def test_a_replay_is_no_one_elses_context(told: Told, store_url: str) -> None:
    async def main() -> list[int]:
        async with AsyncEventStore(store_url, tenant="test") as store:
            await store.append("t", [Event(1, {"n": n}) for n in range(600)], 0)
            with told.tracer.start_as_current_span("request") as request:
                found = []
                async for event in (await store.replay("t")).events:
                    assert trace.get_current_span() is request
                    found.append(event.data["n"])
                return found

    assert run(main()) == list(range(600))
    assert told.lines() == ["eventstore.append", "request", "  eventstore.replay"]


def test_a_damaged_event_fails_its_replay(told: Told) -> None:
    with EventStore() as store:
        fill(store, "t", 3)
        sql(store, "UPDATE events SET payload = x'00' WHERE seq = 2")
        with pytest.raises(CorruptEventError):
            list(store.replay("t").events)
    failed = told.one("eventstore.replay")
    assert failed.status.status_code is StatusCode.ERROR
    assert facts(failed)["error.type"] == "eventstore.errors.CorruptEventError"


def test_a_payload_that_is_not_bytes_is_left_to_the_reader(told: Told) -> None:
    with EventStore() as store:
        fill(store, "t", 2)
        sql(store, "UPDATE events SET payload = 7 WHERE seq = 2")
        with pytest.raises(CorruptEventError):
            list(store.replay("t").events)


def test_a_replay_passes_over_a_damaged_snapshot_in_one_span(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    with EventStore() as store:
        fill(store, "t", 2)
        store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, b"state", b""))
        sql(store, "UPDATE snapshots SET payload = x'00'")
        assert numbers(store.replay("t", fingerprint=FINGERPRINT).events) == [1, 2]
    assert facts(told.one("eventstore.replay"))["eventstore.events"] == 2
    (record,) = caplog.records
    assert vars(record).items() >= {"thread_id": "t", "ns": "", "seq": 2}.items()


def test_retries_are_counted_and_logged_without_the_password(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that does not answer: nobody listens on that port."""
    pytest.importorskip("psycopg")
    with (
        EventStore(f"postgresql://user:{SECRET}@127.0.0.1:1/nowhere") as store,
        told.tracer.start_as_current_span("request"),
        pytest.raises(StoreUnavailableError) as raised,
    ):
        store.append("t", [Event(1)], 0)
    reason = "rolled_back"
    assert told.metrics()["eventstore.retries"] == {(("eventstore.retry.reason", reason),): 3}
    noted = [event for span in told.spans for event in span.events]
    assert [event.name for event in noted] == ["eventstore.retry"] * 3
    records = [each for each in caplog.records if each.name == "eventstore.transactor"]
    assert [vars(each)["attempt"] for each in records] == [1, 2, 3]
    assert all(vars(each)["reason"] == reason and vars(each)["pause_s"] > 0 for each in records)
    assert SECRET not in str(raised.value) + caplog.text + told.everything()
    assert SECRET not in "".join(str(vars(each)) for each in records)


def test_a_sqlite_statement_does_not_quote_its_values() -> None:
    """Not even in the traceback of an error, where SQLAlchemy would show them."""
    with (
        EventStore() as store,
        store.engine.connect() as conn,
        pytest.raises(Exception, match="no such table") as raised,
    ):
        conn.exec_driver_sql("INSERT INTO nowhere VALUES (?)", (SECRET,))
    assert SECRET not in str(raised.value)


def test_a_name_that_is_not_unicode_does_not_stop_the_exporter(told: Told) -> None:
    app = chain(EventStore(), ("one", node("one")))
    with pytest.raises(ValueError, match=r"Unicode|surrogates"):
        app.invoke({}, on("\ud800"))
    assert facts(told.one("graph.run"))["eventstore.thread.id"] == "?"


# --- metrics ----------------------------------------------------------------------------


def test_metrics_are_told_apart_by_little(told: Told, store_url: str) -> None:
    with EventStore(store_url, tenant="test") as store:
        app = chain(store, ("one", node("one")))
        for number in range(5):
            app.invoke({"text": "x" * 100_000}, on(f"t{number}"))
    measured = told.metrics()
    used = {key for points in measured.values() for labels in points for key, _ in labels}
    assert used <= LABELS
    assert all(len(points) == 1 for points in measured.values())
    assert measured["graph.run.duration"] == {(("graph.name", "graph"),): 5}


def test_durations_are_seconds_with_bounds_that_fit(told: Told) -> None:
    chain(EventStore(), ("one", node("one"))).invoke({}, on("t"))
    data: Any = _READER.get_metrics_data()
    (scope,) = data.resource_metrics[0].scope_metrics
    durations = [metric for metric in scope.metrics if metric.name.endswith(".duration")]
    assert {metric.name for metric in durations} == {
        "eventstore.append.duration",
        "eventstore.replay.duration",
        "graph.run.duration",
        "graph.task.duration",
    }
    for metric in durations:
        assert metric.unit == "s"
        for point in metric.data.data_points:
            assert 0 < point.sum < 60
            assert tuple(point.explicit_bounds) == tuple(telemetry._BOUNDS_S)


# --- without it -------------------------------------------------------------------------


def in_a_process(code: str, *options: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


EVERYTHING: Final = """
import asyncio, sys
from typing import TypedDict
import retention
from eventstore import AsyncEventStore, ConcurrencyError, Event, EventStore, NewSnapshot, telemetry
from graph import START, StateGraph

class State(TypedDict, total=False):
    n: int

def make(store):
    drawn = StateGraph(State)
    drawn.add_node("one", lambda state: {"n": state["n"] + 1})
    drawn.add_edge(START, "one")
    return drawn.compile(checkpointer=store)

config = {"configurable": {"thread_id": "t"}}
with EventStore() as store:
    assert make(store).invoke({"n": 1}, config) == {"n": 2}
    assert list(make(store).stream({"n": 2}, config)) == [{"one": {"n": 3}}]
    store.put_snapshot(store.head("t"), NewSnapshot("test", b"", b""))
    assert len(list(store.replay("t").events)) == 4
    try:
        store.append("t", [Event(1)], 1)
    except ConcurrencyError:
        print("refused")

async def main():
    async with AsyncEventStore() as store:
        assert await make(store).ainvoke({"n": 1}, config) == {"n": 2}
        assert [each async for each in make(store).astream({"n": 2}, config)] == [{"one": {"n": 3}}]

asyncio.run(main())
"""

BLOCK: Final = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""


def test_without_opentelemetry_everything_works() -> None:
    said = in_a_process(
        f"{BLOCK}{EVERYTHING}\n"
        "print(telemetry.on, [name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert said.split("\n") == ["refused", "False []", ""]


def test_the_library_leaves_the_sdk_alone() -> None:
    said = in_a_process(
        f"{EVERYTHING}\n"
        "print(telemetry.on, [name for name in sys.modules if 'opentelemetry.sdk' in name])"
    )
    assert said.split("\n") == ["refused", "True []", ""]


def test_without_it_an_append_is_not_even_wrapped() -> None:
    assert (
        in_a_process(
            f"{BLOCK}\n"
            "from eventstore import telemetry\n"
            "from eventstore.appending import Appending\n"
            "print(hasattr(Appending.append_together, '__wrapped__'),\n"
            "      telemetry.Operation('a', '').begin() is telemetry.NOTHING)"
        )
        == "False True\n"
    )
