"""What a run looks like as a trace, and which failures its spans tell."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from eventstore import (
    AsyncEventStore,
    ConcurrencyError,
    Event,
    EventStore,
    telemetry,
)
from graph import START, CompiledGraph, RetryPolicy, StateGraph
from tests.awaited import run
from tests.graph.kit import Boom, on
from tests.telemetry.support import SECRET, Notes, Told, chain, facts, node


def fan(checkpointer: Any, nodes: Mapping[str, Any]) -> CompiledGraph:
    """Nodes side by side."""
    graph = StateGraph(Notes)
    for name, action in nodes.items():
        graph.add_node(name, action)
        graph.add_edge(START, name)
    return graph.compile(checkpointer=checkpointer)


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
        "graph.name": "LangGraph",
        "eventstore.thread.id": "t",
        "graph.run.status": "idle",
        "graph.step": 2,
    }
    assert facts(told.one("graph.task two")) == {
        "graph.name": "LangGraph",
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
        "LangGraph",
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
    named = (("graph.name", "LangGraph"), ("graph.node", "fails"))
    assert measured["graph.retries"] == {named: 1}
    assert measured["graph.task.duration"] == {(("error.type", kind), *named): 1}

    (record,) = (each for each in caplog.records if each.name == "graph.run.tasks")
    assert record.getMessage() == f"node 'fails' failed with {kind}, trying again"
    assert (
        vars(record).items()
        >= {
            "graph": "LangGraph",
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
        list(app.get_state_history(on("t"), every=True))
        store.append("u", [Event(1, {"a": SECRET}, key=SECRET)], 0, metadata={"m": SECRET})
        head = store.head("u")
        store.append_after(head, [Event(1, SECRET)])
        with pytest.raises(ConcurrencyError):
            store.append_after(head, [Event(1, SECRET)])
    assert "graph.task one" in told.everything()
    assert SECRET not in told.everything()
    ours = [each for each in caplog.records if each.name.split(".")[0] in ("eventstore", "graph")]
    assert SECRET not in "".join(str(vars(each)) + each.getMessage() for each in ours)
