"""The words of the graph API: what nodes return and what callers get back.

Plain data, no behaviour. Names and fields are those that LangGraph's users know, so
that their code runs with its imports changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, Literal, NamedTuple, TypedDict, TypeVar

START: Final = "__start__"
END: Final = "__end__"
INTERRUPT: Final = "__interrupt__"

N = TypeVar("N")
ContextT = TypeVar("ContextT")

StreamMode = Literal["values", "updates", "tasks", "debug", "checkpoints", "custom"]

Durability = Literal["sync", "async", "exit"]
"""When what a run did becomes durable: before the next superstep begins, while it runs, or once
the run ends or stops."""


@dataclass(frozen=True, slots=True)
class Send:
    """Run ``node`` in the next superstep with ``arg`` as its input instead of the state."""

    node: str
    arg: Any


@dataclass(frozen=True, kw_only=True)  # slots would break Command[Literal["node"]](…)
class Command(Generic[N]):
    """What a node may return to write to the state and choose where to go at once; and, as an
    input, what answers the questions of a run that waits.

    Attributes:
        update: writes, as a node would return them.
        goto: a node name, a :class:`Send`, or a sequence of them; they run beside the
            targets of the node's own edges.
        resume: as an input: the answer to the one question that waits, or a mapping of the ids
            of questions to their answers.
        graph: ``Command.PARENT``: the graph in which this graph is a node is meant. This graph
            ends with it.
    """

    PARENT: ClassVar[Literal["__parent__"]] = "__parent__"

    update: Any = None
    goto: str | Send | Sequence[str | Send] = ()
    resume: Any = None
    graph: str | None = None


def _transient(error: Exception) -> bool:
    """Faults of the outside world are worth another try; faults of the program are not."""
    return not isinstance(
        error,
        ValueError
        | TypeError
        | ArithmeticError
        | ImportError
        | LookupError
        | NameError
        | SyntaxError
        | RuntimeError
        | ReferenceError
        | StopIteration
        | StopAsyncIteration,
    )


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When and how often a failed task is tried again.

    Attributes:
        initial_interval: seconds before the second attempt.
        backoff_factor: each further wait is this much longer.
        max_interval: seconds; no wait is longer.
        max_attempts: attempts in all, the first included.
        jitter: add up to a second at random, so that many tasks do not retry in step.
        retry_on: exception class, classes, or predicate; by default everything but
            programming errors (``ValueError``, ``TypeError``, ``LookupError``, …).
    """

    initial_interval: float = 0.5
    backoff_factor: float = 2.0
    max_interval: float = 128.0
    max_attempts: int = 3
    jitter: bool = True
    retry_on: type[Exception] | Sequence[type[Exception]] | Callable[[Exception], bool] = _transient

    def retries(self, error: Exception) -> bool:
        """Whether this policy tries again after ``error``."""
        if isinstance(self.retry_on, type):
            return isinstance(error, self.retry_on)
        if isinstance(self.retry_on, Sequence):
            return isinstance(error, tuple(self.retry_on))
        return self.retry_on(error)


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A question to a person.

    Attributes:
        value: what was shown.
        id: names this interrupt when several are answered together.
    """

    value: Any
    id: str = ""


class StateUpdate(NamedTuple):
    """One of the updates that ``bulk_update_state`` makes.

    Attributes:
        values: an update, as a node would return it.
        as_node: whose update it is taken to be.
    """

    values: Any
    as_node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionInfo:
    """Where a node runs: what it can name its own outside effects by.

    Attributes:
        task_id: the same for every attempt of a task, also after a crash or an interrupt.
        thread_id: ``None`` in a graph that keeps no state.
        node_attempt: 1 for the first.
    """

    checkpoint_id: str
    checkpoint_ns: str
    task_id: str
    thread_id: str | None = None
    run_id: str | None = None
    node_attempt: int = 1


@dataclass(frozen=True, kw_only=True)
class Runtime(Generic[ContextT]):
    """What a node that has a parameter ``runtime`` is given.

    Attributes:
        context: what the caller passed as ``context``, in the form of ``context_schema``.
        stream_writer: streams something of the node's own (stream mode ``custom``).
        execution_info: where it runs.
    """

    context: ContextT
    stream_writer: Callable[[Any], None]
    execution_info: ExecutionInfo


class RunnableConfig(TypedDict, total=False):
    """What every call takes: where the state lives, and how to run."""

    configurable: dict[str, Any]
    recursion_limit: int
    max_concurrency: int | None
    metadata: dict[str, Any]
    tags: list[str]
    run_id: Any
    run_name: str
    callbacks: Any


class StateTask(NamedTuple):
    """One task of a superstep, as ``StateSnapshot.tasks`` shows it.

    Attributes:
        id: stable within the checkpoint.
        name: the node.
        path: how it was triggered: by an edge, or the nth ``Send``.
        error: ``"Type: message"`` of the last failure, if it failed and was not run again.
        interrupts: what it asks of a person.
        state: the state of the subgraph it runs, when asked for.
        result: the writes of a finished task.
    """

    id: str
    name: str
    path: tuple[str | int, ...] = ()
    error: str | None = None
    interrupts: tuple[Interrupt, ...] = ()
    state: Any = None
    result: dict[str, Any] | None = None


class StateSnapshot(NamedTuple):
    """The state of a thread at one checkpoint.

    Attributes:
        values: the state's keys and values.
        next: nodes that run next; empty when the run is complete.
        config: the config that reads this very checkpoint.
        metadata: ``source`` (input, loop, interrupt, update, fork), ``step``, ``run_id`` and what
            the caller gave as ``config["metadata"]`` and ``config["tags"]``.
        created_at: ISO 8601, UTC.
        parent_config: the config of the checkpoint before it in the lineage.
        tasks: the tasks of the superstep that follows, finished or not.
        interrupts: all pending interrupts of these tasks.
    """

    values: dict[str, Any]
    next: tuple[str, ...]
    config: RunnableConfig
    metadata: dict[str, Any] | None
    created_at: str | None
    parent_config: RunnableConfig | None
    tasks: tuple[StateTask, ...] = ()
    interrupts: tuple[Interrupt, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit trail: who did what, when, after which decision.

    Attributes:
        seq: position in the log.
        kind: ``input``, ``output``, ``error``, ``interrupt``, ``resume``, ``update``, ``fork``
        recorded_at: ISO 8601, UTC.
        step: the superstep it belongs to, where it belongs to one.
        node: the node that wrote, or the ``as_node`` of an update.
        writes: what it wrote.
        goto: where its edges led.
        data: everything that the event holds.
    """

    seq: int
    kind: str
    recorded_at: str
    step: int | None = None
    node: str | None = None
    writes: dict[str, Any] = field(default_factory=dict)
    goto: tuple[str, ...] = ()
    data: Any = None
