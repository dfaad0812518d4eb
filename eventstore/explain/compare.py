"""The differences between two states: pure functions over plain values.

Owns walking two values side by side, and deciding what counts as equal when the types are the
application's own. Knows neither stores nor graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from eventstore.explain.transcript import brief
from eventstore.explain.values import simple, text_of

DEPTH_MAX: Final = 6
"""Levels of nested objects that are compared; deeper ones are equal or changed as a whole."""

MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        path: such as ``user.name`` or ``rows[3]``.
        before, after: the two values; of a list in which items in one place were only added or
            removed, these items, and the path names their places.
    """

    path: str
    kind: Literal["added", "removed", "changed", "appended"]
    before: Any = MISSING
    after: Any = MISSING

    def values(self) -> dict[str, Any]:
        """The two values by name, without one that is missing."""
        pairs = (("before", self.before), ("after", self.after))
        return {name: value for name, value in pairs if value is not MISSING}

    def as_json(self) -> dict[str, Any]:
        """The change as ``--json`` prints it."""
        return {"path": self.path, "change": self.kind, **self.values()}

    def line(self) -> str:
        """The change in one line, for people."""
        return " → ".join(brief(value, 100) for value in self.values().values())


def channels(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """The keys whose values differ, each value as a whole."""
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            yield Change(name, "removed", before[name])
        elif name not in before:
            yield Change(name, "added", after=after[name])
        elif not same(before[name], after[name]):
            yield Change(name, "changed", before[name], after[name])


def changes(before: Any, after: Any, path: str = "", depth: int = 0) -> Iterator[Change]:
    """Every difference, each at the deepest path that can be named."""
    if same(before, after):
        return
    if depth < DEPTH_MAX and isinstance(before, dict) and isinstance(after, dict):
        for change in channels(before, after):
            where = _step(path, change.path)
            if change.kind == "changed":
                yield from changes(change.before, change.after, where, depth + 1)
            else:
                yield Change(where, change.kind, change.before, change.after)
    elif depth < DEPTH_MAX and isinstance(before, list) and isinstance(after, list):
        yield from _in_lists(before, after, path, depth)
    else:
        yield Change(path, "changed", before, after)


def _in_lists(before: list[Any], after: list[Any], path: str, depth: int) -> Iterator[Change]:
    first = _common(before, after)
    if first == min(len(before), len(after)):
        if len(after) > first:
            yield Change(path, "appended", after=after[first:])
        else:
            yield Change(path, "removed", before[first:])
        return
    last = min(_common(before[::-1], after[::-1]), min(len(before), len(after)) - first)
    old, new = before[first : len(before) - last], after[first : len(after) - last]
    if not old:
        yield Change(_range(path, first, len(new)), "added", after=new)
    elif not new:
        yield Change(_range(path, first, len(old)), "removed", old)
    elif len(old) == len(new) or (not last and len(old) < len(new)):
        for index, (one, other) in enumerate(zip(old, new, strict=False), first):
            yield from changes(one, other, f"{path}[{index}]", depth + 1)
        if len(new) > len(old):  # some items changed, and more were added
            yield Change(path, "appended", after=new[len(old) :])
    else:  # which item became which is unknown
        where = f"{path}[{first}:{first + len(old) if last else ''}]"
        yield Change(where, "changed", old, new)


def _common(before: list[Any], after: list[Any]) -> int:
    """How many items two lists begin with alike."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((n for n, (b, a) in pairs if not same(b, a)), min(len(before), len(after)))


def _range(path: str, first: int, count: int) -> str:
    return f"{path}[{first}]" if count == 1 else f"{path}[{first}:{first + count}]"


def same(before: Any, after: Any) -> bool:
    """Whether two values are equal and of the same types throughout (``1`` is not ``True``)."""
    try:
        return _same(before, after)
    except RecursionError:  # nested too deeply to compare
        return False


def _same(before: Any, after: Any) -> bool:
    if before is after:
        return True
    if type(before) is not type(after):
        return False
    if type(before) in (list, tuple):
        return len(before) == len(after) and all(map(_same, before, after))
    if type(before) is dict:
        known = before.keys() == after.keys()
        return known and all(_same(value, after[key]) for key, value in before.items())
    try:
        return bool(before == after)
    except RecursionError:
        raise
    except Exception:  # an application's own type, or an array, whose == gives an array
        try:
            return repr(before) == repr(after)
        except ValueError:  # of an integer that is too long
            return bool(simple(before) == simple(after))


def _step(path: str, name: Any) -> str:
    text = name if isinstance(name, str) else text_of(name, repr)
    if not path:
        return text
    return f"{path}.{text}" if text.isidentifier() else f"{path}[{text!r}]"
