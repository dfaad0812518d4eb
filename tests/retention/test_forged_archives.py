"""Archive files whose checksums are right and whose content is impossible.

Anybody who can write to an archive can make one. Each is refused before anything is inserted, or
what was loaded is sound; listings of the archive name the file and go on.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgpack
import pytest
import zstandard

from eventstore import (
    ArchiveError,
    Codec,
    CorruptEventError,
    Dump,
    Event,
    EventStore,
    Fork,
    NewSnapshot,
)
from eventstore.format import digests
from eventstore.format.archive import header as header_format
from eventstore.format.archive.rows import (
    EVENT,
    FIELDS,
    LOG,
    TABLES,
    THREAD,
)
from retention.archives import Archive, archive_thread
from retention.erasing import erase
from tests.cli.support import run
from tests.effort import effort
from tests.eventstore.support import FINGERPRINT, seal_now

ROOT: Final = Path(__file__).parent.parent.parent

VALUES: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 1, 2**31 - 1, 2**31, 2**40, 2**62, 2**64 - 1, -(2**63), 1.5, "", "text",
    "a\0b", "~0000000000000000~", "[1]", '{"a": NaN}', "[" * 5_000, '{"a":' * 500, '{"reason": 1}',
    b"", b"\x02\x00\xc1", bytes(16), [], [1], {}, {"x": 1},
    {"reason": "r", "by": "b", "at": 2**62},
)  # fmt: skip


class Forged:
    """A file taken apart: its header by name, and its records."""

    def __init__(self, content: bytes) -> None:
        preamble = header_format.PREAMBLE
        _, _, size = preamble.unpack_from(content)
        self.header = msgpack.unpackb(content[preamble.size : preamble.size + size])
        start = preamble.size + size + 16
        rows = zstandard.ZstdDecompressor().decompressobj().decompress(content[start:-32])
        unpacker = msgpack.Unpacker(max_buffer_size=2**30)
        unpacker.feed(rows)
        self.records: list[list[Any]] = list(unpacker)

    def content(self) -> bytes:
        """The file again, with its sizes and checksums made right."""
        rows = b"".join(map(msgpack.packb, self.records))
        stored = zstandard.ZstdCompressor().compress(rows)
        header = msgpack.packb({**self.header, "raw_bytes": len(rows), "stored_bytes": len(stored)})
        preamble = header_format.PREAMBLE
        start = preamble.pack(header_format.MAGIC, header_format.VERSION, len(header)) + header
        start += hashlib.blake2b(start, digest_size=16).digest()
        whole: bytes = start + stored
        return whole + hashlib.blake2b(whole, digest_size=32).digest()

    def chained(self) -> Forged:
        """The same with the digests of its events made right."""
        key, previous = self.header["thread_key"], b""
        names = FIELDS[EVENT]
        for record in self.records:
            if record[0] == LOG and isinstance(record[1], str):
                previous = digests.genesis(key, record[1])
            elif record[0] == EVENT:
                row = dict(zip(names, record[1:], strict=True))
                try:
                    body = Codec().body(row["payload"])
                    previous = digests.link(
                        previous, row["seq"], row["kind"], row["key"], row["recorded_at"], body
                    )
                except Exception:  # the value itself is no event's: leave it
                    continue
                record[1 + names.index("digest")] = previous
        return self


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a thread with two logs, keys, a snapshot, a segment, a fork and a pin."""
    path = tmp_path_factory.mktemp("original") / "store.db"
    with EventStore(path) as store:
        head = store.head("t")
        for n in range(1, 9):
            key = "k" if n == 2 else None
            snapshot = NewSnapshot(FINGERPRINT, b"state", b"", step=n) if n == 5 else None
            head = store.append_after(head, [Event(1, {"n": n}, key=key)], snapshot=snapshot)
        seal_now(store, "t")
        store.append("t", [Event(1, 1), Event(2, 2)], 0, "sub")
        store.append("t", [Fork(head.position._replace(seq=6)), Event(1, {"n": 10})], 8)
        store.pin("t", "case 12", "legal")
        with store.dump("t") as dump:
            return dump.read()


def _fields() -> Iterator[tuple[int | None, str]]:
    for name in (*header_format.Header.__slots__,):
        yield None, {"generation": "life"}.get(name, name)
    for tag, columns in TABLES.items():
        for column in columns:
            yield tag, column.name


def _forged(original: bytes, tag: int | None, name: str, value: Any) -> bytes:
    forged = Forged(original)
    if tag is None:
        forged.header[name] = value
        return forged.content()
    for record in forged.records:
        if record[0] == tag:
            record[1 + FIELDS[tag].index(name)] = value
            break
    return forged.chained().content()


@pytest.mark.slow
def test_any_field_of_a_file_may_hold_anything(original: bytes) -> None:
    chance = random.Random(1)
    with EventStore(":memory:") as store:
        store.append("other", [Event(1, 1)], 0)
        for tag, name in _fields():
            for value in chance.sample(VALUES, effort(4, len(VALUES))):
                _is_refused_or_sound(store, _forged(original, tag, name, value))


def _is_refused_or_sound(store: EventStore, content: bytes) -> None:
    try:
        loaded = store.load(content)
    except ArchiveError:
        assert [info.thread_id for info in store.threads()] == ["other"]
        return
    assert store.verify(loaded.thread_id).ok
    assert store.thread(loaded.thread_id) == loaded
    assert len(store.threads()) == 2
    for ns in store.namespaces(loaded.thread_id):
        assert all(event.recorded_at for event in store.read(loaded.thread_id, ns))
    with store.dump(loaded.thread_id) as dump:
        Dump.open(dump.read()).close()
    assert store.delete_thread(loaded.thread_id)
    # As if it had never been there: its key may be used by the next file.
    with store.engine.begin() as conn:
        conn.exec_driver_sql("DELETE FROM tombstones")


def test_an_archive_names_its_forged_files_and_goes_on(original: bytes, tmp_path: Path) -> None:
    place = f"file://{tmp_path / 'archive'}"
    archive = Archive(place)
    with EventStore(tmp_path / "store.db") as store:
        store.append("good", [Event(1, 1)], 0)
        good = archive_thread(store, archive, "good").name
        with Dump.open(original) as dump:
            name = archive.put(dump).name
        for field, value in (("active_us", 2**62), ("archived_us", 2**62), ("pin", {"x": 1})):
            (tmp_path / "archive" / name).write_bytes(_forged(original, None, field, value))
            assert [each.thread_id for each in archive.ls()] == ["good"]
            problems = dict(archive.verify())
            assert problems[good] is None
            assert problems[name] is not None
            listed = run("archive", "ls", "--archive", place)
            assert listed.code == 1
            assert "good" in listed.out
            assert name in listed.err
            verified = run("archive", "verify", "--archive", place)
            assert (verified.code, verified.out.count(name)) == (1, 1)
        row = _forged(original, THREAD, "metadata", "[" * 5_000)
        (tmp_path / "archive" / name).write_bytes(row)
        assert run("archive", "verify", "--archive", place).code == 1
        # A file of another thread in the place of this one, pinned: it cannot hinder an erasure.
        other = _forged(original, None, "archived_us", 5)
        (tmp_path / "archive" / good).write_bytes(other)
        assert erase(store, "asked to", "test", thread_id="good", archives=[archive]).threads == 1


def test_a_fork_whose_event_says_something_else_than_its_link(original: bytes) -> None:
    for payload in ({"source": [1, "", 6], "data": None}, {"source": "text"}, [1], 5, {}):
        forged = Forged(original)
        for record in forged.records:
            if record[0] == EVENT and record[1 + FIELDS[EVENT].index("kind")] == 0:
                record[1 + FIELDS[EVENT].index("payload")] = Codec().encode(payload)
        with EventStore(":memory:") as store, pytest.raises(ArchiveError):
            store.load(forged.chained().content())


def test_a_row_that_nobody_could_read_is_not_archived(tmp_path: Path) -> None:
    """What a file may not hold is refused when it is written, not when it is needed again."""
    with EventStore(tmp_path / "store.db") as store:
        store.append("t", [Event(1, 1)], 0)
        with store.engine.begin() as conn:
            conn.exec_driver_sql("UPDATE threads SET metadata = '[1]'")
        with pytest.raises(CorruptEventError):
            store.dump("t")


HUNGRY: Final = """
import resource, sys
from pathlib import Path
from eventstore import Codec, EventStore

path, database = Path(sys.argv[1]), sys.argv[2]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store = EventStore(database, codec=Codec(compress=False), durability="normal")
store.load(path)
assert store.verify("t").ok
assert sum(1 for event in store.read("t")) == 300
with store.dump("t") as dump:
    dump.verify()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_memory_follows_bytes(tmp_path: Path) -> None:
    """Events of 1 MB that compress to nothing: 300 MB of rows in a file of a few kilobytes."""
    with EventStore(tmp_path / "small.db", codec=Codec(compress=False)) as store:
        store.append("t", [Event(1, n) for n in range(300)], 0)
        with store.dump("t") as dump:
            forged = Forged(dump.read())
    payload = Codec(compress=False).encode(bytes(2**20))
    for record in forged.records:
        if record[0] == EVENT:
            record[1 + FIELDS[EVENT].index("payload")] = payload
    content = forged.chained().content()
    assert len(content) < 200_000
    (tmp_path / "t.thread").write_bytes(content)
    arguments = [str(tmp_path / "t.thread"), str(tmp_path / "store.db")]
    found = subprocess.run(
        [sys.executable, "-c", HUNGRY, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert int(found.stdout) < 150, f"it took {found.stdout.strip()} MB"
