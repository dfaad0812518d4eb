"""One thread as a file: versioned, checksummed, complete in itself. The format, and no SQL.

    magic, version, length of the header | header (msgpack) | its BLAKE2b-128
    | rows: one zstd frame of msgpack records | BLAKE2b-256 of everything before

The header says whose thread it is and how much, and can be read by itself; it verifies by
itself, too. The rows are those of the database, as they were stored, with what the thread
needs of threads that it was forked from, and with the dictionaries of its application that
payloads are compressed with (those that come with the library are not in it).

Whoever reads a file gets nothing of it before its checksum was found right. Even then nothing
is believed: sizes and types are checked, the digest chain is walked, and nothing is decoded
into objects. Both ways memory is flat, and what is larger than ``SPOOL_BYTES`` waits on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile, SpooledTemporaryFile
from types import TracebackType
from typing import IO, Any, Final, Self, cast, get_args

import msgpack
import zstandard

from eventstore.codec.codec import Codec, dictionary_id
from eventstore.db.schema import events, forks, segments, snapshots, threads
from eventstore.errors import (
    ArchiveDamagedError,
    ArchiveVersionError,
    ConfigurationError,
    CorruptEventError,
)
from eventstore.format import digests
from eventstore.format.segments import Body, Segment, covered, is_old, unseal
from eventstore.models import FORK, Status, from_micros

MAGIC: Final = b"\x93EVTARC\n"
VERSION: Final = 1
SPOOL_BYTES: Final = 4 * 2**20
"""What a file may take in memory; longer ones wait in a temporary file."""

PREAMBLE: Final = struct.Struct(">8sHI")
HEADER_BYTES_MAX: Final = 16 * 2**20
_HEADER_SUM_BYTES: Final = 16
_SUM_BYTES: Final = 32
_CHUNK_BYTES: Final = 2**16
_WINDOW_BYTES_MAX: Final = 2**23
_LEVEL: Final = 3

DICTIONARIES_MAX: Final = 64
"""Dictionaries in a file; each takes about 1 MB once it is ready for use."""

END, COLUMNS, THREAD, DICTIONARY, LOG, SNAPSHOT, FORK_LINK, SEGMENT, EVENT = range(9)
"""What the records of a file say; the last four are rows of the log named before them."""

TABLES: Final = {
    THREAD: threads,
    SNAPSHOT: snapshots,
    FORK_LINK: forks,
    SEGMENT: segments,
    EVENT: events,
}
_PLACE: Final = frozenset({"thread_key", "ns"})
FIELDS: Final = {
    tag: tuple(c.key for c in table.c if tag == THREAD or c.key not in _PLACE)
    for tag, table in TABLES.items()
}
"""The columns of a row in a file, in order, by the names that the code gives them."""

_COLUMN_NAMES: Final = {
    tag: [TABLES[tag].c[field].name for field in fields] for tag, fields in FIELDS.items()
}
"""The same columns by their names in databases and files."""

Row = Sequence[Any]
Record = tuple[int, Row]

_BAD = (
    msgpack.UnpackException,
    msgpack.exceptions.BufferFull,
    struct.error,
    zstandard.ZstdError,
    ArithmeticError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


_STORED_NAMES: Final = {"generation": "life"}
"""Fields that a file calls otherwise: its format is older than their names."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of the thread in it.

    Attributes:
        generation: how many threads of that name there were before.
        archived_us: when the file was made, and the others likewise: microseconds since 1970.
        logs: name of each log in the file and seq of its last event (0: there is only a base).
        ends: those that the thread itself had, without what is in the file of others.
        events, snapshots, segments, forks: rows of each.
        raw_bytes, stored_bytes: of the rows, before and after compression.
        pin: why it was pinned (``reason``, ``by``, ``at``: microseconds; nothing where that was
            not said); ``None``: it was not.
    """

    tenant: str
    thread_id: str
    thread_key: int
    generation: int
    created_us: int
    active_us: int
    archived_us: int
    logs: Mapping[str, int]
    ends: Mapping[str, int]
    events: int
    snapshots: int
    segments: int
    forks: int
    raw_bytes: int
    stored_bytes: int
    pin: Mapping[str, Any] | None = None

    @property
    def created_at(self) -> datetime:
        """When the thread was created, UTC."""
        return from_micros(self.created_us)

    @property
    def active_at(self) -> datetime:
        """When it was last active, to the minute, UTC."""
        return from_micros(self.active_us)

    @property
    def archived_at(self) -> datetime:
        """When the file was made, UTC."""
        return from_micros(self.archived_us)

    def packed(self) -> bytes:
        """The beginning of the file, up to where the rows begin."""
        fields = {_STORED_NAMES.get(name, name): getattr(self, name) for name in self.__slots__}
        body: bytes = msgpack.packb(fields)
        start = PREAMBLE.pack(MAGIC, VERSION, len(body)) + body
        digest = hashlib.blake2b(start, digest_size=_HEADER_SUM_BYTES).digest()
        return start + digest


def header_bytes(start: bytes) -> int:
    """How long the beginning of a file is, of which at least ``PREAMBLE.size`` bytes are given.

    Raises:
        ArchiveDamagedError: it is no such file.
        ArchiveVersionError: it is a newer one.
    """
    if len(start) < PREAMBLE.size or not start.startswith(MAGIC):
        raise ArchiveDamagedError("this is no archived thread")
    _, version, size = PREAMBLE.unpack_from(start)
    if version > VERSION:
        raise ArchiveVersionError(version, VERSION)
    if version < 1 or size > HEADER_BYTES_MAX:
        raise ArchiveDamagedError("the header of the file makes no sense")
    return int(PREAMBLE.size + size + _HEADER_SUM_BYTES)


def read_header(start: bytes) -> Header:
    """The header of a file that begins like this.

    Raises:
        ArchiveDamagedError: it is no such file, it is cut short, or it does not verify.
        ArchiveVersionError: it is a newer one.
    """
    size = header_bytes(start)
    if len(start) < size:
        raise ArchiveDamagedError("the file ends within its header")
    start = start[:size]
    content, checksum = start[:-_HEADER_SUM_BYTES], start[-_HEADER_SUM_BYTES:]
    if hashlib.blake2b(content, digest_size=_HEADER_SUM_BYTES).digest() != checksum:
        raise ArchiveDamagedError("the header does not match its checksum")
    try:
        values = msgpack.unpackb(content[PREAMBLE.size :], strict_map_key=True)
        known = {"pin": None, **values}  # which files made before there were pins do not have
        found = Header(**{name: known[_STORED_NAMES.get(name, name)] for name in Header.__slots__})
    except _BAD as error:
        raise ArchiveDamagedError(f"the header cannot be read: {error}") from error
    _check_header(found)
    return found


def _check_header(header: Header) -> None:
    numbers = [name for name, kind in Header.__annotations__.items() if kind == "int"]
    right = (
        all(_is_number(getattr(header, name)) for name in numbers)
        and type(header.tenant) is str
        and type(header.thread_id) is str
        and all(
            type(logs) is dict
            and all(type(ns) is str and _is_number(last) for ns, last in logs.items())
            for logs in (header.logs, header.ends)
        )
        and (header.pin is None or type(header.pin) is dict)
        and digests.thread_key(header.tenant, header.thread_id, header.generation)
        == header.thread_key
    )
    if not right:
        raise ArchiveDamagedError("the header holds something else than it should")


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


class Dump:
    """A thread as a file, verified, in memory or in a temporary file; to be closed.

    Iterating over it gives the bytes of the file, any number of times.

    Attributes:
        header: what it says of itself.
        size: its length in bytes.
        checksum: BLAKE2b-256 of all but the last 32 bytes, which hold it.
    """

    def __init__(self, file: IO[bytes], header: Header, start: int, checksum: bytes) -> None:
        self._file = file
        self._start = start  # where the rows begin
        self.header = header
        self.size = start + header.stored_bytes + _SUM_BYTES
        self.checksum = checksum

    @property
    def ends(self) -> Mapping[str, int]:
        """Where the thread's logs end: what must still be so when it is removed for this file."""
        return self.header.ends

    @classmethod
    def open(cls, source: Source) -> Dump:
        """A file from wherever it is, with its checksum verified.

        Args:
            source: a path, the bytes, a binary file, or an iterable of bytes in order.

        Raises:
            ArchiveDamagedError: it is not what was written.
            ArchiveVersionError: it was written by a newer version.
        """
        if isinstance(source, Dump):
            return source
        spool = _spool()
        try:
            return cls._received(spool, chunks(source))
        except BaseException:
            spool.close()
            raise

    @classmethod
    def _received(cls, spool: IO[bytes], source: Iterator[bytes]) -> Dump:
        held = b""
        size = None
        for chunk in source:
            held += chunk
            if size is None and len(held) >= PREAMBLE.size:
                size = header_bytes(held)
            if size is not None and len(held) >= size:
                break
        header = read_header(held)  # before anything is kept of what claims to be one
        assert size is not None
        whole = size + header.stored_bytes + _SUM_BYTES
        digest, checksum, length = hashlib.blake2b(digest_size=_SUM_BYTES), b"", 0
        while held:
            spool.write(held)
            length += len(held)
            if length > whole:
                raise ArchiveDamagedError(f"the file is longer than the {whole} bytes that it has")
            digest.update((checksum + held)[:-_SUM_BYTES])
            checksum = (checksum + held)[-_SUM_BYTES:]
            held = next(source, b"")
        if length < whole:
            raise ArchiveDamagedError(f"the file ends after {length} of its {whole} bytes")
        if digest.digest() != checksum:
            raise ArchiveDamagedError("the file does not match its checksum")
        return cls(spool, header, size, checksum)

    def __iter__(self) -> Iterator[bytes]:
        at = 0
        while at < self.size:
            self._file.seek(at)
            chunk = self._file.read(2**20)
            at += len(chunk)
            yield chunk

    def read(self) -> bytes:
        """The whole file."""
        return b"".join(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, which is there whole or not at all."""
        target = Path(path)
        with NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", suffix=".part", delete=False
        ) as part:
            try:
                for chunk in self:
                    part.write(chunk)
                part.flush()
                os.fsync(part.fileno())
                Path(part.name).replace(target)
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise
        _sync_folder(target.parent)

    def verify(self, codec: Codec | None = None) -> None:
        """Look through all the rows: types, order, digest chain, checksums of snapshots.

        Args:
            codec: says how many bytes are too many; neither its types nor its dictionaries are
                needed.

        Raises:
            ArchiveDamagedError: something is wrong.
        """
        for _ in self.records(codec or Codec()):
            pass

    def records(self, codec: Codec, *, checked: bool = False) -> Iterator[Record]:
        """The rows, in order, each checked with those before it; the last record is the end.

        Args:
            checked: they were looked through before: see :meth:`verify`.

        Raises:
            ArchiveDamagedError: something is wrong. What came before it is not to be kept.
        """
        codec = codec.without_types()  # which forgets the dictionaries of the file again
        checker = None if checked else Checker(self.header, codec)
        layouts: dict[int, list[str]] = {}
        try:
            for tag, *values in self._unpacked(2 * codec.max_decoded_bytes + 2**20):
                if tag == COLUMNS:
                    layouts = _layouts(values[0])
                    continue
                record = (tag, _arranged(tag, values, layouts))
                if checker is not None:
                    checker.see(*record)
                    if tag == DICTIONARY:
                        codec.add_dictionary(*record[1], write=False)
                yield record
            if checker is not None:
                checker.check_complete()
        except ArchiveDamagedError:
            raise
        except (CorruptEventError, ConfigurationError, *_BAD) as error:
            raise ArchiveDamagedError(f"a row cannot be read: {error}") from error

    def _unpacked(self, record_bytes_max: int) -> Iterator[list[Any]]:
        unpacker = msgpack.Unpacker(
            max_buffer_size=record_bytes_max, max_array_len=64, max_map_len=64, max_ext_len=0
        )
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
        rows = _Part(self._file, self._start, self.header.stored_bytes)
        raw = 0
        with decompressor.stream_reader(cast("IO[bytes]", rows), closefd=False) as stream:
            while piece := stream.read(_CHUNK_BYTES):
                raw += len(piece)
                if raw > self.header.raw_bytes:
                    raise ArchiveDamagedError("the rows are longer than the header says")
                unpacker.feed(piece)
                yield from unpacker
        if raw != self.header.raw_bytes:
            raise ArchiveDamagedError("the rows do not end where the header says")

    def close(self) -> None:
        """Give the memory or the temporary file back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Dump of {self.header.thread_id!r}, {self.size} bytes>"


def _spool() -> IO[bytes]:
    return cast("IO[bytes]", SpooledTemporaryFile(SPOOL_BYTES))


class _Part:
    """A part of a file, read from its beginning, whoever else reads the file."""

    def __init__(self, file: IO[bytes], at: int, size: int) -> None:
        self._file, self._at, self._end = file, at, at + size

    def read(self, size: int = -1) -> bytes:
        left = self._end - self._at
        self._file.seek(self._at)
        found = self._file.read(left if size < 0 else min(size, left))
        self._at += len(found)
        return found


Source = Dump | str | os.PathLike[str] | bytes | IO[bytes] | Iterable[bytes]


def chunks(source: Any) -> Iterator[bytes]:
    """The bytes of a path, bytes, a binary file or an iterable, in pieces that are not empty."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield bytes(source)
    elif isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            yield from chunks(file)
    elif hasattr(source, "read"):
        while chunk := source.read(_CHUNK_BYTES):
            yield bytes(chunk)
    else:
        for chunk in source:
            if chunk:
                yield bytes(chunk)


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file as durable as its content, where folders can be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Writer:
    """Makes a :class:`Dump`, row by row, and checks each as a reader would."""

    def __init__(self, header: Header, codec: Codec) -> None:
        self._header = header
        self._checker = Checker(header, codec)
        self._spool = _spool()
        self._compress = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        self._pack = msgpack.Packer(autoreset=True).pack
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._raw = self._stored = 0
        self._put(COLUMNS, [{str(tag): names for tag, names in _COLUMN_NAMES.items()}])

    def put(self, tag: int, row: Row) -> None:
        """Add a row.

        Raises:
            CorruptEventError: it is not what was once stored.
        """
        self._checker.see(tag, row)
        self._put(tag, row)

    def _put(self, tag: int, row: Row) -> None:
        record = self._pack([tag, *row])
        self._raw += len(record)
        self._waiting.append(record)
        self._waiting_bytes += len(record)
        if self._waiting_bytes >= _CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._write(self._compress.compress(b"".join(self._waiting)))
        self._waiting, self._waiting_bytes = [], 0

    def _write(self, piece: bytes) -> None:
        self._stored += len(piece)
        self._spool.write(piece)

    def finish(self) -> Dump:
        """The file, complete."""
        self._checker.see(END, ())
        self._checker.check_links()
        self._put(END, ())
        self._flush()
        self._write(self._compress.flush())
        values = {name: getattr(self._header, name) for name in Header.__slots__}
        counts = self._checker.counts
        header = Header(
            **{
                **values,
                "logs": self._checker.logs,
                "events": counts[EVENT],
                "snapshots": counts[SNAPSHOT],
                "segments": counts[SEGMENT],
                "forks": counts[FORK_LINK],
                "raw_bytes": self._raw,
                "stored_bytes": self._stored,
            }
        )
        return self._assembled(header)

    def _assembled(self, header: Header) -> Dump:
        start = header.packed()
        digest = hashlib.blake2b(start, digest_size=_SUM_BYTES)
        file = _spool()
        try:
            file.write(start)
            self._spool.seek(0)
            while piece := self._spool.read(_CHUNK_BYTES):
                digest.update(piece)
                file.write(piece)
            file.write(digest.digest())
        except BaseException:
            file.close()
            raise
        finally:
            self.close()
        return Dump(file, header, len(start), digest.digest())

    def close(self) -> None:
        """Give up what was written so far."""
        self._spool.close()


def _layouts(said: Mapping[str, Sequence[str]]) -> dict[int, list[str]]:
    layouts = {}
    for tag, names in ((int(tag), list(names)) for tag, names in said.items()):
        fields = dict(zip(_COLUMN_NAMES[tag], FIELDS[tag], strict=True))
        unknown = set(names) - set(fields)
        if unknown:
            raise ArchiveDamagedError(f"a table has columns that nobody knows: {sorted(unknown)}")
        layouts[tag] = [fields[name] for name in names]
    return layouts


def _arranged(tag: int, values: Row, layouts: Mapping[int, Sequence[str]]) -> Row:
    """A row in the order of today's columns; those that are newer than the file are empty."""
    if tag not in TABLES:
        return values
    names = layouts[tag]
    if len(values) != len(names):
        raise ArchiveDamagedError("a row has another number of columns than its table")
    if tuple(names) == FIELDS[tag]:
        return values
    named = dict(zip(names, values, strict=True))
    return [named.get(name) for name in FIELDS[tag]]


# --- what rows must be ------------------------------------------------------------------

_BITS: Final = {"small_integer": 16, "integer": 32}


def _column_check(column: Any) -> tuple[type, bool, int]:
    bits = _BITS.get(column.type.__visit_name__, 64)
    return column.type.python_type, column.nullable, 2 ** (bits - 1)


_CHECKS: Final[dict[int, list[tuple[type, bool, int]]]] = {
    tag: [_column_check(TABLES[tag].c[name]) for name in names] for tag, names in FIELDS.items()
}


def _check_types(tag: int, row: Row) -> None:
    for value, (kind, nullable, limit) in zip(row, _CHECKS[tag], strict=True):
        if value is None:
            right = nullable
        elif kind is int:
            right = type(value) is int and -limit <= value < limit
        else:
            right = type(value) is kind and not (type(value) is str and b"\0" in value.encode())
        if not right:
            raise CorruptEventError("a column holds something else than it should")


class Checker:
    """Whether the records of a file make sense one after the other.

    It walks the digest chain of each log, and holds for one log at a time what snapshots and
    forks say that its events have to bear out.
    """

    def __init__(self, header: Header, codec: Codec) -> None:
        self._header = header
        self._codec = codec
        self._stage = COLUMNS
        self._dictionaries = 0
        self._ended = False
        self._ns: str | None = None
        self._seen: dict[int, int] = {}
        self._bases: dict[int, bytes] = {}
        self._digests: dict[int, bytes] = {}
        self._links: set[int] = set()
        self._stubs: dict[int, Body] = {}
        self._seq, self._digest = 0, b""
        self._needed: dict[str, int] = {}
        self._tops: dict[str, int] = {}
        self.logs: dict[str, int] = {}
        """Where the logs end."""
        self.counts = dict.fromkeys(TABLES, 0)

    def see(self, tag: int, row: Row) -> None:
        """Check one record.

        Raises:
            CorruptEventError: it is not what was once stored.
        """
        ns, seq = self._ns or "", 0
        try:
            if self._ended:
                raise CorruptEventError("something follows the end")
            if tag in TABLES:
                _check_types(tag, row)
                self.counts[tag] += 1
            if tag >= SNAPSHOT:
                seq = row[0]
            self._look(tag, row)
        except CorruptEventError as error:
            if error.seq is None:
                error.at(self._header.thread_id, ns, seq)
            raise
        except _BAD as error:
            damage = CorruptEventError(f"a row holds something else than it should: {error}")
            raise damage.at(self._header.thread_id, ns, seq) from error

    def _look(self, tag: int, row: Row) -> None:
        if tag == DICTIONARY:
            dict_id, data = row
            if type(dict_id) is not int or type(data) is not bytes:
                raise CorruptEventError("a dictionary holds something else than it should")
            self._dictionaries += 1
            if self._dictionaries > DICTIONARIES_MAX:
                raise CorruptEventError(f"there are more than {DICTIONARIES_MAX} dictionaries")
        elif tag == LOG:
            self._begin(*row)
        elif tag == END:
            self._end_log()
            self._ended = True
        elif tag in TABLES:
            stage = min(tag, SEGMENT)  # segments and events stand in one order
            if stage < self._stage or (tag > THREAD) != (self._ns is not None):
                raise CorruptEventError("the rows are in disorder")
            if tag > THREAD and not self._seen.get(tag, 0) < row[0]:
                raise CorruptEventError("the rows of a log are in disorder")
            self._stage = stage
            self._seen[tag] = row[0]
            _LOOKS[tag](self, dict(zip(FIELDS[tag], row, strict=True)))
        else:
            raise CorruptEventError(f"there is no record of kind {tag!r}")

    def _thread(self, row: Mapping[str, Any]) -> None:
        header = self._header
        same = (row["thread_key"], row["tenant"], row["thread_id"], row["generation"]) == (
            header.thread_key,
            header.tenant,
            header.thread_id,
            header.generation,
        )
        if not same or row["deleting_since"] is not None or self.counts[THREAD] > 1:
            raise CorruptEventError("the thread is not the one that the header names")
        try:
            json.loads(row["metadata"])
            json.loads(row["pin"] or "null")
        except ValueError as error:
            raise CorruptEventError(f"what is said of the thread is no JSON: {error}") from error
        if row["status"] not in get_args(Status):
            raise CorruptEventError(f"a thread cannot be {row['status']!r}")

    def _begin(self, ns: str) -> None:
        if type(ns) is not str or (self._ns is not None and ns <= self._ns):
            raise CorruptEventError("the logs are in disorder")
        if not self.counts[THREAD]:
            raise CorruptEventError("the thread's row is missing")
        self._end_log()
        self._ns, self._stage, self._seen = ns, LOG, {}
        self._bases, self._digests, self._links = {}, {}, set()
        self._seq, self._digest = 0, digests.genesis(self._header.thread_key, ns)

    def _end_log(self) -> None:
        if self._ns is None:
            return
        if self._stubs:
            raise CorruptEventError("a sealed event that has a key has no row")
        if self._links:
            raise CorruptEventError(f"forks lead nowhere, that at seq {min(self._links)} first")
        self.logs[self._ns] = self._seq
        self._tops[self._ns] = max([self._seq, *self._bases])

    def _snapshot(self, row: Mapping[str, Any]) -> None:
        place = (row["seq"], row["rests_on"])
        checksum = digests.checksum(
            row["digest"], place, row["fingerprint"], row["additions"], row["payload"]
        )
        if checksum != row["checksum"]:
            raise CorruptEventError("the snapshot does not match its checksum")
        if row["rests_on"] is not None and row["rests_on"] not in self._digests:
            raise CorruptEventError("a snapshot that this one rests on is missing")
        self._digests[row["seq"]] = row["digest"]
        if row["is_base"]:
            self._bases[row["seq"]] = row["digest"]

    def _fork(self, row: Mapping[str, Any]) -> None:
        if row["source_thread_key"] != self._header.thread_key:
            raise CorruptEventError("a fork leads to another thread")
        target = row["source_ns"]
        if target == self._ns and not row["source_seq"] < row["seq"]:
            raise CorruptEventError("a fork leads to what comes after it")
        self._links.add(row["seq"])
        self._needed[target] = max(self._needed.get(target, 0), row["source_seq"])

    def _segment(self, row: Mapping[str, Any]) -> None:
        self._follow(row["seq"], row["link"])
        for event in unseal(Segment(**row)):
            if (event.kind == FORK) != (event.seq in self._links) or event.kind < 0:
                raise CorruptEventError("a fork has no link, or a link no fork")
            self._links.discard(event.seq)
            if event.key is not None:
                self._stubs[event.seq] = event
            self._arrive(event.seq, event.digest)

    def _event(self, row: Mapping[str, Any]) -> None:
        seq = row["seq"]
        if self._is_beginning(row):
            if not self._seq:  # what is sealed behind it came first
                self._arrive(seq, row["digest"])
            return
        if seq <= self._seq:
            self._stub(row)
            return
        previous = self._follow(seq, None)
        if previous is not None:
            payload = row["payload"]
            content = covered(payload, b"" if is_old(payload) else self._codec.body(payload))
            digest = digests.link(
                previous, seq, row["kind"], row["key"], row["recorded_at"], content
            )
            if digest != row["digest"]:
                raise CorruptEventError("the stored bytes do not match the digest chain")
        if row["kind"] < 0:
            raise CorruptEventError("the thread was being deleted")
        if (row["kind"] == FORK) != (seq in self._links):
            raise CorruptEventError("a fork has no link, or a link no fork")
        self._links.discard(seq)
        self._arrive(seq, row["digest"])

    def _is_beginning(self, row: Mapping[str, Any]) -> bool:
        """Whether it is what the last event of a log left when it was trimmed."""
        return not row["payload"] and self._bases.get(row["seq"]) == row["digest"]

    def _stub(self, row: Mapping[str, Any]) -> None:
        """The row of an event in a segment, there for its key."""
        event = self._stubs.pop(row["seq"], None)
        names = ("kind", "key", "recorded_at", "digest")
        if event is None or row["payload"] or any(row[n] != getattr(event, n) for n in names):
            raise CorruptEventError("the row of a sealed event is not what it should be")

    def _follow(self, seq: int, link: bytes | None) -> bytes | None:
        """The digest before an event or a segment; ``None`` where it may be unknown."""
        if seq < 1 or seq <= self._seq:
            raise CorruptEventError("the rows of a log are in disorder")
        known: bytes | None = self._digest
        if seq != self._seq + 1:  # a log may begin behind a base, a prefix with any event
            known = self._bases.get(seq - 1)
            if known is None and not digests.is_prefix(self._ns or ""):
                raise CorruptEventError("the events before this one are missing")
        if link is not None and known not in (None, link):
            raise CorruptEventError("the stored bytes do not match the digest chain")
        return known

    def _arrive(self, seq: int, digest: bytes) -> None:
        if self._digests.get(seq, digest) != digest:
            raise CorruptEventError("the snapshot was taken of another history")
        self._seq, self._digest = seq, digest

    def check_links(self) -> None:
        """Whether everything was there that forks go on from.

        Raises:
            CorruptEventError: it was not.
        """
        for ns, seq in self._needed.items():
            if self._tops.get(ns, 0) < seq:
                damage = CorruptEventError("what a fork goes on from is missing")
                raise damage.at(self._header.thread_id, ns, seq)

    def check_complete(self) -> None:
        """Whether everything was there that the header names, and that forks go on from.

        Raises:
            CorruptEventError: it was not.
        """
        self.check_links()
        header = self._header
        counted = [self.counts[tag] for tag in (EVENT, SNAPSHOT, SEGMENT, FORK_LINK)]
        named = [header.events, header.snapshots, header.segments, header.forks]
        if not self._ended or counted != named or self.logs != header.logs:
            raise CorruptEventError("not everything is there that the header names")


_LOOKS: Final[dict[int, Any]] = {
    THREAD: Checker._thread,
    SNAPSHOT: Checker._snapshot,
    FORK_LINK: Checker._fork,
    SEGMENT: Checker._segment,
    EVENT: Checker._event,
}


def dictionaries_of(tag: int, row: Row) -> set[int]:
    """The application's dictionaries that a row's payloads are compressed with."""
    if tag == SNAPSHOT:
        return {dictionary_id(row[-1]), dictionary_id(row[-2])} - {0}
    return {dictionary_id(row[-1])} - {0} if tag in (SEGMENT, EVENT) else set()


__all__ = ["Dump", "Header", "Source", "Writer"]
