"""The types of the graph API: what nodes return, and what callers get back.

Plain data without behaviour. Names and fields are those of LangGraph, so that code written for it
runs after changing its imports.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, NamedTuple, TypedDict, TypeVar

START: Final = "__start__"
END: Final = "__end__"
INTERRUPT: Final = "__interrupt__"
INPUT: Final = "__input__"
COPY: Final = "__copy__"
OVERWRITE: Final = "__overwrite__"

TAG_NOSTREAM: Final = "nostream"
"""The tag of a model whose tokens the stream mode ``messages`` leaves out."""

TAG_HIDDEN: Final = "langsmith:hidden"
"""The tag of a run that tracers and streams leave out."""

N = TypeVar("N")
ContextT = TypeVar("ContextT")

StreamWriter = Callable[[Any], None]
"""Streams its argument (stream mode ``custom``)."""

All = Literal["*"]
"""Every node, for ``interrupt_before`` and ``interrupt_after``."""

StreamMode = Literal["values", "updates", "tasks", "debug", "checkpoints", "custom", "messages"]

Durability = Literal["sync", "async", "exit"]
"""When the writes of a superstep become durable: before the next one begins, while it runs, or
when the run ends or is interrupted."""


@dataclass(frozen=True, slots=True)
class Send:
    """Run ``node`` in the next superstep with ``arg`` as its input instead of the state."""

    node: str
    arg: Any


@dataclass(frozen=True, slots=True)
class Overwrite:
    """In an update: replaces the value of a key instead of passing it to the key's reducer.

    The other updates of the key in the same superstep are dropped. Two of these for one key in a
    superstep are refused. ``{"__overwrite__": value}`` means the same, for updates from JSON.
    """

    value: Any


@dataclass(frozen=True, kw_only=True)  # slots would break Command[Literal["node"]](…)
class Command(Generic[N]):
    """Returned by a node: write to the state and choose the next nodes. As input: resume a run.

    Attributes:
        update: writes, as a node would return them, or a list of (key, value) pairs; a key with a
            reducer may be there several times.
        goto: a node name, a :class:`Send`, or a sequence of them; they run in addition to the
            targets of the node's own edges.
        resume: only as input: the resume value for the single pending interrupt, or a mapping of
            interrupt ids to resume values.
        graph: ``Command.PARENT`` addresses the graph in which this graph is a node, and ends
            this graph.
    """

    PARENT: ClassVar[Literal["__parent__"]] = "__parent__"

    update: Any = None
    goto: str | Send | Sequence[str | Send] = ()
    resume: Any = None
    graph: str | None = None


def _transient(error: Exception) -> bool:
    """Whether trying again may help: not after programming errors, errors of the operating system
    other than a lost connection or a timeout, and HTTP responses below 500.
    """
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    for module, name in (("httpx", "HTTPStatusError"), ("requests", "HTTPError")):
        if isinstance(error, getattr(sys.modules.get(module), name, ())):
            response = getattr(error, "response", None)
            return response is None or 500 <= response.status_code < 600
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
        | StopAsyncIteration
        | OSError,
    )


class Managed(Enum):
    """A key of the state that the runtime fills in, and nobody writes."""

    REMAINING_STEPS = "remaining_steps"
    IS_LAST_STEP = "is_last_step"

    def value_of(self, remaining: int) -> int | bool:
        """What a node finds under the key with so many supersteps left after its own."""
        return remaining if self is Managed.REMAINING_STEPS else remaining == 1


RemainingSteps = Annotated[int, Managed.REMAINING_STEPS]
"""A key of the state: how many supersteps the run may take after this one."""

IsLastStep = Annotated[bool, Managed.IS_LAST_STEP]
"""A key of the state: whether this is the last superstep that the run should take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutPolicy:
    """How long an attempt of a node may take.

    Attributes:
        run_timeout: seconds (or a ``timedelta``) for the whole attempt.
        idle_timeout: seconds without a sign of progress: something that the node streams, a
            superstep of a graph that it runs, an event of a model or tool of langchain-core, or
            ``runtime.heartbeat()``.
        refresh_on: ``"heartbeat"``: only ``runtime.heartbeat()`` counts as progress.
    """

    run_timeout: float | timedelta | None = None
    idle_timeout: float | timedelta | None = None
    refresh_on: Literal["auto", "heartbeat"] = "auto"


@dataclass(frozen=True, slots=True)
class NodeError:
    """Passed to an ``error_handler`` of a node as ``error``.

    Attributes:
        node: the node that failed.
        error: the exception of its last attempt.
    """

    node: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When and how often a failed task is retried.

    Attributes:
        initial_interval: seconds before the second attempt.
        backoff_factor: each further interval is longer by this factor.
        max_interval: the longest interval in seconds.
        max_attempts: all attempts, the first included.
        jitter: add up to a second at random, so that many tasks do not retry in step.
        retry_on: exception class, classes, or predicate; by default everything but
            programming errors (``ValueError``, ``TypeError``, ``LookupError``, …), HTTP responses
            below 500, and ``OSError`` other than lost connections and timeouts.
    """

    initial_interval: float = 0.5
    backoff_factor: float = 2.0
    max_interval: float = 128.0
    max_attempts: int = 3
    jitter: bool = True
    retry_on: type[Exception] | Sequence[type[Exception]] | Callable[[Exception], bool] = _transient

    def retries(self, error: Exception) -> bool:
        """Whether this policy retries after ``error``."""
        if isinstance(self.retry_on, type):
            return isinstance(error, self.retry_on)
        if isinstance(self.retry_on, Sequence):
            return isinstance(error, tuple(self.retry_on))
        return self.retry_on(error)


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A pause of a node that waits for a resume value, usually from a person.

    Attributes:
        value: the interrupt value: the argument of ``interrupt()``.
        id: identifies this interrupt when several are resumed together.
    """

    value: Any
    id: str = ""


class StateUpdate(NamedTuple):
    """One of the updates of ``bulk_update_state``.

    Attributes:
        values: an update, as a node would return it.
        as_node: the node that the update is attributed to; ``"__input__"``: it is an input, as
            START's edges follow it; ``"__copy__"``, with ``values=None``: copy the checkpoint.
    """

    values: Any
    as_node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionInfo:
    """Where a node runs; usable as an idempotency key for its effects outside.

    Attributes:
        task_id: the same for every attempt of a task, also after a crash or an interrupt.
        thread_id: ``None`` in a graph without a checkpointer.
        node_attempt: 1 for the first attempt.
    """

    checkpoint_id: str
    checkpoint_ns: str
    task_id: str
    thread_id: str | None = None
    run_id: str | None = None
    node_attempt: int = 1

    def patch(self, **overrides: Any) -> ExecutionInfo:
        """The same with other values of some fields."""
        return replace(self, **overrides)


def _nothing() -> None:
    """The heartbeat outside a run."""


def _discard(_chunk: Any) -> None:
    """A writer outside a run."""


@dataclass(frozen=True, kw_only=True)
class Runtime(Generic[ContextT]):
    """Passed to a node that has a parameter ``runtime``; tests of nodes make one by hand.

    Attributes:
        context: the caller's ``context``, converted to ``context_schema``.
        store: an object for what is kept beside threads, if a test or a wrapper sets it; runs
            leave it ``None``, because there is no long-term store.
        stream_writer: streams a value of the node's own (stream mode ``custom``).
        previous: always ``None`` in a run; there is no functional API.
        execution_info: where the node runs; ``None`` outside a run.
        server_info: always ``None``; it is about LangGraph's server.
        heartbeat: call it to say that the node is alive, for an ``idle_timeout``.
    """

    context: ContextT = None  # type: ignore[assignment]
    store: Any = None
    stream_writer: StreamWriter = _discard
    previous: Any = None
    execution_info: ExecutionInfo = None  # type: ignore[assignment]
    server_info: None = None
    heartbeat: Callable[[], None] = _nothing

    def override(self, **overrides: Any) -> Runtime[ContextT]:
        """The same with other values of some fields."""
        return replace(self, **overrides)

    def merge(self, other: Runtime[ContextT]) -> Runtime[ContextT]:
        """Both in one: the values of ``other`` where it has them, else those of this."""
        return Runtime(
            context=other.context or self.context,
            store=other.store or self.store,
            stream_writer=self.stream_writer
            if other.stream_writer is _discard
            else other.stream_writer,
            previous=self.previous if other.previous is None else other.previous,
            execution_info=other.execution_info or self.execution_info,
            heartbeat=self.heartbeat if other.heartbeat is _nothing else other.heartbeat,
        )

    def patch_execution_info(self, **overrides: Any) -> Runtime[ContextT]:
        """The same with other values of some fields of ``execution_info``.

        Raises:
            RuntimeError: it has none.
        """
        if self.execution_info is None:
            raise RuntimeError(
                "this Runtime has no execution_info to patch; pass one: "
                "Runtime(execution_info=ExecutionInfo(…))"
            )
        return replace(self, execution_info=self.execution_info.patch(**overrides))


class RunnableConfig(TypedDict, total=False):
    """The ``config`` of every call: which thread and checkpoint, and how to run."""

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
        path: how it was triggered: by an edge, or by the nth ``Send``.
        error: ``"Type: message"`` of the last failure, unless it was run again since.
        interrupts: its pending interrupts.
        state: the state of the subgraph that it runs, if requested.
        result: the writes of a finished task; ``{"$writes": […]}`` holds those of a key that it
            wrote several times.
    """

    id: str
    name: str
    path: tuple[str | int, ...] = ()
    error: str | None = None
    interrupts: tuple[Interrupt, ...] = ()
    state: Any = None
    result: dict[str, Any] | None = None


@dataclass(frozen=True)
class GraphOutput:
    """What ``invoke(…, version="v2")`` returns.

    Attributes:
        value: the values of the output.
        interrupts: the pending interrupts.
    """

    value: Any
    interrupts: tuple[Interrupt, ...] = ()


PregelTask = StateTask
"""LangGraph's name for :class:`StateTask`."""


class StateSnapshot(NamedTuple):
    """The state of a thread at one checkpoint.

    Attributes:
        values: the state's keys and values; where the config named no checkpoint, with what has
            finished of a superstep that is under way or failed.
        next: nodes that run next; empty when the run is complete.
        config: the config that reads exactly this checkpoint.
        metadata: ``source`` (input, loop, interrupt, update, fork), ``step``, ``run_id`` and the
            caller's ``config["metadata"]`` and ``config["tags"]``.
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
    """One entry of the audit trail: who wrote what, when, and where it led.

    Attributes:
        seq: position in the log.
        kind: ``input``, ``output``, ``error``, ``interrupt``, ``resume``, ``update``, ``fork``.
        recorded_at: ISO 8601, UTC.
        step: the superstep, if the event belongs to one.
        node: the node that wrote, or the ``as_node`` of an update.
        writes: the state keys and values written; ``{"$writes": […]}`` holds those of a key that
            was written several times.
        goto: the nodes scheduled.
        data: the event's whole data.
    """

    seq: int
    kind: str
    recorded_at: str
    step: int | None = None
    node: str | None = None
    writes: dict[str, Any] = field(default_factory=dict)
    goto: tuple[str, ...] = ()
    data: Any = None
