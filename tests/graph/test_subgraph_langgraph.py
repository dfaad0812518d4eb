"""The same graphs inside graphs, run with LangGraph and with this library.

What is different, and so is not compared, besides ids, names of namespaces and how often nodes
ran:

- Going back to a stop and giving another answer: here the subgraph goes on from where it stood
  then; in LangGraph what came of the first answer is found again, and the second one is not heard.
- A graph that remembers (``checkpointer=True``) inside one that does not: here it begins afresh
  with the graph around it; in LangGraph it remembers all the same.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, TypedDict

import pytest

from tests.graph.differential import OURS, THEIRS
from tests.graph.kit import on

LIBRARIES: Final = {library.name: library for library in (OURS, THEIRS)}

C: Final[Any] = on("t")


class Path(TypedDict, total=False):
    path: list[str]


class Grown(TypedDict, total=False):
    path: Annotated[list[str], operator.add]


@pytest.fixture(params=list(LIBRARIES))
def lib(request: pytest.FixtureRequest) -> Any:
    """Both have to pass each test: so what it expects is what LangGraph does."""
    return LIBRARIES[request.param]


@contextmanager
def saver_of(lib: Any) -> Iterator[Any]:
    saver = lib.saver()
    try:
        yield saver
    finally:
        if lib.name == "ours":
            saver.close()


@pytest.fixture
def saver(lib: Any) -> Iterator[Any]:
    with saver_of(lib) as made:
        yield made


def node(lib: Any, name: str) -> Any:
    def run(state: Any) -> Any:
        said = f"{name}{lib.interrupt(name)}" if name.endswith("?") else name
        return {"path": [*state.get("path", []), said]}

    return run


def line(lib: Any, *parts: Any, **options: Any) -> Any:
    graph = lib.StateGraph(Path)
    pairs = [(part, node(lib, part)) if isinstance(part, str) else part for part in parts]
    graph.add_sequence(pairs)
    graph.add_edge(lib.START, pairs[0][0])
    return graph.compile(**options)


def calling(inner: Any) -> Any:
    def run(state: Any) -> Any:
        return {"path": inner.invoke({"path": state["path"]})["path"]}

    return run


def asked(app: Any) -> list[Any]:
    return [each.value for each in app.get_state(C).interrupts]


@pytest.mark.parametrize("called", [False, True])
def test_values_of_three_levels(lib: Any, saver: Any, called: bool) -> None:
    inner = line(lib, "c1", "c2")
    for name in "ba":
        inner = line(lib, f"{name}1", (f"{name}2", calling(inner) if called else inner))
    app = line(lib, "pre", ("sub", inner), "post", checkpointer=saver)
    assert app.invoke({"path": []}, C)["path"] == ["pre", "a1", "b1", "c1", "c2", "post"]


@pytest.mark.parametrize("called", [False, True])
def test_questions(lib: Any, saver: Any, called: bool) -> None:
    inner = line(lib, "one", "two?", "three?")
    part = calling(inner) if called else inner
    app = line(lib, "pre", ("sub", part), "post", checkpointer=saver)
    app.invoke({"path": []}, C)
    assert asked(app) == ["two?"]
    assert app.get_state(C).next == ("sub",)
    app.invoke(lib.Command(resume="A"), C)
    assert asked(app) == ["three?"]
    result = app.invoke(lib.Command(resume="B"), C)
    assert result["path"] == ["pre", "one", "two?A", "three?B", "post"]


def test_the_state_of_a_subgraph_that_waits(lib: Any, saver: Any) -> None:
    app = line(lib, "pre", ("sub", line(lib, "one", "two?")), checkpointer=saver)
    app.invoke({"path": []}, C)
    child = app.get_state(C, subgraphs=True).tasks[0].state
    assert (child.values, child.next) == ({"path": ["pre", "one"]}, ("two?",))
    assert [each.value for each in child.interrupts] == ["two?"]


def test_editing_a_subgraph_that_waits(lib: Any, saver: Any) -> None:
    app = line(lib, ("sub", line(lib, "one", "two?", "three")), "post", checkpointer=saver)
    app.invoke({"path": []}, C)
    child = app.get_state(C, subgraphs=True).tasks[0].state
    app.update_state(child.config, {"path": ["by hand"]}, as_node="two?")
    assert app.invoke(None, C)["path"] == ["by hand", "three", "post"]


@pytest.mark.parametrize("option", ["interrupt_before", "interrupt_after"])
def test_stops_inside(lib: Any, saver: Any, option: str) -> None:
    inner = line(lib, "one", "two", "three", **{option: ["two"]})
    app = line(lib, ("sub", inner), "post", checkpointer=saver)
    app.invoke({"path": []}, C)
    assert (app.get_state(C).next, asked(app)) == (("sub",), [])
    assert app.invoke(None, C)["path"] == ["one", "two", "three", "post"]


def test_questions_of_children_side_by_side(lib: Any, saver: Any) -> None:
    graph = lib.StateGraph(Grown)

    def asks(name: str) -> Any:
        inner = line(lib, f"{name}1", f"{name}?")
        return lambda _state: {"path": inner.invoke({"path": []})["path"]}

    for name in "ab":
        graph.add_node(name, asks(name))
        graph.add_edge(lib.START, name)
    app = graph.compile(checkpointer=saver)
    app.invoke({"path": []}, C)
    ids = {each.value: each.id for each in app.get_state(C).interrupts}
    assert set(ids) == {"a?", "b?"}
    result = app.invoke(lib.Command(resume={ids["a?"]: "A", ids["b?"]: "B"}), C)
    assert result["path"] == ["a1", "a?A", "b1", "b?B"]


@pytest.mark.parametrize("goto", ["left", ["left", "right"]])
@pytest.mark.parametrize("update", [None, {"path": ["up"]}])
def test_commands_for_the_graph_above(lib: Any, saver: Any, goto: Any, update: Any) -> None:
    def ends(_state: Any) -> Any:
        return lib.Command(graph=lib.Command.PARENT, goto=goto, update=update)

    child = lib.StateGraph(Grown)
    child.add_node("ends", ends)
    child.add_edge(lib.START, "ends")
    graph = lib.StateGraph(Grown)
    graph.add_node("sub", child.compile())
    for name in ("left", "right"):
        graph.add_node(name, lambda _state, name=name: {"path": [name]})
    graph.add_edge(lib.START, "sub")
    graph.add_conditional_edges("sub", lambda _: lib.END, ["left", "right", lib.END])
    app = graph.compile(checkpointer=saver)
    expected = ["x", *(["up"] if update else []), *([goto] if isinstance(goto, str) else goto)]
    assert app.invoke({"path": ["x"]}, C)["path"] == expected


def remembering(lib: Any, saver: Any, *names: str) -> Any:
    graph = lib.StateGraph(Grown)
    before = lib.START
    for name in names:

        def said(state: Any, name: str = name) -> Any:
            return {"path": node(lib, name)({"path": []})["path"]}

        graph.add_node(name, said)
        graph.add_edge(before, name)
        before = name
    memory = graph.compile(checkpointer=True)

    def sub(state: Any) -> Any:
        return {"path": memory.invoke({"path": state["path"]})["path"]}

    return line(lib, ("sub", sub), "post", checkpointer=saver)


def test_memories(lib: Any, saver: Any) -> None:
    app = remembering(lib, saver, "m")
    assert app.invoke({"path": ["x"]}, C)["path"] == ["x", "m", "post"]
    assert app.invoke({"path": ["y"]}, C)["path"] == ["x", "m", "y", "m", "post"]
    assert app.invoke({"path": ["z"]}, on("u"))["path"] == ["z", "m", "post"]


def test_memories_that_ask(lib: Any, saver: Any) -> None:
    app = remembering(lib, saver, "m?", "n")
    for turn in range(1, 3):
        app.invoke({"path": ["x"]}, C)
        assert asked(app) == ["m?"]
        result = app.invoke(lib.Command(resume="!"), C)
        assert result["path"] == [*["x", "m?!", "n"] * turn, "post"]


@pytest.mark.parametrize("subgraphs", [False, True])
def test_updates_as_they_happen(lib: Any, saver: Any, subgraphs: bool) -> None:
    app = line(lib, "pre", ("sub", line(lib, "one", "two")), checkpointer=saver)
    chunks = list(app.stream({"path": []}, C, stream_mode="updates", subgraphs=subgraphs))
    if not subgraphs:
        assert [list(chunk) for chunk in chunks] == [["pre"], ["sub"]]
        return
    ways = [([each.partition(":")[0] for each in way], *chunk) for way, chunk in chunks]
    assert ways == [([], "pre"), (["sub"], "one"), (["sub"], "two"), ([], "sub")]
