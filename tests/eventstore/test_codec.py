"""The codec: every type comes back as it went in, and what cannot is refused with its path."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import math
import os
import pathlib
import subprocess
import sys
import threading
import typing
import uuid
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgpack
import numpy as np
import pydantic
import pytest
import zstandard

from eventstore.codec import FORMAT_VERSION, Codec
from eventstore.errors import (
    ConfigurationError,
    CorruptEventError,
    SerializationError,
    UnregisteredTypeError,
)


class Colour(enum.Enum):
    RED = 1
    CRIMSON = 1
    BLUE = 2


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


class Pair(NamedTuple):
    left: int
    right: Any = None


@dataclasses.dataclass
class Note:
    text: str
    tags: list[Any] = dataclasses.field(default_factory=list)
    size: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.text)


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: Any
    y: Any = 0


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    name: str
    items: list[Any] = []
    _secret: int = 7

    @pydantic.field_validator("name")
    @classmethod
    def not_evil(cls, value: str) -> str:
        if value == "evil":
            raise ValueError("evil")
        return value


class Box:
    def __init__(self, content: Any) -> None:
        self.content = content


CLASSES: list[type] = [Colour, Rights, Level, Pair, Note, Point, Model]


@pytest.fixture
def codec() -> Codec:
    codec = Codec()
    for cls in CLASSES:
        codec.register(cls)
    return codec


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
from eventstore.codec import Codec
print(Codec().encode([{f"key {i}" for i in range(50)}, frozenset("abc"), {"k": {1, "1"}}]).hex())
"""


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


# --- compression -------------------------------------------------------------------------


def chat(turns: int) -> list[dict[str, Any]]:
    text = "Please let me know if the order has been approved before the end of the week. "
    return [{"role": "user", "content": f"{i}: {text * 3}"} for i in range(turns)]


@pytest.mark.parametrize(
    ("value", "kind"), [(1, 0), (chat(2), 2), (chat(2000), 1), (os.urandom(2000), 0)]
)
def test_the_smallest_form_is_written_and_every_form_is_read(value: Any, kind: int) -> None:
    codec, plain = Codec(), Codec(compress=False)
    payload, uncompressed = codec.encode(value), plain.encode(value)
    assert payload[:2] == bytes((FORMAT_VERSION, kind))
    assert uncompressed[:2] == bytes((FORMAT_VERSION, 0))
    assert plain.decode(payload) == codec.decode(uncompressed) == value
    assert codec.raw_size(payload) == codec.raw_size(uncompressed) == len(uncompressed) - 2


def test_a_small_event_compresses_well_with_the_built_in_dictionary() -> None:
    event = {
        "step": 3,
        "task": 0,
        "node": "review",
        "writes": {"messages": [{"role": "assistant", "content": "The draft looks good to me."}]},
        "to": ["publish"],
    }
    assert len(Codec().encode(event)) < 0.6 * len(Codec(compress=False).encode(event))


def test_the_level_of_large_bodies_can_be_chosen() -> None:
    codec, value = Codec(), chat(2000)
    sizes = {level: len(codec.encode(value, level=level)) for level in (-5, 19)}
    assert sizes[19] < sizes[-5]
    with pytest.raises(ValueError, match="level"):
        codec.encode(value, level=99)


def trained(dict_id: int) -> bytes:
    samples: list[Any] = [f"order {i} of customer {i * 7} is ready".encode() for i in range(3000)]
    return zstandard.train_dictionary(2048, samples, dict_id=dict_id).as_bytes()


def test_further_dictionaries() -> None:
    data = trained(40_000)
    codec = Codec(dictionaries={40_000: data})
    value = "order 12345 of customer 54321 is ready"
    payload = codec.encode(value)
    assert codec.decode(payload) == value
    with pytest.raises(CorruptEventError, match="dictionary 40000"):
        Codec().decode(payload)
    reader = Codec()
    reader.add_dictionary(40_000, data, write=False)
    assert reader.decode(payload) == value
    assert reader.encode(value) == Codec().encode(value)


def test_wrong_dictionaries_are_refused() -> None:
    codec = Codec(dictionaries={40_000: trained(40_000)})
    codec.add_dictionary(40_000, trained(40_000))
    with pytest.raises(ConfigurationError, match="reserved"):
        codec.add_dictionary(7, trained(7))
    with pytest.raises(ConfigurationError, match="calls itself"):
        codec.add_dictionary(40_001, trained(40_002))
    with pytest.raises(ConfigurationError, match="not a zstd dictionary"):
        codec.add_dictionary(40_001, b"nonsense")
    for wrong in ({"level": 23}, {"max_decoded_bytes": 0}):
        with pytest.raises(ConfigurationError):
            Codec(**typing.cast(Any, wrong))


def test_the_shipped_dictionary_is_what_the_script_writes() -> None:
    from benchmarks.dictionary import train as train_dictionary
    from eventstore import dictionaries

    assert zstandard.ZstdCompressionDict(dictionaries.builtin(1)).dict_id() == 1
    assert train_dictionary.train(seed=1) == train_dictionary.train(seed=1)
    if zstandard.ZSTD_VERSION == (1, 5, 7):
        assert train_dictionary.train(seed=1) == dictionaries.builtin(1)


# --- refusals ----------------------------------------------------------------------------


class Text(str):
    __slots__ = ()


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
        ({"data": {7: (1, {"x": Text("a")})}}, "data[7][1].x", "Text"),
        ([Point(1, [Note("a", [Box(1)])])], "[0].y[0].tags[0]", "Box"),
        ({"m": Model(name="a", items=[Box(1)])}, "m.items[0]", "Box"),
        ({"m": Model.model_validate({"name": "a", "extra": Box(1)})}, "m.extra", "Box"),
        ({"q": collections.deque([1, Box(1)])}, "q[1]", "Box"),
        ({"d": collections.defaultdict(list, a=[Box(1)])}, "d.a[0]", "Box"),
        ({"d": collections.defaultdict(lambda: 1)}, "d", "defaultdict"),
        ({"c": collections.Counter("aab")}, "c", "Counter"),
        ({"o": np.array([Box(1)])}, "o", "ndarray"),
        ({"s": np.zeros(2, "i4,f4")}, "s", "ndarray"),
        ({"s": np.recarray(2, "f4")}, "s", "recarray"),
        ({"t": dt.datetime(2024, 1, 1, tzinfo=type("Z", (dt.tzinfo,), {})())}, "t", "datetime"),
        ({"e": msgpack.ExtType(6, b"")}, "e", "ExtType"),
        ({Text("k"): 1}, "<key Text>", "Text"),
        ({"f": test_further_dictionaries}, "f", "function"),
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


# --- registered types --------------------------------------------------------------------


def fields_written_by(cls: type, value: Any, **how: Any) -> bytes:
    writer = Codec()
    writer.register(cls, **how)
    return writer.encode(value)


def test_pack_and_unpack_may_use_the_codec_itself() -> None:
    codec = Codec()
    codec.register(
        Box,
        name="box",
        pack=lambda box: [codec.encode(box.content), box.content],
        unpack=lambda state: Box((codec.decode(state[0]), state[1])),
    )
    assert codec.decode(codec.encode([Box((1,)), (2,)]))[0].content == ((1,), (1,))
    assert codec.is_registered(Box)
    assert not codec.is_registered(Note)


def test_errors_of_application_functions_become_errors_of_the_payload() -> None:
    codec = Codec()
    codec.register(Box, pack=lambda box: 1 / box.content, unpack=lambda state: 1 / 0)
    with pytest.raises(SerializationError, match="ZeroDivisionError") as refused:
        codec.encode({"b": Box(0)})
    assert refused.value.path == "b"
    with pytest.raises(CorruptEventError, match="ZeroDivisionError") as corrupt:
        codec.decode(codec.encode(Box(1)))
    assert isinstance(corrupt.value.__cause__, ZeroDivisionError)


def test_upcasters_run_in_order_from_the_stored_version() -> None:
    @dataclasses.dataclass
    class Old:
        name: str

    @dataclasses.dataclass
    class New:
        first: str
        last: str
        age: int = 3

    first = fields_written_by(Old, Old("Ada Lovelace"), name="user")
    second = fields_written_by(Old, Old("Ada Lovelace"), name="user", version=2)
    reader = Codec()
    reader.register(
        New,
        name="user",
        version=3,
        upcasters={
            1: lambda fields: {"name": fields["name"].upper()},
            2: lambda fields: dict(zip(("first", "last"), fields["name"].split(), strict=True)),
        },
    )
    assert reader.decode(first) == New("ADA", "LOVELACE")
    assert reader.decode(second) == New("Ada", "Lovelace")


def test_upcasters_of_models_keep_track_of_what_was_set() -> None:
    class New(pydantic.BaseModel):
        title: str
        items: list[Any] = []
        rank: int = pydantic.Field(default_factory=lambda: 5)

    payload = fields_written_by(Model, Model(name="a"), name="m")
    reader = Codec()
    reader.register(
        New,
        name="m",
        version=2,
        upcasters={1: lambda f: {"title": f.pop("name"), **f}},
    )
    decoded = reader.decode(payload)
    assert decoded == New(title="a")
    assert decoded.model_fields_set == {"title"}
    assert decoded.rank == 5


def test_versions_that_cannot_be_read_say_why() -> None:
    payload = fields_written_by(Point, Point(1), name="p", version=2)
    with pytest.raises(UnregisteredTypeError, match=r"'p/2'.*not registered") as caught:
        Codec().decode(payload)
    assert (caught.value.type_name, caught.value.version) == ("p", 2)
    older, newer = Codec(), Codec()
    older.register(Point, name="p")
    with pytest.raises(UnregisteredTypeError, match="newer"):
        older.decode(payload)
    newer.register(Point, name="p", version=4, upcasters={3: dict})
    with pytest.raises(UnregisteredTypeError, match="without an upcaster from version 2"):
        newer.decode(payload)


@pytest.mark.parametrize("old", [Point(1, 2), Pair(1, 2)])
def test_unknown_and_missing_fields_are_corrupt(old: Any) -> None:
    @dataclasses.dataclass
    class Needy:
        x: int
        y: int
        z: int

    class Fewer(NamedTuple):
        left: int

    class Strict(pydantic.BaseModel):
        x: int

    payload = fields_written_by(type(old), old, name="p")
    for cls in (Needy, Fewer, Strict):
        reader = Codec()
        reader.register(cls, name="p")
        with pytest.raises(CorruptEventError):
            reader.decode(payload)


def test_an_unset_field_is_refused(codec: Codec) -> None:
    note = Note("a")
    del note.text
    with pytest.raises(SerializationError, match="'text' is not set"):
        codec.encode([note])
    with pytest.raises(SerializationError, match="'name' is not set"):
        codec.encode([Model.model_construct()])


def test_registering() -> None:
    codec = Codec()

    @codec.register(name="user", version=2)
    @dataclasses.dataclass
    class User:
        name: str

    assert codec.register(User, name="user", version=2) is User
    assert codec.decode(codec.encode(User("a"))) == User("a")
    with pytest.raises(ConfigurationError, match="in another way"):
        codec.register(User, name="user")
    with pytest.raises(ConfigurationError, match="already belongs to"):
        codec.register(Point, name="user")
    with pytest.raises(ConfigurationError, match="pack= and unpack="):
        codec.register(Box)
    with pytest.raises(ConfigurationError, match="both"):
        codec.register(Box, pack=str)
    for cls in (int, dict, dt.datetime):
        with pytest.raises(ConfigurationError, match="stored as it is"):
            codec.register(cls)
    with pytest.raises(ConfigurationError, match="version"):
        codec.register(Point, version=0)
    with pytest.raises(ConfigurationError, match="upcasters"):
        codec.register(Point, version=2, upcasters={2: dict})
    with pytest.raises(ConfigurationError, match="rebuilt"):
        codec.register(dataclasses.make_dataclass("D", ["a"], bases=(dict,)))
    assert not codec.is_registered(Point)


def test_numpy_is_never_imported_for_values_that_have_none() -> None:
    program = (
        "import sys; from eventstore.codec import Codec; c = Codec();"
        "c.decode(c.encode({'a': (1,)}));"
        "print('numpy' in sys.modules, 'pydantic' in sys.modules);"
        "sys.modules['numpy'] = None;"
        f"c.decode(bytes.fromhex('{Codec().encode(np.zeros(2)).hex()}'))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False False"
    assert "UnregisteredTypeError" in done.stderr
    assert "numpy is not installed" in done.stderr


def test_many_threads_share_one_codec(codec: Codec) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(60):
                value = {"n": number, "chat": chat(i), "point": Point((i, {number}), Note("a" * i))}
                assert codec.decode(codec.encode(value)) == value
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
