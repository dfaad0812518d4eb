"""LangGraph with our saver beside LangGraph with its own savers, and beside its own DeltaChannel.

    python -m benchmarks.saver [--backend postgres] [--turns 200] [--rounds 3] [--json results.json]

Measures a conversation twice: by the calls of a checkpointer that LangGraph's runtime makes, which
are recorded once and made again of each saver, and through the runtime; and a text of 200 KB of
which each step changes one per cent. ``benchmarks.compare`` has the rows for other workloads.
Exits with 1 when an aim is missed.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypedDict

from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from rich.console import Console

from benchmarks.backends.backend import Backend, Database, Workspace
from benchmarks.backends.postgres import TOASTS, postgres_backends
from benchmarks.backends.sqlite import SqliteBackend
from benchmarks.compare import environment
from benchmarks.measuring.recorded import loaded, make, recorded
from benchmarks.measuring.timing import THREAD, WARM_UP, config_of, timed
from benchmarks.peers.peer import Peer, Session
from benchmarks.peers.registry import find_peer
from benchmarks.reporting.data import as_data
from benchmarks.reporting.figures import Figure, Figures, Unit
from benchmarks.reporting.table import table
from benchmarks.workloads.chat import Turn, chat_graph, chat_turns
from benchmarks.workloads.edited_text import make_text, text_graph

TEXT_STEPS: Final = 50
LOADS: Final = 7
BLOCK: Final = 50
"""Calls of one saver before the next one's."""

Calls = Sequence[tuple[str, tuple[Any, ...]]]


def _extended(messages: list[Any], writes: Sequence[list[Any]]) -> list[Any]:
    return messages + [message for write in writes for message in write]


class DeltaState(TypedDict):
    """Messages, of which LangGraph stores the writes and now and then the whole."""

    messages: Annotated[list[Any], DeltaChannel(_extended)]


def delta_chat(turns: Sequence[Turn]) -> Any:
    """The chat's graph with a ``DeltaChannel``."""

    def chat(state: DeltaState) -> dict[str, Any]:
        return {"messages": [turns[len(state["messages"]) // 2].answer]}

    graph = StateGraph(DeltaState)
    graph.add_node("chat", chat)
    graph.add_edge(START, "chat")
    graph.add_edge("chat", END)
    return graph


class Side(NamedTuple):
    """A saver, and the graph that runs on it.

    Attributes:
        name: of its database.
        calls: of this graph.
        against: what figures call it.
        keeps: its data outlives it.
    """

    name: str
    peer: Peer
    graph: Any
    calls: Calls
    against: str
    keeps: bool = True


Values = dict[str, float]


class Measuring:
    """Measures all sides on one backend; every value goes to the figures."""

    def __init__(self, backend: Backend, figures: Figures, rounds: int) -> None:
        self._backend, self._figures, self._rounds = backend, figures, rounds
        suffix = "" if backend.key == "sqlite" else "-postgres"
        self._here = find_peer(f"langgraph{suffix}-here")
        self._theirs = find_peer(f"langgraph{suffix}")

    def _sides(self, graph: Any, calls: Calls) -> list[Side]:
        memory = find_peer("langgraph-memory")
        return [
            Side("here", self._here, graph, calls, ""),
            Side("theirs", self._theirs, graph, calls, "LangGraph"),
            Side("memory", memory, graph, calls, "LangGraph, in memory", keeps=False),
        ]

    def chat(self, count: int) -> None:
        """A conversation, by recorded calls and through the runtime."""
        turns = chat_turns(count)
        questions = [{"messages": [turn.question]} for turn in turns]
        plain, delta = chat_graph(self._theirs, turns), delta_chat(turns)
        calls, delta_calls = (
            loaded(recorded(graph, questions, config_of(THREAD))) for graph in (plain, delta)
        )
        sides = [
            *self._sides(plain, calls),
            Side("delta-here", self._here, delta, delta_calls, ""),
            Side("delta-theirs", self._theirs, delta, delta_calls, "LangGraph, DeltaChannel"),
        ]
        for _ in range(self._rounds):
            with self._backend.workspace() as workspace:
                found = self._by_calls(workspace, sides, count)
            self._report(f"chat, {count:,} turns, recorded calls", sides, found)
            with self._backend.workspace() as workspace:
                found = self._by_runtime(workspace, sides, questions)
            self._report(f"chat, {count:,} turns, runtime", sides, found)

    def text(self, steps: int) -> None:
        """A text that changes by one per cent a step, by recorded calls."""
        text, edits = make_text(steps)
        graph = text_graph(self._theirs, edits)
        inputs = [{"text": text, "revision": 0}]
        calls = loaded(recorded(graph, inputs, config_of(THREAD)))
        sides = self._sides(graph, calls)[:2]
        for _ in range(self._rounds):
            with self._backend.workspace() as workspace:
                empty = self._by_calls(workspace, [s._replace(calls=calls[:2]) for s in sides], 1)
            with self._backend.workspace() as workspace:
                found = self._by_calls(workspace, sides, steps)
            for side in sides:  # the text as it first was is no step
                once = empty[side.name]["bytes on disk per turn"] / steps
                found[side.name]["bytes on disk per turn"] -= once
            self._report(f"text of 200 KB, {steps:,} steps, recorded calls", sides, found, "step")

    def _by_calls(
        self, workspace: Workspace, sides: Sequence[Side], turns: int
    ) -> dict[str, Values]:
        databases = {side.name: workspace.database(side.name) for side in sides}
        found: dict[str, Values] = {side.name: {} for side in sides}
        with ExitStack() as stack:
            savers = {}
            for side in sides:
                session = stack.enter_context(side.peer.session(databases[side.name].target))
                savers[side.name] = session.saver
                make(session.saver, [_moved(call, WARM_UP) for call in side.calls[:20]])
                session.delete_thread(WARM_UP)
            workspace.begin()
            spent = {side.name: [0.0, 0.0] for side in sides}
            for at in range(0, max(len(side.calls) for side in sides), BLOCK):
                for side in sides:
                    block = side.calls[at : at + BLOCK]
                    with databases[side.name].recording(), _clock(spent[side.name]):
                        make(savers[side.name], block)
            for side in sides:
                wall, cpu = spent[side.name]
                found[side.name]["wall time per call"] = wall / len(side.calls)
                found[side.name]["CPU time per call"] = cpu / len(side.calls)
                if not side.keeps:
                    self._read_back(savers[side.name], found[side.name])
        for side in sides:
            if side.keeps:
                self._stored(databases[side.name], turns, found[side.name])
                target = databases[side.name].target
                with side.peer.session(target) as session:
                    session.saver.get_tuple(config_of(THREAD))  # compiles the statements
                with side.peer.session(target) as session:
                    session.saver.get_tuple(config_of(WARM_UP))  # connects
                    self._read_back(session.saver, found[side.name])
                    found[side.name]["delete the thread"] = timed(
                        lambda s=session: s.delete_thread(THREAD)  # type: ignore[misc]
                    )
        return found

    @staticmethod
    def _read_back(saver: Any, values: Values) -> None:
        config = config_of(THREAD)
        values["load of the latest checkpoint"] = timed(lambda: saver.get_tuple(config))
        again = [timed(lambda: saver.get_tuple(config)) for _ in range(LOADS)]
        values["load of the latest checkpoint, again"] = sorted(again)[LOADS // 2]
        gc.collect()
        values["full history"] = timed(lambda: list(saver.list(config)))

    @staticmethod
    def _stored(database: Database, turns: int, values: Values) -> None:
        values["bytes on disk per turn"] = database.size() / 1024 / turns
        written = database.written()
        if written is not None:
            values["bytes of WAL per turn"] = written.wal / 1024 / turns

    def _by_runtime(
        self, workspace: Workspace, sides: Sequence[Side], inputs: Sequence[Any]
    ) -> dict[str, Values]:
        databases = {side.name: workspace.database(side.name) for side in sides}
        found: dict[str, Values] = {side.name: {} for side in sides}
        config = config_of(THREAD)
        with ExitStack() as stack:
            sessions: dict[str, Session] = {}
            apps = {}
            for side in sides:
                session = stack.enter_context(side.peer.session(databases[side.name].target))
                sessions[side.name] = session
                apps[side.name] = app = session.compile(side.graph)
                app.invoke(inputs[0], config_of(WARM_UP))
                session.delete_thread(WARM_UP)
            workspace.begin()
            spent = {side.name: [0.0, 0.0] for side in sides}
            for at in range(0, len(inputs), 10):
                for side in sides:
                    with databases[side.name].recording(), _clock(spent[side.name]):
                        for values in inputs[at : at + 10]:
                            apps[side.name].invoke(values, config)
            for side in sides:
                wall, cpu = spent[side.name]
                app, values = apps[side.name], found[side.name]
                values["wall time per turn"] = wall / len(inputs)
                values["CPU time per turn"] = cpu / len(inputs)
                loads = [timed(lambda a=app: a.get_state(config)) for _ in range(LOADS)]  # type: ignore[misc]
                values["get_state, again"] = sorted(loads)[LOADS // 2]
                gc.collect()
                values["full history"] = timed(lambda a=app: list(a.get_state_history(config)))  # type: ignore[misc]
        for side in sides:
            if side.keeps:
                self._stored(databases[side.name], len(inputs), found[side.name])
        return found

    def _report(
        self,
        workload: str,
        sides: Sequence[Side],
        found: dict[str, Values],
        unit_name: str = "turn",
    ) -> None:
        """Each side beside ours with the same graph."""
        workload += self._backend.variant
        for side in sides:
            if not side.against:
                continue
            ours = found["delta-here" if side.name.startswith("delta") else "here"]
            plain = found["here"]
            for measure, theirs in found[side.name].items():
                unit: Unit = "KiB" if "bytes" in measure else "ms"
                name = measure.replace("per turn", f"per {unit_name}")
                self._figures.add(workload, name, unit, ours[measure], theirs, side.against)
                if side.name.startswith("delta"):  # our plain channel beside their DeltaChannel
                    against = f"{side.against} (ours without)"
                    self._figures.add(workload, name, unit, plain[measure], theirs, against)


@contextmanager
def _clock(spent: list[float]) -> Iterator[None]:
    """Add the wall and CPU milliseconds of the block."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    spent[0] += (time.perf_counter() - wall) * 1e3
    spent[1] += (time.process_time() - cpu) * 1e3


def _moved(call: tuple[str, tuple[Any, ...]], thread_id: str) -> tuple[str, tuple[Any, ...]]:
    """The same call for another thread."""
    method, (config, *arguments) = call
    place = {**config["configurable"], "thread_id": thread_id}
    return method, ({"configurable": place}, *arguments)


@contextmanager
def _backends(options: argparse.Namespace, folder: Path) -> Iterator[Sequence[Backend]]:
    if options.backend == "sqlite":
        yield [SqliteBackend(folder)]
        return
    with postgres_backends(options.toast) as chosen:
        yield chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; returns 0 when the aims are met, else 1."""
    parser = argparse.ArgumentParser("python -m benchmarks.saver", description=__doc__)
    parser.add_argument("--backend", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--toast", choices=TOASTS, nargs="+")
    parser.add_argument("--turns", type=int, nargs="+", default=[200])
    parser.add_argument("--text-steps", type=int, default=TEXT_STEPS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dir", type=Path, help="folder of the SQLite files (on a disk)")
    options = parser.parse_args(arguments)
    figures = Figures(options.backend)
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.dir) as folder,
        _backends(options, Path(folder)) as chosen,
    ):
        facts = environment(chosen[0]) | {"rounds": str(options.rounds)}
        for backend in chosen:
            measuring = Measuring(backend, figures, options.rounds)
            jobs = [
                *(partial(measuring.chat, turns) for turns in options.turns),
                partial(measuring.text, options.text_steps),
            ]
            for job in jobs:
                job()
                if options.json:  # after each job, because a long run may be interrupted
                    data = as_data(list(figures), facts)
                    options.json.write_text(json.dumps(data, indent=2) + "\n")
    taken: list[Figure] = list(figures)
    Console(width=150).print(table(taken, "LangGraph's savers (ours: LangGraph with our saver)"))
    return 0 if all(figure.met() is not False for figure in taken) else 1


if __name__ == "__main__":
    sys.exit(main())
