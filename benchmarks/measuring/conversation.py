"""Measures a conversation that grows turn by turn, and then is read, forked and deleted.

Reading is measured on a newly opened store that has so far read only another thread. So what a
library does once per process (compiling statements) is not counted, and no state is cached.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.measuring.bench import Bench
from benchmarks.measuring.storage import (
    COUNTED_RUNS,
    compare_round_trips,
    compare_storage,
    open_limits,
)
from benchmarks.measuring.timing import (
    THREAD,
    WARM_UP,
    Config,
    config_of,
    in_turns,
    read_history,
    require_same,
    timed,
)
from benchmarks.peers.limits import bare_decoder, by_superstep
from benchmarks.peers.ours import stored_rows
from benchmarks.peers.peer import Peer, Session
from benchmarks.workloads.chat import Turn, chat_graph, chat_turns
from graph.state.fold import fold

HISTORY_TURNS_MAX: Final = 200
"""Above this, LangGraph's full history takes gigabytes of memory, so only ours is measured."""

Turns = Sequence[Turn]


def chat(bench: Bench, count: int) -> None:
    """Measure a conversation: every turn is an ``invoke`` that loads the state and adds to it."""
    name = bench.workload_name(f"chat, {count:,} turns")
    turns = chat_turns(count)
    middles = _talk(bench, name, turns)
    compare_storage(bench, name, "turn", count)
    bench.progress(f"{name}: loading states")
    for peer in bench.peers:
        _converse(bench, peer, WARM_UP, turns[: bench.scale.warm_up_turns])
    latest = dict.fromkeys(bench.peers, config_of(THREAD))
    _load(bench, name, "load of the latest state", turns, latest)
    halfway = {peer: middles[peer] for peer in bench.both}
    _load(bench, name, "load of a checkpoint half-way", turns, halfway)
    bench.progress(f"{name}: full history")
    _history(bench, name, turns)
    bench.progress(f"{name}: replay")
    _replay(bench, name, turns)
    bench.progress(f"{name}: forks")
    _forks(bench, name, turns, middles)
    more: list[tuple[str, Any]] = [(WARM_UP, {"messages": [turns[0].question]})] * (
        COUNTED_RUNS + 1
    )
    compare_round_trips(bench, name, "turn", lambda peer: chat_graph(peer, turns * len(more)), more)
    bench.progress(f"{name}: deleting")
    _delete(bench, name)


def _talk(bench: Bench, name: str, turns: Turns) -> dict[Peer, Config]:
    """Run the turns; returns each peer's config of the checkpoint half-way."""
    count = len(turns)
    spent = dict.fromkeys(bench.talking, 0.0)
    middles: dict[Peer, Config] = {}
    written = 0
    with ExitStack() as stack:
        sessions = {
            p: stack.enter_context(p.session(bench.database(p).target)) for p in bench.talking
        }
        apps = {p: s.compile(chat_graph(p, turns)) for p, s in sessions.items()}
        limits = open_limits(bench, stack)
        bare = dict.fromkeys((limit.name for limit in limits), 0.0)
        for peer, session in sessions.items():  # the first run opens files and creates tables
            apps[peer].invoke({"messages": [turns[0].question]}, config_of(WARM_UP))
            session.delete_thread(WARM_UP)  # its pages are reused
        bench.workspace.begin()

        def run(peer: Peer, block: range) -> None:
            nonlocal written
            bench.progress(f"{name}: {peer.name}, turn {block[0] + 1:,}")
            app, config = apps[peer], config_of(THREAD)
            inputs = [{"messages": [turns[n].question]} for n in block]
            with bench.database(peer).recording():
                for values in inputs:
                    spent[peer] += timed(lambda values=values: app.invoke(values, config))  # type: ignore[misc]
            if count // 2 in block:
                middles[peer] = app.get_state(config).config
            if peer is bench.ours:
                rows = stored_rows(sessions[peer].saver.store, THREAD)[written:]
                written += len(rows)
                supersteps = by_superstep(rows, (1, 1))
                for limit in limits:
                    bare[limit.name] += timed(lambda li=limit: li.write(supersteps))  # type: ignore[misc]

        in_turns(bench.talking, count, run)
        require_same(name, {p: app.get_state(config_of(THREAD)).values for p, app in apps.items()})
    measure = "wall time per turn"
    wall = {peer: total / count for peer, total in spent.items()}
    bench.compare(name, measure, "ms", wall)
    for limit_name, total in bare.items():
        bench.figures.add(
            name,
            measure,
            "ms",
            wall[bench.ours],
            total / count,
            limit_name,
            gain=False,
            note="the whole invoke, loading the state included, against two inserts",
        )
    return middles


def _converse(bench: Bench, peer: Peer, thread_id: str, turns: Turns) -> None:
    with peer.session(bench.database(peer).target) as session:
        app = session.compile(chat_graph(peer, turns))
        for turn in turns:
            app.invoke({"messages": [turn.question]}, config_of(thread_id))


def _fresh(bench: Bench, stack: ExitStack, peer: Peer, turns: Turns) -> tuple[Any, Session]:
    """Open a store and read another thread: statements are compiled, the data is not cached."""
    session = stack.enter_context(peer.session(bench.database(peer).target))
    app = session.compile(chat_graph(peer, turns))
    app.get_state(config_of(WARM_UP))
    read_history(app, WARM_UP)
    gc.collect()
    return app, session


def _load(
    bench: Bench, name: str, measure: str, turns: Turns, configs: Mapping[Peer, Config]
) -> None:
    first: dict[Peer, list[float]] = {peer: [] for peer in configs}
    again: dict[Peer, list[float]] = {peer: [] for peer in configs}
    for _ in range(bench.scale.loads):
        states = {}
        for peer, config in configs.items():
            with ExitStack() as stack:
                app, _session = _fresh(bench, stack, peer, turns)
                started = time.perf_counter()
                states[peer] = app.get_state(config).values
                first[peer].append((time.perf_counter() - started) * 1e3)
                again[peer].append(timed(lambda a=app, c=config: a.get_state(c)))  # type: ignore[misc]
        require_same(measure, states)
    for which, times, note in (
        ("", first, "on a newly opened store that has read another thread"),
        (", again", again, "a second time, immediately"),
    ):
        middle = {peer: median(each) for peer, each in times.items()}
        bench.compare(name, measure + which, "ms", middle, gain=False, note=note)


def _history(bench: Bench, name: str, turns: Turns) -> None:
    compared = len(turns) <= HISTORY_TURNS_MAX
    times: dict[Peer, float] = {}
    results = {}
    for peer in bench.peers:
        if not (compared or peer.ours):
            continue
        with ExitStack() as stack:
            app, _ = _fresh(bench, stack, peer, turns)
            started = time.perf_counter()
            results[peer] = read_history(app, THREAD)
            times[peer] = (time.perf_counter() - started) * 1e3
    note = ", ".join(
        f"{states:,} checkpoints of {peer.name}" for peer, (states, _) in results.items()
    )
    bench.compare(name, "full history", "ms", times, note=note)
    if not compared or not bench.scale.memory:
        return
    memory = {peer: history_memory(peer, bench.database(peer).target) for peer in bench.both}
    for key, measure in (("traced", "Python's peak memory"), ("resident", "growth of peak RSS")):
        bench.compare(
            name,
            f"full history: {measure}",
            "MiB",
            {peer: found[key] for peer, found in memory.items()},
            note="in a process of its own",
        )


def history_memory(peer: Peer, target: str) -> dict[str, float]:
    """The peak memory of reading the whole history in a child process, in MiB."""
    command = [sys.executable, "-m", "benchmarks.measuring.memory", peer.key, target, THREAD]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"the memory of {peer.name} could not be measured:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _replay(bench: Bench, name: str, turns: Turns) -> None:
    with bench.ours.session(bench.database(bench.ours).target) as session:
        store = session.saver.store
        rows = stored_rows(store, THREAD)
        channels = session.compile(chat_graph(bench.ours, turns)).topology.channels
        bare = bare_decoder([row[-1] for row in rows])
        times: dict[str, list[float]] = {"bare": [], "read": [], "fold": []}
        for _ in range(bench.scale.loads):
            gc.collect()
            times["bare"].append(timed(bare))
            times["read"].append(timed(lambda: list(store.read(THREAD))))
            times["fold"].append(timed(lambda: fold(channels, None, store.read(THREAD))))
    per_event = {key: median(values) * 1e3 / len(rows) for key, values in times.items()}
    for key, measure in (
        ("read", "replay: read, verify, decode"),
        ("fold", "replay: read, verify, decode, fold"),
    ):
        against = "bare zstd + msgpack"
        ours, bare_one = per_event[key], per_event["bare"]
        bench.figures.add(name, measure, "us/event", ours, bare_one, against, gain=False)


def _forks(bench: Bench, name: str, turns: Turns, middles: Mapping[Peer, Config]) -> None:
    update = {"messages": [turns[0].question]}
    inside: dict[Peer, list[float]] = {peer: [] for peer in bench.both}
    across: dict[Peer, list[float]] = {peer: [] for peer in bench.both}
    with ExitStack() as stack:
        apps = {peer: _fresh(bench, stack, peer, turns) for peer in bench.both}
        for number in range(bench.scale.forks):
            for peer, (app, _) in apps.items():
                middle = middles[peer]
                inside[peer].append(
                    timed(lambda a=app, m=middle: a.update_state(m, update, as_node="chat"))  # type: ignore[misc]
                )
                branch = _into_new_thread(peer.ours, app, middle, f"branch-{number}", update)
                across[peer].append(timed(branch))
        branched = config_of("branch-0")
        states = {peer: app.get_state(branched).values for peer, (app, _) in apps.items()}
        require_same("a fork into a new thread", states)
        for _, session in apps.values():
            for number in range(bench.scale.forks):
                session.delete_thread(f"branch-{number}")
    for measure, times, note in (
        ("fork within the thread", inside, "update_state on a checkpoint half-way"),
        (
            "fork into a new thread",
            across,
            "LangGraph: reads the state and writes it to the new thread, without its history",
        ),
    ):
        middle_times = {peer: median(each) for peer, each in times.items()}
        bench.compare(name, measure, "ms", middle_times, note=note)


def _into_new_thread(
    by_reference: bool, app: Any, middle: Config, thread_id: str, update: dict[str, Any]
) -> Callable[[], Any]:
    if by_reference:
        place = {**middle["configurable"], "thread_id": thread_id}
        return lambda: app.update_state({"configurable": place}, update, as_node="chat")

    def copy() -> None:
        values = app.get_state(middle).values
        grown = {"messages": values["messages"] + update["messages"]}
        app.update_state(config_of(thread_id), grown, as_node="chat")

    return copy


def _delete(bench: Bench, name: str) -> None:
    times = {}
    for peer in bench.both:
        with peer.session(bench.database(peer).target) as session:
            session.delete_thread(WARM_UP)
            times[peer] = timed(lambda s=session: s.delete_thread(THREAD))  # type: ignore[misc]
    bench.compare(name, "delete the thread", "ms", times)
