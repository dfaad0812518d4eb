"""What differs between two states. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from eventstore.cli.values import line

DEPTH_MAX: Final = 6
"""Objects inside one another that are looked into; deeper ones are equal or changed as a whole."""

MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        path: where, such as ``user.name`` or ``rows[3]``.
        before, after: what was there and is there now; of lists that only grew, or lost their
            end, just the items that came or went.
    """

    path: str
    kind: Literal["added", "removed", "changed", "appended"]
    before: Any = MISSING
    after: Any = MISSING

    def shown(self) -> dict[str, Any]:
        """What was there, and what is."""
        pairs = (("before", self.before), ("after", self.after))
        return {name: value for name, value in pairs if value is not MISSING}

    def plain(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {"path": self.path, "change": self.kind, **self.shown()}

    def line(self) -> str:
        """As people read it."""
        return " → ".join(line(value, chars=100) for value in self.shown().values())


def channels(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """The channels that differ, each as a whole."""
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            yield Change(name, "removed", before[name])
        elif name not in before:
            yield Change(name, "added", after=after[name])
        elif not same(before[name], after[name]):
            yield Change(name, "changed", before[name], after[name])


def changes(before: Any, after: Any, path: str = "", depth: int = 0) -> Iterator[Change]:
    """Every difference, as far inside as it can be told."""
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
    pairs = zip(before, after, strict=False)
    prefix = next((n for n, (b, a) in enumerate(pairs) if not same(b, a)), None)
    if prefix is None:
        common = min(len(before), len(after))
        if len(after) > common:
            yield Change(path, "appended", after=after[common:])
        else:
            yield Change(path, "removed", before[common:])
    elif len(before) <= len(after):  # some items changed, and perhaps more came
        for index, (old, new) in enumerate(zip(before, after, strict=False)):
            yield from changes(old, new, f"{path}[{index}]", depth + 1)
        if len(after) > len(before):
            yield Change(path, "appended", after=after[len(before) :])
    else:  # which item became which cannot be told
        where = f"{path}[{prefix}:]"
        yield Change(where, "changed", before[prefix:], after[prefix:])


def same(before: Any, after: Any) -> bool:
    """Whether two values are equal, of one type and all (1 is not true)."""
    try:
        return _same(before, after)
    except RecursionError:  # nested too deeply to tell
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
    except Exception:  # the application's own, or an array, which has no one answer
        return repr(before) == repr(after)


def _step(path: str, name: Any) -> str:
    text = name if isinstance(name, str) else repr(name)
    if not path:
        return text
    return f"{path}.{text}" if text.isidentifier() else f"{path}[{text!r}]"
