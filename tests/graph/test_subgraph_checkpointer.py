"""Subgraphs with ``checkpointer=True``: what one remembers is there at its next call."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Final, TypedDict

import pytest

from eventstore import EventStore
from graph import (
    END,
    START,
    Command,
    CompiledGraph,
    InvalidConfigError,
    InvalidGraphError,
    Send,
    StateGraph,
)
from tests.graph.kit import Boom, on
from tests.graph.nesting import Path, Walk, below, check_whole
from tests.graph.subgraph_support import Gathered

C: Final = on("t")


class Memory(TypedDict, total=False):
    seen: Annotated[list[str], operator.add]


def memory(walk: Walk, *names: str) -> CompiledGraph:
    """A graph that remembers all that it was ever given."""

    def node(name: str) -> Any:
        return lambda state: {"seen": [name]} if walk.node(name)({"path": []}) else {}

    graph = StateGraph(Memory)
    graph.add_sequence([(name, node(name)) for name in names])
    graph.add_edge(START, names[0])
    return graph.compile(checkpointer=True, name="memory")


def remembering(walk: Walk, store: Any, *names: str, after: str = "post") -> CompiledGraph:
    """``sub`` tells its memory the path and gets all that it remembers; then ``after``."""
    inner = memory(walk, *names)

    def sub(state: Path) -> Path:
        return {"path": inner.invoke({"seen": state["path"]})["seen"]}

    return walk.line(("sub", sub), after, checkpointer=store)


def test_a_memory_lasts_from_run_to_run(store: EventStore) -> None:
    app = remembering(Walk(), store, "m")
    assert app.invoke({"path": ["x"]}, C)["path"] == ["x", "m", "post"]
    assert app.invoke({"path": ["y"]}, C)["path"] == ["x", "m", "y", "m", "post"]
    assert app.invoke({"path": ["z"]}, on("other"))["path"] == ["z", "m", "post"]
    assert below(app, C) == ["sub/memory"]
    check_whole(store, app, "t")


def test_a_memory_as_a_node(store: EventStore) -> None:
    graph = StateGraph(Memory)
    inner = memory(Walk(), "m")
    graph.add_node("sub", inner)
    graph.add_edge(START, "sub")
    app = graph.compile(store)
    assert app.invoke({"seen": ["x"]}, C)["seen"] == ["x", "x", "m"]
    assert below(app, C) == ["sub"]
    assert app.invoke({"seen": ["y"]}, C)["seen"][3:] == ["y", "x", "m", "x", "x", "m", "y", "m"]


def test_a_memory_lasts_from_call_to_call(store: EventStore) -> None:
    inner = memory(Walk(), "m")

    def sub(state: Path) -> Path:
        inner.invoke({"seen": ["a"]})
        return {"path": inner.invoke({"seen": ["b"]})["seen"]}

    app = Walk().line(("sub", sub), checkpointer=store)
    assert app.invoke({}, C)["path"] == ["a", "m", "b", "m"]


def test_a_memory_lasts_from_superstep_to_superstep(store: EventStore) -> None:
    inner = memory(Walk(), "m")

    def sub(state: Path) -> Path:
        return {"path": inner.invoke({"seen": [str(len(state["path"]))]})["seen"]}

    graph = StateGraph(Path)
    graph.add_node("sub", sub)
    graph.add_edge(START, "sub")
    graph.add_conditional_edges("sub", lambda s: "sub" if len(s["path"]) < 6 else END)
    app = graph.compile(store)
    assert app.invoke({"path": []}, C)["path"] == ["0", "m", "2", "m", "4", "m"]
    assert below(app, C) == ["sub/memory"]


def test_a_memory_that_asks(store: EventStore) -> None:
    app = remembering(Walk(), store, "m?", "n")
    for turn in range(1, 3):
        assert app.invoke({"path": ["x"]}, C)["__interrupt__"][0].value == "m?"
        found = app.invoke(Command(resume="!"), C)["path"]
        assert found == [*["x", "m?", "n"] * turn, "post"]


@pytest.mark.parametrize("failing", ["m", "n", "post"])
def test_a_failure_does_not_tell_a_memory_twice(store: EventStore, failing: str) -> None:
    walk = Walk(failing)
    app = remembering(walk, store, "m", "n")
    with pytest.raises(Boom):
        app.invoke({"path": ["x"]}, C)
    walk.failing.clear()
    assert app.invoke(None, C)["path"] == ["x", "m", "n", "post"]
    assert app.invoke({"path": ["y"]}, C)["path"] == ["x", "m", "n", "y", "m", "n", "post"]


def test_a_new_input_after_a_failure_goes_on_with_the_memory(store: EventStore) -> None:
    walk = Walk("n")
    app = remembering(walk, store, "m", "n")
    with pytest.raises(Boom):
        app.invoke({"path": ["x"]}, C)
    walk.failing.clear()
    assert app.invoke({"path": ["y"]}, C)["path"] == ["x", "m", "y", "m", "n", "post"]


def test_two_tasks_at_once_may_not_share_a_memory(store: EventStore) -> None:
    graph = StateGraph(Gathered)
    graph.add_node("sub", lambda s: memory_of_two.invoke({"seen": ["x"]}) and {})
    memory_of_two = memory(Walk(), "m")
    graph.add_conditional_edges(START, lambda _: [Send("sub", {})] * 2, ["sub"])
    app = graph.compile(store)
    with pytest.raises(InvalidGraphError, match=r"sub/memory.*one task of a superstep"):
        app.invoke({}, C)


def test_two_nodes_have_a_memory_each(store: EventStore) -> None:
    inner = memory(Walk(), "m")

    def node(state: Path) -> Path:
        return {"path": [*state["path"], str(len(inner.invoke({"seen": ["x"]})["seen"]))]}

    app = Walk().line(("a", node), ("b", node), checkpointer=store)
    assert app.invoke({"path": []}, C)["path"] == ["2", "2"]
    assert below(app, C) == ["a/memory", "b/memory"]


def test_two_memories_of_one_name_are_told_apart_or_refused(store: EventStore) -> None:
    first, second = memory(Walk(), "m"), memory(Walk(), "other")

    def node(_state: Path) -> Path:
        first.invoke({"seen": ["x"]})
        return {"path": second.invoke({"seen": ["y"]})["seen"]}

    app = Walk().line(("sub", node), checkpointer=store)
    with pytest.raises(InvalidGraphError, match="two graphs of the same name"):
        app.invoke({}, C)


def test_a_memory_is_no_root() -> None:
    with pytest.raises(InvalidConfigError, match="checkpointer=True is for a subgraph"):
        memory(Walk(), "m").invoke({"seen": []}, C)
