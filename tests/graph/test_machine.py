"""Random lives of threads against a model that stores the whole state at every step.

The model is what the usual checkpointer does: a list of moments, each with a deep copy of
all values. After every rule the state, the history and each entry's tasks must be equal, and
replay from the first event must equal replay from any snapshot. Snapshots are made small
and frequent here, and blocks of history short, so that their edges are met. What is kept in memory
of threads is left to itself, found at every load, or never found, or runs reuse the state of the
run before.
"""

from __future__ import annotations

import copy
import operator
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, TypedDict
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import graph.read.history
import graph.run.recent
import graph.run.snapshots
from eventstore import EventStore
from graph import (
    END,
    START,
    CompiledGraph,
    EmptyInputError,
    InvalidConfigError,
    Send,
    StateGraph,
    StateSnapshot,
)
from tests.graph.kit import Boom, id_of, on, replayed

pytestmark = pytest.mark.slow


class Life(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    names: Annotated[dict[str, int], operator.or_]
    total: Annotated[int, operator.add]
    loops: int
    fan: int
    note: str


Values = dict[str, Any]
Key = tuple[str, Any]

JOINED: Final = frozenset({"left", "right"})
NODES: Final = ("plan", "left", "right", "gather", "work", "finish")
FILLER: Final = "some words that take room, so that a snapshot comes due. "


# --- what the nodes write; used by the graph and by the model alike ----------------------


def writes_of(node: str, state: Values, arg: Any = None) -> Values:
    match node:
        case "plan":
            return {"log": ["plan"], "loops": state.get("loops", 0) - 1, "total": 1}
        case "left":
            return {"log": ["left", FILLER], "total": 2}
        case "right":
            return {"log": ["right"], "names": {f"right {len(state['log']) % 5}": 1}}
        case "gather":
            return {"log": ["gather"], "note": f"{len(state['log'])} entries; {FILLER}"}
        case "work":
            return {"log": [f"work {arg}"], "total": arg, "names": {f"work {arg}": arg}}
    return {"log": ["finish"]}


def after_gather(state: Any) -> list[str | Send]:
    found: list[str | Send] = [Send("work", i) for i in range(state.get("fan", 0))]
    if state.get("loops", 0) > 0:
        found.append("plan")
    return found


# --- the model --------------------------------------------------------------------------


@dataclass(eq=False)
class Moment:
    """A checkpoint, with a copy of everything."""

    values: Values
    frontier: list[Key]
    arrived: frozenset[str]
    later: bool
    last: tuple[str, ...]
    source: str
    step: int
    parent: Moment | None
    done: dict[int, Values] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    id: str = ""

    @property
    def shown(self) -> list[int]:
        """Its tasks in the order in which they are shown: sends, then nodes as declared."""
        return sorted(
            range(len(self.frontier)),
            key=lambda i: (
                -1 if self.frontier[i][1] is not None else NODES.index(self.frontier[i][0])
            ),
        )

    @property
    def lineage(self) -> Iterator[Moment]:
        moment: Moment | None = self
        while moment is not None:
            yield moment
            moment = moment.parent


@dataclass
class Thread:
    """The moments of one log in the order in which they happened."""

    moments: list[Moment] = field(default_factory=list)
    head: Moment | None = None
    origin: Moment | None = None
    orphaned: bool = False
    """Whether a thread that it was forked from, at whatever distance, has been deleted."""


def merged(values: Values, writes: Values) -> Values:
    values = copy.deepcopy(values)
    for key, value in writes.items():
        match key:
            case "log":
                values[key] = values[key] + copy.deepcopy(value)
            case "names":
                values[key] = {**values[key], **value}
            case "total":
                values[key] += value
            case _:
                values[key] = copy.deepcopy(value)
    return values


@dataclass
class Led:
    """Where finished nodes lead, being gathered."""

    arrived: frozenset[str]
    later: bool
    nodes: set[str] = field(default_factory=set)
    sends: list[Key] = field(default_factory=list)

    def follow(self, node: str, after: Values) -> None:
        match node:
            case "__start__":
                self.nodes.add("plan")
            case "plan":
                self.nodes |= {"left", "right"}
            case "left" | "right":
                self.arrived |= {node}
            case "gather":
                self.sends += [("work", i) for i in range(after.get("fan", 0))]
                if after.get("loops", 0) > 0:
                    self.nodes.add("plan")
            case "work":
                self.later = True

    def join(self) -> bool:
        """Whether all have arrived; then the next round begins with none."""
        complete = self.arrived == JOINED
        self.arrived = frozenset() if complete else self.arrived
        return complete

    def frontier(self) -> list[Key]:
        if self.join():
            self.nodes.add("gather")
        if not self.nodes and not self.sends and self.later:
            self.nodes, self.later = {"finish"}, False
        return [*((name, None) for name in sorted(self.nodes)), *self.sends]


NOTHING: Final = Moment(
    {"log": [], "names": {}, "total": 0}, [], frozenset(), False, (), "", -1, None
)


def moment_after(
    before: Moment, values: Values, led: Led, source: str, last: list[str], steps: int = 1
) -> Moment:
    frontier = led.frontier()
    return Moment(
        values,
        frontier,
        led.arrived,
        led.later,
        tuple(dict.fromkeys(last)),
        source,
        before.step + steps,
        before if before is not NOTHING else None,
    )


def with_input(before: Moment, given: Values) -> Moment:
    led = Led(frozenset(), False)
    led.follow("__start__", {})
    steps = 1 if before is NOTHING else 2
    values = merged(before.values, given)
    return moment_after(before, values, led, "input", ["__start__"], steps)


def with_superstep(before: Moment) -> Moment:
    led = Led(before.arrived, before.later)
    values = before.values
    for index, (node, _) in enumerate(before.frontier):
        led.follow(node, merged(before.values, before.done[index]))
        values = merged(values, before.done[index])
    return moment_after(before, values, led, "loop", [node for node, _ in before.frontier])


def with_update(before: Moment, node: str, writes: Values) -> Moment:
    led = Led(before.arrived, False)
    values = before.values
    for index in sorted(before.done):
        values = merged(values, before.done[index])
        led.arrived |= {before.frontier[index][0]} & JOINED
    led.join()  # what they led to is replaced by where the update leads
    led.follow(node, merged(before.values, writes))
    # A fork is the step of the edit that made it, unless something was recorded in between.
    made_it = before.source == "fork" and not (before.done or before.failed)
    steps = 0 if made_it else 1
    return moment_after(before, merged(values, writes), led, "update", [node], steps)


# --- the machine ------------------------------------------------------------------------

writes = st.fixed_dictionaries(
    {},
    optional={
        "log": st.lists(st.text(max_size=3), max_size=2),
        "note": st.sampled_from(["short", FILLER * 3]),
        "fan": st.integers(0, 3),
        "loops": st.integers(0, 2),
        "total": st.integers(-3, 3),
        "names": st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=2),
    },
)
failures = st.sets(
    st.sampled_from(["plan", "left", "right", "gather", "work 1", "finish"]), max_size=2
)
pick = st.integers(0, 10_000)


class Machine(RuleBasedStateMachine):
    backend: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine"))
        self.threads: dict[str, Thread] = {}
        self.count = 0
        self.failing: frozenset[str] = frozenset()
        self.ran: list[tuple[Key, bool]] = []
        self.lock = threading.Lock()
        self.patches: list[Any] = [
            patch.object(graph.run.snapshots, "FLOOR", 300),
            patch.object(graph.run.snapshots, "EVENT_WEIGHT", 60),
            patch.object(graph.read.history, "BLOCK", 5),
        ]
        for each in self.patches:
            each.start()

    @initialize(caching=st.sampled_from(("usual", "hit", "miss", "reuse")))
    def begin_with(self, caching: str) -> None:
        self.cache: dict[str, Any] = {"cache_bytes": 0} if caching == "miss" else {}
        self.reuses = caching == "reuse"
        if caching == "hit":
            self.patches.append(patch.object(graph.run.recent, "is_due", lambda _: True))
            self.patches[-1].start()
        self.open()

    def open(self) -> None:
        target = ":memory:" if self.backend == "memory" else self.folder / "machine.db"
        self.store = EventStore(target, durability="normal", **self.cache)
        self.app = self.build(self.store)

    def build(self, store: EventStore) -> CompiledGraph:
        declared = StateGraph(Life)
        for name in NODES:
            declared.add_node(name, self.node(name), defer=name == "finish")
        declared.add_edge(START, "plan")
        declared.add_edge("plan", "left")
        declared.add_edge("plan", "right")
        declared.add_edge(["left", "right"], "gather")
        declared.add_conditional_edges("gather", after_gather, ["plan"])
        declared.add_edge("work", "finish")
        declared.add_edge("finish", END)
        return declared.compile(checkpointer=store, reuse_state=self.reuses)

    def node(self, name: str) -> Any:
        def run(state: Any) -> Values:
            arg = state if name == "work" and isinstance(state, int) else None
            label = name if arg is None else f"work {arg}"
            fails = label in self.failing
            with self.lock:
                self.ran.append(((name, arg), fails))
            if fails:
                raise Boom(label)
            if isinstance(state, dict):
                state.get("log", []).append("changed in place, in the node's own copy")
                state["log"].pop()
            return writes_of(name, state if isinstance(state, dict) else {}, arg or 0)

        return run

    def teardown(self) -> None:
        try:
            for name in self.threads:
                self.check(name)
        finally:
            self.store.close()
            for each in self.patches:
                each.stop()
            shutil.rmtree(self.folder)

    # --- what may happen ----------------------------------------------------------------

    def a_thread(self, choice: int) -> str:
        return sorted(self.threads)[choice % len(self.threads)]

    def a_moment(self, choice: int) -> tuple[str, Moment] | None:
        """A moment of some thread's own log, and its thread."""
        found = [(name, m) for name in sorted(self.threads) for m in self.threads[name].moments]
        return found[choice % len(found)] if found else None

    def new_name(self) -> str:
        self.count += 1
        return f"thread {self.count}"

    @rule(given=writes, failing=failures)
    def run_a_new_thread(self, given: Values, failing: set[str]) -> None:
        name = self.new_name()
        self.threads[name] = Thread()
        self.begin(name, given, failing)

    @precondition(lambda self: self.threads)
    @rule(choice=pick, given=writes, failing=failures)
    def run_again(self, choice: int, given: Values, failing: set[str]) -> None:
        self.begin(self.a_thread(choice), given, failing)

    def begin(self, name: str, given: Values, failing: set[str]) -> None:
        thread = self.threads[name]
        moment = with_input(thread.head or NOTHING, given)
        thread.moments.append(moment)
        with self.going_on(thread, moment, failing):
            self.app.invoke(given, on(name, recursion_limit=100))
        self.check(name)

    @precondition(lambda self: self.threads)
    @rule(choice=pick, failing=failures)
    def resume(self, choice: int, failing: set[str]) -> None:
        name = self.a_thread(choice)
        thread = self.threads[name]
        if thread.head is None:
            with pytest.raises(EmptyInputError):
                self.app.invoke(None, on(name))
            return
        with self.going_on(thread, thread.head, failing):
            self.app.invoke(None, on(name, recursion_limit=100))
        self.check(name)

    @precondition(lambda self: self.threads)
    @rule(choice=pick, failing=failures)
    def go_back(self, choice: int, failing: set[str]) -> None:
        """Run on from a moment of the thread's own log."""
        found = self.a_moment(choice)
        if found is None:
            return
        name, moment = found
        thread = self.threads[name]
        with self.going_on(thread, self.left(thread, moment), failing):
            self.app.invoke(None, on(name, moment.id, recursion_limit=100))
        self.check(name)

    @precondition(lambda self: self.threads)
    @rule(choice=pick, failing=failures)
    def fork_into_a_new_thread(self, choice: int, failing: set[str]) -> None:
        found = self.a_moment(choice)
        if found is None:
            return
        name, moment = self.new_name(), found[1]
        thread = Thread(origin=moment, orphaned=self.threads[found[0]].orphaned)
        self.threads[name] = thread
        with self.going_on(thread, self.left(thread, moment), failing):
            self.app.invoke(None, on(name, moment.id, recursion_limit=100))
        self.check(name)

    @precondition(lambda self: self.threads)
    @rule(choice=pick, node=st.sampled_from(NODES), values=writes, where=st.sampled_from("hpn"))
    def update(self, choice: int, node: str, values: Values, where: str) -> None:
        """Edit the head, the past, or a moment for a new thread."""
        found = self.a_moment(choice)
        if found is None:
            return
        name, moment = found
        checkpoint: str | None = moment.id
        if where == "h":
            moment, checkpoint = self.threads[name].head or moment, None
        elif where == "n":
            orphaned = self.threads[name].orphaned
            name = self.new_name()
            self.threads[name] = Thread(origin=moment, orphaned=orphaned)
        thread = self.threads[name]
        before = self.left(thread, moment)
        if before is not moment:
            thread.moments.append(before)
        after = with_update(before, node, values)
        thread.moments.append(after)
        thread.head = after
        config = self.app.update_state(on(name, checkpoint), values, as_node=node)
        after.id = id_of(config)
        self.check(name)

    @precondition(lambda self: any(t.origin for t in self.threads.values()))
    @rule(choice=pick, failing=failures)
    def go_on_by_the_origins_id(self, choice: int, failing: set[str]) -> None:
        """The config that made a fork goes on meaning it, where it now stands."""
        names = sorted(name for name, t in self.threads.items() if t.origin and t.head)
        if not names:
            return
        name = names[choice % len(names)]
        thread = self.threads[name]
        assert thread.origin and thread.head
        with self.going_on(thread, thread.head, failing):
            self.app.invoke(None, on(name, thread.origin.id, recursion_limit=100))
        self.check(name)

    @precondition(lambda self: len(self.threads) > 1)
    @rule(choice=pick, other=pick)
    def a_foreign_checkpoint_is_refused(self, choice: int, other: int) -> None:
        found, name = self.a_moment(choice), self.a_thread(other)
        if found is None or name == found[0]:
            return
        thread = self.threads[name]
        if not thread.moments or (thread.origin is not None):
            return
        with pytest.raises(InvalidConfigError):
            self.app.invoke(None, on(name, found[1].id))
        with pytest.raises(InvalidConfigError):
            self.app.get_state(on(name, found[1].id))
        self.check(name)

    @precondition(lambda self: self.threads)
    @rule(choice=pick)
    def delete_snapshots(self, choice: int) -> None:
        name = self.a_thread(choice)
        if self.threads[name].moments:
            self.store.delete_snapshots(name)
            self.check(name)

    @precondition(lambda self: len(self.threads) > 2)
    @rule(choice=pick)
    def delete_thread(self, choice: int) -> None:
        name = self.a_thread(choice)
        gone = self.threads.pop(name)
        if not gone.moments:
            return
        self.store.delete_thread(name)
        ids = {id(moment) for moment in gone.moments}
        for other, thread in self.threads.items():
            if thread.origin and any(id(m) in ids for m in thread.origin.lineage):
                thread.orphaned = True
                self.check(other)

    @precondition(lambda self: self.backend == "file")
    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.open()

    # --- running the model beside the graph ----------------------------------------------

    def left(self, thread: Thread, moment: Moment) -> Moment:
        """Where a run goes on: at the head itself, or at a fork from the past."""
        if moment is thread.head:
            return moment
        return replace(
            moment, source="fork", step=moment.step + 1, parent=moment, done={}, failed={}, id=""
        )

    @contextmanager
    def going_on(self, thread: Thread, moment: Moment, failing: set[str]) -> Iterator[None]:
        """Run the graph in the body, then let the model do what the nodes were seen to do.

        Which siblings of a failing node get to run is for the machine's scheduler to say; all
        else the model knows.
        """
        self.ran, self.failing = [], frozenset(failing)
        failed = False
        try:
            yield
        except Boom:
            failed = True
        seen = list(self.ran)
        if moment.source == "fork" and not moment.id:
            thread.moments.append(moment)
        if any(moment is known for known in thread.moments):
            thread.head = moment
        while moment.frontier:
            due = [i for i in range(len(moment.frontier)) if i not in moment.done]
            if any(fails for _, fails in seen[: len(due)]):
                break
            first, seen = seen[: len(due)], seen[len(due) :]
            assert sorted(map(str, (moment.frontier[i] for i in due))) == sorted(
                str(key) for key, _ in first
            ), "each due task runs once, finished ones never again"
            self.record(moment, first)
            moment = with_superstep(moment)
            thread.moments.append(moment)
            thread.head = moment
        if seen:
            assert len(set(map(str, (key for key, _ in seen)))) == len(seen)
            self.record(moment, seen)
            assert failed
        else:
            assert not failed

    def record(self, moment: Moment, ran: list[tuple[Key, bool]]) -> None:
        for key, fails in ran:
            index = next(
                i for i, task in enumerate(moment.frontier) if task == key and i not in moment.done
            )
            if fails:
                label = key[0] if key[1] is None else f"work {key[1]}"
                moment.failed[index] = f"Boom({label!r})"
            else:
                moment.failed.pop(index, None)
                state = copy.deepcopy(moment.values)
                moment.done[index] = writes_of(key[0], state, key[1] or 0)

    # --- comparing ------------------------------------------------------------------------

    def check(self, name: str) -> None:
        thread = self.threads[name]
        if not thread.moments or thread.head is None:
            assert self.app.get_state(on(name)).values == {}
            return
        self.check_entries(name, thread)
        head = thread.head
        state = self.app.get_state(on(name))
        values = head.values
        for index in sorted(head.done):
            values = merged(values, head.done[index])
        assert state.values == values
        assert state.next == tuple(head.frontier[i][0] for i in head.shown if i not in head.done)
        assert [task.error for task in state.tasks] == [head.failed.get(i) for i in head.shown]
        report = self.app.verify(on(name))
        assert report.ok, report.problems
        self.check_replays(name)

    def check_entries(self, name: str, thread: Thread) -> None:
        found = list(self.app.get_state_history(on(name), every=True))
        expected = list(reversed(thread.moments))
        inherited = list(thread.origin.lineage) if thread.origin else []
        if thread.orphaned:
            assert len(found) >= len(expected)
            expected += inherited[: len(found) - len(expected)]
        else:
            expected += inherited
        assert len(found) == len(expected)
        own = len(thread.moments)
        # What an edit wrote for a task is its result, but not in the list of what was recorded.
        listed = {place_of(each): each for each in self.app.get_state_history(on(name))}
        for number, (entry, moment) in enumerate(zip(found, expected, strict=True)):
            self.compare(entry, moment, thread.orphaned, number < own)
            if number < own:
                assert moment.id in ("", id_of(entry))
                moment.id = id_of(entry)
            if number % 7 == self.count % 7:
                read = self.app.get_state(entry.config)
                assert read.values == moment.values
                if moment is not thread.head:
                    shown = listed.get(place_of(entry))
                    if shown is None:  # a fork, which only says from where
                        assert without_results(read) == without_results(entry)
                    else:
                        assert unplaced(read) == unplaced(shown)

    def compare(self, entry: StateSnapshot, moment: Moment, moved: bool, own: bool) -> None:
        assert entry.values == moment.values
        nodes = [moment.frontier[i][0] for i in moment.shown]
        assert entry.next == tuple(nodes)
        assert entry.metadata is not None
        assert (entry.metadata["source"], entry.metadata["step"]) == (moment.source, moment.step)
        assert [task.name for task in entry.tasks] == nodes
        if own or not moved:  # what a fork's origin went on to do goes with its thread
            assert [task.result for task in entry.tasks] == [
                moment.done.get(i) for i in moment.shown
            ]
            assert [task.error for task in entry.tasks] == [
                moment.failed.get(i) for i in moment.shown
            ]
        assert (entry.parent_config is None) == (moment.parent is None)
        if entry.parent_config and moment.parent and moment.parent.id and not moved:
            assert id_of(entry.parent_config) == moment.parent.id

    def check_replays(self, name: str) -> None:
        assert replayed(self.app, name, True) == replayed(self.app, name, False)


def place_of(snapshot: StateSnapshot) -> tuple[str, str]:
    """The namespace and the id of a checkpoint."""
    place = snapshot.config["configurable"]
    return place["checkpoint_ns"], place["checkpoint_id"]


def unplaced(snapshot: StateSnapshot) -> StateSnapshot:
    """Without what depends on what a history lists: source, parent, errors before a retry."""
    tasks = tuple(task._replace(error=None) for task in snapshot.tasks)
    return snapshot._replace(metadata=None, parent_config=None, tasks=tasks)


def without_results(snapshot: StateSnapshot) -> StateSnapshot:
    tasks = tuple(task._replace(result=None) for task in snapshot.tasks)
    return unplaced(snapshot._replace(tasks=tasks))


class MemoryMachine(Machine):
    backend = "memory"


class FileMachine(Machine):
    backend = "file"


_SETTINGS: Final = settings(max_examples=settings().max_examples // 4, stateful_step_count=25)

TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = _SETTINGS
TestFileMachine = FileMachine.TestCase
TestFileMachine.settings = _SETTINGS
