"""Databases on one PostgreSQL server, which is started for the benchmarks.

The write-ahead log (WAL) belongs to the whole server, so what is written is counted for the peer
whose turn it is. A checkpoint comes before the first turn and none during the turns: each page is
logged whole exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Any, Final

import psycopg

from benchmarks.backends.backend import Written
from benchmarks.backends.round_trips import RoundTripCounter
from benchmarks.backends.routes import Route, route
from benchmarks.peers import registry
from benchmarks.peers.limits import BareCore, BarePsycopg, Limit
from tests.postgres import NoServer, Server, server

TOASTS: Final = ("pglz", "lz4")
"""How PostgreSQL compresses large values: its default, and the faster way."""

SETTINGS: Final = {
    "synchronous_commit": "on",
    "shared_buffers": "128MB",  # the default
    "autovacuum": "off",  # its writes would be counted for the peer whose turn it is
    "checkpoint_timeout": "1h",
    "max_wal_size": "8GB",
    "min_wal_size": "8GB",  # log files are reused, so that no peer pays for new ones
}
LOG_FILES: Final = 64
"""Files of the server's log, 16 MiB each, that exist before anything is measured."""

_TABLES: Final = (
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm', 'p')"
    " AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
)
_LOGGED: Final = (
    "SELECT coalesce(sum(fpi_size), 0)::bigint, coalesce(sum(count) FILTER"
    " (WHERE \"resource_manager/record_type\" LIKE 'Transaction/COMMIT%%'), 0)::bigint"
    " FROM pg_get_wal_stats(%s::pg_lsn, %s::pg_lsn, true)"
)
_CALLS: Final = (
    "SELECT coalesce(sum(s.calls), 0)::bigint FROM pg_stat_statements s"
    " JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = %s"
)


class Monitor:
    """A connection of our own that asks the server what the peers did.

    Attributes:
        reads_wal: whether the server can inspect its log (``pg_walinspect``).
        counts_statements: whether it can count statements (``pg_stat_statements``).
    """

    def __init__(self, url: str) -> None:
        self._connection: Any = psycopg.connect(url, autocommit=True)
        self.reads_wal = self._extend("pg_walinspect")
        self.counts_statements = self._extend("pg_stat_statements")

    def _extend(self, name: str) -> bool:
        if self.one("SELECT 1 FROM pg_available_extensions WHERE name = %s", name) is None:
            return False
        self._connection.execute(f"CREATE EXTENSION IF NOT EXISTS {name}")
        return True

    def one(self, query: str, *values: Any) -> Any:
        """The first row."""
        return self._connection.execute(query, values or None).fetchone()

    def value(self, query: str, *values: Any) -> Any:
        """The first value of the first row."""
        return self.one(query, *values)[0]

    def run(self, statement: str) -> None:
        """Run a statement, in a transaction of its own."""
        self._connection.execute(statement)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class PostgresDatabase:
    """One peer's database on the server."""

    def __init__(self, url: str, way: Route, server: Server, monitor: Monitor) -> None:
        self.target = way.url(url)
        self._url = url
        self._server = server
        self._monitor = monitor
        self.name = url.partition("?")[0].rpartition("/")[2]
        self._empty = self._bytes()
        self._ranges: list[tuple[str, str]] = []
        self._statements = 0

    def size(self) -> int:
        with psycopg.connect(self._url, autocommit=True) as connection:
            row = connection.execute(_TABLES).fetchone()
        assert row is not None
        return int(row[0])

    def growth(self) -> int | None:
        return self._bytes() - self._empty

    def _bytes(self) -> int:
        return int(self._monitor.value("SELECT pg_database_size(%s)", self.name))

    @contextmanager
    def recording(self) -> Iterator[None]:
        calls = self._calls()
        begin = self._position()
        yield
        self._ranges.append((begin, self._position()))
        self._statements += self._calls() - calls

    def _position(self) -> str:
        return str(self._monitor.value("SELECT pg_current_wal_insert_lsn()::text"))

    def _calls(self) -> int:
        return int(self._monitor.value(_CALLS, self.name)) if self._monitor.counts_statements else 0

    def written(self) -> Written | None:
        wal, images, commits = 0, 0, 0
        if self._monitor.reads_wal:
            # pg_walinspect reads only what is on disk, so commit once to flush the log. A
            # checkpoint would remove the files that are to be read.
            self._monitor.run("SELECT txid_current()")
        for begin, end in self._ranges:
            wal += int(self._monitor.value("SELECT %s::pg_lsn - %s::pg_lsn", end, begin))
            if self._monitor.reads_wal and begin != end:
                new_images, new_commits = self._monitor.one(_LOGGED, begin, end)
                images, commits = images + new_images, commits + new_commits
        known = self._monitor.reads_wal
        return Written(
            wal,
            images if known else None,
            commits if known else None,
            self._statements if self._monitor.counts_statements else None,
        )

    def round_trips(self) -> RoundTripCounter:
        return RoundTripCounter(self._url, self._server.folder)


class PostgresWorkspace:
    """The databases of one measurement, with one way of compressing large values."""

    def __init__(
        self, server: Server, monitor: Monitor, toast: str, way: Route, stack: ExitStack
    ) -> None:
        self._server = server
        self._way = way
        self._monitor = monitor
        self._toast = toast
        self._stack = stack
        self._databases: dict[str, PostgresDatabase] = {}

    def database(self, name: str) -> PostgresDatabase:
        if name not in self._databases:
            url = self._stack.enter_context(self._server.database())
            database = PostgresDatabase(url, self._way, self._server, self._monitor)
            self._monitor.run(
                f"ALTER DATABASE {database.name} SET default_toast_compression = {self._toast}"
            )
            self._databases[name] = database
        return self._databases[name]

    def begin(self) -> None:
        self._monitor.run("CHECKPOINT")


class PostgresBackend:
    """Databases on one server, with one way of compressing large values."""

    key = "postgres"
    title = "LangGraph + PostgresSaver"

    def __init__(self, server: Server, monitor: Monitor, toast: str, way: Route) -> None:
        self._server = server
        self._monitor = monitor
        self._toast = toast
        self._way = way
        self.variant = f", {toast}{way.name}"
        self.pairs = registry.postgres_pairs()
        self.limits: Sequence[type[Limit]] = (BarePsycopg, BareCore)

    @contextmanager
    def workspace(self) -> Iterator[PostgresWorkspace]:
        with ExitStack() as stack:
            yield PostgresWorkspace(self._server, self._monitor, self._toast, self._way, stack)

    def facts(self) -> dict[str, str]:
        shown = ("server_version", "synchronous_commit", "fsync", "full_page_writes")
        return {
            "langgraph_checkpoint_postgres": version("langgraph-checkpoint-postgres"),
            "psycopg": version("psycopg"),
            **{name: str(self._monitor.value(f"SHOW {name}")) for name in shown},
            "data_checksums": str(self._monitor.value("SHOW data_checksums")),
            "shared_buffers": str(self._monitor.value("SHOW shared_buffers")),
        }


@contextmanager
def postgres_backends(
    toasts: Sequence[str] | None = None,
    *,
    durable: bool = True,
    pgbouncer: bool = False,
    network_ms: float | None = None,
) -> Iterator[list[PostgresBackend]]:
    """Start a server; one backend for each way of compressing large values.

    Args:
        toasts: the ways to compress; without it, all that the server supports.
        durable: whether the server waits for the disk; tests do without.
        pgbouncer, network_ms: the way to it, see :func:`~benchmarks.backends.routes.route`.

    Raises:
        NoServer: no server is installed, or none that supports these ways.
    """

    with ExitStack() as stack:

        def start(built_with: str = "") -> Server:
            return stack.enter_context(
                server(fsync=durable, settings=SETTINGS, built_with=built_with)
            )

        try:
            started = start("--with-lz4")
        except NoServer:
            if toasts and "lz4" in toasts:
                raise
            toasts = ("pglz",)
            started = start()
        monitor = _monitor(started)
        stack.callback(monitor.close)
        for _ in range(LOG_FILES if durable else 0):
            monitor.run("SELECT txid_current(), pg_switch_wal()")
        monitor.run("CHECKPOINT")
        way = stack.enter_context(route(started, pgbouncer=pgbouncer, network_ms=network_ms))
        yield [PostgresBackend(started, monitor, toast, way) for toast in toasts or TOASTS]


def _monitor(server: Server) -> Monitor:
    """Connect to a server, with its statement counter on where it has one."""
    monitor = Monitor(server.url)
    if monitor.counts_statements:
        # The counter works only when it is loaded at the server's start.
        monitor.run("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
        monitor.close()
        server.restart()
        monitor = Monitor(server.url)
    return monitor
