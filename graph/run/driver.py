"""The driver: runs tasks and records their results, superstep by superstep.

Thin on purpose: planner and fold decide what to run and what to record; a runner calls application
code and waits for it (on threads, or in an event loop). All recording is here. A single task runs
in the driver itself. Parallel tasks run beside it, and their outputs collect while one commit is in
progress, so that twenty finished tasks cost a few commits. A superstep ends when all its outputs
are durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from eventstore import EventStoreError, SerializationError
from graph.build.channels import MISSING
from graph.build.topology import Topology
from graph.errors import (
    GraphRecursionError,
    InvalidGraphError,
    InvalidUpdateError,
)
from graph.run.journal import Journal, LogJournal
from graph.run.runners import Runner
from graph.run.scope import Scope
from graph.run.status import Draft
from graph.run.tasks import Done, Options, Tasks, with_logs
from graph.state import planner
from graph.state.events import Data, Kind, error_data, interrupt_data, note, unpack
from graph.state.state import Asked, State, Task
from graph.types import COPY, Command, Interrupt, StateUpdate

log = logging.getLogger(__name__)

_LIVE: Final = frozenset({"custom", "messages"})
"""Stream modes whose chunks come while a task runs."""

Chunk = tuple[str, Any]


@dataclass(slots=True)
class SubgraphUse:
    """The task of a superstep that calls a subgraph with ``checkpointer=True``.

    Attributes:
        task: its index; no other task may call the subgraph.
        shape: distinguishes the subgraph from others of the same name.
        active: whether a call is in progress.
    """

    task: int
    shape: object
    active: bool = False


class Run(Tasks):
    """One run of a graph, from the state of its journal to an end, an interrupt or an error.

    Args:
        ns: the namespace of the run, also if it keeps no log.
        above: in a subgraph: the task that the run is for.

    Attributes:
        written: the keys written since the last checkpoint, if the stream mode ``values`` asks;
            ``None`` where a run goes on.
        input: the state before the input with which the run began, and the data of its event.
        resumed: the state with the interrupts that were resumed.
        answer: a resume value that came before its interrupt, and who gave it: for the one of the
            first superstep.
    """

    def __init__(
        self,
        topology: Topology,
        journal: Journal,
        options: Options,
        runner: Runner,
        *,
        ns: str = "",
        above: Scope | None = None,
    ) -> None:
        super().__init__(topology, journal, options, runner, ns, above)
        self.over = False
        self.in_use: dict[str, SubgraphUse] = {}
        self._writers: dict[str, str] = {}
        self._waiting: list[Data] = []
        self.written: set[str] | None = None
        self.input: tuple[State, Data] | None = None
        self.resumed: State | None = None
        self._failure: BaseException | None = None
        self.answer: tuple[Any, Any] | None = None

    @property
    def interrupts(self) -> tuple[Interrupt, ...]:
        """The pending interrupts."""
        pending = planner.pending_interrupts(self.state)
        return tuple(Interrupt(each["value"], name) for name, each in pending.items())

    def logs(self) -> dict[str, int]:
        """The last seq of this run's log and of the logs of its subgraphs, by name."""
        if not isinstance(self.journal, LogJournal):
            return {}
        found = dict(self.state.kept)
        for logs in self.state.logs.values():
            found |= logs
        return {**found, self.ns: self.journal.at.seq}

    async def close(self) -> None:
        """Return when everything recorded is durable; code that still runs can record no more."""
        self.over = True
        cancelled: BaseException | None = None
        while True:
            try:
                await self.journal.flush()
                break
            except asyncio.CancelledError as error:  # still wait for what is being written
                cancelled = error
        if cancelled is not None:
            raise cancelled

    # --- the loop -----------------------------------------------------------------------

    async def begin(
        self, given: Any, run_id: str | None, metadata: Mapping[str, Any], call: str = ""
    ) -> None:
        """Record the input, before any node runs."""
        data = await planner.begin(
            self._topology, self.state, given, run_id, metadata, self.evaluate_edge, call
        )
        self.written = {key for key, _ in unpack(data)}
        if self.options.modes & {"checkpoints", "debug"}:
            self.input = self.state, data
        await self.journal.record([(Kind.INPUT, data)], self._stops)

    async def resume(self, given: Command[Any], by: Any = None) -> frozenset[int]:
        """Record resume values, and who gave them, before any node runs.

        Returns:
            The tasks that still wait: none of their interrupts was resumed.
        """
        return await self._resume(planner.resume(self._topology, self.state, given, by))

    async def resume_subgraph(self, known: Mapping[int | str, Asked]) -> frozenset[int]:
        """Record those resume values of the task above that are for this subgraph.

        Returns:
            As :meth:`resume`.
        """
        data = planner.resume_subgraph(self.state, known)
        return frozenset() if data is None else await self._resume(data)

    async def _resume(self, data: Data) -> frozenset[int]:
        self.resumed = self.state
        await self.journal.record([(Kind.RESUME, data)], self._stops)
        resumed = {each["task"] for each in data["answers"]}
        return frozenset(self.state.interrupts) - resumed if resumed else frozenset()

    async def edit(self, updates: Sequence[StateUpdate], metadata: Mapping[str, Any]) -> None:
        """Record an edit of the state as if nodes had made it, side by side.

        A copy (``as_node="__copy__"``) is a fork: nothing, at the end of a thread.
        """
        if any(update.as_node == COPY for update in updates):
            if len(updates) > 1 or updates[0].values is not None:
                raise InvalidUpdateError(
                    'as_node="__copy__" copies a checkpoint; it takes no values and no other '
                    "update in its superstep"
                )
            await self.branch()
            return
        data = await planner.edit(self._topology, self.state, updates, metadata, self.evaluate_edge)
        await self.journal.record([(Kind.UPDATE, data)], self._stops)

    async def branch(self) -> None:
        """Record a fork, if the run continues from an older checkpoint."""
        await self.journal.branch(self._stops)

    async def claim(self) -> bool:
        """Make this run the owner of its thread; false if another run was first."""
        return not isinstance(self.journal, LogJournal) or await self.journal.claim()

    async def steps(
        self, resumed: bool, waiting: frozenset[int] = frozenset()
    ) -> AsyncGenerator[Chunk, None]:
        """Run supersteps to the end or to an interrupt; yields items for the stream.

        Args:
            resumed: do not pause at the interrupt where the run continues.
            waiting: tasks of the first superstep not to run.

        Raises:
            GraphRecursionError: too many supersteps.
            Exception: the error of a node, after its siblings have finished and been recorded.
        """
        count = 0
        limit = self.options.recursion_limit
        self._refuse_unknown_nodes()
        yield "checkpoint", self.state
        while self.state.frontier:
            if not (resumed and count == 0) and self._stops(self.state):
                yield "interrupt", ()
                return
            if count >= limit:
                raise GraphRecursionError(limit, tuple(task.node for task in self.state.frontier))
            self.steps_left = limit - count
            count += 1
            # Closed explicitly: a caller that stops reading must not leave tasks running.
            superstep = self._superstep(waiting)
            waiting = frozenset()
            try:
                async for chunk in superstep:
                    yield chunk
            finally:
                await superstep.aclose()
            if self._is_answered():
                waiting = await self._answer()
                resumed, count = True, count - 1
                continue
            self.answer = None
            if self.state.interrupts:
                return
            yield "checkpoint", self.state

    def _is_answered(self) -> bool:
        """Whether the only interrupt of the first superstep was answered before it was shown."""
        return (
            self.answer is not None
            and self._failure is None
            and len(planner.pending_interrupts(self.state)) == 1
        )

    async def _answer(self) -> frozenset[int]:
        assert self.answer is not None
        (value, by), self.answer = self.answer, None
        (name,) = planner.pending_interrupts(self.state)
        return await self.resume(Command(resume={name: value}), by)

    def _refuse_unknown_nodes(self) -> None:
        """Refuse to continue if a node is due that the graph no longer has.

        Raises:
            InvalidGraphError: names the node.
        """
        known = self._topology.nodes
        lost = [task.node for task in self.state.frontier if task.node not in known]
        if lost:
            raise InvalidGraphError(
                f"node {lost[0]!r} is due in this thread, but the graph has no such node; its "
                f"nodes are {', '.join(map(repr, known))}; deploy it again, choose where to go on "
                "with update_state(config, values, as_node=…), or go back to an earlier checkpoint"
            )

    def _stops(self, state: State) -> bool:
        """Whether the run pauses before the frontier of ``state``."""
        before, after = self.options.interrupt_before, self.options.interrupt_after
        coming = (task.node for task in state.frontier)
        return bool(state.frontier) and (
            _meets(before, coming) or (state.source == "loop" and _meets(after, state.last))
        )

    async def _superstep(self, waiting: frozenset[int]) -> AsyncGenerator[Chunk, None]:
        due = [(index, task) for index, task in planner.due(self.state) if index not in waiting]
        if len(due) > 1:  # sends begin first, as in LangGraph
            due.sort(key=lambda each: each[1].arg is MISSING)
        began = self.state
        if self._above is not None:
            self._above.progress()
        self._writers, self._waiting, self._failure = {}, [], None
        self.written = set()
        self.in_use = {}
        for output in began.pending.values():
            self._claim(output)
        if self.options.modes & {"debug", "tasks"}:
            for index, task in due:
                given = planner.shown_argument(self._topology, began, task)
                yield "task", (began, index, given)
        if len(due) == 1 and not self._streams:
            index, task = due[0]
            for chunk in await self._record(
                [self._checked(await self.run_task(began, index, task))]
            ):
                yield chunk
        else:
            parallel = self._parallel(due)
            try:
                async for chunk in parallel:
                    yield chunk
            finally:
                await parallel.aclose()
        await self._record_interrupts()
        for index in () if self._is_answered() else sorted(self.state.interrupts):
            ran = any(each["task"] == index for each in self._waiting)
            yield "waiting", (began, self.state.interrupts[index], ran)
        if self._failure is not None:
            raise self._failure

    async def _record_interrupts(self) -> None:
        """Record the interrupts of the superstep, which makes a checkpoint, unless the log already
        ends with them.
        """
        state, step = self.state, self.state.step + 1
        new = [each for each in self._waiting if not _is_recorded(state, each)]
        if not new and (not state.interrupts or state.at == state.checkpoint):
            return
        try:
            await self.journal.record([(Kind.INTERRUPT, interrupt_data(step, new))], self._stops)
        except SerializationError:
            for each in new:  # one by one, so that only those are lost that cannot be stored
                await self._record_interrupt(step, each)

    async def _record_interrupt(self, step: int, waiting: Data) -> None:
        try:
            await self.journal.record(
                [(Kind.INTERRUPT, interrupt_data(step, [waiting]))], self._stops
            )
        except SerializationError as error:
            error.add_note(f"in an interrupt value of node {waiting['node']!r}, superstep {step}")
            self._failure = self._failure or error

    @property
    def _streams(self) -> bool:
        """Whether chunks are requested while a task runs."""
        return self.options.subgraphs or not self.options.modes.isdisjoint(_LIVE)

    async def _parallel(self, due: list[tuple[int, Task]]) -> AsyncGenerator[Chunk, None]:
        """Run tasks in parallel and record them as they finish.

        After a failure, running siblings finish and are recorded, unless the graph cancels them; no
        further ones start.
        """
        state, runner = self.state, self._runner
        limit = self.options.max_concurrency or runner.concurrency_limit
        coming, running = iter(due), 0
        order = _Order([index for index, _ in due])
        try:
            while True:
                for index, task in islice(coming, 0 if self._failure else limit - running):
                    running += 1
                    runner.start(self.run_task(state, index, task))
                cancels = self.options.cancel_siblings and self._runner.is_async
                if not running or (cancels and self._failure is not None):
                    break
                batch = await runner.next()
                if order.note(batch):  # nodes that return at once are to report in order
                    more = await runner.more()
                    order.note(more)
                    batch += more
                done = [item for item in batch if isinstance(item, Done)]
                done.sort(key=order.place)
                broken = [item for item in batch if isinstance(item, BaseException)]
                running -= len(done) + len(broken)
                self._failure = self._failure or next(iter(broken), None)
                for item in batch:
                    if not isinstance(item, Done | BaseException):
                        yield item
                try:
                    chunks = await self._record([self._checked(item) for item in done])
                except Exception as not_recorded:
                    chunks = []
                    self._failure = self._failure or not_recorded
                for chunk in chunks:
                    yield chunk
        finally:
            if running:
                self.over = True
                await runner.stop()

    async def _record(self, items: list[Done]) -> list[Chunk]:
        """Append the results of tasks in one transaction. Interrupts are recorded later, when all
        tasks have ended.

        Returns:
            Items for the stream.
        """
        drafts, chunks = self._drafts(items)
        try:
            if drafts:
                await self.journal.record(drafts, self._stops)
        except Exception as error:
            if isinstance(error, EventStoreError) and not isinstance(error, SerializationError):
                raise  # no value is at fault, but the database, or another writer
            return await self._record_one_by_one(items, error)
        self._waiting += [with_logs(each.waiting, each.logs) for each in items if each.waiting]
        return chunks

    async def _record_one_by_one(self, items: list[Done], error: Exception) -> list[Chunk]:
        """Record each by itself, so that only results that cannot be stored or reduced are lost."""
        if len(items) > 1:
            return [chunk for item in items for chunk in await self._record([item])]
        (item,) = items
        if item.data is None:
            raise error
        return await self._record([Done(item.index, error=error, attempts=item.attempts)])

    def _drafts(self, items: list[Done]) -> tuple[list[Draft], list[Chunk]]:
        """The events of task results, and the items for the stream."""
        drafts: list[Draft] = []
        chunks: list[Chunk] = []
        began = self.state
        for item in items:
            if item.data is not None:
                drafts.append((Kind.OUTPUT, item.data))
                chunks.append(("output", (began, item.data, item.streamed)))
            elif item.error is not None:
                node = began.frontier[item.index].node
                if self._failure is None:
                    self._failure = item.error
                    where = f"in node {node!r}, superstep {began.step + 1}, attempt {item.attempts}"
                    note(item.error, where)
                if not self._is_stopped_by(item.error):
                    data = error_data(began.step + 1, item.index, node, item.error, item.attempts)
                    drafts.append((Kind.ERROR, with_logs(data, item.logs)))
                    chunks.append(("error", (began, data, item.error)))
        return drafts, chunks if self.options.modes else []

    def _is_stopped_by(self, error: BaseException) -> bool:
        """Whether an error says that the run is to stop, and not that the node has failed."""
        return isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit) or (
            isinstance(error, asyncio.CancelledError) and self._runner.is_cancelled
        )

    def _claim(self, output: Data) -> None:
        """Refuse an output that writes what another one of the superstep has written."""
        writes = list(unpack(output))
        if self.written is not None and "values" in self.options.modes:
            self.written.update(key for key, _ in writes)
        planner.claim(self._topology, output["step"], self._writers, output["node"], writes)

    def _checked(self, item: Done) -> Done:
        """Refuse a result that writes a key which a sibling has written meanwhile."""
        if item.data is None:
            return item
        try:
            self._claim(item.data)
        except InvalidUpdateError as error:
            return Done(item.index, error=error, attempts=item.attempts)
        return item


class _Order:
    """The order in which tasks were started, and which of them are finished."""

    __slots__ = ("_finished", "_first", "_places")

    def __init__(self, started: Sequence[int]) -> None:
        self._places = {index: place for place, index in enumerate(started)}
        self._finished: set[int] = set()
        self._first = 0

    def place(self, done: Done) -> int:
        """The place of a task."""
        return self._places[done.index]

    def note(self, batch: list[Any]) -> bool:
        """Note what has finished.

        Returns:
            Whether a task that was started before one of them has not.
        """
        places = [self.place(item) for item in batch if isinstance(item, Done)]
        self._finished.update(places)
        while self._first in self._finished:
            self._finished.remove(self._first)
            self._first += 1
        return self._first < max(places, default=0)


def _is_recorded(state: State, waiting: Data) -> bool:
    """Whether the log already has these interrupts of a task."""
    task = waiting["task"]
    recorded = with_logs(state.interrupts.get(task, {}), state.logs.get(task, {}))
    try:
        return bool(recorded == waiting) and task not in state.errors
    except ValueError:  # arrays have no single truth value
        return False


def _meets(wanted: frozenset[str], nodes: Any) -> bool:
    return bool(wanted) and ("*" in wanted or not wanted.isdisjoint(nodes))
