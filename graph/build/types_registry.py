"""Which application types a graph's state may hold: those that its schemas name.

``compile`` registers them with the store's codec under their class names, version 1,
unless the application registered them itself, with a name and upcasters of its own.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args, get_type_hints

from eventstore import Codec
from graph.build.builder import Topology
from graph.messages import add_messages


def register_types(codec: Codec, topology: Topology) -> None:
    """Register every class that is reachable from the schemas' annotations.

    Raises:
        ConfigurationError: two classes bear one name; register them under names of your own.
    """
    seen: set[Any] = set()
    for schema in topology.schemas():
        for hint in _hints(schema.cls).values():
            for cls in _classes(hint, seen):
                if not codec.is_registered(cls):
                    codec.register(cls)
    chat = sys.modules.get("langchain_core.messages")
    if chat is not None and any(c.reducer is add_messages for c in topology.channels.values()):
        for cls in _classes(chat.BaseMessage, seen):
            if not codec.is_registered(cls):
                codec.register(cls)


def _classes(hint: Any, seen: set[Any]) -> Iterator[type]:
    """Classes with a form of their own that an annotation leads to, subclasses included."""
    try:
        if hint in seen:
            return
        seen.add(hint)
    except TypeError:  # an unhashable argument of Annotated; what it annotates is in its args
        pass
    for part in (*get_args(hint), getattr(hint, "__value__", None)):
        yield from _classes(part, seen)
    if not isinstance(hint, type) or not _has_form(hint):
        return
    yield hint
    for field in _hints(hint).values():
        yield from _classes(field, seen)
    subclasses: list[type] = hint.__subclasses__()
    for each in subclasses:
        yield from _classes(each, seen)


def _has_form(cls: type) -> bool:
    return (
        (issubclass(cls, Enum) and bool(list(cls)))
        or dataclasses.is_dataclass(cls)
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
        or hasattr(cls, "__pydantic_fields__")
    )


def _hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls, include_extras=True)
    except (NameError, TypeError):  # names known to type checkers only: nothing to register
        return {}
