"""Files that the first version wrote stay readable, whatever is renamed in the code.

``tests/data`` holds a database with a finished, a waiting, a forked, a sealed, a deleted and an
erased thread, and one archived thread; both were written by the code of version 0.1.0.
"""

from __future__ import annotations

import operator
import shutil
from pathlib import Path
from typing import Annotated, Final, TypedDict

import pytest

from eventstore import EventStore
from graph import END, START, Command, RunnableConfig, SqliteSaver, StateGraph, interrupt

DATA: Final = Path(__file__).parent / "data"


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    answer: str


def ask(state: State) -> State:
    return {"answer": interrupt("ok?"), "log": ["ask"]}


def end(state: State) -> State:
    return {"log": [f"end {state['answer']}"]}


def build() -> StateGraph:
    graph = StateGraph(State)
    graph.add_sequence([ask, end])
    graph.add_edge(START, "ask")
    graph.add_edge("end", END)
    return graph


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(shutil.copy(DATA / "written-by-0.1.0.sqlite", tmp_path / "old.db"))


def test_a_waiting_thread_goes_on(path: str) -> None:
    with SqliteSaver(path) as saver:
        app = build().compile(checkpointer=saver)
        config: RunnableConfig = {"configurable": {"thread_id": "waiting"}}
        assert app.get_state(config).next == ("ask",)
        assert app.invoke(Command(resume="late"), config)["log"] == ["in", "ask", "end late"]


def test_history_and_forks_are_as_they_were(path: str) -> None:
    with SqliteSaver(path) as saver:
        app = build().compile(checkpointer=saver)
        config: RunnableConfig = {"configurable": {"thread_id": "done"}}
        history = list(app.get_state_history(config, every=True))
        assert history[0].values["log"][-1] == "edited"
        assert any(each.values.get("log") == ["in", "ask", "end yes"] for each in history)
        assert [(each.metadata or {})["source"] for each in history].count("fork") == 1


def test_every_thread_verifies_and_can_be_read(path: str) -> None:
    with EventStore(path) as store:
        for thread in store.threads():
            assert store.verify(thread.thread_id).ok, thread.thread_id
        assert [event.data["n"] for event in store.read("cold")] == list(range(400))
        assert [event.data["n"] for event in store.read("again")] == [2]
        pin = store.thread("done").pin
        assert pin is not None
        assert (pin.reason, pin.by) == ("case 12", "legal")
        assert sorted(each.erased for each in store.tombstones()) == [False, True]


def test_an_archived_thread_is_restored(path: str) -> None:
    with EventStore(path) as store, EventStore() as other:
        key = store.thread("again").thread_key
        info = other.load(DATA / "written-by-0.1.0.thread")
        assert (info.thread_id, info.thread_key) == ("again", key)
        assert [event.data for event in other.read("again")] == [{"n": 2}]
