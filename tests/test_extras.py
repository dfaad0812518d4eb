"""Every extra has a job in extras.py, and the jobs are done where all extras are installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.extras import FOR_DEVELOPERS, JOBS

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).resolve().parents[1]


def test_every_extra_has_a_job() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"]) == FOR_DEVELOPERS | set(JOBS) - {"none"}
    sessions = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert [job for job in JOBS if f'"{job}"' not in sessions] == []


def test_the_jobs_are_done() -> None:
    code = "from tests.extras import JOBS\nfor job in JOBS.values(): job()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
