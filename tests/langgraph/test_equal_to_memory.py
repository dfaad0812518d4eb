"""Whatever is put, the saver returns what LangGraph's saver in memory returns.

A state machine puts checkpoints and writes in any order, on any branch, and compares everything
that can be read. In between the store is closed and opened, its snapshots are deleted, its events
sealed, and the thread is written to a file and loaded from it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from langgraph.checkpoint.base import WRITES_IDX_MAP, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver

from tests.effort import effort
from tests.langgraph.kit import Driver, driving, facts

NAMESPACES: Final = ("", "sub", "node:1", "node:1|inner:2")
CHANNELS: Final = ("messages", "text", "files", "count", "delta")
WORDS: Final = ("alpha", "beta", "gamma", "delta", "a longer word, several times over. " * 4)

values = st.one_of(
    st.none(),
    st.integers(-(2**31), 2**31),
    st.sampled_from(WORDS),
    st.lists(st.sampled_from(WORDS), max_size=30),
    st.dictionaries(st.sampled_from(WORDS), st.integers(0, 9), max_size=5),
    st.binary(max_size=300),
)


class Savers(RuleBasedStateMachine):
    """Ours and LangGraph's, side by side."""

    open: Callable[[ExitStack], Driver]

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        self.clock = datetime(2026, 1, 1, tzinfo=UTC)
        self.ours = self.open(self.stack)
        self.theirs = InMemorySaver()
        self.ids: dict[str, list[str]] = {ns: [] for ns in NAMESPACES}
        self.versions: dict[tuple[str, str], dict[str, Any]] = {}
        self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            with self.stack:
                self.all_is_equal()

    def both(self, name: str, *args: Any) -> None:
        getattr(self.theirs, name)(*args)
        self.ours.call(name, *args)

    # --- what LangGraph does ------------------------------------------------------------

    @rule(
        ns=st.sampled_from(NAMESPACES),
        pick=st.integers(0, 5),
        changes=st.dictionaries(st.sampled_from(CHANNELS), st.one_of(values, st.just("?"))),
        backwards=st.booleans(),
        data=st.data(),
    )
    def put(self, ns: str, pick: int, changes: dict[str, Any], backwards: bool, data: Any) -> None:
        """A checkpoint: mostly of the last one, and mostly with lists that grew."""
        ids = self.ids[ns]
        parent = None
        if ids:
            parent = ids[-1] if pick < 4 else data.draw(st.sampled_from([*ids, None]))
        self.put_child(ns, parent, changes, backwards)

    def put_child(
        self, ns: str, parent: str | None, changes: dict[str, Any], backwards: bool = False
    ) -> None:
        self.count += 1
        number = 500_000 - self.count if backwards else 500_000 + self.count
        checkpoint: Any = empty_checkpoint()
        checkpoint["id"] = f"1ef4f797-8335-6428-8001-{number:012}"
        before = self.versions.get((ns, parent or ""), {})
        old = self.old_values(ns, parent)
        versions, new = dict(before), {}
        found = {name: old[name] for name in before if name in old}
        for name, value in changes.items():
            versions[name] = new[name] = self.ours.saver.get_next_version(before.get(name), None)
            if name == "delta" or value == "?":
                found.pop(name, None)
            elif isinstance(value, list) and isinstance(old.get(name), list):
                found[name] = old[name] + value
            else:
                found[name] = value
        checkpoint |= {"channel_values": found, "channel_versions": versions}
        checkpoint["versions_seen"] = {"node": dict(before)}
        config = {
            "configurable": {"thread_id": "t", "checkpoint_ns": ns},
            "metadata": {"who": "me"},
        }
        if parent is not None:
            config["configurable"]["checkpoint_id"] = parent
        metadata = {"source": "loop", "step": self.count, "parents": {}, "n\0": "x\0y"}
        self.both("put", config, checkpoint, metadata, new)
        self.ids[ns].append(checkpoint["id"])
        self.versions[ns, checkpoint["id"]] = versions

    def old_values(self, ns: str, parent: str | None) -> dict[str, Any]:
        if parent is None:
            return {}
        found = self.theirs.get_tuple(_config(ns, parent))
        assert found is not None
        return found.checkpoint["channel_values"]

    @rule(
        ns=st.sampled_from(NAMESPACES),
        pick=st.integers(0, 7),
        task=st.integers(0, 2),
        channels=st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3),
        special=st.booleans(),
        value=values,
        data=st.data(),
    )
    def put_writes(
        self,
        ns: str,
        pick: int,
        task: int,
        channels: list[str],
        special: bool,
        value: Any,
        data: Any,
    ) -> None:
        """Writes: mostly for the last checkpoint, else for an older one or one yet to come."""
        ids = self.ids[ns]
        if pick == 0 or not ids:
            name = f"1ef4f797-8335-6428-8001-{500_000 + self.count + 1:012}"
        else:
            name = ids[-1] if pick < 6 else data.draw(st.sampled_from(ids))
        if special:
            channels = [data.draw(st.sampled_from(sorted(WRITES_IDX_MAP)))]
        writes = [(channel, value) for channel in channels]
        task_id = f"00000000-0000-0000-0000-{task:012}"
        self.both("put_writes", _config(ns, name), writes, task_id, f"~path {3 - task}")

    @rule(count=st.integers(1, 40), ns=st.sampled_from(NAMESPACES[:2]))
    def grow(self, count: int, ns: str) -> None:
        """Many supersteps: snapshots become due."""
        for _ in range(count):
            ids = self.ids[ns]
            parent = ids[-1] if ids else None
            if parent is not None:
                task_id = f"00000000-0000-0000-0000-{self.count:012}"
                writes = [("messages", [WORDS[self.count % 5]]), ("delta", self.count)]
                self.both("put_writes", _config(ns, parent), writes, task_id, "")
            self.put_child(ns, parent, {"messages": [WORDS[self.count % 5]], "delta": 1})

    # --- what happens in between --------------------------------------------------------

    @rule()
    def reopen(self) -> None:
        self.ours.reopen()

    @rule()
    def delete_snapshots(self) -> None:
        if self.count:
            self.ours.store("delete_snapshots", "t")
            self.ours.reopen()

    @rule()
    def seal(self) -> None:
        self.clock += timedelta(hours=1)
        if self.count:
            self.ours.store("seal", "t", self.clock - timedelta(minutes=2))
            self.ours.reopen()

    # --- what can be read ---------------------------------------------------------------

    @invariant()
    def the_latest_is_equal(self) -> None:
        for ns in NAMESPACES if hasattr(self, "theirs") else ():
            config = _config(ns, None)
            assert facts(self.ours.get(config)) == facts(self.theirs.get_tuple(config))

    @rule()
    def all_is_equal(self) -> None:
        for ns in NAMESPACES:
            for name in (None, *self.ids[ns][-3:], *self.ids[ns][:1]):
                config = _config(ns, name)
                assert facts(self.ours.get(config)) == facts(self.theirs.get_tuple(config))
                self.deltas_are_equal(config)
        everything = [facts(each) for each in self.theirs.list(_thread())]
        listed = [facts(each) for each in self.ours.listed(_thread())]
        ids = [each["config"]["checkpoint_id"] for each in listed]
        assert ids == sorted(ids, reverse=True)
        assert sorted(listed, key=_order) == sorted(everything, key=_order)

    def deltas_are_equal(self, config: Any) -> None:
        channels = ["delta", "messages", "never"]
        one = self.ours.call("get_delta_channel_history", config=config, channels=channels)
        other = self.theirs.get_delta_channel_history(config=config, channels=channels)
        assert one == other


def _thread() -> Any:
    return {"configurable": {"thread_id": "t"}}


def _config(ns: str, name: str | None) -> Any:
    place = {"thread_id": "t", "checkpoint_ns": ns}
    return {"configurable": place if name is None else {**place, "checkpoint_id": name}}


def _order(found: Any) -> Any:
    return found["config"]["checkpoint_ns"], found["config"]["checkpoint_id"]


@pytest.mark.slow
def test_returns_what_the_saver_in_memory_returns(
    store: str, store_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    class Machine(Savers):
        def open(self, stack: ExitStack) -> Driver:
            url = store_url
            if url == "sqlite://":  # a file can be closed and opened
                url = f"sqlite:///{tmp_path_factory.mktemp('machine')}/store.db"
            opened = stack.enter_context(
                driving(url, store == "async", clock=lambda: self.clock, durability="normal")
            )
            opened.call("delete_thread", "t")
            return opened

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=effort(4, 500),
            stateful_step_count=effort(15, 60),
            deadline=None,
            phases=[Phase.explicit, Phase.generate],  # shrinking hundreds of puts takes minutes
        ),
    )


@pytest.mark.slow
def test_an_archived_thread_reads_the_same(driver: Driver) -> None:
    machine = _grown(driver)
    before = [facts(each) for each in driver.listed()]
    with driver.store("dump", "t") as dump:
        driver.call("delete_thread", "t")
        assert driver.listed() == []
        driver.store("load", dump)
    driver.reopen()
    assert [facts(each) for each in driver.listed()] == before
    machine.put_child("", machine.ids[""][-1], {"messages": ["after"]})
    machine.all_is_equal()


def _grown(driver: Driver) -> Savers:
    """A thread of 150 checkpoints with writes, in both savers."""

    class Machine(Savers):
        def open(self, stack: ExitStack) -> Driver:
            return driver

    machine = Machine()
    machine.begin()
    machine.grow(75, "")
    machine.grow(20, "sub")
    machine.grow(75, "")
    return machine
