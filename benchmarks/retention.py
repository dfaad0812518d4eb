"""What a sweep costs: planning, pruning, and what live writers notice of it.

    python -m benchmarks.retention [--database sqlite] [--threads 20000] [--turns 10] [--json FILE]

Half of the conversations are expired. A sweep of ours is compared with LangGraph's
``delete_thread``, called for one thread after the other, on LangGraph's own tables with the same
conversations, in the same run and with the same durability. In either database, half of the
expired threads go while a process appends to live ones (through the library that the database
belongs to); the times of those appends are compared with those before. The rest goes with nobody
beside, and our sweep then without pauses. LangGraph's tables are many times as large, so there are
fewer threads in them.
Exits with 1 when an aim is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psutil
from rich.console import Console

from benchmarks.reporting.figures import Figure
from benchmarks.reporting.table import table
from benchmarks.sweeps.threads import Target, fill_ours, fill_theirs, name_of
from benchmarks.sweeps.writer import opened_peer, took_ms, writing
from eventstore import EventStore
from retention import Pace, RetentionPolicy, plan, sweep
from tests.postgres import server

POLICY: Final = RetentionPolicy(ttl=timedelta(days=30))
WRITES_BEFORE_S: Final = 6.0

DATABASES: Final = ("sqlite", "postgresql")


@dataclass
class Deleted:
    """How one peer deleted: milliseconds per thread, and of the appends beside it.

    Attributes:
        alone, beside: per thread, with nobody beside, and beside a writer.
        quiet, disturbed: the appends, in order of length, before and during the deletion.
    """

    alone: float = 0.0
    beside: float = 0.0
    quiet: list[float] = field(default_factory=list)
    disturbed: list[float] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """What to print."""
        appends = {
            f"append_{name}_ms": [round(part(times, share), 2) for times in self._appends]
            for name, share in (("p50", 0.5), ("p99", 0.99))
        }
        return {
            "threads_a_second_alone": round(1e3 / self.alone),
            "threads_a_second_beside_a_writer": round(1e3 / self.beside),
            "appends_without_and_with": [len(times) for times in self._appends],
            **appends,
        }

    @property
    def _appends(self) -> tuple[list[float], list[float]]:
        return self.quiet, self.disturbed


def part(times: Sequence[float], share: float) -> float:
    """A percentile of sorted times."""
    return times[int(len(times) * share)]


def measure_deletion(whose: str, place: str, times: Path, delete: Callable[[bool], int]) -> Deleted:
    """Delete some threads beside a writer, and the others alone.

    Args:
        delete: deletes threads, only some if true; returns how many.
    """
    found = Deleted()
    with writing(whose, place, times):
        began = time.time()
        time.sleep(WRITES_BEFORE_S)
        start = time.time()
        count = delete(True)
        end = time.time()
    found.beside = 1e3 * (end - start) / count
    found.quiet, found.disturbed = took_ms(times, began, start), took_ms(times, start, end)
    start = time.perf_counter()
    count = delete(False)
    found.alone = 1e3 * (time.perf_counter() - start) / count
    return found


def sweep_ours(
    target: Target, options: argparse.Namespace, folder: Path
) -> tuple[Deleted, dict[str, Any]]:
    """Sweep our threads; also returns facts to print."""
    expired = options.threads // 2
    facts: dict[str, Any] = {}
    process = psutil.Process()
    with EventStore(target.place) as store:
        plans = []
        for _ in range(3):
            begun = time.perf_counter()
            found = plan(store, POLICY)
            plans.append(round(time.perf_counter() - begun, 2))
        assert len(found.decisions) == expired
        del found
        facts["plan_s"] = plans
        rss, peak, counted = process.memory_info().rss, 0, 0

        def count(*_: object) -> None:
            nonlocal peak, counted
            counted += 1
            if counted % 500 == 0:
                peak = max(peak, process.memory_info().rss - rss)

        def delete(some: bool) -> int:
            stop = (lambda: counted >= expired // 2) if some else (lambda: False)
            cpu = time.process_time()
            pace = Pace() if some else Pace(seconds=0.05, rest=0)
            done = sweep(store, POLICY, None, count, should_stop=stop, pace=pace)
            cpu = time.process_time() - cpu
            facts[f"cpu_us_per_thread_{'beside' if some else 'alone'}"] = round(
                1e6 * cpu / done.pruned
            )
            facts["reclaimed_mib"] = round(done.reclaimed / 2**20)
            return done.pruned

        deleted = measure_deletion("ours", target.place, folder / "times-ours", delete)
        assert counted == expired
        facts["growth_of_memory_mib"] = round(peak / 2**20, 1)
        return deleted, {**facts, **deleted.facts()}


def delete_theirs(
    target: Target, options: argparse.Namespace, folder: Path
) -> tuple[Deleted, dict[str, Any]]:
    """Delete LangGraph's threads one by one; also returns facts to print."""
    with opened_peer(target.place) as saver:
        fill_theirs(target, saver, options.peer_threads, options.turns)
    names = [name_of(number) for number in range(options.peer_threads // 2)]
    middle = len(names) // 2
    facts: dict[str, Any] = {"threads": options.peer_threads}
    with opened_peer(target.place) as saver:

        def delete(some: bool) -> int:
            chosen = names[:middle] if some else names[middle:]
            cpu = time.process_time()
            for name in chosen:
                saver.delete_thread(name)
            cpu = time.process_time() - cpu
            facts[f"cpu_us_per_thread_{'beside' if some else 'alone'}"] = round(
                1e6 * cpu / len(chosen)
            )
            return len(chosen)

        deleted = measure_deletion("theirs", target.place, folder / "times-theirs", delete)
        assert not any(saver.get_tuple({"configurable": {"thread_id": name}}) for name in names)
    return deleted, {**facts, **deleted.facts()}


def measure(
    database: str, options: argparse.Namespace, folder: Path
) -> tuple[list[Figure], dict[str, Any]]:
    """Returns the figures of one database, and the facts to print with them."""
    with targets(database, folder) as (our_target, their_target):
        begun = time.perf_counter()
        fill_ours(our_target, options.threads, options.turns, sealed=options.sealed)
        facts: dict[str, Any] = {"filled_s": round(time.perf_counter() - begun)}
        if our_target.is_sqlite:
            facts["file_mib"] = round(Path(our_target.place).stat().st_size / 2**20)
        ours, our_facts = sweep_ours(our_target, options, folder)
        theirs, their_facts = delete_theirs(their_target, options, folder)
    kind = "sealed events" if options.sealed else "events"
    workload = f"{database}: {options.threads:,} threads of {2 * options.turns} {kind}"
    beside = Figure(workload, "pruning beside a writer", "ms", "LangGraph", 15.0)
    alone = Figure(workload, "pruning alone", "ms", "LangGraph", 15.0)
    waits = Figure(workload, "p99 of live appends", "ms", "no sweep", 2.0, gain=False)
    for figure, mine, other in (
        (beside, ours.beside, theirs.beside),
        (alone, ours.alone, theirs.alone),
        (waits, part(ours.disturbed, 0.99), part(ours.quiet, 0.99)),
    ):
        figure.ours.append(mine)
        figure.other.append(other)
    return [beside, alone, waits], {**facts, "ours": our_facts, "theirs": their_facts}


@contextmanager
def targets(database: str, folder: Path) -> Iterator[tuple[Target, Target]]:
    """A database for us, and one for LangGraph."""
    with ExitStack() as stack:
        if database == "sqlite":
            yield Target(str(folder / "ours.db")), Target(str(folder / "theirs.db"))
            return
        started = stack.enter_context(server(fsync=True, settings={}))
        ours, theirs = (stack.enter_context(started.database()) for _ in range(2))
        yield Target(ours), Target(theirs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; returns 0 when the aims are met, else 1."""
    parser = argparse.ArgumentParser("python -m benchmarks.retention", description=__doc__)
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both")
    parser.add_argument("--threads", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--peer-threads", type=int, default=2_000)
    parser.add_argument("--sealed", action="store_true", help="ours were sealed before")
    parser.add_argument("--dir", type=Path, help="folder of the files (on a disk, not tmpfs)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    figures, facts = list[Figure](), dict[str, Any]()
    for database in DATABASES if options.database == "both" else (options.database,):
        with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.dir) as folder:
            found, facts[database] = measure(database, options, Path(folder))
            figures += found
    Console().print(table(figures, "LangGraph"))
    Console().print(facts)
    if options.json:
        rows = [{**vars(f), "ratio": f.ratio(), "met": f.met()} for f in figures]
        options.json.write_text(json.dumps({"facts": facts, "figures": rows}, indent=2))
    return 0 if all(figure.met() is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
