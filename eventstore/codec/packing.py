"""Values to msgpack bodies and back, for one thread.

Owns the nesting bounds, which writing and reading share, the stack of msgpack packers, the paths
in error messages, and the quicker form of bodies that never leave the process. Raises ``Refused``
when writing; when reading, the errors of msgpack pass through, for the codec to translate. Promises
that values without extension types are packed and unpacked by msgpack alone, without a step of
Python per item.
"""

from __future__ import annotations

import gc
import marshal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgpack

from eventstore.codec.extensions import (
    BY_CODE,
    BYTEARRAY_CODE,
    REGISTERED_CODE,
    Refused,
    numpy_extension,
)
from eventstore.codec.registry import TypeRegistry, why_refused
from eventstore.errors import CorruptEventError, UnregisteredTypeError

# Tuples, sets and registered types inside one another. Each level is a call in C, whose
# stack must not overflow: 32 levels need about 1.5 MB when reading.
EXTENSION_DEPTH_MAX = 32
# Lists and dicts inside one another: msgpack's own bound (at most 1024) guards the outer two
# levels of extensions; further levels multiply, so they have this bound.
INNER_DEPTH_MAX = 32
_UNCHECKED_LEVELS = 2

# How a marshalled body begins: no value of msgpack does.
_MARSHALLED = b"\xc1"
# What msgpack packs is nested no deeper than this; nor is what is marshalled.
_LEVELS_MAX = 512

_KEPT_BUFFER_BYTES = 2**20
_CLAIMABLE_MAX = 32 * 2**20
# Lists in a body of this size cannot claim much more than that.
_SMALL_BODY_BYTES = 4096
_PATH_STEPS_MAX = 24
_CONTAINERS = frozenset((list, dict))
_CARE = frozenset((bytearray, msgpack.ExtType))
_PLAIN_TYPES = frozenset((type(None), bool, int, float, str, bytes, list, dict))

# Subclasses of these are stored as what they are underneath, unless they are registered: the
# methods of the base, since a subclass may have others.
_PLAIN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (list, lambda value: list.__getitem__(value, slice(None))),
    (dict, dict.copy),
)


class BodyPacker:
    """Packs and unpacks bodies; belongs to one thread. May be re-entered by user functions."""

    def __init__(self, types: TypeRegistry) -> None:
        self._types = types
        self._level = 0
        self._reading_level = 0
        self._extensions_read = 0
        # Whether code ran while msgpack packed, which could change what it packs.
        self._ran_code = False
        # A msgpack.Packer that is entered again while busy writes garbage and reports nothing, so
        # every level of nesting has its own.
        self._packers: list[msgpack.Packer] = []
        # Types that no source knows, and that are stored as the built-in type beneath them.
        self._plain: set[type] = set()

    def _packer(self, unicode_errors: str | None = None) -> msgpack.Packer:
        return msgpack.Packer(
            default=self._default,
            strict_types=True,
            unicode_errors=unicode_errors,
            buf_size=4096 if self._packers else 65536,
        )

    def pack(self, value: Any) -> bytes:
        level = self._level
        if level >= EXTENSION_DEPTH_MAX:
            raise Refused(value, "values are nested too deeply, or contain themselves")
        if level >= _UNCHECKED_LEVELS and _depth_exceeds(value, INNER_DEPTH_MAX):
            raise Refused(value, "values are nested too deeply, or contain themselves")
        if level == len(self._packers):
            self._packers.append(self._packer())
        self._level = level + 1
        if level == 0:
            self._ran_code = False
        try:
            body = self._pack(self._packers[level], value)
            if _may_hold_bin_or_ext(body):
                if _needs_care(value):
                    body = self._pack(self._packers[level], _replaced(value))
                if self._ran_code and _structure_end(body) != len(body):
                    # msgpack writes a list's length first; then an extension's code, or another
                    # thread, made the list longer or shorter.
                    raise Refused(value, "it was changed while being stored")
        except Refused as refused:
            refused.path[:0] = _path_to(value, refused.culprit)
            raise
        finally:
            self._level = level
        if len(body) > _KEPT_BUFFER_BYTES:  # a packer never gives its buffer back
            self._packers[level] = self._packer()
        return body

    def pack_own(self, value: Any) -> bytes:
        """A body that only this process will unpack. Plain values are marshalled, which takes a
        fraction of the time.
        """
        if _is_plain(value):
            with suppress(ValueError):  # nested deeper than marshal goes
                return _MARSHALLED + marshal.dumps(value)
        return self.pack(value)

    def _pack(self, packer: msgpack.Packer, value: Any) -> bytes:
        try:
            body: bytes = packer.pack(value)
        except UnicodeEncodeError:
            # Lone surrogates. Allowing them always would cost every string (60 % more time).
            body = self._packer("surrogatepass").pack(value)
        except BufferError as exc:
            raise Refused(value, "it holds a memoryview that is not contiguous") from exc
        except RecursionError as exc:
            raise Refused(value, "values are nested too deeply") from exc
        except RuntimeError as exc:
            raise Refused(value, f"it was changed while being stored ({exc})") from exc
        except (ValueError, OverflowError) as exc:
            cycle = _cycle(value)
            if cycle is None:
                raise Refused(value, f"it is nested too deeply or too large ({exc})") from exc
            raise cycle from exc
        return body

    def _default(self, value: Any) -> Any:
        self._ran_code = True
        extension = self._types.extensions.get(type(value)) or numpy_extension(value)
        if extension is None and type(value) not in self._plain:
            self._types.discover()  # it asks every source: once for each type
            extension = self._types.extensions.get(type(value))
        if extension is None:
            for base, plain in _PLAIN:
                if isinstance(value, base):
                    self._plain.add(type(value))
                    found = plain(value)
                    # msgpack asks once for each value: what it cannot write needs its code now.
                    is_large = type(found) is int and not -(2**63) <= found < 2**64
                    return self._default(found) if is_large else found
            raise Refused(value, why_refused(value))
        try:
            state = extension.encode(value, self.pack)
            data = state if type(state) is bytes else self.pack(state)
        except Refused as refused:
            del refused.path[: extension.lead]
            refused.culprit = value
            raise
        return msgpack.ExtType(extension.code, data)

    def unpack_own(self, body: bytes) -> Any:
        """The value of a body that this process packed, so that it is believed."""
        if body.startswith(_MARSHALLED):
            return marshal.loads(memoryview(body)[1:])
        return msgpack.unpackb(
            body, ext_hook=self._extend, strict_map_key=False, unicode_errors="surrogatepass"
        )

    def unpack_for_own(self, body: bytes) -> tuple[Any, bytes]:
        """The value of a body, and a body of it that only this process will unpack."""
        before = self._extensions_read
        value = self.unpack(body)
        if self._extensions_read == before:  # so msgpack made it of plain values alone
            with suppress(ValueError):
                return value, _MARSHALLED + marshal.dumps(value)
        return value, body

    def unpack(self, body: bytes) -> Any:
        # msgpack allocates a list as long as its header claims (at most one item per byte of the
        # body) before it reads the items; nested claims multiply. Where that could be much, first
        # skip over the whole body, which allocates nothing.
        if _may_claim_much(body) and _structure_end(body) != len(body):
            raise CorruptEventError("the body does not hold exactly one value")
        return msgpack.unpackb(
            body, ext_hook=self._extend, strict_map_key=False, unicode_errors="surrogatepass"
        )

    def _extend(self, code: int, data: bytes) -> Any:
        self._extensions_read += 1
        extension = BY_CODE.get(code)
        if extension is None and code != REGISTERED_CODE:
            raise CorruptEventError(f"unknown extension type {code}")
        if extension is not None and extension.raw:
            return extension.decode(data)
        level = self._reading_level + 1
        if level >= EXTENSION_DEPTH_MAX:
            raise CorruptEventError("values are nested too deeply")
        self._reading_level = level
        try:
            state = self.unpack(data)
        finally:
            self._reading_level = level - 1
        if extension is None:
            return self._types.decode(state)
        try:
            return extension.decode(state)
        except UnregisteredTypeError as error:  # it needs a package that is not installed
            if not self._types.opaque:
                raise
            return self._types.as_opaque(error, state, ())


def _may_hold_bin_or_ext(body: bytes) -> bool:
    # Not a loop: on small events a loop over these markers costs more than the search.
    return (
        (0xC4 in body or 0xC5 in body or 0xC6 in body)
        or (0xC7 in body or 0xC8 in body or 0xC9 in body)
        or (0xD4 in body or 0xD5 in body or 0xD6 in body or 0xD7 in body or 0xD8 in body)
    )


def _may_claim_much(body: bytes) -> bool:
    """Whether lists inside one another could make msgpack allocate more than is allowed."""
    if len(body) <= _SMALL_BODY_BYTES:
        return False
    # Most bodies have few of these bytes: to count them takes fifty times as long.
    left = _CLAIMABLE_MAX // (8 * len(body))
    for header in (0xDC, 0xDD):  # of lists with 16 items or more
        at = body.find(header)
        while at >= 0:
            left -= 1
            if left < 0:
                return True
            at = body.find(header, at + 1)
    return False


def _structure_end(body: bytes) -> int:
    """Where the first value of ``body`` ends, without building it; -1 if the body is cut short."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(body))
    unpacker.feed(body)
    try:
        unpacker.skip()
    except msgpack.OutOfData:
        return -1
    return int(unpacker.tell())


def _depth_exceeds(value: Any, limit: int) -> bool:
    layer = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for item in layer:
            if type(item) is list:
                inner += [child for child in item if type(child) in (list, dict)]
            elif type(item) is dict:
                inner += [child for child in item.values() if type(child) in (list, dict)]
        if not inner:
            return False
        # One object may be reached in many ways; once per layer is enough.
        layer = list({id(child): child for child in inner}.values())
    return True


def _needs_care(value: Any) -> bool:
    """Whether the value holds a bytearray, which msgpack would write as bytes, or an ExtType."""
    return any(not _CARE.isdisjoint(kinds) for kinds in _kinds(value))


def _is_plain(value: Any) -> bool:
    """Whether the value is made of nothing but the types that msgpack and marshal have alike."""
    return all(kinds <= _PLAIN_TYPES for kinds in _kinds(value))


def _kinds(value: Any) -> Iterator[set[type]]:
    """The types of a value and of all that is inside, a layer of containers at a time."""
    kinds = {type(value)}
    yield kinds
    layer: list[Any] = [value]
    for _ in range(_LEVELS_MAX):
        if _CONTAINERS.isdisjoint(kinds):
            return
        # All children of a layer at once, keys included, without a step of Python per container.
        children = gc.get_referents(*[each for each in layer if type(each) in _CONTAINERS])
        layer, kinds = children, set(map(type, children))
        yield kinds
    yield {object}  # too deep, or made to contain itself meanwhile


def _replaced(value: Any) -> Any:
    kind = type(value)
    if kind is bytearray:
        return msgpack.ExtType(BYTEARRAY_CODE, bytes(value))
    if kind is msgpack.ExtType:
        raise Refused(value, "extension codes belong to the codec; store its data instead")
    if kind is list:
        return [_replaced(item) for item in value]
    if kind is dict:
        return {_replaced(key): _replaced(item) for key, item in value.items()}
    return value


def _steps(item: Any) -> list[tuple[str, Any]]:
    """The items of a list or dict, each with its step in a path."""
    if type(item) is list:
        return [(f"[{index}]", child) for index, child in enumerate(item)]
    if type(item) is dict:
        return [(_step(key), child) for key, child in item.items()]
    return []


def _step(key: Any) -> str:
    return f".{key}" if type(key) is str and key.isidentifier() else f"[{key!r:.80}]"


def _path_to(value: Any, culprit: Any) -> list[str]:
    """The steps from ``value`` through lists and dicts to this very object."""
    stack: list[tuple[Any, tuple[str, ...]]] = [(value, ())]
    seen: set[int] = set()
    while stack:
        item, path = stack.pop()
        if item is culprit:
            return list(path)
        if id(item) in seen:
            continue
        seen.add(id(item))
        if type(item) is dict and any(key is culprit for key in item):
            return [*path, f"<key {type(culprit).__name__}>"]
        stack.extend((child, (*path, step)) for step, child in reversed(_steps(item)))
    return []


def _cycle(value: Any) -> Refused | None:
    """The refusal of the first list or dict that contains itself; ``None`` if there is none."""
    path: list[str] = []
    ancestors: list[Any] = [value]
    pending = [iter(_steps(value))]
    done: set[int] = set()
    while pending:
        step, child = next(pending[-1], ("", None))
        if not step:
            pending.pop()
            done.add(id(ancestors.pop()))
            del path[-1:]
        elif any(child is ancestor for ancestor in ancestors):
            refused = Refused(child, "it contains itself")
            refused.path, refused.culprit = [*path, step], value
            return refused
        elif type(child) in (list, dict) and id(child) not in done:
            path.append(step)
            ancestors.append(child)
            pending.append(iter(_steps(child)))
    return None


def path_text(steps: list[str]) -> str:
    """A path as errors show it, cut off after a number of steps."""
    text = "".join(steps[:_PATH_STEPS_MAX]).removeprefix(".")
    return text if len(steps) <= _PATH_STEPS_MAX else text + "…"
