"""Moving threads into LangGraph's own tables: everything equal, and their saver goes on from it."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import types
from contextlib import closing
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from eventstore import ConfigurationError, Event, EventStore
from eventstore.cli import main
from graph.langgraph import EventStoreSaver
from graph.langgraph.export import Export
from graph.langgraph.transfer import TransferError
from tests import processes
from tests.conftest import BACKENDS
from tests.langgraph.graphs import STORIES, approval, chat, nested, question
from tests.langgraph.kit import CONFIG, facts
from tests.langgraph.test_encryption import encrypted
from tests.langgraph.test_import import Orders, at, official, source, tell

target = source
"""Where LangGraph's own saver will keep the threads."""


@pytest.fixture
def here(tmp_path: Path) -> str:
    return str(tmp_path / "here.db")


@pytest.mark.parametrize("kind", ["sqlite-file", "postgresql"])
def test_everything_is_equal(target: str, kind: str, tmp_path: Path) -> None:
    with BACKENDS[kind](tmp_path) as url, EventStore(url) as store:
        ours = EventStoreSaver(store)
        tell(ours)
        expected = list(ours.list(None))
        with Export(store, target) as work:
            moved = [work.thread(thread) for thread in STORIES]
            assert sum(each.copied for each in moved) == len(expected) > 50
            assert all(0 < each.source_bytes < each.stored_bytes for each in moved)
        with official(target) as theirs:
            for each in expected:
                assert facts(theirs.get_tuple(each.config)) == facts(each)
                history: Any = {"config": each.config, "channels": ["log"]}
                found = theirs.get_delta_channel_history(**history)
                assert found == ours.get_delta_channel_history(**history)
            for thread in STORIES:
                assert facts(theirs.get_tuple(at(thread))) == facts(ours.get_tuple(at(thread)))
                listed = list(map(facts, theirs.list(at(thread))))
                assert listed == list(map(facts, ours.list(at(thread))))


def test_again_changes_nothing_and_catches_up(target: str, here: str) -> None:
    with EventStore(here) as store:
        ours = EventStoreSaver(store)
        app = chat().compile(checkpointer=ours)
        app.invoke(question(0), CONFIG)
        with Export(store, target, dry_run=True) as work:
            assert work.thread("t").copied == 3
        assert not Path(target).exists() or "://" in target
        with Export(store, target) as work:
            assert work.thread("t").copied == 3
            assert work.thread("t").copied == 0
        app.invoke(question(1), CONFIG)
        with Export(store, target, dry_run=True) as work:
            assert work.thread("t").copied == 3
        with Export(store, target) as work:
            assert work.thread("t").copied == 3
        with official(target) as theirs:
            assert list(map(facts, theirs.list(CONFIG))) == list(map(facts, ours.list(CONFIG)))


def test_writes_that_came_later_are_copied(target: str, here: str) -> None:
    with EventStore(here) as store:
        ours = EventStoreSaver(store)
        config: Any = approval().compile(checkpointer=ours).invoke({"items": ["x"]}, CONFIG)
        with Export(store, target) as work:
            work.thread("t")
            found = ours.get_tuple(CONFIG)
            assert found is not None
            config = found.config
            ours.put_writes(config, [("items", ["late"])], "another task")
            assert work.thread("t").copied == 1
        with official(target) as theirs:
            assert facts(theirs.get_tuple(config)) == facts(ours.get_tuple(config))


def test_runs_go_on_from_the_copy(target: str, here: str) -> None:
    with EventStore(here) as store:
        ours = EventStoreSaver(store)
        approval().compile(checkpointer=ours).invoke({"items": ["x"]}, CONFIG)
        with Export(store, target) as work:
            work.thread("t")
        command: Any = Command(resume="yes")
        with official(target) as theirs:
            found = approval().compile(checkpointer=theirs).invoke(command, CONFIG)
            assert str(found) == str(approval().compile(checkpointer=ours).invoke(command, CONFIG))


def test_a_thread_that_went_on_there_stays_as_it_is(target: str, here: str) -> None:
    with EventStore(here) as store:
        app = chat().compile(checkpointer=EventStoreSaver(store))
        app.invoke(question(0), CONFIG)
        with Export(store, target) as work:
            work.thread("t")
            with official(target) as theirs:
                chat().compile(checkpointer=theirs).invoke(question(1), CONFIG)
                moved = work.thread("t")
                assert (moved.is_ahead, moved.copied) == (True, 0)
                app.invoke(question(2), CONFIG)
                before = list(map(facts, theirs.list(CONFIG)))
                with pytest.raises(TransferError, match="continued here and in the target"):
                    work.thread("t")
                assert list(map(facts, theirs.list(CONFIG))) == before


def test_encrypted_threads_stay_encrypted(target: str, here: str) -> None:
    with EventStore(here) as store:
        ours = EventStoreSaver(store, serde=encrypted())
        nested().compile(checkpointer=ours).invoke({"items": ["secret"]}, CONFIG)
        with Export(store, target, encrypted()) as work:
            assert work.thread("t").copied
        with official(target, serde=encrypted()) as theirs:
            assert list(map(facts, theirs.list(CONFIG))) == list(map(facts, ours.list(CONFIG)))
    if "://" not in target:
        assert b"secret" not in Path(target).read_bytes()


def test_types_that_cannot_be_imported_are_not_lost(target: str, here: str) -> None:
    module: Any = types.ModuleType("shop_of_tomorrow")
    sys.modules["shop_of_tomorrow"] = module
    module.Order = make_dataclass("Order", [("item", str), ("count", int)])
    module.Order.__module__ = "shop_of_tomorrow"
    order = module.Order("tea", 2)
    try:
        with EventStore(here) as store:
            graph = StateGraph(Orders)
            graph.add_node("buy", lambda state: {"orders": [*state.get("orders", []), order]})
            graph.add_edge(START, "buy")
            graph.compile(checkpointer=EventStoreSaver(store)).invoke({"orders": [order]}, CONFIG)
            del sys.modules["shop_of_tomorrow"]
            with Export(store, target) as work:
                assert work.thread("t").copied == 3
        sys.modules["shop_of_tomorrow"] = module
        with official(target) as theirs:
            found = theirs.get_tuple(CONFIG)
            assert found.checkpoint["channel_values"]["orders"] == [order, order]
    finally:
        sys.modules.pop("shop_of_tomorrow", None)


KILLED = """
import os, sys
from eventstore import EventStore
from graph.langgraph.export import Export

left = int(sys.argv[3])
with EventStore(sys.argv[1]) as store, Export(store, sys.argv[2]) as work:
    put = work._put
    def putting(*given):
        global left
        left -= 1
        put(*given)
        if left < 0:
            os.kill(os.getpid(), 9)
    work._put = putting
    work.thread("t")
"""


def test_killed_and_begun_again(target: str, here: str) -> None:
    with EventStore(here) as store:
        ours = EventStoreSaver(store)
        app = nested().compile(checkpointer=ours)
        for number in range(4):
            app.invoke({"items": [str(number)]}, CONFIG)
            app.invoke(Command(resume="x"), CONFIG)
    for puts in (3, 5, 8):
        done = processes.run(
            [sys.executable, "-c", KILLED, here, target, str(puts)],
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
        assert done.returncode == -9
    with EventStore(here) as store, Export(store, target) as work, official(target) as theirs:
        moved = work.thread("t")
        assert 0 < moved.copied <= moved.checkpoints - 17
        assert list(map(facts, theirs.list(CONFIG))) == list(
            map(facts, EventStoreSaver(store).list(CONFIG))
        )


def test_by_command(target: str, here: str, capsys: pytest.CaptureFixture[str]) -> None:
    with EventStore(here) as store:
        chat().compile(checkpointer=EventStoreSaver(store)).invoke(question(0), CONFIG)
        store.append("another runtime's", [Event(1, "x")], 0)
    assert main(["export", "langgraph", target, "--db", here, "--json", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["copied"] == 3
    assert main(["export", "langgraph", target, "--db", here]) == 0
    assert "1 thread, 3 checkpoints: 3 copied, all verified" in capsys.readouterr().out
    with official(target) as theirs:
        assert len(list(theirs.list(CONFIG))) == 3
    assert main(["export", "langgraph", target, "another runtime's", "--db", here]) == 1
    assert "was not written by LangGraph" in capsys.readouterr().err


def test_a_target_that_takes_no_writes_is_reported(here: str, tmp_path: Path) -> None:
    target = str(tmp_path / "theirs.db")
    with EventStore(here) as store:
        chat().compile(checkpointer=EventStoreSaver(store)).invoke(question(0), CONFIG)
        with Export(store, target) as work, closing(sqlite3.connect(target)) as other:
            other.execute(
                "CREATE TRIGGER full BEFORE INSERT ON checkpoints "
                "BEGIN SELECT raise(FAIL, 'disk full'); END"
            )
            with pytest.raises(TransferError, match="'t': the target cannot be written: disk full"):
                work.thread("t")


def test_what_is_no_target_is_refused(here: str, tmp_path: Path) -> None:
    with EventStore(here) as store, EventStore(str(tmp_path / "other.db")) as other:
        store.setup()
        other.setup()
        with pytest.raises(ConfigurationError, match="is the store itself"):
            Export(store, here)
    with EventStore(here) as store:
        with pytest.raises(ConfigurationError, match="is a store of this library"):
            Export(store, str(tmp_path / "other.db"))
        (tmp_path / "text.txt").write_text("no database " * 100)
        with pytest.raises(ConfigurationError, match="is no database"):
            Export(store, str(tmp_path / "text.txt"))
        with pytest.raises(ConfigurationError, match="expected a SQLite file or a postgresql"):
            Export(store, "mysql://localhost/x")
        newer = tmp_path / "newer.db"
        with closing(sqlite3.connect(newer)) as found:
            found.execute("CREATE TABLE x (y)")
        with newer.open("r+b") as file:
            file.seek(47)  # the version of the schema's format
            file.write(b"\x09")
        with pytest.raises(ConfigurationError, match="cannot be read: unsupported file format"):
            Export(store, str(newer))
        for nowhere in (tmp_path, tmp_path / "none" / "x.db", "postgresql://localhost:1/x"):
            with pytest.raises(ConfigurationError, match="the target cannot be opened"):
                Export(store, str(nowhere))
    with closing(sqlite3.connect(tmp_path / "other.db")) as found:
        names = {name for (name,) in found.execute("SELECT name FROM sqlite_master")}
    assert "checkpoints" not in names
