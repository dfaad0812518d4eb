"""Programs of the kind that people write for LangGraph see the same with both libraries.

Each runs here in memory, and on a database in a file.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

import pytest

from graph import SqliteSaver
from tests.graph.compat.both import assert_same
from tests.graph.compat.programs import PROGRAMS

for _module in (
    *("graphs", "nested", "people", "states", "travel"),
    *("agents", "asking", "corners", "flows", "looking", "memory", "more", "streams", "values"),
):
    importlib.import_module(f"tests.graph.compat.programs.{_module}")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_both_see_the_same(name: str) -> None:
    assert_same(PROGRAMS[name])


STATEFUL: Final = sorted(
    name
    for name, each in PROGRAMS.items()
    if each.__module__.rpartition(".")[2] in ("people", "travel", "asking", "looking")
)


@pytest.mark.slow
@pytest.mark.parametrize("name", STATEFUL)
def test_a_file_shows_the_same(name: str, tmp_path: Path) -> None:
    paths = iter(range(100))

    def saver() -> Any:
        return SqliteSaver(str(tmp_path / f"{next(paths)}.db"))

    assert_same(PROGRAMS[name], saver)
