"""Application types in the state: what the schema names is registered, nothing else is stored."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import UUID

import pytest
from pydantic import BaseModel

from eventstore import Codec, EventStore, SerializationError
from graph import START, CompiledGraph, Send, SqliteSaver, StateGraph
from tests.graph.kit import Trail, on


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Part:
    name: str
    mood: Mood = Mood.GOOD


@dataclass
class Box:
    parts: list[Part] = dataclass_field(default_factory=list)
    lid: Part | None = None


@dataclass
class Crate(Box):
    """Not named by the schema, but a kind of what is."""

    weight: Decimal = Decimal(1)


class Order(BaseModel):
    number: int
    places: dict[str, Point] = {}


class Shop(TypedDict, total=False):
    box: Box
    orders: Annotated[list[Order], operator.add]
    seen: set[UUID]
    when: datetime
    anything: Any


class Stranger:
    """A class that no schema names."""


@dataclass
class Unnamed:
    value: int


VALUES: dict[str, Any] = {
    "box": Crate([Part("a"), Part("b", Mood.BAD)], Part("lid"), Decimal("1.50")),
    "orders": [Order(number=1, places={"home": Point(1, 2)})],
    "seen": {UUID(int=7)},
    "when": datetime(2024, 5, 1, tzinfo=UTC),
    "anything": (1, [2.5, None], b"bytes", {"nested": {"deep"}}),
}


def shop(checkpointer: Any, result: Any = None) -> CompiledGraph:
    graph = StateGraph(Shop)
    graph.add_node("look", lambda state: result)
    graph.add_edge(START, "look")
    return graph.compile(checkpointer)


def test_types_of_the_schema_come_back_as_they_were(tmp_path: Path) -> None:
    for given in (VALUES, None):
        with SqliteSaver(tmp_path / "shop.db") as saver:  # a fresh codec each time
            app = shop(saver)
            result = app.invoke(given, on("t"))
            assert result == VALUES
            assert type(result["box"]) is Crate and type(result["orders"][0]) is Order
            assert app.get_state(on("t")).values == VALUES


def test_types_that_the_application_registered_itself(store: EventStore) -> None:
    store.codec.register(Part, name="part", version=3, upcasters={})
    app = shop(store)
    app.invoke({"box": Box([Part("a")])}, on("t"))
    assert app.get_state(on("t")).values["box"] == Box([Part("a")])


@pytest.mark.parametrize("stranger", [Stranger(), Unnamed(1)])
def test_an_input_that_cannot_be_stored(store: EventStore, stranger: Any) -> None:
    app = shop(store)
    with pytest.raises(SerializationError) as caught:
        app.invoke({"anything": [1, {"a": stranger}]}, on("t"))
    assert caught.value.path.endswith("anything[1].a")
    assert caught.value.type_name.endswith(type(stranger).__name__)
    assert store.threads() == []
    assert app.invoke({"anything": 1}, on("t"))["anything"] == 1


def test_an_output_that_cannot_be_stored(store: EventStore) -> None:
    result: dict[str, Any] = {"anything": {"deep": [Stranger()]}}
    app = shop(store, result)
    with pytest.raises(SerializationError, match=r"anything\.deep\[0\]"):
        app.invoke({"when": VALUES["when"]}, on("t"))
    state = app.get_state(on("t"))
    assert state.next == ("look",) and "anything" not in state.values
    result["anything"] = "plain"
    assert app.invoke(None, on("t"))["anything"] == "plain"
    assert app.verify(on("t")).ok


def test_a_send_that_cannot_be_stored(store: EventStore) -> None:
    graph = StateGraph(Trail)
    graph.add_node("work", lambda arg: {"total": 1})
    graph.add_conditional_edges(START, lambda state: [Send("work", {"it": Stranger()})])
    with pytest.raises(SerializationError, match="Stranger"):
        graph.compile(store).invoke({}, on("t"))
    assert store.threads() == []


def test_siblings_of_one_that_cannot_be_stored_are_kept(store: EventStore) -> None:
    graph = StateGraph(Trail)
    for name, value in (("a", 1), ("b", Stranger()), ("c", 3)):
        graph.add_node(name, lambda state, value=value: {"log": [value]})
        graph.add_edge(START, name)
    app = graph.compile(store)
    with pytest.raises(SerializationError, match=r"log\[0\]"):
        app.invoke({}, on("t"))
    state = app.get_state(on("t"))
    assert "b" in state.next, "it can be run again"
    assert app.verify(on("t")).ok
    app.update_state(on("t"), {"log": [2]}, as_node="b")
    assert 2 in app.get_state(on("t")).values["log"]


def test_without_a_checkpointer_anything_goes() -> None:
    stranger = Stranger()
    assert shop(None, {"anything": stranger}).invoke({})["anything"] is stranger


def test_one_codec_for_several_graphs() -> None:
    codec = Codec()
    with EventStore(codec=codec) as store:
        shop(store)
        app = shop(store)
        assert app.invoke(VALUES, on("t")) == VALUES
