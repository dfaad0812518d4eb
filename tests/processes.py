"""Python programs in processes of their own, which begin with the library imported.

To import the library takes longer than most of these programs run. So each pytest worker has a
template: a process that has imported it, and forks for each program that a test wants. What comes
of it is a process like any other, with its own arguments, environment, folder and streams, which a
signal can stop or kill; `Popen` and `run` are called as those of `subprocess`. Only its parent is
another one: a process that waits for it, and tells us how it ended.

Use `subprocess` for a program that is about starting (what is imported when, options of the
interpreter, packages that are not there), and where the memory of the process counts.
"""

from __future__ import annotations

import atexit
import builtins
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, TimeoutExpired
from types import ModuleType
from typing import Any, Final, NamedTuple

from eventstore.cli.commands import COMMANDS

ROOT: Final = Path(__file__).parents[1]

WARM: Final = (
    "aiosqlite",
    "apscheduler.schedulers.background",
    *(f"eventstore.cli.{module}" for module, _ in COMMANDS.values()),
    "graph.production",
    "retention.daemon",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "sqlalchemy.ext.asyncio",
)
"""What most programs import, and what belongs to it."""

ORDER_BYTES_MAX: Final = 100_000
"""An order is one message of a socket, whose buffer is larger than that everywhere."""


class Order(NamedTuple):
    """What a program is to begin with.

    Attributes:
        arguments: those of the interpreter: ``-m module``, ``-c code`` or a file, and the rest.
        new_session: it leaves our session and our process group.
    """

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    new_session: bool


# --- on the side of the tests -----------------------------------------------------------


class Popen(subprocess.Popen[Any]):
    """A program of this interpreter that runs; as `subprocess.Popen`, whose end alone is ours."""

    _end: int | None = None

    def _execute_child(
        self, args: Sequence[str | Path], executable: Any, preexec_fn: Any, close_fds: Any,
        pass_fds: Any, cwd: str | Path | None, env: Mapping[str, str] | None, startupinfo: Any,
        creationflags: Any, shell: Any, *streams: Any,
    ) -> None:  # fmt: skip
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *more = streams
        interpreter, *arguments = map(str, args)
        if interpreter != sys.executable or preexec_fn or pass_fds or shell or executable:
            raise ValueError(f"{args!r}: start it with subprocess")
        new_session = bool(more[-2])
        environment = dict(os.environ if env is None else env)
        order = Order(arguments, str(cwd or Path.cwd()), environment, new_session)
        self._end, theirs = os.pipe()
        try:
            given = [n if fd < 0 else fd for n, fd in enumerate((p2cread, c2pwrite, errwrite))]
            _template().order(order, [*given, theirs])
        finally:
            os.close(theirs)
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]
        self.pid = int(self._told())
        self._child_created = True

    def _told(self) -> str:
        """What the process that waits for the program says: its pid, then how it ended."""
        assert self._end is not None
        said = b""
        while not said.endswith(b"\n"):
            more = os.read(self._end, 1)
            if not more:
                raise RuntimeError("the process that waits for the program was killed")
            said += more
        return said.decode()

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and self._end is not None:
            if select.select([self._end], [], [], timeout)[0]:
                self.returncode = os.waitstatus_to_exitcode(int(self._told()))
                os.close(self._end)
                self._end = None
        return self.returncode

    def _internal_poll(self, _deadstate: Any = None) -> int | None:
        return self._ended(0)

    def _wait(self, timeout: float | None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise TimeoutExpired(self.args, timeout or 0.0)
        return code


def run(
    command: Sequence[str | Path],
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> CompletedProcess[Any]:
    """Run a program of this interpreter to its end; as `subprocess.run`."""
    if input is not None:
        options["stdin"] = PIPE
    if capture_output:
        options |= {"stdout": PIPE, "stderr": PIPE}
    with Popen(command, **options) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    done = CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


class Template:
    """The process that forks for each program; it ends with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.processes", str(theirs.fileno())],
                cwd=ROOT,
                stdin=DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def order(self, order: Order, streams: list[int]) -> None:
        """Have a program started, with stdin, stdout, stderr and a pipe that its end is told to."""
        message = json.dumps(order).encode()
        assert len(message) < ORDER_BYTES_MAX, "too long an order"
        with self._lock:
            socket.send_fds(self._channel, [message], streams)

    def close(self) -> None:
        """End it. Programs that it started go on."""
        self._channel.close()
        self._process.wait()


@functools.cache
def _template() -> Template:
    template = Template()
    atexit.register(template.close)
    return template


# --- in the template --------------------------------------------------------------------


def _ordered(channel: socket.socket) -> Order:
    """Fork for each order; comes back in the processes that are to become a program."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that wait for the programs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us, too
    while True:
        message, streams, _, _ = socket.recv_fds(channel, ORDER_BYTES_MAX, 4)
        if not message:
            sys.exit()
        if os.fork() == 0:
            break
        for each in streams:
            os.close(each)
    channel.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, end = streams
    pid = os.fork()
    if pid:
        for each in (0, 1, 2, *streams):
            os.close(each)
        os.write(end, f"{pid}\n".encode())
        os.write(end, f"{os.waitpid(pid, 0)[1]}\n".encode())
        os._exit(0)
    os.close(end)
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return Order(*json.loads(message))


def _become(order: Order) -> None:
    """Run the program, as a new interpreter would from here on."""
    if order.new_session:
        os.setsid()
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    time.tzset()
    _open_streams()
    what, *sys.argv = order.arguments
    if what == "-m":
        sys.path[0] = order.folder
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = ModuleType("__main__")
    vars(main)["__builtins__"] = builtins
    if what == "-c":
        sys.path[0], source, name = "", sys.argv[0], "<string>"
        sys.argv[0] = what
    else:
        sys.argv.insert(0, what)
        name = str(Path(what).absolute())
        sys.path[0], source = str(Path(name).resolve().parent), Path(name).read_text("utf-8")
        main.__file__ = name
    exec(compile(source, name, "exec"), vars(main))


def _open_streams() -> None:
    """Open them as the interpreter would; ours have found out what ours lead to."""
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        writes, before = name != "stdin", getattr(sys, name)
        buffering = 0 if writes and at_once else -1
        stream = os.fdopen(number, "wb" if writes else "rb", buffering, closefd=False)
        text = TextIOWrapper(
            stream,
            encoding=encoding or before.encoding,
            errors=errors or ("strict" if encoding and name != "stderr" else before.errors),
            line_buffering=buffering != 0 and (name == "stderr" or (writes and stream.isatty())),
            write_through=buffering == 0,
        )
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def main() -> None:
    """Import what programs import, and wait for orders."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    for module in WARM:
        with suppress(ImportError):  # an extra that is not installed: no program needs it
            importlib.import_module(module)
    assert threading.active_count() == 1, "a process with threads cannot be forked"
    gc.collect()
    gc.freeze()
    _become(_ordered(channel))


if __name__ == "__main__":
    main()
