"""The codec against generated values and hostile bytes: the value, or CorruptEventError."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import resource
import struct
import sys
import time
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventstore.codec import dictionaries
from eventstore.codec.codec import Codec
from eventstore.errors import CorruptEventError


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


@dataclasses.dataclass(frozen=True)
class Leaf:
    value: Any
    more: Any = ()


CODEC = Codec(max_decoded_bytes=2**20)
CODEC.register(Mood)
CODEC.register(Leaf)

ZONES = st.sampled_from(
    [None, dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=30)), ZoneInfo("America/New_York")]
)
HASHABLE_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(st.characters(exclude_categories=[])),
    st.binary(max_size=40),
    st.complex_numbers(),
    st.dates(),
    st.datetimes(timezones=ZONES),
    st.times(timezones=st.sampled_from([None, dt.UTC])),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.sampled_from(Mood),
)
HASHABLE = st.recursive(
    HASHABLE_LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple), st.frozensets(inner, max_size=4)
    ),
    max_leaves=5,
)
LEAVES = st.one_of(
    HASHABLE,
    st.binary(max_size=40).map(bytearray),
    st.decimals(),
    st.sets(HASHABLE, max_size=4),
    st.lists(st.floats(width=32), max_size=5).map(lambda v: np.array(v, "f4")),
)
ANY = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(HASHABLE, inner, max_size=5),
        st.lists(inner, max_size=3).map(tuple),
        st.builds(Leaf, inner, inner),
    ),
    max_leaves=20,
)


def shape(value: Any) -> Any:
    """Something comparable that says all about a value: types, NaN, zones, order."""
    kind = type(value).__name__
    if isinstance(value, (list, tuple)):
        return kind, [shape(item) for item in value]
    if isinstance(value, dict):
        return kind, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return kind, sorted((shape(item) for item in value), key=repr)
    if isinstance(value, Leaf):
        return kind, shape(value.value), shape(value.more)
    if isinstance(value, np.ndarray):
        return kind, value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, float):
        return kind, "nan" if value != value else struct.pack("d", value)
    if isinstance(value, complex):
        return kind, shape(value.real), shape(value.imag)
    return kind, repr(value), getattr(value, "fold", None)


def decodes_or_is_corrupt(payload: bytes) -> bool:
    try:
        value = CODEC.decode(payload)
    except CorruptEventError:
        with pytest.raises(CorruptEventError):
            CODEC.decode_for_own(payload)
        return False
    read, body = CODEC.decode_for_own(payload)
    assert shape(read) == shape(CODEC.unpack(body, own=True)) == shape(value)
    return True


@pytest.mark.slow
@given(ANY, st.booleans())
@settings(max_examples=150)
def test_any_value_comes_back_exactly(value: Any, compress: bool) -> None:
    CODEC.compress = compress
    payload = CODEC.encode(value)
    assert shape(CODEC.decode(payload)) == shape(value)
    assert shape(CODEC.unpack(CODEC.pack(value, own=True), own=True)) == shape(value)
    read, body = CODEC.decode_for_own(payload)
    assert shape(read) == shape(CODEC.unpack(body, own=True)) == shape(value)
    assert payload == CODEC.encode(value)
    assert CODEC.raw_size(payload) >= 1


@pytest.mark.slow
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x01", b"\x01\x00", b"\x01\x01", b"\1\2"]))
@settings(max_examples=300)
def test_any_bytes_decode_or_are_corrupt(data: bytes, prefix: bytes) -> None:
    decodes_or_is_corrupt(prefix + data)
    try:
        CODEC.raw_size(prefix + data)
    except CorruptEventError:
        return


@pytest.mark.slow
@given(st.integers(-128, 127), st.binary(max_size=60), ANY)
@settings(max_examples=300)
def test_any_content_of_an_extension_decodes_or_is_corrupt(
    code: int, data: bytes, state: Any
) -> None:
    body = CODEC.encode(state) if code % 2 else b"\x01\x00" + data
    inner = body[2:] if body[1] == 0 else data
    code = code % 40  # where the built-in types are
    for content in (data, inner):
        packed: bytes = msgpack.packb(msgpack.ExtType(code, content))
        decodes_or_is_corrupt(b"\x01\x00" + packed)
        decodes_or_is_corrupt(b"\x01\x00\x81" + packed + b"\x01")  # as the key of a map


@pytest.mark.slow
@given(ANY, st.data())
@settings(max_examples=100)
def test_damaged_payloads_decode_or_are_corrupt(value: Any, data: st.DataObject) -> None:
    CODEC.compress = data.draw(st.booleans())
    payload = CODEC.encode(value)
    cut = data.draw(st.integers(0, len(payload) - 1))
    assert not decodes_or_is_corrupt(payload[:cut])
    assert not decodes_or_is_corrupt(payload + b"\x00")
    for _ in range(8):
        bit = data.draw(st.integers(0, len(payload) * 8 - 1))
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        decodes_or_is_corrupt(bytes(damaged))


def ext(code: int, state: Any) -> bytes:
    data = state if isinstance(state, bytes) else msgpack.packb(state)
    packed: bytes = msgpack.packb(msgpack.ExtType(code, data))
    return packed


def nested_tuples(depth: int) -> bytes:
    body = b"\x01"
    for _ in range(depth):
        body = ext(1, b"\x91" + body)
    return body


BAD_BODIES = {
    "nothing": b"",
    "trailing bytes": b"\x01\x01",
    "unhashable key": b"\x81\x90\x01",
    "unhashable set item": ext(2, [[]]),
    "invalid UTF-8": b"\xa2\xff\xfe",
    "unused type byte": b"\xc1",
    "unknown extension": ext(99, b""),
    "bad timestamp": b"\xc7\x03\xff123",
    "lists without end": b"\x91" * 5000,
    "claimed list": b"\xdd\xff\xff\xff\xff",
    "claimed text": b"\xdb\xff\xff\xff\xff",
    "deep extensions": nested_tuples(33),
    "very deep extensions": nested_tuples(3000),
    "bad date": ext(7, -5),
    "huge date": ext(7, 10**15),
    "bad datetime": ext(6, [2**63, None, 0]),
    "bad fold": ext(6, [0, None, 7]),
    "bad zone": ext(6, [0, "../../etc/passwd", 0]),
    "unknown zone": ext(6, [0, "Nowhere/Land", 0]),
    "zone that is a directory": ext(6, [0, "America", 0]),
    "bad offset": ext(6, [0, 10**15, 0]),
    "bad time": ext(8, [-1, None, 0]),
    "bad timedelta": ext(9, "long"),
    "bad UUID": ext(10, b"short"),
    "bad Decimal": ext(11, b"1_0"),
    "not a Decimal": ext(11, b"abc"),
    "huge exponent": ext(11, b"1E+9999999999999999999"),
    "bad complex": ext(12, b"1"),
    "bad path kind": ext(13, ["volume", "x"]),
    "signaling NaN as a key": b"\x81" + ext(11, b"sNaN") + b"\x01",
    "array of objects": ext(14, ["|O8", [1], b"12345678"]),
    "array size": ext(14, ["<f8", [10**12], b""]),
    "array overflow": ext(14, ["<f8", [2**40, 2**40, 0, 2**40], b"\0"]),
    "array without item size": ext(14, ["<U0", [10**12], b""]),
    "array with negative size": ext(14, ["<f8", [-1, -1], b"12345678"]),
    "array with huge items": ext(14, ["<U4000000000", [0], b"1"]),
    "bad scalar": ext(15, ["<f8", b"1"]),
    "deque longer than maxlen": ext(16, [1, [1, 2]]),
    "bad factory": ext(18, ["eval", {}]),
    "registered without name": ext(32, [1]),
    "registered with bad version": ext(32, ["Mood", 0, "GOOD"]),
    "unknown member": ext(32, ["Mood", 1, "UGLY"]),
    "member unhashable": ext(32, ["Mood", 1, []]),
    "fields no map": ext(32, ["Leaf", 1, []]),
    "unknown field": ext(32, ["Leaf", 1, {"value": 1, "evil": 1}]),
    "missing field": ext(32, ["Leaf", 1, {}]),
    "unregistered": ext(32, ["os.system", 1, "ls"]),
    "unhashable dataclass key": b"\x81" + ext(32, ["Leaf", 1, {"value": []}]) + b"\x01",
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_are_corrupt(name: str) -> None:
    payload = b"\x01\x00" + BAD_BODIES[name]
    with pytest.raises(CorruptEventError):
        CODEC.decode(payload)
    assert CODEC.decode(CODEC.encode([(1,)])) == [(1,)]  # nothing is left over from the failure


def test_headers_are_checked() -> None:
    for payload, reason in [
        (b"", "shorter"),
        (b"\x01", "shorter"),
        (b"\x03\x00\x01", "format version 3"),
        (b"\x01\x03\x01", "unknown codec 3"),
    ]:
        with pytest.raises(CorruptEventError, match=reason):
            CODEC.decode(payload)
        with pytest.raises(CorruptEventError, match=reason):
            CODEC.raw_size(payload)


def test_frames_are_checked() -> None:
    body = msgpack.packb(["some text"] * 50)
    frame = zstandard.ZstdCompressor().compress(body)
    assert CODEC.decode(b"\x01\x01" + frame) == ["some text"] * 50
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(body)
    for payload, reason in [
        (b"\x01\x01" + frame + frame, "does not decode"),
        (b"\x01\x01" + frame + b"\x00", "does not decode"),
        (b"\x01\x01" + frame[:-1], "does not decode"),
        (b"\x01\x01" + silent, "declare its size"),
        (b"\x01\x01" + b"\x50\x2a\x4d\x18\x01\x00\x00\x00x", "."),  # a skippable frame
    ]:
        with pytest.raises(CorruptEventError, match=reason):
            CODEC.decode(payload)


def test_an_unknown_dictionary_is_named() -> None:
    data = bytearray(dictionaries.builtin(1))
    data[4:8] = (777).to_bytes(4, "little")
    other = zstandard.ZstdCompressionDict(bytes(data), dict_type=zstandard.DICT_TYPE_FULLDICT)
    frame = zstandard.ZstdCompressor(dict_data=other).compress(b"\x91\x01" * 50)
    with pytest.raises(CorruptEventError, match="dictionary 777"):
        CODEC.decode(b"\x01\x02" + frame)


def test_a_bomb_is_refused_without_allocating() -> None:
    codec = Codec()
    # 5 GB declared in 12 bytes: magic, single segment with 8 bytes of size, an empty block.
    declared = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 5 * 2**30) + b"\x01\x00\x00"
    real = zstandard.ZstdCompressor().compress(bytes(300 * 2**20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for frame in (declared, real):
        assert len(frame) < 100_000
        with pytest.raises(CorruptEventError, match="max_decoded_bytes"):
            codec.decode(b"\x01\x01" + frame)
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 50 * 2**20


def test_claimed_sizes_inside_one_another_cost_neither_time_nor_memory() -> None:
    size = 4 * 2**20
    for claim in (b"\xdd" + struct.pack(">I", size - 10_000), b"\xdc\xff\xff"):
        body = (claim * 1000).ljust(size, b"\x01")
        started = time.perf_counter()
        with pytest.raises(CorruptEventError):
            Codec().decode(b"\x01\x00" + body)
        assert time.perf_counter() - started < 2


@example(b"\x90")
@given(st.binary(max_size=30))
def test_decoding_takes_other_kinds_of_buffers(data: bytes) -> None:
    payload = CODEC.encode([data, "some text " * 10])
    assert CODEC.decode(memoryview(payload)) == CODEC.decode(payload)  # type: ignore[arg-type]
