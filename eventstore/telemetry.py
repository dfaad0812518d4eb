"""Traces and metrics, through the OpenTelemetry API where that is installed.

Owns the only import of ``opentelemetry``, and the few words in which the rest of the library
speaks of it: operations (a span, and a histogram of their durations), counters, and notes on
the span under way. Without the API all of them do nothing, and :data:`on` spares callers even
the preparations. At the end: what an event store tells of itself; what a graph tells is there.

Labels are few and known beforehand (a node's name, a reason): they go on spans and on metrics.
Facts may be anything that tells one thing from another (a thread's id): they go on spans only.
Values of states, keys of events, URLs, and what errors say, which may quote any of them, go
nowhere.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

try:
    from opentelemetry import context, metrics, trace
except ImportError:
    on = False
else:
    on = True

if TYPE_CHECKING:
    from eventstore.models import Addition, Head, NewSnapshot, Snapshot, SqlRow

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

Facts = Mapping[str, str | bool | int | float]

SCOPE: Final = "graph-eventstore"
THREAD: Final = "eventstore.thread.id"

_BOUNDS_S: Final = [
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
]
"""Of histograms: from an append to a file to a model that thinks. (OpenTelemetry's own bounds
are made for milliseconds.)"""

_NONE: Final[Facts] = {}
_END: Final[Any] = object()
_NOWHERE: Final = nullcontext()

if on:
    _tracer = trace.get_tracer(SCOPE)
    _meter = metrics.get_meter(SCOPE)
    _hint = "explicit_bucket_boundaries_advisory"  # of the API since 1.30
    _BOUNDS: Final[dict[str, Any]] = (
        {_hint: _BOUNDS_S}
        if _hint in inspect.signature(metrics.Meter.create_histogram).parameters
        else {}
    )


class Span:
    """An operation under way. This one, for when nobody can listen, does nothing.

    As a context manager it is what the code inside runs in, and ends with it: whatever begins
    there, in tasks and threads too, belongs to it. For a generator, which runs in the context
    of whoever asks for the next item, there is :meth:`over`.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """End it."""

    def current(self) -> AbstractContextManager[None]:
        """What is inside runs in it; it ends there only if that fails."""
        return _NOWHERE

    def over(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The items, each made inside the span, which is left while the caller has them.

        It ends with the last one, or when the caller stops asking. Of a stream that is never
        asked for anything, nothing is told. (Python may drop such a thing at any moment, even
        while this thread holds a lock of the SDK's: no place to end a span.)
        """
        return items

    def tell(self, facts: Facts) -> None:
        """Add facts, known only now."""

    def count(self, fact: str, amount: int) -> None:
        """Add to a number, told when it ends."""

    def fail(self, error: BaseException) -> None:
        """Note that the operation failed, where the error is not raised."""


NOTHING: Final = Span()


class _Recorded(Span):
    """A span of the API."""

    __slots__ = (
        "_began",
        "_counts",
        "_ended",
        "_error",
        "_is_known",
        "_labels",
        "_seconds",
        "_span",
        "_token",
    )

    def __init__(self, name: str, facts: Facts, labels: Facts, seconds: Any) -> None:
        self._span = _tracer.start_span(name, attributes={**labels, **facts} if labels else facts)
        # Without an SDK, and outside any trace, there is nothing that others could belong to.
        self._is_known: bool = self._span.get_span_context().is_valid
        self._labels = labels
        self._seconds = seconds
        self._error: BaseException | None = None
        self._counts: dict[str, int] | None = None
        self._token: Any = None
        self._began = perf_counter()
        self._ended = False

    def __enter__(self) -> Self:
        self._token = self._attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._end(error)  # while it is current, so that the histogram can point to it
        self._detach(self._token, error)

    @contextmanager
    def current(self) -> Iterator[None]:
        token = self._attach()
        raised: BaseException | None = None
        try:
            yield
        except BaseException as error:
            raised = error
            self._end(error)
            raise
        finally:
            self._detach(token, raised)

    async def over(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        try:
            while True:
                with self.current():
                    item = await anext(items, _END)
                if item is _END:
                    return
                yield item
        finally:
            with self.current():
                await items.aclose()
            self._end(None)

    def tell(self, facts: Facts) -> None:
        if self._is_known:
            self._span.set_attributes(facts)

    def count(self, fact: str, amount: int) -> None:
        counts = self._counts = self._counts or {}
        counts[fact] = counts.get(fact, 0) + amount

    def fail(self, error: BaseException) -> None:
        self._error = error

    def _attach(self) -> Any:
        return self._is_known and context.attach(trace.set_span_in_context(self._span))

    def _detach(self, token: Any, error: BaseException | None) -> None:
        if not token:
            return
        # A coroutine that nobody will run on is closed from anywhere: that is not its context.
        if isinstance(error, GeneratorExit) and trace.get_current_span() is not self._span:
            return
        context.detach(token)

    def _end(self, error: BaseException | None) -> None:
        if self._ended:
            return
        self._ended = True
        labels, error = self._labels, error or self._error
        if isinstance(error, Exception):  # others, such as a cancellation, are no failures
            labels = {**labels, "error.type": kind_of(error)}
            self._span.set_attribute("error.type", kind_of(error))
            self._span.set_status(trace.StatusCode.ERROR)
        if self._counts:
            self.tell(self._counts)
        self._seconds.record(perf_counter() - self._began, labels)
        self._span.end()


class Operation:
    """Something that takes time: each time a span, all together a histogram of durations."""

    def __init__(self, name: str, description: str) -> None:
        self._name = name
        if on:
            self._seconds = _meter.create_histogram(f"{name}.duration", "s", description, **_BOUNDS)

    def begin(self, facts: Facts = _NONE, labels: Facts = _NONE, of: str = "") -> Span:
        """A span for one time; ``of`` says in its name what it is done to."""
        if not on:
            return NOTHING
        name = f"{self._name} {of}" if of else self._name
        return _Recorded(name, facts, labels, self._seconds)


class Counter:
    """Adds up."""

    def __init__(self, name: str, unit: str, description: str) -> None:
        if on:
            self._counter = _meter.create_counter(name, unit, description)

    def add(self, amount: int, labels: Facts = _NONE) -> None:
        """Add to what all processes count together."""
        if on:
            self._counter.add(amount, labels)


def note(name: str, facts: Facts) -> None:
    """Something that happened in the span under way, be that ours or the application's."""
    if on:
        trace.get_current_span().add_event(name, facts)


def kind_of(error: BaseException) -> str:
    """The name of an error's class: what may be said of an error."""
    kind = type(error)
    plain = kind.__module__ == "builtins"
    return kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}"


def place(tenant: str, thread_id: str, ns: str) -> dict[str, str | int]:
    """The facts that say which log this is about."""
    return {
        THREAD: named(thread_id),
        "eventstore.namespace": named(ns),
        "eventstore.tenant": tenant,
    }


def named(name: object) -> str:
    """A name as it may be told, also one that no store will take."""
    text = str(name)
    # From outside may come what is not valid Unicode, over which an exporter would stumble.
    return text if text.isascii() else text.encode(errors="replace").decode()


# --- what an event store tells ----------------------------------------------------------

_APPEND: Final = Operation("eventstore.append", "Time to append a batch of events.")
_REPLAY: Final = Operation(
    "eventstore.replay", "Time to read what a state is folded from, and to fold it meanwhile."
)
_SNAPSHOT: Final = Operation("eventstore.snapshot", "Time to store a snapshot by itself.")

_appended_events: Final = Counter("eventstore.appended.events", "{event}", "Events appended.")
_appended_bytes: Final = Counter(
    "eventstore.appended.bytes", "By", "Stored bytes of the payloads appended."
)
_replayed_events: Final = Counter("eventstore.replayed.events", "{event}", "Events read back.")
_replayed_bytes: Final = Counter(
    "eventstore.replayed.bytes", "By", "Stored bytes of the payloads read back."
)
_snapshots: Final = Counter("eventstore.snapshots", "{snapshot}", "Snapshots stored.")
_snapshot_bytes: Final = Counter("eventstore.snapshot.bytes", "By", "Bytes of snapshots stored.")
_conflicts: Final = Counter(
    "eventstore.conflicts", "{append}", "Appends refused because another writer was first."
)
_retries: Final = Counter("eventstore.retries", "{retry}", "Transactions that were tried again.")


def append(tenant: str, additions: Sequence[Addition]) -> Span:
    """An append, from encoding to the commit."""
    if not on or not additions:
        return NOTHING
    head = additions[0].head
    facts = place(tenant, head.thread_id, head.ns)
    facts["eventstore.events"] = sum(len(each.events) for each in additions)
    return _APPEND.begin(facts)


def appended(span: Span, additions: Sequence[Addition], heads: Sequence[Head]) -> None:
    """An append was committed."""
    if not on:
        return
    written = sum(each.written for each in heads)
    span.tell({"eventstore.seq": heads[0].seq, "eventstore.bytes": written})
    _appended_events.add(sum(len(each.events) for each in additions))
    _appended_bytes.add(written)
    for snapshot in [each.snapshot for each in additions if each.snapshot is not None]:
        span.count("eventstore.snapshot.bytes", snapshot.size)
        stored(snapshot)


def conflict() -> None:
    """Another writer was first."""
    _conflicts.add(1)


def retry(reason: str, sqlstate: str | None, attempt: int) -> None:
    """A transaction failed like this, and is tried again."""
    if on:
        labels = {"eventstore.retry.reason": reason}
        if sqlstate is not None:
            labels["db.response.status_code"] = sqlstate
        _retries.add(1, labels)
        note("eventstore.retry", {**labels, "eventstore.retry.attempt": attempt})


def stored(snapshot: NewSnapshot) -> None:
    """A snapshot was stored."""
    _snapshots.add(1)
    _snapshot_bytes.add(snapshot.size)


def snapshot(tenant: str, head: Head, snapshot: NewSnapshot) -> Span:
    """The storing of a snapshot by itself."""
    if not on:
        return NOTHING
    facts = place(tenant, head.thread_id, head.ns)
    facts |= {"eventstore.seq": head.seq, "eventstore.snapshot.bytes": snapshot.size}
    return _SNAPSHOT.begin(facts)


def replay(tenant: str, thread_id: str, ns: str) -> Span:
    """The replay of a log, from looking for where to begin to the last event."""
    return _REPLAY.begin(place(tenant, thread_id, ns)) if on else NOTHING


def begins_with(span: Span, snapshot: Snapshot) -> None:
    """A replay begins with a snapshot."""
    if on:
        size = len(snapshot.state) + sum(map(len, snapshot.items))
        seq = snapshot.position.seq
        span.tell({"eventstore.snapshot.seq": seq, "eventstore.snapshot.bytes": size})


def read(span: Span, rows: Sequence[SqlRow]) -> None:
    """Events were read."""
    if on:
        payloads = [row.payload for row in rows]
        size = sum(len(each) for each in payloads if type(each) is bytes)  # others are damage
        count = sum(getattr(row, "events", 1) for row in rows)  # a segment holds many
        span.count("eventstore.events", count)
        span.count("eventstore.bytes", size)
        _replayed_events.add(count)
        _replayed_bytes.add(size)
