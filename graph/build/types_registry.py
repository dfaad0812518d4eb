"""Registers the application types that a graph's state may hold: those in its annotations.

``compile`` registers them with the store's codec under their class names, version 1, unless the
application has registered them itself, with a name and upcasters of its own. Classes that are
defined later (subclasses, langchain-core imported after ``compile``) are looked up when a value
needs one. Annotations are evaluated name by name, so that a name known only to type checkers does
not hide the others.
"""

from __future__ import annotations

import builtins
import dataclasses
import sys
from collections.abc import Hashable, Iterator, Mapping
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

from eventstore import Codec
from graph.build import callables
from graph.build.topology import Topology
from graph.messages import AddMessages


def register_types(codec: Codec, topology: Topology) -> None:
    """Register every class reachable from the annotations of schemas and nodes.

    Raises:
        ConfigurationError: two classes have the same name; register them under other names.
    """
    roots = _roots(topology)
    found = reachable(roots)
    if any(isinstance(each.reducer, AddMessages) for each in topology.channels.values()):
        found += langchain_classes()
    for cls in found:
        if not codec.is_registered(cls):
            codec.register(cls)
    names = frozenset(f"{cls.__module__}.{cls.__qualname__}" for cls in found)
    codec.register_later(names, lambda: reachable(roots))
    codec.register_later("langchain-core", langchain_classes)


def _roots(topology: Topology) -> list[Any]:
    roots: list[Any] = [schema.cls for schema in topology.schemas()]
    for node in topology.nodes.values():
        if callable(node.action):
            roots += hints(callables.underlying(node.action)).values()
    return roots


def reachable(roots: list[Any]) -> list[type]:
    """The classes to register that these annotations lead to, with their subclasses."""
    seen: set[Any] = set()
    return [cls for hint in roots for cls in _classes(hint, seen)]


def langchain_classes() -> list[type]:
    """The message and document classes of langchain-core, if it has been imported."""
    messages = sys.modules.get("langchain_core.messages")
    documents = sys.modules.get("langchain_core.documents")
    roots = [
        getattr(module, name, None)
        for module, name in ((messages, "BaseMessage"), (documents, "Document"))
    ]
    return reachable([root for root in roots if root is not None])


def _classes(hint: Any, seen: set[Any]) -> Iterator[type]:
    try:
        if hint in seen:
            return
        seen.add(hint)
    except TypeError:  # an unhashable argument of Annotated; what it annotates is in its args
        pass
    if isinstance(hint, Enum):  # of a Literal
        hint = type(hint)
    for part in (
        *get_args(hint),
        get_origin(hint),  # of Box[int]: Box
        getattr(hint, "__value__", None),  # of `type Alias = …`
        getattr(hint, "__supertype__", None),  # of a NewType
        getattr(hint, "__pydantic_generic_metadata__", {}).get("origin"),
    ):
        if part is not None:
            yield from _classes(part, seen)
    if not isinstance(hint, type):
        return
    has_form = _has_form(hint)
    if has_form:
        yield hint
    if has_form or _is_typed_dict(hint):
        for field in hints(hint).values():
            yield from _classes(field, seen)
    if has_form:
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


def _is_typed_dict(cls: type) -> bool:
    return issubclass(cls, dict) and hasattr(cls, "__total__")


def hints(owner: Any) -> dict[str, Any]:
    """The annotations of a class or function; names that cannot be resolved are ignored."""
    try:
        return get_type_hints(owner, include_extras=True)
    except Exception:  # evaluating them runs the application's code, which may raise anything
        found: dict[str, Any] = {}
    for place in reversed(owner.__mro__) if isinstance(owner, type) else (owner,):
        for name, annotation in _annotations(place).items():
            found[name] = _evaluated(annotation, place)
    return found


def _annotations(place: Any) -> Mapping[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(place, format=annotationlib.Format.FORWARDREF)
    found: Mapping[str, Any] = vars(place).get("__annotations__", {})
    return found


def _evaluated(annotation: Any, place: Any) -> Any:
    """One annotation, in which unknown names are :class:`Unknown`."""

    class Holder:
        __annotations__ = {"value": annotation}

    names = _Names(place)
    try:
        return get_type_hints(Holder, vars(builtins), names, include_extras=True)["value"]
    except Exception:  # as above
        return Unknown


class _UnknownType(type):
    """Lets annotations use an unknown name like any class."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, _argument: Any) -> Any:
        return cls


class Unknown(metaclass=_UnknownType):
    """Stands for a name that only type checkers know."""


class _Names(dict[str, Any]):
    """The names that an annotation may use; undefined ones are :class:`Unknown`."""

    def __init__(self, place: Any) -> None:
        module = sys.modules.get(getattr(place, "__module__", ""), builtins)
        names = {**vars(builtins), **getattr(place, "__globals__", {}), **vars(module)}
        if isinstance(place, type):
            names |= {place.__name__: place, **vars(place)}
        parameters: tuple[Hashable, ...] = getattr(place, "__type_params__", ())
        super().__init__({**names, **{str(each): each for each in parameters}})

    def __missing__(self, name: str) -> Any:
        return Unknown
