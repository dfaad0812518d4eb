"""Pruning, deleting runs, and what of it must stay readable."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from eventstore import ConfigurationError, ThreadExistsError
from tests.langgraph.graphs import approval, chat, deltas, nested, question
from tests.langgraph.kit import CONFIG, Driver, facts

Config = Any


def test_pruning_keeps_the_latest_of_each_namespace_and_removes_the_bytes(driver: Driver) -> None:
    app = driver.app(nested(keeps=True))
    app.invoke({"items": ["x"]}, CONFIG)
    latest = [driver.get(each) for each in (CONFIG, _inner("sub"))]
    before = driver.store("stats", "t")
    driver.call("prune", ["t"])
    driver.reopen()
    kept = [driver.get(each) for each in (CONFIG, _inner("sub"))]
    for one, other in zip(latest, kept, strict=True):
        assert one is not None
        assert other is not None
        assert facts(other) == {**facts(one), "parent": None}
    assert len(driver.listed()) == 2
    assert driver.store("stats", "t").events < before.events
    assert driver.store("verify", "t").ok
    # It goes on, and a second call changes nothing.
    driver.call("prune", ["t"])
    from langgraph.types import Command

    assert app.invoke(Command(resume="yes"), CONFIG)["items"][-1] == "yes"


def test_pruning_a_thread_with_a_delta_channel_keeps_its_value(driver: Driver) -> None:
    app = driver.app(deltas())
    for number in range(7):
        app.invoke({"log": [str(number)]}, CONFIG)
    before = app.state().values
    driver.call("prune", ["t"])
    driver.reopen()
    assert app.state().values == before
    assert len(driver.listed()) == 1
    app.invoke({"log": ["after"]}, CONFIG)
    assert "after" in app.state().values["log"]
    assert app.state().values["log"][: len(before["log"])] == before["log"]


def test_pruning_everything_or_nothing(driver: Driver) -> None:
    driver.call("prune", ["absent"])
    driver.app(chat()).invoke(question(1), CONFIG)
    driver.call("prune", ["t"], strategy="delete")
    assert driver.listed() == []
    with pytest.raises(ConfigurationError, match="strategy must be one of"):
        driver.call("prune", ["t"], strategy="oldest")


def test_deleting_a_run_in_the_middle(driver: Driver) -> None:
    app = driver.app(chat())
    for number in range(3):
        app.invoke(question(number), {**CONFIG, "metadata": {"run_id": f"run-{number}"}})
    before = {each.config["configurable"]["checkpoint_id"]: each for each in driver.listed()}
    driver.call("delete_for_runs", ["run-1", "no such run"])
    driver.reopen()
    after = {each.config["configurable"]["checkpoint_id"]: each for each in driver.listed()}
    assert {each.metadata["run_id"] for each in after.values()} == {"run-0", "run-2"}
    assert len(after) == len(before) - 3
    for name, each in after.items():
        assert each.checkpoint == before[name].checkpoint
        assert each.pending_writes == before[name].pending_writes
    stored = b"".join(repr(each).encode() for each in _events(driver))
    assert b"question 1" not in stored
    app.invoke(question(9), CONFIG)
    assert len(app.state().values["messages"]) == 8


def test_deleting_all_runs_of_a_thread_deletes_it(driver: Driver) -> None:
    config = {**CONFIG, "metadata": {"run_id": "only"}}
    driver.app(chat()).invoke(question(1), config)
    other: Config = {"configurable": {"thread_id": "other"}, "metadata": {"run_id": "x"}}
    driver.app(chat()).invoke(question(1), other)
    driver.call("delete_for_runs", ["only"])
    assert driver.get() is None
    assert driver.get(other) is not None


def test_deleting_a_run_keeps_what_delta_channels_are_made_of(driver: Driver) -> None:
    app = driver.app(deltas())
    for number in range(3):
        config = {**CONFIG, "metadata": {"run_id": f"run-{number}"}}
        app.invoke({"log": [str(number)]}, config)
    before = app.state().values
    driver.call("delete_for_runs", ["run-0"])
    driver.reopen()
    assert app.state().values == before


def test_copying_takes_the_whole_chain(driver: Driver) -> None:
    app = driver.app(deltas())
    for number in range(4):
        app.invoke({"log": [str(number)]}, CONFIG)
    driver.call("copy_thread", "t", "copy")
    copy: Config = {"configurable": {"thread_id": "copy"}}
    assert app.state(copy).values == app.state().values
    assert driver.store("stats", "copy").events == 1
    driver.call("prune", ["t"])
    driver.call("delete_thread", "t")
    driver.reopen()
    assert len(driver.listed(copy)) > 1
    app.invoke({"log": ["more"]}, copy)
    assert "more" in app.state(copy).values["log"]
    with pytest.raises(ThreadExistsError):
        driver.call("copy_thread", "copy", "copy")


@pytest.mark.slow
def test_a_trimmed_thread_keeps_its_latest_checkpoint(driver: Driver) -> None:
    app, memory = driver.app(deltas()), InMemorySaver()
    for number in range(40):
        app.invoke({"log": [str(number)]}, CONFIG)
    latest, values, everything = driver.get(), app.state().values, driver.listed()
    point = driver.store("trim_points", "t")[-1]
    assert driver.store("trim", "t", point.seq).events > 0
    driver.reopen()
    assert facts(driver.get()) == facts(latest)
    assert app.state().values == values
    listed = driver.listed()
    assert 0 < len(listed) < len(everything)
    assert [facts(each) for each in listed] == [facts(each) for each in everything[: len(listed)]]
    assert driver.store("verify", "t").ok
    app.invoke({"log": ["on"]}, CONFIG)
    assert app.state().values["log"][: len(values["log"])] == values["log"]
    assert memory is not None


@pytest.mark.slow
def test_an_interrupt_survives_a_trim_and_its_thread_waits(driver: Driver) -> None:
    from langgraph.types import Command

    driver.run(driver.saver.setup()) if driver.is_async else driver.saver.setup()
    app = driver.app(approval())
    for _ in range(10):
        app.invoke({"items": ["x"]}, CONFIG)
        app.invoke(Command(resume="a"), CONFIG)
        app.invoke(Command(resume="b"), CONFIG)
    assert driver.store("thread", "t").status == "idle"
    app.invoke({"items": ["y"]}, CONFIG)
    app.invoke(Command(resume="first"), CONFIG)
    assert driver.store("thread", "t").status == "waiting"
    points = driver.store("trim_points", "t")
    driver.store("trim", "t", points[-1].seq)
    driver.reopen()
    assert [each.value for each in app.state().interrupts] == ["second?"]
    assert "first second" in app.invoke(Command(resume="second"), CONFIG)["items"]
    assert driver.store("thread", "t").status == "idle"


def _inner(ns: str) -> Config:
    return {"configurable": {"thread_id": "t", "checkpoint_ns": ns}}


def _events(driver: Driver) -> list[Any]:
    found = driver.saver.store.read("t")
    return driver._collected(found) if driver.is_async else list(found)
