"""States as dataclasses or Pydantic models, private keys, and subgraphs with other schemas."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Annotated, Any, TypedDict

import pytest
from pydantic import BaseModel, Field, ValidationError

from eventstore import EventStore
from graph import (
    START,
    InvalidUpdateError,
    StateGraph,
)
from tests.graph.kit import Boom, Trail, id_of, on, steps

# --- schemas ----------------------------------------------------------------------------


class Public(TypedDict, total=False):
    question: str
    answer: str


class Inner(TypedDict, total=False):
    question: str
    secret: str


class Asked(TypedDict):
    question: str


class Answered(TypedDict):
    answer: str


def test_private_keys_pass_between_nodes_and_stay_inside(store: EventStore) -> None:
    given: list[dict[str, Any]] = []

    def think(state: Public) -> dict[str, Any]:
        given.append(dict(state))
        return {"secret": "s"}

    def answer(state: Inner) -> dict[str, Any]:
        given.append(dict(state))
        return {"answer": f"{state['question']} {state['secret']}"}

    graph = StateGraph(Public, input_schema=Asked, output_schema=Answered)
    graph.add_sequence([think, answer])
    graph.add_edge(START, "think")
    app = graph.compile(store)
    assert app.invoke({"question": "q"}, on("t")) == {"answer": "q s"}
    assert given == [{"question": "q"}, {"question": "q", "secret": "s"}]
    assert app.get_state(on("t")).values == {"question": "q", "answer": "q s", "secret": "s"}
    # The private key is part of the state all the same: it survives a fork.
    after_think = list(app.get_state_history(on("t"), every=True))[1]
    assert app.invoke(None, on("u", id_of(after_think))) == {"answer": "q s"}
    with pytest.raises(InvalidUpdateError, match="answer"):
        app.invoke({"answer": "given"}, on("v"))


@dataclass
class DataState:
    name: str
    log: Annotated[list[str], operator.add] = dataclass_field(default_factory=list)
    count: int = 0


def test_a_dataclass_as_state(checkpointer: Any) -> None:
    def one(state: DataState) -> dict[str, Any]:
        assert isinstance(state, DataState)
        return {"log": [state.name], "count": state.count + 1}

    def two(state: DataState) -> DataState:
        return DataState("new", ["two"], state.count + 1)

    graph = StateGraph(DataState)
    graph.add_sequence([one, two])
    graph.add_edge(START, "one")
    app = graph.compile(checkpointer)
    expected = {"name": "new", "log": ["n", "two"], "count": 2}
    assert app.invoke({"name": "n"}, on("t")) == expected
    assert app.invoke(DataState("n"), on("u")) == expected


class Model(BaseModel):
    name: str
    log: Annotated[list[str], operator.add] = Field(default_factory=list)
    count: int = 0


def test_a_pydantic_model_as_state(checkpointer: Any) -> None:
    def one(state: Model) -> dict[str, Any]:
        assert isinstance(state, Model)
        return {"log": [state.name], "count": state.count + 1}

    def two(state: Model) -> Model:
        state.count += 1
        return Model(name="new", log=["two"], count=state.count)

    graph = StateGraph(Model)
    graph.add_sequence([one, two])
    graph.add_edge(START, "one")
    app = graph.compile(checkpointer)
    expected = {"name": "new", "log": ["n", "two"], "count": 2}
    assert app.invoke({"name": "n"}, on("t")) == expected
    assert app.invoke(Model(name="n"), on("u")) == expected
    with pytest.raises(ValidationError, match="name"):
        app.invoke({"name": 7}, on("v"))


# --- graphs in graphs -------------------------------------------------------------------


class Outer(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    seen: int


class Child(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    own: str


def test_a_subgraph_as_a_node(checkpointer: Any) -> None:
    child = StateGraph(Child)
    child.add_node("inner", lambda state: {"log": [f"inner {len(state['log'])}"], "own": "o"})
    child.add_edge(START, "inner")
    graph = StateGraph(Outer)
    graph.add_node("before", lambda state: {"log": ["before"]})
    graph.add_node("child", child.compile())
    graph.add_node("after", lambda state: {"seen": len(state["log"])})
    graph.add_edge(START, "before")
    graph.add_edge("before", "child")
    graph.add_edge("child", "after")
    result = graph.compile(checkpointer).invoke({"log": ["x"]}, on("t"))
    # As in LangGraph, the child's output is its whole state: the shared list is added again.
    assert result == {"log": ["x", "before", "x", "before", "inner 2"], "seen": 5}


class OuterData(BaseModel):
    log: Annotated[list[str], operator.add] = Field(default_factory=list)
    other: int = 1


@pytest.mark.parametrize("outer", [DataState, OuterData])
def test_a_subgraph_of_a_graph_whose_state_is_an_object(checkpointer: Any, outer: type) -> None:
    child = StateGraph(Child)
    child.add_node("inner", lambda state: {"log": [f"inner {state['log']}"]})
    child.add_edge(START, "inner")
    graph = StateGraph(outer)
    graph.add_node("child", child.compile())
    graph.add_edge(START, "child")
    given = {"log": ["x"], **({"name": "n"} if outer is DataState else {})}
    result = graph.compile(checkpointer).invoke(given, on("t"))
    assert result["log"] == ["x", "x", "inner ['x']"]


def test_an_error_inside_a_subgraph(store: EventStore) -> None:
    broken = {True}
    child = StateGraph(Child)

    def inner(state: Child) -> dict[str, Any]:
        if broken:
            raise Boom("inside")
        return {"log": ["inner"]}

    child.add_node("inner", inner)
    child.add_edge(START, "inner")
    graph = StateGraph(Outer)
    graph.add_node("child", child.compile())
    graph.add_edge(START, "child")
    app = graph.compile(store)
    with pytest.raises(Boom):
        app.invoke({"log": ["x"]}, on("t"))
    assert app.get_state(on("t")).tasks[0].error == "Boom('inside')"
    broken.clear()
    assert app.invoke(None, on("t"))["log"] == ["x", "x", "inner"]


def test_a_subgraph_called_by_a_node(checkpointer: Any) -> None:
    child = steps("ab")
    graph = StateGraph(Trail)
    graph.add_node("call", lambda state: {"log": child.invoke({})["log"]})
    graph.add_edge(START, "call")
    assert graph.compile(checkpointer).invoke({}, on("t"))["log"] == ["a", "b"]
