"""Trimming beside readers, seals, archives and kills, and in any order with all of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eventstore import (
    Event,
    EventStore,
    Fork,
    NewSnapshot,
    Position,
    PositionNotFoundError,
)
from eventstore.errors import LineageMovedError
from tests.eventstore.support import (
    FINGERPRINT,
    Copies,
    Watch,
    fill,
    orphans,
    set_everywhere,
)
from tests.eventstore.trim_support import grow, points, position, state_of

# --- readers beside it ------------------------------------------------------------------


def test_who_reads_page_by_page_goes_on_with_what_is_left(
    store: EventStore, monkeypatch: Any
) -> None:
    set_everywhere(monkeypatch, "PAGE", 2)
    grow(store, "t", 12, 8)
    events = iter(store.read("t"))
    seen = [next(events).seq, next(events).seq]
    store.trim("t", 8)
    seen += [event.seq for event in events]
    assert seen == [1, 2, 9, 10, 11, 12]


def test_who_replays_meanwhile_is_told_to_read_again(store: EventStore, monkeypatch: Any) -> None:
    set_everywhere(monkeypatch, "PAGE", 2)
    grow(store, "t", 112, 108, 112)  # more than a replay begins with
    store.fork("t", 107, "f")
    own = store.replay("t", fingerprint="none")
    forked = store.replay("f", fingerprint="none")
    store.trim("t", 112)
    for replay in (own, forked):
        with pytest.raises(LineageMovedError):
            list(replay.events)
    assert state_of(store, "t") == list(range(1, 113))
    assert state_of(store, "f") == list(range(1, 108))


# --- with what else is done to cold threads ---------------------------------------------


def sealed_then(store_url: str) -> EventStore:
    """A store whose thread ``t`` of 100 events, with snapshots, is sealed."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    opened = EventStore(store_url, clock=lambda: now)
    grow(opened, "t", 100, 30, 60, 99)
    now += timedelta(days=1)
    assert opened.seal("t", now).events == 99
    return opened


@pytest.mark.parametrize("cut", [30, 60, 99])
def test_a_sealed_log_is_cut_within_a_segment(store_url: str, cut: int) -> None:
    with sealed_then(store_url) as store:
        assert points(store, "t") == [30, 60, 99]
        told = store.trim("t", cut, dry_run=True)
        assert store.trim("t", cut) == told
        assert told.events == cut
        assert [event.seq for event in store.read("t")] == list(range(cut + 1, 101))
        assert state_of(store, "t") == list(range(1, 101))
        assert store.verify("t").ok
        assert store.stats("t").events == 100 - cut
        with pytest.raises(PositionNotFoundError, match=f"begins at seq {cut}"):
            store.replay("t", upto=position(store, "t", cut - 1))


@pytest.mark.parametrize("cut", [30, 50])
def test_a_trimmed_log_can_be_sealed_and_archived(store_url: str, cut: int) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with EventStore(store_url, clock=lambda: now) as store:
        grow(store, "t", 50, 30, 50)
        store.trim("t", cut)
        grow(store, "t", 100, 80)
        now += timedelta(days=1)
        assert store.seal("t", now).events == 99 - cut
        assert store.verify("t").ok
        assert [event.seq for event in store.read("t")] == list(range(cut + 1, 101))
        assert state_of(store, "t") == list(range(1, 101))
        with store.dump("t") as found:
            dump = b"".join(found)
        store.delete_thread("t")
        store.load(dump)
        assert store.verify("t").ok
        assert state_of(store, "t", position(store, "t", 70)) == list(range(1, 71))
        with pytest.raises(PositionNotFoundError, match=f"begins at seq {cut}"):
            store.replay("t", upto=position(store, "t", cut - 1))
        store.trim("t", 80)
        assert store.verify("t").ok
        assert state_of(store, "t") == list(range(1, 101))


def test_a_log_trimmed_at_its_end_can_be_archived(store_url: str) -> None:
    with EventStore(store_url) as store:
        grow(store, "t", 5, 5)
        store.fork("t", 3, "f")
        store.trim("t", 5)
        for name in ("t", "f"):
            wanted = state_of(store, name)
            with store.dump(name) as found:
                dump = b"".join(found)
            store.delete_thread(name)
            store.load(dump)
            assert state_of(store, name) == wanted
            assert store.verify(name).ok
        grow(store, "t", 7)
        assert state_of(store, "t") == [1, 2, 3, 4, 5, 6, 7]


# --- everything at once -----------------------------------------------------------------


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 4)),
        st.just(("snapshot",)),
        st.tuples(st.just("back"), st.integers(0, 30)),
        st.tuples(st.just("fork"), st.integers(0, 30)),
        st.tuples(st.just("enter"), st.integers(0, 30)),
        st.tuples(st.just("trim"), st.integers(0, 40)),
        st.just(("seal",)),
        st.just(("delete",)),
    ),
    max_size=25,
)


@pytest.mark.slow
@given(STEPS)
@example([("append", 3), ("snapshot",), ("fork", 1), ("append", 1), ("back", 2), ("trim", 3)])
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_trimmed_all_that_is_left_is_what_it_was(
    steps: list[tuple[Any, ...]],
) -> None:
    """Threads that fork from themselves and one another, trimmed anywhere, hold to a model."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with EventStore("sqlite://", clock=lambda: now) as store:
        model: dict[str, list[list[int]]] = {}  # of each thread: the state at each seq
        begins: dict[str, int] = {}
        thread, made, number = "t0", 1, 0
        for step in steps:
            states = model.setdefault(thread, [[]])
            head = store.head(thread)
            if step[0] == "append":
                for _ in range(step[1]):
                    number += 1
                    head = store.append_after(head, [Event(1, {"n": number})])
                    states.append([*states[-1], number])
            elif step[0] == "snapshot" and head.seq > begins.get(thread, 0):
                text = ",".join(map(str, states[-1])).encode()
                store.put_snapshot(head, NewSnapshot(FINGERPRINT, text, b""))
            elif step[0] in ("back", "fork", "enter") and head.seq:
                names = sorted(model)
                source = names[step[1] % len(names)] if step[0] == "enter" else thread
                first, last = max(begins.get(source, 0), 1), len(model[source]) - 1
                if last < first:
                    continue
                seq = first + step[1] % (last - first + 1)
                at = Position(store.head(source).thread_key, "", seq)
                if step[0] == "fork":
                    thread, made = f"t{made}", made + 1
                    store.fork(source, seq, thread)
                    model[thread] = [[], model[source][seq]]
                else:
                    store.append_after(head, [Fork(at)])
                    states.append(model[source][seq])
            elif step[0] == "trim" and head.seq:
                allowed = [each.seq for each in store.trim_points(thread) if each.seq <= step[1]]
                told = store.trim(thread, step[1])
                assert told.base == (allowed[-1] if allowed else begins.get(thread, 0))
                begins[thread] = told.base
            elif step[0] == "seal" and head.seq:
                now += timedelta(minutes=5)
                store.seal(thread, now)
            elif step[0] == "delete" and len(model) > 1 and head.seq:
                store.delete_thread(thread)
                del model[thread]
                begins.pop(thread, None)
                thread = sorted(model)[0]
            _hold_to(store, model, begins)


def _hold_to(store: EventStore, model: dict[str, list[list[int]]], begins: dict[str, int]) -> None:
    for thread, states in model.items():
        if len(states) == 1:
            continue
        assert store.verify(thread).problems == ()
        base = begins.get(thread, 0)
        assert [event.seq for event in store.read(thread)] == list(range(base + 1, len(states)))
        for seq in range(1, len(states)):
            at = position(store, thread, seq)
            if seq < base:
                with pytest.raises(PositionNotFoundError, match=f"begins at seq {base}:"):
                    store.replay(thread, upto=at)
            else:
                assert state_of(store, thread, at) == states[seq]
    assert orphans(store) == {}


# --- killed -----------------------------------------------------------------------------


@pytest.mark.slow
def test_whoever_is_killed_leaves_a_whole_thread(tmp_path: Path, monkeypatch: Any) -> None:
    """The file as it is before every statement, as a killed process would leave it."""
    set_everywhere(monkeypatch, "STEP", 1)
    path, folder = tmp_path / "store.db", tmp_path / "copies"
    folder.mkdir()
    copies = Copies(path, folder)
    with EventStore(path) as store:
        watch = Watch(store, copies.take)
        grow(store, "t", 12, 3, 6, 9)
        for ns in ("a:2.0", "a:7.0", "memory"):
            fill(store, "t", 2, ns)
        store.fork("t", 2, "old")
        store.fork("t", 7, "new")
        with watch.on():
            store.trim("t", 9)
    bases = set()
    for copy in copies.paths:
        with EventStore(copy) as store:
            for name, last in (("t", 12), ("old", 2), ("new", 7)):
                assert state_of(store, name) == list(range(1, last + 1))
                assert store.verify(name).problems == ()
            assert orphans(store) == {}
            first = next(iter(store.read("t"))).seq
            bases.add(first - 1)
            assert store.trim("t", 9).base == 9
            assert state_of(store, "t") == list(range(1, 13))
            assert store.verify("t").problems == ()
            assert set(store.verify("t").namespaces) == {"", "memory"}
    assert bases >= {0, 3, 6}
