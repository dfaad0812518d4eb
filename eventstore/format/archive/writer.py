"""Writing an archive file, row by row.

Checks each row as a reader would, so that damage in the database is found before the thread is
deleted in trust of its file. Promises the same bytes for the same rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final

import msgpack
import zstandard

from eventstore.codec.compression import Compression
from eventstore.format.archive.checker import Checker
from eventstore.format.archive.dump import CHECKSUM_BYTES, CHUNK_BYTES, Dump, spool
from eventstore.format.archive.header import Header
from eventstore.format.archive.rows import (
    COLUMNS,
    END,
    EVENT,
    FORK_LINK,
    SEGMENT,
    SNAPSHOT,
    STORED_NAMES,
    Row,
)

_LEVEL: Final = 3


class Writer:
    """Makes a :class:`Dump`. The sizes and counts of the given header are filled in at the end."""

    def __init__(self, header: Header, compression: Compression) -> None:
        self._header = header
        self._checker = Checker(header, compression)
        self._spool = spool()
        self._compress = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        self._pack = msgpack.Packer(autoreset=True).pack
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._raw = self._stored = 0
        self._put(COLUMNS, [{str(tag): names for tag, names in STORED_NAMES.items()}])

    def put(self, tag: int, row: Row) -> None:
        """Add a row.

        Raises:
            CorruptEventError: it is not what was once stored.
        """
        self._checker.check(tag, row)
        self._put(tag, row)

    def _put(self, tag: int, row: Row) -> None:
        record = self._pack([tag, *row])
        self._raw += len(record)
        self._waiting.append(record)
        self._waiting_bytes += len(record)
        if self._waiting_bytes >= CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._write(self._compress.compress(b"".join(self._waiting)))
        self._waiting, self._waiting_bytes = [], 0

    def _write(self, piece: bytes) -> None:
        self._stored += len(piece)
        self._spool.write(piece)

    def finish(self) -> Dump:
        """The complete file."""
        self._checker.check(END, ())
        self._checker.check_links()
        self._put(END, ())
        self._flush()
        self._write(self._compress.flush())
        counts = self._checker.counts
        header = replace(
            self._header,
            logs=self._checker.logs,
            events=counts[EVENT],
            snapshots=counts[SNAPSHOT],
            segments=counts[SEGMENT],
            forks=counts[FORK_LINK],
            raw_bytes=self._raw,
            stored_bytes=self._stored,
        )
        return self._assembled(header)

    def _assembled(self, header: Header) -> Dump:
        start = header.packed()
        digest = hashlib.blake2b(start, digest_size=CHECKSUM_BYTES)
        file = spool()
        try:
            file.write(start)
            self._spool.seek(0)
            while piece := self._spool.read(CHUNK_BYTES):
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
        """Discard what was written."""
        self._spool.close()
