"""Sweepers killed at random moments beside live writers lose nothing and leave nothing behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests import processes
from tests.effort import effort
from tests.retention import torture

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here"),
    pytest.mark.slow,
]


def test_a_sweeper_killed_at_random_leaves_nothing_torn(store_url: str, tmp_path: Path) -> None:
    if store_url == "sqlite://":
        pytest.skip("a process that dies takes a database in memory with it")
    kills = int(os.environ.get("TORTURE_KILLS", effort("4", "8")))
    with torture.template() as process:
        seed = int(os.environ.get("TORTURE_SEED", "1"))
        (tmp_path / "archive").mkdir()  # nothing may be archived before the first look at it
        archive = f"file://{tmp_path / 'archive'}"
        summary = torture.torture(store_url, archive, kills, seed, process)
    assert summary.kills == kills
    assert summary.pruned and summary.revived and summary.forked


def test_the_long_script_runs() -> None:
    done = processes.run(
        [sys.executable, "-m", "tests.retention.torture", "--kills", "2"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills" in done.stdout
