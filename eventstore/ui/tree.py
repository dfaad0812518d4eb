"""Values as trees, a level at a time: bounded whatever they hold.

Owns the address of a part of a value: the numbers of the children on the way to it, which work
for keys of any type. A view shows a node with one page of its children; each child is a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from eventstore.explain.values import Bounds, fields_of, line, simple, text_of

CHILDREN: Final = 50
"""Children of a node in a page."""

TEXT: Final = 4_000
"""Characters of a text in a page."""

_PREVIEW: Final = Bounds(text=120, items=6, values=30, depth=4)
_CHARS: Final = 140

Path = tuple[int, ...]


def parse(text: str) -> Path:
    """The path in the address of a part, such as ``0.12.3``.

    Raises:
        ValueError: it is not one.
    """
    if not text:
        return ()
    parts = text.split(".")
    if len(parts) > 200 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(text)
    return tuple(map(int, parts))


def address(path: Path) -> str:
    """The text of a path."""
    return ".".join(map(str, path))


def part(value: Any, path: Path) -> tuple[list[str], Any]:
    """A part of a value, and the labels on the way to it.

    Raises:
        LookupError: there is none.
    """
    labels = []
    for index in path:
        found = children(value)
        pair = None if found is None else next(islice(found[1], index, None), None)
        if pair is None:
            raise LookupError(index)
        labels.append(pair[0])
        value = pair[1]
    return labels, value


def node(label: str, value: Any, path: Path = (), offset: int = 0) -> dict[str, Any]:
    """A part of a value with a page of its children, or of its text."""
    found = outline(label, value, path)
    inner = children(value)
    if inner is not None:
        count, items = inner
        shown = list(islice(items, offset, offset + CHILDREN))
        found["children"] = [
            outline(name, item, (*path, offset + n)) for n, (name, item) in enumerate(shown)
        ]
        end = offset + len(shown)
        found["next_offset"] = end if end < count else None
        found["offset"] = offset
        return found
    text = _text(value)
    found["text"] = text[offset : offset + TEXT]
    found["offset"] = offset
    found["next_offset"] = offset + TEXT if offset + TEXT < len(text) else None
    return found


def outline(label: str, value: Any, path: Path) -> dict[str, Any]:
    """A part of a value in one line."""
    inner = children(value)
    found: dict[str, Any] = {
        "label": label,
        "path": address(path),
        "type": _type(value),
        "preview": line(value, _PREVIEW, chars=_CHARS),
    }
    if inner is not None:
        found["count"] = inner[0]
        found["opens"] = inner[0] > 0
    else:
        size = len(value) if isinstance(value, str | bytes) else 0
        found["opens"] = size > 100
        if isinstance(value, str | bytes):
            found["length"] = size
    return found


def children(value: Any) -> tuple[int, Iterator[tuple[str, Any]]] | None:
    """How many parts a value has, and these with their labels; ``None``: it has none."""
    if isinstance(value, Mapping):
        return len(value), ((_name(key), item) for key, item in value.items())
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return len(value), _numbered(value)
    if isinstance(value, set | frozenset):
        return len(value), _numbered(sorted(value, key=text_of))
    if hasattr(value, "maxlen"):
        return len(value), _numbered(value)
    fields = fields_of(value)
    if fields is None:
        return None
    pairs = list(fields)
    return len(pairs), iter(pairs)


def _numbered(items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((str(number), item) for number, item in enumerate(items))


def _name(key: Any) -> str:
    return key if isinstance(key, str) else line(key, chars=80)


def _type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, bytes):
        return "bytes"
    if isinstance(value, Mapping):
        kind = value.get("$type")
        return kind if isinstance(kind, str) else "object"
    if isinstance(value, Sequence):
        return "list"
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else type(value).__name__


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return line(simple(value, Bounds(text=100_000, items=100, values=1_000, depth=8)))
