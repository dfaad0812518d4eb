"""A SQLite file that is removed or replaced under an open store is noticed at the next write."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest

from eventstore import AsyncEventStore, Event, EventStore, StoreUnavailableError
from eventstore.db import file_watch
from graph import START, MemorySaver, SqliteSaver, StateGraph
from tests import processes
from tests.awaited import run
from tests.eventstore.support import fill, numbers


class State(TypedDict, total=False):
    total: int


GONE = "was removed, replaced or emptied"


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced_by_a_copy(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


def replaced_by_another(path: Path) -> None:
    with EventStore(path.with_name("new.db")) as other:
        other.setup()
    path.with_name("new.db").replace(path)


def folder_renamed(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def folder_removed(path: Path) -> None:
    shutil.rmtree(path.parent)


def log_removed(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


ACCIDENTS: list[Callable[[Path], Any]] = [
    Path.unlink,
    emptied,
    replaced_by_a_copy,
    replaced_by_another,
    folder_renamed,
    folder_removed,
    log_removed,
]
WRITES: dict[str, Callable[[EventStore], object]] = {
    "append": lambda store: fill(store, "t", 1, start=4),
    "begin": lambda store: store.append("new", [Event(1)], 0),
    "fork": lambda store: store.fork("t", 1, "new"),
    "pin": lambda store: store.pin("t", "a reason", "me"),
    "delete": lambda store: store.delete_thread("t"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "runs.db"


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("accident", ACCIDENTS, ids=lambda accident: accident.__name__)
def test_no_write_is_acknowledged(path: Path, accident: Callable[[Path], Any], write: str) -> None:
    with EventStore(path) as store:
        fill(store, "t", 3)
        accident(path)
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match=GONE):
                WRITES[write](store)


@pytest.mark.parametrize("accident", ACCIDENTS[:-1], ids=lambda accident: accident.__name__)
def test_reads_notice_it_too(
    path: Path, accident: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_watch, "LOOK_EVERY_S", -1.0)
    with EventStore(path) as store:
        fill(store, "t", 3)
        with EventStore(path, read_only=True) as reader:
            assert numbers(reader.read("t")) == [1, 2, 3]
            accident(path)
            for each in (store, reader):
                with pytest.raises(StoreUnavailableError, match=GONE):
                    each.head("t")


def test_a_file_that_comes_back(path: Path) -> None:
    away = path.with_name("away.db")
    with EventStore(path) as store:
        fill(store, "t", 3)
        path.rename(away)
        with pytest.raises(StoreUnavailableError, match=GONE):
            fill(store, "other", 1)
        away.rename(path)
        assert numbers(store.read("t")) == [1, 2, 3]
        assert fill(store, "t", 1, start=4) == 4


def test_async_and_graph(path: Path) -> None:
    async def main() -> None:
        store = AsyncEventStore(path)
        await store.append("t", [Event(1)], 0)
        path.unlink()
        with pytest.raises(StoreUnavailableError, match=GONE):
            await store.append("t", [Event(1)], 1)
        await store.close()

    run(main())

    with SqliteSaver(path) as saver:
        built = StateGraph(State).add_node("n", lambda state: {}).add_edge(START, "n")
        app = built.compile(saver)
        config: Any = {"configurable": {"thread_id": "t"}}
        app.invoke({}, config)
        path.unlink()
        with pytest.raises(StoreUnavailableError, match=GONE):
            app.invoke({}, config)


@pytest.mark.slow
def test_what_is_no_accident(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints, other processes that come and go, relative paths, links, memory."""
    monkeypatch.setattr(file_watch, "LOOK_EVERY_S", 0.0)
    link = path.with_name("link.db")
    link.symlink_to(path)
    monkeypatch.chdir(path.parent)
    for target in (path, link, "runs.db", "sqlite:///runs.db", ":memory:"):
        with EventStore(target) as store:
            end = store.head("t").seq
            fill(store, "t", 300, start=end + 1)
            with store.engine.connect() as conn:
                conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            if target != ":memory:":
                other = f"from eventstore import EventStore; EventStore({str(path)!r}).head('t')"
                processes.run([sys.executable, "-c", other], check=True)
            monkeypatch.chdir(path.parent.parent)
            store.engine.dispose() if target != ":memory:" else None
            fill(store, "t", 1, start=end + 301)
            store.database.engine.connect().close()
            os.chdir(path.parent)
            assert store.head("t").seq == end + 301
    MemorySaver().setup()
