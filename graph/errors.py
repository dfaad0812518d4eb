"""Every error that the graph raises on purpose, as one tree.

    GraphError
    ├── InvalidGraphError      the graph as declared cannot run
    ├── InvalidUpdateError     an update does not fit the state
    ├── InvalidConfigError     the config names no thread, or a checkpoint that does not fit it
    ├── EmptyInputError        nothing to resume, and no input
    ├── GraphRecursionError    more supersteps than ``recursion_limit``
    ├── NodeTimeoutError       a node took longer than its ``timeout``
    ├── PersistenceConfigError the configuration of a deployment makes no sense
    └── WorkflowError          a run of a ``ProductionWorkflow`` failed

:class:`GraphInterrupt` is no error but how a node is left while a person is asked. It is no
``Exception`` either, so that a node's own ``except Exception`` does not swallow the question.

What a node itself raises is passed on as it is, with a note that names node and thread; only
a ``ProductionWorkflow`` wraps it, in a ``WorkflowError``.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from graph.types import StateSnapshot

_SHOWN_CHARS_MAX: Final = 500


class GraphError(Exception):
    """Base of everything that this package raises on purpose."""


class InvalidGraphError(GraphError, ValueError):
    """The graph as declared cannot run; the message names the node or edge and the remedy."""


class InvalidUpdateError(GraphError, ValueError):
    """An update does not fit the state: an unknown key, or two writers without a reducer."""


class InvalidConfigError(GraphError, ValueError):
    """The config names no thread, or a checkpoint that does not belong to it."""


class EmptyInputError(GraphError):
    """``invoke(None, …)`` on a thread that has nothing to resume."""


class GraphRecursionError(GraphError, RecursionError):
    """The run took more supersteps than ``recursion_limit`` allows."""

    def __init__(self, limit: int, frontier: tuple[str, ...]) -> None:
        self.limit = limit
        self.frontier = frontier
        super().__init__(
            f"{limit} supersteps without reaching END; next would be {', '.join(frontier)}. "
            "If that is no endless loop, pass a higher limit: config={'recursion_limit': …}; "
            "what was done so far is kept, and invoke(None, config) goes on from there."
        )


class NodeTimeoutError(GraphError, TimeoutError):
    """An attempt of a node took longer than its ``timeout``; retried like any fault from outside.

    Attributes:
        node: which.
        timeout_s: the seconds that it had.
    """

    def __init__(self, node: str, timeout_s: float) -> None:
        self.node = node
        self.timeout_s = timeout_s
        super().__init__(f"node {node!r} took longer than its timeout of {timeout_s:g} s")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.node, self.timeout_s)


class GraphInterrupt(BaseException):
    """Raised by ``interrupt()`` through the node that asks; catch it only to raise it again.

    Attributes:
        interrupts: what is asked: dictionaries with ``id`` and ``value``, as they are recorded.
    """

    def __init__(self, interrupts: Sequence[Mapping[str, Any]] = ()) -> None:
        self.interrupts = tuple(interrupts)
        super().__init__(f"waiting for {len(self.interrupts)} answers")


class PersistenceConfigError(GraphError):
    """A configuration makes no sense. No value is quoted: one of them may be a password.

    Deliberately no ``ValueError``: out of one of those pydantic makes an error of its own, which
    carries the whole input along and prints it when the model is a field of another one.

    Attributes:
        problems: what is wrong, each beginning with the name of the setting, if it is about one.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"invalid persistence configuration: {'; '.join(self.problems)}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)


class WorkflowError(GraphError):
    """A run of a workflow failed; what it had recorded until then is kept.

    Attributes:
        state: of the thread, right after the failure; ``None`` where it could not be read.
        original_error: what was raised; the ``__cause__`` too.
    """

    def __init__(
        self, thread_id: str, state: StateSnapshot | None, original_error: Exception
    ) -> None:
        self.thread_id = thread_id
        self.state = state
        self.original_error = original_error
        # The state's values are in `state` and not in the text: texts of errors end up in logs
        # and trackers, and what people told a workflow is nobody's business there.
        next_nodes = state.next if state is not None else ()
        where = f" before {', '.join(map(repr, next_nodes))}" if next_nodes else ""
        cause = f"{type(original_error).__name__}: {original_error}"
        unread = "" if state is not None else " (and the state could not be read)"
        super().__init__(f"thread {thread_id!r} failed{where}: {cause:.{_SHOWN_CHARS_MAX}}{unread}")
        self.__cause__ = original_error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.thread_id, self.state, _portable(self.original_error))


def _portable(error: Exception) -> Exception:
    """The error if it survives pickling, else one that says the same.

    Many do not: an exception whose ``__init__`` takes other arguments than it hands on cannot
    be unpickled, and a pool of processes that is sent one breaks.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception as reason:
        stand_in = RuntimeError(f"{type(error).__qualname__}: {error}")
        stand_in.add_note(f"(a stand-in: the original cannot be pickled, {type(reason).__name__})")
        return stand_in
    return error
