"""What the tests of the command line share: running commands, and a database to run them on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from typer.testing import CliRunner

from eventstore import EventStore
from eventstore.cli.commands import app
from graph import Command
from tests import processes
from tests.cli import application

ROOT: Final = Path(__file__).resolve().parents[2]
SECONDS_MAX: Final = 60.0
APP: Final = ("--app", "tests.cli.application:graph")
ESCAPE: Final = "a \x1b[2J\u202e name"
"""The name of a thread that would clear a terminal, and turn what follows."""


class Done(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its result, where that is one document."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self) -> list[Any]:
        """Its results, where they are one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


def run(*arguments: str, **environment: str | None) -> Done:
    """Run a command in this process, its output going to no terminal."""
    found = CliRunner().invoke(app, list(arguments), env=environment, catch_exceptions=False)
    return Done(found.exit_code, found.stdout, found.stderr)


def process(*arguments: str, **options: Any) -> processes.Popen:
    """Start a command in a process of its own."""
    return processes.Popen(
        [sys.executable, "-m", "eventstore", *arguments],
        cwd=ROOT,
        stdin=options.pop("stdin", subprocess.DEVNULL),
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=options.pop("stderr", subprocess.PIPE),
        text=True,
        env={**os.environ, **options.pop("env", {})},
        **options,
    )


def fill(url: str) -> None:
    """Four threads: one done and forked, one that waits, one that failed, one with a bad name."""
    with EventStore(url) as store:
        runs = application.graph.compile(checkpointer=store)
        for name in ("done", "waits", ESCAPE):
            runs.invoke({"topic": "bees", "rows": []}, config(name))
        runs.invoke(Command(resume="yes"), config("done"))
        try:
            runs.invoke({"topic": "nothing", "rows": []}, config("failed"))
        except ValueError:
            pass
        else:
            raise AssertionError("it was to fail")
        first = [*runs.get_state_history(config("done"), every=True)][-2]
        runs.update_state(first.config, {"topic": "wasps"}, as_node="write")
        place = first.config["configurable"]
        runs.invoke(None, config("branch", checkpoint_id=place["checkpoint_id"]))


def config(thread_id: str, **more: Any) -> Any:
    """The config of a thread."""
    return {"configurable": {"thread_id": thread_id, **more}, "metadata": {"kind": "test"}}


@contextmanager
def unchanged(url: str) -> Iterator[None]:
    """Nothing in the file changes meanwhile (nothing is checked of a server)."""
    path = Path(url.removeprefix("sqlite:///"))
    before = path.read_bytes() if url.startswith("sqlite") else b""
    yield
    assert not before or path.read_bytes() == before, "the file has changed"
