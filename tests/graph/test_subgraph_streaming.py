"""Streams with ``subgraphs=True``."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import EventStore
from graph import (
    CompiledGraph,
    get_stream_writer,
)
from tests.graph.nesting import Path, Walk, calling
from tests.graph.subgraph_support import C, asking


def streaming(store: Any, called: bool = False) -> CompiledGraph:
    walk = Walk()

    def tells(state: Path) -> Path:
        get_stream_writer()({"telling": len(state["path"])})
        return {"path": [*state["path"], "tells"]}

    inner = walk.line("one", ("tells", tells), name="inner")
    part = calling(inner) if called else inner
    return walk.line("pre", ("sub", part), checkpointer=store)


@pytest.mark.parametrize("called", [False, True])
def test_updates_of_subgraphs(store: EventStore, called: bool) -> None:
    app = streaming(store, called)
    way = ("sub:2.0",)
    assert list(app.stream({}, C, subgraphs=True)) == [
        ((), {"pre": {"path": ["pre"]}}),
        (way, {"one": {"path": ["pre", "one"]}}),
        (way, {"tells": {"path": ["pre", "one", "tells"]}}),
        ((), {"sub": {"path": ["pre", "one", "tells"]}}),
    ]


def test_values_of_subgraphs(store: EventStore) -> None:
    chunks = list(streaming(store).stream({}, C, stream_mode="values", subgraphs=True))
    assert chunks == [
        ((), {"path": ["pre"]}),  # the input writes nothing, so there is no chunk before it
        (("sub:2.0",), {"path": ["pre"]}),
        (("sub:2.0",), {"path": ["pre", "one"]}),
        (("sub:2.0",), {"path": ["pre", "one", "tells"]}),
        ((), {"path": ["pre", "one", "tells"]}),
    ]


def test_several_modes_of_subgraphs(store: EventStore) -> None:
    app = streaming(store)
    chunks = list(app.stream({}, C, stream_mode=["updates", "custom"], subgraphs=True))
    assert [(way, mode) for way, mode, _ in chunks] == [
        ((), "updates"),
        (("sub:2.0",), "updates"),
        (("sub:2.0",), "custom"),
        (("sub:2.0",), "updates"),
        ((), "updates"),
    ]


def test_tasks_of_subgraphs(store: EventStore) -> None:
    chunks = list(streaming(store).stream({}, C, stream_mode="tasks", subgraphs=True))
    names = [(way, chunk["name"], "result" in chunk) for way, chunk in chunks]
    sub = ("sub:2.0",)
    assert names == [
        ((), "pre", False),
        ((), "pre", True),
        ((), "sub", False),
        (sub, "one", False),
        (sub, "one", True),
        (sub, "tells", False),
        (sub, "tells", True),
        ((), "sub", True),
    ]


@pytest.mark.parametrize("called", [False, True])
def test_without_subgraphs_only_what_nodes_tell_comes_up(store: EventStore, called: bool) -> None:
    app = streaming(store, called)
    chunks = list(app.stream({}, C, stream_mode=["updates", "custom"]))
    assert [(mode, list(chunk)) for mode, chunk in chunks] == [
        ("updates", ["pre"]),
        ("custom", ["telling"]),
        ("updates", ["sub"]),
    ]


def test_three_levels_of_a_stream(store: EventStore) -> None:
    walk = Walk()
    middle = walk.line("b1", ("b2", walk.line("c1")))
    app = walk.line(("sub", middle), checkpointer=store)
    ways = [(way, *chunk) for way, chunk in app.stream({}, C, subgraphs=True)]
    assert ways == [
        (("sub:1.0",), "b1"),
        (("sub:1.0", "b2:2.0"), "c1"),
        (("sub:1.0",), "b2"),
        ((), "sub"),
    ]


def test_a_stream_of_questions_inside(store: EventStore) -> None:
    app = asking(Walk(), store)
    chunks = list(app.stream({}, C, subgraphs=True))
    ways = [way for way, chunk in chunks if "__interrupt__" in chunk]
    assert ways == [("sub:2.0",), ()]
