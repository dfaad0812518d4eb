"""Metrics are told apart by little, and durations have bounds that fit."""

from __future__ import annotations

from typing import Any, Final

from eventstore import (
    EventStore,
    telemetry,
)
from tests.graph.kit import on
from tests.telemetry.support import _READER, Told, chain, node

LABELS: Final = {
    "graph.name",
    "graph.node",
    "error.type",
    "eventstore.retry.reason",
    "db.response.status_code",
}
"""All that metrics may be told apart by: few values each, and none that names a thread."""


def test_metrics_are_told_apart_by_little(told: Told, store_url: str) -> None:
    with EventStore(store_url, tenant="test") as store:
        app = chain(store, ("one", node("one")))
        for number in range(5):
            app.invoke({"text": "x" * 100_000}, on(f"t{number}"))
    measured = told.metrics()
    used = {key for points in measured.values() for labels in points for key, _ in labels}
    assert used <= LABELS
    assert all(len(points) == 1 for points in measured.values())
    assert measured["graph.run.duration"] == {(("graph.name", "LangGraph"),): 5}


def test_durations_are_seconds_with_bounds_that_fit(told: Told) -> None:
    chain(EventStore(), ("one", node("one"))).invoke({}, on("t"))
    data: Any = _READER.get_metrics_data()
    (scope,) = data.resource_metrics[0].scope_metrics
    durations = [metric for metric in scope.metrics if metric.name.endswith(".duration")]
    assert {metric.name for metric in durations} == {
        "eventstore.append.duration",
        "eventstore.replay.duration",
        "graph.run.duration",
        "graph.task.duration",
    }
    for metric in durations:
        assert metric.unit == "s"
        for point in metric.data.data_points:
            assert 0 < point.sum < 60
            assert tuple(point.explicit_bounds) == tuple(telemetry._BOUNDS_S)
