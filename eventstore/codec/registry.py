"""Application types: which classes a payload may hold, under which stable name and version.

A class is stored as ``[name, version, fields, …]``, never by import path, and comes back only
where the reader registered that name. Upcasters lift the fields of older versions step by
step. Dataclasses, pydantic models, NamedTuples and Enums are taken apart and put together
without running their constructors or validators; any other class brings ``pack`` and
``unpack``. Errors of the application's own functions become errors of the payload.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import enum
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eventstore.codec.extensions import (
    BY_TYPE,
    REGISTERED_CODE,
    Extension,
    Opaque,
    Pack,
    Refused,
    parts,
)
from eventstore.errors import ConfigurationError, CorruptEventError, UnregisteredTypeError

Upcaster = Callable[[Any], Any]

_NATIVE = {str, int, float, bool, bytes, bytearray, memoryview, list, dict, type(None), object}


@dataclass(frozen=True)
class Shape:
    """How one class is taken apart into ``[fields, *rest]`` and put together again."""

    take: Callable[[Any], list[Any]]
    make: Callable[[Any, list[Any], Any], Any]  # fields, rest, fields before upcasting


@dataclass(frozen=True)
class Registration:
    cls: type
    name: str
    version: int
    upcasters: Mapping[int, Upcaster]
    pack: Callable[[Any], Any] | None
    unpack: Callable[[Any], Any] | None


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


def _custom_shape(pack: Callable[[Any], Any], unpack: Callable[[Any], Any]) -> Shape:
    return Shape(lambda value: [pack(value)], lambda fields, rest, before: unpack(fields))


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
        # Only fields: __dict__ also caches what the class computes.
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
        # What an upcaster added counts as set; what it removed no longer does.
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
    """Private attributes: as stored or by default; those that the class lost are not missed."""
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


def _shape_of(asked: Registration) -> Shape:
    cls, name = asked.cls, asked.name
    if asked.pack is not None and asked.unpack is not None:
        return _custom_shape(asked.pack, asked.unpack)
    pydantic = sys.modules.get("pydantic")  # whoever has a model class has loaded pydantic
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        return _pydantic_shape(cls, name)
    if issubclass(cls, enum.Enum):
        return _enum_shape(cls)
    if issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
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
        f"{cls.__qualname__} is no Enum, dataclass, NamedTuple or pydantic model; "
        "register it with pack= and unpack="
    )


def _place(cls: type) -> tuple[str, str]:
    """Where a class is defined: one that is defined there anew takes the place of the other."""
    return cls.__module__, cls.__qualname__


class TypeRegistry:
    """The application types of one codec. Registering is locked, looking up needs no lock.

    Attributes:
        opaque: what cannot be rebuilt for want of its type is given as :class:`Opaque`.
        unknown: names and versions of such types that were met so far.
    """

    def __init__(self, opaque: bool = False) -> None:
        self.opaque = opaque
        self.unknown: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        self._by_type: dict[type, Registration] = {}
        self._by_name: dict[str, tuple[Registration, Shape]] = {}
        self.extensions: dict[type, Extension] = dict(BY_TYPE)
        self._sources: dict[Hashable, Callable[[], Iterable[type]]] = {}

    def __contains__(self, cls: type) -> bool:
        return cls in self._by_type

    def register(self, asked: Registration) -> None:
        cls, name = asked.cls, asked.name
        if not isinstance(cls, type):
            raise ConfigurationError(f"only classes can be registered, not {cls!r:.100}")
        if cls in BY_TYPE or cls in _NATIVE:
            raise ConfigurationError(f"{cls.__qualname__} is stored as it is; do not register it")
        if type(asked.version) is not int or asked.version < 1:
            raise ConfigurationError(f"version of {name!r} must be a whole number from 1 on")
        if not isinstance(name, str) or not 0 < len(name) <= 200:
            raise ConfigurationError("a registered name must have 1 to 200 characters")
        if any(type(v) is not int or not 1 <= v < asked.version for v in asked.upcasters):
            raise ConfigurationError(
                f"upcasters of {name!r} must start from versions 1 to {asked.version - 1}"
            )
        if (asked.pack is None) != (asked.unpack is None):
            raise ConfigurationError(f"{name!r} needs both pack= and unpack=, or neither")
        with self._lock:
            if self._by_type.get(cls) == asked:
                return
            if cls in self._by_type:
                raise ConfigurationError(
                    f"{cls.__qualname__} is already registered, in another way, "
                    f"as {self._by_type[cls].name!r}"
                )
            other = self._by_name[name][0].cls if name in self._by_name else cls
            if _place(other) != _place(cls):
                raise ConfigurationError(
                    f"the name {name!r} already belongs to {other.__module__}."
                    f"{other.__qualname__}; register {cls.__qualname__} under another name="
                )
            shape = _shape_of(asked)
            self._by_type[cls] = asked
            self._by_name[name] = (asked, shape)
            self.extensions[cls] = self._extension(asked, shape)

    def add_source(self, key: Hashable, classes: Callable[[], Iterable[type]]) -> None:
        """Ask for more classes when one is met that is not registered; the last source of a key
        counts.
        """
        with self._lock:
            self._sources[key] = classes

    def discover(self) -> None:
        """Register what the sources have come to know since they were asked last.

        A class whose name is taken stays unknown: which of the two a payload means could not be
        told apart.
        """
        for classes in list(self._sources.values()):
            for cls in classes():
                if cls not in self._by_type:
                    with contextlib.suppress(ConfigurationError):
                        self.register(Registration(cls, cls.__name__, 1, {}, None, None))

    def _extension(self, asked: Registration, shape: Shape) -> Extension:
        def encode(value: Any, pack: Pack) -> list[Any]:
            try:
                return [asked.name, asked.version, *shape.take(value)]
            except Refused:
                raise
            except Exception as exc:  # the application's own code
                reason = f"taking it apart raised {type(exc).__name__}"
                raise Refused(value, reason) from exc

        return Extension(REGISTERED_CODE, (asked.cls,), encode, self.decode, lead=1)

    def decode(self, state: Any) -> Any:
        if type(state) is not list or len(state) < 3:
            raise CorruptEventError("a registered type without name, version and fields")
        name, version, fields, *rest = state
        if type(name) is not str or type(version) is not int or version < 1:
            raise CorruptEventError("a registered type without a name and a version")
        if not self.opaque:
            return self._rebuild(name, version, fields, rest)
        try:
            return self._rebuild(name, version, copy.copy(fields), rest)
        except UnregisteredTypeError as error:
            return self.as_opaque(error, fields, tuple(rest))

    def as_opaque(self, error: UnregisteredTypeError, fields: Any, rest: tuple[Any, ...]) -> Opaque:
        """What stands for a value whose type is not known."""
        self.unknown.add((error.type_name, error.version))
        return Opaque(error.type_name, error.version, fields, rest)

    def _rebuild(self, name: str, version: int, before: Any, rest: list[Any]) -> Any:
        if name not in self._by_name:
            self.discover()
        known = self._by_name.get(name)
        if known is None:
            raise UnregisteredTypeError(name, version)
        asked, shape = known
        if version > asked.version:
            raise UnregisteredTypeError(
                name,
                version,
                f"the payload holds '{name}/{version}', which is newer than the registered "
                f"'{name}/{asked.version}'; upgrade the application before reading",
            )
        fields = before
        before = dict(before) if isinstance(before, dict) else before
        try:
            for step in range(version, asked.version):
                upcast = asked.upcasters.get(step)
                if upcast is None:
                    raise UnregisteredTypeError(
                        name,
                        version,
                        f"the payload holds '{name}/{version}' and '{name}/{asked.version}' is "
                        f"registered without an upcaster from version {step}; add upcasters="
                        f"{{{step}: …}}",
                    )
                fields = upcast(fields)
            return shape.make(fields, rest, before)
        except CorruptEventError:
            raise
        except Exception as exc:  # the application's own code
            raise CorruptEventError(
                f"rebuilding a '{name}/{version}' raised {type(exc).__name__}"
            ) from exc
