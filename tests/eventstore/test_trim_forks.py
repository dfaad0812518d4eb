"""Trimming and forks: what a fork needs, it is given; logs of tasks go with what they were for."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import (
    Event,
    EventStore,
    Fork,
    NewSnapshot,
    PositionNotFoundError,
)
from tests.eventstore.support import (
    FINGERPRINT,
    fill,
    numbers,
    orphans,
    rows_of,
    set_everywhere,
    sql,
)
from tests.eventstore.trim_support import back, grow, points, position, state_of

pytestmark = pytest.mark.every_backend

# --- forks ------------------------------------------------------------------------------


def test_no_cut_between_a_fork_and_where_it_goes_back_to(store: EventStore) -> None:
    grow(store, "t", 8, 2, 4, 6, 8)
    assert back(store, "t", 4) == 9
    grow(store, "t", 12, 11)
    assert points(store, "t") == [2, 4, 11]  # from the base itself a fork may go on
    assert store.trim("t", 10).base == 4
    assert state_of(store, "t") == [1, 2, 3, 4, 10, 11, 12]
    assert store.verify("t").ok
    assert store.trim("t", 12).base == 11
    assert state_of(store, "t") == [1, 2, 3, 4, 10, 11, 12]
    assert store.verify("t").ok


def test_a_fork_right_behind_the_base(store: EventStore) -> None:
    grow(store, "other", 3)
    grow(store, "t", 4, 4)
    head = store.head("t")
    store.append_after(head, [Fork(position(store, "other", 2)), Event(1, {"n": 6})])
    store.trim("t", 4)
    assert state_of(store, "t") == [1, 2, 6]
    assert state_of(store, "t", position(store, "t", 4)) == [1, 2, 3, 4]
    assert store.verify("t").ok


def test_forks_of_other_threads_are_given_what_they_need(store: EventStore) -> None:
    grow(store, "t", 10, 3, 6)
    for seq in (2, 4, 6, 8):
        store.fork("t", seq, f"fork {seq}")
        fill(store, f"fork {seq}", 1, start=100)
    grand = store.head("fork 2")
    store.fork("fork 2", grand.seq, "grandchild")
    assert store.trim("t", 6).base == 6
    key = store.head("t").thread_key
    sources = sql(store, "SELECT source_seq FROM forks WHERE source_thread_key = ?", (key,))
    assert sorted(row[0] for row in sources) == [6, 8]
    for seq in (2, 4, 6, 8):
        assert state_of(store, f"fork {seq}") == [*range(1, seq + 1), 100]
        assert store.verify(f"fork {seq}").ok
    assert state_of(store, "grandchild") == [1, 2, 100]
    store.delete_thread("t")
    for seq in (2, 4, 6, 8):
        assert state_of(store, f"fork {seq}") == [*range(1, seq + 1), 100]
        assert store.verify(f"fork {seq}").ok


@pytest.mark.parametrize("way", ["deleted", "archived"])
def test_a_fork_of_a_log_that_goes_elsewhere_right_behind_its_base(
    store: EventStore, way: str
) -> None:
    """The base alone has the link that the fork event stands behind."""
    grow(store, "u", 10)
    grow(store, "t", 50, 50)
    store.append("t", [Fork(position(store, "u", 7))], 50)
    grow(store, "t", 60)
    assert store.trim("t", 50).base == 50
    store.fork("t", 60, "child")
    wanted = [*range(1, 8), *range(52, 61)]
    assert numbers(store.replay("child").events) == wanted
    if way == "deleted":
        store.delete_thread("t")
        store.delete_thread("u")
    else:
        with store.dump("child") as dump:
            store.delete_thread("child")
            store.load(dump)
    assert numbers(store.replay("child").events) == wanted
    assert store.verify("child").ok
    if way == "deleted":
        assert not orphans(store)


def test_a_trimmed_fork_needs_its_parent_no_more(store: EventStore) -> None:
    grow(store, "parent", 5)
    store.fork("parent", 4, "t")
    head = store.head("t")
    head = store.append_after(
        head, [Event(1, {"n": 2})], snapshot=NewSnapshot(FINGERPRINT, b"1,2,3,4,2", b"")
    )
    fill(store, "t", 1, start=3)
    assert store.trim("t", 2).base == 2
    assert sql(store, "SELECT * FROM forks") == []
    store.delete_thread("parent")
    assert state_of(store, "t") == [1, 2, 3, 4, 2, 3]
    assert store.verify("t").namespaces == ("",)


def test_a_trimmed_fork_is_no_descendant_any_more(store: EventStore) -> None:
    """What docs/how-to/archive.md says about erasing: such forks are to be erased by name."""

    def found() -> set[str]:
        return {info.thread_id for info in store.descendants("source")}

    grow(store, "source", 5)
    store.fork("source", 4, "between")
    store.fork("source", 5, "trimmed")
    fill(store, "trimmed", 1)
    store.put_snapshot(store.head("trimmed"), NewSnapshot(FINGERPRINT, b"s", b""))
    fill(store, "trimmed", 1, start=2)
    store.append("between", [Event(1, {"n": n}) for n in range(1_200)], 1)
    store.put_snapshot(store.head("between"), NewSnapshot(FINGERPRINT, b"s", b""))
    fill(store, "between", 1, start=2)
    store.fork("between", store.head("between").seq, "grandchild")
    assert found() == {"between", "trimmed", "grandchild"}
    store.trim("trimmed", 2)
    assert found() == {"between", "grandchild"}
    store.delete_thread("between")
    assert found() == set()


def test_what_a_fork_was_given_of_a_deleted_parent_goes_when_it_is_trimmed(
    store: EventStore,
) -> None:
    grow(store, "parent", 5)
    store.fork("parent", 4, "t")
    store.delete_thread("parent")
    head = store.append_after(
        store.head("t"), [Event(1, {"n": 2})], snapshot=NewSnapshot(FINGERPRINT, b"1,2", b"")
    )
    grandchild = store.fork("t", 1, "grandchild")
    assert grandchild == 1
    fill(store, "t", 1, start=3)
    trimmed = store.trim("t", head.seq)
    assert trimmed.logs == 1
    assert trimmed.events == 6
    assert state_of(store, "t") == [1, 2, 3]
    assert state_of(store, "grandchild") == [1, 2, 3, 4]
    assert store.verify("t").namespaces == ("",)
    assert store.verify("grandchild").ok


def test_a_key_of_the_last_event_is_known_after_a_trim(store: EventStore) -> None:
    store.append("t", [Event(1, {"n": 1}), Event(1, {"n": 2}, key="k")], 0)
    store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, b"1,2", b""))
    store.trim("t", 2)
    assert store.append("t", [Event(1, {"n": 2}, key="k")], 1) == 2


def test_keys_of_what_went_are_forgotten(store: EventStore) -> None:
    payment = Event(1, {"pay": 1}, key="payment 1")
    assert store.append("t", [payment], 0) == 1
    fill(store, "t", 4, start=2)
    store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, b"s", b""))
    fill(store, "t", 1, start=6)
    assert store.append("t", [payment], 0) == 1
    assert store.head("t").seq == 6
    store.trim("t", 5)
    assert store.append("t", [payment], 6) == 7  # a second time, as the documentation says
    assert store.verify("t").ok


def test_a_trimmed_thread_can_be_deleted(store: EventStore, monkeypatch: Any) -> None:
    set_everywhere(monkeypatch, "DELETE_BATCH", 2)
    grow(store, "t", 10, 3, 10)
    store.trim("t", 3)
    key = store.head("t").thread_key
    store.delete_thread("t")
    assert rows_of(store, key) == {}
    grow(store, "t", 10, 10)
    store.trim("t", 10)
    key = store.head("t").thread_key
    store.delete_thread("t")
    assert rows_of(store, key) == {}


# --- other logs of the thread -----------------------------------------------------------


def test_logs_of_tasks_go_with_what_they_were_for(store: EventStore) -> None:
    grow(store, "t", 10, 5, 9)
    names = ["a:3.0", "a:3.0|b:1.0", "a:3.0|memory", "a:5.0", "a:8.1.2", "memory", "memory:2"]
    names += ["memory|b:2.0", "named:x.y", "a:4.0"]
    for name in names:
        fill(store, "t", 2, name)
    store.append("t", [Fork(position(store, "t", 2, "a:4.0"))], 0, "a:6.0")
    trimmed = store.trim("t", 5)
    assert (trimmed.logs, trimmed.events) == (3, 5 + 6)
    left = {"", "a:5.0", "a:8.1.2", "memory", "memory:2", "memory|b:2.0", "named:x.y"}
    assert set(store.verify("t").namespaces) == left | {"a:4.0", "a:6.0"}
    assert store.verify("t").ok
    with pytest.raises(PositionNotFoundError, match="begins at seq 5"):
        store.replay("t", "a:3.0", upto=position(store, "t", 1, "a:3.0"))
    assert store.trim("t", 9).logs == 4
    assert set(store.verify("t").namespaces) == {
        "",
        "memory",
        "memory:2",
        "memory|b:2.0",
        "named:x.y",
    }


NAMES = ["host:10.0.0.1", "report:1.pdf", "a:1.5", "model:3.5", "a:3.0|b:1.0", "plain"]


def test_logs_that_only_look_like_those_of_tasks_stay(store: EventStore) -> None:
    fill(store, "t", 5)
    store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, b"1,2,3,4,5", b""))
    fill(store, "t", 1, start=6)
    for name in NAMES:
        fill(store, "t", 2, name)
    told = store.trim("t", 5, dry_run=True)
    assert (told.logs, told.events) == (0, 5)
    assert store.trim("t", 5) == told
    assert set(store.verify("t").namespaces) == {"", *NAMES}
    assert store.verify("t").ok


def test_a_mark_is_of_a_task_only_if_all_of_it_is(store: EventStore) -> None:
    grow(store, "t", 6, 5)
    names = ["host:10.0.0.1", "report:1.pdf", "a:1.", "a:.0", "a:1F.0", "a:1.0.0.0"]
    for name in names:
        fill(store, "t", 2, name)
    assert store.trim("t", 5).logs == 0
    assert set(store.verify("t").namespaces) == {"", *names}


def test_forks_of_logs_that_go_are_given_what_they_need_together(store: EventStore) -> None:
    grow(store, "t", 10, 5)
    for name in ("a:3.0", "memory"):
        fill(store, "t", 3, name)
    store.fork("t", 4, "f")
    for name in ("a:3.0", "memory"):
        new = name.replace("3", "1")
        store.append("f", [Fork(position(store, "t", 2, name))], 0, new)
    store.trim("t", 5)
    key = store.head("t").thread_key
    assert sql(store, "SELECT * FROM forks WHERE source_thread_key = ?", (key,)) == []
    assert state_of(store, "f") == [1, 2, 3, 4]
    assert state_of(store, "f", ns="a:1.0") == [1, 2]
    assert state_of(store, "f", ns="memory") == [1, 2]
    assert store.verify("f").ok
    assert store.verify("t").ok
