"""The benchmarks measure what they say, on SQLite and on PostgreSQL, at a very small scale."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks import at_once, explorer, profile, saver
from benchmarks.backends.backend import Backend
from benchmarks.backends.postgres import PostgresBackend, postgres_backends
from benchmarks.backends.sqlite import SqliteBackend
from benchmarks.measuring.bench import Bench, Scale
from benchmarks.measuring.conversation import chat
from benchmarks.measuring.log import appends
from benchmarks.measuring.runs import document, fanout, pipeline
from benchmarks.reporting.aims import find_aim
from benchmarks.reporting.data import as_data
from benchmarks.reporting.figures import Figure, Figures
from benchmarks.reporting.page import BEGIN, END, put_into
from benchmarks.reporting.table import table
from tests.effort import THOROUGH, effort
from tests.postgres import NoServer

pytestmark = pytest.mark.slow

TURNS: Final = 4
TINY: Final = Scale(
    warm_up_turns=2, loads=1, forks=1, memory=False,
    threads=2, documents=1, steps=2, fanouts=1, appends=2,
)  # fmt: skip


def measured(
    backend: Backend, *jobs: Callable[[Bench], None]
) -> dict[tuple[str, str, str], Figure]:
    """Measure the chat and these jobs once; raises when the peers' final states differ."""
    figures = Figures(backend.key)
    for job in (lambda bench: chat(bench, TURNS), *jobs):
        with backend.workspace() as workspace:
            job(Bench(backend, workspace, figures, lambda _: None, TINY))
    for figure in figures:
        assert figure.ours[0] > 0, figure
        assert figure.other and figure.other[0] > 0, figure
    return {(figure.workload, figure.measure, figure.against): figure for figure in figures}


def reported(figures: list[Figure], key: str, page: Path) -> list[str]:
    """Make every report; returns the lines of the page."""
    facts: dict[str, Any] = {"rounds": "1"}
    assert json.loads(json.dumps(as_data(figures, facts)))["environment"] == facts
    assert table(figures, "LangGraph").row_count > len(figures)
    page.write_text(f"# Page\n\n{BEGIN.format(key)}\nold\n{END}\n\nbehind\n")
    put_into(page, key, figures, facts)
    return page.read_text().splitlines()


def test_on_sqlite(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    found = measured(
        SqliteBackend(tmp_path / "files"),
        *effort((pipeline, appends), (pipeline, document, fanout, appends)),
    )
    assert ("chat, 4 turns", "full history", "LangGraph") in found
    assert found["pipeline, 2 threads", "wall time per superstep", "bare sqlite3"].aim == 2.5
    assert found["chat, 4 turns", "wall time per turn, async", "this library"].aim == 2
    lines = reported(list(found.values()), "sqlite", tmp_path / "page.md")
    assert lines[:3] == ["# Page", "", "<!-- results: sqlite -->"]
    assert "old" not in lines and lines[-1] == "behind"
    assert sum(line.startswith("| chat, 4 turns |") for line in lines) == sum(
        workload == "chat, 4 turns" for workload, _, _ in found
    )


def test_our_saver_beside_those_of_langgraph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    small = ["--turns", "3", "--text-steps", "2", "--rounds", "1", "--json", str(results)]
    saver.main([*small, "--dir", str(tmp_path)])
    assert "DeltaChannel" in capsys.readouterr().out
    found = {
        (each["workload"], each["measure"], each["against"]): each["ours"] + each["other"]
        for each in json.loads(results.read_text())["figures"]
    }
    for workload in ("chat, 3 turns, recorded calls", "chat, 3 turns, runtime"):
        for against in ("LangGraph", "LangGraph, DeltaChannel"):
            assert all(value > 0 for value in found[workload, "bytes on disk per turn", against])
            assert all(value > 0 for value in found[workload, "full history", against])
    assert ("chat, 3 turns, runtime", "wall time per turn", "LangGraph, in memory") in found
    text = "text of 200 KB, 2 steps, recorded calls", "bytes on disk per step", "LangGraph"
    assert found[text][0] < found[text][1] / 20


@contextmanager
def postgres(network_ms: float | None = None) -> Iterator[list[PostgresBackend]]:
    """A small server with PostgreSQL's default compression."""
    with ExitStack() as stack:
        try:
            chosen = stack.enter_context(
                postgres_backends(["pglz"], durable=False, network_ms=network_ms)
            )
        except NoServer as error:
            if os.environ.get("CI"):  # in CI, a skipped test must not look like a tested one
                pytest.fail(str(error))
            pytest.skip(str(error))
        yield chosen


@pytest.mark.skipif(not THOROUGH, reason="takes a minute; the same code runs on SQLite")
def test_on_postgresql(tmp_path: Path) -> None:
    with postgres() as (backend,):
        assert backend.facts()["synchronous_commit"] == "on"
        found = measured(backend, fanout)
    chat_of = "chat, 4 turns, pglz"
    assert ("fan-out of 20, pglz", "wall time per run", "bare psycopg") in found
    assert (
        find_aim("postgres", "pipeline, 200 threads, lz4", "wall time per superstep", "LangGraph")
        == 5
    )
    assert (chat_of, "wall time per turn, async", "LangGraph, async") in found
    assert (chat_of, "wall time per turn, caller's pool", "LangGraph") in found
    assert (chat_of, "wall time per turn", "bare SQLAlchemy Core") in found
    # Every turn is durable: at least its events are in the log, and it was waited for.
    assert found[chat_of, "bytes of WAL per turn", "LangGraph"].ours[0] > 0.5
    assert found[chat_of, "round trips per turn", "LangGraph"].ours[0] >= 2
    commits = found.get((chat_of, "commits per turn", "LangGraph"))  # not every server can tell
    assert commits is None or commits.ours[0] >= 2
    lines = reported(list(found.values()), "postgres", tmp_path / "page.md")
    assert any(line.startswith(f"| {chat_of} | bytes of WAL per turn |") for line in lines)


def test_runs_at_once_are_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    few = ["--runs", "4", "--at-once", "2", "--rounds", "1", "--dir", str(tmp_path)]
    assert at_once.main([*few, "--peers", "ours", "ours-async", "--json", str(figures)]) == 0
    rows = json.loads(figures.read_text())["rows"]
    assert [row["peer"] for row in rows] == ["ours", "ours-async"]
    assert all(row["supersteps_per_s"][0] > 0 for row in rows)


@pytest.mark.skipif(not THOROUGH, reason="starts PostgreSQL, LangGraph and DBOS")
def test_runs_at_once_are_measured_on_postgresql() -> None:
    few = ["--runs", "4", "--at-once", "2", "--rounds", "1", "--sync-ms", "0.5"]
    assert at_once.main(["--backend", "postgres", *few, "--network-ms", "0.1"]) == 0


def test_time_is_told_by_layer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("TURNS", 3), ("RUNS", 2), ("ROUNDS", 1), ("APPENDS", 3)):
        monkeypatch.setattr(profile, name, value)
    assert profile.main([]) == 0
    assert profile.main(["--async", "--only", "append"]) == 0
    assert "SQLAlchemy" in capsys.readouterr().out


def test_pages_of_the_explorer_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(explorer, "WRITES_S", 0.3)
    monkeypatch.setattr(explorer, "SLOWER", 1e9)
    small = ["--threads", "5", "--checkpoints", "5", "--rounds", "1"]
    assert explorer.main(small) == 0
    assert "blame" in capsys.readouterr().out
