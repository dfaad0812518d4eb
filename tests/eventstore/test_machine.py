"""Any mix of calls against a plain dictionary: what is read is what was written.

The model holds, for every log, its events and the state after each of them; a fork copies the
state it goes back to. The store must give the same, whatever was snapshotted, forked, deleted,
cut off or reopened meanwhile.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from sqlalchemy import event

from eventstore import (
    ConcurrencyError,
    Event,
    EventStore,
    EventStoreError,
    Fork,
    NewSnapshot,
    Position,
    ThreadExistsError,
    ThreadNotFoundError,
)
from tests.eventstore.support import FINGERPRINT, orphans, rows_of, set_everywhere

NAMES = ("a", "b", "c", "d")
SPACES = ("", "sub")

names = st.sampled_from(NAMES)
spaces = st.sampled_from(SPACES)
batches = st.lists(st.integers(0, 99), min_size=1, max_size=5)


@dataclass
class Log:
    """What one log must hold."""

    values: list[Any] = field(default_factory=list)  # None where a fork is
    states: list[list[int]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    snapshot: int | None = None  # the last one that a new one may rest on

    @property
    def state(self) -> list[int]:
        return self.states[-1] if self.states else []

    def add(self, value: int, key: str | None = None) -> None:
        self.values.append(value)
        self.states.append([*self.state, value])
        self.keys.append(key)

    def go_to(self, state: list[int]) -> None:
        self.values.append(None)
        self.states.append(state)
        self.keys.append(None)
        self.snapshot = None


class StoreMachine(RuleBasedStateMachine):
    """Random calls on a store in a file."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.model: dict[str, dict[str, Log]] = {}
        self.patch = pytest.MonkeyPatch()
        self.opened()

    @initialize(whole=st.booleans())
    def choose(self, whole: bool) -> None:
        """Whether forks are given whole histories, or what they need from a snapshot on."""
        set_everywhere(self.patch, "WHOLE_MAX", 1_000 if whole else 0)

    def opened(self) -> None:
        self.store = EventStore(self.folder / "store.db")
        self.store.setup()
        self.cut_after = 0

        def connected(connection: Any, _record: Any) -> None:
            connection.set_progress_handler(self._cut, 50)

        event.listen(self.store.engine, "connect", connected)
        self.store.engine.dispose()

    def _cut(self) -> int:
        """Ends a statement somewhere in its middle, once, when that was asked for."""
        if self.cut_after:
            self.cut_after -= 1
            if not self.cut_after:
                return 1
        return 0

    def log(self, name: str, ns: str) -> Log:
        return self.model.get(name, {}).get(ns, Log())

    def written(self, name: str, ns: str) -> Log:
        return self.model.setdefault(name, {}).setdefault(ns, Log())

    # --- appending ---

    @rule(name=names, ns=spaces, batch=batches)
    def append(self, name: str, ns: str, batch: list[int]) -> None:
        expected = len(self.log(name, ns).values)
        seq = self.store.append(name, [Event(1, value) for value in batch], expected, ns)
        log = self.written(name, ns)
        for value in batch:
            log.add(value)
        assert seq == len(log.values)

    @rule(name=names, ns=spaces, batch=batches, off=st.sampled_from([-2, -1, 1, 2]))
    def append_with_a_wrong_end(self, name: str, ns: str, batch: list[int], off: int) -> None:
        wrong = max(0, len(self.log(name, ns).values) + off)
        if wrong == len(self.log(name, ns).values):
            return
        with pytest.raises((ConcurrencyError, ThreadNotFoundError)):
            self.store.append(name, [Event(1, value) for value in batch], wrong, ns)

    @rule(name=names, ns=spaces, batch=batches, again=st.booleans())
    def append_under_keys(self, name: str, ns: str, batch: list[int], again: bool) -> None:
        expected = len(self.log(name, ns).values)
        events = [Event(2, value, key=f"{expected + offset}") for offset, value in enumerate(batch)]
        taken = set(self.log(name, ns).keys)
        if taken & {item.key for item in events}:
            return
        seq = self.store.append(name, events, expected, ns)
        log = self.written(name, ns)
        for item in events:
            log.add(item.data, item.key)
        if again:
            assert self.store.append(name, events, expected, ns) == seq

    @rule(name=names, ns=spaces, batch=batches, cut=st.integers(1, 60))
    def append_cut_off(self, name: str, ns: str, batch: list[int], cut: int) -> None:
        """The call fails somewhere; what is there afterwards is all or nothing."""
        log = self.log(name, ns)
        events = [Event(1, value) for value in batch]
        head = self.store.head(name, ns)
        self.cut_after = cut
        try:
            self.store.append_after(head, events)
        except EventStoreError:
            pass
        finally:
            self.cut_after = 0
        there = self.store.head(name, ns).seq
        assert there in (len(log.values), len(log.values) + len(batch))
        if there > len(log.values):
            log = self.written(name, ns)
            for value in batch:
                log.add(value)

    # --- snapshots ---

    @rule(name=names, ns=spaces, value=st.integers(0, 99), rest=st.booleans())
    def append_with_a_snapshot(self, name: str, ns: str, value: int, rest: bool) -> None:
        before = self.log(name, ns)
        rests_on = before.snapshot if rest else None
        state = [*before.state, value]
        since = len(before.states[rests_on - 1]) if rests_on else 0
        items = self.store.codec.encode(state[since:])
        snapshot = NewSnapshot(FINGERPRINT, b"", items, rests_on)
        head = self.store.head(name, ns)
        self.store.append_after(head, [Event(1, value)], snapshot=snapshot)
        log = self.written(name, ns)
        log.add(value)
        log.snapshot = len(log.values)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def put_a_snapshot(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        ns = data.draw(st.sampled_from(sorted(self.model[name])))
        log = self.log(name, ns)
        items = self.store.codec.encode(log.state)
        self.store.put_snapshot(self.store.head(name, ns), NewSnapshot(FINGERPRINT, b"", items))
        log.snapshot = len(log.values)

    @rule(name=names)
    def delete_snapshots(self, name: str) -> None:
        if name not in self.model:
            with pytest.raises(ThreadNotFoundError):
                self.store.delete_snapshots(name)
            return
        self.store.delete_snapshots(name)
        for log in self.model[name].values():
            log.snapshot = None

    # --- forks ---

    @precondition(lambda self: self.model)
    @rule(data=st.data(), new=names)
    def fork(self, data: st.DataObject, new: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        ns = data.draw(st.sampled_from(sorted(self.model[name])))
        source = self.log(name, ns)
        seq = data.draw(st.integers(1, len(source.values)))
        if new in self.model:
            with pytest.raises(ThreadExistsError):
                self.store.fork(name, seq, new, ns=ns)
            return
        self.store.fork(name, seq, new, ns=ns)
        self.written(new, ns).go_to(source.states[seq - 1])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def go_to(self, data: st.DataObject) -> None:
        """A fork event at the end of a log, to any position of any log."""
        name = data.draw(st.sampled_from(sorted(self.model)))
        ns = data.draw(st.sampled_from(sorted(self.model[name])))
        other = data.draw(st.sampled_from(sorted(self.model)))
        other_ns = data.draw(st.sampled_from(sorted(self.model[other])))
        source = self.log(other, other_ns)
        seq = data.draw(st.integers(1, len(source.values)))
        position = Position(self.store.thread(other).thread_key, other_ns, seq)
        log = self.log(name, ns)
        self.store.append(name, [Fork(position)], len(log.values), ns)
        log.go_to(source.states[seq - 1])

    # --- deleting and reopening ---

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        key = self.store.thread(name).thread_key
        self.store.delete_thread(name)
        del self.model[name]
        assert rows_of(self.store, key) == {}

    @precondition(lambda self: self.model)
    @rule(data=st.data(), cut=st.integers(1, 150))
    def delete_cut_off(self, data: st.DataObject, cut: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.cut_after = cut
        try:
            self.store.delete_thread(name)
        except EventStoreError:
            pass
        finally:
            self.cut_after = 0
        if not self.store.head(name).exists:
            del self.model[name]

    @rule()
    def finish_deletions(self) -> None:
        self.store.finish_deletions()
        assert not orphans(self.store)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.opened()

    # --- what must hold ---

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        assert {info.thread_id for info in self.store.threads()} == set(self.model)
        for name, logs in self.model.items():
            report = self.store.verify(name)
            assert report.problems == ()
            assert {ns for ns in report.namespaces if not ns.startswith("~")} == set(logs)
            for ns, log in logs.items():
                events = list(self.store.read(name, ns))
                assert [e.seq for e in events] == list(range(1, len(log.values) + 1))
                assert [e.data if e.kind else None for e in events] == log.values
                assert [e.key for e in events] == log.keys
                self.check_state(name, ns, log, None)

    def check_state(self, name: str, ns: str, log: Log, seq: int | None) -> None:
        upto = seq and Position(self.store.thread(name).thread_key, ns, seq)
        wanted = log.states[seq - 1] if seq else log.state
        for snapshots in (True, False):
            replay = self.store.replay(
                name, ns, upto=upto or None, fingerprint=FINGERPRINT, snapshots=snapshots
            )
            parts = replay.snapshot.items if replay.snapshot else ()
            state = [value for part in parts for value in self.store.codec.decode(part)]
            state += [found.data for found in replay.events if found.kind]
            assert state == wanted

    def teardown(self) -> None:
        try:
            for name, logs in self.model.items():
                for ns, log in logs.items():
                    for seq in range(1, len(log.values) + 1):
                        self.check_state(name, ns, log, seq)
            self.store.finish_deletions()
            assert not orphans(self.store)
            for name in list(self.model):
                self.store.delete_thread(name)
            assert not orphans(self.store)
        finally:
            self.patch.undo()
            self.store.close()
            shutil.rmtree(self.folder)


TestStore = StoreMachine.TestCase
# A tenth of what the profile allows: one example here is a hundred calls on a file.
TestStore.settings = settings(
    max_examples=max(15, settings().max_examples // 10), stateful_step_count=25
)
