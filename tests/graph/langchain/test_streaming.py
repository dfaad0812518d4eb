"""Tokens, events and composition: as LangGraph's graphs give them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

import graph
from tests.graph.langchain.support import GIVEN, talking
from tests.graph.prebuilt.support import OUR_AGENTS, ScriptedModel, assert_same_agents, calls

_NOT_COMPARED = {"ls_integration", "langgraph_checkpoint_ns", "checkpoint_ns"}


def token(chunk: Any) -> Any:
    message, metadata = chunk
    shown = {name: each for name, each in metadata.items() if name not in _NOT_COMPARED}
    return type(message).__name__, message.content, shown


@pytest.mark.parametrize("subgraphs", [False, True], ids=["this graph", "subgraphs"])
def test_tokens_are_streamed_with_their_node(subgraphs: bool) -> None:
    def program(library: Any) -> Iterator[Any]:
        app = talking(library)
        options: Any = {"stream_mode": "messages", "subgraphs": subgraphs}
        for chunk in app.stream(GIVEN, {"tags": ["mine"]}, **options):
            yield (len(chunk[0]), token(chunk[1])) if subgraphs else token(chunk)

    async def async_program(library: Any) -> AsyncIterator[Any]:
        app = talking(library, is_async=True)
        options: Any = {"stream_mode": ["messages", "updates"], "subgraphs": subgraphs}
        async for *path, mode, chunk in app.astream(GIVEN, **options):
            yield len(path), mode, token(chunk) if mode == "messages" else list(chunk)

    assert_same_agents(program)
    assert_same_agents(async_program)


def test_messages_that_no_model_streamed_are_chunks_once() -> None:
    def program(library: Any) -> Iterator[Any]:
        declared = library.StateGraph(library.MessagesState)
        known = AIMessage("known", id="1")
        declared.add_node("new", lambda state: {"messages": [AIMessage("a", id="2"), known]})
        declared.add_node("again", lambda state: library.Command(update={"messages": [known]}))
        declared.add_node("other", lambda state: {"messages": [AIMessage("c", id="3")]})
        declared.add_edge(library.START, "new")
        declared.add_edge("new", "again")
        declared.add_edge("again", "other")
        app = declared.compile()
        for chunk in app.stream({"messages": [known]}, stream_mode="messages"):
            yield token(chunk)

    assert_same_agents(program)


def test_a_tag_keeps_tokens_to_oneself() -> None:
    def program(library: Any) -> Iterator[Any]:
        model = ScriptedModel(answers=["hello there"]).with_config(tags=["nostream"])
        declared = library.StateGraph(library.MessagesState)
        declared.add_node("talk", lambda state: {"messages": model.invoke(state["messages"])})
        declared.add_node("quiet", lambda state: [model.invoke(state["messages"]), {}][1])
        declared.add_edge(library.START, "talk")
        declared.add_edge("talk", "quiet")
        for chunk in declared.compile().stream(GIVEN, stream_mode="messages"):
            yield token(chunk)

    assert_same_agents(program)


def test_parallel_nodes_stream_side_by_side() -> None:
    declared = graph.StateGraph(graph.MessagesState)
    for name in ("a", "b"):
        model = ScriptedModel(answers=[f"{name} {name} {name}"])
        declared.add_node(
            name, lambda state, model=model: {"messages": model.invoke(state["messages"])}
        )
        declared.add_edge(graph.START, name)
    chunks = list(declared.compile().stream(GIVEN, stream_mode="messages"))
    by_node = {
        name: "".join(each[0].content for each in chunks if each[1]["langgraph_node"] == name)
        for name in ("a", "b")
    }
    assert by_node == {"a": "a a a", "b": "b b b"}


def test_a_subgraph_can_be_streamed_by_the_node_that_calls_it() -> None:
    inner = graph.StateGraph(graph.MessagesState)
    model = ScriptedModel(answers=["hello there"])
    inner.add_node("say", lambda state: {"messages": model.invoke(state["messages"])})
    inner.add_edge(graph.START, "say")
    inside = inner.compile(name="inner")
    seen: list[str] = []

    def calling(state: Any) -> Any:
        for message, _ in inside.stream(state, stream_mode="messages"):
            seen.append(message.content)

    outer = graph.StateGraph(graph.MessagesState)
    outer.add_node("calling", calling)
    outer.add_edge(graph.START, "calling")
    assert list(outer.compile().stream(GIVEN, stream_mode="messages")) == []
    assert "".join(seen) == "hello there"


def test_the_form_of_version_2_names_the_mode() -> None:
    (first, *_) = talking(OUR_AGENTS).stream(GIVEN, stream_mode="messages", version="v2")
    assert (first["type"], first["ns"]) == ("messages", ())
    assert first["data"][0].content == "hello"


def test_tokens_of_an_agent() -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    def program(library: Any) -> Iterator[Any]:
        model = ScriptedModel(answers=[calls(("add", {"a": 1, "b": 2}), text="I add"), "it is 3"])
        app = library.create_react_agent(model, [add])
        for chunk in app.stream(GIVEN, stream_mode="messages"):
            name, content, metadata = token(chunk)
            yield name, content, metadata["langgraph_node"]

    assert_same_agents(program)


def test_events_are_those_of_runnables() -> None:
    async def program(library: Any) -> AsyncIterator[Any]:
        app = talking(library, is_async=True)
        async for event in app.astream_events(GIVEN, {"tags": ["mine"]}, version="v2"):
            # LangGraph streams a Runnable that is a node; here it is called, and gives no chunks.
            if (event["event"], event["name"]) == ("on_chain_stream", "nothing"):
                continue
            yield (
                event["event"],
                event["name"],
                sorted(event["tags"]),
                sorted(set(event["metadata"]) - _NOT_COMPARED),
                len(event["parent_ids"]),
                type(event["data"].get("chunk")).__name__,
            )

    assert_same_agents(program)


# --- composition -------------------------------------------------------------------------------


def counting(fails: int = 0, saver: Any = None) -> graph.CompiledGraph:
    """A graph that adds 1, and fails the first times."""
    left = [fails]

    def add(state: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise ConnectionError("again")
        return {"total": state["total"] + 1}

    from typing_extensions import TypedDict

    class State(TypedDict):
        total: int

    declared = graph.StateGraph(State)
    declared.add_node("add", add)
    declared.add_edge(graph.START, "add")
    return declared.compile(saver, name="counting")


def test_a_graph_composes_with_runnables() -> None:
    app = counting()
    total = RunnableLambda(lambda state: state["total"])
    assert (app | total).invoke({"total": 1}) == 2
    assert (app | (lambda state: state["total"])).invoke({"total": 1}) == 2
    assert ((lambda number: {"total": number}) | app).invoke(1) == {"total": 2}
    assert (RunnableLambda(lambda number: {"total": number}) | app | total).invoke(1) == 2
    assert app.pipe(app.as_runnable(), total).invoke({"total": 1}) == 3
    assert app.pick("total").invoke({"total": 1}) == 2
    assert app.assign(more=total).invoke({"total": 1}) == {"total": 2, "more": 2}
    assert app.map().invoke([{"total": 1}, {"total": 2}]) == [{"total": 2}, {"total": 3}]
    assert asyncio.run((app | total).ainvoke({"total": 1})) == 2
    assert list((app | total).stream({"total": 1}, stream_mode="values"))[-1] == 2


def test_a_graph_is_tried_again_and_has_fallbacks() -> None:
    assert counting(fails=2).with_retry(wait_exponential_jitter=False, stop_after_attempt=3).invoke(
        {"total": 1}
    ) == {"total": 2}
    assert counting(fails=9).with_fallbacks([counting()]).invoke({"total": 1}) == {"total": 2}
    with pytest.raises(ConnectionError):
        counting(fails=9).with_retry(stop_after_attempt=1).invoke({"total": 1})


@pytest.mark.filterwarnings("ignore:This API is in beta")
def test_a_graph_is_a_tool() -> None:
    made = counting().as_tool(name="count", description="Count on.", arg_types={"total": int})
    assert made.invoke({"total": 1}) == {"total": 2}
    assert made.name == "count"


def test_a_composed_graph_keeps_its_thread() -> None:
    with graph.InMemorySaver() as saver:
        app = counting(saver=saver)
        config: Any = {"configurable": {"thread_id": "1"}}
        (app | RunnableLambda(lambda state: state)).invoke({"total": 1}, config)
        assert app.get_state(config).values == {"total": 2}
