"""Value <-> payload: the codec that an application configures.

Joins msgpack (:mod:`~eventstore.codec.packing`), the application's types
(:mod:`~eventstore.codec.registry`) and compression (:mod:`~eventstore.codec.compression`).
Promises that ``encode`` raises ``SerializationError`` before anything is written and never
returns what ``decode`` refuses; that ``decode`` answers any bytes with the value or a
``CorruptEventError``; that equal values, in the same order, give equal bytes in every process;
and that many threads may share one codec.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar, overload

from eventstore.codec.compression import DECODE_ERRORS, Compression, undecodable
from eventstore.codec.extensions import Refused
from eventstore.codec.packing import BodyPacker, path_text
from eventstore.codec.registry import Registration, TypeRegistry, Upcaster
from eventstore.errors import SerializationError

_Class = TypeVar("_Class", bound=type[Any])


class _Packers(threading.local):
    """The packer of one thread; no two threads may share it."""

    def __init__(self, types: TypeRegistry) -> None:
        self.packer = BodyPacker(types)


class Codec(Compression):
    """Encodes values to payloads and decodes them; knows the application's types.

    Args:
        compress: whether to compress payloads at all.
        level: of compression, as zstd counts.
        max_decoded_bytes: values that take more are neither stored nor read.
        dictionaries: zstd dictionaries by their ids; small payloads are compressed with the last.
        opaque_types: read values of types that are not registered as :class:`Opaque`, instead
            of raising ``UnregisteredTypeError``: for tools, which know no application.
    """

    def __init__(
        self,
        *,
        compress: bool = True,
        level: int = 5,
        max_decoded_bytes: int = 256 * 2**20,
        dictionaries: Mapping[int, bytes] | None = None,
        opaque_types: bool = False,
    ) -> None:
        super().__init__(
            compress=compress,
            level=level,
            max_decoded_bytes=max_decoded_bytes,
            dictionaries=dictionaries,
        )
        self._types = TypeRegistry(opaque_types)
        self._packers = _Packers(self._types)

    @overload
    def register(
        self,
        cls: _Class,
        *,
        name: str | None = None,
        version: int = 1,
        upcasters: Mapping[int, Upcaster] | None = None,
        pack: Callable[[Any], Any] | None = None,
        unpack: Callable[[Any], Any] | None = None,
    ) -> _Class: ...

    @overload
    def register(
        self,
        cls: None = None,
        *,
        name: str | None = None,
        version: int = 1,
        upcasters: Mapping[int, Upcaster] | None = None,
        pack: Callable[[Any], Any] | None = None,
        unpack: Callable[[Any], Any] | None = None,
    ) -> Callable[[_Class], _Class]: ...

    def register(
        self,
        cls: Any = None,
        *,
        name: str | None = None,
        version: int = 1,
        upcasters: Mapping[int, Upcaster] | None = None,
        pack: Callable[[Any], Any] | None = None,
        unpack: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Let payloads hold instances of ``cls``, under a stable name. Also a decorator."""

        def add(cls: Any) -> Any:
            stable = name if name is not None else getattr(cls, "__name__", "")
            steps = dict(upcasters or {})
            self._types.register(Registration(cls, stable, version, steps, pack, unpack))
            return cls

        return add if cls is None else add(cls)

    def is_registered(self, cls: type) -> bool:
        """Whether payloads may hold instances of this class."""
        return cls in self._types

    def register_later(self, key: Hashable, classes: Callable[[], Iterable[type]]) -> None:
        """Register more classes, under their own names, when one of them is needed.

        Args:
            key: names the function; another one under the same key replaces it.
            classes: called for each class or name that is not registered. It must not import
                anything: classes that are not loaded have no instances.
        """
        self._types.add_source(key, classes)

    @property
    def unknown_types(self) -> list[str]:
        """Types that were read as :class:`Opaque` so far, as ``name/version``."""
        return [f"{name}/{version}" for name, version in sorted(self._types.unknown)]

    def encode(self, value: Any, level: int | None = None) -> bytes:
        """The payload of ``value``. ``level`` is for bodies that are worth the time."""
        return self.compressed(self.pack(value), level)

    def pack(self, value: Any, own: bool = False) -> bytes:
        """The body of a payload, before compression.

        Args:
            own: only this process will unpack it, with ``own``; it is never stored.

        Raises:
            SerializationError: the value cannot be stored.
        """
        try:
            packer = self._packers.packer
            body = packer.pack_own(value) if own else packer.pack(value)
        except Refused as refused:
            raise SerializationError(
                path_text(refused.path), refused.type_name, refused.reason
            ) from (refused.__cause__ or refused)
        size = len(body)
        if size > self.max_decoded_bytes:
            raise SerializationError(
                "",
                type(value).__qualname__,
                f"it takes {size} bytes, more than max_decoded_bytes={self.max_decoded_bytes}",
            )
        return body

    def decode(self, payload: bytes) -> Any:
        """The value of ``payload``, or a ``CorruptEventError``."""
        return self.unpack(self.body(payload))

    def decode_for_own(self, payload: bytes) -> tuple[Any, bytes]:
        """The value of a payload, and a body of it that :meth:`unpack` reads with ``own``.

        Reading the body takes a fraction of the time.
        """
        body = self.body(payload)
        try:
            return self._packers.packer.unpack_for_own(body)
        except DECODE_ERRORS as exc:
            raise undecodable(exc) from exc

    def unpack(self, body: bytes, own: bool = False) -> Any:
        """The value that a body holds, or a ``CorruptEventError``.

        Args:
            own: this process packed it, so that it is believed.
        """
        try:
            packer = self._packers.packer
            return packer.unpack_own(body) if own else packer.unpack(body)
        except DECODE_ERRORS as exc:
            raise undecodable(exc) from exc
