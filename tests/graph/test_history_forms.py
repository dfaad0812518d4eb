"""A history as LangGraph lists it, and as it was recorded: each entry can be read and gone to."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import EventStore, PositionNotFoundError
from graph import START, Command, CompiledGraph, StateGraph, StateSnapshot, interrupt
from tests.graph.kit import Trail, logs, on, steps


def asking(store: EventStore) -> CompiledGraph:
    def ask(state: Trail) -> dict[str, Any]:
        return {"log": [interrupt("first"), interrupt("second")]}

    made = StateGraph(Trail).add_node("ask", ask).add_node("end", logs("end"))
    return made.add_edge(START, "ask").add_edge("ask", "end").compile(store)


def listed(app: CompiledGraph, **options: Any) -> list[tuple[str, int, tuple[str, ...]]]:
    found = app.get_state_history(on("t"), **options)
    return [(s.metadata["source"], s.metadata["step"], s.next) for s in found if s.metadata]


def by_config(app: CompiledGraph) -> list[StateSnapshot]:
    return [app.get_state(each.config) for each in app.get_state_history(on("t"))]


def test_an_input_has_a_checkpoint_before_and_after_it(store: EventStore) -> None:
    app = steps("a", store)
    app.invoke({"log": ["x"]}, on("t"))
    app.invoke({"log": ["y"]}, on("t"))
    assert listed(app) == [
        ("loop", 4, ()),
        ("loop", 3, ("a",)),
        ("input", 2, (START,)),
        ("loop", 1, ()),
        ("loop", 0, ("a",)),
        ("input", -1, (START,)),
    ]
    history = list(app.get_state_history(on("t")))
    assert by_config(app) == history
    assert [each.parent_config for each in history] == [
        *(each.config for each in history[1:]),
        None,
    ]
    assert [each.values["log"] for each in history[2:]] == [["x", "a"], ["x", "a"], ["x"], []]
    (task,) = history[2].tasks
    assert (task.name, task.result) == (START, {"log": ["y"]})


def test_every_place_in_a_history_can_be_listed_from(store: EventStore) -> None:
    app = steps("a", store)
    app.invoke({"log": ["x"]}, on("t"))
    app.invoke({"log": ["y"]}, on("t"))
    history = list(app.get_state_history(on("t")))
    for place, each in enumerate(history):
        assert list(app.get_state_history(on("t"), before=each.config)) == history[place + 1 :]
        assert list(app.get_state_history(on("t"), limit=place)) == history[:place]


def test_going_back_to_before_an_input_runs_it_again(store: EventStore) -> None:
    app = steps("a", store)
    app.invoke({"log": ["x"]}, on("t"))
    app.invoke({"log": ["y"]}, on("t"))
    before = next(s for s in app.get_state_history(on("t")) if s.next == (START,))
    assert app.invoke(None, before.config)["log"] == ["x", "a", "y", "a"]
    assert [each[:2] for each in listed(app)[:3]] == [("loop", 5), ("fork", 4), ("loop", 4)]
    assert app.verify(on("t")).ok


def test_a_superstep_is_one_checkpoint_with_its_last_interrupts(store: EventStore) -> None:
    app = asking(store)
    app.invoke({}, on("t"))
    waits = app.get_state(on("t"))
    assert waits.metadata and waits.metadata["source"] == "loop"
    for answer in (1, 2):
        app.invoke(Command(resume=answer), on("t"))
    assert [each[1:] for each in listed(app)] == [
        (2, ()),
        (1, ("end",)),
        (0, ("ask",)),
        (-1, (START,)),
    ]
    assert by_config(app) == list(app.get_state_history(on("t")))
    asked = list(app.get_state_history(on("t")))[2]
    assert [each.value for each in asked.interrupts] == ["second"]
    assert [each[0] for each in listed(app, every=True)] == [
        "loop",
        "loop",
        "interrupt",
        "interrupt",
        "input",
    ]
    assert listed(app, filter={"source": "interrupt"}) == [("interrupt", 0, ("ask",))] * 2


@pytest.mark.parametrize("edited", [False, True])
def test_what_continues_from_a_fork_stands_for_it(store: EventStore, edited: bool) -> None:
    app = steps("ab", store)
    app.invoke({"log": ["x"]}, on("t"))
    at = next(s for s in app.get_state_history(on("t")) if s.next == ("b",))
    config = app.update_state(at.config, {"log": ["u"]}) if edited else at.config
    app.invoke(None if edited else {"log": ["y"]}, config)
    found = list(app.get_state_history(on("t")))
    first = next(s for s in found if s.parent_config == at.config and s is not found[-4])
    assert first.metadata and first.metadata["source"] == ("update" if edited else "input")
    assert "fork" not in {source for source, _, _ in listed(app)}
    assert "fork" in {source for source, _, _ in listed(app, every=True)}
    assert by_config(app) == found


def test_a_checkpoint_before_no_input_is_refused(store: EventStore) -> None:
    app = steps("a", store)
    app.invoke({"log": ["x"]}, on("t"))
    end = app.get_state(on("t")).config["configurable"]["checkpoint_id"]
    with pytest.raises(PositionNotFoundError, match="no input was recorded there"):
        app.get_state(on("t", f"{end[:-1]}1i"))


def test_snapshots_change_no_parent(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.run.snapshots.FLOOR", 1)
    monkeypatch.setattr("graph.run.snapshots.EVENT_WEIGHT", 100_000)
    app = steps("ab", store)
    app.invoke({"log": ["x"]}, on("t"))
    at = next(s for s in app.get_state_history(on("t")) if s.next == ("b",))
    config = app.update_state(at.config, {"log": ["u"]})
    app.invoke(None, config)
    found = list(app.get_state_history(on("t")))
    assert found[1].parent_config == at.config
    assert by_config(app) == found
    assert app.verify(on("t")).ok


@pytest.mark.parametrize("block", [1, 2, 3, 5])
def test_where_blocks_of_a_history_end_makes_no_difference(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    app = asking(store)
    app.invoke({"log": ["x"]}, on("t"))
    for answer in (1, 2):
        app.invoke(Command(resume=answer), on("t"))
    at = next(s for s in app.get_state_history(on("t")) if s.next == ("end",))
    app.invoke(None, app.update_state(at.config, {"log": ["u"]}))
    app.invoke({"log": ["y"]}, at.config)
    found = list(app.get_state_history(on("t")))
    monkeypatch.setattr("graph.read.history.BLOCK", block)
    assert list(app.get_state_history(on("t"))) == found
