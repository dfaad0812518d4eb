"""How classes are taken apart into fields and put together again.

One shape for each kind of class: dataclasses, pydantic models, NamedTuples and Enums, without
running their constructors or validators, and classes that bring ``pack`` and ``unpack``. Promises
that unknown and missing fields of a stored value are named in the error.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eventstore.codec.extensions import Refused, parts
from eventstore.errors import ConfigurationError, CorruptEventError


@dataclass(frozen=True)
class Shape:
    """How one class is taken apart into ``[fields, *rest]`` and put together again."""

    take: Callable[[Any], list[Any]]
    make: Callable[[Any, list[Any], Any], Any]  # fields, rest, fields before upcasting


def _checked(name: str, fields: Any, known: Any) -> dict[str, Any]:
    if type(fields) is not dict:
        raise CorruptEventError(f"the fields of a '{name}' are not a map")
    unknown = [key for key in fields if key not in known]
    if unknown:
        raise CorruptEventError(
            f"the payload holds a '{name}' with unknown fields {unknown[:5]!r:.200}; "
            "register an upcaster that removes or renames them"
        )
    return fields


def _missing(name: str, field: str) -> CorruptEventError:
    return CorruptEventError(
        f"the payload holds a '{name}' without its field {field!r}, which has no default; "
        "register an upcaster that adds it"
    )


def _enum_shape(cls: Any) -> Shape:
    if issubclass(cls, enum.Flag):  # a combination of flags has no name of its own
        return Shape(lambda value: [value.value], lambda fields, rest, before: cls(fields))
    return Shape(lambda value: [value.name], lambda fields, rest, before: cls.__members__[fields])


def _named_tuple_shape(cls: Any, name: str) -> Shape:
    def make(fields: Any, rest: list[Any], before: Any) -> Any:
        values = {**cls._field_defaults, **_checked(name, fields, cls._fields)}
        for field in cls._fields:
            if field not in values:
                raise _missing(name, field)
        return tuple.__new__(cls, [values[field] for field in cls._fields])

    return Shape(lambda value: [dict(zip(cls._fields, value, strict=True))], make)


def _dataclass_shape(cls: Any, name: str) -> Shape:
    fields_of = {field.name: field for field in dataclasses.fields(cls)}

    def take(value: Any) -> list[Any]:
        fields = {}
        for key, field in fields_of.items():
            try:
                fields[key] = getattr(value, key)
            except AttributeError:
                if field.init or field.default is not dataclasses.MISSING:
                    raise Refused(value, f"its field {key!r} is not set") from None
        return [fields]

    def make(fields: Any, rest: list[Any], before: Any) -> Any:
        stored = _checked(name, fields, fields_of)
        value = object.__new__(cls)
        for key, field in fields_of.items():
            if key in stored:
                item = stored[key]
            elif field.default is not dataclasses.MISSING:
                item = field.default
            elif field.default_factory is not dataclasses.MISSING:
                item = field.default_factory()
            elif field.init:
                raise _missing(name, key)
            else:
                continue
            object.__setattr__(value, key, item)  # frozen classes forbid the ordinary way
        return value

    return Shape(take, make)


def _pydantic_shape(cls: Any, name: str) -> Shape:
    def take(value: Any) -> list[Any]:
        for key in cls.model_fields:
            if key not in value.__dict__:
                raise Refused(value, f"its field {key!r} is not set")
        # Only fields: __dict__ also caches computed properties.
        fields = {key: value.__dict__[key] for key in cls.model_fields}
        fields.update(value.__pydantic_extra__ or {})
        were_set = [key for key in fields if key in value.__pydantic_fields_set__]
        return [fields, were_set, value.__pydantic_private__ or None]

    def make(fields: Any, rest: list[Any], before: Any) -> Any:
        were_set, private = parts(rest, list, (dict, type(None)))
        allows_extra = cls.model_config.get("extra") == "allow"
        stored = _checked(name, fields, fields if allows_extra else cls.model_fields)
        values = {}
        for key, field in cls.model_fields.items():
            if key in stored:
                values[key] = stored[key]
            elif field.is_required():
                raise _missing(name, key)
            else:
                values[key] = _pydantic_default(field, values)
        extra = {key: item for key, item in stored.items() if key not in cls.model_fields}
        # A field that an upcaster added counts as set; one that it removed no longer does.
        added = set(stored).difference(before if isinstance(before, dict) else ())
        value = cls.__new__(cls)
        for slot, content in (
            ("__dict__", values),
            ("__pydantic_fields_set__", set(were_set).intersection(stored) | added),
            ("__pydantic_extra__", extra if allows_extra else None),
            ("__pydantic_private__", _pydantic_private(cls, private or {})),
        ):
            object.__setattr__(value, slot, content)  # as pydantic's own unpickling does
        return value

    return Shape(take, make)


def _pydantic_private(cls: Any, stored: dict[str, Any]) -> dict[str, Any] | None:
    """Private attributes, as stored or by default, without those that the class lost since."""
    if not cls.__private_attributes__:
        return None
    undefined = sys.modules["pydantic_core"].PydanticUndefined
    private = {}
    for key, attribute in cls.__private_attributes__.items():
        value = stored[key] if key in stored else attribute.get_default()
        if value is not undefined:
            private[key] = value
    return private


def _pydantic_default(field: Any, validated: dict[str, Any]) -> Any:
    if getattr(field, "default_factory_takes_validated_data", False):
        return field.get_default(call_default_factory=True, validated_data=validated)
    return field.get_default(call_default_factory=True)


def _is_pydantic(cls: type) -> bool:
    pydantic = sys.modules.get("pydantic")  # a model class exists only if pydantic was imported
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def custom_shape(pack: Callable[[Any], Any], unpack: Callable[[Any], Any]) -> Shape:
    """The shape of a class that brings its own two functions."""
    return Shape(lambda value: [pack(value)], lambda fields, rest, before: unpack(fields))


def has_shape(cls: type) -> bool:
    """Whether a class needs no functions of its own."""
    return (
        _is_pydantic(cls)
        or issubclass(cls, enum.Enum)
        or _is_named_tuple(cls)
        or dataclasses.is_dataclass(cls)
    )


def shape_of(cls: type, name: str) -> Shape:
    """The shape of a class, from its fields.

    Raises:
        ConfigurationError: it has no such fields, or cannot be rebuilt from them.
    """
    if _is_pydantic(cls):
        return _pydantic_shape(cls, name)
    if issubclass(cls, enum.Enum):
        return _enum_shape(cls)
    if _is_named_tuple(cls):
        return _named_tuple_shape(cls, name)
    if dataclasses.is_dataclass(cls):
        try:
            object.__new__(cls)
        except TypeError as exc:
            raise ConfigurationError(
                f"{cls.__qualname__} is a dataclass that cannot be rebuilt from its fields alone "
                f"({exc}); register it with pack= and unpack="
            ) from exc
        return _dataclass_shape(cls, name)
    raise ConfigurationError(
        f"{cls.__qualname__} is not an Enum, dataclass, NamedTuple or pydantic model; "
        "register it with pack= and unpack="
    )
