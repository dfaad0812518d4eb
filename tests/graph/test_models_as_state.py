"""Pydantic models as a state: aliases of every kind, and an instance given as the input."""

from __future__ import annotations

import operator
from typing import Annotated, Any

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field

from eventstore import EventStore
from graph import START, StateGraph


class Choices(BaseModel):
    city: str = Field("nowhere", validation_alias=AliasChoices("city_name", "town"))
    out: str = ""


class Path(BaseModel):
    city: str = Field("nowhere", validation_alias=AliasPath("place", "names", 0))
    out: str = ""


class PathFirst(BaseModel):
    city: str = Field("nowhere", validation_alias=AliasChoices(AliasPath("cities", 1), "town"))
    out: str = ""


class Plain(BaseModel):
    city: str = Field("nowhere", alias="cityName")
    out: str = ""


class Generated(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper)
    city: str = "nowhere"
    out: str = ""


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    city: str = Field("nowhere", alias="cityName")
    out: str = ""


class NotByName(BaseModel):
    model_config = ConfigDict(populate_by_name=False)
    city: str = Field("nowhere", alias="cityName")
    out: str = ""


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    city: str = Field("nowhere", alias="cityName")
    out: str = ""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    city: str = Field("nowhere", alias="cityName")
    out: str = ""


@pytest.mark.parametrize(
    "schema",
    [Choices, Path, PathFirst, Plain, Generated, ByName, NotByName, Extra, Strict],
    ids=lambda schema: schema.__name__,
)
def test_nodes_are_given_what_the_state_holds(
    blocking_store: EventStore, schema: type[Any]
) -> None:
    graph = StateGraph(schema)
    graph.add_node("n", lambda state: {"out": f"weather in {state.city}"}, input_schema=schema)
    graph.add_edge(START, "n")
    app = graph.compile(blocking_store)
    config: Any = {"configurable": {"thread_id": "t"}}
    assert app.invoke({"city": "Paris"}, config)["out"] == "weather in Paris"
    assert app.get_state(config).values["city"] == "Paris"


class Budget(BaseModel):
    budget: Annotated[int, operator.add] = 10
    mode: str = "fast"


def test_an_instance_as_input_writes_its_defaults_and_a_dict_what_it_has(
    blocking_store: EventStore,
) -> None:
    seen: list[Budget] = []

    def node(state: Budget) -> dict[str, int]:
        seen.append(state)
        return {"budget": -1}

    graph = StateGraph(Budget)
    graph.add_node(node)
    graph.add_edge(START, "node")
    app = graph.compile(blocking_store)
    config: Any = {"configurable": {"thread_id": "instance"}}
    assert app.invoke(Budget(), config) == {"budget": 9, "mode": "fast"}
    assert seen[-1] == Budget(budget=10, mode="fast")
    config = {"configurable": {"thread_id": "dict"}}
    assert app.invoke({"budget": 3}, config) == {"budget": 2}
