"""The thread driver: runs tasks and records what comes of them, superstep by superstep.

Thin on purpose: what to run and what to record is decided by the planner and the fold. The
caller's thread does all the recording. A superstep of one task runs in it too; parallel
tasks run in a pool, and while one commit is under way the next outputs gather, so that
twenty finished tasks cost a few commits. A superstep ends when all its outputs are durable.
"""

from __future__ import annotations

import contextvars
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import Any, Final

from graph import planner, workers
from graph.builder import Branch, NodeSpec, Topology
from graph.errors import GraphRecursionError, InvalidGraphError, InvalidUpdateError
from graph.events import Data, Kind, error_data
from graph.fold import State, Task
from graph.log import Draft, Journal

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
    """

    config: Mapping[str, Any]
    modes: frozenset[str] = frozenset()
    recursion_limit: int = 25
    max_concurrency: int | None = None
    interrupt_before: frozenset[str] = frozenset()
    interrupt_after: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Done:
    """What became of a task: its output event's data, or the error after so many attempts."""

    index: int
    data: Data | None = None
    error: BaseException | None = None
    attempts: int = 1


class Run:
    """One run of a graph, from where its journal stands to an end, a stop or an error."""

    def __init__(self, topology: Topology, journal: Journal, options: Options) -> None:
        self._topology = topology
        self._journal = journal
        self._options = options
        self._finished: SimpleQueue[_Done | Chunk] = SimpleQueue()
        self._writers: dict[str, str] = {}

    @property
    def state(self) -> State:
        """Where the run stands."""
        return self._journal.state

    # --- the loop -----------------------------------------------------------------------

    def begin(self, given: Any, run_id: str | None, metadata: Mapping[str, Any]) -> None:
        """Record the input, before any node runs."""
        data = planner.begin(self._topology, self.state, given, run_id, metadata, self._decide)
        self._journal.record([(Kind.INPUT, data)], self._stops)

    def edit(self, values: Any, as_node: str, metadata: Mapping[str, Any]) -> None:
        """Record an edit of the state as if a node had made it."""
        data = planner.edit(self._topology, self.state, values, as_node, metadata, self._decide)
        self._journal.record([(Kind.UPDATE, data)], self._stops)

    def branch(self) -> None:
        """Record that the run leaves a checkpoint of the past where no node will."""
        if not self.state.frontier:
            self._journal.branch(self._stops)

    def steps(self, resumed: bool) -> Iterator[Chunk]:
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
            yield from self._superstep()
            yield "checkpoint", self.state

    def _stops(self, state: State) -> bool:
        """Whether the run is to wait for a person before the frontier of ``state``."""
        before, after = self._options.interrupt_before, self._options.interrupt_after
        coming = (task.node for task in state.frontier)
        return bool(state.frontier) and (
            _meets(before, coming) or (state.source == "loop" and _meets(after, state.last))
        )

    def _superstep(self) -> Iterator[Chunk]:
        due = planner.due(self.state)
        self._writers = {}
        for output in self.state.pending.values():
            planner.claim(self._topology, self.state.step + 1, self._writers, output)
        if "debug" in self._options.modes:
            for index, task in due:
                yield "task", _task_start(self.state, index, task)
        if len(due) == 1 and "custom" not in self._options.modes:
            index, task = due[0]
            yield from self._record([self._attempt(self.state, index, task)])
        else:
            yield from self._parallel(due)

    def _parallel(self, due: list[tuple[int, Task]]) -> Iterator[Chunk]:
        """Run tasks side by side and record them as they finish.

        After a failure siblings that have begun come to their end, so that their work is
        kept; no further ones begin. The first error is raised when all have ended.
        """
        state, pool = self.state, workers.pool()
        limit = self._options.max_concurrency or CONCURRENCY
        coming, running = iter(due), 0
        failed: Exception | None = None
        while True:
            for index, task in islice(coming, 0 if failed else limit - running):
                context = contextvars.copy_context()
                pool.submit(context.run, self._work, state, index, task)
                running += 1
            if not running:
                break
            batch = [self._finished.get()]
            while not self._finished.empty():
                batch.append(self._finished.get())
            done = [item for item in batch if isinstance(item, _Done)]
            running -= len(done)
            yield from (item for item in batch if not isinstance(item, _Done))
            try:
                yield from self._record(done)
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _work(self, state: State, index: int, task: Task) -> None:
        self._finished.put(self._attempt(state, index, task))

    def _record(self, done: list[_Done]) -> Iterator[Chunk]:
        """Append what became of tasks, in one transaction; raise the first error among them."""
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
            self._journal.record(drafts, self._stops)
        for kind, data in drafts:
            if kind == Kind.OUTPUT:
                yield "output", data
        if failures:
            error, index = failures[0].error, failures[0].index
            assert error is not None
            error.add_note(
                f"in node {frontier[index].node!r}, superstep {step}, attempt "
                f"{failures[0].attempts}"
            )
            raise error

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

    def _attempt(self, state: State, index: int, task: Task) -> _Done:
        """Run a task, again as its retry policies say; never raises an ``Exception``."""
        spec = self._topology.nodes[task.node]
        attempt = 0
        if "custom" in self._options.modes:
            _writer.set(self._put_custom)
        while True:
            attempt += 1
            try:
                result = self._call_node(spec, planner.argument(self._topology, state, task))
                data = planner.outcome(self._topology, state, index, result, self._decide)
                return _Done(index, data, attempts=attempt)
            except Exception as error:
                policy = next((p for p in spec.retry if p.retries(error)), None)
                if policy is None or attempt >= policy.max_attempts:
                    return _Done(index, error=error, attempts=attempt)
                wait = policy.initial_interval * policy.backoff_factor ** (attempt - 1)
                wait = min(wait, policy.max_interval)
                time.sleep(wait + random.random() if policy.jitter else wait)
            except BaseException as error:  # the pool's thread must answer, whatever comes
                return _Done(index, error=error, attempts=attempt)

    def _call_node(self, spec: NodeSpec, argument: Any) -> Any:
        if spec.is_async:
            raise InvalidGraphError(
                f"node {spec.name!r} is an async function, which invoke() and stream() cannot "
                "run; make it a plain function"
            )
        action: Any = spec.action
        if hasattr(action, "run_nested"):
            return action.run_nested(argument, self._options.config, self._topology.channels)
        return partial(action, argument)(**self._extras(spec.accepts))

    def _decide(self, branch: Branch, argument: Any) -> Any:
        if branch.is_async:
            raise InvalidGraphError(
                f"conditional edge {branch.name!r} is an async function, which invoke() and "
                "stream() cannot run; make it a plain function"
            )
        return branch.path(argument, **self._extras(branch.accepts))

    def _extras(self, accepts: frozenset[str]) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        if "config" in accepts:
            extras["config"] = self._options.config
        if "writer" in accepts:
            extras["writer"] = get_stream_writer()
        return extras

    def _put_custom(self, chunk: Any) -> None:
        self._finished.put(("custom", chunk))


def _meets(wanted: frozenset[str], nodes: Any) -> bool:
    return bool(wanted) and ("*" in wanted or not wanted.isdisjoint(nodes))


def _task_start(state: State, index: int, task: Task) -> dict[str, Any]:
    return {"step": state.step + 1, "task": index, "name": task.node}
