"""From a call of a graph to its run: how the run begins, and how it ends.

Owns the beginning: with an input, with resume values, or with neither; after other runs of the
thread, if the call waits for them; and for a subgraph, in the thread of the graph above, continuing
what an earlier attempt of the same task did. And the end: everything is written, and the graph
above gets the interrupts of a subgraph.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, Literal, cast

from eventstore import (
    ConcurrencyError,
    CorruptEventError,
    EventStoreError,
    Head,
    StoreBusyError,
    StoreClosedError,
    StoreUnavailableError,
    ThreadNotFoundError,
    telemetry,
)
from eventstore.concurrency import Concurrency
from eventstore.format.namespaces import child, split
from eventstore.leases import Watch
from graph.build.topology import Topology
from graph.errors import (
    EmptyInputError,
    GraphError,
    InvalidConfigError,
    InvalidGraphError,
    ThreadBusyError,
)
from graph.run.address import Address
from graph.run.driver import Run, SubgraphUse
from graph.run.journal import Journal, LogJournal, Means, NoJournal
from graph.run.runners import Runner
from graph.run.scope import ParentCommand, Scope
from graph.run.status import status_after
from graph.run.tasks import Options
from graph.run.thread_log import ThreadLog
from graph.state import planner, results
from graph.state.namespaces import called, memory
from graph.state.state import State
from graph.types import Command

log = logging.getLogger(__name__)

WAIT: Final = telemetry.Operation("graph.wait", "Time that a run waited for another one to end.")

OnConflict = Literal["reject", "wait"]

CONFLICT_TIMEOUT_S: Final = 60.0
"""Seconds that a run waits for other runs of its thread before it gives up."""

_RUN_ENDED: Final = "the run has ended, so nothing more of it can be recorded"

_POLL_S: Final = 0.01
_POLL_MAX_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a graph: its arguments, and how to run it.

    Attributes:
        log: the threads of the graph, or for a subgraph those of the root; ``None``: no log.
        address: where in ``log`` the run starts; ``None`` for a subgraph.
        run_id, metadata: recorded with the run.
        ttl: how long a thread that the run creates is kept after its last event.
        runner: calls application code.
        concurrency: how the run waits for the store.
        scope: for a subgraph: the task that it runs for.
        is_node: the subgraph is itself the node of that task; else a function calls it.
        lasts: the subgraph was compiled with ``checkpointer=True``.
        opened: makes the journal if ``address`` is in a subgraph's log.
    """

    topology: Topology
    name: str
    log: ThreadLog | None
    input: Any
    options: Options
    runner: Runner
    concurrency: Concurrency
    address: Address | None = None
    run_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    ttl: timedelta | None = None
    on_conflict: OnConflict = "reject"
    conflict_timeout_s: float = CONFLICT_TIMEOUT_S
    scope: Scope | None = None
    is_node: bool = False
    lasts: bool = False
    opened: Callable[[Address, Means, bool], Awaitable[LogJournal]] | None = None


class Started:
    """A run whose first event is recorded, and its items for the stream.

    Args:
        resumed: do not pause at the interrupt where the run continues.
        waiting: tasks that still wait, because none of their interrupts was resumed.
    """

    def __init__(
        self, run: Run, resumed: bool = False, waiting: frozenset[int] = frozenset()
    ) -> None:
        self.run = run
        self.steps = run.steps(resumed, waiting)


class Running:
    """The run of a call: an ``async with`` block begins it and ends it.

    It begins inside the block's entry, so that nothing can come between a claimed thread and the
    code that releases it.

    Raises:
        ThreadBusyError: another run held the thread for as long as this one waits.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    async def __aenter__(self) -> Started:
        self._started = await _start(self._call)
        return self._started

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        run, scope = self._started.run, self._call.scope
        try:
            if isinstance(error, GeneratorExit) and not run.concurrency.can_wait:
                return  # its event loop is gone
            await self._started.steps.aclose()
            await run.close()
        except BaseException as closing:
            error = error or closing
            raise
        finally:
            if scope is not None:
                _leave(run, scope)
            await release(run.journal, error)


async def release(journal: Journal, error: BaseException | None) -> None:
    """End the run's claim on its thread, whatever ended the run."""
    if not isinstance(journal, LogJournal):
        return
    lease, concurrency = journal.means.lease, journal.means.concurrency
    if lease is None or split(journal.at.ns):
        return
    leases, status, owner = journal.core.leases, status_after(journal.state, error), None
    if lease.taken_from is not None and isinstance(error, ConcurrencyError):
        status, owner = lease.taken_from
    no_database = isinstance(error, StoreUnavailableError | StoreBusyError | StoreClosedError)
    if not lease.is_held or no_database or not concurrency.can_wait:
        leases.leave(lease, status, owner)
        return
    try:
        await concurrency.run(leases.end(lease, status, owner))
    except EventStoreError as failed:  # the thread that renews leases goes on trying
        log.warning(
            "thread %r: could not record that its run has ended, trying again: %s",
            journal.thread_id,
            failed,
            extra={"thread_id": journal.thread_id, "status": status},
        )


async def _start(call: Call) -> Started:
    """Begin the run of a call."""
    if call.scope is not None:
        return await _start_inside(call, call.scope)
    gives_up_at = time.monotonic() + call.conflict_timeout_s
    assumes = _may_assume(call)
    while True:
        dead = None
        if call.on_conflict == "wait" and call.log is not None and call.address is not None:
            with WAIT.begin(labels={"graph.name": call.name}):
                dead = await _wait(call, call.log, call.address.thread_id, gives_up_at)
        journal = await journal_of(call, assumes)
        assumes = False
        if call.on_conflict == "wait" and journal.busy_with not in (None, dead):
            continue  # another run has begun meanwhile
        try:
            run = Run(call.topology, journal, call.options, call.runner)
            started = await _begin(call, run)
            if started is not None:
                return started
            await release(journal, None)
        except BaseException as error:
            await release(journal, error)
            if await _has_moved(call, journal, error):
                continue
            if not isinstance(error, ConcurrencyError) or call.on_conflict == "reject":
                raise


def _may_assume(call: Call) -> bool:
    """Whether a call may begin where this process last saw the thread end: its first event tells.

    A run with ``exit`` writes none before its end.
    """
    is_input = call.input is not None and not isinstance(call.input, Command)
    writes_first = call.options.durability != "exit" and call.on_conflict == "reject"
    return is_input and writes_first and call.opened is None


_REFUSALS: Final = (ConcurrencyError, CorruptEventError, ThreadNotFoundError)
"""What an append raises that has stored nothing, because its thread has moved."""


async def _has_moved(call: Call, journal: Journal, error: BaseException) -> bool:
    """Whether a run could not begin because the thread has moved since this process saw its end."""
    if call.log is None or not isinstance(journal, LogJournal) or not journal.is_assumed:
        return False
    if not isinstance(error, Exception):
        return False
    if journal.is_sent and not isinstance(error, _REFUSALS):
        return False  # the event at the new end may be our own
    try:
        return await call.concurrency.run(call.log.has_moved(journal))
    except EventStoreError:
        return False


async def journal_of(call: Call, assumes: bool = False) -> Journal:
    """The journal of a call outside any other graph.

    Args:
        assumes: see :meth:`graph.run.thread_log.ThreadLog.open`.
    """
    if call.log is None or call.address is None:
        return NoJournal(call.topology.channels, _now_us)
    means = Means(
        call.concurrency,
        call.options.durability,
        lease=call.log.core.leases.begin(exclusive=call.on_conflict == "wait"),
    )
    resumes = isinstance(call.input, Command) and call.input.resume is not None
    if call.opened is not None:
        return await call.concurrency.run(call.opened(call.address, means, resumes))
    return await call.concurrency.run(
        call.log.open(call.address, means, call.metadata, call.ttl, resumes, assumes)
    )


async def _begin(call: Call, run: Run) -> Started | None:
    """The run, with its input recorded; ``None``: another run claimed the thread first."""
    given = call.input
    if isinstance(given, Command) and _is_empty(given):
        raise EmptyInputError(
            "this Command is empty; pass None to continue without a resume value, or, to resume "
            "with None, name the interrupt: Command(resume={id: None})"
        )
    if isinstance(given, Command) and given.resume is not None and _paused(run):
        run.answer = given.resume, call.metadata.get(BY)
        given = None if given.update is None and not given.goto else replace(given, resume=None)
    waits = call.on_conflict == "wait"
    records_later = waits and call.options.durability == "exit"
    if isinstance(given, Command) and (given.resume is not None or run.state.frontier):
        _refuse_empty(run)
        started = Started(run, True, await run.resume(given, call.metadata.get(BY)))
    elif given is not None:
        await run.begin(given, call.run_id, _storable_metadata(call))
        started = Started(run)
    else:
        _refuse_empty(run)
        await run.branch()
        records_later = True
        started = Started(run, True)
    if records_later and not await run.claim() and waits:
        return None
    return started


BY: Final = "by"
"""In the metadata of a call: who makes it. It is recorded with resume values."""


def _paused(run: Run) -> bool:
    """Whether the run stands where no interrupt is pending: at ``interrupt_before`` or
    ``interrupt_after``, or at an edit that has withdrawn the interrupts. A resume value then means
    to continue, and is for the interrupt that comes next.
    """
    state = run.state
    goes_back = isinstance(run.journal, LogJournal) and run.journal.goes_back
    asked = planner.pending_interrupts(state)
    return not (goes_back or not state.frontier or state.errors or asked)


def _is_empty(given: Command[Any]) -> bool:
    return given.resume is None and given.update is None and not given.goto and not given.graph


def _refuse_empty(run: Run) -> None:
    if not isinstance(run.journal, LogJournal):
        raise EmptyInputError(
            "there is nothing to continue: this graph has no checkpointer; pass an input, or "
            "compile it with a checkpointer"
        )
    if not run.state.started:
        raise EmptyInputError(
            "there is nothing to continue: this thread has not run yet; pass an input"
        )


def _storable_metadata(call: Call) -> Mapping[str, Any]:
    return call.metadata if call.log is None else call.log.metadata.recorded(call.metadata)


def _now_us() -> int:
    return time.time_ns() // 1000


# --- inside another graph ---------------------------------------------------------------


async def _start_inside(call: Call, scope: Scope) -> Started:
    """Begin the run of a subgraph, or continue that of an earlier attempt of the same task."""
    host: Run = scope.host
    if scope.is_over:
        raise InvalidGraphError(_RUN_ENDED)
    name = scope.node if call.is_node else called(scope.node, call.name)
    nth = scope.next_call(name)
    above = host.journal
    mark = f"{scope.token}.{nth}" if nth else scope.token
    if call.log is None or not isinstance(above, LogJournal):
        run = _run(call, NoJournal(call.topology.channels, _now_us), child(host.ns, name, mark))
        await run.begin(call.input, None, {})
        return Started(run)
    await _until_written(above, call.runner)
    if call.lasts:
        return await _start_lasting(call, call.log, scope, name, nth)
    ns = child(host.ns, name, mark)
    run = _run(call, await _journal_inside(call, call.log, above, scope, ns), ns)
    if run.state.started:
        return Started(run, scope.resumed, await run.resume_subgraph(scope.known))
    await run.begin(call.input, None, {})
    return Started(run)


async def _start_lasting(call: Call, log_: ThreadLog, scope: Scope, name: str, nth: int) -> Started:
    """Begin or continue the run of a subgraph with ``checkpointer=True`` for a call of a task."""
    host: Run = scope.host
    ns = memory(host.ns, name, host.state.branch)
    caller = host.state.caller(scope.task, nth)
    _claim(host, ns, scope, call.topology)
    try:
        above = cast(LogJournal, host.journal)
        journal = await _journal_inside(call, log_, above, scope, ns)
        if caller in journal.state.ended:  # the task has called it again since
            past = await call.concurrency.run(log_.ended(journal, caller))
            _refuse_cut_off(past.state, ns)
            return Started(_run(call, past, ns))
        run = _run(call, journal, ns)
        if run.state.call == caller:
            return Started(run, scope.resumed, await run.resume_subgraph(scope.known))
        await run.begin(call.input, None, {}, caller)
        return Started(run)
    except BaseException:
        _release(host, ns)
        raise


def _run(call: Call, journal: Journal, ns: str) -> Run:
    return Run(call.topology, journal, call.options, call.runner, ns=ns, above=call.scope)


def _refuse_cut_off(state: State, ns: str) -> None:
    """Refuse to repeat a call that failed, and after which the node went on, as if it had ended."""
    if not state.frontier:
        return
    causes = [
        f" in node {error['node']!r}: {error['type']}: {error['message']}"
        for error in state.errors.values()
    ]
    raise GraphError(
        f"the subgraph {ns!r} did not finish when this task ran before{causes[0] if causes else ''}"
    )


async def _journal_inside(
    call: Call, log_: ThreadLog, above: LogJournal, scope: Scope, ns: str
) -> LogJournal:
    def forbidden() -> str | None:
        return above.means.forbidden() or (_RUN_ENDED if scope.is_over else None)

    means = replace(above.means, concurrency=call.concurrency, forbidden=forbidden)
    begun = means.together.get(ns)
    if begun is not None:  # by this run, which has not written it yet
        return begun.taken_over(means, _RUN_ENDED)
    if ns in means.recorded:
        at = above.at._replace(ns=ns, seq=means.recorded[ns])
        return await call.concurrency.run(log_.open_at(above.thread_id, at, {}, means, ns))
    return await call.concurrency.run(log_.open_end(above.thread_id, ns, means))


def _claim(host: Run, ns: str, scope: Scope, topology: Topology) -> None:
    """Refuse parallel calls of a subgraph with ``checkpointer=True``: its log has one writer."""
    shape = (frozenset(topology.nodes), frozenset(topology.channels))
    holder = host.in_use.setdefault(ns, SubgraphUse(scope.task, shape))
    if holder.shape != shape:
        raise InvalidGraphError(
            f"node {scope.node!r} calls two graphs of the same name, which would share the log "
            f"{ns!r}; give them names: compile(checkpointer=True, name=…)"
        )
    if holder.task != scope.task or holder.active:
        raise InvalidGraphError(
            f"the subgraph {ns!r} has checkpointer=True, and so runs one call at a time, for one "
            "task of a superstep; call it in one node, one call after the other, or compile it "
            "with checkpointer=None, which gives each call a state of its own"
        )
    holder.active = True


def _release(host: Run, ns: str) -> None:
    used = host.in_use.get(ns)
    if used is not None:
        used.active = False


async def _until_written(above: LogJournal, runner: Runner) -> None:
    """Wait until the events before the superstep of a new subgraph run are durable.

    The seq where the superstep began names the subgraph's log. If those events were lost, another
    superstep could begin at the same seq.
    """
    while above.means.durability == "async" and not above.is_written:
        await runner.concurrency.sleep(_POLL_S / 10)


def _leave(run: Run, scope: Scope) -> None:
    """Tell the task above where the logs of its subgraph ended."""
    scope.logs.update(run.logs())
    _release(scope.host, run.ns)


async def finish_inside(run: Run, scope: Scope) -> None:
    """End a subgraph's run for the task above.

    Raises:
        GraphInterrupt: the run is interrupted.
        ParentCommand: the run ended with a ``Command`` for the graph above.
    """
    state = run.state
    if state.frontier:
        pending = planner.pending_interrupts(state).items()
        raise scope.leave(*({"id": name, "value": each["value"]} for name, each in pending))
    if state.above is not None:
        raise ParentCommand(results.command_above(state.above))


# --- waiting for other runs ----------------------------------------------------------------


async def _wait(
    call: Call, log_: ThreadLog, thread_id: str, gives_up_at: float
) -> tuple[int, str | None] | None:
    """Wait until no other run is active on the thread, or the active one is dead.

    There is no queue: each waiting run polls the thread, and of several that find it free, one
    begins and the others wait again.

    Returns:
        The seq and the owner of a run that died, if there is one.

    Raises:
        ThreadBusyError: a living run held the thread for all of ``conflict_timeout_s``.
    """
    core, pause = log_.core, _POLL_S
    watch = Watch(core.leases)
    newest = partial(core.last_recorded_us, thread_id)
    while True:
        head = await call.concurrency.run(core.head(thread_id))
        if head.status != "running":
            return None
        if await call.concurrency.run(watch.is_dead(head, newest)):
            _tell_dead(thread_id, head, watch.lease_s)
            return head.seq, head.owner
        if time.monotonic() >= gives_up_at:
            raise ThreadBusyError(thread_id, head.seq, head.owner, call.conflict_timeout_s)
        await call.runner.concurrency.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(_POLL_MAX_S, pause * 1.5)


def _tell_dead(thread_id: str, head: Head, lease_s: float) -> None:
    log.warning(
        "thread %r: its run (%s) showed no sign of life for %.0f s; going ahead",
        thread_id,
        head.owner or "of an unknown process",
        lease_s,
        extra={
            "thread_id": thread_id,
            "seq": head.seq,
            "owner": head.owner,
            "lease_s": lease_s,
        },
    )


def check_conflict(on_conflict: str) -> None:
    """Refuse an unknown ``on_conflict``."""
    if on_conflict not in ("reject", "wait"):
        raise InvalidConfigError(f"on_conflict must be 'reject' or 'wait', not {on_conflict!r}")
