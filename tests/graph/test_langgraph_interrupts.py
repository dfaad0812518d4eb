"""Interrupts, answers and edits, with LangGraph and with this library: the same comes of them.

(Known differences are listed in `tests.graph.differential`.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph import InvalidUpdateError
from tests.graph.differential import OURS, THEIRS, Input, Seen
from tests.graph.kit import standing


@dataclass(frozen=True)
class Survey:
    """A superstep of tasks that ask so many questions each, or none, and what they lead to."""

    questions: tuple[tuple[str, int], ...]

    def build(self, library: Any) -> Any:
        graph = library.StateGraph(Seen)
        graph.add_node("first", lambda state: {"log": ["first"]})
        graph.add_edge(library.START, "first")
        for name, count in self.questions:
            graph.add_node(name, self.node(library, name, count))
            graph.add_edge("first", name)
            after = f"{name}-after"
            graph.add_node(after, lambda state, after=after: {"log": [after]})
            graph.add_edge(name, after)
        graph.add_node("x", lambda state: {"log": ["x"]})
        graph.add_edge("a-after", "x")
        return graph.compile(checkpointer=library.saver())

    def node(self, library: Any, name: str, count: int) -> Any:
        def node(state: Any) -> Any:
            answers = [library.interrupt(f"{name}{n}") for n in range(count)]
            return {"log": [f"{name} {answers}"], name: state.get("shared", "nothing")}

        return node


@dataclass(frozen=True)
class Answer:
    """Answers to these of the questions (counted from the first), or to the only one."""

    which: tuple[int, ...] | None
    text: str = "yes"
    update: tuple[tuple[str, Any], ...] = ()
    goto: tuple[str, ...] = ()


@dataclass(frozen=True)
class Edit:
    node: str | None


class GoOn:
    """``invoke(None, config)``."""


@dataclass
class Talk:
    """One library's thread."""

    library: Any
    app: Any
    config: Any = field(default_factory=lambda: {"configurable": {"thread_id": "t"}})

    @property
    def asked(self) -> list[Any]:
        return sorted(self.app.get_state(self.config).interrupts, key=lambda each: str(each.value))

    def act(self, action: Any) -> Any:
        given: Any = None
        if isinstance(action, Input):
            given = {"log": [action.text]}
        elif isinstance(action, Edit):
            self.app.update_state(self.config, {"log": ["edited"]}, action.node)
            return "edited"
        elif isinstance(action, Answer):
            resume: Any = action.text
            if action.which is not None:
                asked = self.asked
                names = {asked[i % len(asked)].id: i for i in action.which} if asked else {}
                resume = {name: f"{action.text}{i}" for name, i in names.items()} or None
            update = dict(action.update) or None
            given = self.library.Command(resume=resume, update=update, goto=list(action.goto))
        result = dict(self.app.invoke(given, self.config))
        asked = sorted(str(each.value) for each in result.pop("__interrupt__", ()))
        return result, asked

    def stands(self) -> Any:
        state = self.app.get_state(self.config)
        told = [
            (task.name, task.result, sorted(each.value for each in task.interrupts))
            for task in sorted(state.tasks, key=lambda task: str(task.name))
        ]
        return state.values, sorted(state.next), [each.value for each in self.asked], told

    def told(self) -> list[Any]:
        """History without what only one of the libraries has."""
        extra = ("input", "fork")
        found = self.app.get_state_history(self.config)
        return [each.values for each in found if each.metadata["source"] not in extra]


def talk(survey: Survey, *actions: Any) -> None:
    """Both must come to the same by every action; those that do not apply are passed over."""
    mine, theirs = (Talk(library, survey.build(library)) for library in (OURS, THEIRS))
    for action in (Input("x"), *actions):
        state = standing(mine.app, mine.config)
        nothing_to_answer = isinstance(action, Answer) and not mine.asked
        several = isinstance(action, Answer) and action.which is None and len(mine.asked) > 1
        told = state.values != mine.app.replay(mine.config, upto=state.began).values
        unlike = isinstance(action, Edit) and (state.pending or state.source == "update" or told)
        if nothing_to_answer or several or unlike:
            continue  # see above
        assert mine.act(action) == theirs.act(action)
        if not (mine.asked and isinstance(action, Answer) and action.goto):
            assert mine.stands() == theirs.stands()
    if not any(isinstance(action, Answer) and action.update for action in actions):
        assert mine.told() == theirs.told()
    mine.app.checkpointer.close()


answers = st.builds(
    Answer,
    st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
    st.sampled_from(["yes", "no"]),
    st.sampled_from([(), (), (("log", ["said"]),)]),
)
surveys = st.tuples(*(st.tuples(st.just(name), st.integers(0, 2)) for name in "abc")).map(Survey)
talking = st.lists(
    st.one_of(
        answers,
        answers,
        st.builds(GoOn),
        st.builds(Edit, st.sampled_from([None, "a", "b", "first"])),
    ),
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 2)
@given(surveys, talking)
def test_talks_are_the_same(survey: Survey, actions: list[Any]) -> None:
    talk(survey, *actions)


TOLD: Final = (("shared", "told"), ("log", ["said"]))
ONE: Final = Survey((("a", 1),))
TWO: Final = Survey((("a", 1), ("b", 1), ("c", 0)))


def test_one_question() -> None:
    talk(ONE, GoOn(), Answer(None), GoOn())


def test_questions_in_order() -> None:
    talk(Survey((("a", 2), ("b", 0))), Answer(None, "one"), Answer(None, "two"))
    talk(Survey((("a", 2), ("b", 0))), Answer((0,), "one"), GoOn(), Answer((0,), "two"))


@pytest.mark.parametrize("first", [0, 1])
def test_parallel_questions_one_by_one(first: int) -> None:
    talk(TWO, Answer((first,)), GoOn(), Answer(None))


def test_parallel_questions_together() -> None:
    talk(TWO, Answer((0, 1)))


def test_an_answer_with_an_update_and_a_goto() -> None:
    talk(ONE, Answer(None, update=TOLD, goto=("x",)))
    talk(TWO, Answer((1,), update=TOLD), Answer(None, goto=("x",)))


@pytest.mark.parametrize("node", [None, "a", "first", "__start__"])
@pytest.mark.parametrize("survey", [ONE, Survey((("a", 1), ("b", 2)))])
def test_an_edit_of_a_thread_that_waits(survey: Survey, node: str | None) -> None:
    talk(survey, Edit(node), GoOn(), Answer((0,)), Answer((0,)))


def test_one_answer_to_several_questions_is_refused_by_both() -> None:
    for library, error in ((OURS, InvalidUpdateError), (THEIRS, RuntimeError)):
        each = Talk(library, TWO.build(library))
        each.act(Input("x"))
        with pytest.raises(error):
            each.act(Answer(None))
