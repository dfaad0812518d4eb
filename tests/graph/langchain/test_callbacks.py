"""Callbacks see the runs that LangGraph shows them; what a node calls gets the config by itself."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import ensure_config
from typing_extensions import TypedDict

import graph
from eventstore import telemetry
from tests.graph.langchain.support import GIVEN, Recorder, talking
from tests.graph.prebuilt.support import OUR_AGENTS, ScriptedModel, assert_same_agents, calls


class State(TypedDict, total=False):
    text: str
    items: Annotated[list[Any], "not merged"]


def config_with(*handlers: Any, **more: Any) -> Any:
    return {
        "callbacks": list(handlers),
        "tags": ["mine"],
        "metadata": {"user": "ann"},
        "run_name": "a run",
        "configurable": {"thread_id": "t", "tenant_name": "x"},
        **more,
    }


def test_each_node_and_edge_is_a_run_of_its_own() -> None:
    def program(library: Any) -> Iterator[Any]:
        recorder = Recorder()
        talking(library).invoke(GIVEN, config_with(recorder))
        yield from recorder.seen

    seen = assert_same_agents(program)
    assert [each[1:3] for each in seen if each[0] in ("chain", "model")][:4] == [
        ("a run", None),
        ("talk", "a run"),
        (None, "talk"),
        ("route", "talk"),
    ]


def test_async_runs_have_the_same_runs() -> None:
    async def program(library: Any) -> AsyncIterator[Any]:
        recorder = Recorder()
        await talking(library, is_async=True).ainvoke(GIVEN, config_with(recorder))
        for each in recorder.seen:
            yield each

    assert_same_agents(program)


def test_a_failure_ends_the_runs_that_it_goes_through() -> None:
    def failing(state: State) -> Any:
        raise ValueError("no")

    def program(library: Any) -> Iterator[Any]:
        declared = library.StateGraph(State)
        declared.add_node("failing", failing)
        declared.add_edge(library.START, "failing")
        recorder = Recorder()
        try:
            declared.compile(name="g").invoke({"text": ""}, config_with(recorder))
        except ValueError:
            yield from recorder.seen

    assert_same_agents(program)


def test_an_interrupt_ends_its_node_and_the_run_that_goes_on_is_another() -> None:
    def program(library: Any) -> Iterator[Any]:
        def ask(state: State) -> Any:
            return {"text": library.interrupt("what?")}

        declared = library.StateGraph(State)
        declared.add_node("ask", ask)
        declared.add_edge(library.START, "ask")
        app = declared.compile(name="g", checkpointer=library.InMemorySaver())
        for given in ({"text": ""}, library.Command(resume="x")):
            recorder = Recorder()
            app.invoke(given, config_with(recorder))
            yield [each[:3] for each in recorder.seen]

    assert_same_agents(program)


def test_tools_of_an_agent_are_runs() -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    recorder = Recorder()
    model = ScriptedModel(answers=[calls(("add", {"a": 1, "b": 2})), "three"])
    app = OUR_AGENTS.create_agent(model, [add], name="agent")
    app.invoke(GIVEN, config_with(recorder))
    begun = [each[:3] for each in recorder.seen if each[0] in ("chain", "model", "tool")]
    assert begun == [
        ("chain", "a run", None),
        ("chain", "model", "a run"),
        ("model", None, "model"),
        ("chain", "should_continue", "model"),
        ("chain", "tools", "a run"),
        ("tool", "add", "tools"),
        ("chain", "model", "a run"),
        ("model", None, "model"),
        ("chain", "should_continue", "model"),
    ]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kept", [False, True], ids=["no checkpointer", "a checkpointer"])
def test_what_a_node_calls_finds_the_config(is_async: bool, kept: bool) -> None:
    found: dict[str, Any] = {}

    def look(name: str) -> Any:
        return RunnableLambda(lambda _: found.setdefault(name, ensure_config()))

    def plain(state: State) -> Any:
        look("plain").invoke(0)
        return {"text": "x"}

    async def awaiting(state: State) -> Any:
        await asyncio.gather(look("awaiting").ainvoke(0), look("beside").ainvoke(0))

    declared = graph.StateGraph(State)
    declared.add_node("plain", plain)
    declared.add_edge(graph.START, "plain")
    if is_async:
        declared.add_node("awaiting", awaiting)
        declared.add_edge(graph.START, "awaiting")
    with graph.InMemorySaver() as saver:
        app = declared.compile(saver if kept else None)
        recorder = Recorder()
        config = config_with(recorder)
        if is_async:
            asyncio.run(app.ainvoke({"text": ""}, config))
        else:
            app.invoke({"text": ""}, config)
    assert set(found) == ({"plain", "awaiting", "beside"} if is_async else {"plain"})
    for name, each in found.items():
        assert each["tags"] == ["mine"]
        assert each["metadata"]["user"] == "ann"
        assert each["metadata"]["langgraph_node"] == ("plain" if name == "plain" else "awaiting")
        assert each["configurable"]["tenant_name"] == "x"
    parents = [each[2] for each in recorder.seen if each[0] == "chain"]
    assert {"plain", *(["awaiting"] if is_async else [])} < set(parents)


def test_the_config_is_gone_after_the_run() -> None:
    talking(OUR_AGENTS).invoke(GIVEN, config_with(Recorder()))
    assert ensure_config()["tags"] == []


def test_a_graph_in_a_chain_is_a_run_in_that_of_the_chain() -> None:
    recorder = Recorder()
    chain = RunnableLambda(lambda given: given) | talking(OUR_AGENTS)
    chain.invoke(GIVEN, {"callbacks": [recorder], "run_name": "chain", "tags": ["mine"]})
    outer = next(each for each in recorder.seen if each[1] == "outer")
    assert outer[2] == "chain"
    assert "mine" in outer[3]


def test_async_handlers_are_awaited() -> None:
    names: list[Any] = []

    class Handler(AsyncCallbackHandler):
        async def on_chain_start(self, *_: Any, **facts: Any) -> None:
            await asyncio.sleep(0)
            names.append(facts["name"])

    asyncio.run(talking(OUR_AGENTS, is_async=True).ainvoke(GIVEN, config_with(Handler())))
    assert names[:3] == ["a run", "talk", "route"]


def test_a_handler_that_fails_does_not_fail_the_run() -> None:
    class Broken(Recorder):
        def on_chain_start(self, *_: Any, run_id: Any, **facts: Any) -> None:
            raise ValueError("broken")

    result = talking(OUR_AGENTS).invoke(GIVEN, config_with(Broken()))
    assert len(result["messages"]) == 4


@pytest.mark.parametrize("name", ["a run", "talk", "route"])
def test_a_handler_may_raise_its_errors(name: str) -> None:
    class Strict(Recorder):
        raise_error = True

        def on_chain_start(self, *_: Any, run_id: Any, **facts: Any) -> None:
            super().on_chain_start(run_id=run_id, **facts)
            if facts["name"] == name:
                raise LookupError("strict")

    with pytest.raises(LookupError, match="strict"):
        talking(OUR_AGENTS).invoke(GIVEN, config_with(Strict()))


def test_spans_and_callbacks_see_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, recorder = InMemorySpanExporter(), Recorder()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("test"))
    monkeypatch.setattr(telemetry, "is_reporting", lambda: True)
    talking(OUR_AGENTS).invoke(GIVEN, config_with(recorder))
    spans = [each.name for each in exporter.get_finished_spans()]
    runs = [each[1] for each in recorder.seen if each[0] == "chain"]
    for node in ("talk", "inside", "calling", "runnable", "say"):
        assert sum(node in name for name in spans) == runs.count(node), (node, spans)


@pytest.mark.slow
def test_without_langchain_core_a_run_does_not_import_it() -> None:
    """Checked in a process of its own, because this one has imported it."""
    import subprocess

    program = (
        "import sys, graph\n"
        "import graph.prebuilt\n"
        "g = graph.StateGraph(graph.MessagesState)\n"
        "g.add_node('a', lambda state: {'messages': [{'role': 'user', 'content': 'x'}]})\n"
        "g.add_edge(graph.START, 'a')\n"
        "g.compile().invoke({'messages': []})\n"
        "app = graph.prebuilt.create_agent(lambda messages: 'hi', [])\n"
        "assert app.invoke({'messages': [('user', 'x')]})['messages'][-1]['content'] == 'hi'\n"
        "print([name for name in sys.modules if name.startswith('langchain')])\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (found.stdout.strip(), found.returncode) == ("[]", 0), found.stderr
