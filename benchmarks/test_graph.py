"""The graph on the log: a superstep, replay, loading, history; beside LangGraph where fair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import workloads
from benchmarks.conftest import LogOf, in_rounds
from benchmarks.limits import BareSqlite, by_superstep
from benchmarks.measure import THREAD, config_of, touch_history
from benchmarks.peers import Peer, rows_of
from graph.fold import fold

RUNS = 60


def _pipeline(benchmark: BenchmarkFixture, peer: Peer, folder: Path) -> Any:
    """Time pipeline runs, each on a thread of its own; returns the last state."""
    inputs = workloads.pipeline_inputs(RUNS + 5)
    with peer.session(str(folder / "state.db")) as session:
        app = session.compile(workloads.pipeline_graph(peer))
        numbers = iter(range(len(inputs)))

        def run() -> Any:
            number = next(numbers)
            return app.invoke(inputs[number], config_of(f"run-{number}"))

        return in_rounds(benchmark, run, rounds=RUNS, warmup_rounds=5)


@pytest.mark.benchmark(group="a pipeline of three nodes, durably")
def test_pipeline(benchmark: BenchmarkFixture, us: Peer, tmp_path: Path) -> None:
    assert _pipeline(benchmark, us, tmp_path)["summary"]


@pytest.mark.benchmark(group="a pipeline of three nodes, durably")
def test_pipeline_langgraph(benchmark: BenchmarkFixture, them: Peer, tmp_path: Path) -> None:
    assert _pipeline(benchmark, them, tmp_path)["summary"]


@pytest.mark.benchmark(group="a pipeline of three nodes, durably")
def test_pipeline_bare_sqlite3(benchmark: BenchmarkFixture, us: Peer, tmp_path: Path) -> None:
    inputs = workloads.pipeline_inputs(RUNS + 5)
    supersteps = (1,) * (1 + workloads.PIPELINE_SUPERSTEPS)
    with us.session(str(tmp_path / "source.db")) as session:
        app = session.compile(workloads.pipeline_graph(us))
        runs = []
        for number, values in enumerate(inputs):
            app.invoke(values, config_of(f"run-{number}"))
            rows = rows_of(session, f"run-{number}")
            runs.append(by_superstep(rows, supersteps))
    limit = BareSqlite(str(tmp_path / "bare.db"))
    groups = iter(runs)
    in_rounds(benchmark, lambda: limit.write(next(groups)), rounds=RUNS, warmup_rounds=5)
    limit.close()


@pytest.mark.parametrize("count", [200, 1_000])
def test_replay_to_state(benchmark: BenchmarkFixture, log_of: LogOf, count: int) -> None:
    """Fold the whole log from its first event on, using no snapshot."""
    session, app = log_of(count)
    store, channels = session.saver.store, app.topology.channels
    benchmark.group = f"the state after {count:,} turns"
    state = in_rounds(benchmark, lambda: fold(channels, None, store.read(THREAD)), rounds=10)
    assert len(state.values["messages"]) == 2 * count


@pytest.mark.parametrize("count", [200, 1_000])
def test_load_latest(benchmark: BenchmarkFixture, log_of: LogOf, count: int) -> None:
    """From the nearest snapshot on."""
    _, app = log_of(count)
    benchmark.group = f"the state after {count:,} turns"
    state = in_rounds(benchmark, lambda: app.get_state(config_of(THREAD)), rounds=10)
    assert len(state.values["messages"]) == 2 * count


@pytest.mark.benchmark(group="full history of 200 turns")
def test_history(benchmark: BenchmarkFixture, log_of: LogOf) -> None:
    _, app = log_of(200)
    checkpoints, _ = in_rounds(benchmark, lambda: touch_history(app, THREAD), rounds=5)
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
