"""A fold as the snapshot of a log, most often as its difference to the snapshot before. Pure.

A snapshot of a log may rest on an earlier one; here each holds the namespaces that changed since.
So snapshots of a thread take about as many bytes as its events, however often they are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from eventstore import ConfigurationError, CorruptEventError, Snapshot
from eventstore.codec.codec import Codec
from eventstore.codec.compression import DECODE_ERRORS
from graph.langgraph.state.coding import decode, encode, pack, pack_writes, unpack, unpack_writes
from graph.langgraph.state.fold import Fold, Namespace
from graph.langgraph.state.records import Saved
from graph.langgraph.state.sealing import Seal

FINGERPRINT: Final = "langgraph/1"
"""Marks snapshots of this format."""


def encoded(fold: Fold, base: Fold | None, codec: Codec) -> bytes:
    """The payload of a snapshot: what differs from the fold that the earlier snapshot holds."""
    before = base.spaces if base is not None else {}
    changed = [
        [name, *_packed(space, before.get(name, Namespace()))]
        for name, space in fold.spaces.items()
        if before.get(name) is not space
    ]
    gone = [name for name in before if name not in fold.spaces]
    early = [[*place, pack_writes(writes)] for place, writes in fold.early.items()]
    late = [
        [ns, *sorted(channels)] if channels is not None else ns
        for ns, channels in sorted(fold.late.items())
    ]
    counts = [fold.top, fold.steps, fold.since, fold.is_copy, late]
    return codec.encode(fold.seal.close(pack([changed, gone, early, *counts])))


def decoded(
    snapshot: Snapshot, codec: Codec, seal: Seal, thread_id: str | None = None
) -> tuple[Fold, Fold]:
    """The folds that the first snapshot of a chain and the chain as a whole hold.

    Raises:
        CorruptEventError: it does not decode.
    """
    fold = Fold(seal, thread_id)
    first: Fold | None = None
    place = (thread_id, snapshot.position.ns, snapshot.position.seq)
    try:
        for payload in snapshot.items:
            fold = _applied(fold, codec.decode(payload))
            first = first or fold
    except ConfigurationError:
        raise
    except CorruptEventError as error:
        raise error.at(*place) from error
    except DECODE_ERRORS as error:
        raise CorruptEventError(
            f"the snapshot does not decode: {type(error).__name__}: {error!s:.200}"
        ).at(*place) from error
    return first or fold, fold


def _applied(base: Fold, data: Any) -> Fold:
    changed, gone, early, top, steps, since, is_copy, late = unpack(base.seal.open(data))
    fold = base.copy()
    for name in gone:
        del fold.spaces[name]
    for name, latest, leaves in changed:
        fold.spaces[name] = _read(latest, leaves, base.spaces.get(name, Namespace()))
    fold.early = {(ns, name): unpack_writes(writes) for ns, name, writes in early}
    fold.top, fold.steps, fold.since, fold.is_copy = top, steps, since, is_copy
    # Earlier versions stored the namespaces alone.
    fold.late = {
        each if isinstance(each, str) else each[0]: None
        if isinstance(each, str)
        else frozenset(each[1:])
        for each in late
    }
    return fold


def _packed(space: Namespace, before: Namespace) -> list[Any]:
    leaves: list[Any] = []
    prior: Saved | None = before.current
    for leaf in space.leaves.values():
        if before.leaves.get(leaf.id) is leaf:
            leaves.append(leaf.id)
        else:
            delta = encode(leaf, prior, inherits=True, carry=True, thorough=True)
            leaves.append([leaf.id, leaf.parent, leaf.is_side, *delta])
        prior = leaf
    return [space.latest, leaves]


def _read(latest: str, leaves: Iterable[Any], before: Namespace) -> Namespace:
    found: dict[str, Saved] = {}
    prior = before.current
    for each in leaves:
        if isinstance(each, str):
            leaf = before.leaves[each]
        else:
            leaf = _leaf(each, prior)
        found[leaf.id] = prior = leaf
    return Namespace(found, latest)


def _leaf(found: Sequence[Any], prior: Saved | None) -> Saved:
    name, parent, is_side, refs, body = found
    return decode(refs, body, prior, place=(name, parent), inherits=True, is_side=is_side).saved
