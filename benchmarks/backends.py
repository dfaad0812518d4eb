"""Where peers keep their data: files of SQLite, or databases on one PostgreSQL server.

Owns what differs between the two when something is measured: how a place for a peer's data is
made and removed again, how many bytes it takes on disk, and what was written to reach that.
A peer opens a place by its ``target``, a path or a URL.

On PostgreSQL every peer has a database of its own on the same server. What is written ahead
(WAL) belongs to the whole server, so it is booked to the peer whose turn it is. One checkpoint
comes before the turns and none among them: each page is logged whole once, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Protocol

from benchmarks import limits, peers
from benchmarks.limits import Limit
from benchmarks.peers import Pair
from benchmarks.tap import Tap

if TYPE_CHECKING:
    from tests.postgres import Server

TOASTS: Final = ("pglz", "lz4")
"""How PostgreSQL compresses large values: as it does by default, and faster."""

SETTINGS: Final = {
    "synchronous_commit": "on",
    "shared_buffers": "128MB",  # the default
    "autovacuum": "off",  # what it writes would be booked to whose turn it is
    "checkpoint_timeout": "1h",
    "max_wal_size": "8GB",
    "min_wal_size": "8GB",  # files of the log are used again, so that nobody pays for new ones
}
LOG_FILES: Final = 64
"""Files of the server's log, 16 MiB each, made before anything is measured."""


@dataclass(frozen=True)
class Written:
    """What was written and said while turns were counted; ``None`` where it cannot be known.

    Attributes:
        wal: bytes of the write-ahead log.
        images: how many of these were whole pages, written once after a checkpoint.
        commits: transactions that wrote.
        statements: sent to the server, ``BEGIN`` and ``COMMIT`` among them.
    """

    wal: int
    images: int | None
    commits: int | None
    statements: int | None


class Place(Protocol):
    """Where one peer keeps the data of one measurement."""

    @property
    def target(self) -> str:
        """What a peer opens."""

    def size(self) -> int:
        """Bytes on disk. Nobody has it open."""

    def growth(self) -> int | None:
        """Bytes on disk, with what the server keeps about them, where that is more."""

    def counted(self) -> AbstractContextManager[None]:
        """Book what is written meanwhile."""

    def written(self) -> Written | None:
        """What was booked, where there is such a book."""

    def tapped(self) -> AbstractContextManager[Tap] | None:
        """A tap on the line to the server, where there is one."""


class Ground(Protocol):
    """All places of one measurement; they vanish after it."""

    def place(self, name: str) -> Place:
        """The place of that name, made when it is first asked for."""

    def begin(self) -> None:
        """All places are made, and turns begin."""


class Backend(Protocol):
    """A kind of store, and who is compared on it.

    Attributes:
        key: ``sqlite`` or ``postgres``.
        title: what all figures are about.
        variant: added to the name of each workload.
        pairs: who is compared with whom; the first pair in everything.
        limits: what nobody can beat.
    """

    key: str
    title: str
    variant: str

    @property
    def pairs(self) -> Sequence[Pair]: ...
    @property
    def limits(self) -> Sequence[type[Limit]]: ...

    def ground(self) -> AbstractContextManager[Ground]:
        """Places for one measurement."""

    def facts(self) -> dict[str, str]:
        """What figures depend on, without a name or a path of the machine."""


# --- SQLite ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folder:
    """A folder with one database in it."""

    path: Path

    @property
    def target(self) -> str:
        return str(self.path / "state.db")

    def size(self) -> int:
        # Whoever closes a file last empties its write-ahead log into it.
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def growth(self) -> int | None:
        return None

    @contextmanager
    def counted(self) -> Iterator[None]:
        yield

    def written(self) -> Written | None:
        return None

    def tapped(self) -> None:
        return None


@dataclass(frozen=True)
class Folders:
    """Folders below one."""

    path: Path

    def place(self, name: str) -> Folder:
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return Folder(folder)

    def begin(self) -> None:
        pass


class Sqlite:
    """Files with ``synchronous=FULL`` in WAL mode."""

    key = "sqlite"
    title = "LangGraph + SqliteSaver"
    variant = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.pairs = peers.on_sqlite()
        self.limits: Sequence[type[Limit]] = (limits.BareSqlite,)

    @contextmanager
    def ground(self) -> Iterator[Folders]:
        with TemporaryDirectory(dir=self._folder) as place:
            yield Folders(Path(place))

    def facts(self) -> dict[str, str]:
        import sqlite3

        return {
            "langgraph_checkpoint_sqlite": version("langgraph-checkpoint-sqlite"),
            "sqlite_here": limits.sqlite_driver().sqlite_version,
            "sqlite_there": sqlite3.sqlite_version,
        }


# --- PostgreSQL -----------------------------------------------------------------------------

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


class Watch:
    """A connection beside the peers' that asks the server what they did.

    Attributes:
        reads_wal: whether the server can tell what is in its log (``pg_walinspect``).
        counts: whether it counts statements (``pg_stat_statements``).
    """

    def __init__(self, url: str) -> None:
        import psycopg

        self._connection: Any = psycopg.connect(url, autocommit=True)
        self.reads_wal = self._extend("pg_walinspect")
        self.counts = self._extend("pg_stat_statements")

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
        """Hang up."""
        self._connection.close()


class Database:
    """A database of its own."""

    def __init__(self, url: str, server: Server, watch: Watch) -> None:
        self.target = url
        self._server = server
        self._watch = watch
        self._name = url.partition("?")[0].rpartition("/")[2]
        self._empty = self._all()
        self._ranges: list[tuple[str, str]] = []
        self._statements = 0

    def size(self) -> int:
        import psycopg

        with psycopg.connect(self.target, autocommit=True) as connection:
            row = connection.execute(_TABLES).fetchone()
        assert row is not None
        return int(row[0])

    def growth(self) -> int | None:
        return self._all() - self._empty

    def _all(self) -> int:
        return int(self._watch.value("SELECT pg_database_size(%s)", self._name))

    @contextmanager
    def counted(self) -> Iterator[None]:
        calls = self._calls()
        begin = self._position()
        yield
        self._ranges.append((begin, self._position()))
        self._statements += self._calls() - calls

    def _position(self) -> str:
        return str(self._watch.value("SELECT pg_current_wal_insert_lsn()::text"))

    def _calls(self) -> int:
        return int(self._watch.value(_CALLS, self._name)) if self._watch.counts else 0

    def written(self) -> Written | None:
        wal, images, commits = 0, 0, 0
        if self._watch.reads_wal:
            # Only what is on disk can be looked at, which a commit of our own sees to; a
            # checkpoint would take away the files that we are to look at.
            self._watch.run("SELECT txid_current()")
        for begin, end in self._ranges:
            wal += int(self._watch.value("SELECT %s::pg_lsn - %s::pg_lsn", end, begin))
            if self._watch.reads_wal and begin != end:
                in_it, ended = self._watch.one(_LOGGED, begin, end)
                images, commits = images + in_it, commits + ended
        known = self._watch.reads_wal
        return Written(
            wal,
            images if known else None,
            commits if known else None,
            self._statements if self._watch.counts else None,
        )

    def tapped(self) -> Tap:
        return Tap(self.target, self._server.folder)


class Databases:
    """Databases on one server."""

    def __init__(self, server: Server, watch: Watch, toast: str, stack: ExitStack) -> None:
        self._server = server
        self._watch = watch
        self._toast = toast
        self._stack = stack
        self._made: dict[str, Database] = {}

    def place(self, name: str) -> Database:
        if name not in self._made:
            url = self._stack.enter_context(self._server.database())
            made = Database(url, self._server, self._watch)
            self._watch.run(
                f"ALTER DATABASE {made._name} SET default_toast_compression = {self._toast}"
            )
            self._made[name] = made
        return self._made[name]

    def begin(self) -> None:
        self._watch.run("CHECKPOINT")


class Postgres:
    """Databases of one server that compress large values in one way."""

    key = "postgres"
    title = "LangGraph + PostgresSaver"

    def __init__(self, server: Server, watch: Watch, toast: str) -> None:
        self._server = server
        self._watch = watch
        self._toast = toast
        self.variant = f", {toast}"
        self.pairs = peers.on_postgres()
        self.limits: Sequence[type[Limit]] = (limits.BarePsycopg, limits.BareCore)

    @contextmanager
    def ground(self) -> Iterator[Databases]:
        with ExitStack() as stack:
            yield Databases(self._server, self._watch, self._toast, stack)

    def facts(self) -> dict[str, str]:
        shown = ("server_version", "synchronous_commit", "fsync", "full_page_writes")
        return {
            "langgraph_checkpoint_postgres": version("langgraph-checkpoint-postgres"),
            "psycopg": version("psycopg"),
            **{name: str(self._watch.value(f"SHOW {name}")) for name in shown},
            "data_checksums": str(self._watch.value("SHOW data_checksums")),
            "shared_buffers": str(self._watch.value("SHOW shared_buffers")),
        }


@contextmanager
def postgres(
    toasts: Sequence[str] | None = None, *, durable: bool = True
) -> Iterator[list[Postgres]]:
    """A server of our own, once for each way to compress; all that it can when none is named.

    Args:
        durable: without it, for tests, the server does not wait for the disk.

    Raises:
        NoServer: there is none, or none that can compress like that.
    """
    from tests.postgres import NoServer, server

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
        watch = _watch(started)
        stack.callback(watch.close)
        for _ in range(LOG_FILES if durable else 0):
            watch.run("SELECT txid_current(), pg_switch_wal()")
        watch.run("CHECKPOINT")
        yield [Postgres(started, watch, toast) for toast in toasts or TOASTS]


def _watch(server: Server) -> Watch:
    """A connection to a server that counts statements, where it can."""
    watch = Watch(server.url)
    if watch.counts:
        # It counts only when it was loaded at the start.
        watch.run("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
        watch.close()
        server.restart()
        watch = Watch(server.url)
    return watch
