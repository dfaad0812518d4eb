"""What the tests of subgraphs share."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Final, TypedDict

from graph import (
    START,
    CompiledGraph,
    RunnableConfig,
    Send,
    StateGraph,
    StateSnapshot,
    interrupt,
)
from tests.graph.kit import Boom, on
from tests.graph.nesting import Walk, calling

C: Final = on("t")


def source_of(snapshot: StateSnapshot) -> Any:
    """What made a checkpoint."""
    return (snapshot.metadata or {})["source"]


def history(app: CompiledGraph, config: RunnableConfig) -> list[StateSnapshot]:
    return list(app.get_state_history(config, every=True))


def asking(walk: Walk, store: Any, called: bool = False, **options: Any) -> CompiledGraph:
    """``pre``, a graph of three nodes whose second one asks, ``post``."""
    inner = walk.line("one", "two?", "three", name="inner", **options)
    part = calling(inner) if called else inner
    return walk.line("pre", ("sub", part), "post", checkpointer=store)


def path(answer: str) -> list[str]:
    return ["pre", "one", f"two?{answer}", "three", "post"]


class Gathered(TypedDict, total=False):
    found: Annotated[list[Any], operator.add]


class One(TypedDict, total=False):
    item: int
    found: list[Any]


def fan_out(store: Any, child: CompiledGraph | None, count: int, **options: Any) -> CompiledGraph:
    """A graph that sends one task to ``child`` for each item."""
    graph = StateGraph(Gathered)
    graph.add_node("sub", child if child is not None else lambda s: {})
    graph.add_conditional_edges(
        START, lambda _: [Send("sub", {"item": i}) for i in range(count)], ["sub"]
    )
    return graph.compile(store, **options)


def per_item(walk: Walk, asks: bool = False) -> CompiledGraph:
    """Prepares an item, and finds something in it, perhaps after asking."""

    def prepare(state: One) -> One:
        walk.calls.add(f"prepare{state['item']}")
        return {}

    def find(state: One) -> One:
        item = state["item"]
        walk.calls.add(f"find{item}")
        if f"find{item}" in walk.failing:
            raise Boom(f"find{item}")
        return {"found": [f"{item}{interrupt(f'{item}?')}" if asks else item]}

    graph = StateGraph(One)
    graph.add_sequence([prepare, find])
    graph.add_edge(START, "prepare")
    return graph.compile()
