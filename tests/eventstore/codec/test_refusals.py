"""Values that cannot be stored are refused with their path."""

from __future__ import annotations

import collections
import datetime as dt
import io
import threading
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest

from eventstore.codec.codec import Codec
from eventstore.errors import (
    CorruptEventError,
    SerializationError,
)
from tests.eventstore.codec.support import Box, Level, Model, Note, Point


def cyclic(kind: str) -> Any:
    inner: list[Any] = []
    inner.append({"list": inner, "dict": {"me": inner}, "tuple": (inner,)}[kind])
    return {"a": inner}


@pytest.mark.parametrize(
    ("value", "path", "type_name"),
    [
        (Box(1), "", "Box"),
        ({"messages": [1, 2, 3, {"attachment": Box(1)}]}, "messages[3].attachment", "Box"),
        ({"data": {"a b": Box(1)}}, "data['a b']", "Box"),
        ({"data": {7: (1, {"x": Box(1)})}}, "data[7][1].x", "Box"),
        ([Point(1, [Note("a", [Box(1)])])], "[0].y[0].tags[0]", "Box"),
        ({Box("k"): 1}, "<key Box>", "Box"),
        ({"m": Model(name="a", items=[Box(1)])}, "m.items[0]", "Box"),
        ({"m": Model.model_validate({"name": "a", "extra": Box(1)})}, "m.extra", "Box"),
        ({"q": collections.deque([1, Box(1)])}, "q[1]", "Box"),
        ({"d": collections.defaultdict(list, a=[Box(1)])}, "d.a[0]", "Box"),
        ({"d": collections.defaultdict(lambda: 1)}, "d", "defaultdict"),
        ({"o": np.array([Box(1)])}, "o", "ndarray"),
        ({"s": np.zeros(2, "i4,f4")}, "s", "ndarray"),
        ({"s": np.recarray(2, "f4")}, "s", "recarray"),
        ({"t": dt.datetime(2024, 1, 1, tzinfo=type("Z", (dt.tzinfo,), {})())}, "t", "datetime"),
        ({"e": msgpack.ExtType(6, b"")}, "e", "ExtType"),
        ({"f": cyclic}, "f", "function"),
        ({"g": Level}, "g", "EnumType"),
        (cyclic("list"), "a[0]", "list"),
        (cyclic("dict"), "a[0].me", "list"),
    ],
)
def test_what_cannot_be_stored_is_named(
    codec: Codec, value: Any, path: str, type_name: str
) -> None:
    with pytest.raises(SerializationError) as caught:
        codec.encode(value)
    assert caught.value.path == path
    assert caught.value.type_name.rpartition(".")[2] == type_name
    assert codec.encode([1]) == Codec().encode([1])  # the codec works on


def iter_nothing() -> Iterator[Any]:
    yield from ()


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (Note("a", []), r"call codec\.register\(Note, name='note'\) on a Codec.* codec=codec"),
        (Box(1), r"call codec\.register\(Box, name='box', pack=…, unpack=…\) on a Codec"),
        (lambda: 1, "store the data that it is made from"),
        (threading.Lock(), "cannot be registered"),
        (io.BytesIO(), "cannot be registered"),
        (iter_nothing(), "cannot be registered"),
        (Level, "cannot be registered"),
    ],
)
def test_the_error_says_what_to_do(value: Any, remedy: str) -> None:
    with pytest.raises(SerializationError, match=remedy):
        Codec().encode({"value": value})


def nested(depth: int, wrap: Any) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS: list[Any] = [
    lambda v: [v],
    lambda v: {"k": v},
    lambda v: (v,),
    lambda v: frozenset((v,)),
    lambda v: Point(v),
    lambda v: ([[v]],),
    lambda v: (nested(40, lambda w: [w]), v),
    lambda v: nested(500, lambda w: [w]) if v == 1 else (nested(31, lambda w: [w]), v),
]


@pytest.mark.slow
@pytest.mark.parametrize("wrap", WRAPS)
def test_encode_accepts_no_depth_that_decode_refuses(codec: Codec, wrap: Any) -> None:
    refused = 0
    for depth in (1, 5, 15, 30, 31, 32, 33, 500, 511, 512, 1000, 1024, 1025, 3000):
        value = nested(depth, wrap)
        try:
            payload = codec.encode(value)
        except SerializationError:
            refused += 1
        else:
            assert codec.encode(codec.decode(payload)) == payload
    assert refused


def test_a_cycle_through_a_tuple_is_refused(codec: Codec) -> None:
    with pytest.raises(SerializationError, match="contain themselves"):
        codec.encode(cyclic("tuple"))


def test_encode_refuses_a_body_that_decode_would_refuse() -> None:
    codec = Codec(max_decoded_bytes=1000)
    assert codec.decode(codec.encode("x" * 990)) == "x" * 990
    for compress in (True, False):
        codec.compress = compress
        with pytest.raises(SerializationError, match="max_decoded_bytes=1000"):
            codec.encode("x" * 1000)
        with pytest.raises(CorruptEventError, match="max_decoded_bytes=1000"):
            codec.decode(Codec(compress=compress).encode("x" * 1000))


def test_a_value_that_changes_while_it_is_stored_is_not_stored_wrong() -> None:
    codec = Codec()
    mapping: dict[int, Any] = {0: Box(1)}
    growing: list[Any] = [Box(1), 2]
    shrinking: list[Any] = [Box(1), 2]
    changes: list[Any] = []
    codec.register(Box, pack=lambda box: changes.pop()(), unpack=Box)
    for value, change in [
        (mapping, lambda: mapping.update({len(mapping): 1})),
        (growing, lambda: growing.append(1)),
        (shrinking, lambda: shrinking.pop()),
    ]:
        changes.append(change)
        with pytest.raises(SerializationError, match="changed"):
            codec.encode([value, 3])
