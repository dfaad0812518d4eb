"""Channels: how each key of the state merges updates.

Owns the rule that picks a key's reducer from its annotation. Promises that reducing never changes
the value it starts from, and that folding many updates equals applying them one by one.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from graph.build.callables import fingerprint
from graph.build.foreign import TYPES, taken, taken_reducer
from graph.errors import InvalidGraphError, ReducerError
from graph.messages import in_reducer
from graph.types import OVERWRITE, Overwrite

Reducer = Callable[[Any, Any], Any]


class Missing(Enum):
    """The type of :data:`MISSING`: an enum, so that ``is MISSING`` narrows types."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING

_IN_PLACE = (operator.iadd, operator.iconcat)
_CONCATENATIONS = (operator.add, operator.concat, *_IN_PLACE)

_BUILT_IN: Final = (str, bytes, bool, int, float, list, tuple, dict, set, frozenset)

# Abstract collections cannot be called; these are used instead.
_CONCRETE: dict[Any, type[Any]] = {
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
    collections.abc.Mapping: dict,
    collections.abc.MutableMapping: dict,
}


@dataclass(frozen=True)
class Channel:
    """One key of the state, and how it merges updates.

    Attributes:
        name: the key.
        reducer: merges the current value with an update; without one the last value wins, and
            only one node may write the key in a superstep.
        initial: makes the value that the reducer starts from. ``None`` if the declared type
            cannot be called without arguments; the first update is then the value.
        kind: the declared type if that is a built-in one; not compared.
    """

    name: str
    reducer: Reducer | None = None
    initial: Callable[[], Any] | None = None
    kind: type[Any] | None = field(default=None, compare=False)

    @property
    def form(self) -> str:
        """How the key is declared, in a word: its built-in type, ``+`` if it has a reducer."""
        kind = "" if self.kind is None else self.kind.__name__
        return kind if self.reducer is None else f"{kind}+"

    def prepare(self, update: Any) -> Any:
        """The update as it is recorded, with its random parts (ids of messages, say) decided."""
        if type(update).__module__ == TYPES:
            update = taken(update)
        if self.reducer is None:
            return update.value if type(update) is Overwrite else update
        if type(update) is dict and len(update) == 1 and OVERWRITE in update:
            update = Overwrite(update[OVERWRITE])
        prepare = getattr(self.reducer, "prepare", None)
        if prepare is None:
            return update
        if type(update) is Overwrite:
            return Overwrite(prepare(update.value))
        return prepare(update)

    @property
    def concatenates(self) -> bool:
        """Whether lists are appended to: the result is the same whatever is in their items."""
        return self.reducer in _CONCATENATIONS

    @functools.cached_property
    def show(self) -> Callable[[Any], Any] | None:
        """Makes what nodes and callers get of the value in the state, if that is not the same."""
        return getattr(self.reducer, "shown", None)

    def streamed(self, update: Any, recorded: Any) -> Any:
        """An update as streams show it: as returned by the node, if that differs."""
        shape = getattr(self.reducer, "streamed", None)
        if shape is None or type(recorded) is Overwrite:
            return recorded
        return shape(update, recorded)

    def reduce(self, value: Any, updates: Sequence[Any]) -> Any:
        """Fold ``updates`` into ``value`` (or ``MISSING``), in their order.

        Only the first one may be an :class:`Overwrite`.
        """
        if not updates:
            return value
        if self.reducer is None:
            return updates[-1]
        if type(updates[0]) is Overwrite:
            value, updates = updates[0].value, updates[1:]
        elif value is MISSING:
            value, updates = updates[0], updates[1:]
        try:
            return _reduce(self.reducer, value, updates)
        except Exception as error:
            error.add_note(f"while reducing updates of the state key '{self.name}'")
            raise

    def failure(self, value: Any, updates: Sequence[Any]) -> ReducerError:
        """Says which of these updates could not be reduced into ``value``."""
        for nth in range(len(updates)):
            try:
                value = self.reduce(value, [updates[nth]])
            except Exception:  # it is this one
                break
        name = getattr(self.reducer, "__qualname__", repr(self.reducer))
        kind, found = type(value).__qualname__, type(updates[nth]).__qualname__
        return ReducerError(self.name, name, kind, found, nth=nth)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identifies the code that folds this key; the same in every process that runs it."""
        if self.reducer is None:
            return "last"
        start = "none" if self.initial is None else fingerprint(self.initial)
        return f"{fingerprint(self.reducer)} from {start}"

    def merges_like(self, other: Channel) -> bool:
        """Whether both merge updates in the same way."""
        if self.reducer is None or other.reducer is None:
            return self.reducer is other.reducer
        # String annotations are evaluated anew for each schema, so that one lambda in
        # the source can be two objects.
        return self.reducer is other.reducer or (
            fingerprint(self.reducer) == fingerprint(other.reducer)
        )


def _reduce(reducer: Reducer, value: Any, updates: Sequence[Any]) -> Any:
    fold = getattr(reducer, "fold", None)
    if fold is not None:
        return fold(value, updates)
    if type(value) in (list, dict, set):
        value = value.copy()  # a reducer may change its left argument in place
    if (
        type(value) is list
        and reducer in _CONCATENATIONS
        and all(type(update) is list for update in updates)
    ):
        for update in updates:
            value.extend(update)
        return value
    with in_reducer():
        for update in updates:
            value = reducer(value, update)
    return value


def initial_values(channels: Iterable[Channel]) -> dict[str, Any]:
    """The state before any write: reducers start from their empty value, others are absent."""
    return {
        channel.name: channel.initial()
        for channel in channels
        if channel.reducer is not None and channel.initial is not None
    }


def stripped(annotation: Any) -> Any:
    """The class behind ``Required``, ``Annotated``, ``list[str]`` and the like."""
    while (origin := getattr(annotation, "__origin__", None)) is not None:
        qualifier = getattr(origin, "_name", None) in ("Required", "NotRequired", "ReadOnly")
        annotation = annotation.__args__[0] if qualifier else origin
    return annotation


def _initial(annotation: Any) -> Callable[[], Any] | None:
    kind = stripped(annotation)
    kind = _CONCRETE.get(kind, kind) if isinstance(kind, collections.abc.Hashable) else kind
    try:
        kind()
    except Exception:  # any error of a constructor: it cannot be called without arguments
        return None
    maker: Callable[[], Any] = kind
    return maker


def _takes_two(candidate: Callable[..., Any]) -> bool:
    try:
        inspect.signature(candidate).bind(None, None)
    except ValueError:  # builtins such as ``max`` publish no signature
        return not isinstance(candidate, type)
    except TypeError:
        return False
    return True


def metadata_of(annotation: Any) -> tuple[Any, ...]:
    """The metadata of ``Annotated``, also inside ``Required``, ``NotRequired`` and ``ReadOnly``."""
    while (origin := getattr(annotation, "__origin__", None)) is not None:
        if hasattr(annotation, "__metadata__"):
            return tuple(annotation.__metadata__)
        if getattr(origin, "_name", None) not in ("Required", "NotRequired", "ReadOnly"):
            return ()
        annotation = annotation.__args__[0]
    return ()


def channel_of(owner: str, name: str, annotation: Any) -> Channel:
    """The channel that an annotation declares.

    The reducer is the last item of ``Annotated`` that takes two positional arguments.
    Descriptions or a pydantic ``Field`` after it do not hide it.
    """
    metadata = metadata_of(annotation)
    for item in reversed(metadata):
        if callable(item) and _takes_two(item):
            item = taken_reducer(item)
            declared_for = getattr(item, "declared_for", None)
            item = item if declared_for is None else declared_for(annotation)
            return Channel(name, item, _initial(annotation), _kind(annotation))
    if metadata and callable(metadata[-1]):
        raise InvalidGraphError(
            f"the reducer of '{name}' in {owner} cannot be called with two arguments: "
            f"{metadata[-1]!r}; a reducer takes (current value, update) and returns the new value"
        )
    return Channel(name, kind=_kind(annotation))


def _kind(annotation: Any) -> type[Any] | None:
    kind = stripped(annotation)
    return kind if isinstance(kind, type) and kind in _BUILT_IN else None
