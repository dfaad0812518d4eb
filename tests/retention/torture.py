"""Kills a sweeper with `kill -9` at random moments beside live writers, and checks what it left.

Each round creates old threads and has a child sweep them until it is killed; meanwhile writers
append to some of them, fork some, and write to new threads. After each kill all acknowledged
events are there, everything that the policies keep is there, and every visible thread is whole.
After the last kill of a database a sweep runs to its end: then nothing that was due is left, and
no row without a thread.
`python -m tests.retention.torture --kills 300` runs longer; the test suite kills a few dozen.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from eventstore import (
    ConcurrencyError,
    Event,
    EventStore,
    LineageMovedError,
    NewSnapshot,
    PositionNotFoundError,
    ThreadExistsError,
    ThreadNotFoundError,
)
from retention import Match, Pace, RetentionPolicy, sweep
from retention.archives import Archive
from tests.eventstore.support import FINGERPRINT, orphans, sql

ROOT: Final = Path(__file__).resolve().parents[2]
DAY: Final = timedelta(days=1)
KILLS_PER_DATABASE: Final = 10
OLD_PER_ROUND: Final = 30
EVENTS: Final = {"large": 120, "held": 40}
"""Number of events by kind of thread; others have six."""

SAMPLE: Final = 25
RUN_S_MAX: Final = 0.25
START_S_MAX: Final = 60.0
WRITERS: Final = 2

EVENTS_MAX: Final = 25
PACE: Final = Pace(rows=150, rest=0.1)


def policies(archive: str) -> tuple[RetentionPolicy, ...]:
    """Policies that keep, trim, archive and prune."""
    return (
        RetentionPolicy(name="held", match=Match(metadata={"case": "open"}), seal_after=DAY),
        RetentionPolicy(name="cut", match=Match(thread_id="cut-*"), max_events=EVENTS_MAX),
        RetentionPolicy(30 * DAY, "archived", match=Match(thread_id="archived-*"), archive=archive),
        RetentionPolicy(30 * DAY, "rest"),
    )


class TornError(AssertionError):
    """The database is not in the expected state."""


# --- the child --------------------------------------------------------------------------


def serve() -> None:
    """Fork a sweeper per database and archive named on standard input; print its process id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no wait() for killed sweepers
    delete_in_small_batches()
    print("ready", flush=True)
    for line in sys.stdin:
        url, archive = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                with EventStore(url) as store:
                    while True:
                        sweep(store, policies(archive), pace=PACE)
            finally:
                os._exit(1)
        print(pid, flush=True)


def delete_in_small_batches() -> None:
    """Make deletions of small threads take several transactions."""
    for module in list(sys.modules.values()):
        if module.__name__.startswith("eventstore") and hasattr(module, "DELETE_BATCH"):
            vars(module)["DELETE_BATCH"] = 25


@contextmanager
def template() -> Iterator[subprocess.Popen[str]]:
    """The process that forks sweepers, so that each starts with everything imported."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.retention.torture", "--serve"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        if process.stdout.readline().strip() != "ready":
            raise TornError("the template process did not start")
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(START_S_MAX)


# --- the parent -------------------------------------------------------------------------


@dataclass
class Summary:
    """The result of a run."""

    kills: int = 0
    pruned: int = 0
    revived: int = 0
    forked: int = 0
    refused: int = 0
    cut_short: int = 0
    seconds: float = 0.0


@dataclass
class World:
    """One database, its writers, and the state they expect."""

    url: str
    archive: str
    seed: int
    summary: Summary
    values: dict[str, list[int]] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    old: list[str] = field(default_factory=list)
    count: int = 0
    wrong: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.store = EventStore(self.url, durability="normal")
        self.past = EventStore(
            self.url, durability="normal", clock=lambda: datetime.now(UTC) - 40 * DAY
        )
        self.store.setup()
        self.turn = threading.Lock()  # held by each writer, and by the checks
        self.ended = threading.Event()

    def close(self) -> None:
        """Close both stores."""
        self.store.close()
        self.past.close()

    # --- what is old, and what is kept --------------------------------------------------

    def age(self) -> None:
        """Create threads that have long been idle: some to keep, some large, some forked."""
        for _ in range(OLD_PER_ROUND):
            self.count += 1
            kind = self.random.choices(
                ["old", "archived", "large", "pinned", "waiting", "held", "cut", "parent"],
                [45, 15, 8, 5, 5, 5, 8, 9],
            )[0]
            name = f"{kind}-{self.count}"
            self._write(self.past, name, EVENTS.get(kind, 6), kind)
            if kind == "pinned":
                self.past.set_thread(name, pinned=True)
            if kind == "parent":
                self.past.fork(name, 4, f"child-{self.count}")
                self.values[f"child-{self.count}"] = self.values[name][:4]
                self.old += [name, f"child-{self.count}"]
            elif kind in ("old", "large", "archived"):
                self.old.append(name)
            else:
                self.kept.add(name)

    def _write(self, store: EventStore, name: str, count: int, kind: str) -> None:
        values = [self.random.getrandbits(30) for _ in range(count)]
        batch = [Event(1, {"n": value, "text": "word " * 20}) for value in values]
        status: Any = "waiting" if kind == "waiting" else None
        metadata = {"case": "open"} if kind == "held" else None
        head = store.append_after(store.head(name), batch, status=status, metadata=metadata)
        store.append(name, batch[:2], 0, ns="inner")
        self.values[name] = values
        for _ in range(8 if kind == "cut" else 0):
            more = [self.random.getrandbits(30) for _ in range(5)]
            values += more
            state = store.codec.encode(values)
            head = store.append_after(
                head,
                [Event(1, {"n": value}) for value in more],
                snapshot=NewSnapshot(FINGERPRINT, state, b""),
            )

    # --- the writers --------------------------------------------------------------------

    def write(self, number: int) -> None:
        """Write at random until the run ends."""
        chance = random.Random(self.seed + number)
        try:
            while not self.ended.is_set():
                with self.turn:
                    chance.choice([self._revive, self._fork, self._append])(chance)
                time.sleep(chance.random() * 0.004)
        except BaseException as error:
            self.wrong.append(error)

    def _revive(self, chance: random.Random) -> None:
        if self.old:
            self._add(chance.choice(self.old), chance.getrandbits(30))

    def _append(self, chance: random.Random) -> None:
        if self.alive:
            self._add(chance.choice(sorted(self.alive)), chance.getrandbits(30))

    def _add(self, name: str, value: int) -> None:
        head = self.store.head(name)
        if not head.exists:
            return
        try:
            self.store.append_after(head, [Event(1, {"n": value})])
        except (ThreadNotFoundError, ConcurrencyError):
            if name in self.alive:
                raise
            self.summary.refused += 1
            return
        self.values[name].append(value)
        self.summary.revived += name not in self.alive
        self.alive.add(name)

    def _fork(self, chance: random.Random) -> None:
        if not self.old:
            return
        source, self.count = chance.choice(self.old), self.count + 1
        seq, name = chance.randint(1, 4), f"fork-{self.count}"
        if source.startswith("child"):
            return
        try:
            self.store.fork(source, seq, name)
        except (ThreadNotFoundError, PositionNotFoundError, ThreadExistsError):
            self.summary.refused += 1
            return
        self.values[name] = self.values[source][:seq]
        self.summary.forked += 1
        self.alive.add(name)

    # --- the checks ---------------------------------------------------------------------

    def check(self, sample: int | None = None) -> None:
        """Threads to keep are there, and every thread that is there is whole."""
        marked = "SELECT count(*) FROM threads WHERE condemned_at IS NOT NULL"
        self.summary.cut_short += sql(self.store, marked)[0][0]
        if self.wrong:
            raise TornError(f"a writer failed: {self.wrong}") from self.wrong[0]
        there = {thread.thread_id for thread in self.store.threads(limit=100_000)}
        missing = (self.kept | self.alive) - there
        if missing:
            raise TornError(f"pruned, though it is to be kept: {sorted(missing)}")
        kept = {each.thread_id for each in Archive(self.archive).ls()}
        lost = {name for name in self.old if name.startswith("archived")} - there - kept
        if lost:
            raise TornError(f"neither there nor in the archive: {sorted(lost)}")
        unknown = there - self.values.keys()
        if unknown:
            raise TornError(f"out of nowhere: {sorted(unknown)}")
        for name in self.random.sample(sorted(there), min(sample or len(there), len(there))):
            self._check_thread(name)

    def _check_thread(self, name: str) -> None:
        report = self.store.verify(name)
        if not report.ok:
            raise TornError(f"{name}: {report.problems}")
        try:
            replay = self.store.replay(name, fingerprint=FINGERPRINT)
            found = self.store.codec.decode(replay.snapshot.state) if replay.snapshot else []
            found += [event.data["n"] for event in replay.events if event.kind]
        except LineageMovedError:
            self._check_thread(name)
            return
        if found != self.values[name]:
            raise TornError(f"{name}: {len(found)} values, not {len(self.values[name])}")

    def end(self) -> None:
        """A sweep that is not killed leaves no work behind."""
        report = sweep(self.store, policies(self.archive), pace=PACE)
        if report.failed:
            raise TornError(f"the last sweep failed: {report}")
        self.check()
        there = {thread.thread_id for thread in self.store.threads(limit=100_000)}
        for_ever = there - self.kept - self.alive
        if for_ever:
            raise TornError(f"kept for ever: {sorted(for_ever)}")
        for name in there:
            if name.startswith("cut-") and self.store.stats(name).events > EVENTS_MAX:
                raise TornError(f"{name} was not trimmed")
        left = orphans(self.store)
        if left:
            raise TornError(f"rows that belong to nothing: {left}")
        self.summary.pruned += sql(self.store, "SELECT count(*) FROM tombstones")[0][0]


def torture(
    url: str, archive: str, kills: int, seed: int, process: subprocess.Popen[str]
) -> Summary:
    """Kill this many sweepers of one database."""
    assert process.stdin is not None and process.stdout is not None
    summary = Summary()
    world = World(url, archive, seed, summary)
    began = time.monotonic()
    writers = [threading.Thread(target=world.write, args=(n,)) for n in range(WRITERS)]
    try:
        for writer in writers:
            writer.start()
        for _ in range(kills):
            with world.turn:
                world.age()
            process.stdin.write(json.dumps([url, archive]) + "\n")
            process.stdin.flush()
            pid = int(process.stdout.readline())
            time.sleep(world.random.uniform(0.005, RUN_S_MAX))
            os.kill(pid, signal.SIGKILL)
            summary.kills += 1
            with world.turn:
                world.check(SAMPLE)
        world.ended.set()
        for writer in writers:
            writer.join()
        world.end()
    finally:
        world.ended.set()
        for writer in writers:
            writer.join()
        world.close()
    summary.seconds = time.monotonic() - began
    return summary


def main() -> int:
    """Run for a long time, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return 0
    print(f"seed {args.seed}", flush=True)
    total = Summary()
    with tempfile.TemporaryDirectory() as folder, template() as process:
        while total.kills < args.kills:
            kills = min(KILLS_PER_DATABASE, args.kills - total.kills)
            url = f"sqlite:///{folder}/{total.kills}.db"
            archive = f"file://{folder}/{total.kills}"
            Path(folder, str(total.kills)).mkdir()
            try:
                done = torture(url, archive, kills, args.seed + total.kills, process)
            except TornError as error:
                print(f"FAILED after {total.kills} kills: {error}")
                return 1
            total = Summary(*(getattr(total, name) + getattr(done, name) for name in vars(total)))
            print(f"\r{total.kills} kills", end="", flush=True)
    print(
        f"\n{total.kills} kills in {total.seconds:.0f} s: {total.pruned} threads pruned, "
        f"{total.revived} brought back to life and {total.forked} forks, all there; "
        f"{total.refused} writers refused; {total.cut_short} deletions found cut short; "
        "nothing kept for ever"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
