"""Application types: which classes a payload may hold, under which stable name and version.

A class is stored as ``[name, version, fields, …]``, never by import path, and comes back only
where the reader registered that name. Upcasters lift the fields of older versions step by
step. Promises that a name means one class, and that errors of the application's own functions
become errors of the payload.
"""

from __future__ import annotations

import contextlib
import copy
import io
import threading
import types
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
)
from eventstore.codec.shapes import Shape, custom_shape, has_shape, shape_of
from eventstore.errors import ConfigurationError, CorruptEventError, UnregisteredTypeError

Upcaster = Callable[[Any], Any]

_NATIVE = {str, int, float, bool, bytes, bytearray, memoryview, list, dict, type(None), object}


@dataclass(frozen=True)
class Registration:
    """A class of the application and how it is stored."""

    cls: type
    name: str
    version: int
    upcasters: Mapping[int, Upcaster]
    pack: Callable[[Any], Any] | None
    unpack: Callable[[Any], Any] | None


def _shape_of(given: Registration) -> Shape:
    if given.pack is not None and given.unpack is not None:
        return custom_shape(given.pack, given.unpack)
    return shape_of(given.cls, given.name)


def _place(cls: type) -> tuple[str, str]:
    """Where a class is defined. A class defined anew in the same place replaces the older one."""
    return cls.__module__, cls.__qualname__


# --- values that are refused -------------------------------------------------------------

_ONLY_IN_PROCESS = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
    type,
    io.IOBase,
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Condition,
    threading.Event,
    threading.Semaphore,
    threading.Thread,
)


def why_refused(value: Any) -> str:
    """Why a value that is neither built in nor of a registered class cannot be stored, and what
    to do about it.
    """
    cls = type(value)
    if cls is Opaque:
        return (
            f"it was read without its class; register the class of '{value.name}' with this codec "
            "and read it again"
        )
    if isinstance(value, _ONLY_IN_PROCESS):
        return (
            "it exists only in this process and cannot be registered; store the data that it is "
            "made from, and make it again where it is used"
        )
    name = cls.__name__
    annotate, how = "", ", pack=…, unpack=…"
    if has_shape(cls):
        annotate, how = (
            f"name it in the annotations of a graph's state, as in list[{name}], or ",
            "",
        )
    return (
        f"its class is not registered; {annotate}call codec.register({name}, "
        f"name={name.lower()!r}{how}) on a Codec, and open the store with that codec: "
        "EventStore(path, codec=codec), SqliteSaver(path, codec=codec)"
    )


class TypeRegistry:
    """The application types of one codec. Registering is locked, looking up needs no lock.

    Attributes:
        opaque: whether values of unknown types are read as :class:`Opaque`.
        unknown: names and versions of such types read so far.
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

    def register(self, new: Registration) -> None:
        """Add a class; adding it again in the same way changes nothing.

        Raises:
            ConfigurationError: it cannot be stored like this, or its name or class is taken.
        """
        cls, name = new.cls, new.name
        if not isinstance(cls, type):
            raise ConfigurationError(f"only classes can be registered, not {cls!r:.100}")
        if cls in BY_TYPE or cls in _NATIVE:
            raise ConfigurationError(
                f"{cls.__qualname__} is a built-in type of the codec; do not register it"
            )
        if type(new.version) is not int or new.version < 1:
            raise ConfigurationError(
                f"version of {name!r} must be a whole number of at least 1, not {new.version!r}"
            )
        if not isinstance(name, str) or not 0 < len(name) <= 200:
            raise ConfigurationError("a registered name must have 1 to 200 characters")
        if any(type(v) is not int or not 1 <= v < new.version for v in new.upcasters):
            raise ConfigurationError(
                f"upcasters of {name!r} must start from versions 1 to {new.version - 1}"
            )
        if (new.pack is None) != (new.unpack is None):
            raise ConfigurationError(f"{name!r} needs both pack= and unpack=, or neither")
        with self._lock:
            if self._by_type.get(cls) == new:
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
            shape = _shape_of(new)
            self._by_type[cls] = new
            self._by_name[name] = (new, shape)
            self.extensions[cls] = self._extension(new, shape)

    def add_source(self, key: Hashable, classes: Callable[[], Iterable[type]]) -> None:
        """Add a function that gives more classes, in place of an older one under the same key."""
        with self._lock:
            self._sources[key] = classes

    def discover(self) -> None:
        """Register the classes that the sources give and that are not registered yet.

        A class whose name is taken stays unregistered: payloads could mean either of the two.
        """
        for classes in list(self._sources.values()):
            for cls in classes():
                if cls not in self._by_type:
                    with contextlib.suppress(ConfigurationError):
                        self.register(Registration(cls, cls.__name__, 1, {}, None, None))

    def _extension(self, known: Registration, shape: Shape) -> Extension:
        def encode(value: Any, pack: Pack) -> list[Any]:
            try:
                return [known.name, known.version, *shape.take(value)]
            except Refused:
                raise
            except Exception as exc:  # the application's own code
                reason = f"taking it apart raised {type(exc).__name__}"
                raise Refused(value, reason) from exc

        return Extension(REGISTERED_CODE, (known.cls,), encode, self.decode, lead=1)

    def decode(self, state: Any) -> Any:
        """The value of a registered type that was stored as ``[name, version, fields, …]``."""
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
        """The stand-in for a value whose type is unknown."""
        self.unknown.add((error.type_name, error.version))
        return Opaque(error.type_name, error.version, fields, rest)

    def _rebuild(self, name: str, version: int, before: Any, rest: list[Any]) -> Any:
        if name not in self._by_name:
            self.discover()
        found = self._by_name.get(name)
        if found is None:
            raise UnregisteredTypeError(name, version)
        known, shape = found
        if version > known.version:
            raise UnregisteredTypeError(
                name,
                version,
                f"the payload holds '{name}/{version}', which is newer than the registered "
                f"'{name}/{known.version}'; upgrade the application before reading",
            )
        fields = before
        before = dict(before) if isinstance(before, dict) else before
        try:
            for step in range(version, known.version):
                upcast = known.upcasters.get(step)
                if upcast is None:
                    raise UnregisteredTypeError(
                        name,
                        version,
                        f"the payload holds '{name}/{version}' and '{name}/{known.version}' is "
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
