"""Programs that changed only some of their imports: LangGraph's objects in a graph of ours."""

import functools
from collections.abc import Callable
from typing import Annotated, Any, cast

import langgraph.config
import langgraph.graph.message
import langgraph.types
import pytest
from typing_extensions import TypedDict

import graph
from graph import START, StateGraph
from tests.graph.compat.both import CONFIG, State

pytestmark = pytest.mark.filterwarnings("ignore:no edge leads to")


def run(node: Callable[..., Any], given: Any = None) -> Any:
    with graph.InMemorySaver() as saver:
        made = StateGraph(State).add_node("a", node).add_node("b", lambda state: {"items": ["b"]})
        app = made.add_edge(START, "a").compile(saver)
        return app.invoke(given or {"items": ["0"]}, CONFIG)["items"]


@pytest.mark.parametrize(
    ("node", "found"),
    [
        (lambda state: langgraph.types.Command(update={"items": ["a"]}), ["0", "a"]),
        (lambda state: langgraph.types.Command(goto="b"), ["0", "b"]),
        (lambda state: langgraph.types.Command(goto=langgraph.types.Send("b", {})), ["0", "b"]),
        (lambda state: langgraph.types.Command(goto=[langgraph.types.Send("b", {})]), ["0", "b"]),
        (lambda state: graph.Command(goto=cast(Any, langgraph.types.Send("b", {}))), ["0", "b"]),
        (lambda state: [langgraph.types.Command(goto="b"), {"items": ["a"]}], ["0", "a", "b"]),
        (lambda state: {"items": langgraph.types.Overwrite(["a"])}, ["a"]),
    ],
)
def test_what_means_the_same_is_taken(node: Any, found: list[str]) -> None:
    assert run(node) == found


def test_commands_as_inputs_and_edits_are_taken() -> None:
    with graph.InMemorySaver() as saver:
        made = StateGraph(State).add_node("a", lambda state: {"items": [graph.interrupt("q")]})
        app = made.add_edge(START, "a").compile(saver)
        app.invoke({"items": []}, CONFIG)
        resume: Any = langgraph.types.Command(resume="r")
        assert app.invoke(resume, CONFIG)["items"] == ["r"]
        edit: Any = langgraph.types.Command(update={"items": ["u"]})
        app.update_state(CONFIG, edit)
        assert app.get_state(CONFIG).values["items"] == ["r", "u"]


def test_edges_may_send_with_langgraphs_send() -> None:
    made = StateGraph(State).add_node("a", lambda state: {"items": [state["text"]]})
    send = langgraph.types.Send("a", {"text": "sent"})
    made.add_conditional_edges(START, lambda state: [send], ["a"])
    assert made.compile().invoke({"items": []}) == {"items": ["sent"]}


def test_retry_policies_are_taken() -> None:
    attempts: list[int] = []

    def fails(state: Any) -> Any:
        attempts.append(1)
        raise ConnectionError("once more")

    policy: Any = langgraph.types.RetryPolicy(initial_interval=0, max_attempts=2, jitter=False)
    for given in (policy, [policy]):
        made = StateGraph(State).add_node("a", fails, retry_policy=given).add_edge(START, "a")
        with pytest.raises(ConnectionError):
            made.compile().invoke({"items": []})
    assert len(attempts) == 4


@pytest.mark.parametrize(
    "reducer",
    [
        langgraph.graph.message.add_messages,
        langgraph.graph.message.add_messages(format="langchain-openai"),  # type: ignore[call-arg]
    ],
)
def test_the_ids_of_langgraphs_add_messages_are_the_same_in_a_replay(reducer: Any) -> None:
    assert isinstance(reducer, functools.partial) or reducer.__name__ == "_add_messages"

    class Chat(TypedDict):
        messages: Annotated[list[Any], reducer]

    with graph.InMemorySaver() as saver:
        made = StateGraph(Chat).add_node("a", lambda state: {"messages": ("ai", "hello")})
        made.add_edge(START, "a")
        found = made.compile(saver).invoke({"messages": "hi"}, CONFIG)["messages"]
        again = made.compile(saver).get_state(CONFIG).values["messages"]
    assert [each.content for each in again] == ["hi", "hello"]
    if not isinstance(reducer, functools.partial):  # whose messages lose their ids in LangGraph
        assert [each.id for each in again] == [each.id for each in found]


@pytest.mark.parametrize(
    "call",
    [
        lambda: langgraph.types.interrupt("q"),
        langgraph.config.get_stream_writer,
    ],
)
def test_what_needs_a_run_of_langgraph_is_named(call: Callable[[], Any]) -> None:
    with pytest.raises(graph.InvalidGraphError, match=r"LangGraph's \w+\(\).* from graph instead"):
        run(lambda state: call())


def test_updates_in_bulk_are_taken_as_langgraphs_class_and_as_pairs() -> None:
    with graph.InMemorySaver() as saver:
        made = StateGraph(State).add_node("a", lambda state: {"items": ["a"]})
        app = made.add_edge(START, "a").compile(saver)
        app.invoke({"items": ["0"]}, CONFIG)
        update: Any
        for update in (
            langgraph.types.StateUpdate({"items": ["1"]}, "a"),
            ({"items": ["2"]}, "a"),
            graph.StateUpdate({"items": ["3"]}, "a"),
        ):
            app.bulk_update_state(CONFIG, [[update]])
        assert app.get_state(CONFIG).values["items"] == ["0", "a", "1", "2", "3"]
        for update in ({"items": ["4"]}, "a", ("a", "b", "c")):
            with pytest.raises(graph.InvalidUpdateError, match="must be a StateUpdate"):
                app.bulk_update_state(CONFIG, [[update]])
