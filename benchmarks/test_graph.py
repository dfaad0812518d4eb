"""The graph on the log: running, replay, loading, history; beside LangGraph where that is fair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import LogOf, in_rounds
from benchmarks.measuring.timing import THREAD, config_of, read_history
from benchmarks.peers.limits import BareSqlite, by_superstep
from benchmarks.peers.ours import stored_rows
from benchmarks.peers.peer import Peer
from benchmarks.workloads.pipeline import PIPELINE_SUPERSTEPS, pipeline_graph, pipeline_inputs
from graph.state.fold import fold

RUNS = 60


def _pipeline(benchmark: BenchmarkFixture, peer: Peer, folder: Path) -> Any:
    """Time pipeline runs, each on its own thread; returns the last state."""
    inputs = pipeline_inputs(RUNS + 5)
    with peer.session(str(folder / "state.db")) as session:
        app = session.compile(pipeline_graph(peer))
        numbers = iter(range(len(inputs)))

        def run() -> Any:
            number = next(numbers)
            return app.invoke(inputs[number], config_of(f"run-{number}"))

        return in_rounds(benchmark, run, rounds=RUNS, warmup_rounds=5)


@pytest.mark.benchmark(group="a pipeline of three nodes, durably")
def test_pipeline(benchmark: BenchmarkFixture, ours: Peer, tmp_path: Path) -> None:
    assert _pipeline(benchmark, ours, tmp_path)["summary"]


@pytest.mark.benchmark(group="a pipeline of three nodes, durably")
def test_pipeline_langgraph(benchmark: BenchmarkFixture, theirs: Peer, tmp_path: Path) -> None:
    assert _pipeline(benchmark, theirs, tmp_path)["summary"]


@pytest.mark.benchmark(group="a pipeline of three nodes, durably")
def test_pipeline_bare_sqlite3(benchmark: BenchmarkFixture, ours: Peer, tmp_path: Path) -> None:
    inputs = pipeline_inputs(RUNS + 5)
    supersteps = (1,) * (1 + PIPELINE_SUPERSTEPS)
    with ours.session(str(tmp_path / "source.db")) as session:
        app = session.compile(pipeline_graph(ours))
        runs = []
        for number, values in enumerate(inputs):
            app.invoke(values, config_of(f"run-{number}"))
            rows = stored_rows(session.saver.store, f"run-{number}")
            runs.append(by_superstep(rows, supersteps))
    limit = BareSqlite(str(tmp_path / "bare.db"))
    groups = iter(runs)
    in_rounds(benchmark, lambda: limit.write(next(groups)), rounds=RUNS, warmup_rounds=5)
    limit.close()


@pytest.mark.parametrize("count", [200, 1_000])
def test_replay_to_state(benchmark: BenchmarkFixture, log_of: LogOf, count: int) -> None:
    """Fold the whole log from its first event, without a snapshot."""
    session, app = log_of(count)
    store, channels = session.saver.store, app.topology.channels
    benchmark.group = f"the state after {count:,} turns"
    state = in_rounds(benchmark, lambda: fold(channels, None, store.read(THREAD)), rounds=10)
    assert len(state.values["messages"]) == 2 * count


@pytest.mark.parametrize("count", [200, 1_000])
def test_load_latest(benchmark: BenchmarkFixture, log_of: LogOf, count: int) -> None:
    """Load the state from the nearest snapshot."""
    _, app = log_of(count)
    benchmark.group = f"the state after {count:,} turns"
    state = in_rounds(benchmark, lambda: app.get_state(config_of(THREAD)), rounds=10)
    assert len(state.values["messages"]) == 2 * count


@pytest.mark.benchmark(group="full history of 200 turns")
def test_history(benchmark: BenchmarkFixture, log_of: LogOf) -> None:
    _, app = log_of(200)
    checkpoints, _ = in_rounds(benchmark, lambda: read_history(app, THREAD), rounds=5)
    assert checkpoints >= 2 * 200


@pytest.mark.benchmark(group="full history of 200 turns")
def test_history_first_page(benchmark: BenchmarkFixture, log_of: LogOf) -> None:
    _, app = log_of(200)
    page = in_rounds(
        benchmark,
        lambda: list(app.get_state_history(config_of(THREAD), limit=10)),
        rounds=10,
    )
    assert len(page) == 10
