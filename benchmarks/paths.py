"""Prints the paths between an application's call and the SQL statement that it leads to.

    python -m benchmarks.paths [--json]

A one-node graph runs on an SQLite file, with sync and async APIs. Writing ends at the INSERT of the
node's output; reading ends at the deepest SELECT of ``get_state``. Only functions of ``eventstore``
and ``graph`` count; those of SQLAlchemy and Python do not. Counted are:

- frames: our functions on the stack when the driver runs the statement. An async call on SQLite
  continues on a thread of the store: the suspended coroutines of its task come first.
- modules: the distinct modules of these frames.
- calls: how often our functions are called, from the node's return to the INSERT when writing, and
  during the whole call when reading. Comprehensions do not count: in some versions of Python they
  are functions, in others not.
- touched: the distinct modules in which code runs during that time. A coroutine or generator that
  is resumed touches its module, but is no new call.

Every path runs several times, each time in a new thread of the log, and the run with the fewest
calls counts: by then tables exist, statements are compiled, and caches are warm.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import gc
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, TypedDict

import eventstore
import graph
from graph import END, START, AsyncSqliteSaver, SqliteSaver, StateGraph

ROOTS: Final = tuple(str(Path(package.__path__[0])) + "/" for package in (eventstore, graph))
COMPREHENSIONS: Final = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")
AWAITABLES: Final = (("cr_code", "cr_await"), ("ag_code", "ag_await"), ("gi_code", "gi_yieldfrom"))
INSERT: Final = "INSERT INTO events"
SELECT: Final = "SELECT"
_BEGINNINGS: Final = {INSERT: (INSERT,), SELECT: (SELECT, "WITH")}
RUNS: Final = 6
WAIT_S_MAX: Final = 10


@dataclass(frozen=True)
class Frame:
    """One of our functions on the stack; ``purpose`` is the first line of its docstring."""

    module: str
    function: str
    purpose: str


@dataclass(frozen=True)
class PathToStatement:
    """The way from a call of the application to a statement; the module's docstring defines it."""

    call: str
    statement: str
    stack: tuple[Frame, ...]
    calls: int
    touched: tuple[str, ...]

    @property
    def frames(self) -> int:
        """How many of our functions are on the stack."""
        return len(self.stack)

    @property
    def modules(self) -> int:
        """How many modules they are in."""
        return len({frame.module for frame in self.stack})


class State(TypedDict):
    """The state of the graph that runs."""

    count: int


def measure() -> list[PathToStatement]:
    """The four paths: writing and reading, with sync and async APIs."""
    with tempfile.TemporaryDirectory(prefix="paths-") as folder:
        target = str(Path(folder) / "state.db")
        return [*_sync_paths(target), *asyncio.run(_async_paths(target))]


def _sync_paths(target: str) -> list[PathToStatement]:
    recorder = Recorder()
    writes, reads = [], []
    with recorder.installed(), SqliteSaver(target) as saver:
        app = recorder.graph().compile(checkpointer=saver)
        for number in range(RUNS):
            config = _config(f"sync-{number}")
            with recorder.recording():
                app.invoke({"count": 0}, config)
            writes.append(recorder.path("invoke", INSERT))
            with recorder.recording():
                app.get_state(config)
            reads.append(recorder.path("get_state", SELECT))
    return [_shortest(writes), _shortest(reads)]


async def _async_paths(target: str) -> list[PathToStatement]:
    recorder = Recorder(asyncio.current_task())
    writes, reads = [], []
    with recorder.installed():
        async with AsyncSqliteSaver(target) as saver:
            app = recorder.graph().compile(checkpointer=saver)
            for number in range(RUNS):
                config = _config(f"async-{number}")
                with recorder.recording():
                    await app.ainvoke({"count": 0}, config)
                writes.append(recorder.path("ainvoke", INSERT))
                with recorder.recording():
                    await app.aget_state(config)
                reads.append(recorder.path("aget_state", SELECT))
    return [_shortest(writes), _shortest(reads)]


def _shortest(paths: Sequence[PathToStatement]) -> PathToStatement:
    return min(paths, key=lambda path: path.calls)


def _config(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id}}


@dataclass(frozen=True)
class _Statement:
    """A statement that ran, with our functions on the stack and what was entered before it."""

    sql: str
    stack: tuple[CodeType, ...]
    entered: int
    after_node: bool


class Recorder:
    """Records statements and entered functions with Python's profiling hook.

    The hook sees the driver's ``execute`` before it runs and gives its connection a trace callback,
    which SQLite calls with every statement. So nothing here depends on SQLAlchemy.

    Args:
        task: the asyncio task that makes the calls, on this thread.
    """

    def __init__(self, task: asyncio.Task[Any] | None = None) -> None:
        self._task = task
        self._thread = threading.get_ident()
        self._installed = self._active = False
        self._node_at: int | None = None
        self._entered: list[tuple[CodeType, bool]] = []
        self._statements: list[_Statement] = []

    def graph(self) -> StateGraph:
        """A graph with one node."""
        builder = StateGraph(State)
        builder.add_node("node", self._node)
        builder.add_edge(START, "node")
        builder.add_edge("node", END)
        return builder

    def _node(self, state: State) -> dict[str, Any]:
        sys.setprofile(self._profile)  # the thread that nodes run on may be older than the recorder
        return {"count": state["count"] + 1}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Watch this thread, and every thread that starts in the meantime."""
        before, threads_before = sys.getprofile(), threading.getprofile()
        self._installed = True
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            self._installed = False
            sys.setprofile(before)
            threading.setprofile(threads_before)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record one call, forgetting the one before."""
        self._node_at = None
        self._entered, self._statements = [], []
        self._active = True
        try:
            yield
        finally:
            self._active = False

    def path(self, call: str, kind: str) -> PathToStatement:
        """The path to the INSERT of the node's output, or to the deepest SELECT."""
        found = [
            each
            for each in self._statements
            if each.sql.startswith(_BEGINNINGS[kind]) and (each.after_node or kind != INSERT)
        ]
        if not found:
            raise RuntimeError(f"{call} ran no statement that begins with {kind!r}")
        if kind == INSERT:
            statement = found[0]
            entered = self._entered[self._node_at : statement.entered]
        else:
            statement = max(found, key=lambda each: len(each.stack))
            entered = self._entered
        return PathToStatement(
            call,
            kind,
            tuple(_described(code) for code in statement.stack),
            sum(called for _, called in entered),
            tuple(sorted({_module(code) for code, _ in entered})),
        )

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if not self._installed:  # the thread outlived the recorder
            sys.setprofile(None)
        elif event == "c_call":
            if arg.__name__ in ("execute", "executemany"):
                connection = getattr(arg.__self__, "connection", arg.__self__)
                if hasattr(connection, "set_trace_callback"):
                    connection.set_trace_callback(self._trace)
        elif self._active and event == "call" and _is_ours(frame.f_code):
            self._entered.append((frame.f_code, _is_called(frame)))
        elif self._active and event == "return" and frame.f_code is Recorder._node.__code__:
            self._waiting_coroutine()
            self._node_at = len(self._entered)

    def _trace(self, sql: str) -> None:
        if not self._active:
            return
        stack = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            stack.append(frame.f_code)
            frame = frame.f_back
        stack.reverse()
        stack = [*_suspended(self._waiting_coroutine()), *stack]
        self._statements.append(
            _Statement(
                sql,
                tuple(filter(_is_ours, stack)),
                len(self._entered),
                self._node_at is not None,
            )
        )

    def _waiting_coroutine(self) -> Any:
        """The coroutine of the task, when this is another thread than the task's.

        This thread may be ahead: it waits until the task does, so that counts do not depend on
        which thread is faster.
        """
        if self._task is None or threading.get_ident() == self._thread:
            return None
        coroutine: Any = self._task.get_coro()
        deadline = time.monotonic() + WAIT_S_MAX
        while coroutine.cr_running:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the calling task did not wait within {WAIT_S_MAX} s")
            time.sleep(0.001)
        return coroutine


def _suspended(awaitable: Any) -> Iterator[CodeType]:
    """The functions of a suspended coroutine and of all that it awaits, outermost first."""
    while awaitable is not None:
        for code, inner in AWAITABLES:
            if hasattr(awaitable, code):
                yield getattr(awaitable, code)
                awaitable = getattr(awaitable, inner)
                break
        else:  # an iterator over an async generator or a task hides what it runs
            awaitable = next(filter(_is_suspended, gc.get_referents(awaitable)), None)
            if isinstance(awaitable, asyncio.Task):
                awaitable = awaitable.get_coro()


def _is_suspended(awaitable: Any) -> bool:
    return isinstance(awaitable, asyncio.Task) or any(
        hasattr(awaitable, code) for code, _ in AWAITABLES
    )


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(ROOTS) and code.co_name not in COMPREHENSIONS


def _is_called(frame: FrameType) -> bool:
    """Whether a frame that is entered begins, instead of being resumed after a yield or await."""
    # The instruction is RESUME; the low bits of its argument say after what (see module dis).
    return frame.f_code.co_code[frame.f_lasti + 1] & 3 == 0


def _module(code: CodeType) -> str:
    path = Path(code.co_filename)
    root = next(Path(root) for root in ROOTS if code.co_filename.startswith(root))
    return ".".join((root.name, *path.relative_to(root).with_suffix("").parts))


def _described(code: CodeType) -> Frame:
    purpose = _docstrings(code.co_filename).get(code.co_firstlineno, "")
    return Frame(_module(code), code.co_qualname, purpose)


@cache
def _docstrings(path: str) -> dict[int, str]:
    """The first line of each function's docstring, by the line on which the function begins."""
    return {
        min([each.lineno, *(decorator.lineno for decorator in each.decorator_list)]): (
            ast.get_docstring(each) or ""
        ).partition("\n")[0]
        for each in ast.walk(ast.parse(Path(path).read_text()))
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


# --- output ---------------------------------------------------------------------------------


def as_text(paths: Sequence[PathToStatement]) -> str:
    """A table of the counts, then every stack."""
    lines = [f"{'':32}{'frames':>8}{'modules':>9}{'calls':>8}{'touched':>9}"]
    for path in paths:
        name = f"{path.call} to {path.statement}"
        lines.append(f"{name:32}{path.frames:8}{path.modules:9}{path.calls:8}{len(path.touched):9}")
    for path in paths:
        lines += ["", f"{path.call} to {path.statement}"]
        for number, frame in enumerate(path.stack, 1):
            lines.append(f"{number:4}  {frame.module}:{frame.function}")
            if frame.purpose:
                lines[-1] += f" – {frame.purpose}"
    return "\n".join(lines)


def as_json(paths: Sequence[PathToStatement]) -> str:
    """The counts, the stacks and the touched modules."""
    rows = [{"frames": path.frames, "modules": path.modules, **asdict(path)} for path in paths]
    return json.dumps(rows, indent=2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.paths",
        description="Print the paths between calls of an application and their SQL statements.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    paths = measure()
    print(as_json(paths) if options.json else as_text(paths))


if __name__ == "__main__":
    main()
