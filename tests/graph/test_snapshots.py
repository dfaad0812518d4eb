"""Snapshots: linear storage, quick reading, and no influence on any answer (rules 4 and 9).

Nothing here is timed: what is counted is bytes stored, bytes read and events folded.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from sqlalchemy import update

import graph.run.snapshots
from eventstore import EventStore, RecordedEvent
from eventstore.db.schema import snapshots
from graph import START, CompiledGraph, StateGraph
from graph.state.fold import Fold
from tests.graph.kit import Trail, on, replayed

WORDS = "the log is the truth and everything else can be thrown away and built again from it "


def text(seed: int, length: int) -> str:
    """Words in an order of their own, so that compression has something to do, and not all."""
    words = WORDS.split()
    picked = [
        f"{words[(seed * 7919 + i * i * 31 + i) % len(words)]}{seed * i % 97}"
        for i in range(length // 5)
    ]
    return " ".join(picked)[:length]


def chat(store: Any, reducer: Any = operator.add) -> CompiledGraph:
    class Chat(TypedDict, total=False):
        messages: Annotated[list, reducer]  # type: ignore[type-arg]
        turn: int

    Chat.__annotations__["messages"] = Annotated[list, reducer]
    Chat.__annotations__["turn"] = int
    declared = StateGraph(Chat)
    declared.add_node(
        "answer",
        lambda state: {
            "messages": [{"role": "ai", "content": text(len(state["messages"]), 1200)}],
            "turn": len(state["messages"]),
        },
    )
    declared.add_edge(START, "answer")
    return declared.compile(store)


def talk(app: CompiledGraph, turns: int, thread_id: str = "t") -> None:
    for turn in range(turns):
        app.invoke(
            {"messages": [{"role": "user", "content": text(turn + 10_000, 600)}]}, on(thread_id)
        )


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the events that are folded."""
    count = [0]
    feed: Callable[..., Any] = Fold.feed

    def counted(self: Fold, *arguments: Any) -> Any:
        count[0] += 1
        return feed(self, *arguments)

    monkeypatch.setattr(Fold, "feed", counted)
    return count


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots after every few events."""
    monkeypatch.setattr(graph.run.snapshots, "FLOOR", 2000)


def no_snapshots_equal(app: CompiledGraph, store: EventStore, thread_id: str = "t") -> None:
    """Rule 4: without snapshots every answer is the same."""
    with_them = app.get_state(on(thread_id)), list(app.get_state_history(on(thread_id), every=True))
    assert app.verify(on(thread_id)).ok
    store.delete_snapshots(thread_id)
    assert store.stats(thread_id).snapshots == 0
    without = app.get_state(on(thread_id)), list(app.get_state_history(on(thread_id), every=True))
    assert with_them == without


def bytes_read(store: EventStore, app: CompiledGraph, thread_id: str = "t") -> int:
    """Stored bytes that loading the latest state reads."""
    assert app._log is not None
    replay = store.replay(thread_id, fingerprint=app._log.fingerprint)
    events: list[RecordedEvent] = list(replay.events)
    snapshot = replay.snapshot
    size = 0 if snapshot is None else len(snapshot.state) + sum(map(len, snapshot.items))
    return size + sum(event.size for event in events)


@pytest.mark.slow
def test_a_long_chat_is_stored_twice_at_most(folded: list[int]) -> None:
    """500 turns: bytes are linear, and a turn costs the same at the end as at the beginning."""
    with EventStore(":memory:") as store:
        app = chat(store)
        talk(app, 250)
        half = store.stats("t")
        folded[0] = 0
        app.get_state(on("t"))
        reading_half = folded[0]
        talk(app, 250)
        whole = store.stats("t")
        assert whole.events == 2 * half.events == 1000
        assert whole.stored_bytes < 2.1 * half.stored_bytes
        assert 0 < half.snapshot_bytes <= half.stored_bytes
        assert half.snapshot_bytes < whole.snapshot_bytes <= whole.stored_bytes
        folded[0] = 0
        state = app.get_state(on("t")).values
        assert folded[0] <= max(200, 2 * reading_half), "reading does not fold the whole log"
        assert len(state["messages"]) == 1000
        size = len(store.codec.encode(state))
        assert bytes_read(store, app) <= 3 * size + 100_000
        no_snapshots_equal(app, store)


@pytest.mark.slow
def test_a_list_that_grows_is_stored_by_its_growth(eager: None, store: EventStore) -> None:
    app = chat(store)
    talk(app, 40)
    stats = store.stats("t")
    assert stats.snapshots >= 5
    assert stats.snapshot_bytes < 1.5 * stats.stored_bytes
    no_snapshots_equal(app, store)


class Document(TypedDict, total=False):
    text: str
    notes: Annotated[list[str], operator.add]
    edits: dict[str, int]


def test_a_large_value_with_small_updates(store: EventStore) -> None:
    """The document is not stored again at every step, nor at every snapshot."""
    declared = StateGraph(Document)
    declared.add_node("edit", lambda state: {"edits": {"count": len(state.get("notes", []))}})
    declared.add_edge(START, "edit")
    app = declared.compile(store)
    document = "".join(text(seed, 500) for seed in range(200))
    app.invoke({"text": document}, on("t"))
    first = store.stats("t")
    for i in range(60):
        app.invoke({"notes": [f"note {i}"]}, on("t"))
    stats = store.stats("t")
    assert stats.stored_bytes < first.stored_bytes + 60 * 2 * 200
    assert stats.snapshot_bytes <= 2 * stats.stored_bytes
    no_snapshots_equal(app, store)


def shrinking(left: list[Any], right: list[Any]) -> list[Any]:
    """Keeps the last five."""
    return (left + right)[-5:]


def replacing(left: list[Any], right: list[Any]) -> list[Any]:
    """Equal values, but every list made of new objects."""
    return [dict(item) for item in [*left, *right]]


def mutating(left: list[Any], right: list[Any]) -> list[Any]:
    """Changes its left argument, as a reducer should not."""
    left.extend(right)
    return left


def rewriting(left: list[Any], right: list[Any]) -> list[Any]:
    """Changes an item of its left argument in place: the ends are the very same objects."""
    left = [*left, *right]
    if len(left) > 3:
        left[1] = {"role": "ai", "content": f"rewritten at {len(left)}"}
    return left


@pytest.mark.parametrize("reducer", [shrinking, replacing, mutating, rewriting, None])
@pytest.mark.usefixtures("eager")
def test_lists_that_do_not_only_grow(store: EventStore, reducer: Any) -> None:
    app = chat(store, reducer) if reducer else last_value_list(store)
    talk(app, 25)
    assert store.stats("t").snapshots >= 3
    expected = app.get_state(on("t")).values
    assert expected == without_a_store(reducer, 25)
    no_snapshots_equal(app, store)
    assert app.get_state(on("t")).values == expected


def without_a_store(reducer: Any, turns: int) -> dict[str, Any]:
    """What the same turns come to, with every reducer called update by update."""
    messages: list[Any] = []
    turn = 0
    for number in range(turns):
        given = [{"role": "user", "content": text(number + 10_000, 600)}]
        if reducer is None:
            messages, turn = given * (1 + turn % 3), turn + 1
            continue
        messages = reducer(messages, given)
        turn = len(messages)
        messages = reducer(messages, [{"role": "ai", "content": text(turn, 1200)}])
    return {"messages": messages, "turn": turn}


def last_value_list(store: Any) -> CompiledGraph:
    class Last(TypedDict, total=False):
        messages: list[Any]
        turn: int

    Last.__annotations__.update(messages=list[Any], turn=int)
    declared = StateGraph(Last)
    declared.add_node(
        "answer",
        lambda state: {
            "messages": state["messages"] * (1 + state.get("turn", 0) % 3),
            "turn": state.get("turn", 0) + 1,
        },
    )
    declared.add_edge(START, "answer")
    return declared.compile(store)


@pytest.mark.usefixtures("eager")
def test_a_snapshot_of_other_code_is_ignored(store: EventStore) -> None:
    """Values are folded afresh when the reducer, or the declared version, is another one."""

    def build(reducer: Any, version: str | None = None) -> CompiledGraph:
        class Counted(TypedDict, total=False):
            count: int
            pad: str

        Counted.__annotations__.update(count=Annotated[int, reducer], pad=str)
        declared = StateGraph(Counted)
        declared.add_node("add", lambda state: {"count": 2, "pad": text(1, 1500)})
        declared.add_edge(START, "add")
        return declared.compile(store, version=version)

    app = build(lambda left, right: left + right)
    for _ in range(20):
        app.invoke({"count": 1}, on("t"))
    assert store.stats("t").snapshots > 0
    assert app.get_state(on("t")).values["count"] == 60
    doubled = build(lambda left, right: left + 2 * right)
    assert doubled.get_state(on("t")).values["count"] == 120
    assert app.get_state(on("t")).values["count"] == 60
    assert build(lambda left, right: left + right, "2").get_state(on("t")).values["count"] == 60
    assert doubled._log and app._log and doubled._log.fingerprint != app._log.fingerprint


@pytest.mark.usefixtures("eager")
def test_a_damaged_snapshot_is_passed_over(store: EventStore) -> None:
    app = chat(store)
    talk(app, 20)
    expected = app.get_state(on("t")).values
    with store.engine.begin() as conn:
        changed = conn.execute(update(snapshots).values(payload=b"\0\0")).rowcount
    assert changed > 0
    assert app.get_state(on("t")).values == expected
    assert not app.verify(on("t")).ok
    talk(app, 5)
    assert len(app.get_state(on("t")).values["messages"]) == 50


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_every_checkpoint_costs_at_most_a_small_multiple_of_its_state(
    store: EventStore, folded: list[int]
) -> None:
    """Reading any place of a long history folds a few events, not all before it."""
    app = chat(store)
    talk(app, 60)
    entries = list(app.get_state_history(on("t"), every=True))
    for entry in entries[::10]:
        folded[0] = 0
        assert app.get_state(entry.config).values == entry.values
        assert folded[0] <= 60
    folded[0] = 0
    list(app.get_state_history(on("t"), every=True))
    assert folded[0] <= 3 * len(entries)


def test_snapshots_hold_sends_joins_and_deferred_nodes(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot can be of any complete superstep, whatever still waits in it."""
    monkeypatch.setattr(graph.run.snapshots, "FLOOR", 1)
    monkeypatch.setattr(graph.run.snapshots, "EVENT_WEIGHT", 100_000)
    checked = 0
    graph_ = StateGraph(Trail)
    graph_.add_node("a", lambda state: {"log": [text(len(state["log"]), 3000)]})
    graph_.add_node("b", lambda state: {"log": [text(1, 3000)]})
    graph_.add_node("c", lambda state: {"log": [text(2, 3000)]})
    graph_.add_node("joined", lambda state: {"total": 100})
    graph_.add_node("last", lambda state: {"note": f"{state['total']}"}, defer=True)
    graph_.add_edge(START, "a")
    graph_.add_edge("a", "b")
    graph_.add_edge("b", "c")
    graph_.add_edge("a", "last")
    graph_.add_edge(["a", "c"], "joined")
    app = graph_.compile(store, interrupt_after="*")
    app.invoke({}, on("t"))
    while app.get_state(on("t")).next:
        states = [replayed(app, "t", snapshots) for snapshots in (True, False)]
        assert states[0] == states[1]
        checked += bool(states[0].joins) + bool(states[0].later) + len(states[0].frontier)
        app.invoke(None, on("t"))
    assert app.get_state(on("t")).values["note"] == "100"
    assert store.stats("t").snapshots >= 3 and checked >= 6
    no_snapshots_equal(app, store)
