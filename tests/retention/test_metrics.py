"""Metrics over HTTP, and the health check."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from eventstore import ConfigurationError
from retention import SweepReport
from retention.metrics import Endpoint, Metrics

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def get(port: int, path: str) -> tuple[int, str]:
    """The status and body of a response."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_what_sweeps_did_is_told() -> None:
    clock = [1_000.0]
    metrics = Metrics(clock=lambda: clock[0])
    metrics.swept(
        SweepReport(NOW, pruned=3, trimmed=2, failed=1, left=1, reclaimed=4096, seconds=7)
    )
    metrics.failed()
    metrics.swept(SweepReport(NOW, pruned=2, sealed=5, archived=2, left=4, stopped=True))
    with Endpoint(metrics, port=0) as endpoint:
        status, text = get(endpoint.port, "/metrics")
        assert get(endpoint.port, "/")[0] == 404
    said = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert status == 200
    expected = {
        'retention_threads_total{outcome="pruned"}': 5,
        'retention_threads_total{outcome="trimmed"}': 2,
        'retention_threads_total{outcome="sealed"}': 5,
        'retention_threads_total{outcome="archived"}': 2,
        'retention_threads_total{outcome="failed"}': 1,
        'retention_sweeps_total{result="done"}': 1,
        'retention_sweeps_total{result="stopped"}': 1,
        'retention_sweeps_total{result="failed"}': 1,
        "retention_reclaimed_bytes_total": 4096,
        'retention_sweep_seconds_bucket{le="10.0"}': 2,
        "retention_sweep_seconds_count": 2,
        "retention_last_success_timestamp_seconds": 1_000,
        "retention_backlog_threads": 4,
    }
    assert {name: float(said[name]) for name in expected} == expected


def test_it_is_unhealthy_when_the_last_success_is_too_long_ago() -> None:
    clock = [0.0]
    metrics = Metrics(unhealthy_after=timedelta(seconds=60), clock=lambda: clock[0])
    with Endpoint(metrics, port=0) as endpoint:

        def health() -> tuple[int, bool]:
            status, text = get(endpoint.port, "/healthz")
            return status, json.loads(text)["healthy"]

        clock[0] = 60
        assert health() == (200, True), "it has only just begun"
        clock[0] = 61
        metrics.failed()
        metrics.swept(SweepReport(NOW, stopped=True))
        assert health() == (503, False)
        metrics.swept(SweepReport(NOW))
        assert health() == (200, True)
    assert Metrics(clock=lambda: clock[0]).healthy
    endpoint.close()  # may be repeated


def test_without_prometheus_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"graph-eventstore\[metrics\]"):
        Metrics()


def test_a_sweep_that_failed_with_all_that_was_due_is_no_success() -> None:
    clock = [0.0]
    metrics = Metrics(unhealthy_after=timedelta(seconds=60), clock=lambda: clock[0])
    clock[0] = 61
    metrics.swept(SweepReport(NOW, failed=3, left=3))
    assert not metrics.healthy
    get = metrics.registry.get_sample_value
    assert get("retention_sweeps_total", {"result": "failed"}) == 1
    metrics.swept(SweepReport(NOW, pruned=1, failed=3, left=3))
    assert metrics.healthy
    clock[0] = 122
    metrics.swept(SweepReport(NOW))
    assert metrics.healthy, "nothing was due"
