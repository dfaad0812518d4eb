"""Several interrupts in one superstep, of siblings and of coroutines inside one node."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from eventstore import EventStore
from graph import (
    END,
    START,
    Command,
    MemorySaver,
    StateGraph,
    interrupt,
)
from tests.awaited import run
from tests.graph.interrupt_support import kinds, only, shown, waiting
from tests.graph.kit import (
    Boom,
    Calls,
    Trail,
    asks,
    logs,
    on,
    side_by_side,
)

# --- several questions of one superstep -------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
def test_answered_one_by_one_in_any_order(
    blocking_store: EventStore, order: tuple[str, ...]
) -> None:
    calls = Calls()
    nodes = {name: asks(name, calls) for name in "abc"} | {"done": logs("done", calls)}
    app = side_by_side(nodes, blocking_store)
    app.invoke({}, on("t"))
    left = ["a0", "b0", "c0"]
    result: Mapping[str, Any] = {}
    for name in order:
        assert list(waiting(app, on("t"))) == left
        assert blocking_store.thread("t").status == "waiting"
        question = waiting(app, on("t"))[f"{name}0"]
        result = app.invoke(Command(resume={question: name.upper()}), on("t"))
        left.remove(f"{name}0")
        assert shown(result) == left
    assert result == {"log": [["a", "A"], ["b", "B"], ["c", "C"], "done"], "total": 1}
    assert calls.counts == {"a": 2, "b": 2, "c": 2, "done": 1}


def test_answered_together(store: EventStore) -> None:
    calls = Calls()
    app = side_by_side({"a": asks("a", calls), "b": asks("b", calls), "c": logs("c", calls)}, store)
    app.invoke({}, on("t"))
    answers = {name: value for value, name in waiting(app, on("t")).items()}
    assert app.invoke(Command(resume=answers), on("t"))["log"] == [["a", "a0"], ["b", "b0"], "c"]
    assert calls.counts == {"a": 2, "b": 2, "c": 1}
    assert kinds(app) == ["input", "output", "interrupt", "resume", "output", "output"]


def test_what_was_not_answered_waits_on(store: EventStore) -> None:
    """Neither it nor what has finished runs again; the values show what is done by now."""
    calls = Calls()
    app = side_by_side({"a": asks("a", calls), "b": asks("b", calls), "c": logs("c", calls)}, store)
    app.invoke({}, on("t"))
    result = app.invoke(Command(resume={waiting(app, on("t"))["b0"]: "B"}), on("t"))
    assert shown(result) == ["a0"]
    assert result["log"] == [["b", "B"], "c"]
    assert calls.counts == {"a": 1, "b": 2, "c": 1}
    state = app.get_state(on("t"))
    assert state.next == ("a",)
    assert state.values["log"] == [["b", "B"], "c"]
    assert [task.result for task in state.tasks] == [
        None,
        {"log": [["b", "B"]]},
        {"log": ["c"], "total": 1},
    ]


def test_a_node_that_asks_on_while_another_waits(store: EventStore) -> None:
    app = side_by_side({"a": asks("a", questions=2), "b": asks("b")}, store)
    app.invoke({}, on("t"))
    first = waiting(app, on("t"))
    assert shown(app.invoke(Command(resume={first["a0"]: 1}), on("t"))) == ["a1", "b0"]
    second = waiting(app, on("t"))
    assert second["b0"] == first["b0"]
    assert second["a1"] != first["a0"]
    answers = {second["a1"]: 2, second["b0"]: 3}
    assert app.invoke(Command(resume=answers), on("t"))["log"] == [["a", 1, 2], ["b", 3]]


def test_a_failure_beside_a_question(store: EventStore) -> None:
    """The error is raised, the question kept: answered, it goes on with what failed."""
    calls, broken = Calls(), {"fails"}

    def fails(state: Trail) -> dict[str, Any]:
        calls.add("fails")
        if broken:
            raise Boom
        return {"log": ["mended"]}

    app = side_by_side(
        {"ask": asks("ask", calls), "done": logs("done", calls), "fails": fails}, store
    )
    with pytest.raises(Boom):
        app.invoke({}, on("t"))
    state = app.get_state(on("t"))
    assert [each.value for each in state.interrupts] == ["ask0"]
    assert state.next == ("ask", "fails")
    assert store.thread("t").status == "failed"
    with pytest.raises(Boom):
        app.invoke(Command(resume="yes"), on("t"))
    broken.clear()
    assert app.invoke(None, on("t"))["log"] == [["ask", "yes"], "done", "mended"]
    assert calls.counts == {"ask": 2, "done": 1, "fails": 3}


def test_a_failure_is_mended_before_the_answer(store: EventStore) -> None:
    broken = {"fails"}

    def fails(state: Trail) -> dict[str, Any]:
        if broken:
            raise Boom
        return {"log": ["mended"]}

    app = side_by_side({"ask": asks("ask"), "fails": fails}, store)
    with pytest.raises(Boom):
        app.invoke({}, on("t"))
    broken.clear()
    assert shown(app.invoke(None, on("t"))) == ["ask0"]
    assert store.thread("t").status == "waiting"
    assert app.invoke(Command(resume=1), on("t"))["log"] == [["ask", 1], "mended"]


def test_a_question_survives_a_failure_of_its_own_node(store: EventStore) -> None:
    """Asked, then run again for nothing and failed: the question can still be answered."""
    calls = Calls()

    def node(state: Trail) -> dict[str, Any]:
        if calls.add("ask") == 2:
            raise Boom
        return {"log": [interrupt("?")]}

    app = only(node, store)
    app.invoke({}, on("t"))
    with pytest.raises(Boom):
        app.invoke(None, on("t"))
    assert waiting(app, on("t")).keys() == {"?"}
    assert shown(app.invoke(None, on("t"))) == ["?"]
    assert store.thread("t").status == "waiting"
    assert app.get_state(on("t")).tasks[0].error is None
    assert app.invoke(Command(resume=1), on("t"))["log"] == [1]


# --- event loops ------------------------------------------------------------------------


def test_questions_of_coroutines_that_a_node_runs_side_by_side() -> None:
    async def one(what: str) -> Any:
        return interrupt(what)

    async def grouped(state: Trail) -> dict[str, Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(what)) for what in ("x?", "y?", "z?")]
        return {"log": [task.result() for task in tasks]}

    async def main() -> None:
        with MemorySaver() as saver:
            app = only(grouped, saver)
            assert shown(await app.ainvoke({}, on("t"))) == ["x?", "y?", "z?"]
            asked = {each.value: each.id for each in (await app.aget_state(on("t"))).interrupts}
            result = await app.ainvoke(Command(resume={asked["y?"]: "Y"}), on("t"))
            assert shown(result) == ["x?", "z?"]
            assert saver.store.thread("t").status == "waiting"
            rest = {asked["z?"]: "Z", asked["x?"]: "X"}
            assert (await app.ainvoke(Command(resume=rest), on("t")))["log"] == ["X", "Y", "Z"]

    run(main())


def test_questions_that_a_node_gathers_are_asked_one_after_the_other() -> None:
    async def one(what: str) -> Any:
        return interrupt(what)

    async def gathering(state: Trail) -> dict[str, Any]:
        return {"log": await asyncio.gather(one("x?"), one("y?"))}

    async def main() -> None:
        with MemorySaver() as saver:
            app = only(gathering, saver)
            assert shown(await app.ainvoke({}, on("t"))) == ["x?"]
            assert shown(await app.ainvoke(Command(resume="X"), on("t"))) == ["y?"]
            assert (await app.ainvoke(Command(resume="Y"), on("t")))["log"] == ["X", "Y"]

    run(main())


def test_a_failure_beside_a_question_inside_one_node() -> None:
    """The failure is what the node comes to; the question is asked when it runs again."""
    calls = Calls()

    async def asking() -> Any:
        return interrupt("?")

    async def failing() -> str:
        if calls.add("failing") == 1:
            raise Boom
        return "mended"

    async def grouped(state: Trail) -> dict[str, Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asking()), group.create_task(failing())]
        return {"log": [task.result() for task in tasks]}

    async def main() -> None:
        with MemorySaver() as saver:
            app = only(grouped, saver)
            with pytest.raises(ExceptionGroup) as caught:
                await app.ainvoke({}, on("t"))
            assert caught.group_contains(Boom)
            assert saver.store.thread("t").status == "failed"
            assert shown(await app.ainvoke(None, on("t"))) == ["?"]
            assert (await app.ainvoke(Command(resume=1), on("t")))["log"] == [1, "mended"]

    run(main())


def test_coroutines_and_their_conditional_edges_ask() -> None:
    async def ask(state: Trail) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"log": [interrupt("what?")]}

    async def path(state: Trail) -> Any:
        await asyncio.sleep(0)
        return interrupt("where?")

    async def main() -> None:
        declared = StateGraph(Trail).add_node("ask", ask).add_node("z", logs("z"))
        declared.add_edge(START, "ask").add_conditional_edges("ask", path, ["z", END])
        with MemorySaver() as saver:
            app = declared.compile(saver)
            assert shown(await app.ainvoke({}, on("t"))) == ["what?"]
            assert shown(await app.ainvoke(Command(resume="that"), on("t"))) == ["where?"]
            assert (await app.ainvoke(Command(resume="z"), on("t")))["log"] == ["that", "z"]

    run(main())
