"""Values as text: valid JSON whatever they are, bounded, and harmless on a terminal."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import json
import math
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import Opaque
from eventstore.cli.output import duration, size
from eventstore.explain.compare import changes
from eventstore.explain.values import ALL, BRIEF, block, document, line, safe, simple, text_of


@dataclass
class Point:
    x: int
    y: Any = None


class Pair(NamedTuple):
    a: int
    b: int


class Model(pydantic.BaseModel):
    name: str


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, "a", None, True, 1.5), [1, "a", None, True, 1.5]),
        ({3, 1, 2}, [1, 2, 3]),
        ({1: "a", None: "b", (1, 2): "c"}, {"1": "a", "null": "b", "[1, 2]": "c"}),
        ({1: "a", "1": "b"}, {"$map": [[1, "a"], ["1", "b"]]}),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (10**30, 10**30),
        (b"abc", {"$bytes": "YWJj"}),
        (bytearray(b"abcd"), {"$bytes": "YWJjZA=="}),
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-02T00:00:00+00:00"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.timedelta(minutes=1), {"$seconds": 60.0}),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("/a/b"), "/a/b"),
        (1j, "1j"),
        (Colour.RED, "Colour.RED"),
        (Level.HIGH, "Level.HIGH"),
        (collections.deque([1, 2], 5), [1, 2]),
        (collections.defaultdict(int, a=1), {"a": 1}),
        (Point(1, Pair(2, 3)), {"$type": "Point", "x": 1, "y": {"$type": "Pair", "a": 2, "b": 3}}),
        (Model(name="m"), {"$type": "Model", "name": "m"}),
        (Opaque("user", 2, {"n": 1}), {"$type": "user/2", "n": 1}),
        (Opaque("colour", 1, "RED"), {"$type": "colour/1", "value": "RED"}),
        (numpy.arange(3, dtype="<i2"), {"$type": "numpy int16", "shape": [3], "values": [0, 1, 2]}),
    ],
)
def test_what_a_value_looks_like(value: Any, expected: Any) -> None:
    assert json.loads(document(value)) == json.loads(json.dumps(expected))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.builds(Opaque, st.text(), st.integers(1), inner)
    ),
)


@pytest.mark.slow
@given(anything)
def test_any_value_is_one_line_of_json_and_prints_harmlessly(value: Any) -> None:
    text = document(value)
    json.loads(text)
    assert text.isascii() and text.isprintable()
    assert line(value).isprintable()
    assert all(each.isprintable() for each in block(value).split("\n"))
    assert len(line(value, chars=50)) <= 50
    assert list(changes(value, value)) == []


@given(st.text())
def test_a_text_is_made_safe(text: str) -> None:
    assert safe(text).isprintable()
    if text.isprintable():
        assert safe(text) == text


@pytest.mark.slow
def test_large_values_cost_what_is_shown_of_them() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    wide = {f"k{n}": "x" * 10_000 for n in range(100_000)}
    nested = [[[[list(range(50))] * 50] * 50] * 50] * 50
    for value in (deep, wide, nested, b"x" * 10_000_000):
        assert len(line(value)) < 50_000
    json.loads(document(deep))
    assert simple("x" * 300, BRIEF) == "x" * 199 + "…"
    assert simple(list(range(25)), BRIEF)[-1] == "… 5 more"
    assert simple({n: n for n in range(25)}, BRIEF)["…"] == "… 5 more"
    assert len(simple(b"x" * 10_000, ALL)["$bytes"]) == 13_336


def test_durations_and_sizes() -> None:
    assert [duration(s) for s in (0, 59, 3_600, 90_061)] == ["0s", "59s", "1h", "1d1h1m1s"]
    assert [size(n) for n in (0, 1023, 2048, 5 * 2**30)] == ["0 B", "1,023 B", "2.0 KiB", "5.0 GiB"]


# --- what differs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {"a": 1}, [("a", "added")]),
        ({"a": 1}, {}, [("a", "removed")]),
        ({"a": 1}, {"a": True}, [("a", "changed")]),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, [("a", "appended")]),
        ({"a": [1, 2]}, {"a": [1]}, [("a", "removed")]),
        ({"a": [1, 2, 3]}, {"a": [1, 3]}, [("a[1]", "removed")]),
        ({"a": [1, 2, 3]}, {"a": [3]}, [("a[0:2]", "removed")]),
        ({"a": [1, 2]}, {"a": [0, 1, 2]}, [("a[0]", "added")]),
        ({"a": [1, 4]}, {"a": [1, 2, 3, 4]}, [("a[1:3]", "added")]),
        ({"a": [1, 1]}, {"a": [1, 1, 1]}, [("a", "appended")]),
        ({"a": [1, 2, 3]}, {"a": [1, 5, 3]}, [("a[1]", "changed")]),
        ({"a": [1, 2, 3, 4]}, {"a": [1, 5, 4]}, [("a[1:3]", "changed")]),
        ({"a": [1, 2, 3]}, {"a": [5, 6]}, [("a[0:]", "changed")]),
        ({"a": [{"b": 1}, 2]}, {"a": [{"b": 2}, 2, 3]}, [("a[0].b", "changed"), ("a", "appended")]),
        ({"a": {"b c": 1}}, {"a": {"b c": 2}}, [("a['b c']", "changed")]),
        ({"a": {1: 1}}, {"a": {1: 1, 2: 2}}, [("a['2']", "added")]),
        ({"a": numpy.arange(2)}, {"a": numpy.arange(2)}, []),
        ({"a": numpy.arange(2)}, {"a": numpy.arange(3)}, [("a", "changed")]),
    ],
)
def test_differences(before: Any, after: Any, expected: Any) -> None:
    assert [(each.path, each.kind) for each in changes(before, after)] == expected


@pytest.mark.parametrize("digits", [4_290, 4_301, 100_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_integers_of_any_length(digits: int, sign: int) -> None:
    """Python refuses to write long ones in decimal; they are shown whole, in hexadecimal."""
    number = sign * (10**digits - 1)
    shown = json.loads(document({"n": [number], number: 1}))
    expected = number if digits < 4_300 else {"$int": hex(number)}
    assert shown["n"] == [expected]
    (key,) = shown.keys() - {"n"}
    assert key == (str(number) if digits < 4_300 else json.dumps({"$int": hex(number)}))
    assert len(line({number: number})) < 2 * BRIEF.text + 100
    assert block(number) and text_of(number) and text_of([number])
    (change,) = changes({"a": {number: 1}}, {"a": {number: 2}})
    assert change.path.startswith("a[") and change.line() == "1 → 2"
    assert [*changes([number], [number + 1])] and not [*changes([number], [number + 0])]


class Angry:
    """An application's type that has no text."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]


def test_values_that_have_no_text() -> None:
    assert document([Angry()]) == '["<Angry>"]'
    assert text_of(Angry()) == '"<Angry>"'
