"""Graphs that promise not to change what they are given: their runs go on with the same objects.

What is recorded, and what readers get, is the same as without the promise, also where it is broken.
"""

from __future__ import annotations

import logging
import operator
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

import pytest

import graph.run.loading
import graph.run.snapshots
from eventstore import EventStore
from graph import START, CompiledGraph, StateGraph, add_messages
from tests.graph.kit import on, replayed


def join(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    return {**left, **right}


class Talk(TypedDict, total=False):
    items: Annotated[list[dict[str, Any]], operator.add]
    told: Annotated[list[dict[str, Any]], add_messages]
    names: Annotated[dict[str, Any], join]
    last: dict[str, Any]


def talking(store: Any, node: Any, **options: Any) -> CompiledGraph:
    declared = StateGraph(Talk)
    declared.add_node("answer", node)
    declared.add_edge(START, "answer")
    return declared.compile(store, reuse_state=True, **options)


def answer(state: Talk) -> dict[str, Any]:
    n = len(state["items"])
    return {
        "items": [{"n": n, "deep": [n]}],
        "told": [{"role": "ai", "content": "word " * 20, "id": f"m{n % 7}"}],
        "names": {f"k{n % 5}": {"n": n}},
        "last": {"n": n},
    }


def run(app: CompiledGraph, runs: int, thread_id: str = "t") -> None:
    for number in range(runs):
        app.invoke({"items": [{"in": number}]}, on(thread_id))


def as_logged(app: CompiledGraph, thread_id: str = "t") -> Any:
    """The values that the log alone leads to."""
    return replayed(app, thread_id, snapshots=False).values


def kept_in(store: EventStore) -> list[Any]:
    return [each.live for each in store.core.cache._logs.values() if each.live]


@pytest.mark.every_backend
def test_runs_go_on_with_the_objects_of_the_run_before(store: EventStore) -> None:
    seen: list[Any] = []

    def look(state: Talk) -> dict[str, Any]:
        seen.append((state["items"][0], state["told"][0] if state["told"] else None))
        return answer(state)

    app = talking(store, look)
    run(app, 2)
    seen.clear()
    run(app, 5)
    assert all(item is seen[0][0] and told is seen[0][1] for item, told in seen[:3])
    values = app.get_state(on("t")).values
    assert values == as_logged(app)
    assert values["items"][0] is not seen[0][0], "readers get objects of their own"
    assert next(iter(app.get_state_history(on("t")))).values["items"][0] is not seen[0][0]
    run(app, 1)
    assert seen[-1][0] is not values["items"][0]


def test_the_log_of_a_broken_promise_is_right_and_a_warning_names_the_key(
    store: EventStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph.run.loading, "CHECK_EVERY", 4)
    seen: list[str] = []

    def vandal(state: Talk) -> dict[str, Any]:
        seen.append(str(state))
        for key in ("items", "told"):
            for each in state[key]:
                each["spoiled"] = True
        for each in state["names"].values():
            each["spoiled"] = True
        return answer(state)

    app = talking(store, vandal)
    with caplog.at_level(logging.WARNING, "graph.run.snapshots"):
        for number in range(20):
            run(app, 1)
            assert "spoiled" not in str(app.get_state(on("t")).values)
            if number % 5 == 4:
                assert app.get_state(on("t")).values == as_logged(app)
    assert any("spoiled" in each for each in seen), "runs in between see it"
    clean = [number for number, each in enumerate(seen) if "spoiled" not in each]
    assert len(clean) >= 4, "and from time to time go on with what the log says"
    warned = [each for each in caplog.records if "changed in place" in each.message]
    assert {(each.thread_id, each.key) for each in warned} == {  # type: ignore[attr-defined]
        ("t", "items"),
        ("t", "told"),
        ("t", "names"),
    }
    assert app.verify(on("t")).ok
    store.delete_snapshots("t")
    assert app.get_state(on("t")).values == as_logged(app)


def test_a_snapshot_shows_a_broken_promise_and_ends_its_effect(
    store: EventStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph.run.snapshots, "FLOOR", 900)
    seen: list[bool] = []

    def vandal(state: Talk) -> dict[str, Any]:
        seen.append("spoiled" in str(state))
        state["items"][0]["spoiled"] = True
        return answer(state)

    app = talking(store, vandal)
    with caplog.at_level(logging.WARNING, "graph.run.snapshots"):
        run(app, 30)
    assert True in seen[5:]
    assert False in seen[5:]
    assert [each.key for each in caplog.records if "changed in place" in each.message] == ["items"]  # type: ignore[attr-defined]
    assert store.stats("t").snapshots >= 4
    assert app.get_state(on("t")).values == as_logged(app)
    assert app.verify(on("t")).ok


def test_a_caller_who_changes_a_result_changes_nothing_that_is_read(store: EventStore) -> None:
    app = talking(store, answer)
    for number in range(6):
        app.invoke({"items": [{"in": number}]}, on("t"))["items"][0]["spoiled"] = True
        app.get_state(on("t")).values["items"][1]["spoiled"] = True
    assert app.get_state(on("t")).values == as_logged(app)
    assert "spoiled" not in str(as_logged(app))


@pytest.mark.every_backend
def test_what_others_wrote_meanwhile_is_seen(store: EventStore, store_url: str) -> None:
    seen: list[int] = []

    def look(state: Talk) -> dict[str, Any]:
        seen.append(len(state["items"]))
        return {"items": [{"n": 1}]}

    app = talking(store, look)
    run(app, 3)
    app.update_state(on("t"), {"items": [{"edited": True}]})
    run(app, 1)
    assert seen[-1] == 8
    if store_url != "sqlite://":
        with EventStore(store_url, tenant="test") as other:
            StateGraph.compile(builder_of(app), other).invoke({"items": [{"in": 9}]}, on("t"))
        run(app, 1)
        assert seen[-1] == 12
    past = list(app.get_state_history(on("t")))[4]
    app.invoke({"items": []}, past.config)
    assert seen[-1] == len(past.values["items"])
    run(app, 2)
    assert app.get_state(on("t")).values == as_logged(app)
    assert app.verify(on("t")).ok


def builder_of(app: CompiledGraph) -> StateGraph:
    found: StateGraph = app.builder
    return found


class Name(str):
    """A text that is stored as plain text."""


def test_later_runs_see_the_types_that_every_replay_sees(store: EventStore) -> None:
    seen: list[list[type]] = []

    def give(state: Talk) -> dict[str, Any]:
        items = state["items"]
        if len(items) > 1:
            seen.append(types_in(state))
        return {"items": [OrderedDict(b=Name("x"))], "last": {"a": Name("y"), "b": (1, [2])}}

    def types_in(state: Any) -> list[type]:
        found = [state["items"][1], state["items"][1]["b"], state["last"]]
        return [type(each) for each in [*found, *found[-1].values()]]

    app = talking(store, give)
    run(app, 5)
    assert seen == [types_in(as_logged(app))] * 4


def test_runs_at_once_on_the_same_threads(blocking_store: EventStore) -> None:
    app = talking(blocking_store, answer)

    def work(number: int) -> None:
        app.invoke({"items": [{"in": number}]}, on(f"t{number % 3}"), on_conflict="wait")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(36)))
    for thread_id in ("t0", "t1", "t2"):
        values = app.get_state(on(thread_id)).values
        assert len(values["items"]) == 24
        assert values == as_logged(app, thread_id)
        assert app.verify(on(thread_id)).ok


def test_failed_and_interrupted_runs_go_on(store: EventStore) -> None:
    broken = [True]

    def fail(state: Talk) -> dict[str, Any]:
        if broken[0]:
            raise RuntimeError("not yet")
        return answer(state)

    app = talking(store, fail)
    for runs in range(3):
        broken[0] = True
        with pytest.raises(RuntimeError):
            run(app, 1)
        assert app.get_state(on("t")).next == ("answer",)
        broken[0] = False
        app.invoke(None, on("t"))
        run(app, 2)
        assert len(app.get_state(on("t")).values["items"]) == 6 * (runs + 1)
        assert app.get_state(on("t")).values == as_logged(app)


@pytest.mark.parametrize("durability", ["async", "exit"])
def test_runs_that_write_later(store: EventStore, durability: Any) -> None:
    app = talking(store, answer)
    for number in range(6):
        app.invoke({"items": [{"in": number}]}, on("t"), durability=durability)
        assert app.get_state(on("t")).values == as_logged(app)
    assert len(app.get_state(on("t")).values["items"]) == 12


def test_what_is_kept_is_bounded() -> None:
    with EventStore(cache_bytes=60_000) as store:
        app = talking(store, answer)
        for number in range(40):
            run(app, 4, f"t{number}")
            assert kept_in(store)
        cache = store.core.cache
        assert sum(each.size for each in cache._logs.values()) == cache._size <= 60_000
        assert 3 < len(kept_in(store)) < 40
        app.invoke({"items": [{"large": "x" * 20_000}]}, on("t39"))
        run(app, 3, "t39")
        assert len(app.get_state(on("t39")).values["items"]) == 16
        assert all(each.size <= 15_000 for each in cache._logs.values())


def test_without_the_promise_nothing_is_kept(store: EventStore) -> None:
    app = StateGraph.compile(builder_of(talking(None, answer)), store)
    run(app, 4)
    assert not kept_in(store)
