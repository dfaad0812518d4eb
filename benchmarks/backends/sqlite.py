"""SQLite files with ``synchronous=FULL`` in WAL mode, each in a folder of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.backends.backend import Written
from benchmarks.peers import registry
from benchmarks.peers.limits import BareSqlite, Limit
from eventstore.db.sqlite import sqlite_driver


@dataclass(frozen=True)
class SqliteDatabase:
    """A folder with one SQLite database in it."""

    folder: Path

    @property
    def target(self) -> str:
        return str(self.folder / "state.db")

    def size(self) -> int:
        # The last connection to close has emptied the write-ahead log into the file.
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def growth(self) -> int | None:
        return None

    @contextmanager
    def recording(self) -> Iterator[None]:
        yield

    def written(self) -> Written | None:
        return None

    def round_trips(self) -> None:
        return None


@dataclass(frozen=True)
class SqliteWorkspace:
    """A folder with one folder per database."""

    folder: Path

    def database(self, name: str) -> SqliteDatabase:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return SqliteDatabase(folder)

    def begin(self) -> None:
        pass


class SqliteBackend:
    """SQLite files below a folder."""

    key = "sqlite"
    title = "LangGraph + SqliteSaver"
    variant = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.pairs = registry.sqlite_pairs()
        self.limits: Sequence[type[Limit]] = (BareSqlite,)

    @contextmanager
    def workspace(self) -> Iterator[SqliteWorkspace]:
        with TemporaryDirectory(dir=self._folder) as folder:
            yield SqliteWorkspace(Path(folder))

    def facts(self) -> dict[str, str]:
        return {
            "langgraph_checkpoint_sqlite": version("langgraph-checkpoint-sqlite"),
            "sqlite_here": sqlite_driver().sqlite_version,
            "sqlite_there": sqlite3.sqlite_version,
        }
