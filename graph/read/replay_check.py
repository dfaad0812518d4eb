"""Replays recorded runs against the current code. Nothing is written.

Owns the comparison, event by event, of a log with what the current nodes and edges would have
recorded. (Temporal tests workflows in this way:
https://docs.temporal.io/develop/python/testing-suite#replay.)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

from eventstore import Codec, Position, RecordedEvent
from eventstore.concurrency import Blocking, Concurrency, iterate
from eventstore.format.digests import is_prefix
from graph.build.topology import Topology
from graph.errors import InvalidConfigError, InvalidGraphError, ReducerError
from graph.messages import ids_from
from graph.read import subgraphs
from graph.read.history import ReadableGraph
from graph.run.driver import Run
from graph.run.journal import LogJournal, Means
from graph.run.runners import Runner, SyncRunner
from graph.run.tasks import Done, Options
from graph.run.thread_log import ThreadLog
from graph.state import planner
from graph.state.events import Data, Kind, unpack
from graph.state.fold import Fold
from graph.state.state import State, initial

Same = Callable[[str, Any, Any], bool]
"""Whether a recorded and a new value of a key count as equal."""

_ROUTES: Final = ("to", "later", "sends", "joins")
_RANDOM_ID: Final = "\0drawn"
"""Replaces random ids in new values; it equals any text."""


@dataclass(frozen=True, slots=True)
class ReplayMismatch:
    """The first event that the current code would have written differently.

    Attributes:
        ns, seq: its place in the thread's logs.
        step, node: its superstep and node.
        what: what differs: a key of the state, ``goto``, ``asks`` (interrupt values),
            ``raises``, …
        recorded: the value in the log.
        new: the value that the current code gives.
    """

    thread_id: str
    ns: str
    seq: int
    step: int | None
    node: str
    what: str
    recorded: Any
    new: Any

    def __str__(self) -> str:
        where = f" of {self.ns!r}" if self.ns else ""
        return (
            f"thread {self.thread_id!r}, seq {self.seq}{where}: node {self.node!r} (superstep "
            f"{self.step}) recorded {self.what} = {self.recorded!r:.500}, and would now have "
            f"written {self.new!r:.500}"
        )


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The result of replaying a thread.

    Attributes:
        events: the number of recorded events compared.
        mismatch: the first that differs.
    """

    thread_id: str
    events: int
    mismatch: ReplayMismatch | None = None

    @property
    def ok(self) -> bool:
        """Whether the current code would have written the same events."""
        return self.mismatch is None


class Check:
    """Checks threads against the current code.

    Args:
        runner: calls the nodes.
        options: the config and context that nodes get.
        nodes: the nodes to check; ``None``: all.
        same: decides whether values that are not equal count as equal.
    """

    def __init__(
        self,
        runner: Runner,
        options: Options,
        nodes: Collection[str] | None,
        same: Same | None,
    ) -> None:
        self._runner = runner
        self._options = options
        self._nodes = nodes
        self._same = same

    async def thread(self, graph: ReadableGraph, log: ThreadLog, thread_id: str) -> ReplayReport:
        """Check every log of a thread, each against its graph or subgraph."""
        blocking = isinstance(self._runner, SyncRunner)
        concurrency = Blocking() if blocking else log.core.transactions.asyncio
        count, first = 0, None
        for ns in await concurrency.run(log.core.namespaces(thread_id)):
            if is_prefix(ns):
                continue  # events of another thread, which this one was forked from
            try:
                owner = subgraphs.graph_of(graph, ns)
            except InvalidConfigError as error:
                found: tuple[int, ReplayMismatch] | None = (
                    0,
                    ReplayMismatch(thread_id, ns, 1, None, ns, "a subgraph", ns, str(error)),
                )
            else:
                _refuse_async(owner, blocking)
                one = _Log(self, owner, owner.log_on(log.core), thread_id, ns, concurrency)
                found = await one.check()
                count += one.count
            if found is not None and (first is None or found[0] < first[0]):
                first = found
        return ReplayReport(thread_id, count, first and first[1])

    def wants(self, node: str) -> bool:
        """Whether to check a node."""
        return self._nodes is None or node in self._nodes

    def run(self, topology: Topology, journal: LogJournal, ns: str) -> Run:
        """A run that calls nodes and records nothing."""
        return Run(topology, journal, self._options, self._runner, ns=ns)

    def equal(self, key: str, recorded: Any, new: Any, pack: Callable[[Any], bytes]) -> bool:
        """Whether a new value counts as equal to the recorded one."""
        if _equal(recorded, new, pack):
            return True
        return self._same is not None and self._same(key, recorded, new)


def _before(event: RecordedEvent) -> Position:
    return event.position._replace(seq=event.seq - 1)


def _refuse_async(graph: ReadableGraph, blocking: bool) -> None:
    for name, spec in graph.topology.nodes.items():
        if blocking and spec.is_async:
            raise InvalidGraphError(
                f"node {name!r} is asynchronous, which check_replay() cannot run; call "
                "acheck_replay()"
            )


class _Log:
    """Checks one log."""

    def __init__(
        self,
        check: Check,
        graph: ReadableGraph,
        log: ThreadLog,
        thread_id: str,
        ns: str,
        concurrency: Concurrency,
    ) -> None:
        self._check = check
        self._log = log
        self._thread_id = thread_id
        self._ns = ns
        self._concurrency = concurrency
        self._graph = graph
        self._topology = _without_retries(graph.topology)
        self.count = 0

    async def check(self) -> tuple[int, ReplayMismatch] | None:
        """The first event that differs, with the time at which it was recorded."""
        self._head = await self._concurrency.run(self._log.core.head(self._thread_id, self._ns))
        state, seq = initial(self._log.channels), 0
        async with aclosing(self._events()) as events:
            async for event in events:
                seq, before = event.seq, seq
                if event.kind == Kind.FORK or seq > before + 1:  # the events between were trimmed
                    at = event.position if event.kind == Kind.FORK else _before(event)
                    _, state, _ = await self._concurrency.run(
                        self._log.load(self._thread_id, at, self._ns)
                    )
                if event.kind == Kind.FORK:
                    continue
                mismatch = await self._compare(event, state)
                if mismatch is not None:
                    return event.recorded_us, mismatch
                folding = Fold(self._log.channels, state)
                folding.feed(event.kind, event.data, event.position, event.recorded_us)
                try:
                    state = folding.state()
                except ReducerError:  # which reading up to here tells with its place
                    load = self._log.load(self._thread_id, event.position, self._ns)
                    await self._concurrency.run(load)
                    raise
        return None

    async def _events(self) -> AsyncGenerator[RecordedEvent, None]:
        pages = await self._concurrency.run(self._log.core.read(self._thread_id, self._ns))
        async with aclosing(iterate(self._concurrency, pages)) as found:
            async for page in found:
                for event in page:
                    yield event

    async def _compare(self, event: RecordedEvent, state: State) -> ReplayMismatch | None:
        data = event.data
        if event.kind == Kind.INPUT and "command" not in data:
            return await self._input(event, state)
        if event.kind == Kind.OUTPUT and self._check.wants(data["node"]):
            return await self._output(event, state, data)
        if event.kind == Kind.INTERRUPT:
            for waiting in data["tasks"]:
                if self._check.wants(waiting["node"]):
                    mismatch = await self._interrupt(event, state, waiting)
                    if mismatch is not None:
                        return mismatch
        return None

    async def _input(self, event: RecordedEvent, state: State) -> ReplayMismatch | None:
        self.count += 1
        run = self._run(state, {})
        given = dict(unpack(event.data))
        try:
            new = await planner.begin(self._topology, state, given, None, {}, run.evaluate_edge)
        except Exception as error:
            return self._differs(event, "__start__", "raises", None, repr(error))
        return self._routes(event, "__start__", event.data, new)

    async def _output(
        self, event: RecordedEvent, state: State, recorded: Data
    ) -> ReplayMismatch | None:
        node = recorded["node"]
        if node not in self._topology.nodes:
            return self._differs(event, node, "a node", node, "there is no such node")
        if hasattr(self._topology.nodes[node].action, "nested"):
            return None  # its own log is checked
        self.count += 1
        done = await self._task(state, recorded["task"], recorded.get("logs", {}))
        if done.error is not None:
            return self._differs(event, node, "raises", None, repr(done.error))
        if done.waiting is not None:
            return self._differs(event, node, "asks", None, _interrupt_values(done.waiting))
        new = self._stored(done.data or {})
        before, after = _by_key(recorded), _by_key(new)
        pack = self._log.core.codec.pack
        for key in [*before, *(key for key in after if key not in before)]:
            old, now = before.get(key, []), after.get(key, [])
            same = len(old) == len(now) and all(
                self._check.equal(key, one, other, pack)
                for one, other in zip(old, now, strict=True)
            )
            if not same:
                return self._differs(event, node, key, _shown(old), _shown(now))
        if not _equal(recorded.get("above"), new.get("above"), self._log.core.codec.pack):
            return self._differs(
                event, node, "Command.PARENT", recorded.get("above"), new.get("above")
            )
        return self._routes(event, node, recorded, new)

    async def _interrupt(
        self, event: RecordedEvent, state: State, waiting: Data
    ) -> ReplayMismatch | None:
        node = waiting["node"]
        if node not in self._topology.nodes:
            return self._differs(event, node, "a node", node, "there is no such node")
        recorded = _interrupt_values(waiting)
        if not recorded:
            return None  # of a subgraph, whose own log is checked
        self.count += 1
        done = await self._task(state, waiting["task"], waiting.get("logs", {}))
        if done.error is not None:
            return self._differs(event, node, "asks", recorded, repr(done.error))
        pack = self._log.core.codec.pack
        new = self._stored(_interrupt_values(done.waiting)) if done.waiting is not None else []
        same = len(new) == len(recorded) and all(
            self._check.equal("asks", before, after, pack)
            for before, after in zip(recorded, new, strict=True)
        )
        return None if same else self._differs(event, node, "asks", recorded, new)

    async def _task(self, state: State, index: int, logs: Mapping[str, int]) -> Done:
        run = self._run(state, logs)
        with ids_from(lambda: _RANDOM_ID):
            return await run.run_task(state, index, state.frontier[index])

    def _run(self, state: State, logs: Mapping[str, int]) -> Run:
        means = Means(
            self._concurrency,
            forbidden=lambda: "it would have run a subgraph further than it is recorded",
            recorded=logs,
        )
        journal = LogJournal(
            self._log.core, self._log.channels, self._head, state, self._log.taker(), means
        )
        return self._check.run(self._topology, journal, self._ns)

    def _stored(self, value: Any) -> Any:
        """A value as it would be read from the log."""
        codec: Codec = self._log.core.codec
        return codec.decode(codec.encode(value))

    def _routes(
        self, event: RecordedEvent, node: str, recorded: Data, new: Data
    ) -> ReplayMismatch | None:
        stored = self._stored(new)
        before, after = _routes(recorded), _routes(stored)
        same = _equal(before, after, self._log.core.codec.pack)
        return None if same else self._differs(event, node, "goto", before, after)

    def _differs(
        self, event: RecordedEvent, node: str, what: str, recorded: Any, new: Any
    ) -> ReplayMismatch:
        step = event.data.get("step")
        return ReplayMismatch(self._thread_id, self._ns, event.seq, step, node, what, recorded, new)


def _by_key(data: Data) -> dict[str, list[Any]]:
    """The updates of each key, in order."""
    found: dict[str, list[Any]] = {}
    for key, value in unpack(data):
        found.setdefault(key, []).append(value)
    return found


def _shown(written: list[Any]) -> Any:
    if not written:
        return "(nothing)"
    return written[0] if len(written) == 1 else written


def _routes(data: Data) -> Data:
    """The targets of an event, sorted except for sends: only their order matters."""
    found = {name: data[name] for name in _ROUTES if data.get(name)}
    return {
        name: targets if name == "sends" else sorted(targets, key=repr)
        for name, targets in found.items()
    }


def _without_retries(topology: Topology) -> Topology:
    nodes = {name: replace(spec, retry=()) for name, spec in topology.nodes.items()}
    return replace(topology, nodes=nodes)


def _interrupt_values(waiting: Data) -> list[Any]:
    """The interrupt values of a node itself, without those of its subgraphs."""
    return [each["value"] for each in waiting["interrupts"] if "nth" in each]


def _equal(recorded: Any, new: Any, pack: Callable[[Any], bytes]) -> bool:
    """Whether two values have the same stored form, except for random ids."""
    if new is _RANDOM_ID or (type(new) is str and new == _RANDOM_ID):
        return isinstance(recorded, str)
    if type(recorded) is not type(new):
        return False
    if isinstance(recorded, Mapping):
        return recorded.keys() == new.keys() and all(
            _equal(recorded[key], new[key], pack) for key in recorded
        )
    if isinstance(recorded, list | tuple):
        return len(recorded) == len(new) and all(
            _equal(before, after, pack) for before, after in zip(recorded, new, strict=True)
        )
    # Compare stored bytes: some values have no reliable equality (NaN, arrays, plain objects).
    if pack(recorded) == pack(new):
        return True
    parts = list(_parts(recorded))
    return bool(parts) and all(
        _equal(before, after, pack) for before, after in zip(parts, _parts(new), strict=True)
    )


def _parts(value: Any) -> Iterator[Any]:
    """The fields of an object in which an id may stand."""
    if getattr(value, "id", None) is None or not hasattr(value, "__dict__"):
        return
    for name in sorted(vars(value)):
        yield vars(value)[name]
