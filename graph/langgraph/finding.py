"""Finding checkpoints in a thread: by id, the latest one, or many at once, newest first.

The newest checkpoints are in the fold of the thread's end. Older ones are found by the keys of
their events and read by folding up to their place and on to where the next one of their namespace
begins, since their writes come after them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from eventstore import Position, PositionNotFoundError, RecordedEvent
from graph.langgraph.logs import Logs, Stretch, Tip, flat
from graph.langgraph.state.fold import Fold, Namespace
from graph.langgraph.state.records import (
    CALL,
    CHECKPOINT,
    REFS,
    Batch,
    Saved,
    key_of,
    merged,
    parsed,
    span,
)

BLOCK: Final = 64
"""Checkpoints read at a time."""

_AHEAD: Final = (8, 64, 2**62)
"""How many events are read at a time to find the end of a checkpoint."""

Name = tuple[str, str]
"""A namespace and the id of a checkpoint in it."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Where a checkpoint is.

    Attributes:
        order: sorts by time: how many logs are newer (negative), then the seq in its log.
        late: the events of writes that came after a later checkpoint, likewise.
    """

    ns: str
    id: str
    order: tuple[int, int]
    late: tuple[tuple[int, int], ...] = ()

    @property
    def name(self) -> Name:
        """Namespace and id."""
        return self.ns, self.id


class NeedsLog(Exception):
    """The log has to be read, but ends with events that are yet to be appended."""


class History:
    """The checkpoints of a thread, as far as it reached at one moment."""

    def __init__(self, logs: Logs, tip: Tip) -> None:
        self._logs = logs
        self.tip = tip
        self._stretches: list[Stretch] | None = None
        self._trimmed: list[Ref] = []

    # --- one checkpoint -----------------------------------------------------------------

    async def find(self, ns: str, checkpoint_id: str | None) -> Saved | None:
        """A checkpoint of a namespace by its id, or the latest one."""
        space = self.tip.fold.spaces.get(ns)
        if checkpoint_id is None:
            return await self._latest(ns, space)
        if space is not None and checkpoint_id in space.leaves:
            return space.leaves[checkpoint_id]
        name = ns, checkpoint_id
        refs = [ref for ref in await self.refs(span(*name)) if ref.name == name]
        return (await self.load(refs)).get(name)

    async def _latest(self, ns: str, space: Namespace | None) -> Saved | None:
        if space is not None and CALL not in ns:
            if space.latest in space.leaves:
                return space.leaves[space.latest]
            found = await self.find(ns, space.latest) if space.latest else None
            return found or space.current
        refs = [ref for ref in await self.refs(span(ns)) if ref.ns == ns]
        if not refs:
            return None
        last = max(refs, key=lambda ref: ref.id)
        return (await self.load([last])).get(last.name)

    # --- many checkpoints ---------------------------------------------------------------

    async def all(self, ns: str | None) -> list[Ref]:
        """Every checkpoint of a namespace, or of all."""
        return await self.refs(span(ns) if ns is not None else ("", "\U0010ffff"))

    async def refs(self, keys: tuple[str, str]) -> list[Ref]:
        """The checkpoints whose events' keys lie in a span; those that a trim kept included."""
        found: dict[Name, Ref] = {}
        late: dict[Name, list[tuple[int, int]]] = {}
        for number, stretch in enumerate(await self._history()):
            for seq, kind, key in await self._logs.core.keys(stretch.end, keys, stretch.after):
                ns, checkpoint_id = name = parsed(key)
                order = (-number, seq)
                if kind != CHECKPOINT:
                    late.setdefault(name, []).append(order)
                elif name not in found or found[name].order < order:
                    found[name] = Ref(ns, checkpoint_id, order)
        for ref in self._trimmed:
            if ref.name not in found and keys[0] <= key_of(*ref.name) < keys[1]:
                found[ref.name] = ref
        return [
            replace(ref, late=tuple(sorted(late[name]))) if name in late else ref
            for name, ref in found.items()
        ]

    async def load(self, refs: Iterable[Ref], soon: Iterable[Ref] = ()) -> dict[Name, Saved]:
        """The checkpoints at these places; those that are gone by now are left out.

        Args:
            soon: what will be asked for next; kept where it is passed on the way.
        """
        found: dict[Name, Saved] = {}
        waiting: dict[Name, Ref] = {}
        loaded = self._loaded()
        for ref in refs:
            known = self.tip.fold.leaf(*ref.name) or loaded.get(ref.name)
            if known is not None:
                found[ref.name] = known
            else:
                waiting[ref.name] = ref
        if not waiting:
            return found
        passing = {ref.name: ref for ref in soon if ref.name not in loaded}
        while waiting:
            last = max(waiting.values(), key=lambda ref: ref.order)
            try:
                start = await self._capture(last, {**passing, **waiting}, found)
            except PositionNotFoundError:  # trimmed meanwhile
                start = last.order
            waiting = {
                name: ref
                for name, ref in waiting.items()
                if ref.order <= start and ref is not last and name not in found
            }
        self._logs.loaded.add(self.tip, found)
        return found

    def _loaded(self) -> Mapping[Name, Saved]:
        return {} if self.tip.planned else self._logs.loaded.of(self.tip)

    async def _capture(
        self, last: Ref, waiting: dict[Name, Ref], found: dict[Name, Saved]
    ) -> tuple[int, int]:
        """Fold up to the last of these checkpoints and a bit on; where the folding began."""
        stretches = await self._history()
        number, seq = last.order
        tip = self.tip
        at = stretches[-number].end._replace(seq=seq)
        fold, start, events = await self._logs.replay(tip.head.thread_id, at, tip.fold.seal)
        captured: dict[Name, Saved] = {}
        late: dict[Position, Batch | None] = {
            stretches[-number].end._replace(seq=seq): None
            for ref in waiting.values()
            for number, seq in ref.late
        }

        def apply(event: RecordedEvent) -> set[Name]:
            if event.position in late:
                late[event.position] = fold.writes_of(parsed(event.key or "").ns, event.data)
            return _keep(fold.apply(event), waiting, captured)

        async for event in events:
            apply(event)
        still = set()
        for name in waiting:
            leaf = fold.leaf(*name)
            if leaf is not None and leaf is fold.spaces[name[0]].current:
                still.add(name)
            elif leaf is not None and name not in captured:
                captured[name] = leaf
        async for event in self._onwards(stretches, -number, seq):
            if not still:
                break
            still -= apply(event)
        for name in still:
            leaf = fold.leaf(*name)
            if leaf is not None:
                captured[name] = leaf
        for name, saved in captured.items():
            if name not in found:
                found[name] = await self._with_late_writes(saved, waiting[name], late)
        return self._order(stretches, start)

    async def _onwards(
        self, stretches: Sequence[Stretch], number: int, seq: int
    ) -> AsyncIterator[RecordedEvent]:
        """The events after a place, up to the end of the thread, a few at a time."""
        for stretch in reversed(stretches[: number + 1]):
            after = stretch.end._replace(seq=max(seq, stretch.after))
            for ahead in _AHEAD:
                upto = min(after.seq + ahead, stretch.end.seq)
                if after.seq < upto:
                    pages = await self._logs.core.read_span(self.tip.head.thread_id, after, upto)
                    async for event in flat(pages):
                        yield event
                after = after._replace(seq=upto)
            seq = 0

    async def _with_late_writes(
        self, saved: Saved, ref: Ref, known: Mapping[Position, Batch | None]
    ) -> Saved:
        stretches = await self._history()
        for number, seq in ref.late:
            if (number, seq) < ref.order:
                continue
            at = stretches[-number].end._replace(seq=seq)
            batch = known[at] or await self._late_writes(ref.ns, at)
            found = merged(saved.writes, batch.writes, replace=batch.replaces)
            saved = replace(saved, writes=found)
        return saved

    async def _late_writes(self, ns: str, at: Position) -> Batch:
        """The writes of an event that was not met while folding."""
        logs, thread_id = self._logs, self.tip.head.thread_id
        after = at._replace(seq=at.seq - 1)
        event = await anext(flat(await logs.core.read_span(thread_id, after, at.seq)))
        fold = Fold(self.tip.fold.seal, thread_id)
        if event.data[REFS]:
            fold = await logs.fold_at(thread_id, after, fold.seal)
        return fold.writes_of(ns, event.data)

    # --- the logs of the thread ---------------------------------------------------------

    async def _history(self) -> list[Stretch]:
        if self.tip.planned:
            raise NeedsLog
        if not self.tip.head.exists:
            return []
        if self._stretches is None:
            logs, tip = self._logs, self.tip
            self._stretches, base = await logs.history(tip)
            if base is not None:
                fold = await logs.fold_at(tip.head.thread_id, base, tip.fold.seal)
                order = self._order(self._stretches, base)
                self._trimmed = [
                    Ref(ns, leaf, order)
                    for ns, space in fold.spaces.items()
                    for leaf in space.leaves
                ]
        return self._stretches

    @staticmethod
    def _order(stretches: Sequence[Stretch], at: object) -> tuple[int, int]:
        for number, stretch in enumerate(stretches):
            if isinstance(at, tuple) and at[:2] == stretch.end[:2]:
                return -number, at[2]
        return -len(stretches), 0


def _keep(
    closed: Iterable[tuple[str, Saved]], wanted: dict[Name, Ref], captured: dict[Name, Saved]
) -> set[Name]:
    """Take those that are wanted; their names."""
    names = set()
    for ns, saved in closed:
        name = (ns, saved.id)
        if name in wanted:
            captured[name] = saved
            names.add(name)
    return names
