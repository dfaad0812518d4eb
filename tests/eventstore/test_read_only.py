"""Reading what is not ours to change: stores that only read, and values of unknown types."""

from __future__ import annotations

import enum
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from eventstore import (
    AsyncEventStore,
    Codec,
    ConfigurationError,
    Event,
    EventStore,
    Opaque,
    SerializationError,
    UnregisteredTypeError,
)
from tests import awaited
from tests.eventstore.support import data_of, fill

WRITES: Final[list[Callable[[EventStore], Any]]] = [
    lambda store: store.append("a", [Event(1)], 2),
    lambda store: store.append("new", [Event(1)], 0),
    lambda store: store.fork("a", 1, "b"),
    lambda store: store.set_thread("a", pinned=True),
    lambda store: store.delete_thread("a"),
    lambda store: store.delete_snapshots("a"),
]


@pytest.mark.parametrize("store_url", ["sqlite-file", "postgresql"], indirect=True)
def test_a_store_that_only_reads_refuses_every_write(store_url: str) -> None:
    with EventStore(store_url) as store:
        fill(store, "a", 2)
    with EventStore(store_url, read_only=True) as store:
        assert len(data_of(store, "a")) == 2
        assert store.verify("a").ok and store.stats().events == 2
        assert store.thread_counts() == {"idle": 1} and store.namespaces("a") == [""]
        for write in WRITES:
            with pytest.raises(ConfigurationError, match="opened for reading only"):
                write(store)
        assert [thread.thread_id for thread in store.threads()] == ["a"]
        assert not store.thread("a").pinned


def test_it_sets_nothing_up(postgresql_url: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    empty.write_bytes(b"")
    for target in (postgresql_url, str(empty), ":memory:"):
        with EventStore(target, read_only=True) as store:
            assert store.pending() == [
                "0001_log",
                "0002_retention",
                "0003_run_leases",
                "0004_thread_checksum",
                "0005_first_keys",
                "0006_thread_reached",
            ]
            with pytest.raises(ConfigurationError, match="no event store in this database"):
                store.threads()
    assert empty.read_bytes() == b""
    with pytest.raises(ConfigurationError, match="there is no database file"):
        EventStore(tmp_path / "missing.db", read_only=True)
    assert not (tmp_path / "missing.db").exists()


def test_it_does_not_migrate_what_an_older_version_made(tmp_path: Path) -> None:
    path = tmp_path / "a #1?.db"  # a name that a URI would read otherwise
    with EventStore(path) as store:
        fill(store, "a", 1)
        with store.engine.begin() as conn:
            conn.exec_driver_sql("DELETE FROM eventstore_migrations WHERE name <> '0001_log'")
    before = path.read_bytes()
    with EventStore(path, read_only=True) as store:
        assert store.pending() == [
            "0002_retention",
            "0003_run_leases",
            "0004_thread_checksum",
            "0005_first_keys",
            "0006_thread_reached",
        ]
        with pytest.raises(
            ConfigurationError,
            match=r"0002_retention, .*, 0006_thread_reached: run `eventstore migrate`",
        ):
            store.threads()
    assert path.read_bytes() == before


def test_a_file_keeps_its_bytes_and_its_journal_mode(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with EventStore(path) as store:
        fill(store, "a", 3)
        with store.engine.connect() as conn:
            conn.exec_driver_sql("PRAGMA journal_mode = DELETE")
    before = path.read_bytes()
    with EventStore(path, read_only=True) as store:
        assert len(data_of(store, "a")) == 3
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["store.db"]


def test_it_sees_what_a_writer_beside_it_commits(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with EventStore(path) as writer:
        fill(writer, "a", 1)
        with EventStore(path, read_only=True) as store:
            assert len(data_of(store, "a")) == 1
            fill(writer, "a", 1, start=2)
            assert len(data_of(store, "a")) == 2


@pytest.mark.parametrize("store_url", ["sqlite-file", "postgresql"], indirect=True)
def test_the_asynchronous_one_is_the_same(store_url: str) -> None:
    async def main() -> None:
        async with AsyncEventStore(store_url) as store:
            await store.append("a", [Event(1)], 0)
        async with AsyncEventStore(store_url, read_only=True) as store:
            assert await store.pending() == [] and await store.namespaces("a") == [""]
            assert await store.thread_counts() == {"idle": 1}
            with pytest.raises(ConfigurationError, match="reading only"):
                await store.append("a", [Event(1)], 1)

    awaited.run(main())


# --- values of types that are not registered ------------------------------------------------


@dataclass(frozen=True)
class User:
    name: str
    colour: Any = None


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def written(value: Any) -> bytes:
    codec = Codec()
    codec.register(User, name="user", version=3)
    codec.register(Colour, name="colour")
    return codec.encode(value)


def test_values_of_unknown_types_are_given_as_they_are_stored() -> None:
    payload = written({"users": [User("Ann", Colour.RED)], "n": (1, {2})})
    with pytest.raises(UnregisteredTypeError):
        Codec().decode(payload)
    codec = Codec(opaque_types=True)
    red = Opaque("colour", 1, "RED")
    user = Opaque("user", 3, {"name": "Ann", "colour": red})
    assert codec.decode(payload) == {"users": [user], "n": (1, {2})}
    assert codec.unknown_types == ["colour/1", "user/3"]
    assert repr(red) == "<colour/1 'RED'>"


def test_keys_and_members_of_sets_may_be_opaque() -> None:
    codec = Codec(opaque_types=True)
    found = codec.decode(written({Colour.RED: {Colour.RED, Colour.BLUE, User("Ann")}}))
    ((key, members),) = found.items()
    assert key == Opaque("colour", 1, "RED") and key in members and len(members) == 3


def test_a_type_that_is_registered_is_rebuilt_and_a_newer_one_is_opaque() -> None:
    codec = Codec(opaque_types=True)
    codec.register(Colour, name="colour")
    codec.register(User, name="user", version=2)
    found = codec.decode(written([Colour.BLUE, User("Ann", Colour.RED)]))
    assert found == [Colour.BLUE, Opaque("user", 3, {"name": "Ann", "colour": Colour.RED})]


def test_a_failed_upcast_leaves_the_fields_as_they_were() -> None:
    codec = Codec(opaque_types=True)

    def spoil(fields: Any) -> Any:
        fields.clear()
        return fields

    codec.register(User, name="user", version=5, upcasters={3: spoil})
    assert codec.decode(written(User("Ann"))) == Opaque("user", 3, {"name": "Ann", "colour": None})


def test_an_opaque_value_cannot_be_written() -> None:
    codec = Codec(opaque_types=True)
    with pytest.raises(SerializationError, match="register the class of 'user'") as e:
        codec.encode({"a": [codec.decode(written(User("Ann")))]})
    assert e.value.path == "a[0]"


def test_an_array_where_numpy_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import numpy

    payload = Codec().encode({"a": numpy.arange(2, dtype="<i2")})
    monkeypatch.setitem(sys.modules, "numpy", None)
    found = Codec(opaque_types=True).decode(payload)
    assert found == {"a": Opaque("numpy.ndarray", 1, ["<i2", [2], b"\x00\x00\x01\x00"])}


def test_a_copy_without_its_write_ahead_log_says_what_it_lacks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While a store is open, and after ``kill -9``, all may stand in the file beside."""
    original, copy = tmp_path / "original.db", tmp_path / "copy.db"
    with EventStore(original) as store:
        fill(store, "a", 2)
        shutil.copy(original, copy)
        shutil.copy(f"{original}-wal", tmp_path / "whole.db-wal")
        shutil.copy(original, tmp_path / "whole.db")
    copied = EventStore(copy, read_only=True)
    with copied, pytest.raises(ConfigurationError, match="copy the -wal file"):
        copied.threads()
    with EventStore(tmp_path / "whole.db", read_only=True) as store:
        assert len(data_of(store, "a")) == 2
    assert not caplog.records
    with EventStore(copy) as store:
        assert store.threads() == []
    assert "copy the -wal file" in caplog.text
