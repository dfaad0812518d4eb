"""What is stored and sent: bytes on disk and in the log, commits, statements, round trips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final

from benchmarks.measuring.bench import Bench
from benchmarks.measuring.timing import config_of
from benchmarks.peers.limits import Limit, opened
from benchmarks.peers.peer import Peer

COUNTED_RUNS: Final = 5
"""Turns or runs in which round trips are counted."""


def open_limits(bench: Bench, stack: ExitStack) -> list[Limit]:
    """The backend's limits, all on one database of their own."""
    target = bench.workspace.database("limit").target
    return [stack.enter_context(opened(kind, target)) for kind in bench.backend.limits]


def compare_storage(bench: Bench, name: str, unit_name: str, count: int) -> None:
    """Compare the bytes on disk and the bytes written, per one of ``count`` units."""
    databases = {peer: bench.database(peer) for peer in bench.peers}
    sizes = {peer: database.size() / 1024 / count for peer, database in databases.items()}
    bench.compare(name, f"bytes on disk per {unit_name}", "KiB", sizes)
    grown = {p: size for p, each in databases.items() if (size := each.growth()) is not None}
    if grown:
        bench.compare(
            name,
            f"growth of the database per {unit_name}",
            "KiB",
            {peer: size / 1024 / count for peer, size in grown.items()},
            note="from an empty database, including the server's own tables",
        )
    written = {p: found for p, each in databases.items() if (found := each.written())}
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


def compare_round_trips(
    bench: Bench,
    name: str,
    unit_name: str,
    graph: Callable[[Peer], Any],
    inputs: Sequence[tuple[str, Any]],
    per: int = 1,
) -> None:
    """Compare how often a peer waits for the server, where there is one.

    Args:
        inputs: a thread and an input per run; the first run is not counted.
        per: the number of units in a run.
    """
    found: dict[Peer, float] = {}
    for peer in bench.both:
        counting = bench.database(peer).round_trips()
        if counting is None:
            return
        with counting as counter, peer.session(counter.target) as session:
            app = session.compile(graph(peer))
            (thread_id, values), *counted = inputs
            app.invoke(values, config_of(thread_id))
            before = counter.count
            for thread_id, values in counted:
                app.invoke(values, config_of(thread_id))
            found[peer] = (counter.count - before) / len(counted) / per
    bench.compare(name, f"round trips per {unit_name}", "", found)
