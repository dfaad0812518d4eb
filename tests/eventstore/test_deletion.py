"""Deleting a thread: all or nothing, seen by nobody, and finished whatever happened (rule 6)."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from eventstore import (
    ConcurrencyError,
    CorruptEventError,
    Event,
    EventStore,
    EventStoreError,
    Fork,
    Head,
    NewSnapshot,
    PositionNotFoundError,
    ThreadNotFoundError,
)
from eventstore.format import digests as chain_module
from tests.eventstore.support import (
    FINGERPRINT,
    WRITES,
    Copies,
    Watch,
    begins_transaction,
    check_whole,
    fill,
    mark_for_deletion,
    numbers,
    orphans,
    rows_of,
    seal_now,
    set_everywhere,
    sql,
    tables_by_thread,
)

pytestmark = pytest.mark.every_backend


def fill_every_table(store: EventStore, thread_id: str = "t", count: int = 40) -> None:
    """A thread with several logs, snapshots that rest on each other, and forks of both kinds."""
    fill(store, thread_id, count)
    fill(store, thread_id, count, "sub")
    head = store.head(thread_id)
    head = store.append_after(
        head, [Event(1, {"n": 0})], snapshot=NewSnapshot(FINGERPRINT, b"", b"a")
    )
    store.append_after(
        head, [Event(1, {"n": 0}, key="k")], snapshot=NewSnapshot(FINGERPRINT, b"", b"b", head.seq)
    )
    store.append(thread_id, [Fork(head.position._replace(seq=3))], head.seq + 1)


def delete_in_small_batches(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let a deletion take many transactions although the thread is small."""
    set_everywhere(monkeypatch, "DELETE_BATCH", size)


# --- nothing is left --------------------------------------------------------------------


def test_every_row_of_every_table_is_gone(store: EventStore) -> None:
    fill_every_table(store, "t")
    fill_every_table(store, "kept")
    key = store.thread("t").thread_key
    tables = set(tables_by_thread(store)) - {"tombstones"}
    assert {"threads", "events", "snapshots", "forks"} <= set(rows_of(store, key)) <= tables
    kept = rows_of(store, store.thread("kept").thread_key)
    store.delete_thread("t", reason="asked to")
    assert rows_of(store, key) == {}
    assert rows_of(store, store.thread("kept").thread_key) == kept
    assert not orphans(store)
    assert store.finish_deletions() == 0
    (tombstone,) = sql(store, "SELECT thread_key, tenant, reason, events, bytes FROM tombstones")
    assert tombstone[:3] == (key, "test", "asked to")
    assert tombstone[3] == 40 + 40 + 3
    assert tombstone[4] > 0
    assert check_whole(store) == 1


def test_a_deleted_thread_is_gone_for_every_call(store: EventStore) -> None:
    fill_every_table(store)
    head, position = store.head("t"), store.head("t").position
    store.delete_thread("t")
    calls: list[Callable[[], Any]] = [
        lambda: list(store.read("t")),
        lambda: store.thread("t"),
        lambda: store.set_thread("t", pinned=True),
        lambda: store.delete_thread("t"),
        lambda: store.delete_snapshots("t"),
        lambda: store.verify("t"),
        lambda: store.stats("t"),
        lambda: store.append("t", [Event(1)], head.seq),
        lambda: store.append_after(head, [Event(1)]),
        lambda: store.append_after(head, [Event(1)] * 3),
        lambda: store.put_snapshot(head, NewSnapshot(FINGERPRINT, b"", b"")),
        lambda: store.fork("t", 1, "u"),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(ThreadNotFoundError) as caught:
            call()
        assert caught.value.thread_id == "t", number
    with pytest.raises(PositionNotFoundError):
        store.replay("t", upto=position)
    with pytest.raises(PositionNotFoundError):
        store.append("u", [Fork(position)], 0)
    assert store.threads() == []
    assert store.stats().events == 0
    assert store.head("t").seq == 0
    assert not orphans(store)


def test_deleting_who_is_not_there(store: EventStore) -> None:
    with pytest.raises(ThreadNotFoundError):
        store.delete_thread("nobody")


# --- the name is used again -------------------------------------------------------------


def test_a_new_thread_of_the_old_name_begins_at_one(store: EventStore) -> None:
    for life in range(12):
        fill(store, "t", 5, start=life * 10)
        assert numbers(store.read("t")) == list(range(life * 10, life * 10 + 5))
        store.delete_thread("t")
    assert store.stats().events == 0


def test_a_new_thread_while_the_old_ones_are_being_removed(store: EventStore) -> None:
    for life in range(3):
        assert fill(store, "t", 5, start=life * 10) == 5
        mark_for_deletion(store)
    assert fill(store, "t", 3, start=100) == 3
    assert [info.thread_id for info in store.threads()] == ["t"]
    assert store.finish_deletions() == 3
    assert numbers(store.read("t")) == [100, 101, 102]
    assert fill(store, "t", 1, start=103) == 4
    assert check_whole(store) == 1
    assert not orphans(store)


def stale_calls(store: EventStore, stale: Any) -> list[Callable[[], Any]]:
    """What a writer that slept through the deletion may try."""
    return [
        lambda: store.append_after(stale, [Event(1, {"n": 666})]),
        lambda: store.append_after(stale, [Event(1, {"n": 666})] * 3),
        lambda: store.append_after(stale, [Event(1)], status="failed"),
        lambda: store.put_snapshot(stale, NewSnapshot(FINGERPRINT, b"old", b"")),
    ]


@pytest.mark.parametrize("length", [1, 3, 5, 8])
def test_a_writer_of_the_former_thread_cannot_touch_the_new_one(
    store: EventStore, length: int
) -> None:
    """It knows an end (seq 5) that the new thread has not reached, has, or has passed."""
    fill(store, "t", 5)
    stale = store.head("t")
    store.delete_thread("t")
    fill(store, "t", length, start=100)
    for number, call in enumerate(stale_calls(store, stale)):
        with pytest.raises((ThreadNotFoundError, ConcurrencyError)):
            call()
        assert numbers(store.read("t")) == list(range(100, 100 + length)), number
        assert store.verify("t").problems == (), number
        assert store.replay("t", fingerprint=FINGERPRINT).snapshot is None, number
        assert store.thread("t").status == "idle"


def test_a_position_of_the_former_thread_is_not_one_of_the_new(store: EventStore) -> None:
    fill(store, "t", 5)
    position = store.head("t").position
    store.delete_thread("t")
    fill(store, "t", 5, start=100)
    with pytest.raises(PositionNotFoundError):
        store.append("u", [Fork(position)], 0)


def test_a_reader_of_the_former_thread_is_told(store: EventStore) -> None:
    """Not that the bytes are damaged, and not the other thread's events."""
    fill(store, "t", 600)
    reader = store.read("t")
    seen = [next(reader)]
    store.delete_thread("t")
    fill(store, "t", 600, start=1_000)
    with pytest.raises(ThreadNotFoundError):
        seen.extend(reader)
    assert numbers(seen) == list(range(1, len(seen) + 1))


# --- racing -----------------------------------------------------------------------------


def test_a_reader_racing_a_deletion_is_told(store: EventStore) -> None:
    fill(store, "t", 600)
    reader, replay = store.read("t"), store.replay("t").events
    for events in (reader, replay):
        next(events)
    store.delete_thread("t")
    for events in (reader, replay):
        with pytest.raises(ThreadNotFoundError):
            list(events)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITES)
def test_a_deletion_at_any_moment_of_another_call(tmp_path: Path, name: str) -> None:
    """Before each transaction of the call, another process deletes the thread."""
    for moment in itertools.count(1):
        path = tmp_path / f"{moment}.db"
        with EventStore(path) as store, EventStore(path) as caller:
            fill(store, "t", 5)
            head = store.head("t")
            seen = 0

            def remove(statement: str, other: EventStore = store, moment: int = moment) -> None:
                nonlocal seen
                if begins_transaction(statement):
                    seen += 1
                    if seen == moment:
                        other.delete_thread("t")

            watch = Watch(caller, remove)
            caller.setup()
            with watch.on():
                try:
                    WRITES[name](caller, head)
                except ThreadNotFoundError:
                    assert seen >= moment
            if seen >= moment and not store.head("t").exists:
                assert rows_of(store, head.thread_key) == {}
            check_whole(store)
            assert not orphans(store)
        if seen < moment:
            break


@pytest.mark.slow
@pytest.mark.parametrize("name", ["append_after", "put_snapshot", "set_thread"])
def test_another_call_at_any_moment_of_a_deletion(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each transaction of the deletion, another process calls."""
    delete_in_small_batches(monkeypatch, 2)
    refused = 0
    for moment in itertools.count(1):
        path = tmp_path / f"{moment}.db"
        with EventStore(path) as store, EventStore(path) as deleter:
            fill(store, "t", 5)
            head = store.head("t")
            seen = 0

            def call(
                statement: str,
                other: EventStore = store,
                moment: int = moment,
                head: Head = head,
            ) -> None:
                nonlocal seen, refused
                if begins_transaction(statement):
                    seen += 1
                    if seen == moment:
                        try:
                            WRITES[name](other, head)
                        except ThreadNotFoundError:
                            refused += 1
                        else:
                            assert moment == 1

            watch = Watch(deleter, call)
            deleter.setup()
            with watch.on():
                deleter.delete_thread("t")
            assert rows_of(store, head.thread_key) == {}
            assert not orphans(store)
        if seen < moment:
            break
    assert refused >= 3


@pytest.mark.slow
def test_two_finish_the_same_deletion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each transaction of one, the other does it all; and a namesake is made, too."""
    delete_in_small_batches(monkeypatch, 30)
    clock = lambda: datetime(2030, 1, 1, tzinfo=UTC)  # noqa: E731
    for renamed in (False, True):
        for moment in itertools.count(1):
            path = tmp_path / f"{moment}-{renamed}.db"
            with EventStore(path, clock=clock) as store, EventStore(path, clock=clock) as second:
                fill_every_table(store)
                store.fork("t", 20, "child")
                mark_for_deletion(store, "t")
                seen = 0

                def finish(
                    statement: str,
                    other: EventStore = store,
                    moment: int = moment,
                    renamed: bool = renamed,
                ) -> None:
                    nonlocal seen
                    if begins_transaction(statement):
                        seen += 1
                        if seen == moment:
                            other.finish_deletions()
                            if renamed:
                                fill(other, "t", 30, start=500)

                watch = Watch(second, finish)
                second.setup()
                with watch.on():
                    second.finish_deletions()
                if renamed and seen >= moment:
                    assert numbers(store.read("t")) == list(range(500, 530)), moment
                assert numbers(store.replay("child").events) == list(range(1, 21))
                check_whole(store)
                assert not orphans(store)
                assert sql(store, "SELECT count(*) FROM tombstones") == [(1,)]
            if seen < moment:
                break


@pytest.mark.slow
def test_writers_readers_and_a_deleter_at_full_speed(store_url: str) -> None:
    with EventStore(store_url) as store:
        stop = threading.Event()
        problems: list[BaseException] = []
        lives: list[int] = []

        def write() -> None:
            while not stop.is_set():
                try:
                    head = store.head("t")
                    for number in range(head.seq + 1, head.seq + 6):
                        head = store.append_after(head, [Event(1, {"n": number})])
                except (ThreadNotFoundError, ConcurrencyError):
                    continue
                except BaseException as error:
                    problems.append(error)
                    return

        def read() -> None:
            while not stop.is_set():
                try:
                    found = numbers(store.read("t"))
                    assert found == list(range(1, len(found) + 1))
                except ThreadNotFoundError:
                    continue
                except BaseException as error:
                    problems.append(error)
                    return

        threads = [threading.Thread(target=target) for target in (write, write, read)]
        for thread in threads:
            thread.start()
        timer = threading.Event()
        for _ in range(40):
            timer.wait(0.02)
            try:
                store.delete_thread("t")
                lives.append(1)
            except ThreadNotFoundError:
                continue
            except EventStoreError as error:
                problems.append(error)
                break
        stop.set()
        for thread in threads:
            thread.join()
        assert not problems, problems[0]
        assert len(lives) > 5
        check_whole(store)
        assert not orphans(store)


# --- cut short --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_deletion_cut_short_at_any_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are copied before every statement: each copy is what a kill -9 leaves."""
    delete_in_small_batches(monkeypatch, 9)
    path = tmp_path / "store.db"
    with EventStore(path) as store:
        fill_every_table(store, count=12)
        key = store.thread("t").thread_key
        store.fork("t", 9, "child")
        store.fork("t", 12, "grown")
        fill(store, "grown", 3, start=900)
        copies = Copies(path, tmp_path)
        with EventStore(path) as deleter:
            watch = Watch(deleter, copies.take)
            deleter.setup()
            with watch.on():
                deleter.delete_thread("t")
    assert len(copies.paths) >= 4
    whole = 0
    for copied in copies.paths:
        with EventStore(copied) as store:
            if store.head("t").exists:
                whole += 1
                assert store.head("t").seq == 15
                assert check_whole(store) == 3
                store.delete_thread("t")
            else:
                assert [info.thread_id for info in store.threads(prefix="t")] == []
                assert numbers(store.replay("child").events) == list(range(1, 10))
                fill(store, "t", 2, start=70)  # a namesake meanwhile
                assert check_whole(store) == 3
                store.finish_deletions()
                assert numbers(store.read("t")) == [70, 71]
                store.delete_thread("t")
            assert store.finish_deletions() == 0
            assert rows_of(store, key) == {}
            assert not orphans(store)
            assert numbers(store.replay("child").events) == list(range(1, 10))
            assert numbers(store.replay("grown").events) == [*range(1, 13), 900, 901, 902]
            assert check_whole(store) == 2
    assert 0 < whole < len(copies.paths)


def test_finish_deletions_is_of_one_tenant(store: EventStore) -> None:
    with EventStore(store.engine, tenant="other") as other:
        fill(store, "t", 3)
        fill(other, "t", 3)
        mark_for_deletion(store)
        assert store.finish_deletions() == 1
        assert sql(store, "SELECT tenant FROM threads") == [("other",)]
        assert other.finish_deletions() == 1
        assert not orphans(store)


def test_a_damaged_segment_does_not_stop_a_deletion(store: EventStore) -> None:
    fill(store, "t", 30)
    store.fork("t", 20, "child")
    store.fork("t", 5, "other child")
    fill(store, "child", 5, start=21)
    seal_now(store, "t")
    key = store.thread("t").thread_key
    sql(store, "UPDATE segments SET payload = x'0201abcd' WHERE thread_key = ?", (key,))
    assert store.delete_thread("t")
    assert not orphans(store)
    for name in ("child", "other child"):  # what was damaged before still is, and is found
        assert not store.verify(name).ok
        with pytest.raises(CorruptEventError):
            list(store.replay(name).events)
    assert numbers(store.read("child")) == list(range(21, 26))
    assert store.delete_thread("child")
    assert store.delete_thread("other child")
    assert sql(store, "SELECT count(*) FROM segments") == [(0,)]


def test_a_damaged_thread_stops_no_other_deletion(store: EventStore) -> None:
    names = [f"t{number}" for number in range(6)]
    for name in names:
        fill(store, name, 3)
    mark_for_deletion(store)
    sql(store, "UPDATE threads SET fate = 'damaged' WHERE thread_id IN ('t0', 't3', 't5')")
    with pytest.raises(CorruptEventError, match=r"'t[035]'"):
        store.finish_deletions()
    left = sql(store, "SELECT thread_id FROM threads ORDER BY thread_id")
    assert left == [("t0",), ("t3",), ("t5",)]
    sql(store, "UPDATE threads SET fate = NULL")
    assert store.finish_deletions() == 3
    assert not orphans(store)


@pytest.mark.parametrize("checksum", ["checksum", "NULL"], ids=["now", "older version"])
def test_a_mark_that_only_the_row_has_deletes_nothing(store: EventStore, checksum: str) -> None:
    """A bit of a row may have become a mark: what is deleted has one in its logs, too."""
    for name in ("marked", "damaged", "other"):
        fill(store, name, 3)
    store.append("damaged", [Event(1, 1)], 0, "sub")
    mark_for_deletion(store, "marked")
    sql(
        store,
        f"UPDATE threads SET condemned_at = 7, checksum = {checksum} WHERE thread_id = 'damaged'",
    )
    with pytest.raises(CorruptEventError, match=r"'damaged', which is being deleted, is damaged"):
        store.finish_deletions()
    assert sorted(sql(store, "SELECT thread_id FROM threads")) == [("damaged",), ("other",)]
    sql(store, "UPDATE threads SET condemned_at = NULL")
    assert len(numbers(store.read("damaged"))) == 3 and store.verify("damaged").ok
    assert store.finish_deletions() == 0


# --- names whose hashes are the same ----------------------------------------------------


def collide(monkeypatch: pytest.MonkeyPatch, spaces: int) -> None:
    """Names t0, t1, … share their keys, for every life, with each spaces-th other."""

    def few(tenant: str, thread_id: str, life: int) -> int:
        return 1_000 * (int(thread_id[1:]) % spaces + 1) + life

    monkeypatch.setattr(chain_module, "thread_key", few)


def test_hash_collisions(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    collide(monkeypatch, 3)
    names = [f"t{number}" for number in range(6)]
    for life in range(3):
        for number, name in enumerate(names):
            fill(store, name, 3, start=number * 10 + life * 100)
        for number, name in enumerate(names):
            start = number * 10 + life * 100
            assert numbers(store.read(name)) == list(range(start, start + 3))
            assert fill(store, name, 1, start=start + 3) == 4
        assert len({info.thread_key for info in store.threads()}) == len(names)
        assert check_whole(store) == len(names)
        for name in names[::2]:
            store.delete_thread(name)
        for name in names[1::2]:
            assert len(list(store.read(name))) == 4
            store.delete_thread(name)
        assert not orphans(store)


def test_collisions_with_one_that_goes_away(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleting the thread that has the first key must not hide the one behind it."""
    monkeypatch.setattr(chain_module, "thread_key", lambda tenant, name, salt: 7 + salt)
    fill(store, "a", 2, start=10)
    fill(store, "b", 2, start=20)
    store.delete_thread("a")
    assert numbers(store.read("b")) == [20, 21]
    fill(store, "c", 2, start=30)
    assert numbers(store.read("b")) == [20, 21]
    assert numbers(store.read("c")) == [30, 31]
    assert fill(store, "b", 1, start=22) == 3
    assert check_whole(store) == 2


def test_two_names_race_for_the_same_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_module, "thread_key", lambda tenant, name, salt: 7 + salt)
    path = tmp_path / "store.db"
    with EventStore(path) as store, EventStore(path) as other:
        head = store.head("a")
        fill(other, "b", 3, start=20)
        assert store.append_after(head, [Event(1, {"n": 10})]).position.thread_key == 8
        assert numbers(store.read("a")) == [10]
        assert numbers(store.read("b")) == [20, 21, 22]
        assert check_whole(store) == 2
