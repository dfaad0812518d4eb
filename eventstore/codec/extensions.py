"""The built-in extension types: values that msgpack does not know by itself.

Each ``Extension`` gives one msgpack extension code to one kind of value. Codes are part of the
stored format: they are never renumbered or reused. ``encode`` returns bytes, which are stored, or
a simpler value, which is packed in turn. ``decode`` builds the value from its argument alone, so
no stored byte can name something to import or to call. Writing uses numpy only if it is loaded;
reading an array imports it.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import math
import pathlib
import re
import struct
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from eventstore.errors import UnregisteredTypeError

Pack = Callable[[Any], bytes]

BYTEARRAY_CODE = 5
NDARRAY_CODE = 14
NUMPY_SCALAR_CODE = 15
REGISTERED_CODE = 32


class Refused(Exception):
    """A value cannot be encoded. Collects the path to it while packing unwinds."""

    def __init__(self, culprit: Any, reason: str) -> None:
        super().__init__(reason)
        self.culprit = culprit
        self.reason = reason
        self.type_name = f"{type(culprit).__module__}.{type(culprit).__qualname__}".removeprefix(
            "builtins."
        )
        self.path: list[str] = []


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value of an application type that the reader does not know, as it is stored.

    Only a codec with ``opaque_types=True`` returns these; no codec stores them.

    Attributes:
        name, version: as the application registered the type.
        fields: the stored fields, usually a dictionary.
        rest: further parts that some kinds of types store.
    """

    name: str
    version: int
    fields: Any
    rest: tuple[Any, ...] = ()

    def __hash__(self) -> int:
        """Fields count if they are hashable: the value may be a key or in a set."""
        plain = type(self.fields) in (str, int, float, bytes)
        return hash((self.name, self.version, self.fields if plain else None))

    def __repr__(self) -> str:
        return f"<{self.name}/{self.version} {self.fields!r}>"


@dataclass(frozen=True)
class Extension:
    """One extension code.

    Attributes:
        raw: ``decode`` takes the stored bytes, not the value packed in them.
        lead: number of leading steps of an error's path that are layout and not the user's data.
    """

    code: int
    types: tuple[type, ...]
    encode: Callable[[Any, Pack], Any]
    decode: Callable[[Any], Any]
    raw: bool = False
    lead: int = 0


def parts(state: Any, *kinds: Any) -> list[Any]:
    """The items of ``state``, checked to be a list of exactly these kinds of values."""
    if type(state) is not list or len(state) != len(kinds):
        raise ValueError(f"expected {len(kinds)} parts")
    for part, kind in zip(state, kinds, strict=True):
        if not isinstance(part, kind):
            raise ValueError(f"unexpected {type(part).__name__}")
    return state


def _items(state: Any) -> list[Any]:
    if type(state) is not list:
        raise ValueError(f"expected a list, not {type(state).__name__}")
    return state


# --- collections -------------------------------------------------------------------------


def _array_header(size: int) -> bytes:
    if size < 16:
        return bytes((0x90 | size,))
    return struct.pack(">BH", 0xDC, size) if size < 65536 else struct.pack(">BI", 0xDD, size)


def _encode_set(value: Any, pack: Pack) -> bytes:
    # A set's iteration order differs between processes, but equal values need equal bytes.
    return _array_header(len(value)) + b"".join(sorted(map(pack, value)))


def _decode_deque(state: Any) -> Any:
    maxlen, items = parts(state, (int, type(None)), list)
    if maxlen is not None and maxlen < len(items):
        raise ValueError("a deque longer than its maxlen")
    return collections.deque(items, maxlen)


_FACTORIES = {cls.__name__: cls for cls in (list, dict, set, int, float, str, tuple, bool)}


def _encode_defaultdict(value: Any, pack: Pack) -> Any:
    factory = value.default_factory
    name = None if factory is None else getattr(factory, "__name__", "")
    if factory is not None and _FACTORIES.get(str(name)) is not factory:
        raise Refused(value, f"its default_factory must be one of {', '.join(_FACTORIES)}")
    return [name, dict(value)]


def _decode_defaultdict(state: Any) -> Any:
    name, items = parts(state, (str, type(None)), dict)
    return collections.defaultdict(None if name is None else _FACTORIES[name], items)


def _decode_ordered_dict(state: Any) -> Any:
    return collections.OrderedDict(parts([state], dict)[0])


def _decode_counter(state: Any) -> Any:
    counter: collections.Counter[Any] = collections.Counter()
    dict.update(counter, parts([state], dict)[0])
    return counter


# --- numbers, identifiers, paths ---------------------------------------------------------


def _encode_int(value: Any, pack: Pack) -> bytes:
    return bytes(value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _decode_int(data: bytes) -> int:
    # Binary, not decimal text: parsing text is quadratic in the number of digits.
    return int.from_bytes(data, "big", signed=True)


def _decode_decimal(data: bytes) -> decimal.Decimal:
    text = data.decode("ascii")
    value = decimal.Decimal(text)
    if str(value) != text:
        raise ValueError("not a canonical Decimal")
    return value


def _encode_uuid(value: Any, pack: Pack) -> bytes:
    return bytes(value.bytes)


_PATHS: dict[str, type[pathlib.PurePath]] = {
    "path": pathlib.Path,
    "posix": pathlib.PurePosixPath,
    "windows": pathlib.PureWindowsPath,
}


def _encode_path(value: Any, pack: Pack) -> Any:
    if isinstance(value, pathlib.Path):
        return ["path", str(value)]
    return ["posix" if type(value) is pathlib.PurePosixPath else "windows", str(value)]


def _decode_path(state: Any) -> Any:
    kind, text = parts(state, str, str)
    return _PATHS[kind](text)


# --- dates and times: microseconds of the wall clock, then zone, then fold ---------------

_EPOCH = dt.datetime.min
_MICROSECOND = dt.timedelta(microseconds=1)


def _encode_zone(owner: Any) -> Any:
    zone = owner.tzinfo
    if zone is None:
        return None
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    if type(zone) is dt.timezone:
        offset = zone.utcoffset(None)
        name = zone.tzname(None)
        micros = offset // _MICROSECOND
        return micros if name == dt.timezone(offset).tzname(None) else [micros, name]
    raise Refused(owner, f"its tzinfo is a {type(zone).__name__}; use zoneinfo.ZoneInfo")


def _decode_zone(state: Any) -> dt.tzinfo | None:
    if state is None:
        return None
    if isinstance(state, str):
        return ZoneInfo(state)
    if isinstance(state, list):
        micros, name = parts(state, int, str)
        return dt.timezone(micros * _MICROSECOND, name)
    return dt.timezone(parts([state], int)[0] * _MICROSECOND)


def _encode_datetime(value: Any, pack: Pack) -> Any:
    micros = (value.replace(tzinfo=None) - _EPOCH) // _MICROSECOND
    return [micros, _encode_zone(value), value.fold]


def _decode_datetime(state: Any) -> dt.datetime:
    micros, zone, fold = parts(state, int, object, int)
    moment: dt.datetime = _EPOCH + micros * _MICROSECOND
    return moment.replace(tzinfo=_decode_zone(zone), fold=fold)


def _encode_time(value: Any, pack: Pack) -> Any:
    moment = dt.datetime.combine(dt.date.min, value.replace(tzinfo=None))
    return [(moment - _EPOCH) // _MICROSECOND, _encode_zone(value), value.fold]


def _decode_time(state: Any) -> dt.time:
    micros, zone, fold = parts(state, int, object, int)
    if not 0 <= micros < 86_400_000_000:
        raise ValueError("not a time of day")
    moment: dt.time = (_EPOCH + micros * _MICROSECOND).time()
    return moment.replace(tzinfo=_decode_zone(zone), fold=fold)


def _decode_date(state: Any) -> dt.date:
    return dt.date.fromordinal(parts([state], int)[0])


def _decode_timedelta(state: Any) -> dt.timedelta:
    return dt.timedelta(microseconds=parts([state], int)[0])


# --- numpy, if installed -----------------------------------------------------------------

# Without 'O' (pickled objects) and 'V' (structures, and what other packages add as such).
_DTYPE = re.compile(r"[<>|=][biufcSUmM][1-9][0-9]{0,9}(\[[0-9]{0,9}[a-zA-Z]{1,2}\])?")


def _numpy() -> Any:
    try:
        import numpy
    except ImportError as exc:
        raise UnregisteredTypeError(
            "numpy.ndarray", 1, "the payload holds a numpy value, but numpy is not installed"
        ) from exc
    return numpy


def _dtype_name(value: Any) -> str:
    dtype = value.dtype
    if not _DTYPE.fullmatch(dtype.str) or sys.modules["numpy"].dtype(dtype.str) != dtype:
        raise Refused(value, f"its dtype {dtype} cannot be stored; only plain numbers, text, times")
    return str(dtype.str)


def _encode_ndarray(value: Any, pack: Pack) -> Any:
    return [_dtype_name(value), list(value.shape), value.tobytes()]


def _decode_ndarray(state: Any) -> Any:
    name, shape, data = parts(state, str, list, bytes)
    if not _DTYPE.fullmatch(name):
        raise ValueError("not a dtype that is stored")
    numpy = _numpy()
    dtype = numpy.dtype(name)
    if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 64:
        raise ValueError("not a shape")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError("shape and size of an array disagree")
    return numpy.ndarray(tuple(shape), dtype, buffer=bytearray(data))


def _encode_numpy_scalar(value: Any, pack: Pack) -> Any:
    # numpy drops trailing zeros of its own strings; the Python value has them.
    if isinstance(value, str):
        return ["str", str.__str__(value)]
    if isinstance(value, bytes):
        return ["bytes", bytes.__getitem__(value, slice(None))]
    return [_dtype_name(value), value.tobytes()]


def _decode_numpy_scalar(state: Any) -> Any:
    name, data = parts(state, str, (str, bytes))
    numpy = _numpy()
    if name == "str":
        return numpy.str_(parts([data], str)[0])
    if name == "bytes":
        return numpy.bytes_(parts([data], bytes)[0])
    return _decode_ndarray([name, [], data])[()]


def numpy_extension(value: Any) -> Extension | None:
    """The extension for a numpy value. Never imports numpy: if it is not loaded, no value is."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if type(value) is numpy.ndarray:
        return BY_CODE[NDARRAY_CODE]
    if isinstance(value, numpy.generic) and type(value).__module__ == "numpy":
        return BY_CODE[NUMPY_SCALAR_CODE]
    return None


EXTENSIONS = (
    Extension(1, (tuple,), lambda v, pack: list(v), lambda state: tuple(_items(state))),
    Extension(2, (set,), _encode_set, lambda state: set(_items(state))),
    Extension(3, (frozenset,), _encode_set, lambda state: frozenset(_items(state))),
    Extension(4, (int,), _encode_int, _decode_int, raw=True),
    Extension(BYTEARRAY_CODE, (bytearray,), lambda v, pack: bytes(v), bytearray, raw=True),
    Extension(6, (dt.datetime,), _encode_datetime, _decode_datetime),
    Extension(7, (dt.date,), lambda v, pack: v.toordinal(), _decode_date),
    Extension(8, (dt.time,), _encode_time, _decode_time),
    Extension(9, (dt.timedelta,), lambda v, pack: v // _MICROSECOND, _decode_timedelta),
    Extension(10, (uuid.UUID,), _encode_uuid, lambda data: uuid.UUID(bytes=data), raw=True),
    Extension(
        11, (decimal.Decimal,), lambda v, pack: str(v).encode("ascii"), _decode_decimal, raw=True
    ),
    Extension(
        12,
        (complex,),
        lambda v, pack: struct.pack(">dd", v.real, v.imag),
        lambda data: complex(*struct.unpack(">dd", data)),
        raw=True,
    ),
    Extension(
        13,
        (pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath),
        _encode_path,
        _decode_path,
    ),
    Extension(NDARRAY_CODE, (), _encode_ndarray, _decode_ndarray),
    Extension(NUMPY_SCALAR_CODE, (), _encode_numpy_scalar, _decode_numpy_scalar),
    Extension(16, (collections.deque,), lambda v, pack: [v.maxlen, list(v)], _decode_deque, lead=1),
    Extension(17, (collections.OrderedDict,), lambda v, pack: dict(v), _decode_ordered_dict),
    Extension(19, (collections.Counter,), lambda v, pack: dict(v), _decode_counter),
    Extension(18, (collections.defaultdict,), _encode_defaultdict, _decode_defaultdict, lead=1),
)

BY_CODE: dict[int, Extension] = {extension.code: extension for extension in EXTENSIONS}
BY_TYPE: dict[type, Extension] = {cls: ext for ext in EXTENSIONS for cls in ext.types}
