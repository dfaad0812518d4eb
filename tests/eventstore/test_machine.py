"""Any mix of calls against a plain dictionary: what is read is what was written.

The model holds, for every log, its events and the state after each of them; a fork copies the
state it goes back to. The store must give the same, whatever was snapshotted, forked, sealed,
trimmed, pruned, archived, restored, deleted, cut off or reopened meanwhile.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
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
    Expired,
    Fork,
    NewSnapshot,
    Position,
    PositionNotFoundError,
    ThreadExistsError,
    ThreadNotFoundError,
)
from tests import postgres
from tests.awaited import core_of
from tests.eventstore.support import FINGERPRINT, orphans, rows_of, seal_now, set_everywhere, sql

pytestmark = pytest.mark.slow

NAMES = ("a", "b", "c", "d")
SPACES = ("", "sub")

names = st.sampled_from(NAMES)
spaces = st.sampled_from(SPACES)
cuts = st.one_of(st.just(0), st.integers(1, 150))
"""After how many steps of the database what it is asked for is cut off; 0: not at all."""
batches = st.lists(st.integers(0, 99), min_size=1, max_size=5)


@dataclass
class Log:
    """What one log must hold."""

    values: list[Any] = field(default_factory=list)  # None where a fork is
    states: list[list[int]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    snapshot: int | None = None  # the last one that a new one may rest on
    begins: int = 0  # the base at which its history begins

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


class CutOff(EventStoreError):
    """What ends a call in its middle on PostgreSQL."""


class StoreMachine(RuleBasedStateMachine):
    """Random calls on a store in a file."""

    def __init__(self) -> None:
        super().__init__()
        self.resources = ExitStack()
        self.url = self.database()
        self.model: dict[str, dict[str, Log]] = {}
        self.patch = self.resources.enter_context(pytest.MonkeyPatch.context())
        self.opened()

    def database(self) -> str:
        """A new database, for as long as this machine runs."""
        folder = self.resources.enter_context(tempfile.TemporaryDirectory(prefix="machine-"))
        return f"sqlite:///{folder}/store.db"

    @initialize(whole=st.booleans())
    def choose(self, whole: bool) -> None:
        """Whether forks are given whole histories, or what they need from a snapshot on."""
        set_everywhere(self.patch, "WHOLE_MAX", 1_000 if whole else 0)

    def opened(self) -> None:
        self.store = EventStore(self.url)
        self.store.setup()
        self.cut_after = 0
        self.watch()

    def watch(self) -> None:
        """From now on calls may be cut off."""

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

    @contextmanager
    def cutting(self, cut: int) -> Iterator[None]:
        """What happens here may be cut off at any moment; 0: not."""
        self.cut_after = cut
        try:
            yield
        except EventStoreError:
            assert cut
        finally:
            self.cut_after = 0

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
        if seq < source.begins:
            with pytest.raises(PositionNotFoundError):
                self.store.fork(name, seq, new if new not in self.model else "new", ns=ns)
            return
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
        if seq < source.begins:
            with pytest.raises(PositionNotFoundError):
                self.store.append(name, [Fork(position)], len(log.values), ns)
            return
        self.store.append(name, [Fork(position)], len(log.values), ns)
        log.go_to(source.states[seq - 1])

    # --- forgetting ---

    @precondition(lambda self: self.model)
    @rule(data=st.data(), events_max=st.integers(1, 6), cut=cuts)
    def seal(self, data: st.DataObject, events_max: int, cut: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        set_everywhere(self.patch, "EVENTS_MAX", events_max)
        with self.cutting(cut):
            seal_now(self.store, name)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), cut=cuts)
    def trim(self, data: st.DataObject, cut: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        points = self.store.trim_points(name)
        if not points:
            return
        point = data.draw(st.sampled_from(points))
        with self.cutting(cut):
            self.store.trim(name, point.seq)
        log = self.written(name, "")
        begins = self.beginning(name)
        assert begins in {log.begins, *(each.seq for each in points if each.seq <= point.seq)}
        if not cut:
            assert begins == point.seq
        log.begins = begins
        if log.snapshot is not None and log.snapshot < begins:
            log.snapshot = None

    def beginning(self, name: str) -> int:
        """Where the history of a thread's root log begins, going by its rows."""
        query = "SELECT max(seq) FROM snapshots WHERE is_base AND ns = '' AND thread_key = ?"
        ((base,),) = sql(self.store, query, (self.store.thread(name).thread_key,))
        return base or 0

    @precondition(lambda self: self.model)
    @rule(data=st.data(), cut=cuts)
    def prune(self, data: st.DataObject, cut: int) -> None:
        """Many at once; what is too large for that goes by itself."""
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.model)), unique=True, min_size=1))
        keys = {name: self.store.thread(name).thread_key for name in chosen}
        with self.cutting(cut):
            batch = [Expired(key, None, "over") for key in keys.values()]
            outcomes = core_of(self.store).prune(batch, rows=data.draw(st.integers(1, 40)))
            assert "gone" not in outcomes
            assert "kept" not in outcomes
            for name, outcome in zip(chosen, outcomes, strict=False):
                if outcome == "large":
                    self.store.delete_thread(name)
        for name in chosen:
            if not self.store.head(name).exists:
                del self.model[name]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), cut=cuts)
    def archive_and_restore(self, data: st.DataObject, cut: int) -> None:
        """A thread comes back as it was, whatever became of those that it was forked from."""
        name = data.draw(st.sampled_from(sorted(self.model)))
        key = self.store.thread(name).thread_key
        with self.store.dump(name) as dump:
            file = b"".join(dump)
            ends = dump.ends
        assert self.store.delete_thread(name, unchanged=ends)
        self.store.finish_deletions()
        with self.cutting(cut):
            self.store.load(file)
        if not self.store.head(name).exists:
            self.store.load(file)
        assert self.store.thread(name).thread_key == key

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
                events = list(self.store.read(name, ns, after=log.begins))
                assert [e.seq for e in events] == list(range(log.begins + 1, len(log.values) + 1))
                assert [e.data if e.kind else None for e in events] == log.values[log.begins :]
                assert [e.key for e in events] == log.keys[log.begins :]
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
                    for seq in range(max(1, log.begins), len(log.values) + 1):
                        self.check_state(name, ns, log, seq)
                    for seq in range(1, log.begins):
                        with pytest.raises(PositionNotFoundError, match=r"begins at"):
                            self.check_state(name, ns, log, seq)
            self.store.finish_deletions()
            assert not orphans(self.store)
            for name in list(self.model):
                self.store.delete_thread(name)
            assert not orphans(self.store)
        finally:
            self.store.close()
            self.resources.close()


class ServerMachine(StoreMachine):
    """The same on PostgreSQL, where calls are cut off before a statement."""

    def database(self) -> str:
        try:
            return self.resources.enter_context(postgres.database(_set_up))
        except postgres.NoServer as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))

    def watch(self) -> None:
        def executes(*_: Any) -> None:
            if self.cut_after:
                self.cut_after = max(0, self.cut_after - STATEMENT)
                if not self.cut_after:
                    raise CutOff

        event.listen(self.store.engine, "before_cursor_execute", executes)


STATEMENT = 6
"""Steps that a statement counts for."""


def _set_up(url: str) -> None:
    with EventStore(url) as store:
        store.setup()


TestStore = StoreMachine.TestCase
# A tenth of what the profile allows: one example here is a hundred calls on a file.
TestStore.settings = settings(
    max_examples=max(15, settings().max_examples // 10), stateful_step_count=25
)
TestServer = ServerMachine.TestCase
TestServer.settings = settings(
    max_examples=max(6, settings().max_examples // 25), stateful_step_count=20, deadline=None
)
