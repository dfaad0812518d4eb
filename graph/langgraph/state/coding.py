"""A checkpoint as its difference to another one, and writes likewise. Pure.

What differs is packed and compressed against those parts of the other checkpoint (the *prior*)
that it probably repeats: its metadata, its pending writes, what its channels lost, and the end of
lists that grew. Which parts these are is recorded beside the bytes, so that the choice can change
and old events stay readable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgpack

from graph.langgraph.state import patches
from graph.langgraph.state.records import (
    Batch,
    Channel,
    Past,
    PastWrite,
    Saved,
    Write,
    WriteKey,
    Writes,
    uuid_bytes,
)
from graph.langgraph.state.values import ARRAY, Value, overlap, splice

HEAD, WRITES, PAST = range(3)
"""What a reference stands for, if it does not name parts of a channel: the prior's head and
metadata, its writes, its past."""

CONTEXT_BYTES: Final = 16 * 1024
"""Unchanged bytes before a change that are referred to: similar ones often look like it."""

THOROUGH_BYTES: Final = 64 * 1024
"""The same for what is stored rarely."""

_FRESH: Final = 64
"""From so many bytes on, values of new channels are compressed against the end of a list, too."""

_TINY: Final = 8
"""Values below this say nothing that could be repeated."""

_SMALL: Final = 4 * 1024
_WHOLE_SHARE: Final = 4
"""Writes are compressed against all values that are no larger than so many times themselves, or
small; against larger ones only if they are for their channel, and then against the end."""

_TYPES: Final = ("msgpack", "json", "null", "bytes", "bytearray", "pickle")
"""Types of serialized values that are stored as their number here. Only add at the end."""

Refs = list[Any]


class Decoded(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        is_complete: its writes and its past were included.
        written: writes for the prior that were stored with it.
    """

    saved: Saved
    is_complete: bool
    written: Sequence[Batch]


class Delta(NamedTuple):
    """What is stored of a checkpoint or of writes.

    Attributes:
        refs: which parts of the prior the body is compressed against.
        body: compressed.
    """

    refs: Refs
    body: bytes


def pack(value: Any) -> bytes:
    """Plain values as msgpack. Names may be any text that Python has."""
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed


def unpack(data: bytes) -> Any:
    """The inverse of :func:`pack`."""
    return msgpack.unpackb(data, unicode_errors="surrogatepass", strict_map_key=False)


# --- checkpoints ------------------------------------------------------------------------


def encode(
    new: Saved,
    prior: Saved | None,
    *,
    inherits: bool,
    carry: bool,
    thorough: bool = False,
    written: Sequence[Batch] = (),
) -> Delta:
    """A checkpoint as the difference to a prior one.

    Args:
        inherits: channels that are not named are the prior's.
        carry: include the writes and the past, which cannot be derived from events before.
        thorough: take more time for fewer bytes.
        written: writes for the prior, which it does not have yet, to be stored with the new one.
    """
    # Where there are writes, they are what the new values are made of.
    context = 0 if written or (prior is not None and prior.writes) else CONTEXT_BYTES
    context = THOROUGH_BYTES if thorough else context
    old = prior.channels if prior is not None else {}
    refs = _likely([write for batch in written for _, write in batch.writes], prior)
    referred = {ref[0] for ref in refs if isinstance(ref, list)}
    if carry and prior is not None and prior.past:
        refs.append(PAST)
    numbers = {name: number for number, name in enumerate(sorted(old))}
    changes: list[Any] = []
    fresh = 0
    for name, channel in new.channels.items():
        before = old.get(name)
        if inherits and before is not None and before == channel:
            continue
        base, value = before.value if before is not None else None, channel.value
        head, tail = overlap(base, value) if value is not None else (0, 0)
        if value is None:
            changes.append([name, channel.version])
        else:
            parts = value.parts[head : len(value.parts) - tail]
            kind = _number(value.type)
            changes.append([name, channel.version, kind, value.shape, head, tail, parts])
            fresh += 0 if base is not None else value.size
        if base is not None and numbers[name] not in referred:
            start, stop = _context(base, head, context), len(base.parts) - tail
            if start < stop:
                refs.append([numbers[name], start, stop])
    if prior is not None and fresh > _FRESH:
        refs += _likeness(prior, {ref[0] for ref in refs if isinstance(ref, list)})
    gone = [name for name in old if name not in new.channels] if inherits else []
    extra = [pack_writes(new.writes), _pasts(new.past)] if carry else []
    typed = (_number(new.head[0]), new.head[1], _number(new.meta[0]), new.meta[1])
    first = [[[each.replaces, *_plain(each)] for each in written]] if written else []
    body = pack([*first, *typed, changes, gone, *extra])
    level = patches.THOROUGH if thorough else patches.QUICK
    return Delta(refs, patches.pack(body, _known(prior, refs, new.id, new.parent), level))


def decode(
    refs: Iterable[Any],
    packed: bytes,
    prior: Saved | None,
    *,
    place: tuple[str, str | None],
    inherits: bool,
    is_side: bool = False,
    has_written: bool = False,
) -> Decoded:
    """The inverse of :func:`encode`.

    Args:
        place: id and parent of the checkpoint.
        has_written: writes for the prior are stored with it.

    Raises:
        ValueError, TypeError, …: the bytes do not belong to this prior, or are no such delta.
    """
    body = patches.unpack(packed, _known(prior, refs, *place))
    found = unpack(body)
    written = (
        [_batch(*plain, replaces=is_so) for is_so, *plain in found.pop(0)] if has_written else ()
    )
    head_type, head, meta_type, meta, changes, gone, *extra = found
    old = prior.channels if prior is not None else {}
    channels = dict(old) if inherits else {}
    for name in gone:
        del channels[name]
    for name, *change in changes:
        before = old.get(name)
        channels[name] = _changed(change, before.value if before is not None else None)
    saved = Saved(
        *place,
        (_type(head_type), head),
        (_type(meta_type), meta),
        channels,
        unpack_writes(extra[0]) if extra else {},
        _read_pasts(extra[1]) if extra else {},
        is_side,
    )
    return Decoded(saved, bool(extra), written)


# --- writes -----------------------------------------------------------------------------


def encode_writes(batch: Batch, prior: Saved | None) -> Delta:
    """The writes of a task as the difference to a prior checkpoint."""
    refs = _likely([write for _, write in batch.writes], prior)
    return Delta(refs, patches.pack(pack(_plain(batch)), _known(prior, refs)))


def decode_writes(
    refs: Iterable[Any], packed: bytes, prior: Saved | None, *, replaces: bool
) -> Batch:
    """The inverse of :func:`encode_writes`."""
    return _batch(*unpack(patches.unpack(packed, _known(prior, refs))), replaces=replaces)


def _plain(batch: Batch) -> list[Any]:
    """Writes as plain lists, their task first."""
    found = [[key[1], each.channel, _number(each.type), each.data] for key, each in batch.writes]
    return [_short_task(batch.task_id), batch.path, *found]


def _batch(task: bytes | str, path: str, *found: Any, replaces: bool) -> Batch:
    """The inverse of :func:`_plain`."""
    task_id = str(UUID(bytes=task)) if isinstance(task, bytes) else task
    writes = [
        ((task_id, index), Write(channel, path, _type(kind), data))
        for index, channel, kind, data in found
    ]
    return Batch(task_id, path, writes, replaces)


def _likely(writes: Sequence[Write], prior: Saved | None) -> Refs:
    """The parts of a prior checkpoint that it is repeated from, and these writes if any."""
    if prior is None:
        return []
    refs: Refs = [HEAD, WRITES] if prior.writes else [HEAD]
    if not writes:
        return refs
    small = max(_SMALL, _WHOLE_SHARE * sum(len(write.data) for write in writes))
    channels = {write.channel for write in writes}
    for number, name in enumerate(sorted(prior.channels)):
        value = prior.channels[name].value
        if value is None or value.size < _TINY:
            continue
        count = len(value.parts)
        if value.size <= small:
            refs.append([number, 0, count])
        elif name in channels:
            refs.append([number, _context(value, count, CONTEXT_BYTES), count])
    return refs


def _short_task(task_id: str) -> bytes | str:
    return uuid_bytes(task_id) or task_id


# --- parts of a prior -------------------------------------------------------------------


def _known(
    prior: Saved | None, refs: Iterable[Any], checkpoint_id: str = "", parent: str | None = None
) -> bytes:
    """The bytes that a body is compressed against: ids, and what references name."""
    found = [checkpoint_id.encode(), (parent or "").encode()]
    if prior is not None:
        names: list[str] = []
        for ref in refs:
            if ref == HEAD:
                found += (prior.head[1], prior.meta[1])
            elif ref == WRITES:
                for key in sorted(prior.writes):
                    write = prior.writes[key]
                    found += (write.path.encode(), write.data)
            elif ref == PAST:
                found += (write.data for past in prior.past.values() for write in past.writes)
            else:
                number, start, stop = ref
                names = names or sorted(prior.channels)
                value = prior.channels[names[number]].value
                if value is not None:
                    found += value.parts[start:stop]
    return b"".join(found)


def _context(value: Value, stop: int, bytes_max: int) -> int:
    """The first of the parts before ``stop`` that together are small enough."""
    start, left = stop, bytes_max
    while start > 0 and (left := left - len(value.parts[start - 1])) >= 0:
        start -= 1
    return start


def _likeness(prior: Saved, used: set[int]) -> Refs:
    """The end of the longest list, unless it is in use: new values may look like what is there."""
    lists = [
        (channel.value.size, number, channel.value)
        for number, (_, channel) in enumerate(sorted(prior.channels.items()))
        if channel.value is not None and channel.value.shape == ARRAY
    ]
    if not lists:
        return []
    _, number, value = max(lists, key=lambda each: each[:2])
    count = len(value.parts)
    return [] if number in used else [[number, _context(value, count, CONTEXT_BYTES), count]]


# --- plain lists ------------------------------------------------------------------------


def _number(kind: str) -> int | str:
    return _TYPES.index(kind) if kind in _TYPES else kind


def _type(number: int | str) -> str:
    return number if isinstance(number, str) else _TYPES[number]


def _changed(change: list[Any], old: Value | None) -> Channel:
    if len(change) == 1:
        return Channel(change[0], None)
    version, kind, shape, head, tail, parts = change
    return Channel(version, splice(old, _type(kind), shape, head, tail, tuple(parts)))


def pack_writes(writes: Writes) -> list[Any]:
    """Writes as plain lists."""
    return [[*key, *write] for key, write in writes.items()]


def unpack_writes(found: Iterable[Any]) -> dict[WriteKey, Write]:
    """The inverse of :func:`pack_writes`."""
    return {(task, index): Write(*rest) for task, index, *rest in found}


def _pasts(past: Mapping[str, Past]) -> list[Any]:
    return [[name, each.seed, list(each.writes)] for name, each in past.items()]


def _read_pasts(found: Iterable[Any]) -> dict[str, Past]:
    return {name: Past(_seed(seed), _past_writes(writes)) for name, seed, writes in found}


def _seed(found: Any) -> Value | None:
    return None if found is None else Value(found[0], found[1], tuple(found[2]))


def _past_writes(found: Iterable[Any]) -> tuple[PastWrite, ...]:
    return tuple(PastWrite(*each) for each in found)
