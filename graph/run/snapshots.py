"""Materialized checkpoints: when one is worth storing, and what is in it.

Owns the encoding of a :class:`~graph.state.fold.State`, and the rule that keeps both storage and
reading linear: a snapshot is stored once replaying the events since the last one costs
more than the snapshot itself, counted in stored bytes. Lists that only grow (a chat's
messages) are not stored again: a snapshot holds what was appended since the one it rests
on, so that a long conversation is written twice in all, not once per snapshot.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Final

from eventstore import Codec, NewSnapshot, Position, SerializationError, Snapshot, telemetry
from graph.build.schema import MISSING, Channel
from graph.state.fold import State, Task

log = logging.getLogger(__name__)

EVENT_WEIGHT: Final = 256
"""Bytes that an event counts for beyond its own: decoding many small ones costs too."""

FLOOR: Final = 48 * 1024
"""Weight of events below which replaying them is too cheap to store anything."""

LEVEL: Final = 9
"""Of compression: a tenth smaller than the quickest, written seldom, read as fast."""


FAILED: Final = telemetry.Counter(
    "graph.snapshots.failed", "{snapshot}", "Snapshots that were due and could not be made."
)


class Failures:
    """The logs whose snapshots cannot be made, so that not every run tries and warns again.

    Shared by the takers of one graph, and by threads.
    """

    KEPT_MAX: Final = 10_000

    def __init__(self) -> None:
        self._due: dict[tuple[int, str], int] = {}
        self._warned: set[str] = set()
        self._unseen: set[str] | None = None
        self._lock = threading.Lock()

    def due(self, at: Position) -> int:
        """The weight of events from which on a snapshot of this log is tried again."""
        return self._due.get(at[:2], 0)

    def look_at(
        self, codec: Codec, channels: Mapping[str, Channel], before: State, after: State
    ) -> None:
        """Warn of what a reducer makes that cannot be stored, when it first makes something.

        Only the first value of each key is looked at: encoding it costs time, and few reducers
        make something else later. A plain operator makes nothing new of what was stored.
        """
        if self._unseen is None:
            self._unseen = {
                name
                for name, channel in channels.items()
                if getattr(channel.reducer, "__module__", None) not in (None, "_operator")
            }
        if not self._unseen:
            return
        old, new = before.values, after.values
        for name in [n for n in self._unseen if n in old and new.get(n, old[n]) is not old[n]]:
            self._unseen.discard(name)
            try:
                codec.pack({"values": {name: new[name]}})
            except SerializationError as error:
                self._warn(after.at, error)

    def add(self, at: Position, weight: int, error: SerializationError) -> None:
        """Note that none could be made; the next try comes when twice as much has gathered."""
        FAILED.add(1)
        with self._lock:
            if len(self._due) >= self.KEPT_MAX:
                self._due.clear()
            self._due[at[:2]] = 2 * max(weight, FLOOR)
        self._warn(at, error)

    def _warn(self, at: Position, error: SerializationError) -> None:
        path = error.path.removeprefix("values.") or "the state"
        with self._lock:
            known = path in self._warned
            self._warned.add(path)
        if not known:
            log.warning(
                "no snapshot can be made of %s: %s; its threads run on, and take longer to load",
                path,
                error,
                extra={"path": path, "thread_key": at.thread_key, "ns": at.ns, "seq": at.seq},
            )


class SnapshotTaker:
    """Decides and makes the snapshots of one log, as a run goes on.

    It sees every checkpoint's state with the stored bytes of the events that led there,
    and remembers the lists as they were at the last snapshot: what still begins with the
    very same elements has grown, and only its growth is stored.

    Args:
        each_run: where nothing is left to be run in the root's log, one is always due.
    """

    def __init__(
        self,
        codec: Codec,
        fingerprint: str,
        failures: Failures,
        *,
        each_run: bool = False,
    ) -> None:
        self._failures = failures
        self._each_run = each_run
        self._codec = codec
        self._fingerprint = fingerprint
        self._weight = 0
        self._due = FLOOR
        self._at: int | None = None
        self._lists: dict[str, list[Any]] = {}
        self._chained: frozenset[str] = frozenset()

    def resume(self, snapshot: Snapshot, state: State, chained: frozenset[str]) -> None:
        """Go on behind a snapshot of this log; ``state`` is what it holds (see :func:`load`)."""
        self._at = snapshot.position.seq
        self._lists = _lists(state.values)
        self._chained = chained

    def folded(self, channels: Mapping[str, Channel], before: State, after: State) -> None:
        """Look at what reducers made of a run's events, if they had made nothing before."""
        self._failures.look_at(self._codec, channels, before, after)

    def saw(self, size: int, events: int = 1) -> None:
        """Count events of ``size`` stored bytes in all behind the last snapshot."""
        self._weight += size + EVENT_WEIGHT * events

    def take(self, state: State) -> NewSnapshot | None:
        """A snapshot of ``state``, if one is due and can be made: a run goes on without one."""
        if self._weight < self._failures.due(state.at):
            return None
        try:
            return self._take(state)
        except SerializationError as error:
            self._failures.add(state.at, self._weight, error)
            return None

    def _take(self, state: State) -> NewSnapshot | None:
        ends = self._each_run and not state.frontier and not state.at.ns
        if self._weight < self._due and not ends:
            return None
        lists = _lists(state.values)
        grown = frozenset(key for key in lists if _begins_with(lists[key], self._lists.get(key)))
        goes_on = bool(self._chained) and self._chained <= grown
        items = {
            key: lists[key][len(self._lists[key]) :]
            if goes_on and key in self._chained
            else lists[key]
            for key in sorted(grown)
        }
        rest = {key: value for key, value in state.values.items() if key not in grown}
        snapshot = NewSnapshot(
            self._fingerprint,
            self._codec.encode(_state_data(state, rest), level=LEVEL),
            self._codec.encode(items, level=LEVEL),
            self._at if goes_on else None,
            step=state.step,
        )
        if snapshot.size > self._weight and not ends:
            self._due = snapshot.size
            return None
        self._weight, self._due = 0, FLOOR
        self._at, self._lists, self._chained = state.at.seq, lists, grown
        return snapshot


def _lists(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    # Copies, because a reducer of the application may well extend its list in place.
    return {key: value.copy() for key, value in values.items() if type(value) is list}


def _begins_with(new: list[Any], old: list[Any] | None) -> bool:
    """Whether ``new`` is ``old`` with something appended: by identity, as reducers leave it."""
    if old is None:
        return True
    return len(new) >= len(old) and all(map(_is, new, old))


def _is(one: object, other: object) -> bool:
    return one is other


def _state_data(state: State, values: Mapping[str, Any]) -> dict[str, Any]:
    """A settled state; what most states do not have is left out."""
    seldom = {
        "first": list(state.first) if state.first != state.at else None,
        "kept": dict(state.kept),
        "branch": state.branch,
        "call": state.call,
        "above": state.above,
        "ended": {call: list(at) for call, at in state.ended.items()},
    }
    return {name: value for name, value in seldom.items() if value} | {
        "values": dict(values),
        "order": list(state.values),
        "step": state.step,
        "parent": state.parent and list(state.parent),
        "frontier": [
            [task.node] if task.arg is MISSING else [task.node, task.arg] for task in state.frontier
        ],
        "joins": [
            [target, list(names), late, sorted(arrived)]
            for (target, names, late), arrived in state.joins.items()
        ],
        "later": sorted(state.later),
        "last": list(state.last),
        "source": state.source,
        "run": state.run_id,
        "metadata": dict(state.metadata),
        "created": state.created_us,
    }


def stored_form(codec: Codec, state: State) -> bytes:
    """A settled state as bytes, equal for states that are stored alike."""
    return codec.pack(_state_data(state, state.values))


def load(codec: Codec, snapshot: Snapshot) -> tuple[State, frozenset[str]]:
    """The state that a snapshot holds, and which of its lists are stored by their growth."""
    data = codec.decode(snapshot.state)
    values: dict[str, Any] = data["values"]
    chained: set[str] = set()
    for part in snapshot.items:
        for key, items in codec.decode(part).items():
            chained.add(key)
            values.setdefault(key, []).extend(items)
    state = State(
        at=snapshot.position,
        checkpoint=snapshot.position,
        parent=Position(*data["parent"]) if data["parent"] else None,
        step=data["step"],
        values={key: values[key] for key in data["order"]},
        frontier=tuple(Task(*task) for task in data["frontier"]),
        joins={
            (target, tuple(names), late): frozenset(arrived)
            for target, names, late, arrived in data["joins"]
        },
        later=frozenset(data["later"]),
        last=tuple(data["last"]),
        source=data["source"],
        run_id=data["run"],
        metadata=data["metadata"],
        created_us=data["created"],
        kept=data.get("kept", {}),
        began=snapshot.position.seq,
        first=Position(*data["first"]) if "first" in data else snapshot.position,
        branch=data.get("branch", 0),
        call=data.get("call", ""),
        above=data.get("above"),
        ended={call: Position(*at) for call, at in data.get("ended", {}).items()},
    )
    return state, frozenset(chained)
