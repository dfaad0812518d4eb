"""Segments: many cold events in one row, sealed and unsealed.

Bodies compress far better together than one by one with a dictionary, and one row replaces many.
The digests of the events are not stored: they cover the bodies, so reading a segment computes
them again. Promises that the chain from the event before a segment to the event after it is
verified for every event in it. Pure functions over bytes; :mod:`eventstore.core.seal` decides
which events are sealed, and when.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import msgpack

from eventstore.codec.compression import FORMAT_VERSION, Compression
from eventstore.errors import CorruptEventError
from eventstore.format import digests

EVENTS_MAX: Final = 256
"""Events in a segment at most."""

BODIES_MAX: Final = 2**20
"""Bytes of the bodies in a segment at most, unless a single event has more."""

LEVEL: Final = 15
"""Compression level; high, because segments are written once, in the background."""

_LAYOUT: Final = 1
_SIZE: Final = 4


class Body(NamedTuple):
    """An event with the body of its payload, which its digest covers."""

    seq: int
    kind: int
    key: str | None
    recorded_at: int
    digest: bytes
    body: bytes


class Segment(NamedTuple):
    """A segment's row.

    Attributes:
        seq, last: seqs of its first and its last event.
        link: the digest before its first event.
        digest, recorded_at: of its last event.
        raw: bytes of the bodies.
    """

    seq: int
    last: int
    link: bytes
    digest: bytes
    recorded_at: int
    raw: int
    payload: bytes

    @property
    def events(self) -> int:
        """The number of its events."""
        return self.last - self.seq + 1


def is_old(payload: bytes) -> bool:
    """Whether a payload has format 1: the event's digest covers it as stored, so it must not be
    compressed anew.
    """
    return payload[0] < FORMAT_VERSION


def covered(payload: bytes, body: bytes) -> bytes:
    """The bytes that an event's digest covers: the body or, in format 1, the payload."""
    return payload if payload[0] < FORMAT_VERSION else body


_CLAIM_MAX: Final = 4096
"""Items that a list in a segment's head may claim."""

_COMPRESSION: Final = Compression()
"""Segments use neither the application's dictionaries nor its size bound for one payload."""

_BAD = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
    msgpack.UnpackException,
    struct.error,
)


def seal(link: bytes, events: Sequence[Body]) -> Segment:
    """A segment of consecutive events; ``link`` is the digest before the first one."""
    times = [event.recorded_at for event in events]
    head = msgpack.packb(
        [
            _LAYOUT,
            [event.kind for event in events],
            [times[0], *(after - before for before, after in pairwise(times))],
            [len(event.body) for event in events],
            {n: event.key for n, event in enumerate(events) if event.key is not None},
        ],
        unicode_errors="surrogatepass",
    )
    bodies = [event.body for event in events]
    content = b"".join([len(head).to_bytes(_SIZE, "big"), head, *bodies])
    last = events[-1]
    return Segment(
        events[0].seq,
        last.seq,
        link,
        last.digest,
        last.recorded_at,
        sum(map(len, bodies)),
        _COMPRESSION.compressed(content, LEVEL),
    )


def unseal(segment: Segment) -> list[Body]:
    """The events of a segment, verified: the chain leads from its link to its last digest.

    Raises:
        CorruptEventError: it does not, or the bytes are not a segment.
    """
    try:
        content = _COMPRESSION.body(segment.payload)
        found = list(_events(content, segment))
    except _BAD as error:
        raise CorruptEventError(f"the segment does not decode: {error!s:.200}") from error
    if not found or found[-1].digest != segment.digest:
        raise CorruptEventError("the segment does not match the digest chain")
    raw = sum(len(event.body) for event in found)
    if (found[-1].recorded_at, raw) != (segment.recorded_at, segment.raw):
        raise CorruptEventError("the segment's row says something else than its content")
    return found


def payload_of(event: Body) -> bytes:
    """The payload for an event that gets a row of its own again."""
    return _COMPRESSION.compressed(event.body)


def _events(content: bytes, segment: Segment) -> Iterator[Body]:
    start = _SIZE + int.from_bytes(content[:_SIZE], "big")
    layout, kinds, deltas, sizes, keys = msgpack.unpackb(
        content[_SIZE:start],
        strict_map_key=False,
        unicode_errors="surrogatepass",
        max_array_len=_CLAIM_MAX,
        max_map_len=_CLAIM_MAX,
    )
    if layout != _LAYOUT:
        raise ValueError(f"its layout is {layout!r}, and this version reads layout {_LAYOUT}")
    if not len(kinds) == len(deltas) == len(sizes) == segment.events or min(sizes) < 0:
        raise ValueError(f"it does not hold {segment.events} events as its row says")
    if start + sum(sizes) != len(content):
        raise ValueError("its bodies are longer or shorter than they should be")
    digest = segment.link
    rows = zip(kinds, accumulate(deltas), sizes, strict=True)
    for n, (kind, recorded_at, size) in enumerate(rows):
        body, start = content[start : start + size], start + size
        seq, key = segment.seq + n, keys.get(n)
        digest = digests.link(digest, seq, kind, key, recorded_at, body)
        yield Body(seq, kind, key, recorded_at, digest, body)
