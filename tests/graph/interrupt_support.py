"""What the tests of interrupts share: asking nodes, and short ways to read what waits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from graph import (
    END,
    START,
    CompiledGraph,
    RunnableConfig,
    StateGraph,
    StateSnapshot,
)
from tests.graph.kit import (
    Node,
    Trail,
    on,
)


def in_line(nodes: Mapping[str, Node], checkpointer: Any, **options: Any) -> CompiledGraph:
    """Nodes one after another."""
    declared = StateGraph(Trail)
    for name, node in nodes.items():
        declared.add_node(name, node)
    for before, name in itertools.pairwise([START, *nodes, END]):
        declared.add_edge(before, name)
    return declared.compile(checkpointer, **options)


def only(node: Node, checkpointer: Any, **options: Any) -> CompiledGraph:
    return in_line({"ask": node}, checkpointer, **options)


def waiting(app: CompiledGraph, config: RunnableConfig) -> dict[Any, str]:
    """What is asked at a checkpoint: what is shown → the id to answer by."""
    return {each.value: each.id for each in app.get_state(config).interrupts}


def shown(result: Mapping[str, Any]) -> list[Any]:
    """What a result says is asked."""
    return [each.value for each in result.get("__interrupt__", ())]


def kinds(app: CompiledGraph, thread_id: str = "t") -> list[str]:
    return [entry.kind for entry in app.events(on(thread_id))]


def stops(app: CompiledGraph, thread_id: str = "t") -> list[StateSnapshot]:
    """The stops of a thread at which something was asked, oldest first."""
    history = list(app.get_state_history(on(thread_id), every=True))
    return [each for each in reversed(history) if each.interrupts]


@contextmanager
def nothing_recorded(app: CompiledGraph, thread_id: str = "t") -> Iterator[None]:
    before = list(app.events(on(thread_id)))
    yield
    assert list(app.events(on(thread_id))) == before
