"""Serialized values cut into parts, and how one value differs from another. Pure.

A value is what LangGraph's serializer made of it: a type and bytes. Where the bytes are a msgpack
array or map, they are cut at the boundaries of its elements or entries, so that a list that grew
shares the parts it had; nothing is deserialized. Any other value is a single part. Values are
compared by their bytes, so that one which was mutated in place is seen to differ.
"""

from __future__ import annotations

import struct
from functools import cached_property
from typing import Final, NamedTuple

import msgpack

MSGPACK: Final = "msgpack"
WHOLE, ARRAY, MAP = range(3)

_SMALL_PARTS: Final = 64
"""A value of more parts than this is left whole if they take fewer than 16 bytes each."""


class _Fields(NamedTuple):
    type: str
    shape: int
    parts: tuple[bytes, ...]


class Value(_Fields):
    """A serialized value in parts.

    Attributes:
        type: what the serializer calls it.
        shape: ``WHOLE``, or ``ARRAY`` or ``MAP`` if ``parts`` are its elements or entries.
    """

    @property
    def data(self) -> bytes:
        """The bytes as the serializer made them."""
        if self.shape == WHOLE:
            return self.parts[0]
        return b"".join((_header(self.shape, len(self.parts)), *self.parts))

    @cached_property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(map(len, self.parts))


def whole(kind: str, data: bytes) -> Value:
    """A value that is not cut."""
    return Value(kind, WHOLE, (data,))


def cut(kind: str, data: bytes, base: Value | None = None) -> Value:
    """A value in parts.

    Args:
        base: a value that this one probably continues; common first parts are shared with it.
    """
    data = bytes(data)
    found = _opening(data) if kind == MSGPACK else None
    if found is None:
        return whole(kind, data)
    shape, count, at = found
    if data[:at] != _header(shape, count) or (count > _SMALL_PARTS and count * 16 > len(data)):
        return whole(kind, data)
    parts: list[bytes] = []
    if base is not None and (base.type, base.shape) == (kind, shape):
        joined = b"".join(base.parts)
        if len(base.parts) <= count and data.startswith(joined, at):  # it grew, as most do
            parts += base.parts
            at += len(joined)
        else:
            for part in base.parts[:count]:
                if not data.startswith(part, at):
                    break
                parts.append(part)
                at += len(part)
    try:
        _cut_rest(data, at, shape, count, parts)
    except (msgpack.UnpackException, ValueError, RecursionError):
        return whole(kind, data)
    return Value(kind, shape, tuple(parts))


def _cut_rest(data: bytes, at: int, shape: int, count: int, parts: list[bytes]) -> None:
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(memoryview(data)[at:])
    start = 0
    for _ in range(count - len(parts)):
        unpacker.skip()
        if shape == MAP:
            unpacker.skip()
        end = unpacker.tell()
        parts.append(data[at + start : at + end])
        start = end
    if at + start != len(data):
        raise ValueError("the value does not end with its last part")


def overlap(old: Value | None, new: Value) -> tuple[int, int]:
    """How many first and how many last parts two values have in common; never overlapping."""
    if old is None or old[:2] != new[:2]:
        return 0, 0
    one, other = old.parts, new.parts
    shorter = min(len(one), len(other))
    head = shorter if one[:shorter] == other[:shorter] else 0  # compared at the speed of C
    while head < shorter and one[head] == other[head]:
        head += 1
    tail = 0
    while tail < shorter - head and one[-1 - tail] == other[-1 - tail]:
        tail += 1
    return head, tail


def splice(
    old: Value | None, kind: str, shape: int, head: int, tail: int, parts: tuple[bytes, ...]
) -> Value:
    """The value with new parts between the first and last parts of an old one.

    Raises:
        ValueError: the old value has too few parts.
    """
    kept = () if old is None else old.parts
    if not 0 <= head <= len(kept) - tail or tail < 0:
        raise ValueError("a delta refers to parts that the value before it does not have")
    result = Value(kind, shape, (*kept[:head], *parts, *kept[len(kept) - tail :]))
    if shape not in (WHOLE, ARRAY, MAP) or (shape == WHOLE and len(result.parts) != 1):
        raise ValueError("a delta does not lead to a value")
    return result


def _opening(data: bytes) -> tuple[int, int, int] | None:
    """Shape, number of parts and size of the header of a msgpack array or map."""
    if not data:
        return None
    first = data[0]
    if first & 0xF0 == 0x90:
        return ARRAY, first & 0x0F, 1
    if first & 0xF0 == 0x80:
        return MAP, first & 0x0F, 1
    for code, shape, size in ((0xDC, ARRAY, 2), (0xDD, ARRAY, 4), (0xDE, MAP, 2), (0xDF, MAP, 4)):
        if first == code and len(data) > size:
            return shape, int.from_bytes(data[1 : 1 + size], "big"), 1 + size
    return None


def _header(shape: int, count: int) -> bytes:
    small, medium, large = (0x90, 0xDC, 0xDD) if shape == ARRAY else (0x80, 0xDE, 0xDF)
    if count < 16:
        return bytes((small | count,))
    if count < 1 << 16:
        return struct.pack(">BH", medium, count)
    return struct.pack(">BI", large, count)
