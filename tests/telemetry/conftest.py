"""Spans of each test, and metrics of the process."""

from __future__ import annotations

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from eventstore import (
    telemetry,
)
from tests.telemetry.support import _READER, Told


@pytest.fixture(scope="session", autouse=True)
def metered() -> None:
    """Have this process's metrics read."""
    metrics.set_meter_provider(MeterProvider(metric_readers=[_READER], shutdown_on_exit=False))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Where this test's spans and metrics go."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    monkeypatch.setattr(telemetry, "_tracer", tracer)
    _READER.get_metrics_data()
    return Told(exporter, tracer)
