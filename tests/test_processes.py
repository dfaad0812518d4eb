"""A program that the template forked behaves as one that a new interpreter runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from tests import processes

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="forks")]

SECONDS_MAX: Final = 30

PROGRAMS: Final = {
    "ends": "print('out'); print('err', file=sys.stderr)",
    "ends with a code": "sys.exit(3)",
    "ends with a message": "sys.exit('what went wrong')",
    "raises": "raise ValueError('no')",
    "is interrupted": "raise KeyboardInterrupt",
    "interrupts itself": "os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
    "is killed": "print('lost or not'); os.kill(os.getpid(), 9)",
    "at exit": "import atexit; atexit.register(print, 'at exit')",
    "a thread": "threading.Timer(0.05, print, ['later']).start()",
    "its arguments": "print(sys.argv, sys.path[0])",
    "its names": "print(__name__, vars() is vars(sys.modules['__main__']))",
    "its input": "print(sys.stdin.read().upper())",
    "its folder": "print(os.getcwd())",
    "its environment": "print(os.environ['TEST_OF'], 'HOME' in os.environ)",
    "its time zone": "print(time.tzname, time.localtime(0).tm_hour)",
    "its streams": "print([(s.encoding, s.errors, s.line_buffering, s.isatty()) for s in STREAMS])",
    "what it cannot print": "print('ü')",
    "its signals": "print([signal.getsignal(n) for n in (2, 13, 15, 17)])",
    "its session": "print(os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid())",
    "a process of its own": "print(subprocess.run([sys.executable, '-c', 'exit(4)']).returncode)",
}
UNBUFFERED: Final = ("is killed", "its streams")
IMPORTS: Final = (
    "import os, signal, subprocess, sys, threading, time; "
    "STREAMS = sys.stdin, sys.stdout, sys.stderr; "
)


def both(command: list[str], **options: Any) -> list[tuple[int, str, str]]:
    """Exit code, output and the last line of the errors: in a new interpreter, and forked."""
    given = {"capture_output": True, "text": True, "timeout": SECONDS_MAX, **options}
    found = []
    for run in (subprocess.run, processes.run):
        done: Any = run([sys.executable, *command], **given)
        found.append((done.returncode, done.stdout, done.stderr.splitlines()[-1:]))
    return found


@pytest.mark.parametrize(
    ("name", "unbuffered"), [*((name, "") for name in PROGRAMS), *((n, "1") for n in UNBUFFERED)]
)
def test_a_program_ends_as_in_a_new_interpreter(name: str, unbuffered: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": unbuffered,
        "PYTHONIOENCODING": "ascii",
        "TEST_OF": "it",
        "TZ": "Asia/Tokyo",
    }
    new, forked = both(
        ["-c", IMPORTS + PROGRAMS[name], "a", "-b"],
        input="given",
        cwd=tmp_path,
        env=environment,
        start_new_session=name == "its session",
    )
    assert forked == new


def test_modules_and_files_run_as_in_a_new_interpreter(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 5\n")
    (tmp_path / "program.py").write_text(
        "import sys, beside\nprint(sys.argv, sys.path[0], __name__, __file__, beside.VALUE)\n"
    )
    for command in (["program.py", "x"], ["-m", "program", "x"], ["-m", "nowhere"]):
        new, forked = both(command, cwd=tmp_path)
        assert forked[:2] == new[:2]
        assert [line.split(": ", 1)[-1] for line in forked[2]] == [
            line.split(": ", 1)[-1] for line in new[2]
        ]


@pytest.mark.parametrize("runs", [subprocess, processes])
def test_a_program_is_waited_for_stopped_and_killed(runs: ModuleType) -> None:
    code = "print(input(), flush=True); input()"
    with runs.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        running.stdin.write("hello\n")
        running.stdin.flush()
        assert running.stdout.readline() == "hello\n"
        assert running.poll() is None
        running.send_signal(signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.05)
        running.send_signal(signal.SIGCONT)
        running.kill()
        assert running.wait(SECONDS_MAX) == running.poll() == -signal.SIGKILL
        running.send_signal(signal.SIGTERM)  # does nothing to a process that has ended


def test_another_program_is_refused() -> None:
    with pytest.raises(ValueError, match="start it with subprocess"):
        processes.Popen(["sleep", "1"])


def test_programs_begin_at_the_same_time() -> None:
    began = time.monotonic()
    code = "import time; time.sleep(0.5)"
    running = [processes.Popen([sys.executable, "-c", code]) for _ in range(10)]
    assert [each.wait(SECONDS_MAX) for each in running] == [0] * 10
    assert time.monotonic() - began < 5
