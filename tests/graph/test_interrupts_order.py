"""A node that runs again may ask in another order: no answer goes to another question.

Values tell the questions apart. Where a value is made anew each time, its place does; not where
places mean nothing, in code that runs side by side.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import EventStore
from graph import (
    START,
    Command,
    CompiledGraph,
    MemorySaver,
    StateGraph,
    interrupt,
)
from tests.awaited import opened, run
from tests.graph.interrupt_support import only, shown
from tests.graph.kit import Trail, on


def answer_all(app: CompiledGraph, limit: int = 12) -> tuple[list[Any], dict[str, Any]]:
    """Answer each question by its own words; what was asked, and what came of it."""
    asked: list[Any] = []
    result = app.invoke({}, on("t"))
    while "__interrupt__" in result:
        assert len(asked) < limit, asked
        each = result["__interrupt__"][0]
        asked.append(each.value)
        result = app.invoke(Command(resume={each.id: f"to {each.value}"}), on("t"))
    return asked, result


def in_turn(orders: Iterable[Sequence[Any]]) -> Callable[[Trail], dict[str, Any]]:
    """A node that asks in another order each time it runs; the last one from then on."""
    coming = iter(orders)
    order: Sequence[Any] = ()

    def node(_state: Trail) -> dict[str, Any]:
        nonlocal order
        order = next(coming, order)
        return {"log": [(each, interrupt(each)) for each in order]}

    return node


def right(result: dict[str, Any]) -> bool:
    return all(answer == f"to {question}" for question, answer in result["log"])


@pytest.mark.parametrize(
    "orders",
    [
        ["ab", "ba"],
        ["ab", "ab", "ba"],
        ["ab", "ba", "ab", "ba"],
        ["abc", "cab", "bca", "cba"],
        [("x", "x", "y"), ("y", "x", "x")],
        [({"ask": 1}, [2], None), ([2], None, {"ask": 1})],
    ],
    ids=str,
)
def test_one_after_the_other_in_another_order(store: EventStore, orders: list[Any]) -> None:
    app = only(in_turn(orders), store)
    asked, result = answer_all(app)
    assert right(result)
    assert sorted(map(str, asked)) == sorted(map(str, orders[0])), "each was asked once"
    assert app.verify(on("t")).ok


def test_equal_values_are_answered_in_their_order(store: EventStore) -> None:
    app = only(in_turn([["again?"] * 3]), store)
    app.invoke({}, on("t"))
    for answer in range(3):
        result = app.invoke(Command(resume=answer), on("t"))
    assert [answer for _, answer in result["log"]] == [0, 1, 2]


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 2, deadline=None)
@given(st.lists(st.permutations("abcd"), min_size=1, max_size=8))
def test_whatever_the_orders(orders: list[list[str]]) -> None:
    with MemorySaver() as saver:
        asked, result = answer_all(only(in_turn(orders), saver))
        assert right(result)
        assert sorted(asked) == ["a", "b", "c", "d"]


# --- values that are made anew ----------------------------------------------------------


def test_a_value_that_is_made_anew_each_time(store: EventStore) -> None:
    clock = itertools.count()
    app = only(lambda state: {"log": [interrupt({"at": next(clock)})]}, store)
    assert shown(app.invoke({}, on("t"))) == [{"at": 0}]
    assert shown(app.invoke(None, on("t"))) == [{"at": 1}]
    assert app.invoke(Command(resume="yes"), on("t"))["log"] == ["yes"]


def test_several_of_them_in_turn(store: EventStore) -> None:
    """As a node that lets a model word its questions does."""
    clock = itertools.count()

    def node(_state: Trail) -> dict[str, Any]:
        return {"log": [interrupt(f"{name} at {next(clock)}") for name in "abc"]}

    app = only(node, store)
    result = app.invoke({}, on("t"))
    for name in "abc":
        assert shown(result)[0].startswith(name)
        result = app.invoke(Command(resume=name), on("t"))
    assert result["log"] == ["a", "b", "c"]


def test_a_value_that_has_no_equality(store: EventStore) -> None:
    class Odd(float):
        def __eq__(self, other: object) -> bool:
            raise RuntimeError

    app = only(lambda state: {"log": [interrupt(float("nan")), interrupt(Odd(2))]}, store)
    app.invoke({}, on("t"))
    app.invoke(Command(resume=1), on("t"))
    assert app.invoke(Command(resume=2), on("t"))["log"] == [1, 2]


def test_a_node_that_fails_of_an_answer_by_place_is_told(store: EventStore) -> None:
    values = iter(["how many?", "which one?", "which one?"])
    app = only(lambda state: {"total": int(interrupt(next(values)))}, store)
    app.invoke({}, on("t"))
    with pytest.raises(ValueError, match="seven") as caught:
        app.invoke(Command(resume="seven"), on("t"))
    assert any("not shown before" in note for note in caught.value.__notes__)


# --- side by side -----------------------------------------------------------------------


def in_threads(orders: Iterable[Sequence[str]], stamp: Callable[[str], Any] = str) -> Any:
    """A node whose threads ask, one behind the other, in another order each time it runs."""
    coming = iter(orders)
    order: Sequence[str] = ()

    def node(_state: Trail) -> dict[str, Any]:
        nonlocal order
        order = next(coming, order)
        with ThreadPoolExecutor(len(order)) as pool:
            found = []
            for name in order:
                context = contextvars.copy_context()
                found.append(pool.submit(context.run, interrupt, stamp(name)))
                while not (found[-1].done() or found[-1].running()):
                    pass
            return {"log": [(name, each.result()) for name, each in zip(order, found, strict=True)]}

    return node


@pytest.mark.parametrize("orders", [["ab", "ba"], ["abc", "cab", "bca", "cba"]], ids=str)
def test_threads_in_another_order(store: EventStore, orders: list[str]) -> None:
    asked, result = answer_all(only(in_threads(orders), store))
    assert right(result)
    assert sorted(asked) == sorted(orders[0])


def gathered(names: Sequence[str], stamp: Callable[[str], Any] = str) -> Any:
    """A node whose coroutines ask together, the last one first each second time it runs."""
    runs = itertools.count()

    async def node(_state: Trail) -> dict[str, Any]:
        number = next(runs)

        async def ask(name: str, pause: int) -> tuple[str, Any]:
            for _ in range(pause):
                await asyncio.sleep(0)
            return name, interrupt(stamp(name))

        pauses = range(len(names)) if number % 2 == 0 else range(len(names), 0, -1)
        found = await asyncio.gather(*map(ask, names, pauses))
        return {"log": list(found)}

    return node


async def answer_all_async(app: CompiledGraph, limit: int = 12) -> tuple[list[Any], dict[str, Any]]:
    asked: list[Any] = []
    result = await app.ainvoke({}, on("t"))
    while "__interrupt__" in result and len(asked) < limit:
        each = result["__interrupt__"][0]
        asked.append(each.value)
        command: Command[Any] = Command(resume={each.id: f"to {each.value}"})
        result = await app.ainvoke(command, on("t"))
    return asked, result


def only_async(node: Any, saver: Any) -> CompiledGraph:
    return StateGraph(Trail).add_node("ask", node).add_edge(START, "ask").compile(saver)


@pytest.mark.parametrize("names", ["ab", "abcd"])
def test_coroutines_in_another_order(store_url: str, names: str) -> None:
    async def main() -> None:
        async with opened(store_url) as saver:
            asked, result = await answer_all_async(only_async(gathered(names), saver))
            assert right(result)
            assert sorted(asked) == sorted(names), "each was asked once"

    run(main())


def test_a_group_that_shows_all_its_questions(store_url: str) -> None:
    runs = itertools.count()

    async def node(_state: Trail) -> dict[str, Any]:
        order = "abc" if next(runs) == 0 else "cab"
        found: dict[str, Any] = {}

        async def ask(name: str) -> None:
            found[name] = interrupt(name)

        async with asyncio.TaskGroup() as group:
            for name in order:
                group.create_task(ask(name))
        return {"log": sorted(found.items())}

    async def main() -> None:
        async with opened(store_url) as saver:
            app = only_async(node, saver)
            result = await app.ainvoke({}, on("t"))
            assert shown(result) == ["a", "b", "c"]
            by_id = {each.id: f"to {each.value}" for each in result["__interrupt__"]}
            first, *rest = by_id
            result = await app.ainvoke(Command(resume={first: by_id[first]}), on("t"))
            assert {each.id: f"to {each.value}" for each in result["__interrupt__"]} == {
                name: by_id[name] for name in rest
            }, "those that wait keep their ids"
            result = await app.ainvoke(Command(resume={n: by_id[n] for n in rest}), on("t"))
            assert right(result)

    run(main())


def test_coroutines_whose_values_are_made_anew_get_no_answer_of_another(
    store_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = itertools.count()

    async def main() -> None:
        async with opened(store_url) as saver:
            app = only_async(gathered("ab", lambda name: f"{name} at {next(clock)}"), saver)
            asked, result = await answer_all_async(app)
            assert "log" not in result or not result["log"], "they are asked, and asked again"
            assert len(asked) == 12
            assert (await app.averify(on("t"))).ok

    run(main())
    assert any("side by side" in record.message for record in caplog.records)


def test_one_coroutine_whose_value_is_made_anew(store_url: str) -> None:
    clock = itertools.count()

    async def main() -> None:
        async with opened(store_url) as saver:
            app = only_async(gathered("a", lambda name: f"{name} at {next(clock)}"), saver)
            asked, result = await answer_all_async(app)
            assert (asked, result["log"]) == (["a at 0"], [("a", "to a at 0")])

    run(main())


# --- inside subgraphs -------------------------------------------------------------------


@pytest.mark.parametrize("checkpointer", [None, False, True])
@pytest.mark.parametrize("called", [False, True])
def test_in_a_subgraph(store: EventStore, checkpointer: bool | None, called: bool) -> None:
    graph = StateGraph(Trail).add_node("ask", in_turn(["abc", "bca", "cab", "bac"]))
    inner = graph.add_edge(START, "ask").compile(checkpointer)
    node = (lambda state: {"log": inner.invoke({})["log"]}) if called else inner
    app = StateGraph(Trail).add_node("inner", node).add_edge(START, "inner").compile(store)
    asked, result = answer_all(app)
    assert right(result)
    assert sorted(asked) == ["a", "b", "c"]
