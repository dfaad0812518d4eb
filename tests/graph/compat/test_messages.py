"""Messages in a state, where langchain-core is imported, and where it is not."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
)
from pydantic import BaseModel
from typing_extensions import TypedDict

import graph
from tests.graph.compat.both import CONFIG, assert_same


def brief(messages: Any) -> Any:
    """Messages without their ids."""
    if isinstance(messages, list):
        return [brief(each) for each in messages]
    if isinstance(messages, BaseMessage):
        return type(messages).__name__, messages.content, messages.additional_kwargs
    return messages


def chat(library: Any, reply: Any, state: Any = None) -> Any:
    made = library.StateGraph(library.MessagesState if state is None else state)
    made.add_node("reply", lambda state: {"messages": deepcopy(reply)})
    return made.add_edge(library.START, "reply").compile(checkpointer=library.InMemorySaver())


REPLIES: Any = [
    {"role": "assistant", "content": "hello"},
    ("ai", "hello"),
    "hello",
    AIMessage("hello"),
    [AIMessage("hello")],
    [AIMessageChunk(content="hello")],
    [("system", "a"), "b", {"role": "developer", "content": "c"}, ["ai", "d"]],
    [
        {"role": "user", "content": "a", "id": "1"},
        {"role": "tool", "content": "b", "tool_call_id": "c", "name": "n"},
    ],
    {"type": "human", "content": [{"type": "text", "text": "x"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}],
    },
    [RemoveMessage(id="first"), ("ai", "instead")],
    [RemoveMessage(id="__remove_all__"), ("ai", "anew")],
]


@pytest.mark.parametrize("reply", REPLIES, ids=repr)
def test_both_show_the_same_messages(reply: Any) -> None:
    def program(library: Any) -> Any:
        app = chat(library, reply)
        for given in (
            [{"role": "user", "content": "hi", "id": "first"}],
            ("user", "hi"),
            [HumanMessage("hi", id="first")],
        ):
            for mode, chunk in app.stream(
                {"messages": given}, CONFIG, stream_mode=["values", "updates"]
            ):
                shown = chunk["reply"] if mode == "updates" else chunk
                yield mode, brief(shown["messages"])
            yield brief(app.get_state(CONFIG).values["messages"])
        for found in app.get_state_history(CONFIG):
            if not found.next:
                yield brief(found.values["messages"])

    assert_same(program)


def test_nodes_edges_and_subgraphs_get_objects() -> None:
    def program(library: Any) -> Any:
        seen: list[Any] = []

        def answer(state: Any) -> Any:
            seen.append(brief(state["messages"]))
            return {"messages": [("ai", f"to {state['messages'][-1].content}")]}

        def more(state: Any) -> Any:
            seen.append(brief(state["messages"]))
            return "inner" if len(state["messages"]) < 4 else library.END

        inner = library.StateGraph(library.MessagesState).add_node("answer", answer)
        outer = library.StateGraph(library.MessagesState)
        outer.add_node("inner", inner.add_edge(library.START, "answer").compile())
        outer.add_conditional_edges("inner", more).add_edge(library.START, "inner")
        app = outer.compile(checkpointer=library.InMemorySaver())
        yield brief(app.invoke({"messages": "hi"}, CONFIG)["messages"])
        app.update_state(CONFIG, {"messages": {"role": "user", "content": "edit"}})
        yield brief(app.get_state(CONFIG).values["messages"])
        yield seen

    assert_same(program)


class Checked(BaseModel):
    messages: Annotated[list[AnyMessage], graph.add_messages]


def keep_two(left: Any, right: Any) -> Any:
    return graph.add_messages(left, right)[-2:]


class Short(TypedDict):
    messages: Annotated[list[AnyMessage], keep_two]


class OfDicts(TypedDict):
    messages: Annotated[list[dict[str, Any]], graph.add_messages]


class Formatted(TypedDict):
    messages: Annotated[list[Any], graph.add_messages(format="langchain-openai")]


def test_a_pydantic_state_gets_objects() -> None:
    with graph.InMemorySaver() as saver:
        made = graph.StateGraph(Checked)
        made.add_node("a", lambda state: {"messages": ("ai", state.messages[-1].content)})
        app = made.add_edge(graph.START, "a").compile(saver)
        for text in ("hi", "ho"):
            found = app.invoke({"messages": [("user", text)]}, CONFIG)["messages"]
    assert [each.content for each in found] == ["hi", "hi", "ho", "ho"]


def test_a_reducer_around_it_gives_the_same_ids_in_a_replay(tmp_path: Path) -> None:
    with graph.SqliteSaver(str(tmp_path / "chat.db")) as saver:
        made = graph.StateGraph(Short)
        made.add_node("a", lambda state: {"messages": [("ai", "same")]})
        made.add_node("b", lambda state: {"messages": [AIMessage("same"), "same"]})
        made.add_edge(graph.START, "a").add_edge("a", "b")
        app = made.compile(saver)
        for _ in range(3):
            found = app.invoke({"messages": "same"}, CONFIG)["messages"]
            assert [each.content for each in found] == ["same", "same"]
            assert found[0].id != found[1].id
            assert made.compile(saver).get_state(CONFIG).values["messages"] == found
        assert app.verify(CONFIG).ok
        app.update_state(CONFIG, {"messages": RemoveMessage(id=found[0].id)}, as_node="b")
        (left,) = made.compile(saver).get_state(CONFIG).values["messages"]
    assert left == found[1]


def test_the_reducer_alone_gives_the_same() -> None:
    def program(library: Any) -> Any:
        merged = library.add_messages([("user", "a")], {"role": "assistant", "content": "b"})
        yield brief(merged)
        image = {"type": "base64", "media_type": "image/jpeg", "data": "1234"}
        content = [{"type": "text", "text": "a", "x": 1}, {"type": "image", "source": image}]
        as_openai = library.add_messages(format="langchain-openai")
        yield brief(as_openai([], {"role": "user", "content": content}))
        yield brief(library.add_messages("a", "b", format="langchain-openai"))
        yield library.add_messages("a", None)

    assert_same(program)


def test_the_form_of_openai_is_what_is_shown() -> None:
    with graph.InMemorySaver() as saver:
        made = graph.StateGraph(Formatted)
        part = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
        made.add_node("a", lambda state: {"messages": {"role": "ai", "content": [part]}})
        app = made.add_edge(graph.START, "a").compile(saver)
        (found,) = app.invoke({"messages": []}, CONFIG)["messages"]
    assert found.content == "x"


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format must be 'langchain-openai' or None, not 'x'"):
        graph.add_messages(format="x")


def test_an_annotation_of_dicts_keeps_dicts() -> None:
    with graph.InMemorySaver() as saver:
        made = graph.StateGraph(OfDicts).add_node("a", lambda state: {"messages": ("ai", "yes")})
        app = made.add_edge(graph.START, "a").compile(saver)
        found = app.invoke({"messages": [{"role": "user", "content": "hi"}]}, CONFIG)["messages"]
    assert [each["content"] for each in found] == ["hi", "yes"]


def test_a_role_that_langchain_does_not_know_stays_a_dict() -> None:
    (message,) = graph.add_messages([], {"role": "narrator", "content": "once"})
    assert message["role"] == "narrator"


PLAIN: str = """
import sys
from graph import MessagesState, SqliteSaver, StateGraph, START
made = StateGraph(MessagesState).add_node("reply", lambda state: {"messages": ("ai", "hello")})
app = made.add_edge(START, "reply").compile(SqliteSaver(sys.argv[1]))
config = {"configurable": {"thread_id": "t"}}
app.invoke({"messages": [("user", "hi")]}, config)
assert "langchain_core" not in sys.modules
messages = app.get_state(config).values["messages"]
print([each["content"] for each in messages], app.verify(config).ok)
"""


@pytest.mark.slow
def test_a_process_without_langchain_goes_on_with_the_same_thread(tmp_path: Path) -> None:
    path = str(tmp_path / "chat.db")
    made = graph.StateGraph(graph.MessagesState)
    made.add_node("reply", lambda state: {"messages": ("ai", state["messages"][-1].content)})
    made.add_edge(graph.START, "reply")
    with graph.SqliteSaver(path) as saver:
        made.compile(saver).invoke({"messages": [("user", "hi")]}, CONFIG)
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, path], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "['hi', 'hi', 'hi', 'hello'] True", done.stderr
    with graph.SqliteSaver(path) as saver:
        app = made.compile(saver)
        found = app.get_state(CONFIG).values["messages"]
        assert [type(each) for each in found] == [HumanMessage, AIMessage] * 2
        assert app.verify(CONFIG).ok
