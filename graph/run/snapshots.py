"""Materialized checkpoints: when to store one, and what it contains.

Owns the encoding of a :class:`~graph.state.state.State`, and the rule that keeps both storage and
reading linear: a snapshot is stored once replaying the events since the last one costs more than
the snapshot itself, counted in stored bytes. For append-only lists (a chat's messages) a snapshot
stores only the items that are new since the snapshot it rests on. So a long conversation is
written twice in all, not once per snapshot.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from operator import is_
from typing import Any, Final, NamedTuple

from eventstore import Codec, NewSnapshot, Position, SerializationError, Snapshot, telemetry
from graph.build.channels import MISSING, Channel
from graph.state.state import State, Task

log = logging.getLogger(__name__)

EVENT_WEIGHT: Final = 256
"""Bytes added to the size of each event, because decoding many small events costs, too."""

FLOOR: Final = 48 * 1024
"""Weight of events below which replaying them is too cheap for a snapshot."""

LEVEL: Final = 9
"""Compression level: a tenth smaller than the fastest level, and read as fast."""


FAILED: Final = telemetry.Counter(
    "graph.snapshots.failed", "{snapshot}", "Snapshots that were due and could not be made."
)


class Failures:
    """The logs whose snapshots cannot be made, so that not every run retries and warns.

    Shared by the takers of one graph; thread-safe.
    """

    KEPT_MAX: Final = 10_000

    def __init__(self) -> None:
        self._due: dict[tuple[int, str], int] = {}
        self._warned: set[str] = set()
        self._unseen: set[str] | None = None
        self._lock = threading.Lock()

    def due(self, at: Position) -> int:
        """The weight of events at which to try a snapshot of this log again."""
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
        """Note a failure; the next try is due at twice the weight of events."""
        FAILED.add(1)
        with self._lock:
            if len(self._due) >= self.KEPT_MAX:
                self._due.clear()
            self._due[at[:2]] = 2 * max(weight, FLOOR)
        self._warn(at, error)

    def compare(
        self, codec: Codec, thread_id: str, recorded: State, live: State, is_kept: bool
    ) -> bool:
        """Warn of values that were changed in place, once for each key.

        Args:
            recorded: the state that the log leads to.
            live: the same as a run has it.
            is_kept: it is kept for further runs, so that every key matters.

        Returns:
            Whether a value differs, of those that matter.
        """
        differs = False
        for key, value in recorded.values.items():
            is_known = f"={key}" in self._warned
            if is_known and not is_kept:
                continue
            if _is_same(codec, value, live.values.get(key)):
                continue
            differs = True
            with self._lock:
                self._warned.add(f"={key}")
            if not is_known:
                log.warning(
                    "thread %r: the value of %r was changed in place, or its reducer is not "
                    "deterministic; the log does not have the change, so later runs will not see "
                    "it: return what has changed",
                    thread_id,
                    key,
                    extra={"thread_id": thread_id, "key": key, "ns": live.at.ns},
                )
        return differs

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


class Chain(NamedTuple):
    """How to continue from the last stored snapshot of a log.

    Attributes:
        at: its seq; ``None``: there is none.
        counts: the number of items in its lists, of those that the state still begins with.
        chained: the lists that are stored in parts; empty if they have not only grown since.
        weight: of the events since.
    """

    at: int | None
    counts: Mapping[str, int]
    chained: frozenset[str]
    weight: int


class SnapshotTaker:
    """Decides when the log of a run gets a snapshot, and makes it.

    It counts the stored bytes of the events since the last snapshot, and keeps the lists of that
    snapshot. Of a list that still begins with the same objects, only the new items are stored.

    Args:
        each_run: a snapshot is always due when a run of the root ends.
        keeps_state: the state of a run is kept as it is for the next one.

    Attributes:
        has_other_values: the state of the run is not what the log leads to.
    """

    def __init__(
        self,
        codec: Codec,
        fingerprint: str,
        failures: Failures,
        *,
        each_run: bool = False,
        keeps_state: bool = False,
    ) -> None:
        self.has_other_values = False
        self._keeps_state = keeps_state
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
        """Continue after a snapshot of this log.

        Args:
            state, chained: its content, from :func:`load`.
        """
        self._at = snapshot.position.seq
        self._lists = lists_of(state.values)
        self._chained = chained

    def chain(self, state: State) -> Chain:
        """How another taker can continue from here, at ``state``."""
        now = state.values
        counts = {
            key: len(old)
            for key, old in self._lists.items()
            if type(now.get(key)) is list and begins_with(now[key], old)
        }
        goes_on = self._chained <= counts.keys()
        return Chain(self._at, counts, self._chained if goes_on else frozenset(), self._weight)

    def follow(self, chain: Chain, state: State) -> None:
        """Continue as the taker did that told ``chain`` at ``state``."""
        now = state.values
        self._at, self._chained, self._weight = chain.at, chain.chained, chain.weight
        self._lists = {key: now[key][:count] for key, count in chain.counts.items()}

    def compare(self, thread_id: str, recorded: State, live: State) -> None:
        """Warn of values that were changed in place: what their run saw is not in the log."""
        self.has_other_values = self._failures.compare(
            self._codec, thread_id, recorded, live, self._keeps_state
        )

    def folded(self, channels: Mapping[str, Channel], before: State, after: State) -> None:
        """Look at what reducers made of a run's events, if they had made nothing before."""
        self._failures.look_at(self._codec, channels, before, after)

    def saw(self, size: int, events: int = 1) -> None:
        """Count events after the last snapshot; ``size``: their stored bytes in all."""
        self._weight += size + EVENT_WEIGHT * events

    def is_due(self, state: State) -> bool:
        """Whether to take a snapshot of ``state``."""
        if self._weight < self._due and not (self._each_run and _ends(state)):
            return False
        return self._weight >= self._failures.due(state.at)

    def take(self, state: State) -> NewSnapshot | None:
        """A snapshot of ``state``; ``None`` if none can be made, or it is not worth its bytes."""
        try:
            return self._take(state)
        except SerializationError as error:
            self._failures.add(state.at, self._weight, error)
            return None

    def _take(self, state: State) -> NewSnapshot | None:
        lists = lists_of(state.values)
        grown = frozenset(key for key in lists if begins_with(lists[key], self._lists.get(key)))
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
            self._codec.encode(state_data(state, rest), level=LEVEL),
            self._codec.encode(items, level=LEVEL),
            self._at if goes_on else None,
            step=state.step,
        )
        if snapshot.size > self._weight and not (self._each_run and _ends(state)):
            self._due = snapshot.size
            return None
        self._weight, self._due = 0, FLOOR
        self._at, self._lists, self._chained = state.at.seq, lists, grown
        return snapshot


def _ends(state: State) -> bool:
    """Whether a run of the root ends here."""
    return not state.frontier and not state.at.ns


def _is_same(codec: Codec, recorded: Any, live: Any) -> bool:
    """Whether two values are packed alike; a value that cannot be packed is like no other."""
    try:
        return codec.pack(recorded) == codec.pack(live)
    except SerializationError:
        return False


def lists_of(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Copies of the lists among the values of a state."""
    # Copies, because a reducer of the application may extend its list in place.
    return {key: value.copy() for key, value in values.items() if type(value) is list}


def begins_with(new: list[Any], old: list[Any] | None) -> bool:
    """Whether ``new`` is ``old`` with items appended, compared by identity of the items."""
    if old is None:
        return True
    return len(new) >= len(old) and all(map(is_, new, old))


def state_data(state: State, values: Mapping[str, Any]) -> dict[str, Any]:
    """The stored form of a settled state with these values; leaves out what is usually empty."""
    seldom = {
        "first": list(state.first) if state.first != state.at else None,
        "kept": dict(state.kept),
        "branch": state.branch,
        "call": state.call,
        "above": state.above,
        "ended": {call: list(at) for call, at in state.ended.items()},
        "forms": dict(state.forms),
        "version": state.version,
        "stands_on": state.stands_on and state.stands_on != state.parent and list(state.stands_on),
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
    """A settled state as bytes: equal if the states have the same stored form."""
    return codec.pack(state_data(state, state.values))


def load(decode: Callable[[bytes], Any], snapshot: Snapshot) -> tuple[State, frozenset[str]]:
    """The state in a snapshot, and which of its lists are stored in parts."""
    data = decode(snapshot.state)
    values: dict[str, Any] = data["values"]
    chained: set[str] = set()
    for part in snapshot.items:
        for key, items in decode(part).items():
            chained.add(key)
            values.setdefault(key, []).extend(items)
    return state_of(data, snapshot.position), frozenset(chained)


def state_of(data: Mapping[str, Any], at: Position) -> State:
    """The state whose stored form this is."""
    values, parent = data["values"], Position(*data["parent"]) if data["parent"] else None
    return State(
        at=at,
        checkpoint=at,
        parent=parent,
        stands_on=Position(*data["stands_on"]) if "stands_on" in data else parent,
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
        began=at.seq,
        first=Position(*data["first"]) if "first" in data else at,
        branch=data.get("branch", 0),
        call=data.get("call", ""),
        above=data.get("above"),
        ended={call: Position(*at) for call, at in data.get("ended", {}).items()},
        forms=data.get("forms", {}),
        version=data.get("version"),
    )
