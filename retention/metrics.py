"""What sweeps did, for Prometheus, and whether all is well: ``/metrics`` and ``/healthz``.

Needs ``prometheus-client`` (the extra ``metrics``). No label names a thread or a tenant. The
endpoint is for machines on the same host, unless told otherwise: it has neither a password nor
TLS.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from eventstore import ConfigurationError
from retention.sweep import SweepReport

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)

PORT: Final = 9464

SECONDS: Final = (0.1, 1, 10, 60, 300, 1_800, 7_200)
"""Bounds of the histogram of how long sweeps take."""

OUTCOMES: Final = ("pruned", "trimmed", "sealed", "archived", "spared", "gone", "failed")


class Metrics:
    """Counts what sweeps did.

    Args:
        registry: where the metrics are registered; ``None``: one of their own.
        unhealthy_after: without a sweep that came to its end for so long, something is wrong;
            ``None``: never. Counts from when this was made, too.
        clock: seconds since 1970.

    Attributes:
        registry: for whoever exposes it in another way.

    Raises:
        ConfigurationError: ``prometheus-client`` is not installed.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        unhealthy_after: timedelta | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        except ImportError as error:
            raise ConfigurationError(
                "metrics need prometheus-client: pip install 'graph-eventstore[metrics]'"
            ) from error
        self.registry = CollectorRegistry() if registry is None else registry
        self.unhealthy_after = unhealthy_after
        self._clock = clock
        self._last_success = clock()
        threads = Counter(
            "retention_threads",
            "Threads by what sweeps did to them.",
            ["outcome"],
            registry=self.registry,
        )
        self._threads = {outcome: threads.labels(outcome) for outcome in OUTCOMES}
        sweeps = Counter(
            "retention_sweeps", "Sweeps by how they ended.", ["result"], registry=self.registry
        )
        self._sweeps = {result: sweeps.labels(result) for result in ("done", "stopped", "failed")}
        self._finished = Counter(
            "retention_deletions_finished",
            "Deletions, cut short earlier, that sweeps ended.",
            registry=self.registry,
        )
        self._reclaimed = Counter(
            "retention_reclaimed_bytes",
            "Bytes by which the file of the database became smaller.",
            registry=self.registry,
        )
        self._seconds = Histogram(
            "retention_sweep_seconds",
            "How long sweeps took.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._success = Gauge(
            "retention_last_success_timestamp_seconds",
            "When a sweep last came to its end, and not in vain; 0: none yet.",
            registry=self.registry,
        )
        self._backlog = Gauge(
            "retention_backlog_threads",
            "Threads that are due, as the last sweep found, and still there.",
            registry=self.registry,
        )

    def swept(self, report: SweepReport) -> None:
        """A sweep came to its end, or was stopped. One that only failed is no success."""
        for outcome, counter in self._threads.items():
            counter.inc(getattr(report, outcome))
        self._finished.inc(report.finished)
        self._reclaimed.inc(report.reclaimed)
        self._seconds.observe(report.seconds)
        self._backlog.set(report.left)
        in_vain = report.failed and not (report.pruned or report.trimmed or report.sealed)
        result = "stopped" if report.stopped else "failed" if in_vain else "done"
        self._sweeps[result].inc()
        if result == "done":
            self._last_success = self._clock()
            self._success.set(self._last_success)

    def failed(self) -> None:
        """A sweep ended with an error."""
        self._sweeps["failed"].inc()

    @property
    def quiet_s(self) -> float:
        """Seconds since the last success, or since this was made."""
        return max(0.0, self._clock() - self._last_success)

    @property
    def healthy(self) -> bool:
        """Whether the last success is not too long ago."""
        limit = self.unhealthy_after
        return limit is None or self.quiet_s <= limit.total_seconds()


class Endpoint:
    """``/metrics`` and ``/healthz`` over HTTP, while it is open. A context manager.

    ``/healthz`` answers 200, or 503 when the last success is too long ago.

    Args:
        port: 0 takes a free one; see the attribute.

    Attributes:
        port: on which it listens.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, metrics: Metrics, host: str = "127.0.0.1", port: int = PORT) -> None:
        from prometheus_client import make_wsgi_app

        self._metrics = metrics
        self._exposition: Any = make_wsgi_app(metrics.registry)
        self._server = make_server(
            host, port, self._answer, server_class=_Server, handler_class=_Handler
        )
        self.port = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="retention-metrics", daemon=True
        )
        self._thread.start()
        log.info(
            "metrics on http://%s:%d/metrics",
            host,
            self.port,
            extra={"host": host, "port": self.port},
        )

    def close(self) -> None:
        """Stop listening. A second call does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            answer: Iterable[bytes] = self._exposition(environ, start_response)
            return answer
        status = "404 Not Found"
        said: dict[str, Any] = {"error": "see /metrics and /healthz"}
        if path == "/healthz":
            healthy = self._metrics.healthy
            status = "200 OK" if healthy else "503 Service Unavailable"
            seconds = round(self._metrics.quiet_s, 1)
            said = {"healthy": healthy, "seconds_since_success": seconds}
        body = json.dumps(said).encode() + b"\n"
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(status, headers)
        return [body]


class _Server(ThreadingMixIn, WSGIServer):
    """One thread for each request: a client that is slow keeps no other waiting."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    """Says nothing of requests, which come every few seconds."""

    timeout = 10  # seconds for a request to arrive

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("request", extra={"request": format % args})
