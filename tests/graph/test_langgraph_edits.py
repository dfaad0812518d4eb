"""Edits of a thread before it starts, while it waits and after its end: as in LangGraph.

Above all: an edit that names no node leaves what was due due, in a graph of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.graph.differential import OURS, THEIRS, Seen

CONFIG: Final[Any] = {"configurable": {"thread_id": "t"}}


def asks(library: Any) -> Callable[[Any], Any]:
    return lambda state: {"log": [library.interrupt(state.get("shared", "nothing"))]}


def works(_library: Any) -> Callable[[Any], Any]:
    return lambda state: {"log": ["worked"]}


SHAPES: Final[dict[str, tuple[tuple[str, Any], ...]]] = {
    "one node that asks": (("a", asks),),
    "one node": (("a", works),),
    "a question at the end": (("a", works), ("b", asks)),
    "a question at the beginning": (("a", asks), ("b", works)),
}


def life(library: Any, shape: str, before: str, node: str | None, **options: Any) -> list[Any]:
    """What an edit finds, does and leads to."""
    graph = library.StateGraph(Seen)
    graph.add_sequence([(name, make(library)) for name, make in SHAPES[shape]])
    graph.add_edge(library.START, "a")
    app = graph.compile(library.saver(), **options)
    seen: list[Any] = []

    def note(result: Any = None) -> None:
        state = app.get_state(CONFIG)
        asked = [each.value for each in state.interrupts]
        if isinstance(result, dict):
            result = {key: value for key, value in result.items() if key != "__interrupt__"}
        seen.append((result, state.values, state.next, asked))

    if before != "the start":
        note(app.invoke({"shared": "first"}, CONFIG))
    while before == "the end" and app.get_state(CONFIG).next:
        asked = app.get_state(CONFIG).interrupts
        note(app.invoke(library.Command(resume="yes") if asked else None, CONFIG))
    for text in ("edited", "edited again"):
        app.update_state(CONFIG, {"shared": text}, node)
        note()
    for _ in range(4):
        asked = app.get_state(CONFIG).interrupts
        note(app.invoke(library.Command(resume="yes") if asked else None, CONFIG))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"interrupt_before": ["a"]}, {"interrupt_after": ["a"]}])
@pytest.mark.parametrize("node", [None, "__start__", "a"])
@pytest.mark.parametrize("before", ["the start", "a question", "the end"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_edit_leads_to_the_same(
    shape: str, before: str, node: str | None, options: dict[str, Any]
) -> None:
    mine, theirs = (life(library, shape, before, node, **options) for library in (OURS, THEIRS))
    assert mine == theirs
