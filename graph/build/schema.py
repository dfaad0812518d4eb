"""State classes: which keys a state has, and how it becomes arguments of nodes.

Owns the reading of state schemas (``TypedDict``, dataclass, pydantic model), and the conversion of
the state into a node's argument (:meth:`StateSchema.coerce`) and of its result into writes
(:meth:`StateSchema.to_writes`). Promises that an update that does not fit raises an
``InvalidUpdateError`` that names the key.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, get_origin, get_type_hints

from graph.build.channels import Channel, channel_of, metadata_of, stripped
from graph.build.foreign import refuse_foreign
from graph.errors import (
    InvalidGraphError,
    InvalidUpdateError,
    StateMismatchError,
)
from graph.types import Managed

ROOT: Final = "__root__"
"""The only key of a state of a bare type (``StateGraph(dict)``): its value is the whole state."""


def shown(values: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """The values of these keys as callers see them: the value itself for a state of a bare type."""
    if ROOT in keys:
        return own(values.get(ROOT))
    return {key: own(values[key]) for key in keys if key in values}


def own(value: Any) -> Any:
    """A shallow copy of a list, dict or set, so that its receiver may change it."""
    return value.copy() if type(value) in (list, dict, set) else value


def _is_bare(declared: Any) -> bool:
    """Whether a state is of this type as a whole: ``dict``, ``list[str]``, ``Annotated[…]``."""
    kind = stripped(declared)
    return isinstance(kind, type) and not getattr(kind, "__annotations__", None)


def _pydantic(name: str) -> Any:
    """A class of pydantic if the program has imported it; else ``()``, which matches nothing."""
    return getattr(sys.modules.get("pydantic"), name, ())


def _is_typed_dict(cls: type[Any]) -> bool:
    # typing.is_typeddict does not know the TypedDict of typing_extensions.
    return issubclass(cls, dict) and hasattr(cls, "__total__")


def is_schema(candidate: Any) -> bool:
    """Whether this is a class that can declare a state."""
    cls = get_origin(candidate) or candidate
    return isinstance(cls, type) and (
        _is_typed_dict(cls)
        or dataclasses.is_dataclass(cls)
        or issubclass(cls, _pydantic("BaseModel"))
    )


AliasPath = tuple[str | int, ...]
"""The path to a field in the input of pydantic: a key, then the path inside its value."""


def _alias_path(alias: Any) -> AliasPath:
    """The path to a field by its alias; of several choices the first, which pydantic prefers."""
    if isinstance(alias, str):
        return (alias,)
    choices = getattr(alias, "choices", None)
    return _alias_path(choices[0]) if choices is not None else tuple(alias.path)


def _by_alias(values: Mapping[str, Any], paths: Mapping[str, AliasPath]) -> dict[str, Any]:
    """The values under the aliases that pydantic expects: nested where an alias is a path.

    pydantic looks up an index in a path with ``[…]``, so a dict with integer keys stands in for a
    list.
    """
    nested: dict[str | int, Any] = {}
    flat: dict[str | int, Any] = {}
    for name, value in values.items():
        *way, last = paths.get(name, (name,))
        place = nested if way else flat
        for step in way:
            place = place.setdefault(step, {})
        place[last] = value
    return {str(key): value for key, value in {**nested, **flat}.items()}


remaining_steps: Final[ContextVar[int]] = ContextVar("remaining_steps", default=0)
"""The supersteps that the run of the current task may take after this one."""


def _managed(annotation: Any) -> Managed | None:
    """The value that the runtime fills in under a key; ``None``: the key is one of the state."""
    for item in metadata_of(annotation):
        if isinstance(item, Managed):
            return item
        if getattr(item, "__module__", "").startswith("langgraph.managed"):
            return Managed.IS_LAST_STEP if "IsLast" in item.__name__ else Managed.REMAINING_STEPS
    return None


@dataclass(frozen=True, eq=False)
class StateSchema:
    """A class that declares state keys, read once.

    Attributes:
        cls: the class as declared.
        keys: its state keys in order of declaration.
        channels: how each key merges updates.
        annotations: the type of each key, as declared.
        managed: the keys that the runtime fills in.
    """

    cls: type[Any]
    channels: dict[str, Channel]
    annotations: dict[str, Any]
    keys: tuple[str, ...]
    _required: tuple[str, ...] = field(default=(), repr=False)
    _aliases: dict[str, AliasPath] = field(default_factory=dict, repr=False)
    managed: dict[str, Managed] = field(default_factory=dict)

    @classmethod
    def of(cls, declared: Any) -> StateSchema:
        """Read a ``TypedDict``, dataclass or pydantic model class, or a bare type."""
        schema = get_origin(declared) or declared
        if not is_schema(schema) and _is_bare(declared):
            root = channel_of("the state", ROOT, declared)
            return cls(stripped(declared), {ROOT: root}, {ROOT: declared}, (ROOT,))
        if not is_schema(schema):
            raise InvalidGraphError(
                f"{declared!r} cannot declare a state; use a class derived from TypedDict, "
                "a dataclass, a pydantic BaseModel, or a type such as dict or Annotated[list, add]"
            )
        required: tuple[str, ...] = ()
        aliases: dict[str, AliasPath] = {}
        if issubclass(schema, _pydantic("BaseModel")):
            fields = schema.model_fields
            annotations = {
                name: Annotated[(info.annotation, *info.metadata)]
                if info.metadata
                else info.annotation
                for name, info in fields.items()
            }
            by_name = ("populate_by_name", "validate_by_name")
            if not any(schema.model_config.get(option) for option in by_name):
                aliases = {
                    name: _alias_path(info.validation_alias)
                    for name, info in fields.items()
                    if info.validation_alias is not None
                }
        else:
            try:
                annotations = get_type_hints(schema, include_extras=True)
            except NameError as error:
                raise InvalidGraphError(
                    f"an annotation of {schema.__qualname__} uses an unknown name: {error}; "
                    "define or import it at the top level of the module"
                ) from error
            if dataclasses.is_dataclass(schema):
                settable = [entry for entry in dataclasses.fields(schema) if entry.init]
                annotations = {entry.name: annotations[entry.name] for entry in settable}
                required = tuple(
                    entry.name
                    for entry in settable
                    if entry.default is dataclasses.MISSING
                    and entry.default_factory is dataclasses.MISSING
                )
        found = {name: _managed(annotation) for name, annotation in annotations.items()}
        managed = {name: each for name, each in found.items() if each is not None}
        annotations = {name: each for name, each in annotations.items() if name not in managed}
        required = tuple(name for name in required if name not in managed)
        channels = {
            name: channel_of(schema.__qualname__, name, annotation)
            for name, annotation in annotations.items()
        }
        return cls(schema, channels, annotations, tuple(channels), required, aliases, managed)

    def coerce(self, values: Mapping[str, Any]) -> Any:
        """The argument of a node of this schema: a dict of the keys present, or an instance.

        Raises:
            StateMismatchError: a value that a dataclass requires is missing.
            pydantic.ValidationError: the values do not fit a pydantic model.
        """
        if ROOT in self.channels:
            return values.get(ROOT)
        known = {key: values[key] for key in self.keys if key in values}
        for name, kind in self.managed.items():
            known[name] = kind.value_of(remaining_steps.get())
        if issubclass(self.cls, dict):
            return known
        for key in self._required:
            if key not in known:
                raise StateMismatchError(
                    f"the state has no value for '{key}', which {self.cls.__qualname__} requires; "
                    "pass it in the input, write it in an earlier node, or give it a default"
                )
        try:
            if self._aliases:
                known = _by_alias(known, self._aliases)
            return self.cls(**known)
        except _pydantic("ValidationError") as error:
            error.add_note(
                f"while making the argument of a node, of the class {self.cls.__qualname__}"
            )
            raise

    def to_writes(self, value: Any, *, defaults: bool = False) -> list[tuple[str, Any]]:
        """The (key, update) pairs in what a node returned or a caller passed as input."""
        return to_writes(value, self.channels, defaults=defaults)


def to_writes(
    value: Any, known: Collection[str], *, defaults: bool = False
) -> list[tuple[str, Any]]:
    """The (key, update) pairs of an update; only keys in ``known`` are allowed.

    A dataclass writes all its fields. A pydantic model writes the fields that were set, and those
    that no longer have their default value because they were changed in place.

    Args:
        defaults: write all fields of a pydantic model, defaults included, but not those that are
            ``None`` by default. An input is the first state of a run, so its defaults count.
    """
    if value is None:
        return []
    if ROOT in known:
        return [(ROOT, value)]
    if isinstance(value, Mapping):
        writes = list(value.items())
    elif isinstance(value, _pydantic("BaseModel")):
        writes = _model_writes(value, defaults)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        refuse_foreign(value)
        writes = [
            (entry.name, getattr(value, entry.name))
            for entry in dataclasses.fields(value)
            if entry.init
        ]
    else:
        raise InvalidUpdateError(
            "an update must be a dict of state keys, an instance of the state class, None, or in a "
            f"Command a list of (key, value) pairs, not {type(value).__qualname__}: {value!r:.200}"
        )
    for key, _ in writes:
        if key not in known:
            raise InvalidUpdateError(
                f"'{key}' is not a key of the state; its keys are: {', '.join(known)}; "
                "declare it in the state schema, or leave it out of the update"
            )
    return writes


def _model_writes(model: Any, defaults: bool) -> list[tuple[str, Any]]:
    written = model.model_fields_set
    writes = []
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        is_unset = name not in written and value is None and info.default is None
        if defaults and is_unset:
            continue
        if defaults or name in written or not _is_default(info, value):
            writes.append((name, value))
    return [*writes, *(model.model_extra or {}).items()]


def _is_default(info: Any, value: Any) -> bool:
    if info.default_factory is None:
        return value is info.default or bool(value == info.default)
    try:
        return bool(value == info.default_factory())
    except TypeError:  # the factory takes the other fields: unknown, so keep the value
        return False
