"""Reads a thread in the form that users see: state snapshots, history, the audit trail.

Never writes. History is lazy and newest first: the log is folded forward a block at a time, each
block from the nearest snapshot before it. So a listing of a thousand checkpoints costs a few loads,
one fold of the log, and the memory of one block.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from eventstore import (
    LineageMovedError,
    Position,
    PositionNotFoundError,
)
from eventstore.core.core import Core
from eventstore.core.read import MOVES_MAX
from eventstore.format.digests import belongs, is_prefix, origin
from eventstore.format.namespaces import child, token
from eventstore.models import from_micros
from graph.build.channels import MISSING
from graph.build.schema import shown
from graph.build.topology import Graph
from graph.errors import ReducerError
from graph.read import subgraphs
from graph.read.entries import OF_SUPERSTEP, Entry, Span
from graph.read.form import (
    SHOWN,
    audit_entry,
    error_of,
    follows_input,
    interrupts_of,
    metadata_of,
    written,
)
from graph.run.address import Address
from graph.run.thread_log import ThreadLog
from graph.state import namespaces, planner
from graph.state.events import Data
from graph.state.fold import Fold
from graph.state.state import COMMAND, State, Task, checkpoint_id, initial, task_id
from graph.types import START, AuditEntry, RunnableConfig, StateSnapshot, StateTask

BLOCK: Final = 128
"""Events per block of history; the states of a block are in memory together."""


class ReadableGraph(Graph):
    """A graph whose logs can be read."""

    @property
    @abstractmethod
    def core(self) -> Core:
        """The store of its threads.

        Raises:
            InvalidConfigError: it has no checkpointer.
        """

    @abstractmethod
    def log_on(self, core: Core) -> ThreadLog:
        """Folds this graph's logs in a store."""

    def reader_on(self, core: Core) -> Reader:
        """A reader of this graph's logs in a store."""
        return Reader(self.log_on(core), self)

    @abstractmethod
    def output(self, state: State, keys: Sequence[str] | str | None = None) -> Any:
        """The part of a state that callers get: these keys, by default the output schema's."""


class Reader:
    """Reads the logs of one graph in one store.

    Made for each read: it remembers the names of threads, and they may be gone at the next one.
    """

    def __init__(
        self, log: ThreadLog, graph: ReadableGraph, names: dict[int, str] | None = None
    ) -> None:
        self.log = log
        self._graph = graph
        self._keys = tuple(graph.topology.channels)
        self._names: dict[int, str] = {} if names is None else names

    # --- single states ------------------------------------------------------------------

    async def state(self, address: Address, inner: bool = False) -> StateSnapshot:
        """The state at an address. A past checkpoint is shown with the results of its tasks.

        Args:
            inner: include the states of running subgraphs.
        """
        thread_id = address.thread_id
        if address.before_input and address.position is not None:
            at = await self.log.resolve(thread_id, address.position)
            found = None if at is None else await self._before_input(thread_id, at)
            if found is None:
                raise PositionNotFoundError(
                    thread_id,
                    address.ns,
                    address.position.seq,
                    "no input was recorded there; take ids from get_state_history(config)",
                )
            return found
        for _ in range(MOVES_MAX):
            state, replay = await self.log.read(address)
            if replay.head.exists:
                self._names[replay.head.thread_key] = thread_id
            if replay.position == replay.head.position:
                return await self.snapshot(thread_id, state, address.ns, inner, current=True)
            entry = Entry(state)
            try:
                await self._add_following(thread_id, entry)
            except LineageMovedError:
                continue  # trimmed meanwhile, perhaps beyond this checkpoint
            return await self._past(thread_id, entry, inner)
        raise LineageMovedError(thread_id)

    async def _past(
        self, thread_id: str, entry: Entry, inner: bool = False, every: bool = False
    ) -> StateSnapshot:
        """A past checkpoint: the nodes that were next then, and what became of them."""
        state = entry.state
        shown = await self.snapshot(thread_id, entry.closed(every), inner=inner, then=state)
        if not every:
            return shown
        parent = state.parent and await self._config(thread_id, state.parent)
        source = "input" if state.source == COMMAND else state.source.partition("/")[0]
        metadata = metadata_of(state, source, state.step)
        return shown._replace(parent_config=parent, metadata=metadata)

    async def _before_input(self, thread_id: str, at: Position) -> StateSnapshot | None:
        """The checkpoint before the input at a position; ``None`` if no input is there."""
        log = self.log
        state = (await log.load(thread_id, at, at.ns))[1]
        if state.source != "input":
            return None
        before = initial(log.channels)
        if at.seq > 1:
            before = (await log.load(thread_id, at._replace(seq=at.seq - 1), at.ns))[1]
        after = at._replace(seq=at.seq - 1)
        async with aclosing(await log.core.read_span(thread_id, after, at.seq)) as pages:
            async for page in pages:
                for event in page:
                    return await self.before_input(thread_id, before, state, event.data)
        return None

    async def before_input(
        self, thread_id: str, before: State, state: State, data: Data
    ) -> StateSnapshot:
        """The checkpoint before an input, which the input is about to change.

        Args:
            before: the state without the input.
            state: the state at the input.
            data: of the input event.
        """
        task = StateTask(
            id=task_id(state, 0), name=START, path=("__pregel_pull", START), result=written(data)
        )
        return StateSnapshot(
            values=shown(planner.shown(self._graph.topology, before), self._keys),
            next=(START,),
            config=await self._config(thread_id, state.checkpoint, before_input=True),
            metadata=metadata_of(state, "input", state.step - 1),
            created_at=from_micros(state.created_us).isoformat(),
            parent_config=state.stands_on and await self._config(thread_id, state.stands_on),
            tasks=(task,),
        )

    def _values(self, state: State) -> Any:
        """The values at a checkpoint, without what has finished of its superstep."""
        settled = state._replace(pending={})
        return shown(planner.shown(self._graph.topology, settled), self._keys)

    def _shown_order(self, state: State) -> list[int]:
        """The tasks in the order in which they are shown: sends, then nodes as declared."""
        if len(state.frontier) < 2:
            return list(range(len(state.frontier)))
        places = {name: place for place, name in enumerate(self._graph.topology.nodes)}
        return sorted(
            range(len(state.frontier)),
            key=lambda i: (
                -1
                if state.frontier[i].arg is not MISSING
                else places.get(state.frontier[i].node, len(places))
            ),
        )

    async def snapshot(
        self,
        thread_id: str,
        state: State,
        ns: str = "",
        inner: bool = False,
        current: bool = False,
        then: State | None = None,
    ) -> StateSnapshot:
        """The public form of a state.

        Args:
            current: the state is the current one of its log.
            then: for a past checkpoint: its state without the later results of its tasks.
        """
        if not state.started:
            place = {"thread_id": thread_id, **({"checkpoint_ns": ns} if ns else {})}
            return StateSnapshot({}, (), {"configurable": place}, None, None, None)
        tasks = [
            StateTask(
                id=task_id(state, index),
                name=task.node,
                path=("__pregel_pull", task.node)
                if task.arg is MISSING
                else ("__pregel_push", index, False),
                error=error_of(state.errors.get(index)),
                interrupts=interrupts_of(state.interrupts.get(index)),
                state=await self._inside(
                    thread_id, then or state, index, task, inner, current, index in state.pending
                )
                if subgraphs.inside(self._graph, task.node)
                else None,
                result=self._result(task.node, state.pending.get(index)),
            )
            for index in self._shown_order(state)
            for task in (state.frontier[index],)
        ]
        try:
            values = planner.shown(self._graph.topology, then or state, live=current)
        except ReducerError as error:
            at = state.at
            raise error.at(thread_id, at.ns, at.seq, error.node or "") from error.__cause__
        parent = None
        if state.last == (START,) and follows_input(state):
            first = Position(state.checkpoint.thread_key, state.checkpoint.ns, state.began)
            parent = await self._config(thread_id, first, before_input=True)
        elif state.stands_on is not None:
            parent = await self._config(thread_id, state.stands_on)
        if then is None:
            left = [task.name for task in tasks if task.result is None]
        else:
            due = {index for index, _ in planner.due(then)}
            left = [then.frontier[index].node for index in self._shown_order(then) if index in due]
        return StateSnapshot(
            values=shown(values, self._keys),
            next=tuple(left),
            config=await self._config(thread_id, state.checkpoint),
            metadata=metadata_of(state, SHOWN.get(state.source, state.source), state.step),
            created_at=from_micros(state.created_us).isoformat(),
            parent_config=parent,
            tasks=tuple(tasks),
            interrupts=tuple(each for task in tasks for each in task.interrupts),
        )

    def _result(self, node: str, data: Data | None) -> Any:
        """What a task wrote, if it has finished; of a graph, as its callers get it."""
        if data is None:
            return None
        found = written(data)
        spec = self._graph.topology.nodes.get(node)
        if spec is not None and isinstance(spec.action, Graph) and isinstance(found, dict):
            return dict(planner.as_shown(self._graph.topology, found))
        return found

    async def _inside(
        self,
        thread_id: str,
        state: State,
        index: int,
        task: Task,
        inner: bool,
        current: bool,
        finished: bool,
    ) -> RunnableConfig | StateSnapshot | None:
        """The subgraph of a task: its state, finished or not, or the config that reads it."""
        known = state.logs.get(index, {})
        own = origin(state.at.thread_key, state.at.ns)[1]
        empty = None
        for name, graph in subgraphs.inside(self._graph, task.node).items():
            if graph.checkpointer is False:
                continue
            if graph.checkpointer is True:
                ns = namespaces.memory(own, name, state.branch)
            else:
                ns = child(own, name, token(state.began, index))
            place: dict[str, Any] = {"thread_id": thread_id, "checkpoint_ns": ns}
            if not inner:
                return {"configurable": place}
            reader = Reader(graph.log_on(self.log.core), graph, self._names)
            at = None  # the end of its log
            if not current and ns in known:
                at = namespaces.beside(state.at, ns, known[ns])
            elif not current and not (
                finished and await self._ends_with(thread_id, state.at, ns, graph)
            ):
                continue
            _, found, _ = await reader.log.load(thread_id, at, ns)
            shown = await reader.snapshot(thread_id, found, ns, inner, current)
            if found.started:
                return shown
            empty = empty or shown
        return empty

    async def _ends_with(self, thread_id: str, at: Position, ns: str, graph: Graph) -> bool:
        """Whether the log of a task's subgraph is the thread's own, and ends with the task."""
        if graph.checkpointer is True or is_prefix(at.ns):
            return False
        return (await self.log.core.head(thread_id, ns)).thread_key == at.thread_key

    async def _config(
        self, thread_id: str, at: Position, before_input: bool = False
    ) -> RunnableConfig:
        """The config that reads a position, by the name of its own thread while that exists."""
        core, owner = self.log.core, self._names.get(at.thread_key)
        if owner is None and belongs(at.thread_key, core.tenant, thread_id, 0):
            owner = thread_id  # whether it exists or not
        if owner is None:
            found = await core.thread_at(at.thread_key)
            owner = found.thread_id if found else thread_id
            self._names[at.thread_key] = owner
        named = f"{checkpoint_id(at, at.seq - 1)}i" if before_input else checkpoint_id(at)
        return {
            "configurable": {
                "thread_id": owner,
                "checkpoint_ns": at.ns,
                "checkpoint_id": named,
            }
        }

    # --- history ------------------------------------------------------------------------

    async def history(
        self,
        thread_id: str,
        before: Position | None,
        ns: str = "",
        *,
        skips_input: bool = False,
        every: bool = False,
    ) -> AsyncGenerator[StateSnapshot, None]:
        """The checkpoints of a thread, newest first.

        First all of the thread's own log, abandoned branches included. Then, if the thread was
        forked from another one, the lineage that led to the fork.

        Args:
            before: begin with the one before this.
            skips_input: if that is an input, begin before the checkpoint that precedes it.
            every: every position that is a checkpoint, as it was recorded. By default, as in
                LangGraph, an input has two, before and after it; a superstep has one, with its last
                interrupts; and what is recorded with a fork stands for the fork.
        """
        moves = 0
        if before is not None and not (skips_input or every):
            at = await self.log.resolve(thread_id, before)
            found = None if at is None else await self._before_input(thread_id, at)
            if found is not None:
                yield found
        while True:
            try:
                async with aclosing(self._spans(thread_id, before, ns)) as spans:
                    async for span in spans:
                        async with aclosing(self._entries(thread_id, span)) as entries:
                            async for entry in entries:
                                state = entry.state
                                if every or not entry.replaced:
                                    found = await self._past(thread_id, entry, every=every)
                                    if state.pending and not every:
                                        # As in LangGraph: without finished siblings.
                                        found = found._replace(values=self._values(state))
                                    before, moves = state.checkpoint, 0
                                    yield found
                                if entry.before is not None and not every:
                                    yield await self.before_input(
                                        thread_id, entry.before, state, entry.input
                                    )
                return
            except (LineageMovedError, PositionNotFoundError):
                moves += 1  # something was trimmed or deleted; continue with the rest
                if moves == MOVES_MAX:
                    raise

    async def _spans(
        self, thread_id: str, before: Position | None, ns: str
    ) -> AsyncGenerator[Span, None]:
        """Spans of events without a fork inside, newest first, up to ``before``."""
        core = self.log.core
        head, begins = await core.end(thread_id, ns)
        if head.exists:
            self._names[head.thread_key] = thread_id
        at: Position | None = head.position
        own = at
        found = before is None
        while at is not None and at.seq > 0:
            lineage, begins = begins or await core.lineage(at), None
            span = Span(at._replace(seq=lineage.first), at.seq, lineage.source, lineage.base)
            if not found and before is not None and span.holds(before):
                found = True
                span = replace(span, last=before.seq - 1)
            if found:
                yield span
            inside = own is not None and at[:2] == own[:2]
            if inside and lineage.base is None and lineage.first > 1:
                at = at._replace(seq=lineage.first - 1)
            else:
                at = lineage.source

    async def _entries(self, thread_id: str, span: Span) -> AsyncGenerator[Entry, None]:
        log, last = self.log, span.last
        while last >= span.first.seq:
            first = max(span.first.seq, last - BLOCK + 1)
            start = await self._state_before(thread_id, span, first)
            after = span.first._replace(seq=first - 1)
            entries = [Entry(start)]
            folding = Fold(log.channels, start)
            async with aclosing(await log.core.read_span(thread_id, after, last)) as pages:
                async for page in pages:
                    for event in page:
                        for entry in reversed(entries):
                            if entry.state.began != entries[-1].state.began:
                                break
                            entry.add(event)
                        if folding.feed(event.kind, event.data, event.position, event.recorded_us):
                            last_entry = entries[-1]
                            last_entry.look_at(event)
                            entries.append(Entry(await self._reduced(folding, thread_id)))
                            if entries[-1].state.source == "input":
                                entries[-1].input, entries[-1].before = (
                                    event.data,
                                    last_entry.state,
                                )
            if len(entries) > 1:
                state = await self._reduced(folding, thread_id)
                await self._add_following(thread_id, entries[-1], state)
            for entry in reversed(entries[1:]):
                yield entry
            last = first - 1
        if span.base is not None and span.base.seq <= last:
            entry = Entry(await self._state_before(thread_id, span, span.first.seq))
            await self._add_following(thread_id, entry)
            yield entry

    async def _reduced(self, folding: Fold, thread_id: str) -> State:
        try:
            state = folding.state()
            self.log.refuse_other_forms(thread_id, state)
            return state
        except ReducerError:
            await self.log.load(thread_id, folding.at, folding.at.ns)  # raises it with its place
            raise

    async def _state_before(self, thread_id: str, span: Span, first: int) -> State:
        if first > span.first.seq:
            upto: Position | None = span.first._replace(seq=first - 1)
        else:
            upto = span.source or span.base
        if upto is None:
            return initial(self.log.channels)
        return (await self.log.load(thread_id, upto))[1]

    async def _add_following(
        self, thread_id: str, entry: Entry, state: State | None = None
    ) -> None:
        """Add the events after a state, by default the entry's own, that belong to its
        superstep.
        """
        state = state or entry.state
        if entry.state.source != "fork" and (not state.frontier or entry.full):
            return
        async with aclosing(await self.log.core.read_span(thread_id, state.at, None)) as pages:
            async for page in pages:
                for event in page:
                    entry.look_at(event)
                    if event.kind not in OF_SUPERSTEP or event.data["step"] != state.step + 1:
                        return
                    entry.add(event)
                    if entry.full:
                        return

    # --- audit --------------------------------------------------------------------------

    async def audit(self, thread_id: str, ns: str = "") -> AsyncGenerator[AuditEntry, None]:
        """The entries of one of the thread's own logs, oldest first."""
        async with aclosing(await self.log.core.read(thread_id, ns)) as pages:
            async for page in pages:
                for event in page:
                    yield audit_entry(event)
