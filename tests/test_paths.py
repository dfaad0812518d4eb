"""The paths from a call to its SQL statement stay short: `make paths` prints them.

`BOUNDS` holds the frames and modules of today (the aim is 12 frames over 10 modules on the sync
paths, the last of them the function that calls the driver), and rounded limits for the calls and
touched modules of a whole operation.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from benchmarks import paths
from benchmarks.paths import Frame, PathToStatement

ROOT: Final = Path(__file__).resolve().parents[1]

BOUNDS: Final[dict[str, dict[str, int]]] = {
    "invoke": {"frames": 12, "modules": 9, "calls": 90, "touched": 30},
    "get_state": {"frames": 12, "modules": 10, "calls": 170, "touched": 38},
    "ainvoke": {"frames": 13, "modules": 10, "calls": 95, "touched": 33},
    "aget_state": {"frames": 12, "modules": 10, "calls": 175, "touched": 38},
}


@pytest.fixture(scope="module")
def measured() -> dict[str, PathToStatement]:
    """The paths in a process of their own: in this one LangChain or a provider of spans may be."""
    command = [sys.executable, "-m", "benchmarks.paths", "--json"]
    rows = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    return {
        row["call"]: PathToStatement(
            row["call"],
            row["statement"],
            tuple(Frame(**frame) for frame in row["stack"]),
            row["calls"],
            tuple(row["touched"]),
        )
        for row in rows
    }


@pytest.mark.slow
@pytest.mark.parametrize("call", BOUNDS)
def test_a_path_is_no_longer_than_it_was(measured: dict[str, PathToStatement], call: str) -> None:
    path = measured[call]
    counts = {
        "frames": path.frames,
        "modules": path.modules,
        "calls": path.calls,
        "touched": len(path.touched),
    }
    longer = {name: count for name, count in counts.items() if count > BOUNDS[call][name]}
    assert not longer, f"{call} exceeds {BOUNDS[call]}:\n{paths.as_text([path])}"


def test_a_path_goes_from_the_call_to_the_statement(measured: dict[str, PathToStatement]) -> None:
    assert set(measured) == set(BOUNDS)
    for call, path in measured.items():
        assert path.stack[0].function == f"CompiledGraph.{call}"
        assert path.stack[-1].module.startswith("eventstore.")
    # Sync and async calls share the implementation, down to the statement.
    for call in ("invoke", "get_state"):
        assert measured[call].stack[-4:] == measured[f"a{call}"].stack[-4:]


def test_the_paths_are_printed(measured: dict[str, PathToStatement]) -> None:
    found = list(measured.values())
    text = paths.as_text(found).splitlines()
    assert text[0].split() == ["frames", "modules", "calls", "touched"]
    assert len(text) == 1 + len(found) + sum(2 + path.frames for path in found)
    rows = json.loads(paths.as_json(found))
    assert [row["call"] for row in rows] == list(measured)
    assert all(len(row["stack"]) == row["frames"] for row in rows)
