"""The codec: every type comes back as it went in, the same bytes in every process."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import math
import os
import pathlib
import subprocess
import sys
import uuid
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import numpy as np
import pytest

from eventstore.codec.codec import Codec
from eventstore.errors import CorruptEventError, SerializationError
from tests.eventstore.codec.support import Colour, Level, Model, Note, Pair, Point, Rights


def same(left: Any, right: Any) -> bool:
    """Equal in value and in type all the way down; NaN equals NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray):
        return bool(
            left.dtype == right.dtype
            and left.shape == right.shape
            and left.tobytes() == right.tobytes()
        )
    if isinstance(left, np.generic) and not isinstance(left, (str, bytes)):
        return bool(left.dtype == right.dtype and left.tobytes() == right.tobytes())
    if isinstance(left, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, decimal.Decimal):
        return bool(left.as_tuple() == right.as_tuple())
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, collections.deque):
        return left.maxlen == right.maxlen and same(list(left), list(right))
    if isinstance(left, dict):
        return same(list(left), list(right)) and same(list(left.values()), list(right.values()))
    if isinstance(left, (dt.datetime, dt.time)):
        return repr(left) == repr(right)
    if isinstance(left, str):
        return bool(str.__eq__(left, right))
    return bool(left == right)


BERLIN = ZoneInfo("Europe/Berlin")
VALUES: list[Any] = [
    None,
    True,
    -(2**63) - 1,
    2**64,
    -(2**5000),
    0.1,
    math.nan,
    -math.inf,
    "lone \ud800 surrogate",
    b"bytes",
    bytearray(b"more"),
    {"a": [bytearray(b""), {"b": bytearray(b"x")}], "c": b"y"},
    (),
    (1, (2, [3, (4,)])),
    {(1, 2): "tuple", None: 0, 7: 1, 2.5: 2, b"b": 3, frozenset({1}): 4},
    {1, "a", (2, 3)},
    frozenset({frozenset(), frozenset({1})}),
    1 + 2j,
    complex(math.nan, -0.0),
    dt.datetime.min,
    dt.datetime.max,
    dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
    dt.datetime(2024, 1, 1, 1, 2, 3, 4, tzinfo=dt.UTC),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, seconds=1))),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2), "here")),
    dt.date.min,
    dt.date.max,
    dt.time(23, 59, 59, 999999, fold=1),
    dt.time(1, tzinfo=BERLIN),
    dt.timedelta.min,
    dt.timedelta.max,
    dt.timedelta(microseconds=-1),
    uuid.UUID(int=2**128 - 1),
    *map(decimal.Decimal, ("1.10", "-0", "NaN", "-NaN7", "sNaN12", "Infinity", "-Infinity")),
    *map(decimal.Decimal, ("1E+999999999999999999", "1E-999999999999999999", "9" * 3000)),
    pathlib.Path("/etc/hosts"),
    pathlib.PurePosixPath("a/\udcff"),
    pathlib.PureWindowsPath("c:/x"),
    collections.deque([1, (2,)], maxlen=5),
    collections.deque(),
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.defaultdict(list, {"a": [1]}),
    collections.defaultdict(None, {"a": 1}),
    msgpack.Timestamp(1, 2),
    np.arange(12, dtype=">i4").reshape(3, 4),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(3.5),
    np.zeros((0, 3), "M8[us]"),
    np.array(["a", "bcd"]),
    np.array([b"a\0", b""], "S4"),
    np.float64("nan"),
    np.int8(-3),
    np.bool_(True),
    np.str_("a\0"),
    np.bytes_(b""),
    np.datetime64("2024-01-01T01", "h"),
    np.complex64(1j),
    Colour.CRIMSON,
    Rights.READ | Rights.WRITE,
    Rights(0),
    Level.LOW,
    Pair(1, Pair(2)),
    Note("hello", [Point(1, (2,))]),
    Point(bytearray(b"x"), {Point(1, 2): Point(3)}),
    Model(name="a"),
    Model.model_validate({"name": "a", "items": [Point(1)], "extra": (1, 2)}),
    Model.model_construct(name="evil"),
    {"messages": [Model(name=str(i), items=[i, (i,)]) for i in range(300)]},
]


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
def test_values_come_back_equal_in_value_and_type(codec: Codec, value: Any, compress: bool) -> None:
    codec.compress = compress
    payload = codec.encode(value)
    decoded = codec.decode(payload)
    assert same(value, decoded), f"{value!a} came back as {decoded!a}"
    assert codec.encode(decoded) == payload


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
def test_bodies_of_this_process_hold_what_payloads_hold(codec: Codec, value: Any) -> None:
    for each in (value, [value], {"a": [{"b": value}]}):
        decoded = codec.decode(codec.encode(each))
        assert same(codec.unpack(codec.pack(each, own=True), own=True), decoded)
        assert same(codec.unpack(codec.pack(decoded, own=True), own=True), decoded)
        assert same(codec.unpack(codec.pack(each), own=True), decoded)
        value_read, body = codec.decode_for_own(codec.encode(each))
        assert same(value_read, decoded)
        assert same(codec.unpack(body, own=True), decoded)


def test_bodies_of_this_process_are_made_and_read_in_less_time(codec: Codec) -> None:
    plain = {"messages": [{"role": "user", "content": "é\x80" * 300, "n": i} for i in range(200)]}
    assert codec.pack(plain, own=True)[0] == 0xC1, "marshalled, though the text has any byte"
    assert codec.pack([2**70, b"x", None, 1.5], own=True)[0] == 0xC1
    for other in (bytearray(b"x"), (1,), uuid.UUID(int=1), Level.LOW, memoryview(b"x")):
        assert codec.pack({**plain, "other": other}, own=True)[0] != 0xC1
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    assert codec.unpack(codec.pack(deep, own=True), own=True) == deep


def test_a_marshalled_body_is_no_payload(codec: Codec) -> None:
    body = codec.pack({"a": 1}, own=True)
    with pytest.raises(CorruptEventError):
        codec.unpack(body)
    with pytest.raises(CorruptEventError):
        codec.decode(b"\x02\x00" + body)


def test_pydantic_models_keep_what_was_set_and_private_values(codec: Codec) -> None:
    model = Model.model_validate({"name": "a", "more": (1,)})
    assert model.__pydantic_private__ is not None
    model.__pydantic_private__["_secret"] = 8
    decoded = codec.decode(codec.encode(model))
    assert decoded.model_fields_set == {"name", "more"}
    assert decoded.model_extra == {"more": (1,)}
    assert decoded._secret == 8
    assert decoded == model


def test_arrays_come_back_writable(codec: Codec) -> None:
    array = codec.decode(codec.encode(np.zeros(3)))
    array[0] = 1
    assert array[0] == 1


def test_a_memoryview_is_stored_as_bytes(codec: Codec) -> None:
    assert codec.decode(codec.encode([memoryview(b"abc")])) == [b"abc"]
    with pytest.raises(SerializationError, match="contiguous"):
        codec.encode([memoryview(b"abcd")[::2]])


PROGRAM = """
from eventstore import Codec
print(Codec().encode([{f"key {i}" for i in range(50)}, frozenset("abc"), {"k": {1, "1"}}]).hex())
"""


@pytest.mark.slow
def test_equal_values_give_equal_bytes_in_every_process() -> None:
    seen = set()
    for seed in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        seen.add(done.stdout)
    assert len(seen) == 1
