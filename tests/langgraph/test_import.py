"""Moving threads out of LangGraph's own tables: everything equal, whatever happens meanwhile."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from eventstore import ConfigurationError, EventStore
from eventstore.cli import main
from graph.langgraph import EventStoreSaver
from graph.langgraph.transfer import Import, TransferError
from tests import processes
from tests.conftest import BACKENDS
from tests.langgraph.graphs import STORIES, approval, chat, fan_out, nested, question
from tests.langgraph.kit import CONFIG, facts
from tests.langgraph.test_encryption import encrypted


class Orders(TypedDict, total=False):
    orders: list[Any]


def at(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


@pytest.fixture(params=["sqlite-file", "postgresql"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where LangGraph's own saver keeps its threads."""
    directory = tmp_path / "source"
    directory.mkdir()
    with BACKENDS[request.param](directory) as url:
        if request.param == "sqlite-file":
            yield str(directory / "langgraph.db")
        else:
            yield url.replace("+psycopg", "")


@contextmanager
def official(source: str, **options: Any) -> Iterator[Any]:
    if "://" in source:
        with PostgresSaver.from_conn_string(source) as saver:
            saver.serde = options.get("serde") or saver.serde
            saver.setup()
            yield saver
    else:
        with SqliteSaver.from_conn_string(source) as saver:
            saver.serde = options.get("serde") or saver.serde
            saver.setup()
            yield saver


def tell(saver: Any) -> None:
    """Real threads of every kind; with forks, changed states and a run that goes on from one."""
    for name, story in STORIES.items():
        app = story.graph().compile(checkpointer=saver)
        config: Any = {"configurable": {"thread_id": name, "user": "anna"}}
        for each in story.inputs:
            app.invoke(each, config)
    app = chat().compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "chat"}}
    earlier = list(app.get_state_history(config))[4].config
    app.invoke(question(50), earlier)
    app.update_state(earlier, question(51))
    app.update_state(config, question(52))


def assert_same(theirs: Any, ours: EventStoreSaver) -> None:
    expected = list(theirs.list(None))
    assert len(expected) > 50
    for each in expected:
        found = ours.get_tuple(each.config)
        assert facts(found) == facts(each)
        history: Any = {"config": each.config, "channels": ["log"]}
        assert ours.get_delta_channel_history(**history) == theirs.get_delta_channel_history(
            **history
        )
    for thread in {each.config["configurable"]["thread_id"] for each in expected}:
        config: Any = {"configurable": {"thread_id": thread}}
        assert facts(ours.get_tuple(config)) == facts(theirs.get_tuple(config))
        assert list(map(facts, ours.list(config))) == list(map(facts, theirs.list(config)))
        assert ours.store.verify(thread).ok


@pytest.mark.parametrize("here", ["sqlite-file", "postgresql"])
def test_everything_is_equal(source: str, here: str, tmp_path: Path) -> None:
    with (
        official(source) as theirs,
        BACKENDS[here](tmp_path) as url,
        EventStore(url) as store,
    ):
        tell(theirs)
        with Import(store, source) as work:
            threads = list(work.source.threads())
            assert sorted(threads) == sorted(STORIES)
            moved = [work.thread(thread) for thread in threads]
            assert sum(each.copied for each in moved) == work.source.count()
            assert all(0 < each.stored_bytes < each.source_bytes for each in moved)
        ours = EventStoreSaver(store)
        assert ours.conflicts == 0
        assert_same(theirs, ours)
        assert store.thread("chat").status == "idle"


def test_a_copy_is_found_by_the_metadata_of_its_first_run(source: str, tmp_path: Path) -> None:
    told: Any = {**at("t"), "metadata": {"user": "ann", "vip": True, "list": [1], "run_id": "r"}}
    found = []
    with official(source) as theirs, EventStoreSaver(str(tmp_path / "here.db")) as ours:
        for saver in (theirs, ours):
            chat().compile(checkpointer=saver).invoke(question(1), told)
        with official(source, serde=encrypted()) as hidden:
            chat().compile(checkpointer=hidden).invoke(question(1), {**told, **at("hidden")})
        found.append(ours.store.thread("t").metadata)
        ours.delete_thread("t")
        for thread, serde in (("t", None), ("hidden", encrypted())):
            with Import(ours.store, source, serde) as work:
                work.thread(thread)
            found.append(ours.store.thread(thread).metadata)
    plain = {"runtime": "langgraph", "user": "ann", "vip": True, "run_id": "r"}
    assert found == [plain, plain, {"runtime": "langgraph"}]


def count(store: EventStore) -> int:
    return sum(store.head(info.thread_id).seq for info in store.threads())


def test_again_changes_nothing_and_catches_up(source: str, tmp_path: Path) -> None:
    with official(source) as theirs, EventStore(str(tmp_path / "here.db")) as store:
        app = chat().compile(checkpointer=theirs)
        app.invoke(question(0), CONFIG)
        with Import(store, source) as work:
            assert work.thread("t").copied == 3
            events = count(store)
            assert work.thread("t").copied == 0
            assert count(store) == events
        app.invoke(question(1), CONFIG)
        with Import(store, source) as work:
            assert work.thread("t", dry_run=True).copied == 3
            assert count(store) == events
            assert work.thread("t").copied == 3
        assert list(map(facts, EventStoreSaver(store).list(CONFIG))) == list(
            map(facts, theirs.list(CONFIG))
        )


def test_a_thread_that_went_on_here_stays_as_it_is(source: str, tmp_path: Path) -> None:
    with official(source) as theirs, EventStore(str(tmp_path / "here.db")) as store:
        app = chat().compile(checkpointer=theirs)
        app.invoke(question(0), CONFIG)
        with Import(store, source) as work:
            work.thread("t")
            chat().compile(checkpointer=EventStoreSaver(store)).invoke(question(1), CONFIG)
            events = count(store)
            moved = work.thread("t")
            assert (moved.is_ahead, moved.copied) == (True, 0)
            app.invoke(question(2), CONFIG)
            with pytest.raises(TransferError, match="continued here and in the source"):
                work.thread("t")
            assert count(store) == events


def test_runs_go_on_from_the_copy(source: str, tmp_path: Path) -> None:
    with official(source) as theirs, EventStore(str(tmp_path / "here.db")) as store:
        for name in ("a", "b"):
            approval().compile(checkpointer=theirs).invoke({"items": ["x"]}, at(name))
        with Import(store, source) as work:
            for name in ("a", "b"):
                work.thread(name)
        assert store.thread("a").status == "waiting"
        ours = EventStoreSaver(store)
        for resume in ("yes", "no"):
            command: Any = Command(resume=resume)
            expected = approval().compile(checkpointer=theirs).invoke(command, at("a"))
            found = approval().compile(checkpointer=ours).invoke(command, at("a"))
            assert str(found) == str(expected)
        assert store.thread("a").status == "idle"


def test_encrypted_rows_need_the_key_and_stay_encrypted(source: str, tmp_path: Path) -> None:
    with official(source, serde=encrypted()) as theirs, EventStore(str(tmp_path / "a.db")) as store:
        app = nested().compile(checkpointer=theirs)
        app.invoke({"items": ["secret"]}, CONFIG)
        with Import(store, source) as work, pytest.raises(ConfigurationError, match="'toy'"):
            work.thread("t")
        with (
            Import(store, source, encrypted(b"other")) as work,
            pytest.raises(ConfigurationError, match="does not decrypt"),
        ):
            work.thread("t")
        assert not store.threads()
        with Import(store, source, encrypted()) as work:
            assert work.thread("t").copied
            assert work.thread("t").copied == 0
        ours = EventStoreSaver(store, serde=encrypted())
        assert list(map(facts, ours.list(CONFIG))) == list(map(facts, theirs.list(CONFIG)))
        assert b"secret" not in b"".join(repr(each.data).encode() for each in store.read("t"))


def test_types_that_cannot_be_imported_are_not_lost(source: str, tmp_path: Path) -> None:
    module: Any = types.ModuleType("shop_of_yesterday")
    sys.modules["shop_of_yesterday"] = module
    module.Order = make_dataclass("Order", [("item", str), ("count", int)])
    module.Order.__module__ = "shop_of_yesterday"
    order = module.Order("tea", 2)
    with official(source) as theirs, EventStore(str(tmp_path / "here.db")) as store:
        try:
            graph = StateGraph(Orders)
            graph.add_node("buy", lambda state: {"orders": [*state.get("orders", []), order]})
            graph.add_edge(START, "buy")
            app = graph.compile(checkpointer=theirs)
            app.invoke({"orders": [order]}, CONFIG)
            del sys.modules["shop_of_yesterday"]
            with Import(store, source) as work:
                assert work.thread("t").copied == 3
            sys.modules["shop_of_yesterday"] = module
            expected, found = theirs.get_tuple(CONFIG), EventStoreSaver(store).get_tuple(CONFIG)
            assert found is not None
            assert found.checkpoint["channel_values"]["orders"] == [order, order]
            assert facts(found) == facts(expected)
        finally:
            sys.modules.pop("shop_of_yesterday", None)


def test_old_formats_find_the_tasks_to_send(source: str, tmp_path: Path) -> None:
    first, second = empty_checkpoint(), empty_checkpoint()
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    with official(source) as theirs, EventStore(str(tmp_path / "here.db")) as store:
        for each in (first, second):
            each |= {"v": 3, "channel_values": {"a": [1]}, "channel_versions": {"a": "1"}}
            config = theirs.put(config, each, {"step": 1}, {"a": "1"})
            theirs.put_writes(config, [("__pregel_tasks", Send("work", {"x": 1}))], "task")
        with Import(store, source) as work:
            assert work.thread("t").copied == 2
            assert work.thread("t").copied == 0
        found = EventStoreSaver(store).get_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"]["__pregel_tasks"] == [Send("work", {"x": 1})]
        if "://" in source:  # the SQLite saver of today does not migrate
            assert facts(found) == facts(theirs.get_tuple(config))


def test_a_source_that_is_written_to(source: str, tmp_path: Path) -> None:
    ends = threading.Event()

    def run() -> None:
        with official(source) as theirs:
            for number in range(90):
                graph = chat() if number % 3 else fan_out()
                given: Any = question(number) if number % 3 else {"text": "a"}
                graph.compile(checkpointer=theirs).invoke(given, at("ab"[number % 3 > 0]))
                if ends.wait(0.02):
                    return

    with official(source):
        writer = threading.Thread(target=run)
    writer.start()
    try:
        with EventStore(str(tmp_path / "here.db")) as store, Import(store, source) as work:
            deadline = time.monotonic() + 30
            while work.source.count() < 20 and time.monotonic() < deadline:
                time.sleep(0.01)
            for _ in range(5):
                for thread_id in work.source.threads():
                    work.thread(thread_id)
            ends.set()
            writer.join(30)
            for thread_id in ("a", "b"):
                work.thread(thread_id)
            with official(source) as theirs:
                for each in theirs.list(None):
                    assert facts(EventStoreSaver(store).get_tuple(each.config)) == facts(each)
    finally:
        ends.set()
        writer.join(30)


KILLED = """
import os, sys
from eventstore import EventStore
from graph.langgraph.transfer import Import

left = int(sys.argv[3])
with EventStore(sys.argv[1]) as store, Import(store, sys.argv[2]) as work:
    read = work.source.read
    def reading(thread_id, name):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return read(thread_id, name)
    work.source.read = reading
    for thread_id in work.source.threads():
        work.thread(thread_id)
"""


def test_killed_and_begun_again(source: str, tmp_path: Path) -> None:
    here = str(tmp_path / "here.db")
    with official(source) as theirs:
        app = nested().compile(checkpointer=theirs)
        for number in range(8):
            app.invoke({"items": [str(number)]}, at("long"))
            app.invoke(Command(resume="x"), at("long"))
        chat().compile(checkpointer=theirs).invoke(question(1), at("short"))
        kept = []
        for reads in (3, 20, 45, 60):
            done = processes.run(
                [sys.executable, "-c", KILLED, here, source, str(reads)], timeout=60, check=False
            )
            assert done.returncode == -9
            with EventStore(here) as store:
                kept.append(sum(1 for _ in EventStoreSaver(store).list(None)))
        assert kept == sorted(kept)
        assert kept[-1] > 30
        with EventStore(here) as store, Import(store, source) as work:
            assert {moved.copied for moved in map(work.thread, work.source.threads())} != {0}
            for each in theirs.list(None):
                assert facts(EventStoreSaver(store).get_tuple(each.config)) == facts(each)
            assert store.verify("long").ok


def test_what_is_no_source_is_refused(source: str, tmp_path: Path) -> None:
    with EventStore(str(tmp_path / "here.db")) as store:
        store.setup()
        with pytest.raises(ConfigurationError, match="is not a file"):
            Import(store, str(tmp_path / "none.db"))
        with pytest.raises(ConfigurationError, match="no tables of LangGraph's SqliteSaver"):
            Import(store, str(tmp_path / "here.db"))
        with pytest.raises(ConfigurationError, match="expected a SQLite file or a postgresql"):
            Import(store, "mysql://localhost/x")
        with pytest.raises(ConfigurationError, match="cannot be opened"):
            Import(store, "postgresql://localhost:1/x")


def test_the_source_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "langgraph.db"
    with official(str(path)) as theirs:
        chat().compile(checkpointer=theirs).invoke(question(1), CONFIG)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("ALTER TABLE writes DROP COLUMN task_path")  # as older versions had it
    before = path.read_bytes()
    with EventStore(str(tmp_path / "here.db")) as store, Import(store, str(path)) as work:
        assert work.thread("t").copied == 3
    assert path.read_bytes() == before
    assert {each.name for each in tmp_path.glob("langgraph.db*")} == {"langgraph.db"}


# --- the command ------------------------------------------------------------------------


def test_the_command(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = str(tmp_path / "here.db")
    with official(source) as theirs:
        chat().compile(checkpointer=theirs).invoke(question(1), at("plain"))
    with official(source, serde=encrypted()) as theirs:
        chat().compile(checkpointer=theirs).invoke(question(1), at("hidden"))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["import", "langgraph", source, *arguments, "--db", here])
        return (code, *capsys.readouterr())

    assert run()[0] == 3
    with EventStore(here) as store:
        store.setup()
    code, out, _ = run("--dry-run", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(each["thread_id"], each["copied"], each["bytes"]) for each in lines] == [
        ("hidden", 3, 0),
        ("plain", 3, 0),
    ]
    code, out, err = run()
    assert code == 1
    assert "1 thread, 3 checkpoints: 3 copied, all verified" in out
    assert "hidden: the source is encrypted with 'toy'" in err
    assert "1 thread refused, for the reasons above" in out
    code, out, _ = run("hidden", "--serde", "tests.langgraph.test_encryption:encrypted")
    assert code == 0
    assert "3 copied" in out
    assert " here" in out
    assert "refused" not in out
    code, out, _ = run("plain", "--json")
    assert (code, json.loads(out)["copied"]) == (0, 0)
    assert run("nobody")[0] == 4
    assert run("--serde", "nowhere:x")[0] == 2
    assert run("--serde", "json:dumps")[0] == 2
    assert main(["import", "langgraph", str(tmp_path / "none.db"), "--db", here]) == 3
