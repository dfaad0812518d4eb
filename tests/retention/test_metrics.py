"""Metrics over HTTP, and the health check."""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
import threading
import time
from contextlib import ExitStack, suppress
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


def test_health_goes_by_a_clock_that_nobody_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, steady = [1_000.0], [0.0]
    monkeypatch.setattr("retention.metrics.time.time", lambda: shown[0])
    monkeypatch.setattr("retention.metrics.time.monotonic", lambda: steady[0])
    metrics = Metrics(unhealthy_after=timedelta(seconds=60))
    shown[0] += 1e9
    assert metrics.healthy, "a clock that was set ahead is no failure"
    metrics.swept(SweepReport(NOW))
    shown[0] -= 2e9
    steady[0] = 61
    assert not metrics.healthy, "nor does one that was set back hide one"
    metrics.swept(SweepReport(NOW))
    assert metrics.healthy
    get = metrics.registry.get_sample_value
    assert get("retention_last_success_timestamp_seconds") == shown[0]


NONSENSE = [
    b"",
    b"\r\n\r\n",
    b"GET",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /metrics HTTP/1.1 and more\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
    b"A" * 70_000 + b"\r\n\r\n",
    b"GET /metrics HTTP/1.0\r\n" + b"x: y\r\n" * 500 + b"\r\n",
    b"GET /metrics HTTP/1.0\r\nContent-Length: -5\r\nAccept: \xff\xfe;q=zz\r\n\r\n",
    b"GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text;version=new\r\n\r\n",
    b"GET //\x00%zz%00 HTTP/1.0\r\n\r\n",
    b"POST /healthz HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nx",
]


@pytest.mark.parametrize("reset", [False, True])
def test_clients_that_talk_nonsense(
    reset: bool, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(7)
    with Endpoint(Metrics(), port=0) as endpoint:
        for request in [*NONSENSE, *(rng.randbytes(300) + b"\r\n\r\n" for _ in range(30))]:
            with socket.create_connection(("127.0.0.1", endpoint.port), timeout=10) as client:
                client.sendall(request)
                if reset:  # hang up without reading
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    continue
                client.shutdown(socket.SHUT_WR)
                with suppress(ConnectionResetError):
                    while client.recv(65_536):
                        pass
        assert get(endpoint.port, "/healthz")[0] == 200
    assert "Traceback" not in caplog.text + "".join(capfd.readouterr())


def test_clients_that_say_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """They hold a bounded number of threads, for a bounded time, and others get their response."""
    at_once = 8  # a client beyond the backlog waits for seconds, and so would each of many
    monkeypatch.setattr("retention.metrics.CONNECTION_S_MAX", 0.3)
    monkeypatch.setattr("retention.metrics.CONNECTIONS_MAX", at_once)
    before = threading.active_count()
    with Endpoint(Metrics(), port=0) as endpoint, ExitStack() as stack:
        for number in range(3 * at_once):
            client = socket.create_connection(("127.0.0.1", endpoint.port), timeout=10)
            stack.enter_context(client)
            if number % 2:  # or only a little, now and then
                client.sendall(b"GET /metr")
        assert threading.active_count() <= before + 1 + at_once
        deadline, status = time.monotonic() + 30, 0
        while status != 200:
            assert time.monotonic() < deadline
            with suppress(OSError):
                status, _ = get(endpoint.port, "/healthz")
        began = time.monotonic()
    assert time.monotonic() - began < 5, "closing waits for nobody"
    while threading.active_count() > before:
        assert time.monotonic() < began + 10
        time.sleep(0.01)
    assert "Traceback" not in "".join(capfd.readouterr())


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
