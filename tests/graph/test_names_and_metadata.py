"""Names that cannot be stored are refused by a graph; metadata that cannot be never fails a run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, TypedDict
from uuid import UUID

import pytest

from eventstore import ConfigurationError, EventStore
from graph import START, CompiledGraph, InvalidConfigError, InvalidGraphError, StateGraph

NO_NAMES = ["a\0b", "\ud800"]


class State(TypedDict, total=False):
    total: int


class Colour(StrEnum):
    RED = "red"


def compiled(store: Any, name: str = "count") -> CompiledGraph:
    declared = StateGraph(State).add_node(name, lambda state: {"total": 1})
    return declared.add_edge(START, name).compile(checkpointer=store)


def place(thread_id: Any, **more: Any) -> Any:
    return {"configurable": {"thread_id": thread_id, **more}}


@pytest.fixture
def app(store: EventStore) -> Iterator[CompiledGraph]:
    return compiled(store)


CALLS: dict[str, Callable[[CompiledGraph, Any], object]] = {
    "invoke": lambda app, config: app.invoke({}, config),
    "exit": lambda app, config: app.invoke({}, config, durability="exit"),
    "stream": lambda app, config: list(app.stream({}, config)),
    "get_state": lambda app, config: app.get_state(config),
    "get_state_history": lambda app, config: list(app.get_state_history(config, every=True)),
    "update_state": lambda app, config: app.update_state(config, {"total": 2}),
    "events": lambda app, config: list(app.events(config)),
    "verify": lambda app, config: app.verify(config),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", NO_NAMES, ids=repr)
def test_a_thread_id_that_cannot_be_stored(app: CompiledGraph, call: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match="thread_id"):
        CALLS[call](app, place(name))
    if call != "verify":  # it looks at all logs of a thread
        with pytest.raises((ConfigurationError, InvalidConfigError)):
            CALLS[call](app, place("t", checkpoint_ns=name))


@pytest.mark.parametrize("thread_id", [b"t", True, 1.5])
def test_a_thread_id_of_a_wrong_type(app: CompiledGraph, thread_id: Any) -> None:
    with pytest.raises(InvalidConfigError, match="thread_id must be text"):
        app.invoke({}, place(thread_id))


@pytest.mark.parametrize("thread_id", ["t", 7, UUID(int=7), Colour.RED])
def test_a_thread_id_that_has_a_text(app: CompiledGraph, thread_id: Any) -> None:
    app.invoke({}, place(thread_id))
    assert app.get_state(place(str(thread_id))).values == {"total": 1}


@pytest.mark.parametrize("name", NO_NAMES, ids=repr)
def test_a_node_name_that_cannot_be_stored(store: EventStore, name: str) -> None:
    with pytest.raises(InvalidGraphError, match="the name of a node"):
        compiled(store, name)


STRANGE: dict[Any, Any] = {
    "nul": "a\0b",
    "half": "\ud800",
    "nan": float("nan"),
    "infinite": float("inf"),
    "huge": 10**5000,
    "long": "x" * 100_000,
    "lock": threading.Lock(),
    "object": object(),
    "nested": {"lock": [threading.Lock()]},
    "na\0me": 1,
    7: "a number for a name",
    (1, 2): "a tuple for a name",
    "enum": Colour.RED,
}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_metadata_that_cannot_be_stored_is_left_out(
    app: CompiledGraph, store: EventStore, durability: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config: Any = {**place("t"), "metadata": {"user": "ann", **STRANGE, "level": 1}}
    with caplog.at_level(logging.WARNING, "graph"):
        for _ in range(3):
            assert app.invoke({}, config, durability=durability) == {"total": 1}
        app.update_state(config, {"total": 2})
    for wanted in ({"user": "ann"}, {"level": 1}, {"user": "ann", "level": 1}):
        assert [info.thread_id for info in store.threads(metadata=wanted)] == ["t"]
    recorded = app.get_state(place("t")).metadata or {}
    assert recorded["user"] == "ann"
    assert not {"lock", "object", "nested"} & recorded.keys()
    assert app.verify(place("t")).ok
    reported = [record.message for record in caplog.records]
    assert len(reported) == len(set(reported))
    for name in ("nan", "infinite", "long", "lock", "object", "nested"):
        assert any(f"metadata {name!r} " in message for message in reported), name


def test_metadata_of_large_total_size(app: CompiledGraph, store: EventStore) -> None:
    many = {f"name {number}": "x" * 1_000 for number in range(1_000)}
    config: Any = {**place("t"), "metadata": many}
    app.invoke({}, config)
    found = store.thread("t").metadata
    assert 50 < len(found) < 66
    assert found.items() <= many.items()
