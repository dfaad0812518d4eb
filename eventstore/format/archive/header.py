"""The beginning of an archive file: magic number, version and header.

Promises that a header read here is verified, of the right types, and names a thread whose key
matches its name. Knows nothing of the rows that follow.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgpack
import zstandard

from eventstore.errors import ArchiveDamagedError, ArchiveVersionError, CorruptEventError
from eventstore.format import checks, digests
from eventstore.models import from_micros

MAGIC: Final = b"\x93EVTARC\n"
VERSION: Final = 1
PREAMBLE: Final = struct.Struct(">8sHI")
HEADER_BYTES_MAX: Final = 16 * 2**20
_CHECKSUM_BYTES: Final = 16

GENERATION_MAX: Final = 2**30
"""The last generation that a file may name: databases store those that follow it in 32 bits."""

_STORED_NAMES: Final = {"generation": "life"}
"""Header fields with another name in files: the format is older than the names."""

DECODE_ERRORS = (
    msgpack.UnpackException,
    struct.error,
    zstandard.ZstdError,
    ArithmeticError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What decoding damaged bytes of a file may raise."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an archive file says about its thread.

    Attributes:
        generation: how many earlier threads had the same name.
        created_us, active_us, archived_us: when the thread was created and last active, and when
            the file was made, in microseconds since 1970.
        logs: the logs in the file, each with the seq of its last event (0: only a base).
        ends: the same for the thread's own logs, without those taken from other threads.
        events, snapshots, segments, forks: number of rows of each kind.
        raw_bytes, stored_bytes: size of the rows before and after compression.
        pin: why the thread was pinned (``reason``, ``by``, ``at`` in microseconds; empty if not
            recorded); ``None`` if it was not pinned.
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
        """When the thread was last active, to the minute, UTC."""
        return from_micros(self.active_us)

    @property
    def archived_at(self) -> datetime:
        """When the file was made, UTC."""
        return from_micros(self.archived_us)

    def packed(self) -> bytes:
        """The beginning of the file, up to the rows."""
        fields = {_STORED_NAMES.get(name, name): getattr(self, name) for name in self.__slots__}
        body: bytes = msgpack.packb(fields)
        start = PREAMBLE.pack(MAGIC, VERSION, len(body)) + body
        return start + _checksum(start)


def _checksum(start: bytes) -> bytes:
    return hashlib.blake2b(start, digest_size=_CHECKSUM_BYTES).digest()


def header_bytes(start: bytes) -> int:
    """The length of a file up to its rows, from at least its first ``PREAMBLE.size`` bytes.

    Raises:
        ArchiveDamagedError: this is not an archive file.
        ArchiveVersionError: a newer version wrote it.
    """
    if len(start) < PREAMBLE.size or not start.startswith(MAGIC):
        raise ArchiveDamagedError("this is not an archived thread")
    _, version, size = PREAMBLE.unpack_from(start)
    if version > VERSION:
        raise ArchiveVersionError(version, VERSION)
    if version < 1 or size > HEADER_BYTES_MAX:
        raise ArchiveDamagedError(f"the header has version {version} and {size} bytes")
    return int(PREAMBLE.size + size + _CHECKSUM_BYTES)


def read_header(start: bytes) -> Header:
    """The header of a file that begins with these bytes.

    Raises:
        ArchiveDamagedError: this is not an archive file, it is cut short, or it does not verify.
        ArchiveVersionError: a newer version wrote it.
    """
    size = header_bytes(start)
    if len(start) < size:
        raise ArchiveDamagedError("the file ends within its header")
    start = start[:size]
    content, checksum = start[:-_CHECKSUM_BYTES], start[-_CHECKSUM_BYTES:]
    if _checksum(content) != checksum:
        raise ArchiveDamagedError("the header does not match its checksum")
    try:
        values = msgpack.unpackb(
            content[PREAMBLE.size :], strict_map_key=True, max_array_len=0, max_ext_len=0
        )
        known = {"pin": None, **values}  # files made before threads could be pinned have none
        found = Header(**{name: known[_STORED_NAMES.get(name, name)] for name in Header.__slots__})
    except DECODE_ERRORS as error:
        raise ArchiveDamagedError(f"the header cannot be read: {error}") from error
    try:
        if not _is_valid(found):
            raise CorruptEventError("a field has an invalid value")
        for name in ("created_us", "active_us", "archived_us"):
            checks.check_moment(name.removesuffix("_us") + "_at", getattr(found, name))
        if found.pin:
            checks.pin_of(found.pin)
    except (CorruptEventError, ValueError) as error:
        raise ArchiveDamagedError(f"the header cannot be used: {error}") from error
    return found


def _is_valid(header: Header) -> bool:
    numbers = [name for name, kind in Header.__annotations__.items() if kind == "int"]
    return (
        all(_is_number(getattr(header, name)) for name in numbers)
        and header.generation <= GENERATION_MAX
        and all(_is_name(text) for text in (header.tenant, header.thread_id))
        and all(
            type(logs) is dict
            and all(_is_name(ns) and _is_number(last) for ns, last in logs.items())
            for logs in (header.logs, header.ends)
        )
        and (header.pin is None or type(header.pin) is dict)
        and digests.thread_key(header.tenant, header.thread_id, header.generation)
        == header.thread_key
    )


def _is_name(value: object) -> bool:
    return type(value) is str and b"\0" not in value.encode()


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63
