"""Graphs of LangGraph's, each with the calls that take it through what a saver has to keep."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.types import Command, Send, interrupt


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def chat() -> Any:
    """Answers each message; messages carry ids of their own."""

    def answer(state: Chat) -> dict[str, Any]:
        count = len(state["messages"])
        return {"messages": [AIMessage(f"answer {count}", id=f"a{count}")]}

    graph = StateGraph(Chat)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph


def question(number: int) -> dict[str, Any]:
    return {"messages": [HumanMessage(f"question {number}", id=f"q{number}")]}


class Items(TypedDict, total=False):
    items: Annotated[list[str], operator.add]
    names: dict[str, int]
    text: str


def fan_out() -> Any:
    """Sends one task for each name, and joins what they return."""

    def split(state: Items) -> dict[str, Any]:
        return {"text": state.get("text", "") + "split "}

    def send(state: Items) -> list[Send]:
        return [Send("work", {"items": [name]}) for name in "abcde"]

    def work(state: Items) -> dict[str, Any]:
        return {"items": [name.upper() for name in state["items"]]}

    def join(state: Items) -> dict[str, Any]:
        return {"names": {name: len(state["items"]) for name in state["items"]}}

    graph = StateGraph(Items)
    graph.add_node("split", split)
    graph.add_node("work", work)
    graph.add_node("join", join)
    graph.add_edge(START, "split")
    graph.add_conditional_edges("split", send, ["work"])
    graph.add_edge("work", "join")
    graph.add_edge("join", END)
    return graph


def in_place() -> Any:
    """A node that changes a list of the state in place and returns it."""

    class State(TypedDict, total=False):
        log: list[Any]

    def add(state: State) -> dict[str, Any]:
        log = state.get("log") or []
        log.append({"number": len(log)})
        if len(log) > 2:
            log[1]["number"] = "changed"
        return {"log": log}

    graph = StateGraph(State)
    graph.add_node("add", add)
    graph.add_node("again", add)
    graph.add_edge(START, "add")
    graph.add_edge("add", "again")
    graph.add_edge("again", END)
    return graph


def approval(*, twice: bool = True) -> Any:
    """Two nodes side by side, of which one asks, once or twice."""

    def ask(state: Items) -> dict[str, Any]:
        first = interrupt("first?")
        second = interrupt("second?") if twice else ""
        return {"items": [f"{first} {second}"]}

    def other(state: Items) -> dict[str, Any]:
        return {"items": ["other"]}

    graph = StateGraph(Items)
    graph.add_node("ask", ask)
    graph.add_node("other", other)
    graph.add_node("after", lambda state: {"text": "done"})
    graph.add_edge(START, "ask")
    graph.add_edge(START, "other")
    graph.add_edge("ask", "after")
    graph.add_edge("after", END)
    return graph


def nested(*, keeps: bool = False) -> Any:
    """A graph in a graph, which asks; ``keeps``: the inner one remembers between calls."""

    def inner(state: Items) -> dict[str, Any]:
        return {"items": [interrupt("inner?")]}

    def before(state: Items) -> dict[str, Any]:
        return {"items": ["before"]}

    subgraph = StateGraph(Items)
    subgraph.add_node("before", before)
    subgraph.add_node("inner", inner)
    subgraph.add_edge(START, "before")
    subgraph.add_edge("before", "inner")
    compiled = subgraph.compile(checkpointer=True if keeps else None)
    graph = StateGraph(Items)
    graph.add_node("first", lambda state: {"text": "first"})
    graph.add_node("sub", compiled)
    graph.add_edge(START, "first")
    graph.add_edge("first", "sub")
    graph.add_edge("sub", END)
    return graph


def _extend(old: list[str], writes: Sequence[list[str]]) -> list[str]:
    return [*old, *(item for write in writes for item in write)]


def deltas() -> Any:
    """A channel that is stored as its writes, with a snapshot of it now and then."""

    class State(TypedDict, total=False):
        log: Annotated[list[str], DeltaChannel(_extend, snapshot_frequency=5)]
        count: int

    def one(state: State) -> dict[str, Any]:
        return {"log": [f"one {len(state.get('log', []))}"], "count": state.get("count", 0) + 1}

    def two(state: State) -> dict[str, Any]:
        return {"log": [f"two {state.get('count')}"]}

    graph = StateGraph(State)
    graph.add_node("one", one)
    graph.add_node("two", two)
    graph.add_edge(START, "one")
    graph.add_edge(START, "two")
    graph.add_edge("one", END)
    graph.add_edge("two", END)
    return graph


@dataclass(frozen=True)
class Story:
    """A graph, and the inputs that it gets one after the other on one thread."""

    graph: Callable[[], Any]
    inputs: Sequence[Any]


STORIES: dict[str, Story] = {
    "chat": Story(chat, [question(number) for number in range(4)]),
    "fan-out": Story(fan_out, [{"text": "a"}, {"text": "b"}]),
    "in place": Story(in_place, [{"log": []}, {"log": [{"number": 9}]}, {"log": []}]),
    "approval": Story(
        approval, [{"items": ["x"]}, Command(resume="yes"), Command(resume="no"), {"text": "z"}]
    ),
    "subgraph": Story(nested, [{"items": ["x"]}, Command(resume="i"), {}, Command(resume="j")]),
    "subgraph that remembers": Story(
        lambda: nested(keeps=True), [{"items": ["x"]}, Command(resume="i"), {}, Command(resume="j")]
    ),
    "delta channel": Story(deltas, [{"log": [f"in {number}"]} for number in range(8)]),
}
