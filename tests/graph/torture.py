"""Kills processes that run graphs with `kill -9`, beside others on the same threads, many times.

Two processes at a time run one graph on a few threads: fan-outs, a subgraph, an interrupt, new
inputs, resume values and continued runs, sync and async, with every durability, each run waiting
for the others. One of them is killed at a random moment and replaced. Every state that a node has
seen (with `durability="sync"`) or that a call has returned is acknowledged over a pipe. Then: each
acknowledged log is a beginning of what the thread's log is now, nothing is there twice, no living
run was overtaken, every log verifies, and every thread comes to its end. `python -m
tests.graph.torture --kills 2000` runs it at length, with `--postgresql` on a server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import operator
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

from eventstore import AsyncEventStore, EventStore
from graph import (
    END,
    START,
    Command,
    CompiledGraph,
    EmptyInputError,
    InvalidUpdateError,
    StateGraph,
    interrupt,
)
from tests import postgres

THREADS: Final = 3
KILLS_PER_STORE: Final = 25
LEASE_S: Final = 2.0
RUN_SECONDS_MAX: Final = 0.25
START_SECONDS_MAX: Final = 60.0
WAIT_SECONDS_MAX: Final = 30.0
FANS: Final = 3


class Work(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    run: str


class Inside(TypedDict, total=False):
    run: str
    done: Annotated[list[str], operator.add]


Hear = Callable[[Work], None]


def working(store: Any, hear: Hear = lambda state: None) -> CompiledGraph:
    """The graph: a node, three in parallel, a subgraph, a node that asks, an end."""

    def writes(name: str) -> Callable[[Work], Work]:
        def node(state: Work) -> Work:
            hear(state)
            return {"log": [f"{state['run']}/{name}"]}

        return node

    def ask(state: Work) -> Work:
        hear(state)
        return {"log": [f"{state['run']}/{interrupt('go on?')}"]}

    inner = StateGraph(Inside)
    for before, name in [(START, "first"), ("first", "second")]:
        inner.add_node(name, lambda state, name=name: {"done": [name]})
        inner.add_edge(before, name)
    graph = StateGraph(Work)
    fans = [f"fan{number}" for number in range(FANS)]
    for name in ["start", *fans, "end"]:
        graph.add_node(name, writes(name))
    graph.add_node("inner", inner.compile())
    graph.add_node("ask", ask)
    graph.add_edge(START, "start")
    for fan in fans:
        graph.add_edge("start", fan)
    graph.add_edge(fans, "inner")
    graph.add_edge("inner", "ask")
    graph.add_edge("ask", "end")
    graph.add_edge("end", END)
    return graph.compile(store)


ENTRIES: Final = sorted(["start", *(f"fan{number}" for number in range(FANS)), "yes", "end"])
"""What a run that came to its end has written."""


# --- the children -----------------------------------------------------------------------


class Worker:
    """What a child does until it is killed."""

    def __init__(self, store: Any, pipe: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.store = store
        self.pipe = pipe
        self.thread = ""
        self.hears = False
        self.lock = threading.Lock()
        self.app = working(store, self.heard)

    def heard(self, state: Work) -> None:
        """A node sees a state: with `sync` all of it is durable."""
        if self.hears:
            self.say("seen", log=state.get("log", []))

    def say(self, what: str, **facts: Any) -> None:
        message = json.dumps([what, {"thread": self.thread, **facts}])
        with self.lock:  # parallel nodes see states, too
            os.write(self.pipe, message.encode() + b"\n")

    def choose(self) -> Any:
        """The config of a thread."""
        self.thread = f"t{self.chance.randrange(THREADS)}"
        return {"configurable": {"thread_id": self.thread}}

    def options(self, state: Any) -> dict[str, Any]:
        """How to call. With `exit`, a thread that does not exist yet is held by nobody."""
        durability = self.chance.choice(["sync", "sync", "async", "exit"])
        if not state.values:
            durability = "sync"
        self.hears = durability == "sync"
        waits = {"on_conflict": "wait", "conflict_timeout_s": WAIT_SECONDS_MAX}
        return {"durability": durability, **waits}

    def given(self, state: Any) -> Any:
        """What to call with, on a thread that stands so."""
        if state.interrupts:
            return Command(resume="yes")
        if state.next and self.chance.random() < 0.7:
            return None
        return {"run": f"{self.chance.getrandbits(48):x}"}

    def run(self) -> None:
        while True:
            config = self.choose()
            state = self.app.get_state(config)
            given, options = self.given(state), self.options(state)
            try:
                self.say("done", log=self.app.invoke(given, config, **options).get("log", []))
            except (EmptyInputError, InvalidUpdateError):
                continue  # the other process was there since we looked

    async def arun(self) -> None:
        while True:
            config = self.choose()
            state = await self.app.aget_state(config)
            given, options = self.given(state), self.options(state)
            try:
                found = await self.app.ainvoke(given, config, **options)
                self.say("done", log=found.get("log", []))
            except (EmptyInputError, InvalidUpdateError):
                continue


def child(url: str, pipe: str, seed: int, is_async: bool) -> None:
    """Work until killed; an error is told, and fails the whole test."""
    end = os.open(pipe, os.O_WRONLY)
    os.write(end, b'["begun", {"thread": ""}]\n')

    async def main() -> None:
        async with AsyncEventStore(url, run_lease_s=LEASE_S) as store:
            await Worker(store, end, seed).arun()

    try:
        if is_async:
            asyncio.run(main())
        with EventStore(url, run_lease_s=LEASE_S) as store:
            Worker(store, end, seed).run()
    except BaseException as error:
        message = json.dumps(["failed", {"thread": repr(error)}])
        os.write(end, message.encode() + b"\n")
        raise
    finally:
        os._exit(1)


def serve() -> None:
    """Fork a child for each line of standard input, with everything imported; say its pid."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(**order)
        print(pid, flush=True)


# --- the parent -------------------------------------------------------------------------


class TornError(AssertionError):
    """What was left is not what had been acknowledged."""


@dataclass
class Summary:
    """What a run of kills came to."""

    kills: int = 0
    acknowledged: int = 0
    finished: int = 0
    abandoned: int = 0
    seconds: float = 0.0
    waits_s: list[float] = field(default_factory=list)


@dataclass
class Process:
    """A child, and what it has said that was not yet looked at."""

    pid: int
    pipe: int
    heard: bytes = b""

    def listen(self, seconds: float, until_first: bool = False) -> list[list[Any]]:
        """What it says within a time, whole lines."""
        give_up_at = time.monotonic() + seconds
        lines: list[list[Any]] = []
        while (left := give_up_at - time.monotonic()) > 0:
            if not select.select([self.pipe], [], [], left)[0]:
                break
            try:
                some = os.read(self.pipe, 1 << 16)
            except BlockingIOError:
                continue
            if not some:
                if not until_first:
                    break
                time.sleep(0.001)  # it has not opened its end yet
                continue
            *whole, self.heard = (self.heard + some).split(b"\n")
            lines += [json.loads(line) for line in whole]
            if until_first and lines:
                break
        return lines


class Killer:
    """Starts children by a template process, and kills them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.template = subprocess.Popen(
            [sys.executable, "-m", "tests.graph.torture", "--serve"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.count = 0
        if self._answer() != "ready":
            raise TornError("the template process did not start")

    def _answer(self) -> str:
        assert self.template.stdout is not None
        return self.template.stdout.readline().strip()

    def start(self, url: str, seed: int, is_async: bool) -> Process:
        """A child at work."""
        assert self.template.stdin is not None
        self.count += 1
        path = self.folder / f"pipe{self.count}"
        os.mkfifo(path)
        pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        order = {"url": url, "pipe": str(path), "seed": seed, "is_async": is_async}
        self.template.stdin.write(json.dumps(order) + "\n")
        self.template.stdin.flush()
        process = Process(int(self._answer()), pipe)
        if not process.listen(START_SECONDS_MAX, until_first=True):
            raise TornError("a child did not start")
        path.unlink()
        return process

    def close(self) -> None:
        """End the template process."""
        for stream in (self.template.stdin, self.template.stdout):
            if stream is not None:
                stream.close()
        self.template.wait(START_SECONDS_MAX)


@contextmanager
def killer(folder: Path) -> Iterator[Killer]:
    made = Killer(folder)
    try:
        yield made
    finally:
        made.close()


@dataclass
class Heard:
    """The longest log that was acknowledged of each thread."""

    logs: dict[str, list[str]] = field(default_factory=dict)

    def take(self, lines: list[list[Any]], summary: Summary) -> bool:
        """Take in what a process said; whether that was anything but seen states."""
        done = False
        for what, facts in lines:
            if what == "failed":
                raise TornError(f"a process failed: {facts['thread']}")
            if what == "begun":
                continue
            done = done or what == "done"
            summary.acknowledged += 1
            known, log = self.logs.get(facts["thread"], []), facts["log"]
            short, long = sorted([known, log], key=len)
            if long[: len(short)] != short:
                raise TornError(f"{facts['thread']}: acknowledged {known}, then {log}")
            self.logs[facts["thread"]] = long
        return done


def check(url: str, heard: Heard, summary: Summary) -> None:
    """Compare every thread with what was acknowledged, then bring it to its end."""
    with EventStore(url, run_lease_s=LEASE_S) as store:
        app = working(store)
        for thread, acknowledged in heard.logs.items():
            config: Any = {"configurable": {"thread_id": thread}}
            _check(app, thread, acknowledged)
            if store.thread(thread).status == "running":  # killed, perhaps before it wrote anything
                app.invoke({"run": "last"}, config, on_conflict="wait")
            state = app.get_state(config)
            while state.next:
                given: Any = Command(resume="yes") if state.interrupts else None
                app.invoke(given, config, on_conflict="wait")
                state = app.get_state(config)
            log = _check(app, thread, acknowledged)
            if store.thread(thread).status != "idle":
                raise TornError(f"{thread}: finished, and {store.thread(thread).status}")
            runs: dict[str, list[str]] = {}
            for entry in log:
                runs.setdefault(entry.split("/")[0], []).append(entry.split("/")[1])
            whole = [sorted(entries) == ENTRIES for entries in runs.values()]
            if not whole[-1]:
                raise TornError(f"{thread}: the last run lacks something: {[*runs.values()][-1]}")
            summary.finished += sum(whole)
            summary.abandoned += len(whole) - sum(whole)


def _check(app: CompiledGraph, thread: str, acknowledged: list[str]) -> list[str]:
    config: Any = {"configurable": {"thread_id": thread}}
    report = app.verify(config)
    if not report.ok:
        raise TornError(f"{thread}: {report.problems}")
    log: list[str] = app.get_state(config).values.get("log", [])
    if log[: len(acknowledged)] != acknowledged:
        raise TornError(f"{thread}: acknowledged {acknowledged}, found {log}")
    twice = [entry for entry, count in Counter(log).items() if count > 1]
    if twice:
        raise TornError(f"{thread}: recorded twice: {twice}")
    return log


def torture(
    urls: Iterator[str],
    folder: Path,
    kills: int,
    seed: int,
    progress: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Kill so many children, one after the other, each beside another one that lives on.

    Args:
        urls: stores with nothing in them, each for some kills.
    """
    summary, chance = Summary(), random.Random(seed)
    began = time.monotonic()
    with killer(folder) as kill:
        while summary.kills < kills:
            url, heard = next(urls), Heard()
            with EventStore(url) as store:
                store.setup()

            def start(url: str = url) -> Process:
                return kill.start(url, chance.getrandbits(32), chance.random() < 0.5)

            processes = [start(), start()]
            for number in range(min(KILLS_PER_STORE, kills - summary.kills)):
                run_s = chance.random() * chance.choice([0.05, RUN_SECONDS_MAX])
                until = time.monotonic() + run_s
                while (left := until - time.monotonic()) > 0:
                    for each in processes:
                        heard.take(each.listen(min(left, 0.01)), summary)
                victim = processes.pop(chance.randrange(2))
                os.kill(victim.pid, signal.SIGKILL)
                heard.take(victim.listen(START_SECONDS_MAX), summary)
                os.close(victim.pipe)
                summary.kills += 1
                if number % 5 == 0:  # the other one, alone, goes on with what the dead one held
                    summary.waits_s.append(_time_to_go_on(processes[0], heard, summary))
                processes.append(start())
                summary.seconds = time.monotonic() - began
                progress(summary)
            for each in processes:
                os.kill(each.pid, signal.SIGKILL)
                heard.take(each.listen(START_SECONDS_MAX), summary)
                os.close(each.pipe)
            check(url, heard, summary)
    return summary


def _time_to_go_on(process: Process, heard: Heard, summary: Summary) -> float:
    """Seconds until a process finishes a call on a thread, perhaps one that the dead one held."""
    began = time.monotonic()
    while time.monotonic() - began < WAIT_SECONDS_MAX:
        if heard.take(process.listen(0.05), summary):
            return time.monotonic() - began
    raise TornError(f"nothing went on for {WAIT_SECONDS_MAX} s after a kill")


def main() -> int:
    """The long run, with a line of progress and a closing summary."""
    parser = argparse.ArgumentParser(prog="python -m tests.graph.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--postgresql", action="store_true", help="on a server of its own")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return 0
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    kind = "PostgreSQL" if args.postgresql else "SQLite"
    print(f"torture of graphs on {kind}: {args.kills} kills, seed {args.seed}, in {folder}")

    def progress(now: Summary) -> None:
        if sys.stdout.isatty() or now.kills % 100 == 0:
            rate = now.kills / now.seconds
            print(f"\r{now.kills:>6} kills  {rate:4.1f}/s  {now.acknowledged} states", end="")
            sys.stdout.flush()

    try:
        with stores(folder, args.postgresql) as urls:
            summary = torture(urls, folder, args.kills, args.seed, progress)
    except TornError as error:
        print(f"\nFAILED: {error}\nkept: {folder}")
        return 1
    waits = sorted(summary.waits_s)
    print(
        f"\n{summary.kills} kills in {summary.seconds:.0f} s: {summary.acknowledged} states "
        f"acknowledged and found, {summary.finished} runs whole, {summary.abandoned} left for a "
        f"new input, nothing lost, nothing twice; with a lease of {LEASE_S:g} s the other process "
        f"went on after {waits[len(waits) // 2]:.2f} s (median), {waits[-1]:.2f} s at most"
    )
    shutil.rmtree(folder)
    return 0


@contextmanager
def stores(folder: Path, postgresql: bool) -> Iterator[Iterator[str]]:
    """URLs of stores with nothing in them."""
    if not postgresql:
        yield (f"sqlite:///{folder / f'{number}.db'}" for number in range(1_000_000))
        return
    with ExitStack() as opened:
        yield (opened.enter_context(postgres.database()) for _ in range(1_000_000))


if __name__ == "__main__":
    sys.exit(main())
