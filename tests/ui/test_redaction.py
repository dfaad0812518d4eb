"""Paths hide what they name wherever it occurs, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from eventstore import ConfigurationError
from eventstore.ui.redaction import HIDDEN, Redaction, parsed


@dataclass
class Person:
    name: str
    email: str


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("a", {"a": 1, "b": 2}, {"a": HIDDEN, "b": 2}),
        ("a.b", {"a": {"b": 1, "c": 2}}, {"a": {"b": HIDDEN, "c": 2}}),
        ("a.b", {"b": 1}, {"b": 1}),
        ("a", {"x": {"a": [1]}}, {"x": {"a": HIDDEN}}),
        ("a[*]", {"a": [1, 2]}, {"a": [HIDDEN, HIDDEN]}),
        ("a[*]", {"a": ["x", "y"]}, {"a": [HIDDEN, HIDDEN]}),
        ("a[*]", {"a": 1}, {"a": HIDDEN}),
        ("a[1]", {"a": [1, 2]}, {"a": [1, HIDDEN]}),
        ("a[*].b", {"a": [{"b": 1, "c": 2}]}, {"a": [{"b": HIDDEN, "c": 2}]}),
        ("a[*].b", {"a": {"b": 1, "c": 2}}, {"a": {"b": HIDDEN, "c": 2}}),
        ("a.b", {"a": [{"b": 1}]}, {"a": [{"b": HIDDEN}]}),
        ("a.b", {"writes": [["a", {"b": 1}], ["c", 2]]}, None),
        ("a[*].b", {"changed": {"a": {"added": [{"b": 1, "c": 2}]}}}, None),
        ("a[*].b", {"a": {"$writes": [{"b": 1}]}}, None),
        ("*.b", {"a": {"b": 1}, "c": {"b": 2, "d": 3}}, None),
        ("person.email", {"person": Person("Ann", "1")}, None),
        ("people[*].email", {"people": [Person("Ann", "1")]}, None),
    ],
)
def test_paths(path: str, value: Any, expected: Any) -> None:
    found = Redaction.of([path]).apply("state", value)
    if expected is not None:
        assert found == expected
    else:
        assert HIDDEN in str(found)
        assert " 1" not in str(found) and "'1'" not in str(found)


def test_without_paths_values_are_left_alone() -> None:
    value = {"a": object()}
    assert Redaction().apply("state", value) is value


def test_a_hook_sees_plain_values_last() -> None:
    seen: list[Any] = []

    def hook(what: str, value: Any) -> Any:
        seen.append((what, value))
        return {"hidden": True}

    assert Redaction.of(["a"], hook).apply("event", {"a": 1}) == {"hidden": True}
    assert seen == [("event", {"a": HIDDEN})]


@pytest.mark.parametrize("text", ["", "a..b", "a[", "a[x]", "a]b", ".", "a[*", "[]"])
def test_a_wrong_path_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="path to redact"):
        parsed(text)
