"""Measures runs that are all alike, each on a thread of its own: pipeline, document, fan-out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks.measuring.bench import Bench
from benchmarks.measuring.storage import (
    COUNTED_RUNS,
    compare_round_trips,
    compare_storage,
    open_limits,
)
from benchmarks.measuring.timing import WARM_UP, config_of, in_turns, require_same, timed
from benchmarks.peers.limits import by_superstep
from benchmarks.peers.ours import stored_rows
from benchmarks.peers.peer import Peer
from benchmarks.workloads.document import document_graph, make_document
from benchmarks.workloads.fanout import FANOUT_WIDTH, fanout_findings, fanout_graph
from benchmarks.workloads.pipeline import PIPELINE_SUPERSTEPS, pipeline_graph, pipeline_inputs


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
    """Measure one run on each of many threads.

    Args:
        supersteps: events in each transaction of one of our runs, that of the input first.
        per: the number of units in a run; figures are per unit.
        unit_name: the name of a unit.
    """
    name = bench.workload_name(name)
    spent: dict[Peer, list[float]] = {peer: [] for peer in bench.peers}
    with ExitStack() as stack:
        sessions = {
            p: stack.enter_context(p.session(bench.database(p).target)) for p in bench.peers
        }
        apps = {peer: session.compile(graph(peer)) for peer, session in sessions.items()}
        limits = open_limits(bench, stack)
        bare: dict[str, list[float]] = {limit.name: [] for limit in limits}
        for peer, session in sessions.items():  # the first run opens files and creates tables
            apps[peer].invoke(inputs[0], config_of(WARM_UP))
            session.delete_thread(WARM_UP)  # its pages are reused
        bench.workspace.begin()

        def run(peer: Peer, block: range) -> None:
            bench.progress(f"{name}: {peer.name}, run {block[0] + 1:,}")
            app = apps[peer]
            with bench.database(peer).recording():
                for number in block:
                    config, values = config_of(f"run-{number}"), inputs[number]
                    spent[peer].append(timed(lambda c=config, v=values: app.invoke(v, c)))  # type: ignore[misc]
            if peer is bench.ours:
                for number in block:
                    groups = by_superstep(
                        stored_rows(sessions[peer].saver.store, f"run-{number}"), supersteps
                    )
                    for limit in limits:
                        bare[limit.name].append(timed(lambda li=limit, g=groups: li.write(g)))  # type: ignore[misc]

        in_turns(bench.peers, len(inputs), run)
        last = config_of(f"run-{len(inputs) - 1}")
        require_same(name, {peer: apps[peer].get_state(last).values for peer in bench.peers})
    wall = {peer: median(times) / per for peer, times in spent.items()}
    measure = f"wall time per {unit_name}"
    bench.compare(name, measure, "ms", wall)
    for limit_name, times in bare.items():
        least = median(times) / per
        bench.figures.add(name, measure, "ms", wall[bench.ours], least, limit_name, gain=False)
    compare_storage(bench, name, unit_name, len(inputs) * per)
    more = [
        (f"counted-{number}", inputs[number % len(inputs)]) for number in range(COUNTED_RUNS + 1)
    ]
    compare_round_trips(bench, name, unit_name, graph, more, per)


def pipeline(bench: Bench) -> None:
    """Measure a pipeline of three nodes."""
    threads = bench.scale.threads
    _runs(
        bench,
        f"pipeline, {threads} threads",
        pipeline_graph,
        pipeline_inputs(threads),
        (1,) * (1 + PIPELINE_SUPERSTEPS),
        per=PIPELINE_SUPERSTEPS,
        unit_name="superstep",
    )


def document(bench: Bench) -> None:
    """Measure runs of many supersteps, each of which edits a paragraph of a large document."""
    steps = bench.scale.steps
    doc = make_document(steps)
    _runs(
        bench,
        f"document, {steps} steps",
        lambda peer: document_graph(peer, doc),
        [{"paragraphs": doc.paragraphs, "revision": 0}] * bench.scale.documents,
        (1,) * (1 + steps),
        per=steps,
        unit_name="step",
    )


def fanout(bench: Bench) -> None:
    """Measure many nodes side by side in one superstep."""
    findings = fanout_findings()
    topics = pipeline_inputs(bench.scale.fanouts)
    _runs(
        bench,
        f"fan-out of {FANOUT_WIDTH}",
        lambda peer: fanout_graph(peer, findings),
        [{"topic": topic["text"], "findings": []} for topic in topics],
        (1, FANOUT_WIDTH),
        per=1,
        unit_name="run",
    )
