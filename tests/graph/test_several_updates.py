"""A task may make several updates at once: a list of commands and dicts, or (key, value) pairs.

Everything that shows what a task wrote shows all of it, in LangGraph's form.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, Final, TypedDict

import pytest

from eventstore import EventStore
from graph import START, Command, CompiledGraph, InvalidUpdateError, StateGraph, interrupt
from tests.graph.differential import OURS, THEIRS, Seen
from tests.graph.kit import Trail, on

PAIRS: Final = [("log", ["x"]), ("note", "n"), ("log", ["y"])]
TWICE: Final = [("note", "x"), ("note", "y")]


# --- as in LangGraph --------------------------------------------------------------------

RESULTS: Final[dict[str, Callable[[Any], Any]]] = {
    "commands": lambda lib: [
        lib.Command(update={"log": ["1"]}),
        lib.Command(update={"log": ["2"]}),
    ],
    "a dict and a command": lambda lib: [
        {"log": ["1"]},
        lib.Command(update={"log": ["2"], "shared": "s"}),
    ],
    "a tuple of other keys": lambda lib: (
        {"log": ["1"]},
        lib.Command(update={"shared": "s"}),
    ),
    "nothing and a command": lambda lib: [None, lib.Command(update={"shared": "s"})],
    "a command that goes on": lambda lib: [lib.Command(goto="b"), {"log": ["1"]}],
    "a command that only goes on": lambda lib: lib.Command(goto="b"),
    "three": lambda lib: [
        lib.Command(update={"log": ["1"]}),
        {"log": ["2"]},
        lib.Command(update={"log": ["3"], "shared": "s"}, goto="b"),
    ],
    "pairs": lambda lib: lib.Command(update=[("log", ["1"]), ("shared", "s")]),
    "pairs of one key": lambda lib: lib.Command(update=(("log", ["1"]), ("log", ["2"]))),
    "no pairs": lambda lib: lib.Command(update=[]),
    "commands with pairs": lambda lib: [
        lib.Command(update=[("log", ["1"])]),
        lib.Command(update=[("log", ["2"])]),
    ],
}


def seen(library: Any, result: Callable[[Any], Any]) -> Any:
    """All that shows what a node wrote."""
    graph = library.StateGraph(Seen)
    graph.add_node("a", lambda state: result(library), destinations=("b",))
    graph.add_node("b", lambda state: {"log": ["b"]})
    graph.add_edge(library.START, "a")
    app = graph.compile(library.saver())
    config: Any = {"configurable": {"thread_id": "t"}}
    updates, tasks = [], []
    for mode, chunk in app.stream({"log": ["in"]}, config, stream_mode=["updates", "tasks"]):
        if mode == "updates":
            updates.append(chunk)
        elif "result" in chunk:
            tasks.append(chunk["result"])
    history = [
        [task.result for task in state.tasks]
        for state in app.get_state_history(config)
        if state.metadata["step"] >= 0
    ]
    return updates, tasks, history, app.get_state(config).values


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_what_a_task_wrote_is_shown_alike(result: Callable[[Any], Any]) -> None:
    assert seen(OURS, result) == seen(THEIRS, result)


# --- wherever a command is taken --------------------------------------------------------


def asks(store: Any) -> CompiledGraph:
    graph = StateGraph(Trail).add_node("ask", lambda state: {"log": [interrupt("?")]})
    return graph.add_edge(START, "ask").compile(checkpointer=store)


def test_pairs_begin_a_thread(store: EventStore) -> None:
    app = asks(store)
    app.invoke(Command(update=PAIRS), on("t"))
    assert app.get_state(on("t")).values == {"log": ["x", "y"], "total": 0, "note": "n"}


def test_pairs_beside_a_resume_value(store: EventStore) -> None:
    app = asks(store)
    app.invoke({}, on("t"))
    result = app.invoke(Command(resume="yes", update=PAIRS), on("t"))
    assert result == {"log": ["x", "y", "yes"], "total": 0, "note": "n"}


def test_pairs_as_an_edit(store: EventStore) -> None:
    app = asks(store)
    app.invoke({}, on("t"))
    app.update_state(on("t"), Command(update=PAIRS), as_node="ask")
    assert app.get_state(on("t")).values == {"log": ["x", "y"], "total": 0, "note": "n"}
    assert list(app.events(on("t")))[-1].writes == {
        "log": {"$writes": [["x"], ["y"]]},
        "note": "n",
    }


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def test_pairs_for_the_graph_above(store: EventStore) -> None:
    def node(_state: Log) -> Any:
        return Command(graph=Command.PARENT, update=PAIRS)

    inner = StateGraph(Log).add_node(node).add_edge(START, "node").compile()
    app = StateGraph(Trail).add_node("inner", inner).add_edge(START, "inner").compile(store)
    (update,) = app.stream({}, on("t"), stream_mode="updates")
    assert update == {"inner": [{"log": ["x"]}, {"note": "n"}, {"log": ["y"]}]}
    assert app.get_state(on("t")).values == {"log": ["x", "y"], "total": 0, "note": "n"}


@pytest.mark.parametrize(
    ("update", "said"),
    [
        (TWICE, r"'note' was written twice in superstep \d: by"),
        ([("typo", 1)], "'typo' is not a key"),
        ([("log",)], r"a list of \(key, value\) pairs"),
        ([(1, 2)], r"a list of \(key, value\) pairs"),
        ("log", r"a list of \(key, value\) pairs"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(store: EventStore, update: Any, said: str) -> None:
    command: Command[Any] = Command(update=update)
    app = asks(store)
    with pytest.raises(InvalidUpdateError, match=said):
        app.invoke(command, on("new"))
    assert list(store.threads()) == []
    app.invoke({}, on("t"))
    before = list(app.events(on("t")))
    with pytest.raises(InvalidUpdateError, match=said):
        app.invoke(Command(resume="yes", update=update), on("t"))
    with pytest.raises(InvalidUpdateError, match=said):
        app.update_state(on("t"), command, as_node="ask")
    assert list(app.events(on("t"))) == before

    graph = StateGraph(Trail).add_node("says", lambda state: command)
    with pytest.raises(InvalidUpdateError, match=said):
        graph.add_edge(START, "says").compile().invoke({})


def test_the_same_key_in_several_updates_is_replayed(store: EventStore) -> None:
    def node(_state: Trail) -> Any:
        return [{"log": ["1"]}, Command(update={"log": ["2"]}), Command(update=[("log", ["3"])])]

    app = StateGraph(Trail).add_node(node).add_edge(START, "node").compile(store)
    assert app.invoke({"log": ["0"]}, on("t"))["log"] == ["0", "1", "2", "3"]
    assert app.replay(on("t")).values["log"] == ["0", "1", "2", "3"]
    assert app.check_replay(on("t")).ok
    app.invoke(Command(update=PAIRS, goto="node"), on("t"))
    assert app.check_replay(on("t")).ok
    entry = list(app.events(on("t")))[1]
    assert entry.writes == {"log": {"$writes": [["1"], ["2"], ["3"]]}}
