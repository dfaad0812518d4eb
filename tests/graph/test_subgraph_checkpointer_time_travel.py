"""Time travel with subgraphs that have ``checkpointer=True``: what they remember goes back too."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest

from eventstore import EventStore
from graph import (
    START,
    Command,
    CompiledGraph,
    RunnableConfig,
    StateGraph,
)
from tests.graph.kit import id_of, on
from tests.graph.nesting import Path, Walk, below, check_whole, inside
from tests.graph.subgraph_support import C, history


class Memory(TypedDict, total=False):
    seen: Annotated[list[str], operator.add]


def remembering(walk: Walk, store: Any, *names: str) -> CompiledGraph:
    """``sub`` tells its memory the path, and gets all that it remembers."""

    def node(name: str) -> Any:
        def run(_state: Memory) -> Memory:
            return {"seen": walk.node(name)({})["path"]}

        return run

    graph = StateGraph(Memory)
    graph.add_sequence([(name, node(name)) for name in names])
    graph.add_edge(START, names[0])
    memory = graph.compile(checkpointer=True, name="memory")

    def sub(state: Path) -> Path:
        return {"path": memory.invoke({"seen": state["path"]})["seen"]}

    return walk.line("pre", ("sub", sub), "post", checkpointer=store)


def tell(app: CompiledGraph, config: RunnableConfig, word: str) -> list[str]:
    """What is remembered, but for what each run adds."""
    found = app.invoke({"path": [word]}, config)["path"]
    return [each for each in found if each not in ("pre", "m", "post")]


def test_going_back_takes_the_memory_back(store: EventStore) -> None:
    app = remembering(Walk(), store, "m")
    assert tell(app, C, "a") == ["a"]
    after_a = app.get_state(C).config
    assert tell(app, C, "b") == ["a", "b"]
    assert tell(app, C, "c") == ["a", "b", "c"]
    assert tell(app, after_a, "x") == ["a", "x"]
    assert tell(app, C, "y") == ["a", "x", "y"]
    old, _ = below(app, C)
    assert old == "sub/memory"
    left = app.get_state(inside(C, old)).values["seen"]
    assert [each for each in left if each in "abcxy"] == ["a", "b", "c"]
    check_whole(store, app, "t")


def test_a_checkpoint_before_the_memory_knows_nothing(store: EventStore) -> None:
    app = remembering(Walk(), store, "m")
    tell(app, C, "a")
    first = history(app, C)[-1]
    assert app.invoke(None, first.config)["path"] == ["a", "pre", "m", "post"]
    assert tell(app, C, "b") == ["a", "b"]


def test_a_memory_goes_along_into_another_thread(store: EventStore) -> None:
    app = remembering(Walk(), store, "m")
    tell(app, C, "a")
    fork = on("u", id_of(app.get_state(C)))
    assert tell(app, fork, "u1") == ["a", "u1"]
    assert tell(app, C, "t1") == ["a", "t1"]
    assert tell(app, on("u"), "u2") == ["a", "u1", "u2"]
    store.delete_thread("t")
    assert tell(app, on("u"), "u3") == ["a", "u1", "u2", "u3"]
    check_whole(store, app, "u")


def test_branches_of_branches_of_a_memory(store: EventStore) -> None:
    app = remembering(Walk(), store, "m")
    places: dict[tuple[str, ...], RunnableConfig] = {(): C}
    for told in [("a",), ("a", "b"), ("a", "c"), ("a", "b", "d"), ("a", "c", "e"), ("a", "f")]:
        assert tell(app, places[told[:-1]], told[-1]) == list(told)
        places[told] = app.get_state(C).config
    assert len(below(app, C)) == 5
    check_whole(store, app, "t")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_going_back_inside_a_memory_of_another_branch(store: EventStore, elsewhere: bool) -> None:
    """The root kept it under one name before its superstep, and the task used it under another."""
    app = remembering(Walk(), store, "m")
    for word in "abc":
        tell(app, C, word)
    before_c = next(past for past in history(app, C) if past.next == ("sub",))
    app.invoke(None, before_c.config)
    tell(app, C, "d")
    (ns,) = (each for each in below(app, C) if each != "sub/memory")
    own = app.get_state(inside(C, ns)).config["configurable"]["checkpoint_id"][:16]
    pasts = [
        past
        for past in history(app, inside(C, ns))
        if past.config["configurable"]["checkpoint_ns"] == ns
        and id_of(past)[:16] == own
        and "c" in past.values["seen"]
    ]
    assert len(pasts) == 4
    for n, past in enumerate(pasts):
        place: RunnableConfig = {"configurable": {**past.config["configurable"]}}
        if elsewhere:
            place["configurable"]["thread_id"] = f"u{n}"
        remembered = [word for word in past.values["seen"] if word in "abcd"]
        found = app.invoke(None, place)["path"]
        assert [word for word in found if word in "abcd"] == remembered
        check_whole(store, app, place["configurable"]["thread_id"])


def test_a_memory_that_asks_goes_back_to_the_question(store: EventStore) -> None:
    walk = Walk()
    app = remembering(walk, store, "m?", "n")
    app.invoke({"path": ["x"]}, C)
    stop = app.get_state(C)
    assert app.invoke(Command(resume="1"), C)["path"] == ["x", "pre", "m?1", "n", "post"]
    walk.taken()
    for place in (stop.config, on("u", id_of(stop))):
        assert app.invoke(Command(resume="2"), place)["path"] == ["x", "pre", "m?2", "n", "post"]
        assert walk.taken() == {"m?": 1, "n": 1, "post": 1}
    app.invoke({"path": ["y"]}, C)
    again = app.invoke(Command(resume="3"), C)["path"]
    assert again == ["x", "pre", "m?2", "n", "y", "pre", "m?3", "n", "post"]
    check_whole(store, app, "t")
    check_whole(store, app, "u")


def test_every_checkpoint_of_a_memory(store: EventStore) -> None:
    app = remembering(Walk(), store, "m", "n")
    whole = [app.invoke({"path": [word]}, C)["path"] for word in "ab"]
    for past in history(app, inside(C, "sub/memory")):
        run = whole["b" in past.values["seen"]]
        assert app.invoke(None, past.config)["path"] == run
    check_whole(store, app, "t")
