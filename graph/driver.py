"""The driver: runs tasks and records what comes of them, superstep by superstep.

Thin on purpose: what to run and what to record is decided by the planner and the fold, how
user code is called and waited for by a runner (threads, or an event loop). One place does
all the recording. A superstep of one task runs right there; parallel tasks run beside it, and
while one commit is under way the next outputs gather, so that twenty finished tasks cost a
few commits. A superstep ends when all its outputs are durable.
"""

from __future__ import annotations

import contextvars
import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

from eventstore import telemetry
from eventstore.driving import Perform
from graph import planner
from graph.builder import Branch, NodeSpec, Topology
from graph.errors import GraphRecursionError, InvalidUpdateError
from graph.events import Data, Kind, error_data
from graph.fold import State, Task
from graph.log import Draft, Journal
from graph.runners import Runner

log = logging.getLogger(__name__)

TASK: Final = telemetry.Operation("graph.task", "Time that a task took, with all its attempts.")
RETRIES: Final = telemetry.Counter("graph.retries", "{retry}", "Tasks that were tried again.")

CONCURRENCY: Final = 32
"""Tasks of one superstep that run at the same moment, unless ``max_concurrency`` says else."""

Chunk = tuple[str, Any]

_writer: contextvars.ContextVar[Callable[[Any], None]] = contextvars.ContextVar("stream_writer")


def get_stream_writer() -> Callable[[Any], None]:
    """What a node calls to stream something of its own (stream mode ``custom``).

    Outside a run, or when nobody listens, what is written goes nowhere.
    """
    return _writer.get(_ignore)


def _ignore(_chunk: Any) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Options:
    """How one run behaves.

    Attributes:
        config: what the caller passed, for nodes that take it.
        modes: stream modes somebody listens to; what nobody asked for is not made.
        interrupt_before, interrupt_after: nodes at which to stop; ``"*"`` is all.
        graph: the graph's name, for traces.
    """

    config: Mapping[str, Any]
    modes: frozenset[str] = frozenset()
    recursion_limit: int = 25
    max_concurrency: int | None = None
    interrupt_before: frozenset[str] = frozenset()
    interrupt_after: frozenset[str] = frozenset()
    graph: str = "graph"


@dataclass(frozen=True, slots=True)
class _Done:
    """What became of a task: its output event's data, or the error after so many attempts."""

    index: int
    data: Data | None = None
    error: BaseException | None = None
    attempts: int = 1


class Run:
    """One run of a graph, from where its journal stands to an end, a stop or an error."""

    def __init__(
        self,
        topology: Topology,
        journal: Journal,
        options: Options,
        runner: Runner,
        perform: Perform,
    ) -> None:
        self._topology = topology
        self._journal = journal
        self._options = options
        self._runner = runner
        self._perform = perform
        self._writers: dict[str, str] = {}

    @property
    def state(self) -> State:
        """Where the run stands."""
        return self._journal.state

    # --- the loop -----------------------------------------------------------------------

    async def begin(self, given: Any, run_id: str | None, metadata: Mapping[str, Any]) -> None:
        """Record the input, before any node runs."""
        data = await planner.begin(
            self._topology, self.state, given, run_id, metadata, self._decide
        )
        await self._append([(Kind.INPUT, data)])

    async def edit(self, values: Any, as_node: str, metadata: Mapping[str, Any]) -> None:
        """Record an edit of the state as if a node had made it."""
        data = await planner.edit(
            self._topology, self.state, values, as_node, metadata, self._decide
        )
        await self._append([(Kind.UPDATE, data)])

    async def branch(self) -> None:
        """Record that the run leaves a checkpoint of the past where no node will."""
        if not self.state.frontier:
            await self._perform(self._journal.branch(self._stops))

    async def _append(self, drafts: list[Draft]) -> None:
        await self._perform(self._journal.record(drafts, self._stops))

    async def steps(self, resumed: bool) -> AsyncGenerator[Chunk, None]:
        """Run supersteps to the end, or to where it has to stop; yields what is streamed.

        Args:
            resumed: go over the interrupt at which the run stands.

        Raises:
            GraphRecursionError: too many supersteps.
            Exception: what a node raised, after what its siblings did has been recorded.
        """
        count = 0
        limit = self._options.recursion_limit
        yield "checkpoint", self.state
        while self.state.frontier:
            if not (resumed and count == 0) and self._stops(self.state):
                return
            if count >= limit:
                raise GraphRecursionError(limit, tuple(task.node for task in self.state.frontier))
            count += 1
            # Closed by hand: whoever stops listening must not leave tasks running.
            superstep = self._superstep()
            try:
                async for chunk in superstep:
                    yield chunk
            finally:
                await superstep.aclose()
            yield "checkpoint", self.state

    def _stops(self, state: State) -> bool:
        """Whether the run is to wait for a person before the frontier of ``state``."""
        before, after = self._options.interrupt_before, self._options.interrupt_after
        coming = (task.node for task in state.frontier)
        return bool(state.frontier) and (
            _meets(before, coming) or (state.source == "loop" and _meets(after, state.last))
        )

    async def _superstep(self) -> AsyncGenerator[Chunk, None]:
        due = planner.due(self.state)
        self._writers = {}
        for output in self.state.pending.values():
            planner.claim(self._topology, self.state.step + 1, self._writers, output)
        if "debug" in self._options.modes:
            for index, task in due:
                yield "task", _task_start(self.state, index, task)
        if len(due) == 1 and "custom" not in self._options.modes:
            index, task = due[0]
            chunks, error = await self._record([await self._attempt(self.state, index, task)])
            for chunk in chunks:
                yield chunk
            if error is not None:
                raise error
            return
        parallel = self._parallel(due)
        try:
            async for chunk in parallel:
                yield chunk
        finally:
            await parallel.aclose()

    async def _parallel(self, due: list[tuple[int, Task]]) -> AsyncGenerator[Chunk, None]:
        """Run tasks side by side and record them as they finish.

        After a failure siblings that have begun come to their end, so that their work is
        kept; no further ones begin. The first error is raised when all have ended.
        """
        state, runner = self.state, self._runner
        limit = self._options.max_concurrency or CONCURRENCY
        coming, running = iter(due), 0
        failed: BaseException | None = None
        try:
            while True:
                for index, task in islice(coming, 0 if failed else limit - running):
                    runner.start(self._attempt(state, index, task))
                    running += 1
                if not running:
                    break
                batch = await runner.next()
                done = [item for item in batch if isinstance(item, _Done)]
                running -= len(done)
                for item in batch:
                    if not isinstance(item, _Done):
                        yield item
                try:
                    chunks, error = await self._record(done)
                except Exception as not_recorded:
                    chunks, error = [], not_recorded
                for chunk in chunks:
                    yield chunk
                failed = failed or error
        finally:
            if running:
                await runner.stop()
        if failed is not None:
            raise failed

    async def _record(self, done: list[_Done]) -> tuple[list[Chunk], BaseException | None]:
        """Append what became of tasks, in one transaction.

        Returns:
            What is streamed of it, and the first error among them.
        """
        drafts: list[Draft] = []
        failures: list[_Done] = []
        frontier, step = self.state.frontier, self.state.step + 1
        for item in map(self._checked, done):
            if item.data is not None:
                drafts.append((Kind.OUTPUT, item.data))
            elif item.error is not None:
                failures.append(item)
                if isinstance(item.error, Exception):
                    node = frontier[item.index].node
                    data = error_data(step, item.index, node, item.error, item.attempts)
                    drafts.append((Kind.ERROR, data))
        if drafts:
            await self._append(drafts)
        error = failures[0].error if failures else None
        if error is not None:
            node = frontier[failures[0].index].node
            error.add_note(f"in node {node!r}, superstep {step}, attempt {failures[0].attempts}")
        return [("output", data) for kind, data in drafts if kind == Kind.OUTPUT], error

    def _checked(self, item: _Done) -> _Done:
        """Siblings may have written the same key meanwhile: the later one is at fault."""
        if item.data is None:
            return item
        try:
            planner.claim(self._topology, self.state.step + 1, self._writers, item.data)
        except InvalidUpdateError as error:
            return _Done(item.index, error=error, attempts=item.attempts)
        return item

    # --- one task -----------------------------------------------------------------------

    async def _attempt(self, state: State, index: int, task: Task) -> _Done:
        """Run a task, as one span of the run's trace; never raises anything."""
        with self._span(state, index, task) as span:
            done = await self._tries(state, index, task)
            if done.error is not None:
                span.fail(done.error)
            if telemetry.on:
                span.tell({"graph.task.attempts": done.attempts})
            return done

    def _span(self, state: State, index: int, task: Task) -> telemetry.Span:
        if not telemetry.on:
            return telemetry.NOTHING
        facts = {"graph.step": state.step + 1, "graph.task.index": index}
        return TASK.begin(facts, self._labels(task.node), of=task.node)

    def _labels(self, node: str) -> telemetry.Facts:
        return {"graph.name": self._options.graph, "graph.node": node}

    async def _tries(self, state: State, index: int, task: Task) -> _Done:
        """Run a task, again as its retry policies say."""
        spec = self._topology.nodes[task.node]
        attempt = 0
        if "custom" in self._options.modes:
            _writer.set(self._put_custom)
        while True:
            attempt += 1
            try:
                result = await self._call_node(spec, planner.argument(self._topology, state, task))
                data = await planner.outcome(self._topology, state, index, result, self._decide)
                return _Done(index, data, attempts=attempt)
            except Exception as error:
                policy = next((p for p in spec.retry if p.retries(error)), None)
                if policy is None or attempt >= policy.max_attempts:
                    return _Done(index, error=error, attempts=attempt)
                wait = policy.initial_interval * policy.backoff_factor ** (attempt - 1)
                wait = min(wait, policy.max_interval)
                wait += random.random() if policy.jitter else 0
                self._tell_retry(task.node, state.step + 1, attempt, error, wait)
            except BaseException as error:  # whoever waits for this task must learn of it
                return _Done(index, error=error, attempts=attempt)
            await self._runner.sleep(wait)

    def _tell_retry(
        self, node: str, step: int, attempt: int, error: Exception, wait_s: float
    ) -> None:
        # Of the error only its kind: what it says may quote the state.
        kind = telemetry.kind_of(error)
        log.info(
            "node %r failed with %s, trying again",
            node,
            kind,
            extra={
                "graph": self._options.graph,
                "node": node,
                "step": step,
                "attempt": attempt,
                "error_type": kind,
                "wait_s": wait_s,
            },
        )
        RETRIES.add(1, self._labels(node))
        telemetry.note("graph.retry", {"graph.task.attempt": attempt, "error.type": kind})

    async def _call_node(self, spec: NodeSpec, argument: Any) -> Any:
        action: Any = spec.action
        if hasattr(action, "nested"):
            return await action.nested(
                argument, self._options.config, self._topology.channels, self._runner.another()
            )
        call = partial(action, argument, **self._extras(spec.accepts))
        return await self._runner.call(f"node {spec.name!r}", spec.is_async, call)

    async def _decide(self, branch: Branch, argument: Any) -> Any:
        call = partial(branch.path, argument, **self._extras(branch.accepts))
        return await self._runner.call(f"conditional edge {branch.name!r}", branch.is_async, call)

    def _extras(self, accepts: frozenset[str]) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        if "config" in accepts:
            extras["config"] = self._options.config
        if "writer" in accepts:
            extras["writer"] = get_stream_writer()
        return extras

    def _put_custom(self, chunk: Any) -> None:
        self._runner.put(("custom", chunk))


def _meets(wanted: frozenset[str], nodes: Any) -> bool:
    return bool(wanted) and ("*" in wanted or not wanted.isdisjoint(nodes))


def _task_start(state: State, index: int, task: Task) -> dict[str, Any]:
    return {"step": state.step + 1, "task": index, "name": task.node}
