"""One call of a graph: from where it goes on, and for whom it runs.

Owns the beginning of a run: a new input, answers to what was asked, or neither; after other runs
of the thread, if it is to wait for them; and inside a node of another graph, where it takes its
place in the thread of that one and goes on where an attempt before this one left it. And the end:
nothing is left unwritten, and what an inner run waits for, the outer one waits for.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from eventstore import ConcurrencyError, telemetry
from eventstore.concurrency import Concurrency
from eventstore.format.namespaces import child
from graph.build.topology import Topology
from graph.errors import EmptyInputError, GraphError, InvalidConfigError, InvalidGraphError
from graph.run import metadata
from graph.run.driver import Chunk, Run, Use
from graph.run.journal import Journal, LogJournal, Means, NoJournal
from graph.run.runners import Runner
from graph.run.scope import ParentCommand, Scope
from graph.run.tasks import Options
from graph.run.thread_log import ThreadLog, thread_id_of
from graph.state import planner
from graph.state.fold import State
from graph.state.namespaces import called, memory
from graph.types import Command

log = logging.getLogger(__name__)

WAIT: Final = telemetry.Operation("graph.wait", "Time that a run waited for another one to end.")

OnConflict = Literal["reject", "wait"]

CONFLICT_TIMEOUT_S: Final = 60.0
"""How long a run that waits for another one believes that it lives, without a sign of it."""

_GIVEN_UP: Final = "the run was given up: what it does is not recorded any more"

_POLL_S: Final = 0.01
_POLL_MAX_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a graph: what was asked for, and how it is carried out.

    Attributes:
        log: where its threads are, or, inside another graph, that one's; ``None``: nowhere.
        runner: calls user code.
        concurrency: how it waits for the store.
        scope: the task that it runs for, inside another graph.
        is_node: it is itself the node of that task; else a function called it.
        lasts: inside another graph: it remembers from one task to the next.
        opened: makes the journal where the config names a subgraph's log.
    """

    topology: Topology
    name: str
    log: ThreadLog | None
    input: Any
    config: Mapping[str, Any]
    options: Options
    runner: Runner
    concurrency: Concurrency
    on_conflict: OnConflict = "reject"
    conflict_timeout_s: float = CONFLICT_TIMEOUT_S
    scope: Scope | None = None
    is_node: bool = False
    lasts: bool = False
    opened: Callable[[Mapping[str, Any], Means], Awaitable[LogJournal]] | None = None

    @property
    def means(self) -> Means:
        """How its journals write."""
        return Means(self.concurrency, self.options.durability)


class Started:
    """A run that has begun: what it was given is recorded. It ends with the ``async with`` block.

    Args:
        resumed: it goes over the interrupt at which it stands.
        waiting: tasks that wait on, because nothing that they ask was answered.
    """

    def __init__(
        self, run: Run, resumed: bool = False, waiting: frozenset[int] = frozenset()
    ) -> None:
        self.run = run
        self.steps = run.steps(resumed, waiting)

    async def __aenter__(self) -> AsyncGenerator[Chunk, None]:
        """Run it to its end, or to where it has to stop: what is streamed."""
        return self.steps

    async def __aexit__(self, *_error: object) -> None:
        try:
            await self.steps.aclose()
        finally:
            await self.run.close()


async def start(call: Call) -> Started:
    """A run that has begun."""
    if call.scope is not None:
        return await _start_inside(call, call.scope)
    while True:
        dead = None
        if call.on_conflict == "wait" and call.log is not None:
            with WAIT.begin(labels={"graph.name": call.name}):
                dead = await _wait(call, call.log)
        journal = await journal_of(call)
        if call.on_conflict == "wait" and journal.busy_at not in (None, dead):
            continue  # another run began since we looked
        try:
            return await _begin(call, Run(call.topology, journal, call.options, call.runner))
        except ConcurrencyError:
            if call.on_conflict == "reject":
                raise


async def journal_of(call: Call) -> Journal:
    """The journal of a call that is not inside another graph."""
    if call.log is None:
        return NoJournal(call.topology.channels, _now_us)
    if call.opened is not None:
        return await call.concurrency.run(call.opened(call.config, call.means))
    answers = isinstance(call.input, Command) and call.input.resume is not None
    return await call.concurrency.run(call.log.open(call.config, call.means, answers))


async def _begin(call: Call, run: Run) -> Started:
    given = call.input
    if isinstance(given, Command) and _is_empty(given):
        raise EmptyInputError(
            "this Command is empty; pass None to continue without a resume value, or, to resume "
            "with None, name the interrupt: Command(resume={id: None})"
        )
    if isinstance(given, Command) and (given.resume is not None or run.state.frontier):
        _refuse_empty(run)
        return Started(run, True, await run.resume(given))
    if given is not None:
        await run.begin(given, _run_id(call.config), _metadata_of(call))
        return Started(run)
    _refuse_empty(run)
    await run.branch()
    return Started(run, True)


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


def _metadata_of(call: Call) -> Mapping[str, Any]:
    """What is recorded with a run of what its caller says about it."""
    if call.log is None:
        return metadata.given_in(call.config)
    return call.log.metadata.recorded(call.config)


def _run_id(config: Mapping[str, Any]) -> str | None:
    given = config.get("run_id")
    return None if given is None else str(given)


def _now_us() -> int:
    return time.time_ns() // 1000


# --- inside another graph ---------------------------------------------------------------


async def _start_inside(call: Call, scope: Scope) -> Started:
    """A run for a task of another graph: what an attempt before this one did is not done again."""
    host: Run = scope.host
    if scope.is_over:
        raise InvalidGraphError(_GIVEN_UP)
    name = scope.node if call.is_node else called(scope.node, call.name)
    nth = scope.place(name)
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
        return Started(run, scope.resumed, await run.pass_on(scope.answers))
    await run.begin(call.input, None, {})
    return Started(run)


async def _start_lasting(call: Call, log_: ThreadLog, scope: Scope, name: str, nth: int) -> Started:
    """A run of a graph that remembers, for one of the calls that a task makes."""
    host: Run = scope.host
    ns = memory(host.ns, name, host.state.branch)
    caller = host.state.caller(scope.task, nth)
    _claim(host, ns, scope, call.topology)
    try:
        above = cast(LogJournal, host.journal)
        journal = await _journal_inside(call, log_, above, scope, ns)
        if caller in journal.state.ended:  # the task made others after it
            past = await call.concurrency.run(log_.ended(journal, caller))
            _refuse_cut_off(past.state, ns)
            return Started(_run(call, past, ns))
        run = _run(call, journal, ns)
        if run.state.call == caller:
            return Started(run, scope.resumed, await run.pass_on(scope.answers))
        await run.begin(call.input, None, {}, caller)
        return Started(run)
    except BaseException:
        _release(host, ns)
        raise


def _run(call: Call, journal: Journal, ns: str) -> Run:
    return Run(call.topology, journal, call.options, call.runner, ns=ns, above=call.scope)


def _refuse_cut_off(state: State, ns: str) -> None:
    """A call that did not come to its end, and that the node went past, does not the next time."""
    if not state.frontier:
        return
    told = [
        f" in node {error['node']!r}: {error['type']}: {error['message']}"
        for error in state.errors.values()
    ]
    raise GraphError(
        f"the subgraph {ns!r} did not finish when this task ran before{told[0] if told else ''}"
    )


async def _journal_inside(
    call: Call, log_: ThreadLog, above: LogJournal, scope: Scope, ns: str
) -> LogJournal:
    def forbidden() -> str | None:
        return above.means.forbidden() or (_GIVEN_UP if scope.is_over else None)

    means = replace(above.means, concurrency=call.concurrency, forbidden=forbidden)
    begun = means.together.get(ns)
    if begun is not None:  # by this very run, which has not written it yet
        return begun.taken_over(means, _GIVEN_UP)
    if ns in means.recorded:
        at = above.at._replace(ns=ns, seq=means.recorded[ns])
        return await call.concurrency.run(log_.open_at(above.thread_id, at, {}, means, ns))
    return await call.concurrency.run(log_.open_end(above.thread_id, ns, means))


def _claim(host: Run, ns: str, scope: Scope, topology: Topology) -> None:
    """A graph that remembers has one log in the thread, and that has one writer at a time."""
    shape = (frozenset(topology.nodes), frozenset(topology.channels))
    holder = host.in_use.setdefault(ns, Use(scope.task, shape))
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
    """Wait until the superstep in which an inner run begins cannot be lost any more.

    Its log is named by where that began; were it lost, another superstep might begin there.
    """
    while above.means.durability == "async" and not above.is_written:
        await runner.concurrency.sleep(_POLL_S / 10)


def leave(run: Run, scope: Scope) -> None:
    """Tell the task above where the logs of its graph ended."""
    scope.logs.update(run.logs())
    _release(scope.host, run.ns)


async def finish_inside(run: Run, scope: Scope) -> None:
    """Tell the task above what its graph has come to.

    Raises:
        GraphInterrupt: it waits for people.
        ParentCommand: it ended with a command for the graph above.
    """
    state = run.state
    if state.frontier:
        asked = planner.questions(state).items()
        raise scope.leave(*({"id": name, "value": each["value"]} for name, each in asked))
    if state.above is not None:
        raise ParentCommand(planner.command_above(state.above))


# --- one after the other ----------------------------------------------------------------


async def _wait(call: Call, log_: ThreadLog) -> int | None:
    """Return when no other run is under way on the thread, or it shows no life any more.

    There is no line to stand in that would outlive a process: a waiting run looks again
    and again, and of several that find the thread free one begins.

    Returns:
        The seq at which a run that counts as dead has stopped, if there is one.
    """
    thread_id = thread_id_of(call.config)
    seq, seen, since, pause = -1, 0, time.monotonic(), _POLL_S
    while True:
        head = await call.concurrency.run(log_.core.head(thread_id))
        if head.status != "running":
            return None
        late = time.monotonic() - since >= call.conflict_timeout_s
        if head.seq != seq or late:
            # A run may be at work inside a subgraph, whose log is another one.
            before, seen = seen, await call.concurrency.run(log_.core.last_recorded_us(thread_id))
            if head.seq == seq and seen == before:
                _tell_dead(call, thread_id, seq)
                return seq
            seq, since = head.seq, time.monotonic()
        await call.runner.concurrency.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(_POLL_MAX_S, pause * 1.5)


def _tell_dead(call: Call, thread_id: str, seq: int) -> None:
    log.warning(
        "thread %r: nothing recorded for %.0f s by the run under way; going ahead",
        thread_id,
        call.conflict_timeout_s,
        extra={
            "thread_id": thread_id,
            "seq": seq,
            "conflict_timeout_s": call.conflict_timeout_s,
        },
    )


def check_conflict(on_conflict: str) -> None:
    """Refuse what is no way of dealing with other runs."""
    if on_conflict not in ("reject", "wait"):
        raise InvalidConfigError(f"on_conflict must be 'reject' or 'wait', not {on_conflict!r}")
