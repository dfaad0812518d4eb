"""Messages in threads: ids are drawn once, when written, and replay sees the same ones."""

from __future__ import annotations

from typing import Any

import pytest

import graph.run.snapshots
from eventstore import EventStore
from graph import (
    REMOVE_ALL_MESSAGES,
    START,
    CompiledGraph,
    MessagesState,
    RemoveMessage,
    StateGraph,
)
from tests.graph.kit import id_of, on

pytestmark = pytest.mark.usefixtures("without_langchain")


def answer(state: MessagesState) -> dict[str, Any]:
    return {
        "messages": [{"role": "assistant", "content": f"re {state['messages'][-1]['content']}"}]
    }


@pytest.fixture(params=["no snapshots", "many snapshots"])
def app(
    store: EventStore, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> CompiledGraph:
    if request.param == "many snapshots":
        monkeypatch.setattr(graph.run.snapshots, "FLOOR", 1)
        monkeypatch.setattr(graph.run.snapshots, "EVENT_WEIGHT", 1000)
    declared = StateGraph(MessagesState)
    declared.add_node("answer", answer)
    declared.add_edge(START, "answer")
    return declared.compile(store)


def ids(messages: list[dict[str, Any]]) -> list[str]:
    return [message["id"] for message in messages]


def test_ids_are_the_same_at_every_reading(app: CompiledGraph) -> None:
    given = {"messages": [{"role": "user", "content": "hi"}]}
    first = app.invoke(given, on("t"))["messages"]
    assert [m["content"] for m in first] == ["hi", "re hi"] and all(ids(first))
    assert given == {"messages": [{"role": "user", "content": "hi"}]}
    assert app.get_state(on("t")).values["messages"] == first
    second = app.invoke({"messages": "again"}, on("t"))["messages"]
    assert second[:2] == first
    assert app.get_state(on("t")).values["messages"] == second
    for entry in app.get_state_history(on("t"), every=True):
        assert entry.values["messages"] == second[: len(entry.values["messages"])]
        assert app.get_state(entry.config).values == entry.values
    assert app.verify(on("t")).ok


def test_replacing_and_removing(app: CompiledGraph) -> None:
    for text in ("one", "two"):
        messages = app.invoke({"messages": text}, on("t"))["messages"]
    before = app.get_state(on("t"))
    edited = {**messages[0], "content": "ONE"}
    app.update_state(on("t"), {"messages": [edited, RemoveMessage(id=messages[1]["id"])]})
    now = app.get_state(on("t")).values["messages"]
    assert [m["content"] for m in now] == ["ONE", "two", "re two"]
    assert ids(now) == [ids(messages)[0], *ids(messages)[2:]]
    assert app.get_state(before.config).values["messages"] == messages
    app.update_state(on("t"), {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES)]})
    assert app.get_state(on("t")).values["messages"] == []
    assert app.invoke({"messages": "new"}, on("t"))["messages"][0]["content"] == "new"
    assert app.verify(on("t")).ok


def test_a_branch_has_its_parents_messages(app: CompiledGraph, store: EventStore) -> None:
    first = app.invoke({"messages": "one"}, on("t"))["messages"]
    app.invoke({"messages": "two"}, on("t"))
    at = list(app.get_state_history(on("t"), every=True))[2]
    branch = app.invoke({"messages": "other"}, on("u", id_of(at)))["messages"]
    assert branch[:2] == first and branch[2]["content"] == "other"
    store.delete_thread("t")
    assert app.get_state(on("u")).values["messages"] == branch
