"""What the code of a node can reach of the run around it, wherever it is called from.

Owns the context variable that names the running task, and what functions of a node ask of it:
``interrupt``, ``get_stream_writer``, ``get_config``, ``get_runtime``. A graph that is called
inside a node finds its place in the thread here, too. Nothing here writes.
"""

from __future__ import annotations

import contextvars
import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import eq
from typing import Any, Final

from graph.build.schema import MISSING
from graph.errors import GraphInterrupt, InvalidGraphError
from graph.run.questions import Flow, MixedUp, Questions, flow
from graph.state.fold import Asked
from graph.types import Command, Runtime

_scope: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("scope", default=None)


_making: Final = threading.Lock()

_kept: contextvars.ContextVar[int | None] = contextvars.ContextVar("kept", default=None)
"""The number of the call that is to be made in this context, where several are made at once."""


@dataclass(eq=False, slots=True)
class Scope:
    """One attempt of one task.

    Attributes:
        node: what runs.
        config: what the caller of the run passed.
        host: the place of the run that the task belongs to, for graphs that are called in it.
        thread_key, ns: the log of its graph.
        task: its index in the frontier.
        token: names it within that log.
        known: what the task asked before, by ``nth`` question or by id in a subgraph.
        given: the same by id, in a graph that keeps no log and so begins again each time.
        resumed: it waited, and goes on.
        write: streams a chunk of the node's own.
        runtime: makes what ``get_runtime`` returns.
        same: compares interrupt values.
        strict: an attempt before this one was mixed up: see :mod:`graph.run.questions`.
        raised: a question was; if the node goes on after that, it caught it.
        above: the task that the graph of this one runs for.
        calls: how often it called each graph.
        logs: where the logs of the graphs that it called ended, by name.
        over: nobody looks at what it does any more.
        mixed_up: it asked in another order than before, and was given a wrong resume value.
    """

    node: str
    config: Mapping[str, Any]
    host: Any
    thread_key: int
    ns: str
    task: int
    token: str
    known: Mapping[int | str, Asked]
    given: Mapping[str, Asked]
    resumed: bool
    write: Callable[[Any], None]
    runtime: Callable[[], Runtime[Any]]
    above: Scope | None = None
    same: Callable[[Any, Any], bool] = eq
    strict: bool = False
    raised: bool = False
    calls: dict[str, int] = field(default_factory=dict)
    logs: dict[str, int] = field(default_factory=dict)
    over: bool = False
    mixed_up: bool = False
    _questions: Questions | None = None
    _main: Flow | None = None
    _before: contextvars.Token[Scope | None] | None = None

    def __enter__(self) -> None:
        """Code that runs in here finds this scope."""
        self._before = _scope.set(self)
        if self.known or self.given:
            self._main = flow()

    def __exit__(self, *_error: object) -> None:
        if self._before is not None:
            _scope.reset(self._before)

    @property
    def is_over(self) -> bool:
        """Whether the task, or one that it runs for, was given up (a timeout, a closed stream)."""
        scope: Scope | None = self
        while scope is not None:
            if scope.over or scope.host.over:
                return True
            scope = scope.above
        return False

    def places(self, name: str, count: int) -> range:
        """The numbers of the next calls of a graph in this task."""
        first = self.calls.get(name, 0)
        self.calls[name] = first + count
        return range(first, first + count)

    def place(self, name: str) -> int:
        """The number of this call of a graph: the next, unless it was kept for it."""
        kept = _kept.get()
        if kept is None:
            return self.places(name, 1)[0]
        _kept.set(None)
        return kept

    def ask(self, value: Any) -> Any:
        """The answer to the next question, if it was given; else the node is left."""
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
        """Tells the task's interrupts apart; made when the first one is asked."""
        with _making:
            if self._questions is None:
                count = max((nth + 1 for nth in self.known if isinstance(nth, int)), default=0)
                self._questions = Questions(
                    self._asked, count + len(self.given), self.same, self.strict, self._main
                )
            return self._questions

    def _asked(self, nth: int) -> Asked | None:
        found = self.known.get(nth)
        return self.given.get(self._id(nth)) if found is None and self.given else found

    def _id(self, nth: int) -> str:
        return question_id(self.thread_key, self.ns, self.token, nth)

    def leave(self, *interrupts: Mapping[str, Any]) -> GraphInterrupt:
        """What is raised to leave the node until somebody answers."""
        self.raised = True
        return GraphInterrupt(interrupts)


class ParentCommand(BaseException):
    """Leaves a node in which a subgraph ended with a command for the graph of that node."""

    def __init__(self, command: Command[Any]) -> None:
        self.command = command
        super().__init__(command)


def question_id(thread_key: int, ns: str, token: str, nth: int) -> str:
    """The name of a task's nth question: the same whenever the task is run again."""
    text = f"{thread_key:x}|{ns}|{token}|{nth}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def keeping(place: int | None) -> contextvars.Context:
    """A copy of the context, in which the next call of a graph has this number in its task."""
    context = contextvars.copy_context()
    context.run(_kept.set, place)
    return context


def current() -> Scope | None:
    """The task whose code is running, if this is inside one."""
    return _scope.get()


def _needed(what: str) -> Scope:
    scope = _scope.get()
    if scope is None:
        raise InvalidGraphError(f"{what} was called outside a running node")
    return scope


def interrupt(value: Any) -> Any:
    """Ask a person, and return the answer.

    The first time the run stops here: ``value`` is shown in the result (``__interrupt__``) and in
    ``get_state(config).interrupts``, and the process may end. ``invoke(Command(resume=answer),
    config)`` goes on, in any process: the node runs again *from its top*, and this call returns
    the answer. What a node does before it asks is thus done again; do it in a node before, or so
    that doing it twice is harmless.

    Several calls in one node get the answers to the values that were shown, in whatever order they
    come now; equal values in their order. A value that was not shown before, because something in
    it is made anew, gets the answer of its place: the nth call that of the nth interrupt. Not so
    for code that runs side by side (``asyncio.gather``, threads), where it is asked anew.

    Args:
        value: what to show; anything that the log can store.

    Raises:
        InvalidGraphError: called outside of a node.
        GraphInterrupt: how the node is left. No ``Exception``: ``except Exception`` around this
            call does not swallow it.
    """
    return _needed("interrupt()").ask(value)


def get_stream_writer() -> Callable[[Any], None]:
    """What a node calls to stream something of its own (stream mode ``custom``).

    Outside a run, or when nobody listens, what is written goes nowhere.
    """
    scope = _scope.get()
    return _ignore if scope is None else scope.write


def get_config() -> Mapping[str, Any]:
    """The config of the run, for code that a node calls.

    Raises:
        InvalidGraphError: called outside of a node.
    """
    return _needed("get_config()").config


def get_runtime(context_schema: type[Any] | None = None) -> Runtime[Any]:
    """What a parameter ``runtime`` of the node would be given; for code that the node calls.

    Args:
        context_schema: only tells type checkers which context to expect.

    Raises:
        InvalidGraphError: called outside of a node.
    """
    return _needed("get_runtime()").runtime()


def _ignore(_chunk: Any) -> None:
    """Nobody listens."""
