"""Compresses bytes against bytes that the reader has already. Pure.

The known bytes are a dictionary: whatever of them appears again costs a few bytes. Small bodies are
deflated, which takes a third of the time that zstd takes to begin, and has a shorter header.
Promises that no declared size is believed before it is checked.
"""

from __future__ import annotations

import zlib
from functools import cache
from typing import Final

import zstandard

from eventstore import CorruptEventError

PLAIN, ZSTD, DEFLATED = b"\x00", b"\x01", b"\x02"

BYTES_MAX: Final = 256 * 2**20
"""A body that declares more is not read."""

PREFIX_MAX: Final = 64 * 2**20
"""Known bytes beyond this are not used; window and matches then fit what every zstd reads."""

FAST, QUICK, THOROUGH = 4, 6, 9
"""Levels of compression."""

LARGE: Final = 128 * 1024
"""From here on the fast level takes half the time of the quick one, for a few more bytes."""

SMALL: Final = 4 * 1024
"""Up to here a body is deflated, if the known bytes fit into a window as well."""

PREFIX_SHARE: Final = 8
"""Known bytes that are fewer than one in so many of the body's are not used: zstd searches no more
of the body than fits into tables of their size, and misses what the body itself repeats."""

_WINDOW_LOG: Final = (10, 27)

_DEFLATE: Final = ((7 * 2**10, 13, 6), (31 * 2**10, 15, 5))
"""Up to how many bytes of body and known bytes, with which window (its log) and how much memory.
More memory would come from the operating system, page by page, each time."""


def pack(body: bytes, known: bytes, level: int = QUICK) -> bytes:
    """The body compressed against known bytes; :func:`unpack` gives it back."""
    if len(body) <= SMALL:
        for most, window_log, memory in _DEFLATE:
            if len(body) + len(known) <= most:
                deflate = zlib.compressobj(level, zlib.DEFLATED, -window_log, memory, zdict=known)
                packed = deflate.compress(body) + deflate.flush()
                return DEFLATED + packed if len(packed) < len(body) else PLAIN + body
    known = b"" if len(known) * PREFIX_SHARE < len(body) else known[:PREFIX_MAX]
    if level == QUICK and len(body) + len(known) >= LARGE:
        level = FAST
    parameters = _parameters(level, (len(body) + len(known)).bit_length())
    compressor = zstandard.ZstdCompressor(dict_data=_prefix(known), compression_params=parameters)
    frame = compressor.compress(body)
    return ZSTD + frame if len(frame) < len(body) else PLAIN + body


@cache
def _parameters(level: int, size_log: int) -> zstandard.ZstdCompressionParameters:
    least, most = _WINDOW_LOG
    return zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=1 << size_log,
        window_log=min(max(least, size_log), most),
        write_dict_id=False,
        write_checksum=False,
        write_content_size=True,
    )


def unpack(packed: bytes, known: bytes) -> bytes:
    """The inverse of :func:`pack`, with the same known bytes.

    Raises:
        CorruptEventError: it declares too many bytes, or none that can be read.
    """
    mark, frame = packed[:1], packed[1:]
    if mark == PLAIN:
        return frame
    if mark == DEFLATED:
        return _inflated(frame, known)
    if mark != ZSTD:
        raise CorruptEventError(f"the delta has the unknown encoding {mark!r}")
    size = zstandard.frame_content_size(frame)
    if not 0 <= size <= BYTES_MAX:
        raise CorruptEventError(f"the delta declares {size} bytes; up to {BYTES_MAX} are read")
    known = known[:PREFIX_MAX]
    return zstandard.ZstdDecompressor(dict_data=_prefix(known)).decompress(frame)


def _inflated(packed: bytes, known: bytes) -> bytes:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS, zdict=known)
    try:
        body = inflate.decompress(packed, SMALL)
    except zlib.error as error:
        raise CorruptEventError(f"the delta does not decompress: {error}") from error
    if not inflate.eof or inflate.unused_data:
        raise CorruptEventError(f"the delta is cut off, or holds more than {SMALL} bytes")
    return body


def _prefix(known: bytes) -> zstandard.ZstdCompressionDict | None:
    # zstd takes no prefix below 8 bytes.
    if len(known) < 8:
        return None
    return zstandard.ZstdCompressionDict(known, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
