"""Runs one task of a superstep: its node, its retries, its time limit, its conditional edges.

Owns how user code is called and what an attempt comes to (:class:`Done`). What is recorded of it,
and which tasks run, is the driver's. An attempt never raises: whatever happens in it becomes its
outcome, so that nobody waits for a task that will not report.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import eq
from typing import Any, Final

from eventstore import telemetry
from eventstore.format.namespaces import token
from graph.build.topology import Branch, NodeSpec, Topology
from graph.errors import GraphInterrupt, InvalidGraphError, InvalidUpdateError, NodeTimeoutError
from graph.run.journal import Journal, LogJournal
from graph.run.questions import alike
from graph.run.runners import Runner, TooLong
from graph.run.scope import ParentCommand, Scope, current
from graph.state import planner
from graph.state.events import Data, named, note, waiting_data
from graph.state.fold import Asked, State, Task, checkpoint_id, task_id
from graph.state.namespaces import lasting
from graph.types import Durability, ExecutionInfo, Runtime

log = logging.getLogger(__name__)

TASK: Final = telemetry.Operation("graph.task", "Time that a task took, with all its attempts.")
RETRIES: Final = telemetry.Counter("graph.retries", "{retry}", "Tasks that were tried again.")

_ENDS: Final = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
"""What ends a run, whatever the node was about to do."""

_GUESSED: Final = (
    "interrupt() was called with a value that was not shown before, and returned the resume value "
    "for the interrupt in its place; see interrupt()"
)

Listener = Callable[[str, str, Any], None]
"""Is told what happens in subgraphs: namespace, stream mode, chunk."""


@dataclass(frozen=True, slots=True)
class Options:
    """How one run behaves.

    Attributes:
        config: what the caller passed, for nodes that take it.
        modes: stream modes somebody listens to; what nobody asked for is not made.
        own_modes: those of them that the caller of this graph listens to.
        interrupt_before, interrupt_after: nodes at which to stop; ``"*"`` is all.
        graph: the graph's name, for traces.
        context: what nodes find as ``runtime.context``.
        durability: when what happened is written.
        subgraphs: somebody listens to what happens inside subgraphs, too.
        listener: in a subgraph: who is told what happens.
        scope: in a subgraph: the task that it runs for.
    """

    config: Mapping[str, Any]
    modes: frozenset[str] = frozenset()
    own_modes: frozenset[str] = frozenset()
    recursion_limit: int = 25
    max_concurrency: int | None = None
    interrupt_before: frozenset[str] = frozenset()
    interrupt_after: frozenset[str] = frozenset()
    graph: str = "graph"
    context: Any = None
    durability: Durability = "sync"
    subgraphs: bool = False
    listener: Listener | None = None
    scope: Scope | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a task: its output event's data, the error after so many attempts, or what it
    waits for.

    Attributes:
        logs: where the logs of the graphs that it called ended.
    """

    index: int
    data: Data | None = None
    error: BaseException | None = None
    waiting: Data | None = None
    attempts: int = 1
    logs: Mapping[str, int] = field(default_factory=dict)


class Tasks:
    """Runs the tasks of one run.

    Args:
        ns: the namespace of the run's log, or the one that it would have.
        above: the task that the run is for, in a graph that is called inside another.
    """

    def __init__(
        self,
        topology: Topology,
        journal: Journal,
        options: Options,
        runner: Runner,
        ns: str,
        above: Scope | None,
    ) -> None:
        self.journal = journal
        self.options = options
        self.ns = ns
        self._topology = topology
        self._runner = runner
        self._above = above
        if isinstance(journal, LogJournal):
            self._given: Mapping[str, Asked] = {}
            self._same: Callable[[Any, Any], bool] = alike(journal.core.codec.pack)
        else:
            self._given = _given(above)
            self._same = eq if above is None else above.same

    @property
    def state(self) -> State:
        """Where the run stands."""
        return self.journal.state

    async def attempt(self, state: State, index: int, task: Task) -> Done:
        """Run a task, as one span of the run's trace; whatever is raised becomes its outcome."""
        try:
            with self._span(state, index, task) as span:
                done = await self._tries(state, index, task)
                if done.error is not None:
                    span.fail(done.error)
                if telemetry.on:
                    span.set({"graph.task.attempts": done.attempts})
                return done
        except GeneratorExit:  # the coroutine is closed: nobody waits for it
            raise
        except BaseException as error:
            return Done(index, error=error)

    def _span(self, state: State, index: int, task: Task) -> telemetry.Span:
        if not telemetry.on:
            return telemetry.NOTHING
        facts = {"graph.step": state.step + 1, "graph.task.index": index}
        return TASK.begin(facts, self._labels(task.node), of=task.node)

    def _labels(self, node: str) -> telemetry.Attributes:
        return {"graph.name": self.options.graph, "graph.node": node}

    async def _tries(self, state: State, index: int, task: Task) -> Done:
        """Run a task, again as its retry policies say."""
        spec = self._topology.nodes[task.node]
        failed: list[list[str]] = []
        logs: dict[str, int] = {}
        while True:
            attempt = len(failed) + 1
            try:
                data = await self._once(spec, state, index, attempt, logs)
                kept = lasting(logs, self.ns) if logs else {}
                return Done(index, _with(with_logs(data, kept), "failed", failed), attempts=attempt)
            except GraphInterrupt as left:
                waiting = waiting_data(index, task.node, left.interrupts)
                return Done(index, waiting=waiting, attempts=attempt, logs=logs)
            except Exception as error:
                wait = _pause_before_retry(spec, attempt, error)
                if wait is None:
                    return Done(index, error=error, attempts=attempt, logs=logs)
                failed.append(list(named(error)))
                self._tell_retry(task.node, state.step + 1, attempt, error, wait)
            except BaseException as error:  # the run waits for this task and must get its error
                return Done(index, error=error, attempts=attempt, logs=logs)
            await self._runner.concurrency.sleep(wait)

    async def _once(
        self, spec: NodeSpec, state: State, index: int, attempt: int, logs: dict[str, int]
    ) -> Data:
        """The output event of one attempt; if its interrupts were mixed up, of another one at once
        that takes none for one that was shown with another value.
        """
        scope = self._scope(state, index, attempt, logs)
        try:
            data = await self._outcome(spec, state, index, scope)
            if not scope.mixed_up:
                return data
        except _ENDS:
            raise
        except BaseException as error:
            if not scope.mixed_up:
                if scope.guessed and isinstance(error, Exception):
                    note(error, _GUESSED)
                raise
        finally:
            scope.over = True  # what it left running is not recorded any more
        log.warning(
            "node %r calls interrupt() in another order than before, or side by side with values "
            "that were not shown before: it runs again, and asks those anew",
            spec.name,
            extra={"graph": self.options.graph, "node": spec.name, "step": state.step + 1},
        )
        scope = self._scope(state, index, attempt, logs, strict=True)
        try:
            return await self._outcome(spec, state, index, scope)
        finally:
            scope.over = True

    async def _outcome(self, spec: NodeSpec, state: State, index: int, scope: Scope) -> Data:
        """The output event of one attempt."""
        try:
            with scope:
                result = await self._result(spec, state, state.frontier[index], scope)
                data = await planner.outcome(self._topology, state, index, result, self.decide)
        except BaseExceptionGroup as group:
            raise _parted(group) from None
        _refuse_caught(scope)
        if data.get("above") and not self.ns:
            raise InvalidUpdateError(
                f"node {spec.name!r} returned Command(graph=Command.PARENT), but this graph has no "
                "parent"
            )
        return data

    async def _result(self, spec: NodeSpec, state: State, task: Task, scope: Scope) -> Any:
        """What the node returns, in the time that it has."""
        call = self._call_node(spec, planner.argument(self._topology, state, task))
        try:
            if spec.timeout_s is None:
                result = await call
            else:
                result = await self._runner.limited(call, spec.timeout_s)
        except ParentCommand as sent:
            return sent.command
        except TooLong:
            raise NodeTimeoutError(spec.name, spec.timeout_s or 0) from None
        _refuse_caught(scope)
        return result

    def _scope(
        self,
        state: State,
        index: int,
        attempt: int,
        logs: dict[str, int],
        strict: bool = False,
    ) -> Scope:
        known = planner.known(state, index)
        mark = token(state.began, index)
        return Scope(
            state.frontier[index].node,
            self.options.config,
            self,
            state.at.thread_key,
            self.ns,
            index,
            mark,
            known,
            self._given,
            bool(known) or index in state.interrupts,
            self._write,
            partial(self._runtime, state, index, attempt),
            self._above,
            same=self._same,
            strict=strict,
            logs=logs,
        )

    def _runtime(self, state: State, task: int, attempt: int) -> Runtime[Any]:
        thread_id = self.journal.thread_id if isinstance(self.journal, LogJournal) else None
        return Runtime(
            context=self.options.context,
            stream_writer=self._write,
            execution_info=ExecutionInfo(
                checkpoint_id=checkpoint_id(state.checkpoint),
                checkpoint_ns=self.ns,
                task_id=task_id(state, task),
                thread_id=thread_id,
                run_id=state.run_id or None,
                node_attempt=attempt,
            ),
        )

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
                "graph": self.options.graph,
                "node": node,
                "step": step,
                "attempt": attempt,
                "error_type": kind,
                "wait_s": wait_s,
            },
        )
        RETRIES.add(1, self._labels(node))
        telemetry.add_event("graph.retry", {"graph.task.attempt": attempt, "error.type": kind})

    async def _call_node(self, spec: NodeSpec, argument: Any) -> Any:
        action: Any = spec.action
        if hasattr(action, "nested"):
            return await action.nested(argument, self._topology.channels, self._runner.another())
        call = partial(action, argument, **self._extras(spec.accepts))
        return await self._runner.call(f"node {spec.name!r}", spec.is_async, call)

    async def decide(self, branch: Branch, argument: Any) -> Any:
        """What a conditional edge says."""
        call = partial(branch.path, argument, **self._extras(branch.accepts))
        return await self._runner.call(f"conditional edge {branch.name!r}", branch.is_async, call)

    def _extras(self, accepts: frozenset[str]) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        if not accepts:
            return extras
        if "config" in accepts:
            extras["config"] = self.options.config
        if "writer" in accepts:
            extras["writer"] = self._write
        if "runtime" in accepts:
            scope = current()
            extras["runtime"] = (
                scope.runtime()
                if scope is not None and scope.host is self
                else self._runtime(self.state, 0, 1)
            )
        return extras

    def _write(self, chunk: Any) -> None:
        """Stream a chunk of a node's own."""
        if self.options.listener is not None:
            if "custom" in self.options.modes:
                self.options.listener(self.ns, "custom", chunk)
        elif self._above is not None:
            self._above.write(chunk)
        elif "custom" in self.options.modes:
            self._runner.put(("custom", chunk))

    def hear(self, ns: str, mode: str, chunk: Any) -> None:
        """Pass on what happened in a subgraph."""
        self._runner.put(("inside", (ns, mode, chunk)))


def _pause_before_retry(spec: NodeSpec, attempt: int, error: Exception) -> float | None:
    """Seconds to wait before the node is retried; ``None``: it is not."""
    try:
        policy = next((each for each in spec.retry if each.retries(error)), None)
    except Exception as raised:  # the application's predicate: the node's own error comes out
        note(error, f"its retry policy could not judge it: {': '.join(named(raised))}")
        return None
    if policy is None or attempt >= policy.max_attempts:
        return None
    try:
        wait = policy.initial_interval * policy.backoff_factor ** (attempt - 1)
    except OverflowError:
        wait = policy.max_interval
    return min(wait, policy.max_interval) + (random.random() if policy.jitter else 0)


def _given(above: Scope | None) -> dict[str, Asked]:
    """What a run without a log has asked before, by id: it begins again each time."""
    if above is None:
        return {}
    named = {key: value for key, value in above.known.items() if isinstance(key, str)}
    return {**above.given, **named}


def _refuse_caught(scope: Scope) -> None:
    if scope.raised:
        raise InvalidGraphError(
            f"node {scope.node!r}, or a conditional edge after it, caught the GraphInterrupt with "
            "which interrupt() leaves it; raise it again, and use no `except BaseException` or "
            "bare `except` around interrupt()"
        )


def _parted(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """A group of errors without the questions in it; if there is nothing else, these as one."""
    asked, others = group.split(GraphInterrupt)
    if asked is None or others is not None:
        return others or group
    return GraphInterrupt([each for left in _leaves(asked) for each in left.interrupts])


def _leaves(group: BaseExceptionGroup[GraphInterrupt]) -> list[GraphInterrupt]:
    found: list[GraphInterrupt] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


def _with(data: Data, name: str, value: Any) -> Data:
    return {**data, name: value} if value else data


def with_logs(data: Data, logs: Mapping[str, int]) -> Data:
    return _with(data, "logs", dict(logs))
