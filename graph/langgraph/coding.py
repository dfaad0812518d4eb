"""A checkpoint as its difference to another one, and writes likewise. Pure.

What differs is packed and compressed against those parts of the other checkpoint (the *prior*)
that it probably repeats: its metadata, its pending writes and what its channels lost. Which parts
these are is recorded beside the bytes, so that the choice can change and old events stay readable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgpack

from graph.langgraph import patches
from graph.langgraph.records import (
    Channel,
    Past,
    PastWrite,
    Saved,
    Write,
    WriteKey,
    Writes,
)
from graph.langgraph.values import Value, overlap, splice

HEAD, WRITES, PAST = range(3)
"""What a reference stands for, if it does not name parts of a channel: the prior's head and
metadata, its writes, its past."""

_SKELETON: Final = 2
"""Parts before a change that are referred to: similar ones often look like what follows them."""

_WHOLE_SHARE: Final = 4
"""A write this many times smaller than its channel's value is compressed against its last parts."""


class Delta(NamedTuple):
    """What an event holds of a checkpoint.

    Attributes:
        names: channels that differ from the prior.
        refs: which parts of the prior the body is compressed against.
        body: compressed.
    """

    names: list[str]
    refs: list[Any]
    body: bytes


def pack(value: Any) -> bytes:
    """Plain values as msgpack. Names may be any text that Python has."""
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed


def unpack(data: bytes) -> Any:
    """The inverse of :func:`pack`."""
    return msgpack.unpackb(data, unicode_errors="surrogatepass", strict_map_key=False)


def encode(new: Saved, prior: Saved | None, *, inherits: bool, carry: bool) -> Delta:
    """A checkpoint as the difference to a prior one.

    Args:
        inherits: channels that are not named are the prior's.
        carry: include the writes and the past, which cannot be derived from events before.
    """
    old = prior.channels if prior is not None else {}
    refs: list[Any] = [] if prior is None else [HEAD]
    if prior is not None and prior.writes:
        refs.append(WRITES)
    if carry and prior is not None and prior.past:
        refs.append(PAST)
    names: list[str] = []
    changes: list[Any] = []
    for name, channel in new.channels.items():
        before = old.get(name)
        if inherits and before is not None and before == channel:
            continue
        names.append(name)
        base, value = before.value if before is not None else None, channel.value
        head, tail = overlap(base, value) if value is not None else (0, 0)
        if value is None:
            changes.append([channel.version])
        else:
            parts = value.parts[head : len(value.parts) - tail]
            changes.append([channel.version, value.type, value.shape, head, tail, parts])
        if base is not None:
            start, stop = max(0, head - _SKELETON), len(base.parts) - tail
            if start < stop:
                refs.append([name, start, stop])
    gone = [name for name in old if name not in new.channels] if inherits else []
    extra = [pack_writes(new.writes), _pasts(new.past)] if carry else []
    body = pack([*new.head, *new.meta, changes, gone, *extra])
    return Delta(names, refs, patches.pack(body, known(prior, refs)))


def decode(
    names: Sequence[str],
    refs: Sequence[Any],
    packed: bytes,
    prior: Saved | None,
    *,
    place: tuple[str, str | None],
    inherits: bool,
    is_side: bool = False,
) -> tuple[Saved, bool]:
    """The inverse of :func:`encode`, and whether writes and past were included.

    Args:
        place: id and parent of the checkpoint.

    Raises:
        ValueError, TypeError, …: the bytes do not belong to this prior, or are no such delta.
    """
    body = patches.unpack(packed, known(prior, refs))
    head_type, head, meta_type, meta, changes, gone, *extra = unpack(body)
    old = prior.channels if prior is not None else {}
    channels = dict(old) if inherits else {}
    for name in gone:
        del channels[name]
    for name, change in zip(names, changes, strict=True):
        before = old.get(name)
        channels[name] = _changed(change, before.value if before is not None else None)
    writes: Writes = unpack_writes(extra[0]) if extra else {}
    past = _read_pasts(extra[1]) if extra else {}
    saved = Saved(*place, (head_type, head), (meta_type, meta), channels, writes, past, is_side)
    return saved, bool(extra)


def encode_writes(
    writes: Sequence[tuple[WriteKey, Write]], prior: Saved | None
) -> tuple[list[Any], bytes]:
    """The references and the body of writes, compressed against the channels they are for."""
    refs: list[Any] = []
    for (_, index), write in writes:
        channel = prior.channels.get(write.channel) if prior is not None else None
        if channel is None or channel.value is None or index < 0:
            continue
        count = len(channel.value.parts)
        small = len(write.data) * _WHOLE_SHARE < channel.value.size
        reference = [write.channel, max(0, count - _SKELETON) if small else 0, count]
        if reference not in refs:
            refs.append(reference)
    body = pack([[key[1], write.type, write.data] for key, write in writes])
    return refs, patches.pack(body, known(prior, refs))


def decode_writes(
    channels: Sequence[str],
    task: tuple[str, str],
    refs: Sequence[Any],
    packed: bytes,
    prior: Saved | None,
) -> list[tuple[WriteKey, Write]]:
    """The inverse of :func:`encode_writes`; ``task`` is the id and the path of the task."""
    task_id, path = task
    found = unpack(patches.unpack(packed, known(prior, refs)))
    return [
        ((task_id, index), Write(channel, path, kind, data))
        for channel, (index, kind, data) in zip(channels, found, strict=True)
    ]


def known(prior: Saved | None, refs: Iterable[Any]) -> bytes:
    """The bytes of the prior that references name."""
    if prior is None:
        return b""
    found: list[bytes] = []
    for ref in refs:
        if ref == HEAD:
            found += (prior.head[1], prior.meta[1])
        elif ref == WRITES:
            found += (write.data for _, write in sorted(prior.writes.items()))
        elif ref == PAST:
            found += (write.data for past in prior.past.values() for write in past.writes)
        else:
            name, start, stop = ref
            value = prior.channels[name].value
            if value is not None:
                found += value.parts[start:stop]
    return b"".join(found)


def _changed(change: list[Any], old: Value | None) -> Channel:
    if len(change) == 1:
        return Channel(change[0], None)
    version, kind, shape, head, tail, parts = change
    return Channel(version, splice(old, kind, shape, head, tail, tuple(parts)))


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
