"""All errors that this package raises, as one tree.

    GraphError
    ├── InvalidGraphError      the graph as declared cannot run
    │   ├── InvalidTypeError   an argument is of a wrong type
    │   └── OutsideNodeError   a function for nodes was called outside one
    ├── InvalidUpdateError     an update does not fit the state
    │   ├── StateMismatchError a value that the class of the state requires is missing
    │   ├── AmbiguousResumeError one resume value, and several interrupts wait
    │   └── UnknownResultError a conditional edge returned what its path map does not have
    ├── InvalidConfigError     the config names no thread, or a checkpoint of another one
    │   └── InvalidContextError the context does not fit the graph's context_schema
    ├── ReducerError           what the log holds of a key does not fit its reducer
    ├── SchemaChangedError     a key was declared otherwise when its thread was recorded
    ├── ForeignThreadError     something other than a graph of this library wrote the thread
    ├── EmptyInputError        no input, and nothing to resume
    ├── GraphRecursionError    more supersteps than ``recursion_limit``
    ├── NodeTimeoutError       a node took longer than its ``timeout``
    ├── ThreadBusyError        a living run held the thread for all of ``conflict_timeout_s``
    ├── ToolInvocationError    a tool was called with arguments that do not fit
    ├── DrawingError           a picture or schema of a graph needs what is not installed
    ├── PersistenceConfigError the configuration of a deployment is invalid
    └── WorkflowError          a run of a ``ProductionWorkflow`` failed

:class:`GraphInterrupt` is not an error: it leaves a node that waits for a resume value. It is not
an ``Exception`` either, so that a node's ``except Exception`` does not swallow the interrupt.

An exception of a node propagates unchanged, with a note that names node and thread; only a
``ProductionWorkflow`` wraps it, in a ``WorkflowError``.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

from eventstore import ConcurrencyError
from graph.types import StateSnapshot

_SHOWN_CHARS_MAX: Final = 500


class GraphError(Exception):
    """Base of the errors of this package."""


class InvalidGraphError(GraphError, ValueError):
    """The graph as declared cannot run; the message names the node or edge, and the remedy."""


class InvalidTypeError(InvalidGraphError, TypeError):
    """An argument of a declaration is of a wrong type."""


class OutsideNodeError(InvalidGraphError, RuntimeError):
    """``interrupt()`` or another function for nodes was called outside a running node."""


class InvalidUpdateError(GraphError, ValueError):
    """An update does not fit the state: an unknown key, say, or two writers without a reducer."""


class StateMismatchError(InvalidUpdateError, TypeError):
    """The state has no value for a field that its dataclass requires."""


class ForeignThreadError(GraphError, ValueError):
    """Something other than a graph of this library has written the thread."""


class AmbiguousResumeError(InvalidUpdateError, RuntimeError):
    """A resume value does not say which of several pending interrupts it is for."""


class UnknownResultError(InvalidUpdateError, KeyError):
    """A conditional edge returned a value that its path map does not have."""

    __str__ = Exception.__str__  # KeyError would quote the message


class InvalidConfigError(GraphError, ValueError):
    """The config names no thread, or a checkpoint of another thread."""


class InvalidContextError(InvalidConfigError, TypeError):
    """The ``context`` of a call does not fit the graph's ``context_schema``."""


class ReducerError(GraphError):
    """Recorded writes of a state key cannot be merged by the reducer that it has today.

    The key was declared otherwise when they were recorded, or the reducer raises by itself. What
    was recorded before can be read, and gone back to.

    Attributes:
        key: the key of the state.
        reducer: the name of its reducer.
        value, update: the types of what was merged.
        nth: which of the writes to the key it was, of those that an event applies.
        thread_id, ns, seq, node: whose write it was; ``None`` as long as that is unknown.
    """

    def __init__(
        self,
        key: str,
        reducer: str,
        value: str,
        update: str,
        thread_id: str | None = None,
        ns: str = "",
        seq: int | None = None,
        node: str | None = None,
        nth: int = 0,
    ) -> None:
        self.nth = nth
        self.key, self.reducer = key, reducer
        self.value, self.update = value, update
        self.thread_id, self.ns, self.seq, self.node = thread_id, ns, seq, node
        told = f"the reducer {reducer} of the state key {key!r} cannot merge"
        if thread_id is None or seq is None:
            super().__init__(f"{told} {update} into {value}")
            return
        inside = f" in {ns!r}" if ns else ""
        super().__init__(
            f"thread {thread_id!r}{inside}, seq {seq}: {told} what node {node!r} wrote: stored is "
            f"{update}, expected is what fits {value}; declare the key as it was when this was "
            "recorded, give it a reducer that takes both forms, or, for a type of your own, raise "
            "its version and register an upcaster; then rebuild(config) refreshes the snapshots; "
            f"until then events(config) reads the log, and replay(config, upto={seq - 1}) the "
            "state before, to whose config update_state and invoke(None, …) go back"
        )

    def at(self, thread_id: str, ns: str, seq: int, node: str) -> ReducerError:
        """This error, with the place of the write."""
        return ReducerError(
            self.key, self.reducer, self.value, self.update, thread_id, ns, seq, node
        )

    def __reduce__(self) -> tuple[Any, ...]:
        place = (self.thread_id, self.ns, self.seq, self.node)
        return type(self), (self.key, self.reducer, self.value, self.update, *place)


class SchemaChangedError(GraphError):
    """A state key was declared otherwise when its thread was recorded, so its value would differ.

    Attributes:
        stored, expected: how it was declared, and how it is.
    """

    def __init__(self, thread_id: str, ns: str, key: str, stored: str, expected: str) -> None:
        self.thread_id, self.ns, self.key = thread_id, ns, key
        self.stored, self.expected = stored, expected
        inside = f" in {ns!r}" if ns else ""
        super().__init__(
            f"thread {thread_id!r}{inside}: the state key {key!r} is stored as {_form(stored)}, "
            f"expected is {_form(expected)}; declare it as it was, or, if today's declaration is "
            "meant for all that was recorded, pass compile(version=…) another version: the state "
            "is then folded anew (rebuild(config) stores it, and update_state corrects a value); "
            "a type of your own takes an upcaster; events(config) reads the log"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.thread_id, self.ns, self.key, self.stored, self.expected)


def _form(form: str) -> str:
    kind = form.removesuffix("+") or "a value"
    return f"{kind} with a reducer" if form.endswith("+") else f"{kind} without a reducer"


class EmptyInputError(GraphError, RuntimeError):
    """``invoke(None, …)`` on a thread that has nothing to resume."""


class ThreadBusyError(GraphError, ConcurrencyError):
    """With ``on_conflict="wait"``: a living run held the thread all the time. Nothing was stored.

    Attributes:
        owner: the run that holds it: host, process id and random part, lease in seconds, number.
        waited_s: seconds that this run waited.
    """

    def __init__(self, thread_id: str, seq: int, owner: str | None, waited_s: float) -> None:
        super().__init__(thread_id, "", seq, seq)
        self.owner = owner
        self.waited_s = waited_s
        self.args = (
            f"thread {thread_id!r}: another run ({owner or 'of an unknown process'}) held it for "
            f"{waited_s:g} s, and is alive; nothing was stored; try again later, or wait longer "
            "with conflict_timeout_s=…",
        )


class ToolInvocationError(GraphError):
    """A tool was called with arguments that do not fit; the message is meant for the model.

    Attributes:
        tool_name: the tool.
        source: why they do not fit.
        tool_kwargs: the arguments that the model gave.
    """

    def __init__(
        self,
        tool_name: str,
        source: Exception,
        tool_kwargs: dict[str, Any],
        shown: str | None = None,
    ) -> None:
        self.tool_name = tool_name
        self.source = source
        self.tool_kwargs = tool_kwargs
        self.message = (
            f"Error invoking tool '{tool_name}' with kwargs {tool_kwargs} with error:\n "
            f"{str(source) if shown is None else shown}\n Please fix the error and try again."
        )
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tool_name, self.source, self.tool_kwargs)


class DrawingError(GraphError, ImportError):
    """A picture or a schema of a graph needs something that is not installed."""


class GraphRecursionError(GraphError, RecursionError):
    """The run took more supersteps than ``recursion_limit`` allows."""

    def __init__(self, limit: int, frontier: tuple[str, ...]) -> None:
        self.limit = limit
        self.frontier = frontier
        super().__init__(
            f"the limit of {limit} supersteps was reached before END; next: {', '.join(frontier)}; "
            "unless the graph loops forever, pass a higher config={'recursion_limit': …}; the "
            "finished supersteps are kept, and invoke(None, config) continues after them"
        )


class NodeTimeoutError(GraphError, TimeoutError):
    """An attempt of a node took longer than its ``timeout``; retried like a transient error.

    Attributes:
        node: the node's name.
        timeout_s: its timeout in seconds; also as ``timeout``.
        kind: ``run``, or ``idle`` if it made no progress for so long.
        run_timeout, idle_timeout: the limits of the node, in seconds.
    """

    def __init__(
        self,
        node: str,
        timeout_s: float,
        *,
        kind: Literal["run", "idle"] = "run",
        run_timeout: float | None = None,
        idle_timeout: float | None = None,
    ) -> None:
        self.node = node
        self.timeout_s = self.timeout = timeout_s
        self.kind = kind
        self.run_timeout = run_timeout
        self.idle_timeout = idle_timeout
        took = "made no progress for" if kind == "idle" else "took longer than its timeout of"
        super().__init__(f"node {node!r} {took} {timeout_s:g} s")

    def __reduce__(self) -> tuple[Any, ...]:
        limits = {name: getattr(self, name) for name in ("kind", "run_timeout", "idle_timeout")}
        return partial(type(self), **limits), (self.node, self.timeout_s)


class GraphBubbleUp(BaseException):
    """Base of what leaves a node without being an error; if you catch it, raise it again."""


class GraphInterrupt(GraphBubbleUp):
    """Raised by ``interrupt()`` to leave the node; if you catch it, raise it again.

    Attributes:
        interrupts: mappings with the ``id`` and ``value`` of each interrupt, as recorded.
    """

    def __init__(self, interrupts: Sequence[Mapping[str, Any]] = ()) -> None:
        self.interrupts = tuple(interrupts)
        super().__init__(f"waiting for {len(self.interrupts)} resume values")


class NodeInterrupt(GraphInterrupt):
    """Raised by a node to interrupt the run, under LangGraph's older name; use ``interrupt()``.

    The node runs again whenever the run continues, and interrupts it again until it no longer
    raises this.

    Attributes:
        value: the interrupt value.
    """

    def __init__(self, value: Any, id: str | None = None) -> None:
        super().__init__()
        self.value = value


class PersistenceConfigError(GraphError):
    """A configuration is invalid. No value is quoted: it might be a password.

    Not a ``ValueError`` on purpose: pydantic wraps those in an error of its own, which prints the
    whole input when the configuration is a field of another model.

    Attributes:
        problems: each begins with the name of the setting that it is about, if there is one.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"invalid persistence configuration: {'; '.join(self.problems)}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)


class WorkflowError(GraphError):
    """A run of a workflow failed; everything recorded before the failure is kept.

    Attributes:
        state: the thread's state right after the failure; ``None`` if it could not be read.
        original_error: the exception; also the ``__cause__``.
    """

    def __init__(
        self, thread_id: str, state: StateSnapshot | None, original_error: Exception
    ) -> None:
        self.thread_id = thread_id
        self.state = state
        self.original_error = original_error
        # Messages end up in logs and trackers, so the state's values stay out of this one.
        next_nodes = state.next if state is not None else ()
        where = f" before {', '.join(map(repr, next_nodes))}" if next_nodes else ""
        cause = f"{type(original_error).__name__}: {original_error}"
        unread = "" if state is not None else " (and the state could not be read)"
        super().__init__(f"thread {thread_id!r} failed{where}: {cause:.{_SHOWN_CHARS_MAX}}{unread}")
        self.__cause__ = original_error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.thread_id, self.state, _portable(self.original_error))


def _portable(error: Exception) -> Exception:
    """The error if it can be pickled, else a stand-in with the same text.

    An exception whose ``__init__`` takes other arguments than it passes to its base cannot be
    unpickled, and a process pool that receives one breaks.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception as reason:
        stand_in = RuntimeError(f"{type(error).__qualname__}: {error}")
        stand_in.add_note(
            f"stand-in for an exception that cannot be pickled ({type(reason).__name__})"
        )
        return stand_in
    return error
