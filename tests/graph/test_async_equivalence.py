"""Any graph comes to the same with the sync and the async API."""

from __future__ import annotations

import asyncio
import itertools
import operator
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import EventStore
from graph import (
    START,
    Command,
    CompiledGraph,
    RetryPolicy,
    Send,
    StateGraph,
)
from tests.awaited import opened, run
from tests.graph.kit import Boom, on, shape

pytestmark = pytest.mark.slow


class Plan(TypedDict):
    """A random graph: of each node what it does and where it leads, by number."""

    nodes: list[dict[str, Any]]
    starts: list[int]
    inputs: list[int]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 5))
    nodes = []
    for number in range(count):
        last = number + 1 == count
        later = st.integers(min(number + 1, count - 1), count - 1)
        nodes.append(
            {
                "edges": sorted(draw(st.sets(later, max_size=2 * (not last)))),
                "branch": None if last else draw(st.none() | st.lists(later, max_size=2)),
                "sends": sorted(draw(st.sets(later, max_size=2 * (not last)))),
                "adds": draw(st.integers(-2, 2)),
                "fails": draw(st.sampled_from([0, 0, 0, 0, 1, 2])),
                "retried": draw(st.booleans()),
                "is_async": draw(st.booleans()),
                "inner": draw(st.sampled_from([False, False, True])),
                "defer": draw(st.sampled_from([False, False, True])),
            }
        )
    return {
        "nodes": nodes,
        "starts": sorted(draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=3))),
        "inputs": draw(st.lists(st.integers(0, 3), min_size=1, max_size=2)),
    }


class Numbers(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    total: Annotated[int, operator.add]


def built(plan: Plan, twins: bool, store: Any) -> CompiledGraph:
    """The graph of a plan; with ``twins`` nodes and edges may be asynchronous."""
    attempts: Counter[str] = Counter()
    graph = StateGraph(Numbers)

    def node_of(number: int, spec: dict[str, Any]) -> Any:
        def node(state: Any) -> Any:
            seen = f"n{number} saw {state['total']} after {state['log']}"
            attempts[seen] += 1
            if attempts[seen] <= spec["fails"]:
                raise Boom(seen)
            update = {"log": [f"n{number}, {len(state['log'])}"], "total": spec["adds"]}
            if spec["inner"] or not spec["sends"]:
                return update
            goto = [Send(f"n{to}", {"total": to, "log": [seen]}) for to in spec["sends"]]
            return Command(update=update, goto=goto)

        async def waiting(state: Any) -> Any:
            await asyncio.sleep(0)
            return node(state)

        action = waiting if twins and spec["is_async"] else node
        if not spec["inner"]:
            return action
        inner = StateGraph(Numbers)
        inner.add_node("in", action)
        inner.add_node("beside", lambda state: {"log": [f"beside n{number}"]})
        inner.add_edge(START, "in")
        inner.add_edge(START, "beside")
        return inner.compile()

    def branch_of(spec: dict[str, Any]) -> Any:
        def choose(state: Any) -> list[str]:
            return [f"n{to}" for to in spec["branch"]][: 1 + state["total"] % 2]

        async def waiting(state: Any) -> list[str]:
            await asyncio.sleep(0)
            return choose(state)

        return waiting if twins and spec["is_async"] else choose

    policy = RetryPolicy(initial_interval=0, jitter=False, max_attempts=2, retry_on=Boom)
    for number, spec in enumerate(plan["nodes"]):
        name = f"n{number}"
        graph.add_node(
            name,
            node_of(number, spec),
            retry_policy=policy if spec["retried"] else None,
            defer=spec["defer"],
            destinations=tuple(f"n{n}" for n in range(len(plan["nodes"]))) or None,
        )
    for number, spec in enumerate(plan["nodes"]):
        for to in spec["edges"]:
            graph.add_edge(f"n{number}", f"n{to}")
        if spec["branch"] is not None:
            ends = [f"n{n}" for n in range(len(plan["nodes"]))]
            graph.add_conditional_edges(f"n{number}", branch_of(spec), ends)
    for number in plan["starts"]:
        graph.add_edge(START, f"n{number}")
    return graph.compile(checkpointer=store)


def trail(entries: list[Any]) -> list[Any]:
    """An audit trail to compare: within a superstep the order of finishing is nobody's promise."""
    lines: list[Any] = []
    for entry in entries:
        task = (entry.data or {}).get("task")
        lines.append((entry.kind, entry.step, task, entry.node, entry.writes, entry.goto))
    order = [0]
    for before, line in itertools.pairwise(lines):
        same = before[0] != "input" != line[0] and before[1] == line[1]
        order.append(order[-1] if same else order[-1] + 1)
    return sorted(zip(order, lines, strict=True), key=lambda each: (each[0], repr(each[1])))


def clock() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def outcomes(plan: Plan) -> Iterator[tuple[Any, int]]:
    """What a caller does with a plan: each input, and going on until nothing fails any more."""
    for given_ in plan["inputs"]:
        yield {"log": ["in"], "total": given_}, 1
        for _ in range(6):
            yield None, 0


@given(plan=plans())
def test_both_kinds_of_calls_come_to_the_same(plan: Plan) -> None:
    told: list[Any] = []
    with EventStore(":memory:", clock=clock) as store:
        app = built(plan, False, store)
        for given_, _ in outcomes(plan):
            try:
                told.append(app.invoke(given_, on("t")))
            except Boom as error:
                told.append(type(error))  # of several side by side any may be the first
        history = list(app.get_state_history(on("t"), every=True))
        expected = (told, history, trail(list(app.events(on("t")))))
        assert app.verify(on("t")).ok

    async def main() -> Any:
        told: list[Any] = []
        async with opened(":memory:", clock=clock, tenant="default") as store:
            app = built(plan, True, store)
            for given_, _ in outcomes(plan):
                try:
                    told.append(await app.ainvoke(given_, on("t")))
                except Boom as error:
                    told.append(type(error))  # of several side by side any may be the first
            history = [each async for each in app.aget_state_history(on("t"), every=True)]
            entries = [each async for each in app.aevents(on("t"))]
            assert (await app.averify(on("t"))).ok
            with suppress(StopAsyncIteration):
                assert await anext(app.aget_state_history(on("t"), limit=0, every=True))
        return told, history, trail(entries)

    found = run(main())
    assert found[0] == expected[0]
    assert shape(found[1]) == shape(expected[1])
    assert found[2] == expected[2]
    assert [each.config for each in found[1]] == [each.config for each in expected[1]]
    assert [each.tasks for each in found[1]] == [each.tasks for each in expected[1]]
