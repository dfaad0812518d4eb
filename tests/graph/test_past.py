"""Checkpoints that were read before are read from memory, and are always what the log says."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import EventStore, EventStoreError
from eventstore.cache import PastCache
from graph import START, CompiledGraph, StateGraph
from graph.errors import GraphError
from graph.state.fold import Fold
from graph.types import StateSnapshot
from tests.effort import effort
from tests.graph import test_recent
from tests.graph.kit import on
from tests.graph.test_recent import add, spoil


def noting(store: Any, **options: Any) -> CompiledGraph:
    return test_recent.noting(store, add, **options)


def history(app: CompiledGraph, thread_id: str = "t") -> list[StateSnapshot]:
    """The checkpoints that the log has; the one before an input is read with that input."""
    found = app.get_state_history(on(thread_id))
    return [
        each for each in found if not each.config["configurable"]["checkpoint_id"].endswith("i")
    ]


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seqs of the events that were folded."""
    found: list[int] = []
    feed = Fold.feed

    def noted(self: Fold, kind: int, data: Any, at: Any, recorded_us: int) -> Any:
        found.append(at.seq)
        return feed(self, kind, data, at, recorded_us)

    monkeypatch.setattr(Fold, "feed", noted)
    return found


def test_a_checkpoint_that_is_read_again_is_not_folded_again(
    store: EventStore, folded: list[int]
) -> None:
    app = noting(store)
    for number in range(20):
        app.invoke({"items": [{"in": number}]}, on("t"))
    for there in history(app)[1:]:
        first = app.get_state(there.config)
        assert first == there
        spoil(first.values)
        folded.clear()
        again = app.get_state(there.config)
        assert folded == []
        assert again == there
        spoil(again.values)
        assert app.get_state(there.config) == there
    assert app.verify(on("t")).ok


def test_going_back_again_folds_nothing(store: EventStore, folded: list[int]) -> None:
    app = noting(store)
    for number in range(10):
        app.invoke({"items": [{"in": number}]}, on("t"))
    there = history(app)[9]
    app.get_state(there.config)
    ends = []
    for thread_id in ("a", "b"):
        folded.clear()
        into = on(thread_id, there.config["configurable"]["checkpoint_id"])
        app.update_state(into, {"items": [{"in": "edited"}]}, as_node="n0")
        assert not set(folded) & set(range(3, 10))
        ends.append(app.get_state(on(thread_id)).values)
    assert ends[0] == ends[1]
    assert ends[0]["items"] == [*there.values["items"], {"in": "edited"}]


def test_going_back_within_a_thread_forgets_no_other_checkpoint(
    store: EventStore, folded: list[int]
) -> None:
    app = noting(store)
    for number in range(10):
        app.invoke({"items": [{"in": number}]}, on("t"))
    read = history(app)[6:12]
    for there in read:
        app.get_state(there.config)
    for number in range(3):
        app.update_state(read[0].config, {"items": [{"edited": number}]}, as_node="n0")
        items = app.get_state(on("t")).values["items"]
        assert items == [*read[0].values["items"], {"edited": number}]
        folded.clear()
        for there in read:
            assert app.get_state(there.config) == there
        assert folded == []
    assert app.verify(on("t")).ok


def test_what_is_gone_is_not_found_in_memory(store: EventStore, store_url: str) -> None:
    app = noting(store)
    for number in range(6):
        app.invoke({"items": [{"in": number}]}, on("t"))
    old = history(app)[-3]
    assert app.get_state(old.config) == old
    if store_url == "sqlite://":
        store.delete_thread("t")
    else:
        with EventStore(store_url, tenant="test") as of_another_process:
            of_another_process.delete_thread("t")
    with pytest.raises((GraphError, EventStoreError)):
        app.get_state(old.config)
    app.invoke({"items": [{"in": "new"}]}, on("t"))
    with pytest.raises((GraphError, EventStoreError)):
        app.get_state(old.config)


def test_the_first_checkpoint_of_a_trimmed_thread_has_no_parent(store: EventStore) -> None:
    app = noting(store, snapshot_each_run=True)
    for number in range(8):
        app.invoke({"items": [{"in": number}]}, on("t"))
    before = history(app)
    for each in before:
        app.get_state(each.config)
    assert store.trim("t", store.trim_points("t")[4].seq).base
    left = history(app)
    assert 0 < len(left) < len(before)
    for each in left:
        assert app.get_state(each.config) == each
    assert left[-1].parent_config is None
    for gone in before[len(left) :]:
        with pytest.raises((GraphError, EventStoreError)):
            app.get_state(gone.config)


def test_another_graph_reads_it_by_its_own_declaration(store: EventStore) -> None:
    class Last(TypedDict, total=False):
        items: list[dict[str, Any]]

    app = noting(store)
    for number in range(4):
        app.invoke({"items": [{"in": number}]}, on("t"))
    old = history(app)[2]
    declared = StateGraph(Last)
    declared.add_node("add", lambda state: {})
    declared.add_edge(START, "add")
    newer = declared.compile(store, version="2")
    for _ in range(3):
        assert app.get_state(old.config) == old
        assert len(newer.get_state(old.config).values["items"]) == 1


@pytest.mark.parametrize("size", [0, 30_000])
def test_what_is_kept_is_bounded(store: EventStore, size: int) -> None:
    app = noting(store)
    for number in range(30):
        app.invoke({"items": [{"in": number, "text": "x" * 100}]}, on("t"))
    past = store.core.past = PastCache(size)
    for _ in range(2):
        for each in history(app):
            assert app.get_state(each.config) == each
            assert past._size <= size
    assert (past._size > 0) == (size > 0)


@given(data=st.data())
def test_memory_changes_no_answer(data: st.DataObject) -> None:
    """Whatever was read and written before, in whatever order."""
    with EventStore() as store:
        app = noting(store)
        threads = ["t"]
        app.invoke({"items": [{"in": 0}]}, on("t"))
        for step in range(data.draw(st.integers(5, effort(25, 100)))):
            thread_id = data.draw(st.sampled_from(threads))
            place = data.draw(st.sampled_from(history(app, thread_id))).config
            match data.draw(
                st.sampled_from(["read", "read", "read", "run", "back", "fork", "edit"])
            ):
                case "run":
                    app.invoke({"items": [{"in": step}]}, on(thread_id))
                case "back":
                    app.invoke({"items": [{"back": step}]}, place)
                case "edit":
                    app.update_state(place, {"last": {"edited": step}}, as_node="n0")
                case "fork":
                    threads.append(f"t{step}")
                    place = on(threads[-1], place["configurable"]["checkpoint_id"])
                    app.invoke({"items": [{"fork": step}]}, place)
                case _:
                    found = app.get_state(place)
                    kept, store.core.past = store.core.past, PastCache(0)
                    assert app.get_state(place) == found
                    store.core.past = kept
                    assert app.get_state(place) == found
                    spoil(found.values)
