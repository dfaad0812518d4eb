"""The running task, as the code of its node can reach it from anywhere.

Owns the context variable that holds the running task, and the functions for nodes that use it:
``interrupt``, ``get_stream_writer``, ``get_config``, ``get_runtime``. A graph that a node calls
finds the thread and log of its run here, too. Nothing here writes.
"""

from __future__ import annotations

import contextvars
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graph.errors import GraphInterrupt, InvalidGraphError
from graph.types import Command, Runtime

_scope: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("scope", default=None)


_reserved: contextvars.ContextVar[int | None] = contextvars.ContextVar("reserved", default=None)
"""The reserved number of the next call of a graph in this context, if calls run in parallel."""


@dataclass(eq=False, slots=True)
class Scope:
    """One attempt of one task.

    Attributes:
        node: its name.
        config: the config of the run.
        host: the run that the task belongs to, for graphs that the task calls.
        thread_key, ns: the log of its graph.
        task: its index in the frontier.
        token: identifies it within that log.
        resume_values: those of its own interrupts by ``nth``, those of its subgraphs by id.
        resume_values_by_id: in a graph without a log, which runs again from its start each time:
            those of all its interrupts.
        resumed: the task was interrupted and continues.
        write: streams a chunk of the node (stream mode ``custom``).
        runtime: makes the result of ``get_runtime``.
        interrupts: the number of calls of ``interrupt()`` so far.
        interrupted: one of them raised. A node that returns nevertheless has caught the exception.
        above: in a subgraph: the task that its run is for.
        calls: the number of calls of each graph so far.
        logs: where the logs of the graphs that it called ended, by name.
        over: the attempt has ended; what its code still does is not recorded.
    """

    node: str
    config: Mapping[str, Any]
    host: Any
    thread_key: int
    ns: str
    task: int
    token: str
    resume_values: Mapping[int | str, Any]
    resume_values_by_id: Mapping[str, Any]
    resumed: bool
    write: Callable[[Any], None]
    runtime: Callable[[], Runtime[Any]]
    above: Scope | None = None
    interrupts: int = 0
    interrupted: bool = False
    calls: dict[str, int] = field(default_factory=dict)
    logs: dict[str, int] = field(default_factory=dict)
    over: bool = False
    _before: contextvars.Token[Scope | None] | None = None

    def __enter__(self) -> None:
        """Make this the running task of the code in the ``with`` block."""
        self._before = _scope.set(self)

    def __exit__(self, *_error: object) -> None:
        if self._before is not None:
            _scope.reset(self._before)

    @property
    def is_over(self) -> bool:
        """Whether this attempt, or that of a task above, has ended (by a timeout, say)."""
        scope: Scope | None = self
        while scope is not None:
            if scope.over or scope.host.over:
                return True
            scope = scope.above
        return False

    def reserve_calls(self, name: str, count: int) -> range:
        """Take the numbers of the next calls of a graph in this task."""
        first = self.calls.get(name, 0)
        self.calls[name] = first + count
        return range(first, first + count)

    def next_call(self, name: str) -> int:
        """The number of this call of a graph: the reserved one, or the next."""
        reserved = _reserved.get()
        if reserved is None:
            return self.reserve_calls(name, 1)[0]
        _reserved.set(None)
        return reserved

    def interrupt(self, value: Any) -> Any:
        """The resume value of the next interrupt.

        Raises:
            GraphInterrupt: there is none yet.
        """
        nth, self.interrupts = self.interrupts, self.interrupts + 1
        if nth in self.resume_values:
            return self.resume_values[nth]
        name = interrupt_id(self.thread_key, self.ns, self.token, nth)
        if name in self.resume_values_by_id:
            return self.resume_values_by_id[name]
        raise self.leave({"id": name, "value": value, "nth": nth})

    def leave(self, *interrupts: Mapping[str, Any]) -> GraphInterrupt:
        """The exception that leaves the node until these interrupts are resumed."""
        self.interrupted = True
        return GraphInterrupt(interrupts)


class ParentCommand(BaseException):
    """Leaves a node whose subgraph ended with a ``Command`` for the graph of that node."""

    def __init__(self, command: Command[Any]) -> None:
        self.command = command
        super().__init__(command)


def interrupt_id(thread_key: int, ns: str, token: str, nth: int) -> str:
    """The id of a task's nth interrupt: the same whenever the task runs again."""
    text = f"{thread_key:x}|{ns}|{token}|{nth}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def with_reserved_call(number: int | None) -> contextvars.Context:
    """A copy of the context in which the next call of a graph has this number in its task."""
    context = contextvars.copy_context()
    context.run(_reserved.set, number)
    return context


def current() -> Scope | None:
    """The running task; ``None`` outside a node."""
    return _scope.get()


def _required(function: str) -> Scope:
    scope = _scope.get()
    if scope is None:
        raise InvalidGraphError(f"{function} was called outside a running node")
    return scope


def interrupt(value: Any) -> Any:
    """Pause the run until somebody resumes it, and return the resume value.

    The first call interrupts the run: ``value`` is in its result (``__interrupt__``) and in
    ``get_state(config).interrupts``, and the process may end. ``invoke(Command(resume=…), config)``
    continues the run in any process: the node runs again *from its top*, and this call returns the
    resume value. Code before the call therefore runs again. Put effects into an earlier node, or
    make them harmless to repeat. Several calls in one node get their resume values in order.

    Args:
        value: the interrupt value, which the caller of the run gets; any value that the log can
            store.

    Raises:
        InvalidGraphError: called outside a node.
        GraphInterrupt: leaves the node. It is not an ``Exception``, so ``except Exception`` around
            this call does not catch it.
    """
    return _required("interrupt()").interrupt(value)


def get_stream_writer() -> Callable[[Any], None]:
    """A function that streams its argument (stream mode ``custom``), for code that a node calls.

    Outside a node, or if the caller did not request that mode, the argument is discarded.
    """
    scope = _scope.get()
    return _ignore if scope is None else scope.write


def get_config() -> Mapping[str, Any]:
    """The config of the run, for code that a node calls.

    Raises:
        InvalidGraphError: called outside a node.
    """
    return _required("get_config()").config


def get_runtime(context_schema: type[Any] | None = None) -> Runtime[Any]:
    """The node's ``runtime``, as its parameter of that name gets it, for code that a node calls.

    Args:
        context_schema: the class of the context; used only by type checkers.

    Raises:
        InvalidGraphError: called outside a node.
    """
    return _required("get_runtime()").runtime()


def _ignore(_chunk: Any) -> None:
    """Discards a chunk that nobody requested."""
