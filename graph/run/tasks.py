"""Runs one task of a superstep: its node, its retries, its time limit, its conditional edges.

Owns how application code is called, retried and timed out, and the result of a task
(:class:`Done`). The driver chooses the tasks and records the results. Running a task never raises:
every error becomes its result, so that the driver never waits for a task that will not report.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import eq
from typing import Any, Final, Protocol, TypeVar, cast

from eventstore import telemetry
from eventstore.concurrency import Concurrency
from eventstore.format.namespaces import token
from graph.build.channels import MISSING
from graph.build.foreign import misplaced
from graph.build.schema import remaining_steps
from graph.build.topology import Branch, NodeSpec, Topology
from graph.errors import (
    GraphInterrupt,
    InvalidGraphError,
    InvalidUpdateError,
    NodeInterrupt,
    NodeTimeoutError,
)
from graph.run.journal import Journal, LogJournal
from graph.run.questions import alike
from graph.run.runners import Runner, TimeLimitExceeded
from graph.run.scope import ParentCommand, Scope, current, heartbeat, running
from graph.state import planner
from graph.state.events import Data, Writes, named, note, waiting_data
from graph.state.namespaces import lasting
from graph.state.state import Asked, State, Task, checkpoint_id, task_id
from graph.types import Durability, ExecutionInfo, NodeError, Runtime

log = logging.getLogger(__name__)

T = TypeVar("T")

TASK: Final = telemetry.Operation("graph.task", "Time that a task took, with all its attempts.")
RETRIES: Final = telemetry.Counter("graph.retries", "{retry}", "Tasks that were retried.")

_ENDS: Final = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
"""What ends a run, whatever the node was about to do."""

_GUESSED: Final = (
    "interrupt() was called with a value that was not shown before, and returned the resume value "
    "for the interrupt in its place; see interrupt()"
)


class Observer(Protocol):
    """Told of a run, its nodes and its conditional edges."""

    async def begin(self, given: Any) -> None:
        """The run begins with this input."""

    async def end(self, output: Any) -> None:
        """The run has ended, or is interrupted, with this output."""

    async def fail(self, error: BaseException) -> None:
        """The run has failed."""

    async def over_node(
        self,
        scope: Scope,
        given: Callable[[], Any],
        work: Coroutine[Any, Any, tuple[Any, T]],
    ) -> T:
        """The second part of what ``work`` returns; the first is the result of the node.

        Args:
            given: makes a copy of the node's argument.
        """

    async def over_edge(
        self, name: str, nth: Callable[[], int], given: Any, work: Coroutine[Any, Any, Any]
    ) -> Any:
        """What ``work``, the function of a conditional edge, returns.

        Args:
            nth: its place among those of its node.
        """


Listener = Callable[[str, str, Any], None]
"""Gets the chunks that are streamed in subgraphs: namespace, stream mode, chunk."""


@dataclass(frozen=True, slots=True)
class Options:
    """How one run behaves.

    Attributes:
        config: the config of the call, for nodes that take it.
        modes: the stream modes that the caller of this graph or of a graph above requested;
            chunks of other modes are not made.
        own_modes: those that the caller of this graph requested.
        interrupt_before, interrupt_after: nodes at which the run pauses; ``"*"`` means all.
        graph: the graph's name, for traces.
        context: ``runtime.context`` of the nodes.
        durability: when events are written.
        subgraphs: the caller requested the chunks of subgraphs, too.
        listener: in a subgraph: gets its chunks for the caller of a graph above.
        scope: in a subgraph: the task that its run is for.
        output_keys: the keys that the caller gets; ``None``: those of the output schema.
        version: the form of what the caller gets: ``v1`` or ``v2``.
        step_timeout_s: the longest that each attempt of any node may take.
        cancel_siblings: when a task fails, the async ones beside it are cancelled.
        observer: told of nodes and edges, if langchain-core is in use.
    """

    config: Mapping[str, Any]
    modes: frozenset[str] = frozenset()
    own_modes: frozenset[str] = frozenset()
    recursion_limit: int = 10_007
    max_concurrency: int | None = None
    interrupt_before: frozenset[str] = frozenset()
    interrupt_after: frozenset[str] = frozenset()
    graph: str = "graph"
    context: Any = None
    durability: Durability = "sync"
    subgraphs: bool = False
    listener: Listener | None = None
    scope: Scope | None = None
    output_keys: Sequence[str] | str | None = None
    version: str = "v1"
    step_timeout_s: float | None = None
    cancel_siblings: bool = False
    observer: Observer | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a task: exactly one of ``data``, ``error`` and ``waiting``.

    Attributes:
        data: of its output event.
        error: of its last attempt.
        waiting: its pending interrupts, as an interrupt event records them.
        attempts: their number.
        logs: where the logs of the graphs that it called ended, by name.
        streamed: its writes as streams show them, if they are not as recorded.
    """

    index: int
    data: Data | None = None
    error: BaseException | None = None
    waiting: Data | None = None
    attempts: int = 1
    logs: Mapping[str, int] = field(default_factory=dict)
    streamed: Writes | None = None


class Tasks:
    """Runs the tasks of one run.

    Args:
        ns: the namespace of the run, also if it keeps no log.
        above: in a subgraph: the task that the run is for.

    Attributes:
        steps_left: the supersteps that the run may still take, with the current one.
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
        self.steps_left = options.recursion_limit
        self._topology = topology
        self._runner = runner
        self._above = above
        self._reports = telemetry.is_reporting()
        if isinstance(journal, LogJournal):
            self._known_by_id: Mapping[str, Asked] = {}
            self._same: Callable[[Any, Any], bool] = alike(journal.core.codec.pack)
        else:
            self._known_by_id = _known_by_id(above)
            self._same = eq if above is None else above.same

    @property
    def concurrency(self) -> Concurrency:
        """How the run waits."""
        return self._runner.concurrency

    @property
    def state(self) -> State:
        """The current state of the run."""
        return self.journal.state

    def state_of(self, node: str) -> Any:
        """The current state in the form that a node declares."""
        return planner.view(self._topology, self._topology.nodes[node].schema, self.state.values)

    def triggers(self, node: str, is_sent: bool) -> tuple[str, ...]:
        """What makes a node run, as its config says."""
        return self._topology.triggers(node, is_sent)

    async def run_task(self, state: State, index: int, task: Task) -> Done:
        """Run a task with its retries, as one span of the trace. Every error becomes its result."""
        try:
            with self._span(state, index, task) as span:
                done = await self._run_with_retries(state, index, task)
                if done.error is not None:
                    span.fail(done.error)
                if span is not telemetry.NOTHING:
                    span.set({"graph.task.attempts": done.attempts})
                return done
        except GeneratorExit:  # the coroutine was closed; nobody waits for its result
            raise
        except BaseException as error:
            return Done(index, error=error)

    def _span(self, state: State, index: int, task: Task) -> telemetry.Span:
        if not self._reports:
            return telemetry.NOTHING
        facts = {"graph.step": state.step + 1, "graph.task.index": index}
        return TASK.begin(facts, self._labels(task.node), of=task.node)

    def _labels(self, node: str) -> telemetry.Attributes:
        return {"graph.name": self.options.graph, "graph.node": node}

    async def _run_with_retries(self, state: State, index: int, task: Task) -> Done:
        """Run a task, and retry it as its retry policies say."""
        spec = self._topology.nodes[task.node]
        failed: list[list[str]] = []
        logs: dict[str, int] = {}
        while True:
            attempt = len(failed) + 1
            try:
                data, streamed = await self._run_attempt(spec, state, index, attempt, logs)
                if logs:
                    data = with_logs(data, lasting(logs, self.ns))
                if failed:
                    data = {**data, "failed": failed}
                return Done(index, data, attempts=attempt, streamed=streamed)
            except GraphInterrupt as left:
                waiting = waiting_data(index, task.node, left.interrupts)
                return Done(index, waiting=waiting, attempts=attempt, logs=logs)
            except Exception as raised:
                error = misplaced(raised) or raised
                if error is not raised:
                    error.__cause__ = raised
                wait = _pause_before_retry(spec, attempt, error)
                if wait is None and spec.handler is not None:
                    failed.append(list(named(error)))
                    spec = _handling(spec.handler, task.node, error)
                    continue
                if wait is None:
                    return Done(index, error=error, attempts=attempt, logs=logs)
                failed.append(list(named(error)))
                self._report_retry(task.node, state.step + 1, attempt, error, wait)
            except BaseException as error:  # the run waits for this task, and must get its error
                return Done(index, error=error, attempts=attempt, logs=logs)
            await self._runner.concurrency.sleep(wait)

    async def _run_attempt(
        self, spec: NodeSpec, state: State, index: int, attempt: int, logs: dict[str, int]
    ) -> tuple[Data, Writes | None]:
        """The output event's data of one attempt. If its interrupts were mixed up, the node runs
        again at once, and gets no resume value for an interrupt that was shown with another value.
        """
        scope = self._scope(state, index, attempt, logs)
        try:
            outcome = await self._outcome(spec, state, index, scope)
            if not scope.mixed_up:
                return outcome
        except _ENDS:
            raise
        except BaseException as error:
            if not scope.mixed_up:
                if scope.guessed and isinstance(error, Exception):
                    note(error, _GUESSED)
                raise
        finally:
            scope.over = True  # code that it left running can no longer record
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

    async def _outcome(
        self, spec: NodeSpec, state: State, index: int, scope: Scope
    ) -> tuple[Data, Writes | None]:
        """The output event's data after one call of the node; its writes as they are streamed."""
        entered = scope.enter()
        counted = remaining_steps.set(self.steps_left - 1)
        try:
            if self.options.observer is None:
                result = await self._result(spec, state, state.frontier[index], scope)
                data, streamed = await planner.outcome(
                    self._topology, state, index, result, self.evaluate_edge, _handler(scope, spec)
                )
            else:
                data, streamed = await self._observed(
                    self.options.observer, spec, state, index, scope
                )
        except BaseExceptionGroup as group:
            raise _without_interrupts(group) from None
        finally:
            remaining_steps.reset(counted)
            running.reset(entered)
        _refuse_caught(scope)
        if data.get("above") and not self.ns:
            raise InvalidUpdateError(
                f"node {spec.name!r} returned Command(graph=Command.PARENT), but this graph has no "
                "parent"
            )
        return data, streamed

    async def _observed(
        self, observer: Observer, spec: NodeSpec, state: State, index: int, scope: Scope
    ) -> tuple[Data, Writes | None]:
        """The output event's data, of a node that an observer is told of; its streamed writes."""

        async def work() -> tuple[Any, tuple[Data, Writes | None]]:
            result = await self._result(spec, state, task, scope)
            return result, await planner.outcome(
                self._topology, state, index, result, self.evaluate_edge, _handler(scope, spec)
            )

        task = state.frontier[index]
        given = partial(planner.argument, self._topology, state, task)
        return await observer.over_node(scope, given, work())

    async def _result(self, spec: NodeSpec, state: State, task: Task, scope: Scope) -> Any:
        """The result of the node, within its time limit."""
        call = self._call_node(spec, planner.argument(self._topology, state, task))
        try:
            limit_s = _shorter(spec.timeout_s, self.options.step_timeout_s)
            idle_s = spec.idle_timeout_s
            if limit_s is None and idle_s is None:
                result = await call
            else:
                scope.heartbeat()
                idle = None if idle_s is None else (idle_s, scope.idle_s)
                result = await self._runner.limited(call, limit_s, idle)
        except ParentCommand as sent:
            return sent.command
        except NodeInterrupt as raised:
            while True:  # a resume value does not keep the node from raising it again
                scope.interrupt(raised.value)
        except TimeLimitExceeded as late:
            raise NodeTimeoutError(
                spec.name, late.limit_s, kind=late.kind, run_timeout=limit_s, idle_timeout=idle_s
            ) from None
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
        spec = self._topology.nodes[state.frontier[index].node]
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
            self._known_by_id,
            bool(known) or index in state.interrupts,
            self._write,
            partial(self._runtime, state, index, attempt),
            self._above,
            same=self._same,
            strict=strict,
            logs=logs,
            step=state.step + 1,
            watched=spec.idle_timeout_s is not None and not spec.heartbeat_only,
            sent=state.frontier[index].arg is not MISSING,
        )

    def _runtime(self, state: State, task: int, attempt: int) -> Runtime[Any]:
        thread_id = self.journal.thread_id if isinstance(self.journal, LogJournal) else None
        return Runtime(
            context=self.options.context,
            stream_writer=self._write,
            heartbeat=heartbeat,
            execution_info=ExecutionInfo(
                checkpoint_id=checkpoint_id(state.checkpoint),
                checkpoint_ns=self.ns,
                task_id=task_id(state, task),
                thread_id=thread_id,
                run_id=state.run_id or None,
                node_attempt=attempt,
            ),
        )

    def _report_retry(
        self, node: str, step: int, attempt: int, error: Exception, wait_s: float
    ) -> None:
        # Only the type of the error: its message may quote the state.
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
        is_async = spec.is_async
        if spec.async_action is not None and self._runner.is_async:
            action, is_async = spec.async_action, True
        call = partial(action, argument, **self._extras(spec.accepts))
        return await self._runner.call(f"node {spec.name!r}", is_async, call)

    async def evaluate_edge(self, branch: Branch, argument: Any) -> Any:
        """The result of a conditional edge's function."""
        path, is_async = branch.path, branch.is_async
        if branch.async_path is not None and self._runner.is_async:
            path, is_async = branch.async_path, True
        call = partial(path, argument, **self._extras(branch.accepts))
        work = self._runner.call(f"conditional edge {branch.name!r}", is_async, call)
        observer = self.options.observer
        if observer is None:
            return await work
        return await observer.over_edge(branch.name, partial(self._nth, branch), argument, work)

    def _nth(self, branch: Branch) -> int:
        """The place of a conditional edge among those of its node."""
        for branches in self._topology.branches.values():
            if branch in branches:
                return branches.index(branch)
        return 0

    def _extras(self, accepts: frozenset[str]) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        if not accepts:
            return extras
        if "config" in accepts:
            scope = current()
            own = scope is not None and scope.host is self
            extras["config"] = cast(Scope, scope).node_config if own else self.options.config
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
        """Stream a chunk that a node passed to its writer."""
        scope = current()
        if scope is not None:
            scope.progress()
        if self.options.listener is not None:
            if "custom" in self.options.modes:
                self.options.listener(self.ns, "custom", chunk)
        elif self._above is not None:
            self._above.write(chunk)
        elif "custom" in self.options.modes:
            self._runner.put(("custom", chunk))

    def forward_chunk(self, ns: str, mode: str, chunk: Any) -> None:
        """Stream a chunk of a subgraph; the :data:`Listener` of its runs."""
        self._runner.put(("inside", (ns, mode, chunk)))


def _handling(handler: NodeSpec, node: str, error: Exception) -> NodeSpec:
    """The error handler of a node, to be called for this error."""
    passed = {"error": NodeError(node, error)} if "error" in handler.accepts else {}
    run_async = handler.async_action
    return replace(
        handler,
        action=partial(cast(Callable[..., Any], handler.action), **passed),
        async_action=None if run_async is None else partial(run_async, **passed),
        accepts=handler.accepts - {"error"},
    )


def _handler(scope: Scope, spec: NodeSpec) -> str | None:
    """The name of the error handler that runs in place of the scope's node."""
    return None if spec.name == scope.node else spec.name


def _shorter(one: float | None, other: float | None) -> float | None:
    """The shorter of two time limits."""
    limits = [each for each in (one, other) if each is not None]
    return min(limits, default=None)


def _pause_before_retry(spec: NodeSpec, attempt: int, error: Exception) -> float | None:
    """Seconds to wait before a retry of the node; ``None``: no retry."""
    try:
        policy = next((each for each in spec.retry if each.retries(error)), None)
    except Exception as raised:  # of the application's predicate: report the node's own error
        note(error, f"its retry policy could not judge it: {': '.join(named(raised))}")
        return None
    if policy is None or attempt >= policy.max_attempts:
        return None
    try:
        wait = policy.initial_interval * policy.backoff_factor ** (attempt - 1)
    except OverflowError:
        wait = policy.max_interval
    return min(wait, policy.max_interval) + (random.random() if policy.jitter else 0)


def _known_by_id(above: Scope | None) -> dict[str, Asked]:
    """The earlier interrupts of a run without a log, which runs again from its start each time."""
    if above is None:
        return {}
    own = {key: value for key, value in above.known.items() if isinstance(key, str)}
    return {**above.known_by_id, **own}


def _refuse_caught(scope: Scope) -> None:
    if scope.interrupted:
        raise InvalidGraphError(
            f"node {scope.node!r}, or a conditional edge after it, caught the GraphInterrupt with "
            "which interrupt() leaves it; raise it again, and use no `except BaseException` or "
            "bare `except` around interrupt()"
        )


def _without_interrupts(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """A group of errors without its interrupts; a group of interrupts alone, as one interrupt."""
    interrupts, others = group.split(GraphInterrupt)
    if interrupts is None or others is not None:
        return others or group
    return GraphInterrupt([each for left in _leaves(interrupts) for each in left.interrupts])


def _leaves(group: BaseExceptionGroup[GraphInterrupt]) -> list[GraphInterrupt]:
    found: list[GraphInterrupt] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


def with_logs(data: Data, logs: Mapping[str, int]) -> Data:
    """Event data with where the logs of subgraphs ended, if there are any."""
    return {**data, "logs": dict(logs)} if logs else data
