"""Takes the measurements: every peer in the same run, in turns, and the limits right after.

Owns what a figure is (``Figure``) and how each is taken; prints nothing. Peers take turns in
small blocks whose order alternates, so that a slow moment of the machine meets both. Timed
code never includes making data, opening files or checking results. Reading is measured on a
store that has just been opened and has so far read only another thread: what a library does
once per process (compiling statements) is not counted, and no state can be kept from before.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

from benchmarks import peers, workloads
from benchmarks.peers import BareSqlite, OurSession, Peer, bare_decoder, by_superstep, size_of

THREAD: Final = "conversation"
WARM_UP: Final = "warm-up"
WARM_UP_TURNS: Final = 40
BLOCK: Final = 10
"""Turns, threads or runs of one peer before the next peer's."""

LOADS: Final = 15
FORKS: Final = 5
HISTORY_TURNS_MAX: Final = 200
"""Beyond this LangGraph's full history takes gigabytes of memory, so only ours is taken."""

Unit = Literal["ms", "KiB", "MiB", "us/event"]
Config = dict[str, Any]


@dataclass
class Figure:
    """One quantity of ours beside another's, a value per round.

    Attributes:
        workload: e.g. ``chat, 200 turns``.
        measure: what was measured.
        against: ``LangGraph``, or the name of a limit.
        aim: what the ratio should reach (``less``) or stay below; ``None`` where nothing was
            promised.
        less: whether the ratio says how much less ours is (other / ours), as beside LangGraph,
            or how much more (ours / other), as beside a limit.
        note: what a reader must know to judge it.
    """

    workload: str
    measure: str
    unit: Unit
    against: str
    aim: float | None = None
    less: bool = True
    note: str = ""
    ours: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """The ratio of each round."""
        pairs = zip(self.other, self.ours, strict=True) if self.other else ()
        return [(a / b) if self.less else (b / a) for a, b in pairs if a and b]

    def ratio(self) -> float | None:
        """The median ratio."""
        ratios = self.ratios()
        return median(ratios) if ratios else None

    def met(self) -> bool | None:
        """Whether the aim is met; ``None`` when there is none or it was not measured."""
        ratio = self.ratio()
        if self.aim is None or ratio is None:
            return None
        return ratio >= self.aim if self.less else ratio <= self.aim


class Figures:
    """All figures of a run, in the order in which they first appeared."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str, str], Figure] = {}

    def __iter__(self) -> Iterator[Figure]:
        return iter(self._figures.values())

    def add(
        self,
        workload: str,
        measure: str,
        unit: Unit,
        ours: float,
        other: float | None,
        against: str = "LangGraph",
        *,
        aim: float | None = None,
        less: bool = True,
        note: str = "",
    ) -> None:
        """One round's values of a figure."""
        figure = self._figures.setdefault(
            (workload, measure, against), Figure(workload, measure, unit, against, aim, less, note)
        )
        figure.ours.append(ours)
        if other is not None:
            figure.other.append(other)


@dataclass(frozen=True)
class Bench:
    """What every measurement needs.

    Attributes:
        folder: where files go; each measurement has its own folder in it.
        tell: says what is going on.
    """

    us: Peer
    them: Peer
    figures: Figures
    folder: Path
    tell: Callable[[str], None]

    @property
    def both(self) -> tuple[Peer, Peer]:
        """The peers."""
        return self.us, self.them


def config_of(thread_id: str) -> Config:
    """A fresh config: a peer may keep what it is given."""
    return {"configurable": {"thread_id": thread_id}, "recursion_limit": 1_000}


def in_turns(bench: Bench, count: int, run: Callable[[Peer, range], None]) -> None:
    """Give each peer a block of the work in turn, the order alternating."""
    size = min(BLOCK, max(1, count // BLOCK))
    for number, start in enumerate(range(0, count, size)):
        block = range(start, min(start + size, count))
        for peer in bench.both if number % 2 == 0 else bench.both[::-1]:
            gc.collect()
            run(peer, block)


def timed(run: Callable[[], Any]) -> float:
    """Milliseconds that a call takes."""
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1e3


def same(bench: Bench, what: str, ours: Any, theirs: Any) -> None:
    """Figures of unequal work mean nothing."""
    if ours != theirs:
        raise AssertionError(f"{what}: {bench.us.name} and {bench.them.name} do not agree")


# --- chat -----------------------------------------------------------------------------------

WALL_AIMS: Final = {200: 3, 1_000: 5}
DELETE_AIMS: Final = {200: 100, 1_000: 100}
BYTES_AIMS: Final = {200: 300, 1_000: 1_500}
LOAD_AIM: Final = 2
INSERT_AIM: Final = 2.5
REPLAY_AIM: Final = 2


def chat(bench: Bench, count: int) -> None:
    """A conversation: every turn is an ``invoke`` that loads the state and adds to it."""
    name = f"chat, {count:,} turns"
    folder = bench.folder / f"chat{count}"
    turns = workloads.chat_turns(count)
    middles = _chat_turns(bench, name, folder, turns)
    for peer in bench.both:
        _settle(peer, folder / peer.name)
    sizes = {peer: size_of(folder / peer.name) / 1024 for peer in bench.both}
    bench.figures.add(
        name,
        "bytes on disk per turn",
        "KiB",
        sizes[bench.us] / count,
        sizes[bench.them] / count,
        aim=BYTES_AIMS.get(count),
    )
    bench.tell(f"{name}: loading states")
    for peer in bench.both:
        _converse(peer, folder / peer.name, WARM_UP, turns[:WARM_UP_TURNS])
    latest = dict.fromkeys(bench.both, config_of(THREAD))
    note = "store just opened, another thread read before"
    aim = LOAD_AIM
    _load(bench, name, "load of the latest state", folder, turns, latest, aim, note)
    _load(bench, name, "load of a checkpoint half-way", folder, turns, middles, None, note)
    bench.tell(f"{name}: full history")
    _history(bench, name, folder, turns)
    bench.tell(f"{name}: replay")
    _replay(bench, name, folder / bench.us.name, turns)
    bench.tell(f"{name}: forks")
    _forks(bench, name, folder, turns, middles)
    bench.tell(f"{name}: deleting")
    _delete(bench, name, folder, DELETE_AIMS.get(count))


def _chat_turns(
    bench: Bench, name: str, folder: Path, turns: Sequence[workloads.Turn]
) -> dict[Peer, Config]:
    """Run the turns; returns each peer's config of the checkpoint half-way."""
    count = len(turns)
    spent = dict.fromkeys(bench.both, 0.0)
    middles: dict[Peer, Config] = {}
    bare, written = 0.0, 0
    with ExitStack() as stack:
        sessions = {p: stack.enter_context(p.session(folder / p.name)) for p in bench.both}
        apps = {
            p: workloads.chat_graph(p, turns).compile(checkpointer=s.saver)
            for p, s in sessions.items()
        }
        limit = BareSqlite(folder / "limit" / "bare.db")
        stack.callback(limit.close)

        for peer, session in sessions.items():  # the first run opens files and makes tables
            apps[peer].invoke({"messages": [turns[0].question]}, config_of(WARM_UP))
            session.delete_thread(WARM_UP)  # its pages are used again

        def run(peer: Peer, block: range) -> None:
            nonlocal bare, written
            bench.tell(f"{name}: {peer.name}, turn {block[0] + 1:,}")
            app, config = apps[peer], config_of(THREAD)
            inputs = [{"messages": [turns[n].question]} for n in block]
            for number, values in zip(block, inputs, strict=True):
                spent[peer] += timed(lambda values=values: app.invoke(values, config))  # type: ignore[misc]
                if number == count // 2:
                    middles[peer] = app.get_state(config).config
            if peer is bench.us:
                rows = _our_rows(sessions[peer], THREAD)[written:]
                written += len(rows)
                supersteps = by_superstep(rows, (1, 1))
                bare += timed(lambda: limit.write(supersteps))

        in_turns(bench, count, run)
        states = {p: apps[p].get_state(config_of(THREAD)).values for p in bench.both}
        same(bench, name, states[bench.us], states[bench.them])
    add = bench.figures.add
    ours, theirs = spent[bench.us] / count, spent[bench.them] / count
    add(name, "wall time per turn", "ms", ours, theirs, aim=WALL_AIMS.get(count))
    add(
        name,
        "wall time per turn",
        "ms",
        ours,
        bare / count,
        "bare sqlite3",
        less=False,
        note="the whole invoke, loading the state included, against two inserts",
    )
    return middles


def _our_rows(session: peers.Session, thread_id: str) -> list[peers.Row]:
    assert isinstance(session, OurSession)
    return session.rows(thread_id)


def _converse(peer: Peer, folder: Path, thread_id: str, turns: Sequence[workloads.Turn]) -> None:
    with peer.session(folder) as session:
        app = workloads.chat_graph(peer, turns).compile(checkpointer=session.saver)
        for turn in turns:
            app.invoke({"messages": [turn.question]}, config_of(thread_id))


def _settle(peer: Peer, folder: Path) -> None:
    with peer.session(folder) as session:
        session.settle()


def _fresh(
    stack: ExitStack, peer: Peer, folder: Path, turns: Sequence[workloads.Turn]
) -> tuple[Any, peers.Session]:
    """A store just opened, that has read another thread: it knows its statements, not the data."""
    session = stack.enter_context(peer.session(folder / peer.name))
    app = workloads.chat_graph(peer, turns).compile(checkpointer=session.saver)
    app.get_state(config_of(WARM_UP))
    touch_history(app, WARM_UP)
    gc.collect()
    return app, session


def _load(
    bench: Bench,
    name: str,
    measure: str,
    folder: Path,
    turns: Sequence[workloads.Turn],
    configs: dict[Peer, Config],
    aim: float | None,
    note: str,
) -> None:
    first: dict[Peer, list[float]] = {peer: [] for peer in bench.both}
    again: dict[Peer, list[float]] = {peer: [] for peer in bench.both}
    for _ in range(LOADS):
        states = {}
        for peer in bench.both:
            with ExitStack() as stack:
                app, _session = _fresh(stack, peer, folder, turns)
                started = time.perf_counter()
                states[peer] = app.get_state(configs[peer]).values
                first[peer].append((time.perf_counter() - started) * 1e3)
                again[peer].append(timed(lambda a=app, p=peer: a.get_state(configs[p])))  # type: ignore[misc]
        same(bench, measure, states[bench.us], states[bench.them])
    for which, times, said in (("", first, note), (", again", again, "at once a second time")):
        ours, theirs = median(times[bench.us]), median(times[bench.them])
        measured = f"{measure}{which}"
        bench.figures.add(name, measured, "ms", ours, theirs, aim=aim, less=False, note=said)


def touch_history(app: Any, thread_id: str) -> tuple[int, int]:
    """The whole history in memory, each state looked at; how many states and messages."""
    history = list(app.get_state_history(config_of(thread_id)))
    return len(history), sum(len(state.values.get("messages", ())) for state in history)


def _history(bench: Bench, name: str, folder: Path, turns: Sequence[workloads.Turn]) -> None:
    count = len(turns)
    both = bench.both if count <= HISTORY_TURNS_MAX else (bench.us,)
    times: dict[Peer, float] = {}
    seen = {}
    for peer in both:
        with ExitStack() as stack:
            app, _ = _fresh(stack, peer, folder, turns)
            started = time.perf_counter()
            seen[peer] = touch_history(app, THREAD)
            times[peer] = (time.perf_counter() - started) * 1e3
    aimed = count == 200
    note = ", ".join(f"{seen[peer][0]:,} checkpoints of {peer.name}" for peer in both)
    bench.figures.add(
        name,
        "full history",
        "ms",
        times[bench.us],
        times.get(bench.them),
        aim=50 if aimed else None,
        note=note,
    )
    if count > HISTORY_TURNS_MAX:
        return
    memory = {peer: history_memory(peer, folder) for peer in both}
    for key, measure in (("traced", "Python's peak memory"), ("resident", "growth of peak RSS")):
        bench.figures.add(
            name,
            f"full history: {measure}",
            "MiB",
            memory[bench.us][key],
            memory[bench.them][key],
            aim=5 if aimed else None,
            note="in a process of its own",
        )


def history_memory(peer: Peer, folder: Path) -> dict[str, float]:
    """Peak memory of reading the whole history, measured in a child process, in MiB."""
    place = str(folder / peer.name)
    command = [sys.executable, "-m", "benchmarks.memory", peer.key, place, THREAD]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {peer.name} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _replay(bench: Bench, name: str, folder: Path, turns: Sequence[workloads.Turn]) -> None:
    from graph.fold import fold

    with bench.us.session(folder) as session:
        store = session.saver.store
        rows = _our_rows(session, THREAD)
        app = workloads.chat_graph(bench.us, turns).compile(checkpointer=session.saver)
        channels = app.topology.channels
        bare = bare_decoder([row[-1] for row in rows])
        times: dict[str, list[float]] = {"bare": [], "read": [], "fold": []}
        for _ in range(LOADS):
            gc.collect()
            times["bare"].append(timed(bare))
            times["read"].append(timed(lambda: list(store.read(THREAD))))
            times["fold"].append(timed(lambda: fold(channels, None, store.read(THREAD))))
    per_event = {key: median(values) * 1e3 / len(rows) for key, values in times.items()}
    for key, measure, aim in (
        ("read", "replay: read, verify, decode", None),
        ("fold", "replay: read, verify, decode, fold", REPLAY_AIM),
    ):
        bench.figures.add(
            name,
            measure,
            "us/event",
            per_event[key],
            per_event["bare"],
            "bare zstd + msgpack",
            aim=aim,
            less=False,
        )


def _forks(
    bench: Bench,
    name: str,
    folder: Path,
    turns: Sequence[workloads.Turn],
    middles: dict[Peer, Config],
) -> None:
    update = {"messages": [turns[0].question]}
    inside: dict[Peer, list[float]] = {peer: [] for peer in bench.both}
    across: dict[Peer, list[float]] = {peer: [] for peer in bench.both}
    with ExitStack() as stack:
        apps = {peer: _fresh(stack, peer, folder, turns) for peer in bench.both}
        for number in range(FORKS):
            for peer, (app, _) in apps.items():
                middle = middles[peer]
                inside[peer].append(
                    timed(lambda a=app, m=middle: a.update_state(m, update, as_node="chat"))  # type: ignore[misc]
                )
                branch = _into_new_thread(peer is bench.us, app, middle, f"branch-{number}", update)
                across[peer].append(timed(branch))
        states = {
            peer: app.get_state(config_of("branch-0")).values for peer, (app, _) in apps.items()
        }
        same(bench, "a fork into a new thread", states[bench.us], states[bench.them])
        for _, session in apps.values():
            for number in range(FORKS):
                session.delete_thread(f"branch-{number}")
    for measure, times, note in (
        ("fork within the thread", inside, "update_state on a checkpoint half-way"),
        (
            "fork into a new thread",
            across,
            "LangGraph: read the state, write it to the new thread; the history stays behind",
        ),
    ):
        ours, theirs = median(times[bench.us]), median(times[bench.them])
        bench.figures.add(name, measure, "ms", ours, theirs, note=note)


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


def _delete(bench: Bench, name: str, folder: Path, aim: float | None) -> None:
    times = {}
    for peer in bench.both:
        with peer.session(folder / peer.name) as session:
            session.delete_thread(WARM_UP)
            times[peer] = timed(lambda s=session: s.delete_thread(THREAD))  # type: ignore[misc]
    bench.figures.add(name, "delete the thread", "ms", times[bench.us], times[bench.them], aim=aim)


# --- the other workloads --------------------------------------------------------------------


def _runs(
    bench: Bench,
    name: str,
    graph: Callable[[Peer], Any],
    inputs: Sequence[dict[str, Any]],
    supersteps: Sequence[int],
    *,
    per: int,
    unit_name: str,
    wall: float,
    size: float | None,
) -> None:
    """One run on each of many threads.

    Args:
        supersteps: events in each transaction of one run of ours, the input's first.
        per: what a run is divided by for the figures.
        unit_name: what that is called.
    """
    folder = bench.folder / name.split(",")[0].replace(" ", "-")
    spent: dict[Peer, list[float]] = {peer: [] for peer in bench.both}
    bare: list[float] = []
    with ExitStack() as stack:
        sessions = {p: stack.enter_context(p.session(folder / p.name)) for p in bench.both}
        apps = {p: graph(p).compile(checkpointer=s.saver) for p, s in sessions.items()}
        limit = BareSqlite(folder / "limit" / "bare.db")
        stack.callback(limit.close)
        for peer, session in sessions.items():  # the first run opens files and makes tables
            apps[peer].invoke(inputs[0], config_of(WARM_UP))
            session.delete_thread(WARM_UP)  # its pages are used again

        def run(peer: Peer, block: range) -> None:
            bench.tell(f"{name}: {peer.name}, run {block[0] + 1:,}")
            app = apps[peer]
            for number in block:
                config, values = config_of(f"run-{number}"), inputs[number]
                spent[peer].append(timed(lambda c=config, v=values: app.invoke(v, c)))  # type: ignore[misc]
            if peer is bench.us:
                for number in block:
                    rows = _our_rows(sessions[peer], f"run-{number}")
                    groups = by_superstep(rows, supersteps)
                    bare.append(timed(lambda g=groups: limit.write(g)))  # type: ignore[misc]

        in_turns(bench, len(inputs), run)
        last = config_of(f"run-{len(inputs) - 1}")
        states = {peer: apps[peer].get_state(last).values for peer in bench.both}
        same(bench, name, states[bench.us], states[bench.them])
        for session in sessions.values():
            session.settle()
        sizes = {peer: size_of(folder / peer.name) / 1024 for peer in bench.both}
    add = bench.figures.add
    ours, theirs = median(spent[bench.us]) / per, median(spent[bench.them]) / per
    measure = f"wall time per {unit_name}"
    add(name, measure, "ms", ours, theirs, aim=wall)
    add(name, measure, "ms", ours, median(bare) / per, "bare sqlite3", aim=INSERT_AIM, less=False)
    add(
        name,
        f"bytes on disk per {unit_name}",
        "KiB",
        sizes[bench.us] / len(inputs) / per,
        sizes[bench.them] / len(inputs) / per,
        aim=size,
    )


def pipeline(bench: Bench) -> None:
    """Three nodes, one after the other, once on each of many threads."""
    _runs(
        bench,
        f"pipeline, {workloads.PIPELINE_THREADS} threads",
        workloads.pipeline_graph,
        workloads.pipeline_inputs(),
        (1,) * (1 + workloads.PIPELINE_SUPERSTEPS),
        per=workloads.PIPELINE_SUPERSTEPS,
        unit_name="superstep",
        wall=4,
        size=6,
    )


def document(bench: Bench) -> None:
    """Runs of many supersteps, each of which edits one paragraph of a large document."""
    doc = workloads.document()
    _runs(
        bench,
        f"document, {workloads.DOCUMENT_STEPS} steps",
        lambda peer: workloads.document_graph(peer, doc),
        [{"paragraphs": doc.paragraphs, "revision": 0}] * workloads.DOCUMENT_RUNS,
        (1,) * (1 + workloads.DOCUMENT_STEPS),
        per=workloads.DOCUMENT_STEPS,
        unit_name="step",
        wall=5,
        size=50,
    )


def fanout(bench: Bench) -> None:
    """Many nodes side by side in one superstep, then the end."""
    findings = workloads.fanout_findings()
    topics = workloads.pipeline_inputs(workloads.FANOUT_RUNS)
    _runs(
        bench,
        f"fan-out of {workloads.FANOUT_WIDTH}",
        lambda peer: workloads.fanout_graph(peer, findings),
        [{"topic": topic["text"], "findings": []} for topic in topics],
        (1, workloads.FANOUT_WIDTH),
        per=1,
        unit_name="run",
        wall=5,
        size=None,
    )


# --- the log alone --------------------------------------------------------------------------


def appends(bench: Bench, count: int = 200) -> None:
    """``EventStore.append`` of one event beside a bare insert of the same row."""
    from eventstore import Event, EventStore

    name = "log alone"
    bench.tell(f"{name}: appending")
    turns = workloads.chat_turns(count)
    (bench.folder / "log").mkdir(parents=True, exist_ok=True)
    limit = BareSqlite(bench.folder / "log" / "bare.db")
    ours, bare = [], []
    with EventStore(bench.folder / "log" / "log.db") as store:
        store.append("warm-up", [Event(1, {})], expected_seq=0)
        for seq, turn in enumerate(turns):
            event = Event(1, {"step": seq, "writes": {"messages": [turn.answer]}})
            ours.append(
                timed(lambda s=seq, e=event: store.append(THREAD, [e], expected_seq=s))  # type: ignore[misc]
            )
            row = _last_row(store)
            bare.append(timed(lambda r=row: limit.write([[r]])))  # type: ignore[misc]
    limit.close()
    bench.figures.add(
        name,
        "append of one event",
        "ms",
        median(ours),
        median(bare),
        "bare sqlite3",
        aim=INSERT_AIM,
        less=False,
        note="reading the log's end first, as a caller does who names only a seq",
    )


def _last_row(store: Any) -> peers.Row:
    from sqlalchemy import select

    from eventstore.schema import events

    key = store.thread(THREAD).thread_key
    statement = select(events).where(events.c.thread_key == key)
    with store.engine.connect() as conn:
        row = conn.execute(statement.order_by(events.c.seq.desc()).limit(1)).one()
    return tuple(row)
