"""Many cold events in one row: what a segment's payload holds, and getting it back.

Beside one another the bodies of events compress far better than each for itself with a
dictionary, and one row takes the place of many. The digests of the events are not stored: they
cover the bodies, so whoever reads a segment computes them again, and the chain from the event
before it to the event behind it holds for every event in it. Pure functions over bytes and the
codec; which events go into one, and when, is for :mod:`eventstore.core.seal`.
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
"""Events in a segment."""

BODIES_MAX: Final = 2**20
"""Bytes of their bodies, unless a single event has more."""

LEVEL: Final = 15
"""Of compression: written once, in the background, by somebody who has the time."""

_LAYOUT: Final = 1
_SIZE: Final = 4


class Body(NamedTuple):
    """An event with its payload uncompressed: what its digest covers."""

    seq: int
    kind: int
    key: str | None
    recorded_at: int
    digest: bytes
    body: bytes


class Segment(NamedTuple):
    """A segment's row.

    Attributes:
        seq, last: of its first and its last event.
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
        """How many events it holds."""
        return self.last - self.seq + 1


def is_old(payload: bytes) -> bool:
    """Whether the digest of an event covers its payload as stored, so that it must stay so."""
    return payload[0] < FORMAT_VERSION


def covered(payload: bytes, body: bytes) -> bytes:
    """What of an event's data its digest covers."""
    return payload if is_old(payload) else body


_CLAIM_MAX: Final = 4096
"""Items that a list in a segment's head may claim to have."""

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
    return found


def payload_of(event: Body) -> bytes:
    """The payload of an event that is to have a row of its own again."""
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
        raise ValueError(f"its layout is {layout!r}; this version reads {_LAYOUT}")
    if not len(kinds) == len(deltas) == len(sizes) == segment.events or min(sizes) < 0:
        raise ValueError(f"it does not hold the {segment.events} events that its row says")
    if start + sum(sizes) != len(content):
        raise ValueError("its bodies are longer or shorter than they should be")
    digest = segment.link
    rows = zip(kinds, accumulate(deltas), sizes, strict=True)
    for n, (kind, recorded_at, size) in enumerate(rows):
        body, start = content[start : start + size], start + size
        seq, key = segment.seq + n, keys.get(n)
        digest = digests.link(digest, seq, kind, key, recorded_at, body)
        yield Body(seq, kind, key, recorded_at, digest, body)
