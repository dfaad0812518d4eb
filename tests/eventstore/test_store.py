"""Appending and reading: batches, keys, lost commits, bounds, and that reading never writes."""

from __future__ import annotations

import gc
import hashlib
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext

from eventstore import (
    FORK,
    Addition,
    ConcurrencyError,
    DuplicateKeyError,
    Event,
    EventStore,
    EventStoreError,
    Fork,
    NewSnapshot,
    PositionNotFoundError,
    SerializationError,
    StoreUnavailableError,
    ThreadNotFoundError,
)
from eventstore.dialects import sqlite_driver
from tests.eventstore.support import (
    FINGERPRINT,
    check_whole,
    data_of,
    fill,
    is_sqlite,
    numbers,
    rows_of,
    set_everywhere,
    sql,
    tables_by_thread,
)

# --- appending --------------------------------------------------------------------------


def test_events_come_back_as_they_went_in(store: EventStore) -> None:
    values = [
        None,
        1,
        "text",
        b"bytes",
        [1, [2]],
        {"a": {"b": 1.5}},
        datetime(2024, 1, 1, tzinfo=UTC),
    ]
    batch = [Event(kind, value) for kind, value in enumerate(values, 1)]
    assert store.append("t", batch, 0) == len(values)
    read = list(store.read("t"))
    assert [e.data for e in read] == values
    assert [e.kind for e in read] == list(range(1, len(values) + 1))
    assert [e.seq for e in read] == list(range(1, len(values) + 1))
    assert len({e.digest for e in read}) == len(values)
    assert all(len(e.digest) == 16 and e.ns == "" and e.key is None for e in read)


def test_namespaces_are_logs_of_their_own(store: EventStore) -> None:
    for ns in ("", "child", "child/grandchild", "ns with spaces", "ünï"):
        assert fill(store, "t", 3, ns) == 3
    assert fill(store, "t", 2, "child", start=4) == 5
    assert [e["n"] for e in data_of(store, "t", "child")] == [1, 2, 3, 4, 5]
    assert [e["n"] for e in data_of(store, "t")] == [1, 2, 3]
    assert store.head("t", "never").seq == 0
    assert data_of(store, "t", "never") == []
    assert set(store.verify("t").namespaces) == {
        "",
        "child",
        "child/grandchild",
        "ns with spaces",
        "ünï",
    }


def test_recorded_at_is_the_clocks_time_to_the_microsecond(store_url: str) -> None:
    moment = datetime(2031, 5, 6, 7, 8, 9, 123457, tzinfo=UTC)
    with EventStore(store_url, clock=lambda: moment) as store:
        store.append("t", [Event(1)], 0)
        (read,) = store.read("t")
        assert read.recorded_at == moment
        assert store.thread("t").created_at == moment


def test_a_clock_that_goes_backwards_harms_nothing(store_url: str) -> None:
    moments = iter(datetime(2030, 1, 1, tzinfo=UTC) - timedelta(days=d) for d in range(1000))
    with EventStore(store_url, clock=lambda: next(moments)) as store:
        for seq in range(10):
            store.append("t", [Event(1, seq)], seq)
        assert data_of(store, "t") == list(range(10))
        assert store.verify("t").ok


def test_append_after_saves_the_look_and_returns_the_next_head(store: EventStore) -> None:
    head = store.head("t")
    assert (head.seq, head.exists) == (0, False)
    for number in range(1, 6):
        head = store.append_after(head, [Event(1, number)])
        assert head == store.head("t") or head.seq == store.head("t").seq
        assert head.digest == store.head("t").digest
        assert head.position == store.head("t").position
        assert head.written > 0
    assert data_of(store, "t") == [1, 2, 3, 4, 5]


def test_an_empty_batch_is_refused(store: EventStore) -> None:
    with pytest.raises(ValueError):
        store.append("t", [], 0)
    assert not store.head("t").exists


@pytest.mark.parametrize("kind", [0, -1, 32768, 10**9])
def test_a_kind_out_of_range_is_refused(kind: int) -> None:
    with pytest.raises(ValueError):
        Event(kind)


@pytest.mark.parametrize("expected", [-1, 2, 1_000, 2**62, 2**70])
def test_a_wrong_expected_seq_is_a_concurrency_error(store: EventStore, expected: int) -> None:
    store.append("t", [Event(1)], 0)
    with pytest.raises(ConcurrencyError) as caught:
        store.append("t", [Event(1)], expected, "")
    assert (caught.value.thread_id, caught.value.ns) == ("t", "")
    assert (caught.value.expected, caught.value.actual) == (expected, 1)
    assert store.head("t").seq == 1


def test_expecting_events_of_a_thread_that_is_not_there(store: EventStore) -> None:
    with pytest.raises(ThreadNotFoundError) as caught:
        store.append("t", [Event(1)], 3)
    assert (caught.value.thread_id, caught.value.tenant) == ("t", "test")
    assert not store.head("t").exists


class Opaque:
    """A type that no codec knows."""


def test_what_cannot_be_stored_is_refused_before_anything_is_written(store: EventStore) -> None:
    batch = [Event(1, "fine"), Event(1, {"messages": [1, {"attachment": Opaque()}]})]
    for expected in (0, 1):
        with pytest.raises(SerializationError) as caught:
            store.append("t", batch, expected)
        assert caught.value.path == "messages[1].attachment"
        assert "Opaque" in caught.value.type_name
        assert store.head("t").seq == expected
        if not expected:
            assert not store.head("t").exists
            store.append("t", [Event(1)], 0)


def test_metadata_that_is_not_json_is_a_serialization_error(store: EventStore) -> None:
    with pytest.raises(SerializationError):
        store.append("t", [Event(1)], 0, metadata={"a": Opaque()})
    assert not store.head("t").exists


def test_a_payload_of_a_megabyte(store: EventStore) -> None:
    noise = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(2**15))
    store.append("t", [Event(1, noise), Event(1, "x" * 2**20)], 0)
    assert data_of(store, "t") == [noise, "x" * 2**20]
    stats = store.stats("t")
    assert stats.stored_bytes < 2**20 + 40_000 < stats.raw_bytes


def test_a_batch_of_five_thousand_is_one_transaction(store: EventStore) -> None:
    assert fill(store, "t", 5_000) == 5_000
    assert numbers(store.read("t")) == list(range(1, 5_001))
    batch = [Event(1, n, key=f"k{n}") for n in range(4_999)]
    with pytest.raises(DuplicateKeyError):
        store.append("t", [*batch, Event(1, -1, key="k0")], 5_000)
    assert store.head("t").seq == 5_000


# --- the loser of a race, and keys ------------------------------------------------------


def test_the_losers_batch_leaves_nothing(store: EventStore) -> None:
    stale = store.head("t")
    fill(store, "t", 3)
    with pytest.raises(ConcurrencyError) as caught:
        store.append_after(stale, [Event(1, "lost")])
    assert (caught.value.expected, caught.value.actual) == (0, 3)
    stale = store.head("t")
    fill(store, "t", 2, start=4)
    with pytest.raises(ConcurrencyError) as caught:
        store.append_after(stale, [Event(1, "lost")] * 5)
    assert (caught.value.expected, caught.value.actual) == (3, 5)
    assert numbers(store.read("t")) == [1, 2, 3, 4, 5]


def test_a_snapshot_of_the_loser_is_not_stored(store: EventStore) -> None:
    fill(store, "t", 1)
    stale = store.head("t")
    fill(store, "t", 1, start=2)
    with pytest.raises(ConcurrencyError):
        store.append_after(stale, [Event(1)], snapshot=NewSnapshot(FINGERPRINT, b"", b""))
    assert store.stats("t").snapshots == 0


def test_two_logs_of_a_new_thread_may_be_begun_at_the_same_time(store: EventStore) -> None:
    first, second = store.head("t", "a"), store.head("t", "b")
    assert not first.exists
    assert store.append_after(first, [Event(1, "a")]).seq == 1
    assert store.append_after(second, [Event(1, "b")]).seq == 1
    assert data_of(store, "t", "b") == ["b"]


def test_appending_again_under_the_same_keys_is_harmless(store: EventStore) -> None:
    batch = [Event(1, n, key=f"k{n}") for n in range(3)]
    assert store.append("t", batch, 0) == 3
    assert store.append("t", batch, 0) == 3
    fill(store, "t", 4, start=10)
    assert store.append("t", batch, 0) == 3
    assert store.head("t").seq == 7


def test_a_caller_that_read_the_head_again_may_repeat_its_keys(store: EventStore) -> None:
    """After a crash a caller knows the key of what it wanted to say, and reads the head anew."""
    batch = [Event(1, n, key=f"k{n}") for n in range(3)]
    store.append("t", batch, 0)
    assert store.append("t", batch, 3) == 3
    assert store.head("t").seq == 3


def test_a_key_is_unique_in_its_log_only(store: EventStore) -> None:
    store.append("t", [Event(1, "root", key="k")], 0)
    store.append("t", [Event(1, "child", key="k")], 0, "child")
    store.append("u", [Event(1, "other", key="k")], 0)
    with pytest.raises(DuplicateKeyError) as caught:
        store.append("t", [Event(1, "free", key="free"), Event(1, "other", key="k")], 1)
    error = caught.value
    assert (error.thread_id, error.ns, error.key, error.seq) == ("t", "", "k", 1)
    assert store.head("t").seq == 1


def test_other_content_under_the_same_key_is_an_error_on_retry_too(store: EventStore) -> None:
    store.append("t", [Event(1, "a", key="k")], 0)
    for other in (Event(1, "b", key="k"), Event(2, "a", key="k")):
        with pytest.raises(DuplicateKeyError):
            store.append("t", [other], 0)


def test_a_key_twice_in_one_batch(store: EventStore) -> None:
    with pytest.raises(DuplicateKeyError) as caught:
        store.append("t", [Event(1, 1, key="a"), Event(1, 2, key="a"), Event(1, 3, key="b")], 0)
    assert caught.value.key == "a"
    assert not store.head("t").exists


def test_part_of_a_batch_under_its_keys_is_no_retry(store: EventStore) -> None:
    store.append("t", [Event(1, 1, key="a")], 0)
    with pytest.raises(ConcurrencyError):
        store.append("t", [Event(1, 1, key="a"), Event(1, 2, key="b")], 0)
    assert store.head("t").seq == 1


@pytest.mark.parametrize("key", ["", "ключ", "k" * 10_000, "'; DROP TABLE events; --"])
def test_keys_of_any_text(store: EventStore, key: str) -> None:
    assert store.append("t", [Event(1, "x", key=key)], 0) == 1
    assert store.append("t", [Event(1, "x", key=key)], 0) == 1
    fill(store, "t", 1)
    assert store.append("t", [Event(1, "x", key=key)], 0) == 1
    assert [e.key for e in store.read("t")] == [key, None]
    assert store.verify("t").ok


# --- commits whose outcome is lost ------------------------------------------------------


class Lossy:
    """A real engine on a file; commits of writes fail on demand, before or after they happen."""

    def __init__(self, path: Path) -> None:
        self.before = 0
        self.after = 0
        driver = sqlite_driver()
        lossy = self

        class Connection(driver.Connection):  # type: ignore[misc, name-defined]
            written = 0

            def commit(self) -> None:
                self._lose(super().commit)

            def execute(self, statement: str, *parameters: Any) -> Any:
                run = super().execute
                if statement.strip().upper() in ("COMMIT", "END"):
                    return self._lose(lambda: run(statement, *parameters))
                return run(statement, *parameters)

            def _lose(self, commit: Callable[[], Any]) -> Any:
                wrote = self.total_changes > self.written
                self.written = self.total_changes
                return lossy.lose(commit) if wrote else commit()

        def connect() -> Any:
            return driver.connect(
                str(path), factory=Connection, isolation_level=None, check_same_thread=False
            )

        self.engine: Engine = create_engine(
            f"sqlite:///{path}", module=driver, creator=connect, pool_size=4
        )
        self._error = driver.OperationalError
        event.listen(self.engine, "handle_error", self._handle)

    def lose(self, commit: Callable[[], Any]) -> Any:
        if self.before:
            self.before -= 1
            raise self._error("server closed the connection unexpectedly")
        done = commit()
        if self.after:
            self.after -= 1
            raise self._error("server closed the connection unexpectedly")
        return done

    def _handle(self, context: ExceptionContext) -> None:
        if "closed the connection" in str(context.original_exception):
            context.is_disconnect = True


@pytest.fixture
def lossy(tmp_path: Path) -> Iterator[Lossy]:
    made = Lossy(tmp_path / "lossy.db")
    yield made
    made.engine.dispose()


@contextmanager
def opened(lossy: Lossy) -> Iterator[EventStore]:
    with EventStore(lossy.engine, tenant="test") as store:
        store.setup()
        yield store


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("new", [True, False], ids=["new thread", "known thread"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_commit_is_appended_exactly_once(
    lossy: Lossy, moment: str, new: bool, keyed: bool
) -> None:
    with opened(lossy) as store:
        expected = 0 if new else fill(store, "t", 2)
        batch = [Event(1, {"n": n}, key=f"k{n}" if keyed else None) for n in (7, 8, 9)]
        setattr(lossy, moment, 1)
        assert store.append("t", batch, expected) == expected + 3
        assert numbers(store.read("t", after=expected)) == [7, 8, 9]
        assert store.head("t").seq == expected + 3
        assert store.append("t", [Event(1, {"n": 10})], expected + 3) == expected + 4
        assert store.verify("t").ok


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_commit_with_a_snapshot_and_status(lossy: Lossy, moment: str) -> None:
    with opened(lossy) as store:
        fill(store, "t", 1)
        setattr(lossy, moment, 1)
        head = store.append_after(
            store.head("t"),
            [Event(1, {"n": 2})],
            status="waiting",
            snapshot=NewSnapshot(FINGERPRINT, b"state", b""),
        )
        assert head.seq == 2
        assert store.thread("t").status == "waiting"
        replay = store.replay("t", fingerprint=FINGERPRINT)
        assert replay.snapshot is not None and replay.snapshot.state == b"state"
        assert store.append_after(head, [Event(1, {"n": 3})]).seq == 3


@pytest.mark.parametrize("new", [True, False], ids=["new thread", "known thread"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_commit_to_several_logs(lossy: Lossy, moment: str, new: bool) -> None:
    with opened(lossy) as store:
        expected = 0 if new else fill(store, "t", 2)
        heads = [store.head("t"), store.head("t", "sub")]
        setattr(lossy, moment, 1)
        batch = [Event(1, {"n": 7}), Event(1, {"n": 8})]
        heads = store.append_together([Addition(head, batch) for head in heads])
        assert [head.seq for head in heads] == [expected + 2, 2]
        assert numbers(store.read("t", after=expected)) == [7, 8]
        assert numbers(store.read("t", "sub")) == [7, 8]
        store.append_together([Addition(head, batch) for head in heads])
        assert store.verify("t").ok


def test_a_commit_lost_while_a_namesake_is_being_removed(lossy: Lossy) -> None:
    """The new thread lives under another key than the one first thought of."""
    with opened(lossy) as store:
        fill(store, "t", 3)
        sql(store, "UPDATE threads SET condemned_at = 1")
        lossy.after = 1
        head = store.append_after(store.head("t"), [Event(1, {"n": 1})])
        assert head.position == store.head("t").position
        assert numbers(store.read("t")) == [1]
        assert store.append_after(head, [Event(1, {"n": 2})]).seq == 2


def test_losing_several_commits_in_a_row(lossy: Lossy) -> None:
    with opened(lossy) as store:
        fill(store, "t", 1)
        lossy.before = 3
        assert fill(store, "t", 2, start=2) == 3
        assert numbers(store.read("t")) == [1, 2, 3]


def test_losing_every_commit_is_an_error_within_a_bound(lossy: Lossy) -> None:
    with opened(lossy) as store:
        fill(store, "t", 1)
        lossy.before = 10**6
        with pytest.raises(StoreUnavailableError):
            fill(store, "t", 1, start=2)
        tries = 10**6 - lossy.before
        assert 2 <= tries <= 20
        lossy.before = 0
        assert store.head("t").seq == 1


def test_another_writer_takes_the_place_of_a_commit_that_failed(
    lossy: Lossy, tmp_path: Path
) -> None:
    with opened(lossy) as store, opened(lossy) as other:
        fill(store, "t", 1)
        head = store.head("t")
        lossy.before = 1
        once = iter([True])

        def handle(context: ExceptionContext) -> None:
            if next(once, False):
                raw: Any = context.connection and context.connection.connection.dbapi_connection
                raw.rollback()
                other.append("t", [Event(1, {"n": 99})], 1)

        event.listen(lossy.engine, "handle_error", handle)
        try:
            with pytest.raises(ConcurrencyError) as caught:
                store.append_after(head, [Event(1, {"n": 2})])
        finally:
            event.remove(lossy.engine, "handle_error", handle)
        assert (caught.value.expected, caught.value.actual) == (1, 2)
        assert numbers(store.read("t")) == [1, 99]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_commit_of_everything_else_can_be_repeated(lossy: Lossy, moment: str) -> None:
    """Other writes say that the store was unavailable; doing them again ends well."""
    with opened(lossy) as store:
        fill(store, "t", 3)
        fill(store, "gone", 3)
        steps: list[Callable[[], Any]] = [
            lambda: store.set_thread("t", pinned=True, metadata={"a": 1}),
            lambda: store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, b"s", b"")),
            lambda: store.delete_snapshots("t"),
            lambda: store.delete_thread("gone"),
        ]
        for step in steps:
            setattr(lossy, moment, 1)
            try:
                step()
            except StoreUnavailableError:
                pass
            except ThreadNotFoundError:
                assert step is steps[-1]
            lossy.before = lossy.after = 0
            try:
                step()
            except ThreadNotFoundError:
                assert step is steps[-1]
        store.finish_deletions()
        assert not store.head("gone").exists
        assert store.thread("t").pinned
        assert check_whole(store) == 1


# --- reading ----------------------------------------------------------------------------


def test_read_bounds(store: EventStore) -> None:
    fill(store, "t", 600)
    everything = list(range(1, 601))
    for after, upto in [
        (0, None), (0, 600), (0, 10_000), (1, None), (255, 257), (256, 512), (599, None),
        (600, None), (10_000, None), (5, 5), (9, 3), (-7, 2), (0, 0), (0, -1), (2**70, None),
        (0, 2**70),
    ]:  # fmt: skip
        stop = 600 if upto is None else max(upto, 0)
        wanted = everything[max(after, 0) : stop]
        assert numbers(store.read("t", after=after, upto=upto)) == wanted, (after, upto)


def test_reading_a_thread_that_is_not_there_fails_at_the_call(store: EventStore) -> None:
    with pytest.raises(ThreadNotFoundError):
        store.read("nobody")
    replay = store.replay("nobody")
    assert not replay.head.exists
    assert list(replay.events) == []


def test_a_reader_sees_the_log_as_it_was_when_it_asked(store: EventStore) -> None:
    fill(store, "t", 300)
    reader = store.read("t")
    next(reader)
    fill(store, "t", 300, start=301)
    assert numbers(reader) == list(range(2, 301))


def test_many_half_read_logs_hold_nothing(store: EventStore) -> None:
    """No connection is held between two pages, or a forgotten iterator would block others."""
    fill(store, "t", 600)
    readers = [store.read("t") for _ in range(50)]
    for reader in readers:
        next(reader)
    fill(store, "t", 1, start=601)
    assert all(next(reader).seq == 2 for reader in readers)


def test_reading_twenty_thousand_events_takes_bounded_memory(tmp_path: Path) -> None:
    with EventStore(tmp_path / "store.db") as store:
        text = "x" * 300
        for start in range(0, 20_000, 5_000):
            store.append("t", [Event(1, [n, text]) for n in range(start, start + 5_000)], start)
        gc.collect()
        tracemalloc.start()
        try:
            count = sum(1 for _ in store.replay("t").events)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert count == 20_000
    assert peak < 4 * 2**20, f"{peak} bytes at the peak"


@given(batches=st.lists(st.integers(1, 40), max_size=12), after=st.integers(0, 300))
def test_any_batches_read_back_whole(batches: list[int], after: int) -> None:
    with EventStore() as store:
        seq = 0
        for size in batches:
            seq = fill(store, "t", size, start=seq + 1)
        if batches:
            assert numbers(store.read("t", after=after)) == list(range(after + 1, seq + 1))
            assert store.stats("t").events == seq


# --- reading never writes ---------------------------------------------------------------


def read_everything(store: EventStore) -> None:
    """Every reading call there is."""
    list(store.read("t"))
    store.head("t")
    list(store.replay("t").events)
    list(store.replay("t", fingerprint=FINGERPRINT).events)
    list(store.replay("f", snapshots=False).events)
    store.threads(prefix="t", metadata={"a": 1})
    store.thread("t")
    assert store.verify("t").ok
    store.stats()
    store.stats("t")
    for wrong in (lambda: store.read("nobody"), lambda: store.thread("nobody")):
        with pytest.raises(EventStoreError):
            wrong()


def fill_for_reading(store: EventStore) -> None:
    fill(store, "t", 300)
    fill(store, "t", 3, "child")
    store.append_after(store.head("t"), [Event(1)], snapshot=NewSnapshot(FINGERPRINT, b"s", b"i"))
    store.append("t", [Fork(store.head("t").position._replace(seq=7))], 301)
    store.fork("t", 250, "f")


def test_reading_changes_no_byte_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with EventStore(path) as store:
        fill_for_reading(store)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert set(before) == {"store.db"}  # the last to close leaves no other file behind
    with EventStore(path) as store:
        read_everything(store)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert not changed


def test_reading_works_where_writing_is_forbidden(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_everywhere(monkeypatch, "ATTEMPTS", 2)  # a standby may be a failover that soon ends
    fill_for_reading(store)

    def forbid(connection: Any, _record: Any, _proxy: Any = None) -> None:
        if is_sqlite(store):
            connection.execute("PRAGMA query_only = ON")
        else:
            connection.cursor().execute("SET default_transaction_read_only = on")
            connection.commit()

    engine: Any = store.database.engine
    event.listen(getattr(engine, "sync_engine", engine), "checkout", forbid)
    read_everything(store)
    with pytest.raises(StoreUnavailableError):
        fill(store, "t", 1)


def test_reading_a_read_only_connection(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with EventStore(path) as store:
        fill_for_reading(store)
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        with EventStore(f"sqlite:///file:{path}?mode=ro&immutable=1&uri=true") as store:
            read_everything(store)
            with pytest.raises(StoreUnavailableError):
                fill(store, "t", 1)
    finally:
        tmp_path.chmod(0o755)


# --- counting ---------------------------------------------------------------------------


def test_stats_count_what_is_there(store: EventStore) -> None:
    assert store.stats().events == 0
    fill_for_reading(store)
    of_t, of_f, of_all = store.stats("t"), store.stats("f"), store.stats()
    assert (of_t.threads, of_t.events, of_t.snapshots) == (1, 300 + 3 + 1 + 1, 1)
    assert of_t.snapshot_bytes == 2
    assert (of_f.events, of_f.snapshots) == (1, 0)
    assert of_all.threads == 2
    for name in ("events", "raw_bytes", "stored_bytes", "snapshots", "snapshot_bytes"):
        assert getattr(of_all, name) == getattr(of_t, name) + getattr(of_f, name)
    payloads = sql(store, "SELECT sum(length(payload)) FROM events")[0][0]
    assert of_all.stored_bytes == payloads
    with pytest.raises(ThreadNotFoundError):
        store.stats("nobody")


def file_size(store: EventStore) -> int:
    if is_sqlite(store):
        return int(sql(store, "PRAGMA page_count")[0][0] * sql(store, "PRAGMA page_size")[0][0])
    return sum(
        sql(store, f"SELECT pg_total_relation_size('{table}')")[0][0]
        for table in tables_by_thread(store)
    )


def test_storage_is_linear_in_what_is_new(store: EventStore) -> None:
    """Ten times the events, ten times the bytes, in the log and in the file."""
    sizes = []
    for thread_id, count in (("small", 200), ("large", 2_000)):
        for seq in range(0, count, 20):
            batch = [
                Event(1, {"role": "user", "n": seq + n, "text": "hello " * 20}) for n in range(20)
            ]
            store.append(thread_id, batch, seq)
        sizes.append((store.stats(thread_id).stored_bytes, file_size(store)))
    (small, file_small), (large, file_large) = sizes
    assert 9.5 * small < large < 10.5 * small
    assert file_large - file_small < 11 * file_small


# --- forks as events --------------------------------------------------------------------


def test_a_fork_event_names_its_source_and_keeps_its_data(store: EventStore) -> None:
    fill(store, "t", 3)
    source = store.head("t").position._replace(seq=2)
    assert store.append("t", [Fork(source, {"why": "try again"}), Event(1, {"n": 30})], 3) == 5
    fork = next(store.read("t", after=3))
    assert (fork.seq, fork.kind) == (4, FORK)
    assert fork.data["data"] == {"why": "try again"}
    assert list(fork.data["source"]) == list(source)
    assert numbers(store.replay("t").events) == [1, 2, 30]
    assert numbers(store.read("t")) == [1, 2, 3, 30]


def test_unknown_positions_are_refused(store: EventStore) -> None:
    fill(store, "t", 3)
    here = store.head("t").position
    for seq in (0, -1, 4, 2**62):
        with pytest.raises(PositionNotFoundError):
            store.replay("t", upto=here._replace(seq=seq))
    with pytest.raises(PositionNotFoundError):
        store.replay("t", upto=here._replace(ns="nowhere"))
    with pytest.raises(PositionNotFoundError):
        store.replay("t", upto=here._replace(thread_key=12345))


def test_the_driver_that_is_used_is_the_one_we_think(tmp_path: Path) -> None:
    with EventStore(tmp_path / "a.db") as store:
        store.setup()
        module: Any = store.engine.dialect.dbapi
        assert module.sqlite_version == sqlite_driver().sqlite_version
        assert issubclass(sqlite3.OperationalError, Exception)
        assert rows_of(store, 1) == {}
