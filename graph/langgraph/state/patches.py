"""Compresses bytes against bytes that the reader has already. Pure.

The known bytes are a zstd prefix: whatever of them appears again costs a few bytes. Promises that
no declared size is believed before it is checked.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import zstandard

from eventstore import CorruptEventError

PLAIN, ZSTD = b"\x00", b"\x01"

BYTES_MAX: Final = 256 * 2**20
"""A body that declares more is not read."""

PREFIX_MAX: Final = 64 * 2**20
"""Known bytes beyond this are not used; window and matches then fit what every zstd reads."""

QUICK, THOROUGH = 6, 9
"""Levels of compression."""

_WINDOW_LOG: Final = (10, 27)


def pack(body: bytes, known: bytes, level: int = QUICK) -> bytes:
    """The body compressed against known bytes; :func:`unpack` gives it back."""
    known = known[:PREFIX_MAX]
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
    if mark != ZSTD:
        raise CorruptEventError(f"the delta has the unknown encoding {mark!r}")
    size = zstandard.frame_content_size(frame)
    if not 0 <= size <= BYTES_MAX:
        raise CorruptEventError(f"the delta declares {size} bytes; up to {BYTES_MAX} are read")
    known = known[:PREFIX_MAX]
    return zstandard.ZstdDecompressor(dict_data=_prefix(known)).decompress(frame)


def _prefix(known: bytes) -> zstandard.ZstdCompressionDict | None:
    # zstd takes no prefix below 8 bytes.
    if len(known) < 8:
        return None
    return zstandard.ZstdCompressionDict(known, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
