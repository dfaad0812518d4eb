"""The compiled graph: what applications call.

Owns the public calls (``invoke``, ``stream``, ``get_state``, …) and nothing of what they
mean: a run is the driver's, threads and checkpoints are the log's, reading is the
history's. Safe to share between threads; runs on different threads do not disturb each
other, and of two on the same thread one wins each superstep.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Final, Protocol

from eventstore import EventStore, VerifyReport
from eventstore.events import from_micros
from graph import planner
from graph.builder import Topology
from graph.drawing import DrawableGraph
from graph.driver import Options, Run
from graph.errors import EmptyInputError, InvalidConfigError
from graph.events import Data, unpack
from graph.fold import State
from graph.history import Reader
from graph.log import Journal, NoJournal, ThreadLog, position_of, thread_id_of
from graph.registration import register_types
from graph.schema import Channel
from graph.types import AuditEntry, RunnableConfig, StateSnapshot

RECURSION_LIMIT: Final = 25
"""Supersteps of one call, unless the config says otherwise."""


class Saver(Protocol):
    """What ``compile(checkpointer=…)`` takes besides an ``EventStore``: something that has one."""

    @property
    def store(self) -> EventStore:
        """Where events go."""


class CompiledGraph:
    """A graph that can run. Made by :meth:`StateGraph.compile`."""

    def __init__(
        self,
        topology: Topology,
        *,
        checkpointer: EventStore | Saver | None = None,
        interrupt_before: Sequence[str] = (),
        interrupt_after: Sequence[str] = (),
        name: str | None = None,
        version: str | None = None,
    ) -> None:
        self.topology = topology
        self.name = name or "graph"
        self.checkpointer = checkpointer
        self._interrupt_before = frozenset(interrupt_before)
        self._interrupt_after = frozenset(interrupt_after)
        self._log: ThreadLog | None = None
        if checkpointer is not None:
            store = checkpointer if isinstance(checkpointer, EventStore) else checkpointer.store
            register_types(store.codec, topology)
            self._log = ThreadLog(store, topology.channels, version)
            self._reader = Reader(self._log, topology.state.keys)

    # --- running ------------------------------------------------------------------------

    def invoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        interrupt_before: Sequence[str] | str | None = None,
        interrupt_after: Sequence[str] | str | None = None,
        **_options: Any,
    ) -> dict[str, Any]:
        """Run to the end, or to where the run has to stop, and return the output values.

        Args:
            input: values for the state; ``None`` goes on from where the thread stands, or
                from the checkpoint that the config names.
            config: ``{"configurable": {"thread_id": …}}`` for a graph with a checkpointer;
                also ``recursion_limit``, ``max_concurrency``, ``metadata``.

        Raises:
            InvalidConfigError: no thread, or a checkpoint that does not fit it.
            InvalidUpdateError: an input or an update does not fit the state.
            EmptyInputError: ``None`` on a thread that has never run.
            GraphRecursionError: too many supersteps.
            ConcurrencyError: another run was first on this thread.
            Exception: what a node raised. Finished nodes are kept; ``invoke(None, config)``
                goes on from there.
        """
        run, resumed = self._start(
            input, config or {}, frozenset(), interrupt_before, interrupt_after
        )
        for _ in run.steps(resumed):
            pass
        return self._output(run.state)

    def stream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stream_mode: str | Sequence[str] = "updates",
        interrupt_before: Sequence[str] | str | None = None,
        interrupt_after: Sequence[str] | str | None = None,
        **_options: Any,
    ) -> Iterator[Any]:
        """Run like :meth:`invoke`, yielding what happens as it happens.

        Args:
            stream_mode: ``updates`` (what each node wrote; the default), ``values`` (the
                state after each superstep), ``checkpoints``, ``debug`` (checkpoints and
                tasks), ``custom`` (what nodes pass to their ``writer``); or a list of them,
                for ``(mode, chunk)`` pairs.
        """
        several = not isinstance(stream_mode, str)
        modes = frozenset([stream_mode] if isinstance(stream_mode, str) else stream_mode)
        unknown = modes - _MODES
        if unknown:
            raise InvalidConfigError(
                f"unknown stream mode {', '.join(sorted(unknown))}; known are "
                f"{', '.join(sorted(_MODES))}"
            )
        config = config or {}
        run, resumed = self._start(input, config, modes, interrupt_before, interrupt_after)
        for kind, content in run.steps(resumed):
            for mode, chunk in self._chunks(kind, content, config, modes):
                yield (mode, chunk) if several else chunk

    def batch(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Invoke for several inputs side by side; the results are in the inputs' order.

        Args:
            config: one for all, or one per input (with a checkpointer each needs a thread).
            return_exceptions: put an error in its place instead of raising the first.
        """
        configs = list(config) if isinstance(config, Sequence) else [config] * len(inputs)
        if len(configs) != len(inputs):
            raise InvalidConfigError(
                f"batch got {len(inputs)} inputs and {len(configs)} configs; give one config, "
                "or one per input"
            )
        if not inputs:
            return []
        with ThreadPoolExecutor(min(max_concurrency or 16, len(inputs))) as pool:
            futures = [
                pool.submit(self.invoke, given, each)
                for given, each in zip(inputs, configs, strict=True)
            ]
        if return_exceptions:
            return [future.exception() or future.result() for future in futures]
        return [future.result() for future in futures]

    def run_nested(
        self, input: Any, config: Mapping[str, Any], keys: Mapping[str, Channel]
    ) -> dict[str, Any]:
        """Run as a node of another graph: its log is the parent's, which records the result."""
        journal = NoJournal(self.topology.channels, _now_us)
        run = Run(self.topology, journal, self._options(config, frozenset(), None, None))
        run.begin(_shared(input, self.topology.input.keys), None, {})
        for _ in run.steps(False):
            pass
        return {key: value for key, value in self._output(run.state).items() if key in keys}

    def _start(
        self,
        input: Any,
        config: Mapping[str, Any],
        modes: frozenset[str],
        before: Sequence[str] | str | None,
        after: Sequence[str] | str | None,
    ) -> tuple[Run, bool]:
        run = Run(self.topology, self._journal(config), self._options(config, modes, before, after))
        if input is None:
            if not run.state.started:
                raise EmptyInputError(
                    "there is nothing to go on with: this thread has not run yet; pass an input"
                )
            run.branch()
            return run, True
        run.begin(input, _run_id(config), config.get("metadata") or {})
        return run, False

    def _journal(self, config: Mapping[str, Any]) -> Journal:
        if self._log is None:
            return NoJournal(self.topology.channels, _now_us)
        return self._log.open(config)

    def _options(
        self,
        config: Mapping[str, Any],
        modes: frozenset[str],
        before: Sequence[str] | str | None,
        after: Sequence[str] | str | None,
    ) -> Options:
        return Options(
            config=config,
            modes=modes,
            recursion_limit=config.get("recursion_limit", RECURSION_LIMIT),
            max_concurrency=config.get("max_concurrency"),
            interrupt_before=self._interrupt_before if before is None else _names(before),
            interrupt_after=self._interrupt_after if after is None else _names(after),
        )

    def _output(self, state: State) -> dict[str, Any]:
        keys = self.topology.output.keys
        return {key: planner.own(state.values[key]) for key in keys if key in state.values}

    def _chunks(
        self, kind: str, content: Any, config: Mapping[str, Any], modes: frozenset[str]
    ) -> Iterator[tuple[str, Any]]:
        """What the listeners get to see of something that happened."""
        if kind == "custom":
            yield "custom", content
        elif kind == "checkpoint":
            if "values" in modes:
                yield "values", self._output(content)
            if modes & {"checkpoints", "debug"} and self._log is not None:
                shown = self._reader.snapshot(thread_id_of(config), content)._asdict()
                if "checkpoints" in modes:
                    yield "checkpoints", shown
                if "debug" in modes:
                    yield "debug", _debug("checkpoint", content.step, shown)
        elif kind == "output":
            data: Data = content
            writes = dict(unpack(data["writes"]))
            if "updates" in modes:
                yield "updates", {data["node"]: writes or None}
            if "debug" in modes:
                shown = {"name": data["node"], "task": data["task"], "result": writes}
                yield "debug", _debug("task_result", data["step"], shown)
        elif kind == "task" and "debug" in modes:
            yield "debug", _debug("task", content["step"], content)

    # --- looking ------------------------------------------------------------------------

    def get_state(self, config: RunnableConfig) -> StateSnapshot:
        """The state of a thread, or at the checkpoint that the config names.

        Of a thread that is not there the snapshot is empty.

        Raises:
            InvalidConfigError: no thread, or a checkpoint that does not fit it.
            PositionNotFoundError: a checkpoint that is not there (any more).
        """
        self._need_log()
        return self._reader.state(config)

    def get_state_history(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[StateSnapshot]:
        """The checkpoints of a thread, newest first, one at a time.

        Args:
            filter: only those whose metadata has these values.
            before: only those older than the checkpoint of this config.
            limit: so many at most.
        """
        self._need_log()
        wanted = dict(filter or {})
        found = self._reader.history(thread_id_of(config), position_of(before) if before else None)
        matching = (
            snapshot
            for snapshot in found
            if wanted.items() <= (snapshot.metadata or {}).items()
        ) if wanted else found  # fmt: skip
        return islice(matching, limit)

    def events(self, config: RunnableConfig) -> Iterator[AuditEntry]:
        """The audit trail of a thread, oldest first: who wrote what, when, and what it led to.

        Raises:
            ThreadNotFoundError: no such thread.
            CorruptEventError: the log was damaged or tampered with.
        """
        self._need_log()
        return self._reader.audit(thread_id_of(config))

    def verify(self, config: RunnableConfig) -> VerifyReport:
        """Check a thread: digest chain, payloads, and that its snapshots equal their replay.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        self._need_log()
        return self._reader.verify(thread_id_of(config))

    def get_graph(self, *_config: Any, xray: int | bool = False) -> DrawableGraph:
        """The graph as declared, to be drawn: ``get_graph().draw_mermaid()``."""
        return DrawableGraph.of(
            self.topology,
            xray=xray,
            interrupt_before=tuple(self._interrupt_before),
            interrupt_after=tuple(self._interrupt_after),
        )

    # --- editing ------------------------------------------------------------------------

    def update_state(
        self,
        config: RunnableConfig,
        values: Any,
        as_node: str | None = None,
    ) -> RunnableConfig:
        """Edit a thread's state as if a node had written it; its edges decide what is next.

        On an older checkpoint, or one of another thread for a new thread, the edit begins a
        branch from there; what was is kept.

        Args:
            values: an update, as a node would return it; ``None`` writes nothing.
            as_node: whose edges to follow; by default the node that wrote last.

        Returns:
            The config of the checkpoint that the edit made.

        Raises:
            InvalidUpdateError: the update does not fit, or it is unclear whose it is.
            ConcurrencyError: a run or another edit was first.
        """
        log = self._need_log()
        journal = log.open(config)
        run = Run(self.topology, journal, self._options(config, frozenset(), None, None))
        state = journal.state
        node = as_node or planner.infer_as_node(self.topology, state)
        run.edit(values, node, config.get("metadata") or {})
        return self._reader.snapshot(thread_id_of(config), journal.state).config

    def _need_log(self) -> ThreadLog:
        if self._log is None:
            raise InvalidConfigError(
                "this graph keeps no state: compile it with a checkpointer, "
                "compile(checkpointer=SqliteSaver('runs.db'))"
            )
        return self._log


_MODES: Final = frozenset({"values", "updates", "checkpoints", "debug", "custom"})


def _shared(state: Any, keys: Sequence[str]) -> dict[str, Any]:
    """What of a parent's state, whatever its form, a graph has keys for."""
    if isinstance(state, Mapping):
        return {key: state[key] for key in keys if key in state}
    return {key: getattr(state, key) for key in keys if hasattr(state, key)}


def _names(nodes: Sequence[str] | str) -> frozenset[str]:
    return frozenset([nodes] if isinstance(nodes, str) else nodes)


def _run_id(config: Mapping[str, Any]) -> str | None:
    given = config.get("run_id")
    return None if given is None else str(given)


def _now_us() -> int:
    return time.time_ns() // 1000


def _debug(kind: str, step: int, payload: Mapping[str, Any]) -> dict[str, Any]:
    now = from_micros(_now_us()).isoformat()
    return {"type": kind, "step": step, "timestamp": now, "payload": payload}
