"""Where a payload is compressed: body <-> payload, with bounds and dictionaries.

A payload is one byte format version, one byte codec, then the body: as it is (0), as a zstd
frame (1), or as a zstd frame with the dictionary that the frame names (2); the smallest wins.
In version 2 the digest of an event covers its body, so that events can be compressed anew, many
together, and keep their digests. In version 1 (written before there were segments) it covers
the payload as stored, so such an event is never compressed anew.

Promises that no declared size is believed before it is checked, that equal bodies give equal
payloads in every process, and that one object may be shared by many threads: zstd contexts are
kept per thread. Knows nothing of what a body holds.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Mapping
from functools import cache

import msgpack
import zstandard

from eventstore.codec import dictionaries as builtin_dictionaries
from eventstore.errors import ConfigurationError, CorruptEventError

FORMAT_VERSION = 2
FIRST_VERSION = 1
PLAIN, ZSTD, ZSTD_WITH_DICTIONARY = 0, 1, 2

_NO_DICTIONARY = 0

_HEADERS = tuple(bytes((FORMAT_VERSION, codec)) for codec in range(3))
_VERSIONS = range(FIRST_VERSION, FORMAT_VERSION + 1)
_PLAIN = frozenset(bytes((version, PLAIN)) for version in _VERSIONS)
_FRAMED = frozenset(
    bytes((version, codec)) for version in _VERSIONS for codec in (ZSTD, ZSTD_WITH_DICTIONARY)
)
_FRAME_HEADER_BYTES_MAX = 18
_LEVELS = range(-7, 23)

# Below this no frame is smaller than its body: header, dictionary id and size take 11 bytes.
_COMPRESSED_BODY_BYTES_MIN = 24
# Above this the dictionary saves less than 9 % and costs time: the body is its own dictionary.
# Where a level is asked for, the time is worth 5 %.
_DICTIONARY_BODY_BYTES_MAX = 32 * 1024
_DICTIONARY_BODY_BYTES_MAX_AT_LEVEL = 96 * 1024
# At fast levels zstd keeps the dictionary's statistics even where they do not fit: text unlike
# it grew by up to 20 % against no dictionary. So a poor result is tried again without.
_POOR_RATIO = 2
_SECOND_TRY_BODY_BYTES_MIN = 256

# How payloads with a dictionary of a one-byte id begin: header, magic number, descriptor with
# 1 or 2 bytes of size, id. The frame's own size field then allows no more than 65,791 bytes.
_SMALL_FRAME_STARTS = tuple(
    _HEADERS[ZSTD_WITH_DICTIONARY] + zstandard.FRAME_HEADER + bytes((descriptor,))
    for descriptor in (0x21, 0x61)
)
_SMALL_FRAME_START_BYTES = 8
_SMALL_FRAME_BODY_BYTES_MAX = 0xFFFF + 256

# Frames that name a dictionary of the application have an id of several bytes.
_DESCRIPTOR_AT = 2 + len(zstandard.FRAME_HEADER)
_ID_OF_SEVERAL_BYTES = 2

# What msgpack, zstd and the decoders of the built-in types raise on bad bytes, and what
# __hash__ and __eq__ of an application's half-built dict key may add.
DECODE_ERRORS = (
    msgpack.UnpackException,
    struct.error,
    zstandard.ZstdError,
    ArithmeticError,
    AttributeError,
    BufferError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
)


class _Dictionary:
    """A zstd dictionary, digested once for each level that is used; shared by threads."""

    def __init__(self, data: bytes, level: int) -> None:
        self.dict_data = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_FULLDICT)
        self.id = self.dict_data.dict_id()
        self._digested: dict[int, zstandard.ZstdCompressionDict] = {}
        # The first decompression digests the dictionary for reading: not safe in two threads.
        self.decompressor().decompress(self.compressor(level).compress(b"warm up"))

    def compressor(self, level: int) -> zstandard.ZstdCompressor:
        digested = self._digested.get(level)
        if digested is None:
            digested = zstandard.ZstdCompressionDict(
                self.dict_data.as_bytes(), dict_type=zstandard.DICT_TYPE_FULLDICT
            )
            digested.precompute_compress(level=level)
            self._digested[level] = digested  # before this, no other thread sees it
        return zstandard.ZstdCompressor(level=level, dict_data=digested)

    def decompressor(self) -> zstandard.ZstdDecompressor:
        return zstandard.ZstdDecompressor(dict_data=self.dict_data)


@cache
def _builtin_dictionary(dict_id: int, level: int) -> _Dictionary:
    return _Dictionary(builtin_dictionaries.builtin(dict_id), level)


class _Contexts(threading.local):
    """The zstd contexts of one thread; no two threads may share them."""

    def __init__(self) -> None:
        # By the id of the dictionary, 0 for none, and the level.
        self.compressors: dict[tuple[int, int], zstandard.ZstdCompressor] = {}
        self.decompressors: dict[int, zstandard.ZstdDecompressor] = {
            _NO_DICTIONARY: zstandard.ZstdDecompressor()
        }
        # By the first bytes of a payload, for payloads whose frame header needs no parsing.
        self.small_frames: dict[bytes, zstandard.ZstdDecompressor] = {}


class Compression:
    """Compresses bodies to payloads and gives them back."""

    def __init__(
        self,
        *,
        compress: bool = True,
        level: int = 5,
        max_decoded_bytes: int = 256 * 2**20,
        dictionaries: Mapping[int, bytes] | None = None,
    ) -> None:
        if level not in _LEVELS:
            raise ConfigurationError(f"level must be from {_LEVELS[0]} to {_LEVELS[-1]}")
        if max_decoded_bytes < 1:
            raise ConfigurationError("max_decoded_bytes must be at least 1")
        self.compress = compress
        self.level = level
        self.max_decoded_bytes = max_decoded_bytes
        self._contexts = _Contexts()
        self._writing_id = builtin_dictionaries.BUILTIN_ID
        self._dictionaries = {self._writing_id: _builtin_dictionary(self._writing_id, level)}
        for dict_id, data in (dictionaries or {}).items():
            self.add_dictionary(dict_id, data)

    # --- dictionaries -------------------------------------------------------------------

    def add_dictionary(self, dict_id: int, data: bytes, *, write: bool = True) -> None:
        """Read payloads that use this dictionary and, with ``write``, compress with it.

        Raises:
            ConfigurationError: it is not a zstd dictionary of this id, or the id is taken.
        """
        if dict_id < builtin_dictionaries.FIRST_CUSTOM_ID:
            raise ConfigurationError(
                f"dictionary ids below {builtin_dictionaries.FIRST_CUSTOM_ID} are reserved; "
                f"dict_id is {dict_id}"
            )
        try:
            dictionary = _Dictionary(data, self.level)
        except (zstandard.ZstdError, ValueError) as exc:
            raise ConfigurationError(f"dictionary {dict_id} is not a zstd dictionary") from exc
        if dictionary.id != dict_id:
            raise ConfigurationError(
                f"the dictionary given as {dict_id} has the id {dictionary.id} inside; train it "
                f"with dict_id={dict_id}"
            )
        known = self._dictionaries.setdefault(dict_id, dictionary)
        if known.dict_data.as_bytes() != data:
            raise ConfigurationError(
                f"dictionary id {dict_id} is already used by another dictionary of this codec"
            )
        if write:
            self._writing_id = dict_id

    def own_dictionary(self, dict_id: int) -> bytes | None:
        """An added dictionary; ``None`` if it is built in or unknown."""
        known = self._dictionaries.get(dict_id)
        if known is None or dict_id < builtin_dictionaries.FIRST_CUSTOM_ID:
            return None
        return known.dict_data.as_bytes()

    @property
    def writes_with(self) -> int:
        """The id of the dictionary that small bodies are compressed with."""
        return self._writing_id

    def lacks(self, payloads: Iterable[bytes]) -> set[int]:
        """The ids of dictionaries that these payloads need and that were not added yet."""
        named = {dictionary_id(each) for each in payloads if _may_name_dictionary(each)}
        return {dict_id for dict_id in named if dict_id and dict_id not in self._dictionaries}

    def without_types(self) -> Compression:
        """A copy with the same size bound and dictionaries; dictionaries added to it stay in it."""
        copy = Compression(max_decoded_bytes=self.max_decoded_bytes)
        for dict_id in list(self._dictionaries):
            if data := self.own_dictionary(dict_id):
                copy.add_dictionary(dict_id, data, write=False)
        return copy

    # --- body to payload ----------------------------------------------------------------

    def compressed(self, body: bytes, level: int | None = None) -> bytes:
        """The payload that holds a body; :meth:`body` gives it back.

        Args:
            level: used instead of the codec's level, for bodies that are worth the time.

        Raises:
            ValueError: zstd has no such level.
        """
        size = len(body)
        if not self.compress or size < _COMPRESSED_BODY_BYTES_MIN:
            return _HEADERS[PLAIN] + body
        largest = _DICTIONARY_BODY_BYTES_MAX
        if level is None:
            level = self.level
        else:
            largest = _DICTIONARY_BODY_BYTES_MAX_AT_LEVEL
        if size <= largest:
            frame, codec = self._frame(body, self._writing_id, level), ZSTD_WITH_DICTIONARY
            if len(frame) * _POOR_RATIO > size >= _SECOND_TRY_BODY_BYTES_MIN:
                alone = self._frame(body, _NO_DICTIONARY, level)
                if len(alone) < len(frame):
                    frame, codec = alone, ZSTD
        else:
            frame, codec = self._frame(body, _NO_DICTIONARY, level), ZSTD
        return _HEADERS[codec] + frame if len(frame) < size else _HEADERS[PLAIN] + body

    @staticmethod
    def plain(body: bytes) -> bytes:
        """The payload that holds a body as it is."""
        return _HEADERS[PLAIN] + body

    def _frame(self, body: bytes, dict_id: int, level: int) -> bytes:
        compressors = self._contexts.compressors
        compressor = compressors.get((dict_id, level))
        if compressor is None:
            if level not in _LEVELS:
                raise ValueError(f"level must be from {_LEVELS[0]} to {_LEVELS[-1]}")
            if dict_id == _NO_DICTIONARY:
                compressor = zstandard.ZstdCompressor(level=level)
            else:
                compressor = self._dictionaries[dict_id].compressor(level)
            compressors[dict_id, level] = compressor
        return compressor.compress(body)

    # --- payload to body ----------------------------------------------------------------

    def body(self, payload: bytes) -> bytes:
        """The body in ``payload``, or a ``CorruptEventError``."""
        contexts = self._contexts
        if type(payload) is not bytes:  # some drivers return a memoryview
            payload = bytes(memoryview(payload))  # not bytes(number), which would allocate
        try:
            small = contexts.small_frames.get(payload[:_SMALL_FRAME_START_BYTES])
            if small is None:
                return self._body(payload, contexts)
            return small.decompress(payload[2:], 0, False, False)
        except DECODE_ERRORS as exc:
            raise undecodable(exc) from exc

    def _body(self, payload: bytes, contexts: _Contexts) -> bytes:
        header, body = payload[:2], payload[2:]
        if header in _PLAIN:
            self._check_size(len(body))
            return body
        if header not in _FRAMED:
            raise CorruptEventError(_wrong_header(header))
        frame = zstandard.get_frame_parameters(body)
        self._check_size(frame.content_size)
        decompressor = contexts.decompressors.get(frame.dict_id)
        if decompressor is None:
            dictionary = self._dictionaries.get(frame.dict_id)
            if dictionary is None:
                raise CorruptEventError(
                    f"the payload needs the zstd dictionary {frame.dict_id}, which this codec "
                    "does not know; add it with codec.add_dictionary()"
                )
            decompressor = contexts.decompressors[frame.dict_id] = dictionary.decompressor()
            if frame.dict_id < 256 and self.max_decoded_bytes >= _SMALL_FRAME_BODY_BYTES_MAX:
                for start in _SMALL_FRAME_STARTS:
                    contexts.small_frames[start + bytes((frame.dict_id,))] = decompressor
        return decompressor.decompress(body, 0, False, False)  # no further frame, no extra data

    def _check_size(self, size: int) -> None:
        if size == zstandard.CONTENTSIZE_UNKNOWN:
            raise CorruptEventError("the payload does not declare its size")
        if size > self.max_decoded_bytes:
            raise CorruptEventError(
                f"the payload declares {size} bytes, more than "
                f"max_decoded_bytes={self.max_decoded_bytes}"
            )

    def raw_size(self, payload: bytes, stored: int | None = None) -> int:
        """Size of the body in a payload; reads the header only.

        Args:
            stored: length of the whole payload, if ``payload`` is only its first 32 bytes.
        """
        header = payload[:2]
        if header in _PLAIN:
            return (len(payload) if stored is None else stored) - 2
        if header not in _FRAMED:
            raise CorruptEventError(_wrong_header(header))
        try:
            frame = zstandard.get_frame_parameters(payload[2 : 2 + _FRAME_HEADER_BYTES_MAX])
        except zstandard.ZstdError as exc:
            raise CorruptEventError("the payload holds no zstd frame") from exc
        if frame.content_size == zstandard.CONTENTSIZE_UNKNOWN:
            raise CorruptEventError("the payload does not declare its size")
        return frame.content_size


def undecodable(exc: BaseException) -> CorruptEventError:
    """One of ``DECODE_ERRORS`` as the error of a payload."""
    return CorruptEventError(f"the payload does not decode: {type(exc).__name__}: {exc!s:.200}")


def _wrong_header(header: bytes) -> str:
    if len(header) < 2:
        return "the payload is shorter than its header"
    if header[0] not in _VERSIONS:
        return (
            f"the payload has format version {header[0]}; this codec reads up to {FORMAT_VERSION}"
        )
    return f"the payload has the unknown codec {header[1]}"


def _may_name_dictionary(payload: bytes) -> bool:
    """Whether a payload looks as if it named a dictionary of the application."""
    return (
        type(payload) is bytes  # else it is damaged
        and len(payload) > _DESCRIPTOR_AT
        and payload[_DESCRIPTOR_AT] & _ID_OF_SEVERAL_BYTES != 0
        and payload[1] == ZSTD_WITH_DICTIONARY
    )


def dictionary_id(payload: bytes) -> int:
    """The id of the application's dictionary that a payload is compressed with, or 0.

    Takes any bytes: what is not a payload has none.
    """
    if not _may_name_dictionary(payload):
        return 0
    try:
        frame = zstandard.get_frame_parameters(payload[2 : 2 + _FRAME_HEADER_BYTES_MAX])
    except zstandard.ZstdError:
        return 0
    return frame.dict_id if frame.dict_id >= builtin_dictionaries.FIRST_CUSTOM_ID else 0
