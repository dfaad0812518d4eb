"""A thread as a file: out of the database and back, equal, and nothing of it when damaged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveVersionError,
    Codec,
    ConfigurationError,
    Dump,
    Event,
    EventStore,
    Fork,
    NewSnapshot,
    ThreadExistsError,
    ThreadNotFoundError,
)
from eventstore.db import schema
from eventstore.format.archive import rows as archive_rows
from tests.effort import effort
from tests.eventstore.support import (
    FINGERPRINT,
    check_whole,
    data_of,
    fill,
    mark_for_deletion,
    numbers,
    orphans,
    rows_of,
    sql,
    tables_by_thread,
    values_of,
)

ROWS: Final = ("threads", "events", "segments", "snapshots", "forks")


@pytest.mark.parametrize("name", ROWS)
def test_files_hold_the_columns_of_the_tables(name: str) -> None:
    """A column that is new in the database must be in files, too.

    A run is of its process only, files have checksums of their own, and their end is known.
    """
    tags = {
        "threads": archive_rows.THREAD,
        "events": archive_rows.EVENT,
        "segments": archive_rows.SEGMENT,
        "snapshots": archive_rows.SNAPSHOT,
        "forks": archive_rows.FORK_LINK,
    }
    bits = {"small_integer": 16, "integer": 32}
    given = (
        ("owner", "checksum", "reached") if name == "threads" else ("thread_key", "ns")
    )  # by the thread and log before
    table = schema.metadata.tables[name]
    assert [
        (each.name, each.stored or each.name, each.kind, each.nullable, each.bits)
        for each in archive_rows.TABLES[tags[name]]
    ] == [
        (
            column.key,
            column.name,
            column.type.python_type,
            column.nullable,
            bits.get(column.type.__visit_name__, 64),
        )
        for column in table.c
        if column.key not in given
    ]


def all_rows(store: EventStore, thread_key: int) -> dict[str, list[Any]]:
    """Every row of a thread, in every table but the tombstones.

    Where its row has seen the log end is left out: a restored one has seen all of it.
    """
    assert set(ROWS) == set(tables_by_thread(store)) - {"tombstones"}
    found: dict[str, list[Any]] = {}
    for table in ROWS:
        columns = schema.metadata.tables[table].c
        chosen = ", ".join(f'"{each.name}"' for each in columns if each.key != "reached")
        statement = f"SELECT {chosen} FROM {table} WHERE thread_key = ?"
        found[table] = sorted(sql(store, statement, (thread_key,)))
    return found


def full_thread(store: EventStore, thread_id: str = "t", count: int = 40) -> int:
    """A thread with several logs, keys, snapshots that rest on each other, and forks."""
    fill(store, thread_id, count)
    fill(store, thread_id, count, "sub")
    head = store.head(thread_id)
    head = store.append_after(
        head, [Event(1, {"n": 0})], snapshot=NewSnapshot(FINGERPRINT, b"", b"a", step=7)
    )
    store.append_after(
        head, [Event(1, {"n": 0}, key="k")], snapshot=NewSnapshot(FINGERPRINT, b"", b"b", head.seq)
    )
    store.append(
        thread_id,
        [Fork(head.position._replace(seq=3)), Event(2, "back")],
        head.seq + 1,
        status="waiting",
    )
    store.set_thread(thread_id, metadata={"user": "ü"}, ttl=60)
    return store.thread(thread_id).thread_key


def taken(store: EventStore, thread_id: str) -> bytes:
    """The file of a thread."""
    with store.dump(thread_id) as dump:
        return dump.read()


# --- out and back -----------------------------------------------------------------------


def test_a_thread_comes_back_equal(store: EventStore) -> None:
    key = full_thread(store)
    before, info = all_rows(store, key), store.thread("t")
    position = store.head("t").position
    file = taken(store, "t")
    store.delete_thread("t")
    assert store.load(file) == info
    assert all_rows(store, key) == before
    assert store.verify("t").ok
    assert store.replay("t", upto=position).head.position == position
    assert not sql(store, "SELECT * FROM tombstones")
    assert store.head("t").status == "waiting"
    assert sql(store, "SELECT reached FROM threads") == [(position.seq,)]
    store.append("t", [Event(1, "goes on")], store.head("t").seq)
    fill(store, "t", 2, "new log")
    assert check_whole(store) == 1


def test_reading_never_writes(store: EventStore) -> None:
    fill(store, "parent", 5)
    store.fork("parent", 3, "t")
    before = {name: all_rows(store, store.thread(name).thread_key) for name in ("parent", "t")}
    taken(store, "t")
    after = {name: all_rows(store, store.thread(name).thread_key) for name in ("parent", "t")}
    assert before == after


def test_what_the_file_says_of_itself(store: EventStore) -> None:
    key = full_thread(store)
    with store.dump("t") as dump:
        header = dump.header
        assert dump.size == len(dump.read()) == len(b"".join(dump))
        assert dump.ends == {"": 44, "sub": 40}
    assert (header.tenant, header.thread_id, header.thread_key, header.generation) == (
        "test",
        "t",
        key,
        0,
    )
    assert (header.events, header.snapshots, header.forks, header.segments) == (84, 2, 1, 0)
    assert header.created_at == store.thread("t").created_at
    assert header.active_at == store.thread("t").active_at


def test_two_files_of_one_state_differ_in_their_time_only(store: EventStore) -> None:
    full_thread(store)
    with store.dump("t") as one, store.dump("t") as two:
        assert one.header.raw_bytes == two.header.raw_bytes
        assert one.header.stored_bytes == two.header.stored_bytes


def test_a_thread_that_is_not_there(store: EventStore) -> None:
    with pytest.raises(ThreadNotFoundError):
        store.dump("nobody")


def test_a_thread_that_is_there_is_not_replaced(store: EventStore) -> None:
    key = full_thread(store)
    file = taken(store, "t")
    before = all_rows(store, key)
    with pytest.raises(ThreadExistsError):
        store.load(file)
    assert all_rows(store, key) == before
    store.delete_thread("t")
    fill(store, "t", 2)
    with pytest.raises(ThreadExistsError):
        store.load(file)
    assert numbers(store.read("t")) == [1, 2]
    assert sql(store, "SELECT count(*) FROM tombstones") == [(1,)]


def test_a_thread_that_is_still_being_removed(store: EventStore) -> None:
    full_thread(store)
    file = taken(store, "t")
    mark_for_deletion(store)
    with pytest.raises(Exception, match="finish_deletions"):
        store.load(file)
    store.finish_deletions()
    store.load(file)
    assert check_whole(store) == 1


def test_a_thread_of_another_tenant(store_url: str) -> None:
    with EventStore(store_url, tenant="one") as store:
        fill(store, "t", 3)
        file = taken(store, "t")
        other = EventStore(store.engine, tenant="two")
        with pytest.raises(ArchiveError, match="tenant 'one'"):
            other.load(file)
        assert other.threads() == []


# --- lives ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("lives", [1, 2, 3, 6, 12])
def test_any_life_comes_back_into_any_database(
    store: EventStore, store_url: str, lives: int
) -> None:
    """Into the one that it was in, whatever was there since, and into one that never saw it."""
    files = []
    for life in range(lives):
        fill(store, "t", 3, start=life * 10)
        files.append(taken(store, "t"))
        store.delete_thread("t")
    for life, file in enumerate(files):
        for target in (store, EventStore("sqlite://", tenant="test")):
            info = target.load(file)
            assert target.thread("t") == info
            assert numbers(target.read("t")) == [life * 10, life * 10 + 1, life * 10 + 2]
            fill(target, "t", 2, "new log")
            assert [each.thread_id for each in target.threads()] == ["t"]
            with pytest.raises(ThreadExistsError):
                target.load(files[life - 1])
            target.delete_thread("t")
            assert target.head("t").seq == 0
            fill(target, "t", 1, start=500)
            assert numbers(target.read("t")) == [500]
            assert target.finish_deletions() == 0
            assert not orphans(target)
            target.delete_thread("t")
            if target is not store:
                target.close()


# --- forks ------------------------------------------------------------------------------


def grandchild(store: EventStore) -> list[Any]:
    """``t`` goes on from ``child``, which goes on from ``parent``; returns what ``t`` is."""
    fill(store, "parent", 10)
    store.fork("parent", 7, "child")
    fill(store, "child", 5, start=100)
    store.append("child", [Fork(store.head("parent").position._replace(seq=2))], 6)
    store.append("child", [Fork(store.head("child").position._replace(seq=4))], 7)
    fill(store, "child", 3, start=200)
    store.fork("child", 10, "t")
    fill(store, "t", 4, start=300)
    fill(store, "t", 4, "sub")
    return values_of(store.replay("t", snapshots=False))


def test_a_fork_takes_along_what_it_needs_of_living_threads(store: EventStore) -> None:
    """As if they had been deleted and it had been given its share: the very same rows."""
    expected = grandchild(store)
    key = store.thread("t").thread_key
    file = taken(store, "t")
    for name in ("parent", "child"):
        store.delete_thread(name)
    rehomed = all_rows(store, key)
    assert values_of(store.replay("t", snapshots=False)) == expected
    store.delete_thread("t")
    store.load(file)
    assert all_rows(store, key) == rehomed
    assert values_of(store.replay("t", snapshots=False)) == expected
    assert store.verify("t").ok
    assert not orphans(store)


def test_a_fork_of_dead_threads_keeps_its_share(store: EventStore) -> None:
    expected = grandchild(store)
    store.delete_thread("child")
    file_of_one_dead = taken(store, "t")
    store.delete_thread("parent")
    key = store.thread("t").thread_key
    before = all_rows(store, key)
    file = taken(store, "t")
    for each in (file, file_of_one_dead):
        store.delete_thread("t")
        store.load(each)
        assert all_rows(store, key) == before
        assert values_of(store.replay("t", snapshots=False)) == expected
    assert taken(store, "t")[-32:] != b""


def test_forks_of_an_archived_thread_stay_whole(store: EventStore) -> None:
    full_thread(store)
    store.fork("t", 20, "fork")
    expected = values_of(store.replay("fork"))
    file = taken(store, "t")
    store.delete_thread("t")
    assert values_of(store.replay("fork")) == expected
    store.load(file)
    assert values_of(store.replay("fork")) == expected
    store.fork("t", 10, "another")
    store.delete_thread("t")
    assert len(values_of(store.replay("another"))) == 10
    assert check_whole(store) == 2


# --- sealed ---------------------------------------------------------------------------


def sealed(store: EventStore, *thread_ids: str) -> None:
    """Seal what can be sealed of these threads, as if they were old."""
    later = datetime.now(UTC) + timedelta(days=1)
    for each in thread_ids:
        assert store.seal(each, later).events


def aged(store: EventStore) -> None:
    """Let the store's clock run a day ahead from now on."""
    core = getattr(store, "store", store).core
    core._clock = lambda: datetime.now(UTC) + timedelta(days=1)


def test_a_sealed_thread_comes_back_equal(store: EventStore) -> None:
    key = full_thread(store, count=700)
    store.append("t", [Event(1, n, key=f"k{n}") for n in range(40)], store.head("t").seq)
    fill(store, "t", 1)
    aged(store)
    sealed(store, "t")
    before = all_rows(store, key)
    assert before["segments"]
    file = taken(store, "t")
    store.delete_thread("t")
    store.load(file)
    assert all_rows(store, key) == before
    assert store.verify("t").ok
    with Dump.open(file) as dump:
        assert dump.header.segments == len(before["segments"])


@pytest.mark.pairwise
@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 100, 256, 257, 600, 1500])
@pytest.mark.parametrize("snapshot_at", [None, 300, 1400])
def test_a_fork_of_a_sealed_thread(store: EventStore, at: int, snapshot_at: int | None) -> None:
    """Its share of a segment is rows of its own, in the file as after a deletion."""
    head = store.head("parent")
    for number in range(1, 1601):
        last = number in (snapshot_at, 1600)
        if last or number % 100 == 0:
            batch = [Event(1, {"n": n}, key=f"k{n}") for n in range(head.seq + 1, number + 1)]
            snapshot = NewSnapshot(FINGERPRINT, b"s", b"") if last else None
            head = store.append_after(head, batch, snapshot=snapshot)
    aged(store)
    sealed(store, "parent")
    store.fork("parent", at, "t")
    fill(store, "t", 3, start=9000)
    expected = values_of(store.replay("t", fingerprint=FINGERPRINT))
    key = store.thread("t").thread_key
    file = taken(store, "t")
    store.delete_thread("parent")
    rehomed = all_rows(store, key)
    given = values_of(store.replay("t", fingerprint=FINGERPRINT))
    assert given[-len(expected) :] == expected  # of a short history, more than is needed
    assert store.verify("t").ok
    store.delete_thread("t")
    store.load(file)
    assert all_rows(store, key) == rehomed
    assert values_of(store.replay("t", fingerprint=FINGERPRINT)) == given
    assert store.verify("t").ok


# --- trimmed ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_sealed", [False, True])
def test_a_trimmed_thread_comes_back_equal(blocking_store: EventStore, is_sealed: bool) -> None:
    """It begins behind its base, and a fork of it with its share of that."""
    store = blocking_store
    fill(store, "t", 300)
    snapshot = NewSnapshot(FINGERPRINT, b"state", b"", step=1)
    head = store.append_after(store.head("t"), [Event(1, {"n": 0})], snapshot=snapshot)
    head = store.append_after(head, [Fork(head.position._replace(seq=20))])
    fill(store, "t", 300)
    snapshot = NewSnapshot(FINGERPRINT, b"later", b"", step=2)
    head = store.append_after(store.head("t"), [Event(1, {"n": 0})], snapshot=snapshot)
    fill(store, "t", 50, start=1000)
    aged(store)
    if is_sealed:
        sealed(store, "t")
    assert store.trim("t", head.seq).events
    store.fork("t", head.seq + 20, "fork")
    for name in ("t", "fork"):
        expected = values_of(store.replay(name, fingerprint=FINGERPRINT))
        key, info, file = store.thread(name).thread_key, store.thread(name), taken(store, name)
        if name == "fork":
            store.delete_thread("t")
        before = all_rows(store, key)
        store.delete_thread(name)
        assert store.load(file) == info
        assert all_rows(store, key) == before
        assert values_of(store.replay(name, fingerprint=FINGERPRINT)) == expected
        assert store.verify(name).ok


# --- any thread -----------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["append", "sub", "back", "snapshot", "fork", "delete", "seal"]),
        st.integers(0, 5),
        st.integers(1, 40),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=effort(20, 40))
@given(steps=steps, victim=st.integers(0, 5))
def test_any_thread_comes_back_equal(steps: list[tuple[str, int, int]], victim: int) -> None:
    """With forks of forks, of the living and the dead, logs beside, snapshots, bases, segments."""
    with EventStore("sqlite://", tenant="test") as store:
        for number, (what, which, count) in enumerate(steps):
            names = [info.thread_id for info in store.threads()]
            if not names:
                fill(store, f"first {number}", 1)
            name = sorted(names or [f"first {number}"])[which % max(1, len(names))]
            head = store.head(name)
            if what in ("append", "sub"):
                fill(store, name, count, "" if what == "append" else "sub")
            elif what == "back":
                back = head.position._replace(seq=1 + count % head.seq)
                store.append(name, [Fork(back), Event(1, {"n": count}, key=str(number))], head.seq)
            elif what == "snapshot":
                snapshot = NewSnapshot(FINGERPRINT, bytes(count), b"", step=count)
                store.append_after(head, [Event(1, {"n": 0})], snapshot=snapshot)
            elif what == "fork":
                store.fork(name, 1 + count % head.seq, f"fork {number}")
            elif what == "delete":
                store.delete_thread(name)
            elif what == "seal":
                aged(store)
                store.seal(name, datetime.now(UTC) + timedelta(days=1))
        names = sorted(info.thread_id for info in store.threads())
        if not names:
            return
        name = names[victim % len(names)]
        key = store.thread(name).thread_key
        expected = values_of(store.replay(name, fingerprint=FINGERPRINT))
        info, file = store.thread(name), taken(store, name)
        for other in names:
            if other != name:
                store.delete_thread(other)
        alone = all_rows(store, key)
        store.delete_thread(name)
        assert store.load(file) == info
        assert all_rows(store, key) == alone
        found = values_of(store.replay(name, fingerprint=FINGERPRINT))
        assert found[len(found) - len(expected) :] == expected
        assert store.verify(name).problems == ()
        assert not orphans(store)


# --- dictionaries -----------------------------------------------------------------------


def dictionary(dict_id: int) -> bytes:
    """A dictionary as an application may train it."""
    samples = [f"order {n} of customer {n * 7} was shipped to {n % 5}".encode() for n in range(900)]
    return zstandard.train_dictionary(2048, list(samples), dict_id=dict_id).as_bytes()


def test_dictionaries_come_along(store_url: str) -> None:
    """Whoever reads the database or the file finds what an application compressed with."""
    if store_url == "sqlite://":
        pytest.skip("another store cannot open it")
    custom = dictionary(40_000)
    said = {"text": "order 17 of customer 119 was shipped to 2, order 18 was shipped to 3"}
    with EventStore(store_url, tenant="test", codec=Codec(dictionaries={40_000: custom})) as store:
        store.append("t", [Event(1, said, key="k")], 0)
        assert sql(store, "SELECT dict_id FROM dictionaries") == [(40_000,)]
        file = taken(store, "t")
    with EventStore(store_url, tenant="test") as store:
        assert data_of(store, "t") == [said]
    with EventStore(store_url, tenant="test") as store:
        assert store.append("t", [Event(1, said, key="k")], 0) == 1
        assert store.verify("t").ok
    other = Codec(dictionaries={40_000: dictionary(40_000)[:-1] + b"x"})
    with (
        EventStore(store_url, tenant="test", codec=other) as store,
        pytest.raises(ConfigurationError, match="another dictionary 40000"),
    ):
        store.append("u", [Event(1, said)], 0)
    with EventStore("sqlite://", tenant="test") as store:
        store.load(file)
        assert data_of(store, "t") == [said]
        assert sql(store, "SELECT dict_id FROM dictionaries") == [(40_000,)]
    with EventStore("sqlite://", tenant="test", codec=other) as store:
        store.append("u", [Event(1, said)], 0)
        with pytest.raises(ArchiveError, match="dictionary"):
            store.load(file)
        assert [each.thread_id for each in store.threads()] == ["u"]


# --- damage -----------------------------------------------------------------------------


def small_file() -> bytes:
    with EventStore("sqlite://", tenant="test") as store:
        store.append("t", [Event(1, "x", key="k")], 0)
        return taken(store, "t")


def test_every_flipped_byte_is_found() -> None:
    file = small_file()
    with EventStore("sqlite://", tenant="test") as store:
        for at in range(len(file)):
            damaged = bytearray(file)
            damaged[at] ^= 0x55
            with pytest.raises(ArchiveError) as caught:
                store.load(bytes(damaged))
            assert isinstance(caught.value, ArchiveDamagedError | ArchiveVersionError)
        assert store.threads() == []
        assert rows_of(store, store.load(file).thread_key) == {"threads": 1, "events": 1}


def test_every_missing_end_is_found() -> None:
    file = small_file()
    with EventStore("sqlite://", tenant="test") as store:
        for length in range(len(file)):
            with pytest.raises(ArchiveDamagedError):
                store.load(file[:length])
        for more in (b"\0", b"more" * 10_000):
            with pytest.raises(ArchiveDamagedError, match="longer"):
                store.load(file + more)
        assert store.threads() == []


def test_a_newer_version_is_told() -> None:
    file = bytearray(small_file())
    file[9] += 1
    with (
        EventStore("sqlite://", tenant="test") as store,
        pytest.raises(ArchiveVersionError, match="upgrade graph-eventstore") as caught,
    ):
        store.load(bytes(file))
    assert (caught.value.found, caught.value.newest_known) == (2, 1)


@pytest.mark.parametrize("as_what", ["bytes", "path", "file", "pieces", "dump"])
def test_a_file_may_come_from_anywhere(store: EventStore, tmp_path: Any, as_what: str) -> None:
    full_thread(store)
    path = tmp_path / "t.evt"
    with store.dump("t") as dump:
        dump.save(path)
        content = dump.read()
    assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
    store.delete_thread("t")
    if as_what == "file":
        with path.open("rb") as file:
            store.load(file)
    elif as_what == "dump":
        with Dump.open(path) as dump:
            store.load(dump)
    else:
        pieces = (content[at : at + 7] for at in range(0, len(content), 7))
        store.load({"bytes": content, "path": path, "pieces": pieces}[as_what])
    assert store.verify("t").ok


def test_snapshots_that_are_of_no_use_stay_behind(store: EventStore) -> None:
    """One that was damaged, one that rests on it, and one that rests on one that is gone."""
    for name in ("damaged", "gone"):
        head = store.head(name)
        for state in (None, b"a", b"b"):
            fill(store, name, 10, start=head.seq + 1)
            rests_on = head.seq if state == b"b" else None
            head = store.head(name)
            if state:
                store.put_snapshot(head, NewSnapshot(FINGERPRINT, state, b"", rests_on))
        store.append(name, [Event(1, {"n": 31})], 30)
    bad, gone = (store.thread(name).thread_key for name in ("damaged", "gone"))
    sql(store, "UPDATE snapshots SET payload = x'00' WHERE seq = 20 AND thread_key = ?", (bad,))
    sql(store, "DELETE FROM snapshots WHERE seq = 20 AND thread_key = ?", (gone,))
    for name in ("damaged", "gone"):
        store.put_snapshot(store.head(name), NewSnapshot(FINGERPRINT, b"sound", b""))
        with store.dump(name) as dump:
            dump.verify()
            store.delete_thread(name)
            store.load(dump)
        key = store.thread(name).thread_key
        kept = sql(store, "SELECT seq FROM snapshots WHERE thread_key = ?", (key,))
        assert kept == [(31,)]
        replay = store.replay(name, fingerprint=FINGERPRINT)
        assert replay.snapshot is not None
        assert replay.snapshot.state == b"sound"
        assert numbers(store.read(name)) == list(range(1, 32))
        assert store.verify(name).ok
