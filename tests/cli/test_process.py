"""The command as a process: terminals, bars, pipes, signals, and what is not installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eventstore import Event, EventStore
from eventstore.cli import exits
from tests import processes
from tests.cli.support import ESCAPE, ROOT, SECONDS_MAX, process

pytestmark = pytest.mark.slow

unix = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals and signals of Unix")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file with a few threads."""
    with EventStore(tmp_path / "store.db", durability="normal") as store:
        for name in ("a", ESCAPE, "a long name " * 20):
            store.append(name, [Event(1, {"text": "ünicode ✓ " * 30})] * 3, 0)
    return str(tmp_path / "store.db")


def at_a_terminal(*arguments: str, typed: str = "", **options: Any) -> tuple[int, str, str]:
    """Run a command at a terminal of 80 columns; its code, and what stdout and stderr showed."""
    import pty

    shown: list[str] = []
    pairs = [pty.openpty() for _ in range(2)]  # so that the two can be told apart
    try:
        os.write(pairs[0][0], typed.encode())
        run = process(
            *arguments,
            stdin=pairs[0][1],
            stdout=pairs[0][1],
            stderr=pairs[1][1],
            env={"COLUMNS": "80", "TERM": "xterm", **options.pop("env", {})},
        )
        code = run.wait(SECONDS_MAX)
        for ours, _ in pairs:
            os.set_blocking(ours, False)
            chunks = []
            while True:
                try:
                    chunk = os.read(ours, 65_536)
                except OSError:
                    break
                if not chunk:
                    break
                chunks.append(chunk)
            shown.append(b"".join(chunks).decode(errors="replace"))
    finally:
        for pair in pairs:
            for each in pair:
                os.close(each)
    return code, shown[0], shown[1]


@unix
def test_a_table_fits_the_terminal_and_nothing_stored_escapes_into_it(path: str) -> None:
    code, out, err = at_a_terminal("threads", "--db", path)
    assert code == exits.OK and err == ""
    assert "\x1b[2J" not in out and r"\x1b[2J\u202e" in out.replace("\r\n", "").replace(" ", "")
    assert "\x1b[" in out, "it is a terminal: the header stands out"
    code, out, _ = at_a_terminal("events", "a", "--db", path, env={"NO_COLOR": "1"})
    rows = out.split("\r\n")
    assert code == exits.OK and rows[1].startswith("     1  ")
    assert all(len(row) <= 80 for row in rows)


@unix
def test_long_work_shows_a_bar_on_standard_error_only(path: str) -> None:
    code, out, err = at_a_terminal("verify", "--db", path)
    assert code == exits.OK
    assert "3 threads, 9 events, all sound" in out and "verifying" not in out
    assert "verifying" in err and "/s" in err
    done = process("verify", "--db", path)
    assert done.communicate(timeout=SECONDS_MAX) == ("3 threads, 9 events, all sound\n", "")


def test_a_terminal_that_knows_no_unicode(path: str) -> None:
    env = {"PYTHONIOENCODING": "ascii", "EVENTSTORE_DB": path}
    run = process("events", "a", env=env)
    out, err = run.communicate(timeout=SECONDS_MAX)
    assert (run.returncode, err) == (exits.OK, "")
    assert r"\xfcnicode \u2713" in out


@unix
def test_a_reader_that_has_gone_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with EventStore(path, durability="normal") as store:
        for _ in range(20):
            head = store.head("a").seq
            store.append("a", [Event(1, {"text": "x" * 200})] * 256, head)
    run = process("events", "a", "--db", str(path))
    assert run.stdout is not None and run.stderr is not None
    run.stdout.readline()
    run.stdout.close()
    assert run.wait(SECONDS_MAX) == exits.PIPE
    assert run.stderr.read() == ""
    run.stderr.close()


COMMANDS = [
    "threads",
    "show a --json",
    "events a --json",
    "verify",
    "retention sweep --yes",
    "--help",
]


@unix
@pytest.mark.parametrize("command", [*COMMANDS, "export a --to -"])
def test_a_full_disk_is_one_line_and_a_code_of_its_own(path: str, command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        run = process(*command.split(), stdout=full, env={"EVENTSTORE_DB": path})
        _, err = run.communicate(timeout=SECONDS_MAX)
    assert run.returncode == exits.OUTPUT
    (line,) = err.splitlines()
    assert line.startswith("eventstore: cannot write") and "No space left on device" in line


@unix
def test_an_export_does_not_replace_a_device(path: str) -> None:
    run = process("export", "a", "--to", "/dev/full", "--db", path)
    _, err = run.communicate(timeout=SECONDS_MAX)
    assert run.returncode == exits.OUTPUT
    assert err.startswith("eventstore: cannot write '/dev/full': ") and len(err.splitlines()) == 1
    assert Path("/dev/full").is_char_device()


@unix
@pytest.mark.parametrize("redirection", ["| head -c 1", ">&-", "2>&-", "2>/dev/full", ">&- 2>&-"])
@pytest.mark.parametrize("command", ["threads", "events a --json", "--help"])
def test_outputs_that_nobody_has(path: str, command: str, redirection: str) -> None:
    script = f"{sys.executable} -m eventstore {command} {redirection}; echo ${{PIPESTATUS[0]}} >&3"
    done = subprocess.run(
        ["bash", "-c", f"{{ {script}; }} 3>&1 >/dev/null"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "EVENTSTORE_DB": path},
        timeout=SECONDS_MAX,
    )
    assert done.stderr == ""
    assert int(done.stdout) in ((exits.OK, exits.PIPE) if "|" in redirection else (exits.OK,))


@unix
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_the_daemon_goes_on_when_its_output_fails(path: str, unbuffered: str) -> None:
    command = ("retention", "run", "--every", "1s", "--yes", "--db", path)
    with (
        Path("/dev/full").open("wb") as full,
        processes.Popen(
            [sys.executable, "-m", "eventstore", *command],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        ) as run,
    ):
        try:
            assert run.stderr is not None
            said = [run.stderr.readline() for _ in range(4)]
            run.send_signal(signal.SIGTERM)
            _, rest = run.communicate(timeout=SECONDS_MAX)
        finally:
            run.kill()
    assert said[2:] == 2 * [
        "eventstore: cannot write the report of a sweep: No space left on device\n"
    ]
    assert run.returncode == exits.OK and "Traceback" not in rest
    with EventStore(path, read_only=True) as store:
        assert len(store.sweeps()) >= 2


SLOW = """
import sys, time
from eventstore import EventStore
from eventstore.cli import main

def verify(self, thread_id):
    print("under way", file=sys.stderr, flush=True)
    time.sleep(60)

EventStore.verify = verify
sys.exit(main(sys.argv[1:]))
"""


@unix
def test_a_command_that_is_interrupted(path: str) -> None:
    command = [sys.executable, "-c", SLOW, "verify", "--db", path]
    with processes.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            assert run.stderr is not None
            assert run.stderr.readline() == "under way\n"
            time.sleep(0.1)
            run.send_signal(signal.SIGINT)
            out, err = run.communicate(timeout=SECONDS_MAX)
        finally:
            run.kill()
    assert (run.returncode, out, err) == (exits.INTERRUPTED, "", "eventstore: interrupted\n")


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from eventstore.cli import main
sys.exit(main(["threads"]))
"""


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_the_extra_it_says_so(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, package], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == exits.USAGE
    assert "pip install 'graph-eventstore[cli]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_it_is_installed_as_a_command_and_explains_itself() -> None:
    run = process("--help")
    out, err = run.communicate(timeout=SECONDS_MAX)
    assert (run.returncode, err) == (exits.OK, "")
    assert "EVENTSTORE_DB" in out and "4 no such thread" in out
    nothing = process()
    out, err = nothing.communicate(timeout=SECONDS_MAX)
    assert nothing.returncode == exits.USAGE and "Usage: eventstore" in out + err
    wrong = process("threads", "--nonsense")
    _, err = wrong.communicate(timeout=SECONDS_MAX)
    assert wrong.returncode == exits.USAGE and "--nonsense" in err
