"""Any graph that asks, answered in any way and order, comes to the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graph.run.snapshots
from graph import (
    START,
    Command,
    CompiledGraph,
    MemorySaver,
    Send,
    StateGraph,
    interrupt,
)
from tests.graph.interrupt_support import shown, stops, waiting
from tests.graph.kit import (
    Trail,
    on,
    replayed,
)


@dataclass(frozen=True)
class Layer:
    """A fan-out of tasks, each with its number of questions."""

    questions: tuple[int, ...]

    def build(self, checkpointer: Any, known: Mapping[str, Any] | None) -> CompiledGraph:
        """The graph; with all answers known beforehand nobody is asked."""

        def ask(value: str) -> Any:
            return interrupt(value) if known is None else known[value]

        def work(arg: int) -> dict[str, Any]:
            answers = [ask(f"{arg}.{n}") for n in range(self.questions[arg])]
            return {"log": [[arg, *answers]], "total": len(answers)}

        declared = StateGraph(Trail)
        declared.add_node("work", work)
        declared.add_node("end", lambda state: {"note": f"{len(state['log'])}"})
        declared.add_conditional_edges(
            START, lambda state: [Send("work", arg) for arg in range(len(self.questions))], ["work"]
        )
        declared.add_edge("work", "end")
        return declared.compile(checkpointer)


layers = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple).map(Layer)


@contextmanager
def snapshots_taken_often(often: bool) -> Iterator[None]:
    with (
        patch.object(graph.run.snapshots, "FLOOR", 1 if often else graph.run.snapshots.FLOOR),
        patch.object(graph.run.snapshots, "EVENT_WEIGHT", 10_000 if often else 256),
    ):
        yield


ways = st.lists(st.sampled_from(["answer", "answer", "go on", "restart", "go back"]), max_size=6)


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 2)
@given(layers, ways, st.booleans(), st.data())
def test_however_it_is_answered_it_comes_to_the_same(
    layer: Layer, way: list[str], often: bool, data: st.DataObject
) -> None:
    names = [f"{arg}.{n}" for arg, count in enumerate(layer.questions) for n in range(count)]
    answers = {name: data.draw(st.sampled_from([0, None, "x", [name]])) for name in names}
    expected = layer.build(None, answers).invoke({})
    with snapshots_taken_often(often), MemorySaver() as saver:
        app = layer.build(saver, None)
        result = app.invoke({}, on("t"))
        for step in itertools.chain(way, itertools.repeat("answer all")):
            assert replayed(app, "t", snapshots=False) == replayed(app, "t", snapshots=True)
            asked = waiting(app, on("t"))
            assert shown(result) == list(asked)
            assert saver.store.thread("t").status == ("waiting" if asked else "idle")
            if not asked:
                break
            if step in ("answer", "answer all"):
                some = st.sets(st.sampled_from(sorted(asked)), min_size=1)
                chosen = data.draw(some) if step == "answer" else asked.keys()
                told = {asked[name]: answers[name] for name in chosen}
                result = app.invoke(Command(resume=told), on("t"))
            elif step == "go on":
                result = app.invoke(None, on("t"))
            elif step == "restart":
                app = layer.build(saver, None)
            else:
                past = stops(app)
                stop = past[data.draw(st.integers(0, len(past) - 1))]
                result = app.invoke(None, stop.config)
        assert result == expected
        state = app.get_state(on("t"))
        assert (state.values, state.next) == (expected, ())
        assert app.verify(on("t")).ok
