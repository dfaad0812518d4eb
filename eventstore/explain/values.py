"""Values as JSON and as lines of text: bounded, and harmless on a terminal.

Stored names and texts may contain anything, including escape sequences for the terminal; every
text that is printed is escaped here. A value that JSON cannot express becomes text, or an object
whose first key begins with ``$``. The conversion is one-way: nothing reads this form back.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Final

from eventstore import Opaque

CUT: Final = "…"

INT_BITS_MAX: Final = int(3.32 * (sys.get_int_max_str_digits() or 4_300))
"""Python writes longer integers in decimal only with an effort that grows with their square, and
refuses it; they are shown in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a value is shown.

    Attributes:
        text: characters of each text, of bytes in base64, and about of a number.
        items: items of each list or object.
        values: values in total.
        depth: levels of nested lists and objects.
    """

    text: int
    items: int
    values: int
    depth: int


ALL: Final = Bounds(2**62, 2**62, 2**62, 150)
"""Everything, up to the depth that JSON parsers (Python's among them) accept."""

BRIEF: Final = Bounds(text=200, items=20, values=200, depth=8)


def safe(text: str) -> str:
    """The text with every unprintable character escaped, line breaks included."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return ascii(character)[1:-1]


def simple(value: Any, bounds: Bounds = ALL) -> Any:
    """The value made of JSON types only: objects, lists, text, numbers, true, false and null."""
    return _Simplifier(bounds).simple(value, 0)


def document(value: Any) -> str:
    """The value as one line of JSON, in ASCII."""
    return json.dumps(simple(value), allow_nan=False, separators=(", ", ": "))


def line(value: Any, bounds: Bounds = BRIEF, chars: int | None = None) -> str:
    """The value as one line for people: like JSON, shortened to the bounds."""
    text = safe(json.dumps(simple(value, bounds), ensure_ascii=False))
    return text if chars is None else cut(text, chars)


def block(value: Any) -> str:
    """The whole value as indented JSON over several lines, for people."""
    text = json.dumps(simple(value), ensure_ascii=False, indent=2)
    return "\n".join(map(safe, text.split("\n")))  # line breaks inside texts are escaped already


def counted(count: int, noun: str) -> str:
    """A count with its noun: ``1 thread``, ``2 threads``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def cut(text: str, chars: int) -> str:
    """The text shortened to at most ``chars`` characters, with ``…`` where it was cut."""
    return text if len(text) <= chars else text[: max(chars - 1, 0)] + CUT


def text_of(value: Any, convert: Callable[[Any], str] = str) -> str:
    """A value as a short text: that of Python, or of :func:`line` where Python has none."""
    try:
        return convert(value)
    except Exception:  # an integer that is too long, perhaps deep inside, or an application's type
        return line(value)


def _str(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # an application's type
        return f"<{type(value).__name__}>"


class _Simplifier:
    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._left = bounds.values

    def simple(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, enum.Enum):
            return f"{type(value).__name__}.{value.name}"
        if isinstance(value, str):
            return self._text(str(value))
        if isinstance(value, int):
            if value.bit_length() > min(INT_BITS_MAX, 3 * self._bounds.text):
                return {"$int": self._text(hex(value))}
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(float(value))
        if isinstance(value, bytes | bytearray | memoryview):
            size = min(len(value), self._bounds.text)
            encoded = base64.b64encode(bytes(value[: size // 3 * 3 + 3])).decode()
            return {"$bytes": self._text(encoded)}
        if isinstance(value, datetime | date | time):
            return value.isoformat()
        if isinstance(value, timedelta):
            return {"$seconds": value.total_seconds()}
        return self._compound(value, depth)

    def _compound(self, value: Any, depth: int) -> Any:
        fields = fields_of(value)
        if fields is None and not isinstance(value, list | tuple | set | frozenset | Mapping):
            if not hasattr(value, "maxlen"):  # a deque
                return self._text(_str(value))
        if depth >= self._bounds.depth or self._left <= 0:
            return CUT
        if fields is not None:
            return {name: self.simple(item, depth + 1) for name, item in self._first(fields)}
        if isinstance(value, Mapping):
            return self._object(value, depth)
        items = [self.simple(item, depth + 1) for item in self._first(value)]
        if isinstance(value, set | frozenset):
            items.sort(key=json.dumps)  # a set's order differs between processes
        return [*items, *self._rest(len(value), len(items))]

    def _object(self, value: Mapping[Any, Any], depth: int) -> Any:
        pairs = [(key, self.simple(item, depth + 1)) for key, item in self._first(value.items())]
        named = {self._name(key, depth): item for key, item in pairs}
        if len(named) < len(pairs):  # 1 and "1", say
            return {"$map": [[self.simple(key, depth + 1), item] for key, item in pairs]}
        for rest in self._rest(len(value), len(pairs)):
            named[CUT] = rest
        return named

    def _name(self, key: Any, depth: int) -> str:
        if isinstance(key, str) and not isinstance(key, enum.Enum):
            return self._text(str(key))
        return json.dumps(self.simple(key, depth + 1), ensure_ascii=False)

    def _text(self, text: str) -> str:
        return cut(text, self._bounds.text)

    def _first(self, items: Iterable[Any]) -> Iterable[Any]:
        for count, item in enumerate(items):
            if count >= self._bounds.items or self._left <= 0:
                return
            yield item

    @staticmethod
    def _rest(there: int, shown: int) -> list[str]:
        return [f"{CUT} {there - shown} more"] if there > shown else []


def fields_of(value: Any) -> Iterable[tuple[str, Any]] | None:
    """The fields of a value after its type as ``$type``; ``None`` if it has no named fields."""
    if isinstance(value, Opaque):
        name = f"{value.name}/{value.version}"
        if type(value.fields) is dict and all(type(key) is str for key in value.fields):
            return {"$type": name, **value.fields}.items()
        return {"$type": name, "value": value.fields}.items()
    kind = type(value)
    if dataclasses.is_dataclass(value):
        names: Iterable[str] = (field.name for field in dataclasses.fields(value))
    elif isinstance(value, tuple) and hasattr(kind, "_fields"):
        names = kind._fields
    elif hasattr(kind, "model_fields"):  # pydantic
        names = kind.model_fields
    elif kind.__module__ == "numpy" and hasattr(value, "tolist"):
        shape = list(getattr(value, "shape", ()))
        return [("$type", f"numpy {value.dtype}"), ("shape", shape), ("values", value.tolist())]
    else:
        return None
    return [("$type", kind.__name__), *((name, getattr(value, name, None)) for name in names)]
