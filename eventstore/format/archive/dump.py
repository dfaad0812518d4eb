"""A whole archive file: receiving, verifying, reading and saving it.

Promises that a :class:`Dump` has the checksum that it was written with, that reading its rows
checks each of them, and that it takes bounded memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile, SpooledTemporaryFile
from typing import IO, Any, Final, cast

import msgpack
import zstandard

from eventstore.closing import Closing
from eventstore.codec.compression import Compression
from eventstore.errors import ArchiveDamagedError, ConfigurationError, CorruptEventError
from eventstore.format.archive.checker import Checker
from eventstore.format.archive.header import (
    DECODE_ERRORS,
    PREAMBLE,
    Header,
    header_bytes,
    read_header,
)
from eventstore.format.archive.rows import COLUMNS, DICTIONARY, Record, arranged, layouts_of
from eventstore.limits import check_type, shown

SPOOL_BYTES: Final = 4 * 2**20
"""What a file may take in memory; larger ones wait in a temporary file."""

CHECKSUM_BYTES: Final = 32
CHUNK_BYTES: Final = 2**16
_WINDOW_BYTES_MAX: Final = 2**23
_RECORD_BYTES_BESIDES: Final = 2**20


class Dump(Closing):
    """A thread as a file, verified, in memory or in a temporary file. Close it after use.

    Iterating over it gives the bytes of the file, any number of times.

    Attributes:
        header: what the file says about its thread.
        size: length in bytes.
        checksum: BLAKE2b-256 of all but the last 32 bytes, which hold it.
    """

    def __init__(self, file: IO[bytes], header: Header, start: int, checksum: bytes) -> None:
        self._file = file
        self._start = start  # of the rows
        self.header = header
        self.size = start + header.stored_bytes + CHECKSUM_BYTES
        self.checksum = checksum

    @property
    def ends(self) -> Mapping[str, int]:
        """Where the thread's logs ended. They must still end there when it is deleted for this."""
        return self.header.ends

    @classmethod
    def open(cls, source: Source) -> Dump:
        """Receive a file and verify its checksum.

        Args:
            source: a path, the bytes, a binary file, or an iterable of bytes in order.

        Raises:
            ArchiveDamagedError: it is not what was written.
            ArchiveVersionError: a newer version wrote it.
        """
        if isinstance(source, Dump):
            return source
        file = spool()
        try:
            return cls._received(file, _chunks(source))
        except BaseException:
            file.close()
            raise

    @classmethod
    def _received(cls, file: IO[bytes], source: Iterator[bytes]) -> Dump:
        held = b""
        size = None
        for chunk in source:
            held += chunk
            if size is None and len(held) >= PREAMBLE.size:
                size = header_bytes(held)
            if size is not None and len(held) >= size:
                break
        header = read_header(held)  # before anything is stored of bytes that only claim to be one
        assert size is not None
        whole = size + header.stored_bytes + CHECKSUM_BYTES
        digest, checksum, length = hashlib.blake2b(digest_size=CHECKSUM_BYTES), b"", 0
        while held:
            file.write(held)
            length += len(held)
            if length > whole:
                raise ArchiveDamagedError(f"the file is longer than its header says ({whole})")
            digest.update((checksum + held)[:-CHECKSUM_BYTES])
            checksum = (checksum + held)[-CHECKSUM_BYTES:]
            held = next(source, b"")
        if length < whole:
            raise ArchiveDamagedError(f"the file ends after {length} of {whole} bytes")
        if digest.digest() != checksum:
            raise ArchiveDamagedError("the file does not match its checksum")
        return cls(file, header, size, checksum)

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
        """Write the file to a path, whole or not at all.

        What is there and is no regular file, such as a device or a pipe, is written to, and not
        replaced.
        """
        target = Path(path)
        if target.exists() and not target.is_file():
            with target.open("wb") as device:
                for chunk in self:
                    device.write(chunk)
            return
        with NamedTemporaryFile(
            dir=target.parent, prefix=".thread.", suffix=".part", delete=False
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

    def verify(self, compression: Compression | None = None) -> None:
        """Check all rows: types, order, digest chain, checksums of snapshots.

        Args:
            compression: bounds the size of payloads, as a codec does. Dictionaries of its own are
                not needed: the file brings them.

        Raises:
            ArchiveDamagedError: a row is damaged or missing.
        """
        for _ in self.records(compression or Compression()):
            pass

    def records(self, compression: Compression, *, checked: bool = False) -> Iterator[Record]:
        """The rows, in order, each checked against those before it; the last record is the end.

        Args:
            checked: skip the checks, since :meth:`verify` made them before.

        Raises:
            ArchiveDamagedError: a row is damaged or missing. Discard the records before it.
        """
        # A copy, so that the dictionaries of this file do not stay in the caller's.
        compression = compression.without_types()
        checker = None if checked else Checker(self.header, compression)
        record_bytes_max = 2 * compression.max_decoded_bytes + _RECORD_BYTES_BESIDES
        layouts: dict[int, list[str]] = {}
        try:
            for tag, *values in self._unpacked(record_bytes_max):
                if tag == COLUMNS:
                    layouts = layouts_of(values[0])
                    continue
                record = (tag, arranged(tag, values, layouts))
                if checker is not None:
                    checker.check(*record)
                    if tag == DICTIONARY:
                        compression.add_dictionary(*record[1], write=False)
                yield record
            if checker is not None:
                checker.check_complete()
        except ArchiveDamagedError:
            raise
        except (CorruptEventError, ConfigurationError, *DECODE_ERRORS) as error:
            raise ArchiveDamagedError(f"a row cannot be read: {error}") from error

    def _unpacked(self, record_bytes_max: int) -> Iterator[list[Any]]:
        unpacker = msgpack.Unpacker(
            max_buffer_size=record_bytes_max, max_array_len=64, max_map_len=64, max_ext_len=0
        )
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
        rows = _Part(self._file, self._start, self.header.stored_bytes)
        raw = 0
        with decompressor.stream_reader(cast("IO[bytes]", rows), closefd=False) as stream:
            while piece := stream.read(CHUNK_BYTES):
                raw += len(piece)
                if raw > self.header.raw_bytes:
                    raise ArchiveDamagedError("the rows are longer than the header says")
                unpacker.feed(piece)
                yield from unpacker
        if raw != self.header.raw_bytes:
            raise ArchiveDamagedError("the rows are shorter than the header says")

    def close(self) -> None:
        """Release the memory or the temporary file."""
        self._file.close()

    def __repr__(self) -> str:
        return f"<Dump of {self.header.thread_id!r}, {self.size} bytes>"


Source = Dump | str | os.PathLike[str] | bytes | IO[bytes] | Iterable[bytes]


class _Part:
    """A part of a file, read from its beginning; others may read the file at the same time."""

    def __init__(self, file: IO[bytes], at: int, size: int) -> None:
        self._file, self._at, self._end = file, at, at + size

    def read(self, size: int = -1) -> bytes:
        left = self._end - self._at
        self._file.seek(self._at)
        found = self._file.read(left if size < 0 else min(size, left))
        self._at += len(found)
        return found


def spool() -> IO[bytes]:
    """An empty file in memory, which moves to disk when it grows beyond ``SPOOL_BYTES``."""
    return cast("IO[bytes]", SpooledTemporaryFile(SPOOL_BYTES))


def _chunks(source: Any) -> Iterator[bytes]:
    """The bytes of a path, bytes, a binary file or an iterable, in pieces that are not empty."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield bytes(source)
    elif isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            yield from _chunks(file)
    elif hasattr(source, "read"):
        while chunk := source.read(CHUNK_BYTES):
            yield bytes(chunk)
    elif isinstance(source, Iterable):
        for chunk in source:
            check_type("an archive's chunk", chunk, bytes)
            if chunk:
                yield bytes(chunk)
    else:
        raise ConfigurationError(
            f"source must be a Dump, a path, bytes, a binary file or an iterable of bytes, not "
            f"{shown(source)}"
        )


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file as durable as its content, where folders can be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
