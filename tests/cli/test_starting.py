"""The command starts at once: it imports what a command needs, when it needs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main

from eventstore.cli import exits
from eventstore.cli.commands import COMMANDS, app
from tests.cli.support import run


def test_help_imports_neither_the_database_nor_the_runtime() -> None:
    program = (
        "import sys\n"
        "from eventstore.cli import main\n"
        "code = main(['--help'])\n"
        "heavy = ('sqlalchemy', 'graph', 'retention', 'langchain_core', 'msgpack')\n"
        "print(code, [name for name in heavy if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == "0 []\n"
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.slow
def test_listing_threads_imports_no_runtime() -> None:
    program = (
        "import sys\n"
        "import eventstore.cli.threads\n"
        "heavy = ('graph.app', 'retention', 'apscheduler', 'langchain_core', 'langgraph')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.slow
def test_every_command_is_where_the_list_says() -> None:
    group = typer.main.get_command(app)
    context = typer.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)  # type: ignore[attr-defined]
        assert command is not None and command.name == name
        shown = run(*name.split(), "--help")
        assert shown.code == exits.OK
        order = re.search("(oldest|newest) first", COMMANDS[name][1])
        assert order is None or order[0] in " ".join(shown.out.split())


def test_a_file_that_hides_the_package_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "graph.py").write_text("")
    command = [sys.executable, "-m", "eventstore", "threads"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == exits.USAGE
    assert f"the file {tmp_path / 'graph.py'} hides the package graph" in done.stderr


def test_it_tells_its_version() -> None:
    done = run("--version")
    assert (done.code, done.out) == (exits.OK, f"graph-eventstore {version('graph-eventstore')}\n")


def test_shells_complete_commands() -> None:
    environment = {
        "_EVENTSTORE_COMPLETE": "complete_bash",
        "COMP_WORDS": "eventstore tr",
        "COMP_CWORD": "1",
    }
    done = run(**environment)
    assert "transcript" in done.out.split()
