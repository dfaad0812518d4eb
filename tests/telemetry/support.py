"""What the library tells of itself: traces, metrics and log records, and what it keeps quiet.

Spans go through the SDK to an exporter of each test's own. Metrics go where the process sends
them, which can be said once only: to a reader that gives what came since it was last asked.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable
from typing import Annotated, Any, Final, TypedDict

from opentelemetry import trace
from opentelemetry.sdk.metrics import Counter as SdkCounter
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from graph import START, CompiledGraph, StateGraph

SECRET: Final = "sk-94f1"


_DELTA: Final = AggregationTemporality.DELTA
_READER: Final = InMemoryMetricReader({SdkCounter: _DELTA, SdkHistogram: _DELTA})


class Told:
    """What was told since the test began."""

    def __init__(self, exporter: InMemorySpanExporter, tracer: trace.Tracer) -> None:
        self._exporter = exporter
        self.tracer = tracer

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, by when they began."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        """The only span of that name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def lines(self, of: ReadableSpan | None = None, depth: int = 0) -> list[str]:
        """The spans as a tree, one line each."""
        found = []
        for span in self.spans:
            if (span.parent and span.parent.span_id) == (of and of.context.span_id):
                found += ["  " * depth + span.name, *self.lines(span, depth + 1)]
        return found

    def parents(self) -> set[tuple[str, str]]:
        """Each span's name, and its parent's."""
        names = {span.context.span_id: span.name for span in self.spans}
        return {(s.name, names[s.parent.span_id] if s.parent else "") for s in self.spans}

    def metrics(self) -> dict[str, dict[tuple[tuple[str, Any], ...], Any]]:
        """What was measured since this was last asked: a sum, or how many durations."""
        found: dict[str, dict[tuple[tuple[str, Any], ...], Any]] = defaultdict(dict)
        data: Any = _READER.get_metrics_data()
        for scope in (s for r in data.resource_metrics for s in r.scope_metrics) if data else ():
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    labels = tuple(sorted((point.attributes or {}).items()))
                    value = getattr(point, "value", None)
                    found[metric.name][labels] = point.count if value is None else value
        return found

    def everything(self) -> str:
        """All of it, as it would be sent."""
        data: Any = _READER.get_metrics_data()
        return "\n".join([*(span.to_json() for span in self.spans), data.to_json() if data else ""])


class Notes(TypedDict, total=False):
    text: str
    log: Annotated[list[str], operator.add]


def node(name: str, inside: Callable[[], Any] = lambda: None) -> Callable[[Notes], Notes]:
    """A node that does something and logs its name."""

    def work(_state: Notes) -> Notes:
        inside()
        return {"log": [name]}

    return work


def chain(checkpointer: Any, *nodes: tuple[str, Any], **options: Any) -> CompiledGraph:
    """Nodes one after the other."""
    graph = StateGraph(Notes)
    graph.add_sequence(nodes)
    graph.add_edge(START, nodes[0][0])
    return graph.compile(checkpointer=checkpointer, **options)


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})
