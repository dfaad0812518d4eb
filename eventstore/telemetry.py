"""Traces and metrics, through the OpenTelemetry API if it is installed.

Owns the only import of ``opentelemetry``, and the few terms in which the rest of the library uses
it: operations (a span, and a histogram of their durations), counters, and events on the current
span. Without the API all of them do nothing, and :data:`on` saves callers the preparations. At the
end are the event store's own spans and metrics; a graph's are with the graph.

Labels are few and known beforehand (a node's name, a reason): they go on spans and on metrics.
Other attributes may identify anything (a thread's id): they go on spans only. Values of states,
keys of events, URLs, and messages of errors, which may quote any of them, are never reported.
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

Attributes = Mapping[str, str | bool | int | float]

SCOPE: Final = "graph-eventstore"
THREAD: Final = "eventstore.thread.id"

_BOUNDS_S: Final = [
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
]
"""Bounds of histograms, from an append to a file to the answer of a model. (OpenTelemetry's
defaults are meant for milliseconds.)"""

_NONE: Final[Attributes] = {}
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


def is_reporting() -> bool:
    """Whether the application has set a provider. Without one the API drops what it is given, which
    takes a tenth of a superstep's time.
    """
    global _has_provider
    if on and not _has_provider:  # one that was set stays
        found = trace.get_tracer_provider(), metrics.get_meter_provider()
        _has_provider = not all(map(_drops, found))
    return _has_provider


_has_provider = False


def _drops(provider: object) -> bool:
    """Whether a provider is one of the API's own."""
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


class Span:
    """An operation under way. This one does nothing: there is nobody to report to.

    As a context manager it is the current span of the code inside, and ends with it: spans that
    begin there, in tasks and threads too, are its children. A generator runs in the context of
    its consumer; for it there is :meth:`over`.
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
        """Make it the current span; it ends here only if the code inside fails."""
        return _NOWHERE

    def over(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The items, each produced inside the span, which is left while the consumer has them.

        It ends with the last item, or when the consumer stops. A stream that is never started is
        not reported. (Python may drop such a generator at any moment, even while this thread
        holds a lock of the SDK: no place to end a span.)
        """
        return items

    def set(self, attributes: Attributes) -> None:
        """Set attributes that are known only now."""

    def count(self, attribute: str, amount: int) -> None:
        """Add to an attribute, which is set when the span ends."""

    def fail(self, error: BaseException) -> None:
        """Record that the operation failed, where the error is not raised."""


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

    def __init__(self, name: str, attributes: Attributes, labels: Attributes, seconds: Any) -> None:
        self._span = _tracer.start_span(
            name, attributes={**labels, **attributes} if labels else attributes
        )
        # Without an SDK, and outside any trace, it cannot have children.
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
                token = self._is_known and self._attach()
                raised: BaseException | None = None
                try:
                    item = await anext(items, _END)
                except BaseException as error:
                    raised = error
                    self._end(error)
                    raise
                finally:
                    if token:
                        self._detach(token, raised)
                if item is _END:
                    return
                yield item
        finally:
            with self.current():
                await items.aclose()
            self._end(None)

    def set(self, attributes: Attributes) -> None:
        if self._is_known:
            self._span.set_attributes(attributes)

    def count(self, attribute: str, amount: int) -> None:
        counts = self._counts = self._counts or {}
        counts[attribute] = counts.get(attribute, 0) + amount

    def fail(self, error: BaseException) -> None:
        self._error = error

    def _attach(self) -> Any:
        return self._is_known and context.attach(trace.set_span_in_context(self._span))

    def _detach(self, token: Any, error: BaseException | None) -> None:
        if not token:
            return
        # An abandoned coroutine is closed from anywhere: that is not its context.
        if isinstance(error, GeneratorExit) and trace.get_current_span() is not self._span:
            return
        context.detach(token)

    def _end(self, error: BaseException | None) -> None:
        if self._ended:
            return
        self._ended = True
        labels, error = self._labels, error or self._error
        if isinstance(error, Exception):  # others, such as a cancellation, are not failures
            labels = {**labels, "error.type": kind_of(error)}
            self._span.set_attribute("error.type", kind_of(error))
            self._span.set_status(trace.StatusCode.ERROR)
        if self._counts:
            self.set(self._counts)
        self._seconds.record(perf_counter() - self._began, labels)
        self._span.end()


class Operation:
    """A kind of operation: a span each time, and a histogram of their durations."""

    def __init__(self, name: str, description: str) -> None:
        self._name = name
        if on:
            self._seconds = _meter.create_histogram(f"{name}.duration", "s", description, **_BOUNDS)

    def begin(
        self, attributes: Attributes = _NONE, labels: Attributes = _NONE, of: str = ""
    ) -> Span:
        """A span for one operation; ``of`` is added to its name: what it works on."""
        if not is_reporting():
            return NOTHING
        name = f"{self._name} {of}" if of else self._name
        return _Recorded(name, attributes, labels, self._seconds)


class Counter:
    """A metric that only grows."""

    def __init__(self, name: str, unit: str, description: str) -> None:
        if on:
            self._counter = _meter.create_counter(name, unit, description)

    def add(self, amount: int, labels: Attributes = _NONE) -> None:
        """Add to the count."""
        if on:
            self._counter.add(amount, labels)


def add_event(name: str, attributes: Attributes) -> None:
    """Add an event to the current span, ours or the application's."""
    if on:
        trace.get_current_span().add_event(name, attributes)


def kind_of(error: BaseException) -> str:
    """The name of an error's class, the only thing reported about an error."""
    kind = type(error)
    plain = kind.__module__ == "builtins"
    return kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}"


def place(tenant: str, thread_id: str, ns: str) -> dict[str, str | int]:
    """The attributes that identify a log."""
    return {
        THREAD: named(thread_id),
        "eventstore.namespace": named(ns),
        "eventstore.tenant": tenant,
    }


def named(name: object) -> str:
    """A name as it can be exported, also one that no store accepts."""
    text = str(name)
    # Callers may pass invalid Unicode, which makes exporters fail.
    return text if text.isascii() else text.encode(errors="replace").decode()


# --- spans and metrics of the event store -----------------------------------------------

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
    """A span for an append, from encoding to the commit."""
    if not additions or not is_reporting():
        return NOTHING
    head = additions[0].head
    attributes = place(tenant, head.thread_id, head.ns)
    attributes["eventstore.events"] = sum(len(each.events) for each in additions)
    return _APPEND.begin(attributes)


def appended(span: Span, additions: Sequence[Addition], heads: Sequence[Head]) -> None:
    """Count an append that was committed."""
    if span is NOTHING:
        return
    written = sum(each.written for each in heads)
    span.set({"eventstore.seq": heads[0].seq, "eventstore.bytes": written})
    _appended_events.add(sum(len(each.events) for each in additions))
    _appended_bytes.add(written)
    for snapshot in [each.snapshot for each in additions if each.snapshot is not None]:
        span.count("eventstore.snapshot.bytes", snapshot.size)
        stored(snapshot)


def conflict() -> None:
    """Count an append that was refused because another writer was first."""
    _conflicts.add(1)


def retry(reason: str, sqlstate: str | None, attempt: int) -> None:
    """Count a transaction that failed and is tried again."""
    if on:
        labels = {"eventstore.retry.reason": reason}
        if sqlstate is not None:
            labels["db.response.status_code"] = sqlstate
        _retries.add(1, labels)
        add_event("eventstore.retry", {**labels, "eventstore.retry.attempt": attempt})


def stored(snapshot: NewSnapshot) -> None:
    """Count a snapshot that was stored."""
    _snapshots.add(1)
    _snapshot_bytes.add(snapshot.size)


def snapshot(tenant: str, head: Head, snapshot: NewSnapshot) -> Span:
    """A span for storing a snapshot apart from an append."""
    if not is_reporting():
        return NOTHING
    attributes = place(tenant, head.thread_id, head.ns)
    attributes |= {"eventstore.seq": head.seq, "eventstore.snapshot.bytes": snapshot.size}
    return _SNAPSHOT.begin(attributes)


def replay(tenant: str, thread_id: str, ns: str) -> Span:
    """A span for a replay, from finding where to start to the last event."""
    return _REPLAY.begin(place(tenant, thread_id, ns)) if is_reporting() else NOTHING


def starts_at(span: Span, snapshot: Snapshot) -> None:
    """Record that a replay starts at a snapshot."""
    if span is not NOTHING:
        size = len(snapshot.state) + sum(map(len, snapshot.items))
        seq = snapshot.position.seq
        span.set({"eventstore.snapshot.seq": seq, "eventstore.snapshot.bytes": size})


def read(span: Span, rows: Sequence[SqlRow]) -> None:
    """Count events that were read."""
    if is_reporting():
        payloads = [row[-1] for row in rows]
        size = sum(len(each) for each in payloads if type(each) is bytes)  # others are damaged
        # A segment holds many. The class is asked: what a row lacks takes long to be missed.
        count = sum(row.events if hasattr(type(row), "events") else 1 for row in rows)
        span.count("eventstore.events", count)
        span.count("eventstore.bytes", size)
        _replayed_events.add(count)
        _replayed_bytes.add(size)
