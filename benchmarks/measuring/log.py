"""Measures the log alone, without a graph."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from benchmarks.measuring.bench import Bench
from benchmarks.measuring.storage import open_limits
from benchmarks.measuring.timing import THREAD, timed
from benchmarks.peers.ours import stored_rows
from benchmarks.workloads.chat import chat_turns
from eventstore import Event, EventStore


def appends(bench: Bench) -> None:
    """Compare ``EventStore.append`` of one event with a bare insert of the same row."""
    name = bench.workload_name("log alone")
    bench.progress(f"{name}: appending")
    turns = chat_turns(bench.scale.appends)
    ours: list[float] = []
    with ExitStack() as stack:
        limits = open_limits(bench, stack)
        bare: dict[str, list[float]] = {limit.name: [] for limit in limits}
        store = stack.enter_context(EventStore(bench.database(bench.ours).target))
        store.append("warm-up", [Event(1, {})], expected_seq=0)
        for seq, turn in enumerate(turns):
            event = Event(1, {"step": seq, "writes": {"messages": [turn.answer]}})
            ours.append(
                timed(lambda s=seq, e=event: store.append(THREAD, [e], expected_seq=s))  # type: ignore[misc]
            )
            row = stored_rows(store, THREAD)[-1]
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
            gain=False,
            note="reads the log's end first, as for every caller that passes only a seq",
        )
