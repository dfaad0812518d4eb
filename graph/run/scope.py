"""The running task, as the code of its node can reach it from anywhere.

Owns the context variable that holds the running task, and the functions for nodes that use it:
``interrupt``, ``get_stream_writer``, ``get_config``, ``get_runtime``. A graph that a node calls
finds the thread and log of its run here, too. Nothing here writes.
"""

from __future__ import annotations

import contextvars
import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import eq
from typing import Any, Final

from eventstore.format.namespaces import child
from graph.build.channels import MISSING
from graph.errors import GraphBubbleUp, GraphInterrupt, OutsideNodeError
from graph.run.questions import Flow, MixedUp, Questions, flow
from graph.state.state import Asked
from graph.types import Command, Runtime

running: Final[contextvars.ContextVar[Scope | None]] = contextvars.ContextVar(
    "running", default=None
)
"""The running task, in the context of its code; ``None`` outside a node."""

_making: Final = threading.Lock()

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
        known: its earlier interrupts: its own by ``nth``, those of its subgraphs by id.
        known_by_id: the same by id, in a graph without a log, which runs again from its start each
            time.
        resumed: the task was interrupted and continues.
        write: streams a chunk of the node (stream mode ``custom``).
        runtime: makes the result of ``get_runtime``.
        same: compares interrupt values.
        step: the superstep.
        sent: the task is of a :class:`~graph.types.Send`.
        strict: an attempt before this one was mixed up: see :mod:`graph.run.questions`.
        interrupted: a call of ``interrupt()`` raised. A node that returns nevertheless has caught
            the exception.
        above: in a subgraph: the task that its run is for.
        calls: the number of calls of each graph so far.
        logs: where the logs of the graphs that it called ended, by name.
        over: the attempt has ended; what its code still does is not recorded.
        watched: it may not be without progress for long.
        traced: the node's run as langchain-core's callbacks see it.
        mixed_up: it was interrupted in another order than before, and got a wrong resume value.
    """

    node: str
    config: Mapping[str, Any]
    host: Any
    thread_key: int
    ns: str
    task: int
    token: str
    known: Mapping[int | str, Asked]
    known_by_id: Mapping[str, Asked]
    resumed: bool
    write: Callable[[Any], None]
    runtime: Callable[[], Runtime[Any]]
    above: Scope | None = None
    same: Callable[[Any, Any], bool] = eq
    strict: bool = False
    step: int = 0
    sent: bool = False
    interrupted: bool = False
    calls: dict[str, int] = field(default_factory=dict)
    logs: dict[str, int] = field(default_factory=dict)
    over: bool = False
    mixed_up: bool = False
    watched: bool = False
    traced: Any = None
    _alive_at: float = 0.0
    _node_config: Mapping[str, Any] | None = None
    _questions: Questions | None = None
    _main: Flow | None = None

    def enter(self) -> contextvars.Token[Scope | None]:
        """Make this the running task of the code that follows, until ``running.reset(token)``."""
        if self.known or self.known_by_id:
            self._main = flow()
        return running.set(self)

    def heartbeat(self) -> None:
        """Note that the task, and those that it is part of, are alive."""
        scope: Scope | None = self
        while scope is not None:
            scope._alive_at = time.monotonic()
            scope = scope.above

    def progress(self) -> None:
        """The same, where progress that nobody declared counts."""
        scope: Scope | None = self
        while scope is not None:
            if scope.watched:
                scope._alive_at = time.monotonic()
            scope = scope.above

    def idle_s(self) -> float:
        """The seconds since it was alive."""
        return time.monotonic() - self._alive_at

    @property
    def inner_ns(self) -> str:
        """The namespace of the task, in which the logs of its subgraphs are."""
        return child(self.ns, self.node, self.token)

    @property
    def node_config(self) -> Mapping[str, Any]:
        """The config as the node gets it: with where it runs. Made once, when first needed."""
        if self._node_config is None:
            ns, is_sent = self.inner_ns, self.sent
            place = {"checkpoint_ns": ns, "checkpoint_id": None}
            given = self.config.get("configurable") or {}
            metadata = {
                **(self.config.get("metadata") or {}),
                "langgraph_step": self.step,
                "langgraph_node": self.node,
                "langgraph_triggers": self.host.triggers(self.node, is_sent),
                "langgraph_path": (
                    ("__pregel_push", self.task, False) if is_sent else ("__pregel_pull", self.node)
                ),
                "langgraph_checkpoint_ns": ns,
            }
            if "thread_id" in given:
                metadata["thread_id"] = given["thread_id"]
            self._node_config = {
                **self.config,
                "configurable": {**given, **place},
                "metadata": metadata,
            }
        return self._node_config

    def use_config(self, config: Mapping[str, Any]) -> None:
        """Give the node and what it calls this config."""
        self._node_config = config

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
        """The resume value of the interrupt with this value.

        Raises:
            GraphInterrupt: there is none yet.
        """
        try:
            nth = self.questions.number(value)
        except MixedUp:
            self.mixed_up = True
            raise
        asked = self._asked(nth)
        if asked is not None and asked.answer is not MISSING:
            return asked.answer
        raise self.leave({"id": self._id(nth), "value": value, "nth": nth})

    @property
    def guessed(self) -> bool:
        """Whether a resume value was given for an interrupt with another value than was shown."""
        return self._questions is not None and self._questions.guessed

    @property
    def questions(self) -> Questions:
        """Tells the task's interrupts apart; made at the first one."""
        with _making:
            if self._questions is None:
                count = max((nth + 1 for nth in self.known if isinstance(nth, int)), default=0)
                self._questions = Questions(
                    self._asked, count + len(self.known_by_id), self.same, self.strict, self._main
                )
            return self._questions

    def _asked(self, nth: int) -> Asked | None:
        found = self.known.get(nth)
        return self.known_by_id.get(self._id(nth)) if found is None and self.known_by_id else found

    def _id(self, nth: int) -> str:
        return interrupt_id(self.thread_key, self.ns, self.token, nth)

    def leave(self, *interrupts: Mapping[str, Any]) -> GraphInterrupt:
        """The exception that leaves the node until these interrupts are resumed."""
        self.interrupted = True
        return GraphInterrupt(interrupts)


class ParentCommand(GraphBubbleUp):
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
    return running.get()


def _required(function: str) -> Scope:
    scope = running.get()
    if scope is None:
        raise OutsideNodeError(f"{function} was called outside a running node")
    return scope


def interrupt(value: Any) -> Any:
    """Pause the run until somebody resumes it, and return the resume value.

    The first call interrupts the run: ``value`` is in its result (``__interrupt__``) and in
    ``get_state(config).interrupts``, and the process may end. ``invoke(Command(resume=…), config)``
    continues the run in any process: the node runs again *from its top*, and this call returns the
    resume value. Code before the call therefore runs again. Put effects into an earlier node, or
    make them harmless to repeat.

    Several calls in one node get the resume values of the interrupts that were shown with equal
    values, in whatever order the calls come; equal values in their order. A call with a value that
    was not shown before, because part of it is made anew, gets the resume value of its place: the
    nth call that of the nth interrupt. In code that runs in parallel (``asyncio.gather``, threads)
    such a call interrupts the run again.

    Args:
        value: the interrupt value, which the caller of the run gets; any value that the log can
            store.

    Raises:
        OutsideNodeError: called outside a node.
        GraphInterrupt: leaves the node. It is not an ``Exception``, so ``except Exception`` around
            this call does not catch it.
    """
    return _required("interrupt()").interrupt(value)


def get_stream_writer() -> Callable[[Any], None]:
    """A function that streams its argument (stream mode ``custom``), for code that a node calls.

    Outside a node, or if the caller did not request that mode, the argument is discarded.
    """
    scope = running.get()
    return _ignore if scope is None else scope.write


def heartbeat() -> None:
    """Say that the running task is alive."""
    scope = current()
    if scope is not None:
        scope.heartbeat()


def get_config() -> Mapping[str, Any]:
    """The config of the run, for code that a node calls.

    Raises:
        OutsideNodeError: called outside a node.
    """
    return _required("get_config()").node_config


def get_runtime(context_schema: type[Any] | None = None) -> Runtime[Any]:
    """The node's ``runtime``, as its parameter of that name gets it, for code that a node calls.

    Args:
        context_schema: the class of the context; used only by type checkers.

    Raises:
        OutsideNodeError: called outside a node.
    """
    return _required("get_runtime()").runtime()


def get_state() -> Any:
    """The state that the running node gets when an edge leads to it, also if a ``Send`` did.

    Raises:
        OutsideNodeError: called outside a node.
    """
    scope = _required("get_state()")
    return scope.host.state_of(scope.node)


def steps_left() -> int:
    """The supersteps that the running node's run may still take, with that of the node.

    Raises:
        OutsideNodeError: called outside a node.
    """
    left: int = _required("steps_left()").host.steps_left
    return left


def _ignore(_chunk: Any) -> None:
    """Discards a chunk that nobody requested."""
