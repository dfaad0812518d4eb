"""Kills a writer with `kill -9` at random moments, again and again, and checks what it left.

Each child opens the store, appends batches to several threads and namespaces with snapshots,
forks and deletions mixed in, and acknowledges every call over a pipe after it returned. After
each kill: every acknowledged event is there, no seq is missing, the digests verify, and replay
from snapshots equals replay from the beginning. `python -m tests.eventstore.torture --kills
5000` runs it at length; the suite runs fifty kills.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import event

from eventstore import (
    Event,
    EventStore,
    Fork,
    Head,
    NewSnapshot,
    Replay,
    ThreadNotFoundError,
)
from tests import processes

FINGERPRINT: Final = "torture/1"
THREADS: Final = 5
NAMESPACES: Final = ("", "child")
KILLS_PER_FILE: Final = 10
THREADS_PER_FILE_MAX: Final = 40
RUN_SECONDS_MAX: Final = 0.1
COLD_EVERY: Final = 10
START_SECONDS_MAX: Final = 60.0


# --- the child --------------------------------------------------------------------------


def fold(store: EventStore, replay: Replay[Any]) -> list[int]:
    """A state that depends on every event and their order: [count, rolling hash]."""
    state = store.codec.decode(replay.snapshot.state) if replay.snapshot else [0, 0]
    for found in replay.events:
        state = step(state, found.data["n"] if found.kind else found.data["data"])
    return [*state]


def step(state: list[int], number: int) -> list[int]:
    """The state after one more event."""
    return [state[0] + 1, (state[1] * 1_000_003 + number) % 2**61]


class Writer:
    """What runs in the child until it is killed."""

    def __init__(self, store: EventStore, pipe: int, seed: int) -> None:
        self.pipe = pipe
        self.random = random.Random(seed)
        self.store = store
        self.heads: dict[tuple[str, str], tuple[Head, list[int]]] = {}

    def run(self) -> None:
        """Write for ever."""
        self.store.setup()
        while True:
            self.act()

    def act(self) -> None:
        """One call, whatever it be."""
        thread_id = f"t{self.random.randrange(THREADS)}"
        ns = self.random.choice(NAMESPACES)
        action = self.random.choices(
            [self.append, self.fork, self.go_back, self.drop_snapshots, self.delete],
            [100, 4, 4, 1, 2],
        )[0]
        try:
            action(thread_id, ns)
        except ThreadNotFoundError:  # deleted, or never made
            self.heads.clear()

    def acknowledge(self, what: str, **facts: Any) -> None:
        os.write(self.pipe, json.dumps([what, facts]).encode() + b"\n")

    def head(self, thread_id: str, ns: str) -> tuple[Head, list[int]]:
        known = self.heads.get((thread_id, ns))
        if known is None:
            replay = self.store.replay(thread_id, ns, fingerprint=FINGERPRINT)
            known = self.heads[thread_id, ns] = (replay.head, fold(self.store, replay))
        return known

    def append(self, thread_id: str, ns: str) -> None:
        head, state = self.head(thread_id, ns)
        values = [self.random.getrandbits(40) for _ in range(self.random.choice([1, 1, 2, 5, 30]))]
        size = self.random.choice([0, 10, 300, 5_000])
        noise = self.random.randbytes(size)
        for value in values:
            state = step(state, value)
        snapshot = None
        if self.random.random() < 0.15:
            snapshot = NewSnapshot(FINGERPRINT, self.store.codec.encode(state), b"")
        batch = [Event(1, {"n": value, "noise": noise}) for value in values]
        after = self.store.append_after(head, batch, snapshot=snapshot)
        self.heads[thread_id, ns] = (after, state)
        self.acknowledge("append", thread=thread_id, ns=ns, first=head.seq + 1, values=values)

    def fork(self, thread_id: str, ns: str) -> None:
        """A new thread, if there are not too many, that goes on from this one."""
        number = self.random.randrange(THREADS, THREADS_PER_FILE_MAX)
        name = f"t{number}"
        head, _ = self.head(thread_id, ns)
        if not head.seq or self.store.head(name).exists:
            return
        value = self.random.getrandbits(40)
        seq = self.random.randint(1, head.seq)
        target = self.store.head(name, ns)
        if target.exists:
            return
        event = Fork(head.position._replace(seq=seq), value)
        self.store.append_after(target, [event])
        self.acknowledge("append", thread=name, ns=ns, first=1, values=[value])

    def go_back(self, thread_id: str, ns: str) -> None:
        head, _ = self.head(thread_id, ns)
        if not head.seq:
            return
        value = self.random.getrandbits(40)
        event = Fork(head.position._replace(seq=self.random.randint(1, head.seq)), value)
        self.store.append_after(head, [event])
        self.heads.pop((thread_id, ns))
        self.acknowledge("append", thread=thread_id, ns=ns, first=head.seq + 1, values=[value])

    def drop_snapshots(self, thread_id: str, _ns: str) -> None:
        self.store.delete_snapshots(thread_id)

    def delete(self, thread_id: str, _ns: str) -> None:
        # Said before as well: killed in between, the thread may be there or not.
        self.acknowledge("deleting", thread=thread_id)
        try:
            self.store.delete_thread(thread_id)
        finally:
            for ns in NAMESPACES:
                self.heads.pop((thread_id, ns), None)
        self.acknowledge("deleted", thread=thread_id)


def delete_in_small_batches(size: int) -> None:
    """Let a deletion take several transactions although the threads are small."""
    for module in list(sys.modules.values()):
        if module.__name__.startswith("eventstore") and hasattr(module, "DELETE_BATCH"):
            vars(module)["DELETE_BATCH"] = size


class Template:
    """A process that has everything imported and every statement compiled, and forks children.

    A child begins to write a few milliseconds after it was asked for, instead of after a
    second; one in ten opens a store of its own from the very beginning all the same.
    """

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "warm.db")
        self.store = EventStore(self.path)
        event.listen(self.store.engine, "do_connect", self._redirect)
        delete_in_small_batches(50)
        sink = os.open(os.devnull, os.O_WRONLY)
        writer = Writer(self.store, sink, seed=0)
        for _ in range(120):
            writer.act()
        os.close(sink)
        self.store.engine.dispose()

    def _redirect(self, _dialect: Any, _record: Any, args: list[Any], _options: Any) -> None:
        args[0] = self.path

    def serve(self) -> None:
        """Fork a child for each line of standard input; say its process id."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the killed
        print("ready", flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            pid = os.fork()
            if pid == 0:
                self._child(**order)
            print(pid, flush=True)

    def _child(self, path: str, pipe: str, seed: int, cold: bool) -> None:
        try:
            end = os.open(pipe, os.O_WRONLY)
            os.write(end, b"[]\n")
            self.path = path
            store = EventStore(path) if cold else self.store
            Writer(store, end, seed).run()
        except BaseException as error:
            os.write(end, json.dumps(["failed", {"thread": repr(error)}]).encode() + b"\n")
            raise
        finally:
            os._exit(1)


# --- the parent -------------------------------------------------------------------------


class TornError(AssertionError):
    """What was left is not what had been acknowledged."""


@dataclass
class Summary:
    """What a run of kills came to."""

    kills: int = 0
    acknowledged: int = 0
    unacknowledged: int = 0
    deleted: int = 0
    forks: int = 0
    cut_deletions: int = 0
    checked: int = 0
    seconds: float = 0.0


@dataclass
class Expected:
    """What the children said, for one file: the model that the file is compared with."""

    logs: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)

    def hear(self, message: list[Any], summary: Summary) -> None:
        """Take in one acknowledgement."""
        what, facts = message
        thread = facts["thread"]
        if what == "failed":
            raise TornError(f"a writer failed: {thread}")
        if what == "append":
            values = self.logs.setdefault((thread, facts["ns"]), [])
            if len(values) != facts["first"] - 1:
                raise TornError(f"{thread}: {facts['first']} acknowledged after {len(values)}")
            values += facts["values"]
            summary.acknowledged += len(facts["values"])
            return
        self.logs = {place: log for place, log in self.logs.items() if place[0] != thread}
        if what == "deleting":
            self.doubtful.add(thread)
        else:
            self.doubtful.discard(thread)
            summary.deleted += 1


class Killer:
    """Has children started by a template process, hears what they say, and kills them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pipe = folder / "pipe"
        os.mkfifo(self.pipe)
        command = [sys.executable, "-m", "tests.eventstore.torture", "--template", str(folder)]
        self.template = processes.Popen(
            command,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._answer() != "ready":
            raise TornError("the template process did not start")

    def _answer(self) -> str:
        assert self.template.stdout is not None
        answer: str = self.template.stdout.readline()
        return answer.strip()

    def close(self) -> None:
        """End the template process."""
        for stream in (self.template.stdin, self.template.stdout):
            if stream is not None:
                stream.close()
        self.template.wait(START_SECONDS_MAX)
        self.pipe.unlink()

    def life(self, path: Path, seed: int, run_s: float, cold: bool) -> list[list[Any]]:
        """Start one child, let it run for a while, kill it; returns what it acknowledged."""
        assert self.template.stdin is not None
        # Opened before the child does, and not waiting for it.
        receive = os.open(self.pipe, os.O_RDONLY | os.O_NONBLOCK)
        order = {"path": str(path), "pipe": str(self.pipe), "seed": seed, "cold": cold}
        try:
            self.template.stdin.write(json.dumps(order) + "\n")
            self.template.stdin.flush()
            pid = int(self._answer())
            heard = _listen(receive, START_SECONDS_MAX, until_first=True)
            # Reading while it runs, or a full pipe would stop it at always the same place.
            heard += _listen(receive, run_s)
            os.kill(pid, signal.SIGKILL)
            heard += _listen(receive, START_SECONDS_MAX)
        finally:
            os.close(receive)
        *lines, _cut_short = heard.split(b"\n")
        return [json.loads(line) for line in lines[1:]]


def _listen(pipe: int, seconds: float, until_first: bool = False) -> bytes:
    """What comes within a time, or until there is something, or nobody is left to say more."""
    heard = b""
    give_up_at = time.monotonic() + seconds
    while (left := give_up_at - time.monotonic()) > 0:
        if not select.select([pipe], [], [], left)[0]:
            break
        try:
            some = os.read(pipe, 65_536)
        except BlockingIOError:
            continue
        if not some and until_first and not heard:
            time.sleep(0.001)  # the child has not opened its end yet
            continue
        heard += some
        if not some or until_first:
            break
    return heard


@contextmanager
def killer(folder: Path) -> Iterator[Killer]:
    """A killer whose template process ends with the block."""
    made = Killer(folder)
    try:
        yield made
    finally:
        made.close()


def check(path: Path, expected: Expected, summary: Summary) -> None:
    """Compare the file with what was said; then what is there is what is expected next."""
    with EventStore(path) as store:
        infos = {info.thread_id for info in store.threads(limit=1_000)}
        for thread, ns in expected.logs:
            if thread not in infos:
                raise TornError(f"{thread}/{ns}: acknowledged, and the thread is not there")
        found: dict[tuple[str, str], list[int]] = {}
        for thread in infos:
            report = store.verify(thread)
            if not report.ok:
                raise TornError(f"{thread}: {report.problems}")
            for ns in NAMESPACES:
                found |= _check_log(store, thread, ns, expected, summary)
        if len({key for key, _ in found}) != len(infos):
            raise TornError("a thread without any log")
        expected.logs = found
        cut = store.finish_deletions()
        summary.cut_deletions += cut
        expected.doubtful.clear()
        if cut:
            _check_no_orphans(store)
            for thread in infos:
                for ns in NAMESPACES:
                    _check_replay(store, thread, ns)
    summary.checked += 1


def _check_log(
    store: EventStore, thread: str, ns: str, expected: Expected, summary: Summary
) -> dict[tuple[str, str], list[int]]:
    events = list(store.read(thread, ns))
    seqs = [event.seq for event in events]
    if seqs != list(range(1, len(seqs) + 1)):
        raise TornError(f"{thread}/{ns}: a gap in {seqs}")
    values = [event.data["n"] if event.kind else event.data["data"] for event in events]
    said = expected.logs.get((thread, ns), [])
    if values[: len(said)] != said:
        raise TornError(f"{thread}/{ns}: {len(said)} acknowledged, {len(values)} there, not equal")
    if thread not in expected.doubtful:
        summary.unacknowledged += len(values) - len(said)
    summary.forks += sum(1 for event in events[len(said) :] if not event.kind)
    _check_replay(store, thread, ns)
    return {(thread, ns): values} if values else {}


def _check_replay(store: EventStore, thread: str, ns: str) -> None:
    fast = fold(store, store.replay(thread, ns, fingerprint=FINGERPRINT))
    slow = fold(store, store.replay(thread, ns, snapshots=False))
    if fast != slow:
        raise TornError(f"{thread}/{ns}: replay from a snapshot differs: {fast} != {slow}")


def _check_no_orphans(store: EventStore) -> None:
    with store.engine.connect() as conn:
        for table in ("events", "snapshots", "forks"):
            query = (
                f"SELECT count(*) FROM {table} WHERE thread_key NOT IN "
                "(SELECT thread_key FROM threads WHERE condemned_at IS NULL)"
            )
            if left := conn.exec_driver_sql(query).scalar_one():
                raise TornError(f"{left} rows of {table} belong to no thread")


def torture(
    folder: Path,
    kills: int,
    seed: int,
    progress: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Kill ``kills`` children one after the other; a new file every now and then."""
    summary = Summary()
    chance = random.Random(seed)
    began = time.monotonic()
    expected, path = Expected(), folder / "0.db"
    with killer(folder) as kill:
        for number in range(kills):
            if number % KILLS_PER_FILE == 0:
                expected, path = Expected(), folder / f"{number}.db"
            run_s = chance.choice([0.03, RUN_SECONDS_MAX]) * chance.random()
            try:
                cold = number % COLD_EVERY == 0
                for message in kill.life(path, chance.getrandbits(32), run_s, cold):
                    expected.hear(message, summary)
                summary.kills += 1
                check(path, expected, summary)
            except BaseException as error:
                error.add_note(f"seed {seed}, kill {number}, file {path}")
                raise
            if number % KILLS_PER_FILE == KILLS_PER_FILE - 1:
                for used in folder.glob(f"{path.name}*"):
                    used.unlink()
            summary.seconds = time.monotonic() - began
            progress(summary)
    return summary


def main() -> int:
    """The long run, with a line of progress and a closing summary."""
    parser = argparse.ArgumentParser(prog="python -m tests.eventstore.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--folder", type=Path, help="where the files go; default: a temporary one")
    parser.add_argument("--two-writers", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--template", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--checkpointer", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.template:
        Template(args.template).serve()
        return 0
    if args.checkpointer:
        path, name, seconds = args.checkpointer
        print(json.dumps(checkpointer(path, name, float(seconds))))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=args.folder))
    print(f"torture: {args.kills} kills, seed {args.seed}, in {folder}")

    def progress(now: Summary) -> None:
        if not sys.stdout.isatty() and now.kills % 500:
            return
        rate = now.kills / now.seconds if now.seconds else 0.0
        line = (
            f"\r{now.kills:>6} kills  {rate:5.1f}/s  {now.acknowledged:>9} events acknowledged, "
            f"all there  {now.cut_deletions} deletions cut short"
        )
        print(line, end="", flush=True)

    try:
        summary = torture(folder, args.kills, args.seed, progress)
        print(
            f"\n{summary.kills} kills in {summary.seconds:.0f} s: {summary.acknowledged} events "
            f"acknowledged and found, {summary.unacknowledged} committed but not yet "
            f"acknowledged, {summary.deleted} threads deleted, {summary.cut_deletions} deletions "
            f"cut short and finished, nothing lost"
        )
        if args.two_writers:
            written, checkpoints = checkpointing(folder / "shared.db", args.two_writers)
            print(
                f"two processes wrote {written} events to one file and checkpointed it "
                f"{checkpoints} times in {args.two_writers:.0f} s: nothing lost"
            )
    except TornError as error:
        print(f"\nFAILED: {error}\n{getattr(error, '__notes__', '')}\nkept: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


# --- two processes that write and checkpoint one file -------------------------------------


def checkpointer(path: str, name: str, seconds: float) -> tuple[int, int]:
    """Append and checkpoint in turns; returns how far the log was acknowledged, and how often."""
    store = EventStore(path)
    chance = random.Random(name)
    head = store.head(name)
    checkpoints = 0
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        for _ in range(chance.randint(1, 20)):
            size = chance.choice([1, 1, 5])
            batch = [Event(1, {"n": head.seq + 1 + extra}) for extra in range(size)]
            head = store.append_after(head, batch)
        mode = chance.choice(["TRUNCATE", "RESTART", "PASSIVE", "FULL"])
        with store.engine.connect() as conn:
            conn.exec_driver_sql("PRAGMA busy_timeout = 20")
            conn.exec_driver_sql(f"PRAGMA wal_checkpoint({mode})")
            conn.exec_driver_sql("PRAGMA busy_timeout = 30000")
        checkpoints += 1
    store.close()
    return head.seq, checkpoints


def checkpointing(path: Path, seconds: float) -> tuple[int, int]:
    """Two writers that checkpoint each other's file: events written, and checkpoints."""
    names = ("one", "two")
    base = [sys.executable, "-m", "tests.eventstore.torture", "--checkpointer", str(path)]
    running = [
        processes.Popen(
            [*base, name, str(seconds)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    said = [process.communicate(timeout=seconds + START_SECONDS_MAX)[0] for process in running]
    written = checkpoints = 0
    for name, process, result in zip(names, running, said, strict=True):
        if process.returncode:
            raise TornError(f"writer {name} failed")
        seq, count = json.loads(result)
        with EventStore(path) as store:
            found = [event.data["n"] for event in store.read(name)]
            if found != list(range(1, seq + 1)):
                raise TornError(f"{name}: {seq} acknowledged, {len(found)} there")
            report = store.verify(name)
            if not report.ok:
                raise TornError(f"{name}: {report.problems}")
            with store.engine.connect() as conn:
                verdict = conn.exec_driver_sql("PRAGMA integrity_check").scalar_one()
            if verdict != "ok":
                raise TornError(f"SQLite: {verdict}")
        written, checkpoints = written + seq, checkpoints + count
    return written, checkpoints


if __name__ == "__main__":
    sys.exit(main())
