"""Logs that hold what no graph writes: every command shows them, as text and as JSON."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Final

import pytest

from eventstore import Event, EventStore
from eventstore.cli import exits
from eventstore.cli.transfer import SUFFIX
from graph.state.events import Kind
from tests.cli.support import run

LONG: Final = 10**5_000
"""An integer that Python writes in decimal only with special permission."""

ODD: Final[list[Any]] = [LONG, -LONG, [1], {"a": LONG}, None, b"x", 1.5, {LONG: [LONG]}]
"""Values where a graph would write a name or a small number."""

NAMES: Final = [
    "--help",
    "-rf",
    "../x",
    "..",
    ".hidden",
    "~root",
    "a\nb",
    "a\tb",
    " ",
    "*",
    "a;b$(c)`d`",
    "ü" * 120,
    "x" * 600,
]


def events(odd: Any) -> list[Event]:
    """Events that have the keys of a graph's events, with this value in every place."""
    return [
        Event(Kind.INPUT, {"writes": [[odd, odd]], "to": [odd], "run": odd}),
        Event(Kind.INPUT, {"writes": odd, "to": odd}),
        Event(
            Kind.OUTPUT,
            {"step": odd, "task": odd, "node": odd, "writes": [[odd, 1]], "sends": [[odd]]},
        ),
        Event(
            Kind.ERROR,
            {"step": odd, "task": 1, "node": odd, "type": odd, "message": odd, "attempts": odd},
        ),
        Event(Kind.INTERRUPT, {"step": odd, "tasks": [odd, {"node": odd, "interrupts": [odd]}]}),
        Event(
            Kind.INTERRUPT,
            {"step": 1, "tasks": [{"node": odd, "interrupts": [{"id": odd, "value": odd}]}]},
        ),
        Event(Kind.RESUME, {"step": odd, "answers": [odd, {"id": odd, "value": odd}]}),
        Event(Kind.RESUME, {"step": odd, "answers": odd}),
        Event(Kind.UPDATE, {"updates": [odd, {"node": odd, "writes": odd}]}),
        Event(Kind.UPDATE, {"updates": odd}),
        Event(30_000, odd),
    ]


@pytest.fixture
def odd(store_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with a thread of odd events for each odd value."""
    monkeypatch.setenv("EVENTSTORE_DB", store_url)
    with EventStore(store_url) as store:
        for number, value in enumerate(ODD):
            store.append(f"t{number}", events(value), 0, status="waiting")
    return store_url


@pytest.mark.parametrize(
    "command",
    [
        *("threads", "threads --all --json", "threads --all", "stats --json", "verify --json"),
        *("show {}", "show {} --json", "events {}", "events {} --full", "events {} --json"),
        *("transcript {}", "transcript {} --json"),
        *("history {}", "history {} --full", "history {} --json"),
    ],
)
def test_every_command_shows_them(odd: str, command: str) -> None:
    for number in range(len(ODD) if "{}" in command else 1):
        done = run(*shlex.split(command.format(f"t{number}")))
        said = [line for line in done.err.splitlines() if "amcheck is not installed" not in line]
        assert (done.code, said) == (exits.OK, [])
        if "--json" in command:
            assert done.lines


@pytest.mark.slow
def test_names_do_not_become_options_or_paths(tmp_path: Path, monkeypatch: Any) -> None:
    path, other = f"sqlite:///{tmp_path / 'store.db'}", f"sqlite:///{tmp_path / 'other.db'}"
    folder = tmp_path / "files"
    folder.mkdir()
    with EventStore(path) as store:
        for name in NAMES:
            store.append(name, [Event(1, name)], 0)
    assert run("export", "--all", "--to", str(folder), "--db", path).code == exits.OK
    files = sorted(each.name for each in folder.iterdir())
    assert len(files) == len(NAMES) and all(each.endswith(SUFFIX) for each in files)
    assert [*tmp_path.rglob(f"*{SUFFIX}")] and not [*tmp_path.glob(f"*{SUFFIX}")]
    assert not [each for each in files if each[0] in "-.~"], "hidden, or taken for an option"
    monkeypatch.chdir(folder)
    assert run("migrate", "--create", "--db", other).code == exits.OK
    assert run("import", *files, "--db", other).code == exits.OK
    with EventStore(other) as store:
        assert sorted(info.thread_id for info in store.threads()) == sorted(NAMES)
    for name in NAMES:
        for command in ("show", "events", "history", "verify"):
            done = run(command, "--db", path, "--", name)
            assert (done.code, done.err) == (exits.OK, ""), name
        done = run("export", "--db", path, "--to", str(tmp_path / ("y" * 250)), "--", name)
        assert done.code == exits.OK, "the name of the file is as long as it may be"


@pytest.mark.parametrize(
    "arguments",
    [
        ("threads", "--limit", "9" * 30),
        ("retention", "report", "--limit", "9" * 30),
        ("retention", "plan", "--at", "9999-12-31T23:00-12:00"),
        ("retention", "run", "--every", "999999w", "--yes"),
        ("retention", "run", "--cron", "0 3 31 2 *", "--yes"),
    ],
)
def test_numbers_and_times_out_of_range(odd: str, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.code == exits.USAGE and "Traceback" not in done.err and done.err
