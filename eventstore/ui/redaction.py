"""What must not leave the process: paths in values, and a hook of the operator's.

A path such as ``messages[*].content`` or ``user.email`` matches wherever its first name occurs, in
a state as well as in the writes, arguments and questions of events: it rather hides too much. Where
something may be hidden, values become plain data first, so that no view can reach the original.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eventstore import ConfigurationError
from eventstore.explain.values import simple

HIDDEN: Final = "[redacted]"

Hook = Callable[[str, Any], Any]
"""Called with what a value is (``state``, ``event``, ``metadata``, ``error``) and the plain value;
returns the value to show."""

_STEP: Final = re.compile(r"([^.\[\]]+)|\[(\*|[0-9]+)\]")
_ANY: Final = "*"

Path = tuple[str, ...]


def parsed(text: str) -> Path:
    """The steps of a path.

    Raises:
        ConfigurationError: it is not one.
    """
    steps: list[str] = []
    for part in re.split(r"\.(?![^\[]*\])", text):
        found = _STEP.findall(part)
        if not found or "".join(name or f"[{index}]" for name, index in found) != part:
            raise ConfigurationError(
                f"the path to redact {text!r} is not valid; expected a form such as "
                "messages[*].content"
            )
        steps += [name or f"[{index}]" for name, index in found]
    return tuple(steps)


@dataclass(frozen=True)
class Redaction:
    """Hides parts of values.

    Attributes:
        paths: what to hide.
        hook: called with each value after that.
    """

    paths: tuple[Path, ...] = ()
    hook: Hook | None = None
    _first: frozenset[str] = field(init=False, repr=False, default=frozenset())

    @classmethod
    def of(cls, texts: Sequence[str], hook: Hook | None = None) -> Redaction:
        """Read the paths that an operator gives.

        Raises:
            ConfigurationError: one is not valid.
        """
        return cls(tuple(map(parsed, texts)), hook)

    @property
    def hides(self) -> bool:
        """Whether anything may be hidden."""
        return bool(self.paths) or self.hook is not None

    def apply(self, what: str, value: Any) -> Any:
        """The value as it may be shown; plain data if anything may be hidden."""
        if not self.hides:
            return value
        plain = _hidden(simple(value), self.paths, self.paths) if self.paths else simple(value)
        return plain if self.hook is None else simple(self.hook(what, plain))

    def text(self, what: str, text: str) -> str:
        """A text as it may be shown."""
        found = self.apply(what, text)
        return found if isinstance(found, str) else HIDDEN


def _hidden(value: Any, active: Sequence[Path], paths: Sequence[Path]) -> Any:
    """A plain value without what paths lead to.

    Args:
        active: what is left of the paths that lead here, and all paths, which may begin here.
    """
    if isinstance(value, dict):
        return {name: _at(name, item, active, paths) for name, item in value.items()}
    if isinstance(value, list):
        items = [_at(f"[{index}]", item, active, paths) for index, item in enumerate(value)]
        if len(value) == 2 and isinstance(value[0], str):  # a key with its value, as in writes
            if _at(value[0], value[1], active, paths) == HIDDEN:
                items[1] = HIDDEN
            elif items[1] != HIDDEN:
                items[1] = _at(value[0], items[1], active, paths)
        return items
    return value


def _at(step: str, item: Any, active: Sequence[Path], paths: Sequence[Path]) -> Any:
    """An item of a plain value, without what paths lead to; ``HIDDEN`` if one ends there."""
    is_item = step.startswith("[")
    left: list[Path] = []
    for path in active:
        if step in _WRAPPERS:
            left.append(path)
        # Where a list is expected there may be one item of it, and the other way round.
        while path and not is_item and path[0].startswith("["):
            path = path[1:]
        if not path:
            return HIDDEN
        if path[0] in (step, _ANY) or (is_item and path[0] == f"[{_ANY}]"):
            left.append(path[1:])
        elif is_item and not path[0].startswith("["):
            left.append(path)
    if any(not path for path in left):
        return HIDDEN
    begun = [path for path in left if path not in paths]
    if not isinstance(item, list | dict) and any(map(_is_of_items, begun)):
        return HIDDEN
    return _hidden(item, [*begun, *paths], paths)


_WRAPPERS: Final = frozenset({"$map", "$writes", "added", "value", "fields"})
"""Names that stand between a key and its value where a value is recorded in parts, or its type
was not loaded."""


def _is_of_items(path: Path) -> bool:
    return all(step.startswith("[") for step in path)
