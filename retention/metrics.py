"""Metrics of sweeps for Prometheus, and a health check: ``/metrics`` and ``/healthz``.

Needs ``prometheus-client`` (the extra ``metrics``). Labels never name a thread or a tenant. The
endpoint listens on the local host by default, since it has neither a password nor TLS.
"""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from eventstore import ConfigurationError
from eventstore.closing import Closing
from eventstore.models import DatabaseReport
from retention.sweep import SweepReport

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)

PORT: Final = 9464

CONNECTIONS_MAX: Final = 32
"""Connections that the endpoint serves at the same time; further ones are closed."""

CONNECTION_S_MAX: Final = 10
"""In so many seconds a client must have sent its request and read the response."""

CROWDED_S_MAX: Final = 1
"""The same while there are too many connections."""

SECONDS: Final = (0.1, 1, 10, 60, 300, 1_800, 7_200)
"""Buckets of the histogram of sweep durations."""

OUTCOMES: Final = ("pruned", "trimmed", "sealed", "archived", "spared", "gone", "failed")


class Metrics:
    """Counts what sweeps did.

    Args:
        registry: where the metrics are registered; ``None`` for a new registry.
        unhealthy_after: report unhealthy this long after the last successful sweep, or after
            this object was created; ``None``: never.
        clock: returns seconds since 1970, also to measure health by; ``None``: the computer's
            clock, and for health one that nobody sets.

    Attributes:
        registry: the registry, to expose the metrics in another way.

    Raises:
        ConfigurationError: ``prometheus-client`` is not installed.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        unhealthy_after: timedelta | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        except ImportError as error:
            raise ConfigurationError(
                "metrics need prometheus-client: pip install 'graph-eventstore[metrics]'"
            ) from error
        self.registry = CollectorRegistry() if registry is None else registry
        self.unhealthy_after = unhealthy_after
        self._clock = clock or time.time
        self._steady_clock = clock or time.monotonic
        self._last_success = self._steady_clock()
        threads = Counter(
            "retention_threads",
            "Threads, by what sweeps did to them.",
            ["outcome"],
            registry=self.registry,
        )
        self._threads = {outcome: threads.labels(outcome) for outcome in OUTCOMES}
        sweeps = Counter(
            "retention_sweeps", "Sweeps, by how they ended.", ["result"], registry=self.registry
        )
        self._sweeps = {result: sweeps.labels(result) for result in ("done", "stopped", "failed")}
        self._finished = Counter(
            "retention_deletions_finished",
            "Interrupted deletions that sweeps finished.",
            registry=self.registry,
        )
        self._reclaimed = Counter(
            "retention_reclaimed_bytes",
            "Bytes by which the database file shrank.",
            registry=self.registry,
        )
        self._seconds = Histogram(
            "retention_sweep_seconds",
            "Duration of sweeps.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._success = Gauge(
            "retention_last_success_timestamp_seconds",
            "When a sweep last succeeded; 0: none yet.",
            registry=self.registry,
        )
        self._backlog = Gauge(
            "retention_backlog_threads",
            "Threads due at the last sweep that are still there.",
            registry=self.registry,
        )

        self._problems = Gauge(
            "retention_database_problems",
            "Problems that the last check of the database found.",
            registry=self.registry,
        )
        self._checked = Gauge(
            "retention_last_check_timestamp_seconds",
            "When the database was last checked; 0: not yet.",
            registry=self.registry,
        )

    def checked(self, report: DatabaseReport) -> None:
        """Note what the database's own check found."""
        self._problems.set(len(report.problems))
        self._checked.set(self._clock())

    def swept(self, report: SweepReport) -> None:
        """Count a sweep that ended or was stopped; one that only failed counts as failed."""
        for outcome, counter in self._threads.items():
            counter.inc(getattr(report, outcome))
        self._finished.inc(report.finished)
        self._reclaimed.inc(report.reclaimed)
        self._seconds.observe(report.seconds)
        self._backlog.set(report.left)
        only_failed = report.failed and not (report.pruned or report.trimmed or report.sealed)
        result = "stopped" if report.stopped else "failed" if only_failed else "done"
        self._sweeps[result].inc()
        if result == "done":
            self._last_success = self._steady_clock()
            self._success.set(self._clock())

    def failed(self) -> None:
        """Count a sweep that ended with an error."""
        self._sweeps["failed"].inc()

    @property
    def seconds_since_success(self) -> float:
        """Seconds since the last successful sweep, or since this object was created."""
        return max(0.0, self._steady_clock() - self._last_success)

    @property
    def healthy(self) -> bool:
        """Whether the last successful sweep is recent enough."""
        limit = self.unhealthy_after
        return limit is None or self.seconds_since_success <= limit.total_seconds()


class Endpoint(Closing):
    """Serves ``/metrics`` and ``/healthz`` over HTTP until it is closed. A context manager.

    ``/healthz`` responds with 200, or with 503 if the last successful sweep is too long ago.

    Args:
        port: 0 for a free port.

    Attributes:
        port: the port it listens on.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, metrics: Metrics, host: str = "127.0.0.1", port: int = PORT) -> None:
        from prometheus_client import make_wsgi_app

        self._metrics = metrics
        self._exposition: Any = make_wsgi_app(metrics.registry)
        self._server = make_server(
            host, port, self._respond, server_class=_Server, handler_class=_Handler
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
        """Stop listening, and hang up on clients. May be called again."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.hang_up(time.monotonic())
            self._server.server_close()

    def _respond(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._expose(environ, start_response)
        status = "404 Not Found"
        content: dict[str, Any] = {"error": "expected /metrics or /healthz"}
        if path == "/healthz":
            healthy = self._metrics.healthy
            status = "200 OK" if healthy else "503 Service Unavailable"
            seconds = round(self._metrics.seconds_since_success, 1)
            content = {"healthy": healthy, "seconds_since_success": seconds}
        body = json.dumps(content).encode() + b"\n"
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(status, headers)
        return [body]

    def _expose(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            response: Iterable[bytes] = self._exposition(environ, start_response)
        except Exception as error:  # a header that prometheus-client cannot read, for one
            log.error("cannot collect the metrics: %s", error, extra={"error": str(error)})
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return []
        return response


class _Server(ThreadingMixIn, WSGIServer):
    """One thread per connection, so that a slow client does not delay others.

    Promises that no client, whatever it sends or does not send, keeps a connection for longer than
    ``CONNECTION_S_MAX``, takes more than a bounded number of them, or prints a traceback.
    """

    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        self._since: dict[socket.socket, float] = {}
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._since) >= CONNECTIONS_MAX:
            log.debug("too many connections", extra={"client": str(client_address)})
            self.shutdown_request(request)
            self.hang_up(time.monotonic() - CROWDED_S_MAX)
            return
        self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:  # socketserver calls it twice a second
        self.hang_up(time.monotonic() - CONNECTION_S_MAX)

    def hang_up(self, since: float) -> None:
        """Shut down the connections that were made by then; their threads end."""
        for request, began in list(self._since.items()):
            if began <= since:
                with suppress(OSError):  # the client has gone
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("request failed", exc_info=True, extra={"client": str(client_address)})


class _Handler(WSGIRequestHandler):
    """Logs requests at debug level only: they come every few seconds."""

    timeout = CONNECTION_S_MAX

    def get_stderr(self) -> Any:
        return io.StringIO()  # wsgiref writes a traceback to it when a client hangs up

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("request", extra={"request": format % args})
