"""`kill -9` at random moments: what was acknowledged is durable (rule 1)."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests import processes
from tests.effort import effort
from tests.eventstore import torture

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here"),
    pytest.mark.slow,
]


def test_many_kills(tmp_path: Path) -> None:
    kills = int(os.environ.get("TORTURE_KILLS", effort("50", "200")))
    summary = torture.torture(tmp_path, kills, seed=int(os.environ.get("TORTURE_SEED", "1")))
    assert summary.kills == summary.checked == kills
    assert summary.acknowledged > kills


def test_two_processes_write_and_checkpoint_one_file(tmp_path: Path) -> None:
    """The WAL-reset bug would lose acknowledged events here."""
    seconds = float(os.environ.get("TORTURE_SECONDS", effort("3", "8")))
    written, checkpoints = torture.checkpointing(tmp_path / "shared.db", seconds)
    assert written > 50
    assert checkpoints > 10


def test_the_long_script_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.eventstore.torture", "--kills", "3"]
    done = processes.run(
        [*command, "--two-writers", "0", "--folder", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills" in done.stdout
    assert list(tmp_path.iterdir()) == []
