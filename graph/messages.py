"""Lists of messages as state: append, replace by id, remove.

Owns the reducer :data:`add_messages` and the :class:`MessagesState` that uses it. A message is a
dict or any object with an ``id`` attribute. Promises that a caller's messages are never changed
(one without an id is copied), that ids are assigned before an update is recorded, so that replay
sees the same ones, and that many updates cost one pass over the list. Dicts are recorded as dicts,
and shown as objects where the application has imported langchain-core.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import Annotated, Any, Final, NotRequired, Required, TypedDict, get_args, get_origin
from uuid import uuid4

from graph.errors import InvalidUpdateError

REMOVE_ALL_MESSAGES: Final = "__remove_all__"

# Removals are recorded as plain messages with this role, which every reader of the log knows.
_REMOVE: Final = "remove"


_OPENAI: Final = "langchain-openai"

_QUALIFIERS: Final = (Required, NotRequired)

_in_reducer: ContextVar[bool] = ContextVar("in_reducer", default=False)

_make_id: ContextVar[Callable[[], str]] = ContextVar("make_id", default=lambda: uuid4().hex)


@contextmanager
def ids_from(make: Callable[[], str]) -> Iterator[None]:
    """Within the block, messages without an id get one from ``make`` instead of a random one."""
    before = _make_id.set(make)
    try:
        yield
    finally:
        _make_id.reset(before)


@contextmanager
def in_reducer() -> Iterator[None]:
    """Within the block, which calls a reducer of the application, ids are the same in a replay."""
    before = _in_reducer.set(True)
    try:
        yield
    finally:
        _in_reducer.reset(before)


def _new_id() -> str:
    return _make_id.get()()


@dataclass(frozen=True, slots=True)
class RemoveMessage:
    """In an update: remove the message with this id from the list.

    With ``id=REMOVE_ALL_MESSAGES`` the list restarts with the messages that follow in the update.
    """

    id: str


class AddMessages:
    """The type of :data:`add_messages`.

    Args:
        format: ``"langchain-openai"``: show the messages in OpenAI's form.
        keeps_dicts: show dicts as they are recorded, also where langchain-core is imported.

    Raises:
        ValueError: an unknown format.
    """

    __name__ = "add_messages"
    fingerprint: Final = "add_messages/1"

    def __init__(self, format: str | None = None, keeps_dicts: bool = False) -> None:
        if format not in (None, _OPENAI):
            raise ValueError(f"format must be {_OPENAI!r} or None, not {format!r}")
        self._format = format
        self._keeps_dicts = keeps_dicts

    def __repr__(self) -> str:
        return "add_messages"

    def __call__(self, left: Any = None, right: Any = None, *, format: str | None = None) -> Any:
        """The messages of ``left`` after the update ``right``; neither argument is changed.

        Without arguments, or with ``format`` alone, a reducer.

        Args:
            left: a message or a list of messages.
            right: a message, a removal, or a list of them. A message whose id is in ``left``
                replaces the one there. A string is a user message; a pair is (role, content).
            format: ``"langchain-openai"`` returns the messages in OpenAI's form.
        """
        reducer = self if format is None else AddMessages(format, self._keeps_dicts)
        if left is None and right is None:
            return reducer
        if not _in_reducer.get():
            return reducer.shown(self.fold(left, (right,)))
        make = _Counted(left, right)  # a replay must give messages the same ids
        with ids_from(make):
            return reducer.shown(self.fold(left, (right,)))

    def declared_for(self, annotation: Any) -> AddMessages:
        """The reducer of a key with this annotation: one of ``list[dict]`` shows dicts."""
        while hasattr(annotation, "__metadata__") or get_origin(annotation) in _QUALIFIERS:
            annotation = get_args(annotation)[0]
        items = [get_origin(each) or each for each in get_args(annotation)]
        says_dicts = any(isinstance(each, type) and issubclass(each, dict) for each in items)
        return AddMessages(self._format, keeps_dicts=True) if says_dicts else self

    def prepare(self, update: Any) -> list[Any]:
        """The update as it is recorded: a list of messages, each with an id."""
        return [_message(item) for item in (update if isinstance(update, list) else [update])]

    def streamed(self, update: Any, recorded: list[Any]) -> Any:
        """The update as it is streamed: what the node returned, its objects with their ids."""
        given = update if isinstance(update, list) else [update]
        found = [
            message if type(raw) is type(message) is not dict else raw
            for raw, message in zip(given, recorded, strict=True)
        ]
        return found if isinstance(update, list) else found[0]

    def fold(self, left: Any, updates: Iterable[Any]) -> list[Any]:
        """Apply the updates in order, in one pass over ``left``."""
        prepared = [self.prepare(update) for update in updates]
        known = _ids(left) if isinstance(left, list) else None
        if known is None:
            left = self.prepare(left)
            known = [_id(message) for message in left]
        if _are_new(prepared, known):
            return [*left, *chain.from_iterable(prepared)]
        return _Merge(left, known).apply(prepared)

    def shown(self, messages: Any) -> Any:
        """Recorded messages as nodes and callers get them.

        Where the application has imported langchain-core, dicts become messages of its classes. The
        log keeps the dicts, so that programs without langchain-core read the same thread.
        """
        if self._keeps_dicts or not isinstance(messages, list):
            return messages
        convert = _langchain("convert_to_messages")
        if convert is None:
            return messages
        if any(issubclass(kind, Mapping) for kind in set(map(type, messages))):
            messages = [
                _as_object(convert, each) if isinstance(each, Mapping) else each
                for each in messages
            ]
        if self._format == _OPENAI:
            messages = convert(_langchain("convert_to_openai_messages")(messages))
        return messages


class _Counted:
    """Makes ids from a merge itself: equal merges of equal messages get equal ids."""

    def __init__(self, left: Any, right: Any) -> None:
        last = left[-1] if isinstance(left, list) and left else None
        self._seed = f"{getattr(last, 'id', last)}/{right!r}"
        self._count = 0

    def __call__(self) -> str:
        self._count += 1
        return sha256(f"{self._seed}/{self._count}".encode()).hexdigest()[:32]


add_messages: Final = AddMessages()
"""The reducer of a list of messages, for ``Annotated[list, add_messages]``."""


class MessagesState(TypedDict):
    """A state with a list of messages; derive from it to add keys."""

    messages: Annotated[list[Any], add_messages]


class _Merge:
    """A list of messages into which updates are merged.

    A removed message leaves a hole until the end, so that no position in ``places`` moves.
    """

    def __init__(self, messages: list[Any], ids: list[Any]) -> None:
        self.slots: list[Any] = messages.copy()
        self.places: dict[Any, int] = dict(zip(ids, range(len(ids)), strict=True))
        self.doubles: dict[Any, list[int]] = {}
        if len(self.places) < len(ids):  # a list from elsewhere may contain an id twice
            for place, key in enumerate(ids):
                if place != self.places[key]:
                    self.doubles.setdefault(key, []).append(place)

    def apply(self, updates: Iterable[Sequence[Any]]) -> list[Any]:
        for update in updates:
            self._apply(update)
        return [message for message in self.slots if message is not None]

    def _apply(self, update: Sequence[Any]) -> None:
        for index in range(len(update) - 1, -1, -1):
            if _is_removal(update[index]) and _id(update[index]) == REMOVE_ALL_MESSAGES:
                self.slots, self.places, self.doubles = [], {}, {}
                update = update[index + 1 :]
                break
        # Removed last: a message that the same update removes and adds keeps its place.
        removed: dict[Any, None] = {}
        for message in update:
            key = _id(message)
            if _is_removal(message):
                if key not in self.places:
                    raise InvalidUpdateError(
                        f"there is no message with the id '{key}' to remove; pass an id of a "
                        "message in the state"
                    )
                removed[key] = None
            elif key in self.places:
                removed.pop(key, None)
                self.slots[self.places[key]] = message
            else:
                self.places[key] = len(self.slots)
                self.slots.append(message)
        for key in removed:
            for place in [self.places.pop(key), *self.doubles.pop(key, ())]:
                self.slots[place] = None


def _are_new(updates: list[list[Any]], known: list[Any]) -> bool:
    """Whether the updates only append: the usual case, at a fraction of the cost."""
    fresh = [_id(message) for update in updates for message in update]
    keys = set(fresh)
    removes = any(_is_removal(message) for update in updates for message in update)
    return len(keys) == len(fresh) and not removes and keys.isdisjoint(known)


def _ids(messages: list[Any]) -> list[Any] | None:
    """The ids of the messages; ``None`` if a message has none."""
    kinds = set(map(type, messages))
    try:
        if kinds == {dict}:
            ids = [message["id"] for message in messages]
        elif any(issubclass(kind, Mapping) for kind in kinds):
            ids = [_id(message) for message in messages]
        else:
            ids = [message.id for message in messages]
    except (KeyError, AttributeError):
        return None
    return None if None in ids else ids


def _id(message: Any) -> Any:
    return message["id"] if isinstance(message, Mapping) else message.id


def _is_removal(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("role") == _REMOVE


def _message(item: Any) -> Any:
    """Turn an item of an update into a message with an id; ``item`` itself if it is one."""
    if item is None:
        raise InvalidUpdateError(
            "an update of messages must be a message or a list of messages, not None; leave "
            "the key out to write nothing"
        )
    if isinstance(item, str):
        return {"role": "user", "content": item, "id": _new_id()}
    if isinstance(item, RemoveMessage) or getattr(item, "type", None) == _REMOVE:
        return {"role": _REMOVE, "id": item.id}
    if isinstance(item, Mapping):
        if item.get("id") is not None:
            return item
        return {**item, "id": _new_id()}
    if hasattr(item, "id"):
        if isinstance(item, _langchain("BaseMessageChunk") or ()):
            item = _langchain("message_chunk_to_message")(item)
        return item if item.id is not None else _with_id(item)
    if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], str):
        return {"role": item[0], "content": item[1], "id": _new_id()}
    raise InvalidUpdateError(
        "a message must be a dict, an object with an id, a string or (role, content), not "
        f"{item!r:.200}"
    )


def _with_id(message: Any) -> Any:
    key = _new_id()
    if hasattr(message, "model_copy"):
        return message.model_copy(update={"id": key})
    if dataclasses.is_dataclass(message) and not isinstance(message, type):
        return dataclasses.replace(message, id=key)
    if hasattr(message, "_replace"):
        return message._replace(id=key)
    copied = copy.copy(message)
    copied.id = key
    return copied


_OBJECTS_MAX: Final = 10_000

_objects: dict[int, tuple[Mapping[str, Any], Any]] = {}
"""The objects made of dicts, by the identity of the dict, so that a list is converted once."""


def _as_object(convert: Callable[[list[Any]], list[Any]], message: Mapping[str, Any]) -> Any:
    """A recorded dict as a message of langchain-core; itself if that does not know its role."""
    found = _objects.get(id(message))
    if found is not None and found[0] is message:
        return found[1]
    try:
        (made,) = convert([dict(message)])
    except (ValueError, NotImplementedError, KeyError, TypeError):
        made = message
    if len(_objects) >= _OBJECTS_MAX:
        _objects.clear()
    _objects[id(message)] = (message, made)
    return made


def _langchain(name: str) -> Any:
    """A class or function of langchain-core, if the application has imported its messages."""
    return getattr(sys.modules.get("langchain_core.messages"), name, None)
