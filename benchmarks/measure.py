"""Takes the measurements: every peer in the same run, in turns, and the limits right after.

Owns how a figure is taken, and all workloads but the chat, which is in ``chat``; prints
nothing. Peers take turns in small blocks whose order changes, so that a slow moment of the
machine meets all of them. Timed code never includes making data, opening files or checking
results.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from benchmarks import workloads
from benchmarks.backends import Backend, Ground, Place
from benchmarks.figures import Figures, Unit
from benchmarks.limits import Limit, Row, by_superstep, opened
from benchmarks.peers import Peer, rows_of

THREAD: Final = "conversation"
WARM_UP: Final = "warm-up"
BLOCK: Final = 10
"""Turns, threads or runs of one peer before the next peer's."""

TAPPED: Final = 5
"""Turns or runs in which round trips are counted."""

Config = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much is done for one figure; smaller in a test of the benchmarks."""

    warm_up_turns: int = 40
    loads: int = 15
    forks: int = 5
    memory: bool = True
    threads: int = workloads.PIPELINE_THREADS
    documents: int = workloads.DOCUMENT_RUNS
    steps: int = workloads.DOCUMENT_STEPS
    fanouts: int = workloads.FANOUT_RUNS
    appends: int = 200


@dataclass(frozen=True)
class Bench:
    """What every measurement needs.

    Attributes:
        ground: where data goes; every peer has its own place there.
        tell: says what is going on.
    """

    backend: Backend
    ground: Ground
    figures: Figures
    tell: Callable[[str], None]
    scale: Scale = Scale()

    @property
    def us(self) -> Peer:
        """Whom it is all about."""
        return self.backend.pairs[0].ours

    @property
    def them(self) -> Peer:
        """Whom we are compared with in everything."""
        return self.backend.pairs[0].other

    @property
    def both(self) -> tuple[Peer, Peer]:
        """Those two."""
        return self.us, self.them

    @property
    def peers(self) -> list[Peer]:
        """All peers, each once."""
        return list(
            dict.fromkeys(peer for pair in self.backend.pairs for peer in (pair.ours, pair.other))
        )

    def named(self, workload: str) -> str:
        """A workload's name in figures."""
        return workload + self.backend.variant

    def place(self, peer: Peer) -> Place:
        """Where a peer's data is."""
        return self.ground.place(peer.key)

    def compare(
        self,
        workload: str,
        measure: str,
        unit: Unit,
        values: Mapping[Peer, float],
        *,
        less: bool = True,
        note: str = "",
    ) -> None:
        """Add one round's values to the figure of each pair that has some."""
        first = self.backend.pairs[0]
        for pair in self.backend.pairs:
            if pair.ours in values and (pair.other in values or pair is first):
                self.figures.add(
                    workload,
                    measure + pair.said,
                    unit,
                    values[pair.ours],
                    values.get(pair.other),
                    pair.other.name,
                    less=less and pair.less,
                    note=note,
                )


def config_of(thread_id: str) -> Config:
    """A fresh config: a peer may keep what it is given."""
    return {"configurable": {"thread_id": thread_id}, "recursion_limit": 1_000}


def in_turns(bench: Bench, count: int, run: Callable[[Peer, range], None]) -> None:
    """Give each peer a block of the work in turn, in an order that changes."""
    size = min(BLOCK, max(1, count // BLOCK))
    each = bench.peers
    for number, start in enumerate(range(0, count, size)):
        block = range(start, min(start + size, count))
        first = number % len(each)
        for peer in each[first:] + each[:first]:
            gc.collect()
            run(peer, block)


def timed(run: Callable[[], Any]) -> float:
    """Milliseconds that a call takes."""
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1e3


def same(what: str, seen: Mapping[Peer, Any]) -> None:
    """Figures of unequal work mean nothing."""
    (one, expected), *others = seen.items()
    for peer, found in others:
        if found != expected:
            raise AssertionError(f"{what}: {one.name} and {peer.name} do not agree")


def touch_history(app: Any, thread_id: str) -> tuple[int, int]:
    """The whole history in memory, each state looked at; how many states and messages."""
    history = list(app.get_state_history(config_of(thread_id)))
    return len(history), sum(len(state.values.get("messages", ())) for state in history)


# --- what is stored and sent ----------------------------------------------------------------


def open_limits(bench: Bench, stack: ExitStack) -> list[Limit]:
    """The limits, side by side in a place of their own."""
    target = bench.ground.place("limit").target
    return [stack.enter_context(opened(kind, target)) for kind in bench.backend.limits]


def stored(bench: Bench, name: str, unit_name: str, count: int) -> None:
    """Bytes on disk and bytes written, of each of ``count`` units."""
    places = {peer: bench.place(peer) for peer in bench.both}
    sizes = {peer: place.size() / 1024 / count for peer, place in places.items()}
    bench.compare(name, f"bytes on disk per {unit_name}", "KiB", sizes)
    grown = {peer: grown for peer, place in places.items() if (grown := place.growth()) is not None}
    if grown:
        bench.compare(
            name,
            f"growth of the database per {unit_name}",
            "KiB",
            {peer: size / 1024 / count for peer, size in grown.items()},
            note="from an empty database on, the server's own tables included",
        )
    written = {peer: found for peer, place in places.items() if (found := place.written())}
    if not written:
        return
    wal = {peer: found.wal / 1024 / count for peer, found in written.items()}
    bench.compare(name, f"bytes of WAL per {unit_name}", "KiB", wal)
    images = {p: found.images for p, found in written.items() if found.images is not None}
    if images:
        lean = {p: wal[p] - size / 1024 / count for p, size in images.items()}
        measure = f"bytes of WAL without page images per {unit_name}"
        bench.compare(name, measure, "KiB", lean, note="each page is logged whole once")
    for what, numbers in (
        ("commits", {p: each.commits for p, each in written.items()}),
        ("statements", {p: each.statements for p, each in written.items()}),
    ):
        known = {p: number / count for p, number in numbers.items() if number is not None}
        if known:
            bench.compare(name, f"{what} per {unit_name}", "", known)


def round_trips(
    bench: Bench,
    name: str,
    unit_name: str,
    graph: Callable[[Peer], Any],
    inputs: Sequence[tuple[str, Any]],
    per: int = 1,
) -> None:
    """How often a peer waits for the server, where there is one.

    Args:
        inputs: what runs are given and on which threads; the first is not counted.
    """
    found: dict[Peer, float] = {}
    for peer in bench.both:
        tapped = bench.place(peer).tapped()
        if tapped is None:
            return
        with tapped as tap, peer.session(tap.target) as session:
            app = session.compile(graph(peer))
            (thread_id, values), *counted = inputs
            app.invoke(values, config_of(thread_id))
            before = tap.trips
            for thread_id, values in counted:
                app.invoke(values, config_of(thread_id))
            found[peer] = (tap.trips - before) / len(counted) / per
    bench.compare(name, f"round trips per {unit_name}", "", found)


# --- runs on threads of their own -----------------------------------------------------------


def _runs(
    bench: Bench,
    name: str,
    graph: Callable[[Peer], Any],
    inputs: Sequence[dict[str, Any]],
    supersteps: Sequence[int],
    *,
    per: int,
    unit_name: str,
) -> None:
    """One run on each of many threads.

    Args:
        supersteps: events in each transaction of one run of ours, the input's first.
        per: what a run is divided by for the figures.
        unit_name: what that is called.
    """
    name = bench.named(name)
    spent: dict[Peer, list[float]] = {peer: [] for peer in bench.peers}
    with ExitStack() as stack:
        sessions = {p: stack.enter_context(p.session(bench.place(p).target)) for p in bench.peers}
        apps = {peer: session.compile(graph(peer)) for peer, session in sessions.items()}
        limits = open_limits(bench, stack)
        bare: dict[str, list[float]] = {limit.name: [] for limit in limits}
        for peer, session in sessions.items():  # the first run opens files and makes tables
            apps[peer].invoke(inputs[0], config_of(WARM_UP))
            session.delete_thread(WARM_UP)  # its pages are used again
        bench.ground.begin()

        def run(peer: Peer, block: range) -> None:
            bench.tell(f"{name}: {peer.name}, run {block[0] + 1:,}")
            app = apps[peer]
            with bench.place(peer).counted():
                for number in block:
                    config, values = config_of(f"run-{number}"), inputs[number]
                    spent[peer].append(timed(lambda c=config, v=values: app.invoke(v, c)))  # type: ignore[misc]
            if peer is bench.us:
                for number in block:
                    groups = by_superstep(rows_of(sessions[peer], f"run-{number}"), supersteps)
                    for limit in limits:
                        bare[limit.name].append(timed(lambda li=limit, g=groups: li.write(g)))  # type: ignore[misc]

        in_turns(bench, len(inputs), run)
        last = config_of(f"run-{len(inputs) - 1}")
        same(name, {peer: apps[peer].get_state(last).values for peer in bench.peers})
    wall = {peer: median(times) / per for peer, times in spent.items()}
    measure = f"wall time per {unit_name}"
    bench.compare(name, measure, "ms", wall)
    for limit_name, times in bare.items():
        least = median(times) / per
        bench.figures.add(name, measure, "ms", wall[bench.us], least, limit_name, less=False)
    stored(bench, name, unit_name, len(inputs) * per)
    more = [(f"tapped-{number}", inputs[number % len(inputs)]) for number in range(TAPPED + 1)]
    round_trips(bench, name, unit_name, graph, more, per)


def pipeline(bench: Bench) -> None:
    """Three nodes, one after the other, once on each of many threads."""
    threads = bench.scale.threads
    _runs(
        bench,
        f"pipeline, {threads} threads",
        workloads.pipeline_graph,
        workloads.pipeline_inputs(threads),
        (1,) * (1 + workloads.PIPELINE_SUPERSTEPS),
        per=workloads.PIPELINE_SUPERSTEPS,
        unit_name="superstep",
    )


def document(bench: Bench) -> None:
    """Runs of many supersteps, each of which edits one paragraph of a large document."""
    steps = bench.scale.steps
    doc = workloads.document(steps)
    _runs(
        bench,
        f"document, {steps} steps",
        lambda peer: workloads.document_graph(peer, doc),
        [{"paragraphs": doc.paragraphs, "revision": 0}] * bench.scale.documents,
        (1,) * (1 + steps),
        per=steps,
        unit_name="step",
    )


def fanout(bench: Bench) -> None:
    """Many nodes side by side in one superstep, then the end."""
    findings = workloads.fanout_findings()
    topics = workloads.pipeline_inputs(bench.scale.fanouts)
    _runs(
        bench,
        f"fan-out of {workloads.FANOUT_WIDTH}",
        lambda peer: workloads.fanout_graph(peer, findings),
        [{"topic": topic["text"], "findings": []} for topic in topics],
        (1, workloads.FANOUT_WIDTH),
        per=1,
        unit_name="run",
    )


# --- the log alone --------------------------------------------------------------------------


def appends(bench: Bench) -> None:
    """``EventStore.append`` of one event beside a bare insert of the same row."""
    from eventstore import Event, EventStore

    name = bench.named("log alone")
    bench.tell(f"{name}: appending")
    turns = workloads.chat_turns(bench.scale.appends)
    ours: list[float] = []
    with ExitStack() as stack:
        limits = open_limits(bench, stack)
        bare: dict[str, list[float]] = {limit.name: [] for limit in limits}
        store = stack.enter_context(EventStore(bench.place(bench.us).target))
        store.append("warm-up", [Event(1, {})], expected_seq=0)
        for seq, turn in enumerate(turns):
            event = Event(1, {"step": seq, "writes": {"messages": [turn.answer]}})
            ours.append(
                timed(lambda s=seq, e=event: store.append(THREAD, [e], expected_seq=s))  # type: ignore[misc]
            )
            row = _last_row(store)
            for limit in limits:
                bare[limit.name].append(timed(lambda li=limit, r=row: li.write([[r]])))  # type: ignore[misc]
    for limit_name, times in bare.items():
        bench.figures.add(
            name,
            "append of one event",
            "ms",
            median(ours),
            median(times),
            limit_name,
            less=False,
            note="reading the log's end first, as a caller does who names only a seq",
        )


def _last_row(store: Any) -> Row:
    from sqlalchemy import select

    from eventstore.schema import events

    key = store.thread(THREAD).thread_key
    statement = select(events).where(events.c.thread_key == key)
    with store.engine.connect() as conn:
        row = conn.execute(statement.order_by(events.c.seq.desc()).limit(1)).one()
    return tuple(row)
