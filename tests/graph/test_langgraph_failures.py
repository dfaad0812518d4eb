"""What a thread shows after a failure: what its siblings have finished, as in LangGraph."""

from __future__ import annotations

import time
from typing import Any, Final

import pytest

from tests.graph.differential import OURS, THEIRS, Seen
from tests.graph.kit import Boom

CONFIG: Final[Any] = {"configurable": {"thread_id": "t"}}


class Thread:
    """A thread of one library, and a graph whose nodes in ``failing`` raise, after the others."""

    def __init__(self, library: Any, shape: str, failing: set[str]) -> None:
        self.library, self.failing = library, failing
        graph = library.StateGraph(Seen)
        graph.add_node("first", self.node("first"))
        graph.add_edge(library.START, "first")
        for name in "abd":
            graph.add_node(name, self.node(name))
        getattr(self, shape)(graph)
        self.app = graph.compile(library.saver())

    def node(self, name: str) -> Any:
        def run(_state: Any) -> Any:
            if name in self.failing:
                time.sleep(0.05)  # LangGraph may throw away siblings that are still running
                raise Boom(name)
            return {"log": [name], "total": 1, **({name: name} if len(name) == 1 else {})}

        return run

    def join(self, graph: Any) -> None:
        graph.add_edge("first", "a")
        graph.add_edge("first", "b")
        graph.add_edge(["a", "b"], "d")

    def sends(self, graph: Any) -> None:
        def sent(state: Any) -> Any:
            if state["total"] == 1 and "sent" in self.failing:
                time.sleep(0.05)
                raise Boom("sent")
            return {"log": [str(state["total"])]}

        def route(_state: Any) -> Any:
            return ["a", *(self.library.Send("sent", {"total": i}) for i in range(3))]

        graph.add_node("sent", sent)
        graph.add_conditional_edges("first", route, ["a", "sent"])
        graph.add_edge("sent", "b")
        graph.add_edge("a", "d")

    def command(self, graph: Any) -> None:
        def goes(_state: Any) -> Any:
            return self.library.Command(update={"log": ["goes"]}, goto="d")

        graph.add_node("goes", goes, destinations=("d",))
        graph.add_edge("first", "goes")
        graph.add_edge("first", "b")
        graph.add_edge("d", "a")

    def inner(self, graph: Any) -> None:
        within = self.library.StateGraph(Seen)
        within.add_node("e", self.node("e"))
        within.add_node("within", self.node("within"))
        for name in ("e", "within"):
            within.add_edge(self.library.START, name)
        graph.add_node("inner", within.compile())
        graph.add_edge("first", "a")
        graph.add_edge("first", "inner")
        graph.add_edge("inner", "b")
        graph.add_edge("b", "d")

    def act(self, given: Any) -> Any:
        try:
            return self.app.invoke(given, CONFIG)
        except Boom:
            return "boom"

    def shows(self, config: Any = CONFIG) -> Any:
        state = self.app.get_state(config, subgraphs=True)
        tasks = []
        for task in state.tasks:
            # LangGraph also shows the inner state of tasks that have finished.
            inside = task.state.values if task.state and not task.result else None
            tasks.append((task.name, str(task.result), bool(task.error), inside))
        return state.values, sorted(state.next), sorted(tasks, key=str)

    def told(self) -> Any:
        found = self.app.get_state_history(CONFIG)
        return [(s.values, sorted(s.next)) for s in found if s.metadata["step"] >= 0]


@pytest.mark.parametrize(
    ("shape", "failing"),
    [
        ("join", "b"),
        ("join", "a b"),
        ("join", "first"),
        ("join", "d"),
        ("sends", "sent"),
        ("sends", "a"),
        ("command", "b"),
        ("inner", "within"),
        ("inner", "a"),
    ],
)
def test_a_failed_thread_shows_the_same(shape: str, failing: str) -> None:
    mine, theirs = (Thread(library, shape, set(failing.split())) for library in (OURS, THEIRS))
    for given in ({"log": ["x"]}, None):
        assert mine.act(given) == theirs.act(given) == "boom"
        assert mine.shows() == theirs.shows()
        at = [each.app.get_state(CONFIG).config for each in (mine, theirs)]
        assert mine.shows(at[0])[:2] == theirs.shows(at[1])[:2], "a named checkpoint is complete"
        assert mine.told() == theirs.told()
    for each in (mine, theirs):
        each.failing.clear()
    assert mine.act(None) == theirs.act(None)
    assert mine.shows() == theirs.shows()
    assert mine.told() == theirs.told()
