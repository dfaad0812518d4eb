"""Random graphs inside graphs, and random lives of their threads.

Nodes fail, ask, are gone on with by freshly compiled graphs, and somebody goes back to any
checkpoint of any log. However that came about, what a run ends with is what an undisturbed run
with the same answers gives: nothing is lost, nothing is done twice. Each log stays whole, and is
the same state whether it is folded from a snapshot or from its first event.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict

import pytest
from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from eventstore.concurrency import run_sync
from eventstore.format.digests import origin
from graph import START, Command, CompiledGraph, MemorySaver, RunnableConfig, StateGraph
from graph.read import subgraphs
from graph.run.address import position_of
from graph.types import Durability, StateSnapshot
from tests.graph.kit import Boom, on
from tests.graph.nesting import Walk, below, calling, check_whole, inside

How = Literal["node", "called", "no log"]


# --- graphs -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Leaf:
    """A node: plain, one that asks, or one that talks to a graph that remembers."""

    kind: Literal["plain", "asks", "remembers"]


@dataclass(frozen=True)
class Group:
    """A graph inside the graph."""

    how: How
    parts: tuple[Leaf | Group, ...]


leaves = st.builds(Leaf, st.sampled_from(["plain", "asks", "remembers", "plain"]))
hows = st.sampled_from(["node", "called", "no log"])


def groups(depth: int) -> st.SearchStrategy[Leaf | Group]:
    if depth == 0:
        return leaves
    parts = st.lists(groups(depth - 1), min_size=1, max_size=3).map(tuple)
    return st.one_of(leaves, st.builds(Group, hows, parts))


plans = st.lists(groups(2), min_size=1, max_size=3).map(tuple)


class Memory(TypedDict, total=False):
    seen: Annotated[list[str], operator.add]


def remembers(walk: Walk, name: str) -> Any:
    """A node that appends how often its memory was called."""

    def count(_state: Memory) -> Memory:
        walk.node(name)({})
        return {"seen": ["x"]}

    graph = StateGraph(Memory).add_node(count).add_edge(START, "count")
    memory = graph.compile(checkpointer=True, name="memory")

    def node(state: Any) -> Any:
        seen = len(memory.invoke({"seen": []})["seen"])
        return {"path": [*state["path"], f"{name}{seen}"]}

    return node


@dataclass
class Plan:
    """A graph as described: compiles it, and knows what it comes to."""

    parts: tuple[Leaf | Group, ...]
    walk: Walk = field(default_factory=Walk)

    def compiled(self, saver: Any) -> CompiledGraph:
        return self._line("n", self.parts, checkpointer=saver)

    def _line(self, prefix: str, parts: tuple[Leaf | Group, ...], **options: Any) -> CompiledGraph:
        made: list[Any] = []
        for i, part in enumerate(parts):
            name = f"{prefix}{i}"
            if isinstance(part, Group):
                logged = {"checkpointer": False} if part.how == "no log" else {}
                inner = self._line(f"{name}.", part.parts, **logged)
                made.append((name, calling(inner) if part.how == "called" else inner))
            elif part.kind == "remembers":
                made.append((name, remembers(self.walk, name)))
            else:
                made.append(f"{name}?" if part.kind == "asks" else name)
        return self.walk.line(*made, **options)

    def names(self) -> list[str]:
        return [name for name, _, _ in _leaves("n", self.parts)]

    def result(self, answers: dict[str, str], run: int) -> list[str]:
        """The path at the end of the thread's nth run."""
        said = []
        for name, kind, depth in _leaves("n", self.parts):
            if kind == "asks":
                said.append(name + answers[name])
            elif kind == "remembers":
                # The memory of a graph that begins afresh each time begins afresh with it.
                said.append(f"{name}{1 if depth else run}")
            else:
                said.append(name)
        return said


def _leaves(
    prefix: str, parts: tuple[Leaf | Group, ...], depth: int = 0
) -> Iterator[tuple[str, str, int]]:
    """The nodes that do something: name, kind, and how many graphs are around them."""
    for i, part in enumerate(parts):
        if isinstance(part, Group):
            yield from _leaves(f"{prefix}{i}.", part.parts, depth + 1)
        else:
            yield f"{prefix}{i}{'?' if part.kind == 'asks' else ''}", part.kind, depth


# --- lives ------------------------------------------------------------------------------


@dataclass(frozen=True)
class GoOn:
    """Go on, with the answer if something is asked, or with a new run if there is nothing."""

    answer: str
    failing: int | None
    durability: Durability


@dataclass(frozen=True)
class Back:
    """Go back to a checkpoint: which of the logs, and which of that log's."""

    log: int
    checkpoint: int


@dataclass(frozen=True)
class Away:
    """Go on in a new thread from a checkpoint of the root; the old thread may be deleted."""

    checkpoint: int
    deletes: bool


number = st.integers(0, 50)
failing = st.one_of(st.none(), number)
going_on = st.builds(
    GoOn, st.sampled_from("AB"), failing, st.sampled_from(["sync", "async", "exit"])
)
actions = st.lists(
    st.one_of(
        going_on, going_on, st.builds(Back, number, number), st.builds(Away, number, st.booleans())
    ),
    max_size=8,
)


class Life:
    """A thread, and what is known of each of its checkpoints: what was answered until then, and
    in which run that was.
    """

    def __init__(self, plan: Plan, saver: MemorySaver) -> None:
        self.plan = plan
        self.saver = saver
        self.thread = 0
        self.known: list[tuple[int, str, int, dict[str, str], int]] = []
        self.answers: dict[str, str] = {}
        self.run = 0

    @property
    def config(self) -> RunnableConfig:
        return on(f"t{self.thread}")

    @property
    def app(self) -> CompiledGraph:
        """Compiled afresh each time, as another process would."""
        return self.plan.compiled(self.saver)

    def act(self, action: GoOn | Back | Away) -> None:
        match action:
            case GoOn():
                self.go_on(action.answer, action.failing, action.durability)
            case Back():
                names = ["", *below(self.app, self.config)] if self.run else []
                if names:
                    ns = names[action.log % len(names)]
                    self.back(self.config, ns, action.checkpoint)
            case Away() if self.run:
                before, self.thread = self.thread, self.thread + 1
                self.back(on(f"t{before}"), "", action.checkpoint)
                if action.deletes:
                    shown = self.shown()
                    self.saver.delete_thread(f"t{before}")
                    assert self.shown() == shown

    def go_on(self, answer: str, failing: int | None, durability: Durability = "sync") -> None:
        state = self.app.get_state(self.config, subgraphs=True)
        given: Any = None
        if state.interrupts:
            (asked,) = state.interrupts
            given = Command(resume=answer)
            self.answers[asked.value] = answer
        elif not state.next:
            given, self.run, self.answers = {"path": []}, self.run + 1, {}
        names = self.plan.names()
        self.invoke(
            given, self.config, [] if failing is None else [names[failing % len(names)]], durability
        )

    def back(self, place: RunnableConfig, ns: str, checkpoint: int) -> None:
        """What is next there runs, to its end or to a question."""
        found = [
            past.config
            for past in self.app.get_state_history(inside(place, ns), every=True)
            # What came from another thread is for that thread.
            if place != self.config or past.config["configurable"]["thread_id"] == f"t{self.thread}"
        ]
        if not found:
            return
        config = found[checkpoint % len(found)]
        self.answers, self.run = self.known_of(config)
        note(f"back to {config}: {self.answers}, run {self.run}")
        place_there: dict[str, Any] = dict(config["configurable"])
        place_there["thread_id"] = f"t{self.thread}"
        self.invoke(None, {"configurable": place_there}, [])

    def shown(self) -> list[Any]:
        """The thread's history, inherited checkpoints and states of subgraphs included."""
        app = self.app
        return [
            told(app.get_state(past.config, subgraphs=True))
            for past in app.get_state_history(self.config, every=True)
        ]

    def invoke(
        self,
        given: Any,
        config: RunnableConfig,
        failing: list[str],
        durability: Durability = "sync",
    ) -> None:
        self.plan.walk.failing = set(failing)
        try:
            result = self.app.invoke(given, config, durability=durability)
            note(f"{given} -> {result}")
        except Boom as boom:
            note(f"{given} -> {boom!r}")
        self.plan.walk.failing = set()
        self.learn()

    def learn(self) -> None:
        """What was recorded since the last time is of what is known now."""
        core, thread_id = self.saver.store.core, f"t{self.thread}"
        if not self.saver.store.thread(thread_id):
            return
        for ns in self.saver.store.verify(thread_id).namespaces:
            head = run_sync(core.head(thread_id, ns))
            self.known.append((head.thread_key, ns, head.seq, dict(self.answers), self.run))

    def known_of(self, config: RunnableConfig) -> tuple[dict[str, str], int]:
        """What was answered when a checkpoint was made, and in which run that was."""
        at = position_of(config)
        assert at is not None
        place = origin(at.thread_key, at.ns)
        return next(
            (dict(answers), run)
            for key, ns, end, answers, run in self.known
            if (key, ns) == place and at.seq <= end
        )

    def finish(self) -> None:
        """Whatever has happened, the run comes to its end and to the right values."""
        for _ in range(30):
            state = self.app.get_state(self.config)
            if self.run and not state.next:
                break
            self.go_on("C", None)
        values = self.app.get_state(self.config).values
        assert values["path"] == self.plan.result(self.answers, self.run)


def told(state: StateSnapshot) -> Any:
    """What a state says, wherever it is stored, without what came of its tasks later, also in
    subgraphs that have finished: that may be of the other thread alone.
    """
    inside = [
        (task.name, told(task.state) if task.state and task.state.next else None)
        for task in state.tasks
    ]
    return state.values, state.next, state.created_at, inside


def check_replays(saver: MemorySaver, app: CompiledGraph, thread_id: str) -> None:
    """Every log, folded from its first event, gives the state in which it stands."""
    for ns in ["", *below(app, on(thread_id))]:
        log = subgraphs.graph_of(app, ns).log_on(saver.store.core)
        whole, quick = (
            run_sync(log.load(thread_id, None, ns, snapshots))[1] for snapshots in (False, True)
        )
        assert whole == quick


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 2)
@given(plans, actions)
@example(
    (Group("node", (Group("node", (Leaf("asks"),)),)),),
    [GoOn("A", None, "sync"), GoOn("A", 0, "sync"), Back(0, 0)],
)
@example(
    (Group("node", (Leaf("asks"), Group("node", (Leaf("remembers"), Leaf("plain"))))),),
    [
        GoOn("A", None, "sync"),
        GoOn("B", 1, "exit"),
        GoOn("A", None, "sync"),
        Away(24, True),
        GoOn("A", None, "sync"),
        Away(22, True),
    ],
)
@example(
    (Leaf("remembers"),),
    [*[GoOn("A", None, "sync")] * 3, Back(0, 1), GoOn("A", None, "sync"), Back(2, 2)],
)
@example(
    (Leaf("remembers"),),
    [*[GoOn("A", None, "sync")] * 3, Back(0, 1), Away(0, True), Back(1, 1)],
)
def test_whatever_happens_a_run_comes_to_what_it_should(
    parts: tuple[Leaf | Group, ...], life: list[GoOn | Back | Away]
) -> None:
    with MemorySaver() as saver:
        plan = Plan(parts)
        thread = Life(plan, saver)
        for action in life:
            note(f"{action}")
            thread.act(action)
        thread.finish()
        thread.go_on("D", None)
        thread.finish()
        for info in saver.store.threads():
            check_whole(saver.store, thread.app, info.thread_id)
            check_replays(saver, thread.app, info.thread_id)
