"""The same graphs and the same inputs, run with LangGraph and with this library.

Hypothesis builds small graphs and short lives of a thread; both libraries must give equal
results or the same kind of error, equal sequences of (values, next), and equal edits.

What is different on purpose, and so is not compared, or is undone before comparing:

- LangGraph records an input as a checkpoint of its own before the one that it leads to; here
  they are one, because the input event holds both. Its extra checkpoints are left out.
- What an edit of the past is: here a checkpoint of source ``fork`` that repeats the one gone back
  to, and then the edit. In LangGraph only going back to run on makes a ``fork``. All of source
  ``fork`` are left out.
- The state of a thread that failed: its values are those of the last complete superstep here, and
  what finished siblings wrote is in ``tasks[i].result``. LangGraph's ``get_state`` shows the values
  as if the superstep were complete without the failed one (its history does not).
- A key that the state does not have is an ``InvalidUpdateError`` here; LangGraph drops the
  value silently, and what was written is lost.
- The order of names in ``next``: here the order in which tasks are merged (edges by name, then
  Sends), in LangGraph Sends come first. Compared as sorted.
- Of a superstep that failed, LangGraph may throw away siblings that were still running; here
  whatever has begun is waited for and kept. How often nodes ran is not compared, only what
  came of it.
- A second input while a superstep is unfinished: here it begins afresh, and joins that were
  half-way are forgotten with the run that began them; LangGraph keeps who had arrived.
- A key written twice in a superstep without a reducer is refused by both; here the first
  writer's output is kept and the second task is the failed one, LangGraph fails them all.
- Deferred nodes wait for Sends too; LangGraph runs them beside the Sends that are due. Graphs with
  both are not generated.
- In LangGraph's history a node whose join is half full may be among ``next``, though it is not run
  then. Of graphs with joins only values are compared.
- Who arrives at a join that is complete already, but whose deferred target has not run yet, counts
  for the next round here; in LangGraph for none. Joins with deferred targets are not generated.
- A run that ends with its last allowed superstep has ended, and going on with it counts anew;
  LangGraph raises GraphRecursionError for the first, and allows two more in the second case.
- An edit in the name of a deferred node that is due takes its place; LangGraph still runs it. Edits
  of graphs with deferred nodes are not generated.
- An edit of the head keeps what a ``Command`` has updated in the superstep; LangGraph forgets it.
- An edit of the head keeps what the finished tasks of an unfinished superstep had written, counts
  them among those who wrote last, and decides alone what is next. LangGraph forgets what they had
  written (1.2), or also runs what they led to (before).
- A stop at which something is asked is a checkpoint of its own here, of source ``interrupt``. All
  of these are left out.
- An answer to nothing is an ``InvalidUpdateError`` here; LangGraph ignores it silently. One answer
  to several questions is refused by both, by different names.
- After an answer without an id, LangGraph's ``invoke(None, …)`` gives that answer again, to the
  next question. Where a talk goes on so, its answers are given by id.
- After an edit in a node's name, an edit that names none is taken to be that node's, too. LangGraph
  takes it to be that of the node that ran last.
- A ``Command`` as input may update a key that one before it has updated in the same superstep;
  LangGraph refuses the second one.
- What such a command has led to is shown at once; LangGraph's ``get_state`` does not know of it
  until all questions of the superstep are answered.
- What a ``Command`` as input updates is shown by LangGraph's history as if it had been there when
  the superstep began. Histories are compared where there was no such update.
- Tasks that a ``Command`` as input adds to a superstep are merged behind those that are there;
  LangGraph sorts them all by name. Only names that come last are gone to.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Annotated, Any, Final, TypedDict

import langgraph.errors
import langgraph.graph
import langgraph.types
import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver

import graph as ours
from graph import EmptyInputError, GraphRecursionError, InvalidUpdateError
from tests.graph.kit import Boom, standing

NAMES: Final = ("a", "b", "c", "d", "e")
RECURSION_LIMIT: Final = 12
LOG_MAX: Final = 14


class Seen(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    total: Annotated[int, operator.add]
    names: Annotated[set[str], operator.or_]
    a: str
    b: str
    c: str
    d: str
    e: str
    shared: str


THEIRS: Final = SimpleNamespace(
    name="LangGraph",
    StateGraph=langgraph.graph.StateGraph,
    START=langgraph.graph.START,
    END=langgraph.graph.END,
    Send=langgraph.types.Send,
    Command=langgraph.types.Command,
    interrupt=langgraph.types.interrupt,
    saver=InMemorySaver,
)
OURS: Final = SimpleNamespace(
    name="ours",
    StateGraph=ours.StateGraph,
    START=ours.START,
    END=ours.END,
    Send=ours.Send,
    Command=ours.Command,
    interrupt=ours.interrupt,
    saver=ours.MemorySaver,
)


# --- graphs -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """A conditional edge or a Command: which targets at which length of the log."""

    choices: tuple[tuple[str, ...], ...]
    sends: tuple[str, ...] = ()

    def targets(self, library: Any, state: Any) -> list[Any]:
        log = state.get("log", []) if isinstance(state, dict) else []
        if len(log) > LOG_MAX:
            return []
        found: list[Any] = list(self.choices[len(log) % len(self.choices)])
        return found + [
            library.Send(name, {"log": [f"sent {i}"]}) for i, name in enumerate(self.sends)
        ]


@dataclass(frozen=True)
class Plan:
    """A graph, described for both libraries."""

    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    routes: tuple[tuple[str, Route], ...] = ()
    commands: tuple[tuple[str, Route], ...] = ()
    joins: tuple[tuple[tuple[str, ...], str], ...] = ()
    deferred: frozenset[str] = frozenset()
    writes_shared: frozenset[str] = frozenset()

    def build(self, library: Any, failing: set[str], saver: Any) -> Any:
        graph = library.StateGraph(Seen)
        commands = dict(self.commands)
        for name in self.nodes:
            node = self.node(library, name, commands.get(name), failing)
            ends: dict[str, Any] = {}
            if name in commands:
                ends["destinations"] = tuple(self.nodes)
            graph.add_node(name, node, defer=name in self.deferred, **ends)
        for source, target in self.edges:
            graph.add_edge(library.START if source == "START" else source, target)
        for source, route in self.routes:
            graph.add_conditional_edges(source, self.path(library, route), list(self.nodes))
        for sources, target in self.joins:
            graph.add_edge(list(sources), target)
        return graph.compile(checkpointer=saver)

    def node(self, library: Any, name: str, command: Route | None, failing: set[str]) -> Any:
        def run(state: Any) -> Any:
            if name in failing:
                raise Boom(name)
            count = len(state.get("log", []))
            update: dict[str, Any] = {
                "log": [f"{name}{count}"],
                "total": count,
                "names": {name},
                name: f"{count}",
            }
            if name in self.writes_shared:
                update["shared"] = name
            if command is None:
                return update
            goto = command.targets(library, {"log": [*state.get("log", []), *update["log"]]})
            return library.Command(update=update, goto=goto)

        return run

    def path(self, library: Any, route: Route) -> Any:
        def path(state: Any) -> Any:
            return route.targets(library, state)

        return path


def routes(nodes: tuple[str, ...]) -> st.SearchStrategy[Route]:
    some = st.lists(st.sampled_from(nodes), max_size=2, unique=True).map(tuple)
    sends = st.one_of(st.just(()), st.lists(st.sampled_from(nodes), max_size=3).map(tuple))
    return st.builds(Route, st.lists(some, min_size=1, max_size=3).map(tuple), sends)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    nodes = NAMES[: draw(st.integers(2, 5))]
    pairs = st.tuples(st.sampled_from(nodes), st.sampled_from(nodes))
    edges = set(draw(st.lists(pairs, max_size=5)))
    edges |= {("START", name) for name in draw(st.sets(st.sampled_from(nodes), min_size=1))}
    routing = st.lists(
        st.sampled_from(nodes).flatmap(lambda n: st.tuples(st.just(n), routes(nodes))),
        max_size=2,
        unique_by=lambda pair: pair[0],
    ).map(tuple)
    joins = st.lists(
        st.tuples(
            st.sets(st.sampled_from(nodes), min_size=2, max_size=3).map(lambda s: tuple(sorted(s))),
            st.sampled_from(nodes),
        ),
        max_size=1,
    ).map(tuple)
    plan = Plan(
        nodes,
        tuple(sorted(edges)),
        draw(routing),
        draw(routing),
        draw(joins),
    )
    if not any(route.sends for _, route in (*plan.routes, *plan.commands)):
        deferred = draw(st.sets(st.sampled_from(nodes), max_size=2))
        plan = replace(plan, deferred=frozenset(deferred - {target for _, target in plan.joins}))
    lost = set(nodes) - reached(plan)
    return replace(plan, edges=(*plan.edges, *(("START", name) for name in sorted(lost))))


def reached(plan: Plan) -> set[str]:
    """What the edges alone lead to: the rest gets an edge from START, so that both compile."""
    found = {target for source, target in plan.edges if source == "START"}
    while True:
        more = found | {target for source, target in plan.edges if source in found}
        if more == found:
            return found
        found = more


# --- lives of a thread ------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    text: str
    failing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Resume:
    failing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Update:
    node: str | None
    back: int = 0


@dataclass(frozen=True)
class Travel:
    back: int


Action = Input | Resume | Update | Travel

failing_sets = st.frozensets(st.sampled_from(NAMES), max_size=1)
actions = st.lists(
    st.one_of(
        st.builds(Input, st.sampled_from(["x", "y"]), failing_sets),
        st.builds(Resume, failing_sets),
        st.builds(Update, st.sampled_from([*NAMES, None]), st.integers(0, 3)),
        st.builds(Travel, st.integers(1, 6)),
    ),
    max_size=4,
)


@dataclass
class Life:
    """One library's thread."""

    library: Any
    plan: Plan
    failing: set[str] = field(default_factory=set)
    app: Any = None
    saver: Any = None
    config: Any = field(
        default_factory=lambda: {
            "configurable": {"thread_id": "t"},
            "recursion_limit": RECURSION_LIMIT,
        }
    )

    def act(self, action: Action) -> Any:
        """What came of it: the output, or the kind of the error."""
        self.failing.clear()
        try:
            match action:
                case Input(text, failing):
                    self.failing |= failing
                    return self.app.invoke({"log": [text]}, self.config)
                case Resume(failing):
                    self.failing |= failing
                    return self.app.invoke(None, self.config)
                case Update(node, back):
                    at = self.past(back) if back else self.config
                    self.app.update_state(at, {"log": ["edited"], "names": {"edited"}}, node)
                    return "updated"
                case Travel(back):
                    at = self.past(back)
                    return self.app.invoke(None, {**at, "recursion_limit": RECURSION_LIMIT})
        except Exception as error:
            return kind_of(error)

    def past(self, back: int) -> Any:
        """The config of the checkpoint that is so many back from the newest."""
        found = self.checkpoints()
        return found[min(back, len(found) - 1)].config if found else self.config

    def checkpoints(self) -> list[Any]:
        """History without what only one of the libraries has."""
        extra = ("input", "fork") if self.library is THEIRS else ("fork",)
        place = {"configurable": {"thread_id": "t"}}
        return [s for s in self.app.get_state_history(place) if s.metadata["source"] not in extra]

    def told(self) -> list[Any]:
        hides_next = bool(self.plan.joins)  # see above
        return [(s.values, hides_next or sorted(s.next)) for s in self.checkpoints()]

    def stands(self) -> Any:
        state = self.app.get_state(self.config)
        return state.values, sorted(state.next)


_KINDS: Final = {
    langgraph.errors.GraphRecursionError: "recursion",
    GraphRecursionError: "recursion",
    langgraph.errors.InvalidUpdateError: "invalid update",
    InvalidUpdateError: "invalid update",
    langgraph.errors.EmptyInputError: "empty input",
    EmptyInputError: "empty input",
    Boom: "boom",
}


def kind_of(error: Exception) -> str:
    for cls, kind in _KINDS.items():
        if isinstance(error, cls):
            return kind
    raise error


@contextmanager
def both(plan: Plan) -> Iterator[tuple[Life, Life]]:
    lives = Life(OURS, plan), Life(THEIRS, plan)
    for life in lives:
        life.saver = life.library.saver()
        life.app = plan.build(life.library, life.failing, life.saver)
    try:
        yield lives
    finally:
        lives[0].saver.close()


@settings(max_examples=settings().max_examples // 2)
@given(plans())
def test_one_run_gives_the_same(plan: Plan) -> None:
    with both(plan) as (mine, theirs):
        outcomes = mine.act(Input("x")), theirs.act(Input("x"))
        told = mine.told()
        if (
            outcomes[1] == "recursion"
            and len(told) == RECURSION_LIMIT + 1
            and mine.stands()[1] == []
        ):
            outcomes = ("recursion", "recursion")  # it ended with the last superstep: see above
        assert outcomes[0] == outcomes[1]
        assert told == theirs.told()


@settings(max_examples=settings().max_examples // 3)
@given(plans(), st.lists(st.builds(Input, st.sampled_from(["x", "y"])), min_size=2, max_size=3))
def test_runs_after_runs_give_the_same(plan: Plan, inputs: list[Input]) -> None:
    with both(plan) as (mine, theirs):
        for each in inputs:
            outcome = mine.act(each)
            assume(not isinstance(outcome, str))  # the joins of a run cut short: see above
            expected = theirs.act(each)
            assume(expected != "recursion")
            assert outcome == expected
            assume(not standing(mine.app, mine.config).joins)
        assert mine.told() == theirs.told()


@settings(max_examples=settings().max_examples // 3)
@given(plans(), actions)
def test_lives_are_the_same(plan: Plan, life: list[Action]) -> None:
    with both(plan) as (mine, theirs):
        for action in [Input("x"), *life]:
            state = standing(mine.app, mine.config)
            unfinished = bool(state.frontier and (state.pending or state.errors))
            if isinstance(action, Input | Update | Travel):
                # See above: a run that is cut short by something else than being resumed.
                assume(not unfinished and not state.joins)
            if isinstance(action, Update):
                assume(not plan.deferred)
            if isinstance(action, Input):
                assume(not state.frontier)
            note(f"{action}")
            outcome = mine.act(action)
            expected = theirs.act(action)
            assume("recursion" not in (outcome, expected))
            assert outcome == expected
            assume(outcome != "invalid update")  # LangGraph cannot even show the state then
        assert mine.told() == theirs.told()


# --- people in the loop -----------------------------------------------------------------


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
        extra = ("input", "fork") if self.library is THEIRS else ("fork", "interrupt")
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


# --- by hand ----------------------------------------------------------------------------


def life_of(plan: Plan, *life: Action) -> None:
    with both(plan) as (mine, theirs):
        for action in life:
            outcome = mine.act(action)
            assert outcome == theirs.act(action)
            if outcome != "boom":
                assert mine.stands() == theirs.stands()
        assert mine.told() == theirs.told()


LINE: Final = Plan(("a", "b", "c"), (("START", "a"), ("a", "b"), ("b", "c")))
DIAMOND: Final = Plan(
    ("a", "b", "c", "d"),
    (("START", "a"), ("a", "b"), ("a", "c")),
    joins=((("b", "c"), "d"),),
)


@pytest.mark.parametrize("node", ["a", "b", "c", None])
@pytest.mark.parametrize("back", range(4))
def test_update_of_any_checkpoint_then_resume(node: str | None, back: int) -> None:
    life_of(LINE, Input("x"), Update(node, back), Resume())


@pytest.mark.parametrize("back", range(1, 4))
def test_going_back(back: int) -> None:
    life_of(LINE, Input("x"), Travel(back), Travel(1), Input("y"))


def test_a_failure_and_its_resume() -> None:
    life_of(LINE, Input("x", frozenset("b")), Resume(frozenset("b")), Resume(), Resume())


def test_a_failure_before_a_join() -> None:
    life_of(DIAMOND, Input("x", frozenset("c")), Resume(), Input("y"))


def test_whose_an_update_is_when_several_wrote_last() -> None:
    plan = Plan(("a", "b", "c"), (("START", "a"), ("a", "b"), ("a", "c")))
    life_of(plan, Input("x"), Update(None), Update("b"), Resume())


def test_nothing_to_resume() -> None:
    life_of(LINE, Resume())


def test_deferred_nodes_wait_for_all_else() -> None:
    plan = Plan(
        ("a", "b", "c", "d"),
        (("START", "a"), ("a", "b"), ("a", "d"), ("b", "c")),
        deferred=frozenset("d"),
    )
    life_of(plan, Input("x"), Input("y"))


def test_two_writers_of_one_key_are_refused_by_both() -> None:
    plan = Plan(("a", "b"), (("START", "a"), ("START", "b")), writes_shared=frozenset({"a", "b"}))
    with both(plan) as (mine, theirs):
        assert mine.act(Input("x")) == theirs.act(Input("x")) == "invalid update"


def test_a_key_that_is_not_there_is_refused_here_and_dropped_there() -> None:
    with both(LINE) as (mine, theirs):
        config = {"configurable": {"thread_id": "t"}}
        theirs.app.invoke({"log": ["x"], "typo": 1}, config)
        with pytest.raises(InvalidUpdateError, match="typo"):
            mine.app.invoke({"log": ["x"], "typo": 1}, config)
