"""A snapshot is optional: one that cannot be made costs an append nothing (rule 11)."""

from __future__ import annotations

import io
import logging
import operator
import re
import threading
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np
import pytest

import graph.run.snapshots
from eventstore import Codec, EventStore, SerializationError
from graph import START, SqliteSaver, StateGraph


class Unstorable:
    """What a reducer of the application makes."""


class State(TypedDict, total=False):
    seen: Annotated[Any, lambda old, new: Unstorable()]
    docs: Annotated[dict[str, str], operator.or_]
    note: str
    pad: Annotated[list[str], operator.add]
    value: Any


CONFIG: Any = {"configurable": {"thread_id": "t"}}


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph.run.snapshots, "FLOOR", 1)
    monkeypatch.setattr(graph.run.snapshots, "EVENT_WEIGHT", 10_000)


def app_of(store: Any, update: dict[str, Any]) -> Any:
    built = StateGraph(State)
    built.add_node("n", lambda state: update)
    built.add_edge(START, "n")
    return built.compile(store)


def test_a_state_that_cannot_be_stored_runs_on(
    store: EventStore, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of(store, {"seen": 1, "pad": ["x"]})
    with caplog.at_level(logging.WARNING, logger="graph"):
        for _ in range(20):
            app.invoke({"seen": 0}, CONFIG)
    assert len(app.get_state(CONFIG).values["pad"]) == 20
    warned = [record for record in caplog.records if "no snapshot" in record.getMessage()]
    assert len(warned) == 1, "said once, not at every run"
    assert "seen" in warned[0].getMessage()


@dataclass
class Guest:
    """What an application forgot to name in its annotations."""

    name: str


REMEDIES: dict[str, tuple[Any, str]] = {
    "a class with fields": ([Guest("Ann")], r"seen\[0\]: .*Guest.* as in list\[Guest\]"),
    "another class": ({"x": Unstorable()}, r"seen\.x: .*codec.register\(Unstorable, .*pack=…"),
    "a function": ({"f": len}, r"seen\.f: .*exists only in this process.*make it again"),
    "a lock": (threading.Lock(), r"seen: .*exists only in this process"),
    "an open file": (io.BytesIO(), r"seen: .*exists only in this process"),
}


@pytest.mark.parametrize("case", REMEDIES)
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_what_a_reducer_makes_is_told_at_its_first_call(
    store: EventStore,
    case: str,
    durability: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graph.run.snapshots, "FLOOR", 10**9)  # no snapshot is due
    made, told = REMEDIES[case]

    keys: Any = {
        "seen": Annotated[Any, lambda old, new: made],
        "sums": Annotated[int, lambda old, new: old + new],
    }
    Reduced: Any = TypedDict("Reduced", keys, total=False)  # type: ignore[misc]
    built = StateGraph(Reduced).add_node("n", lambda state: {"seen": 1, "sums": 1})
    app = built.add_edge(START, "n").compile(store)
    with caplog.at_level(logging.WARNING, logger="graph"):
        for _ in range(3):
            assert app.invoke({"seen": 0}, CONFIG, durability=durability)["seen"] == made
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 1, warned
    assert re.search(told, warned[0]), warned[0]


def test_what_a_node_returns_is_refused_with_the_same_remedy(store: EventStore) -> None:
    for value, told in REMEDIES.values():
        app = app_of(store, {"value": value})
        written = told.replace("seen", r"writes\.value").replace(": .*", " of type .*", 1)
        with pytest.raises(SerializationError, match=written):
            app.invoke({}, CONFIG)
    app = app_of(store, {"value": Counter("aab")})
    app.invoke({}, CONFIG)
    assert app.get_state(CONFIG).values["value"] == Counter("aab")


def test_a_remedy_that_is_followed_works(tmp_path: Path) -> None:
    class Annotated_(TypedDict, total=False):
        value: list[Guest]

    guests = [Guest("Ann")]
    registered = Codec()
    registered.register(Guest, name="guest")
    for codec, schema in ((None, Annotated_), (registered, State)):
        with SqliteSaver(tmp_path / f"{schema.__name__}.db", codec=codec) as saver:
            built = StateGraph(schema).add_node("n", lambda state: {"value": guests})
            app = built.add_edge(START, "n").compile(saver)
            app.invoke({}, CONFIG)
            assert app.get_state(CONFIG).values["value"] == guests


def test_a_state_that_is_too_large_for_a_snapshot_runs_on(store_url: str) -> None:
    codec = Codec(max_decoded_bytes=20_000)
    with EventStore(store_url, codec=codec) as store:
        app = app_of(store, {})
        for number in range(30):
            app.invoke({"docs": {str(number): "y" * 1_000}}, CONFIG)
        assert len(app.get_state(CONFIG).values["docs"]) == 30
        app.invoke({"note": "tiny"}, CONFIG)


@pytest.mark.parametrize(
    "value",
    [float("nan"), [float("nan")], np.arange(3), Decimal("nan"), {"x": np.array([1.5])}],
    ids=repr,
)
def test_verify_judges_by_what_is_stored(store: EventStore, value: Any) -> None:
    """Not by `==`, which is false for NaN and no answer for arrays."""
    app = app_of(store, {"value": value, "pad": ["x"]})
    for _ in range(5):
        app.invoke({}, CONFIG)
    report = app.verify(CONFIG)
    assert report.ok, report.problems
    assert app.check_replay(CONFIG).ok


def test_verify_still_finds_a_snapshot_that_differs(store: EventStore) -> None:
    app = app_of(store, {"pad": ["x"]})
    for _ in range(5):
        app.invoke({}, CONFIG)

    class Other(TypedDict, total=False):
        pad: Annotated[list[str], operator.add]

    built = StateGraph(State)
    built.add_node("n", lambda state: {})
    built.add_edge(START, "n")
    other: Any = built.compile(store)
    channel = other.topology.channels["pad"]
    object.__setattr__(channel, "reducer", lambda old, new: [*old, *new, "more"])
    assert not other.verify(CONFIG).ok
