"""The command line and retention on LangGraph's threads, with LangGraph and without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from eventstore.cli import main
from graph.langgraph import EventStoreSaver
from tests.langgraph.graphs import approval, chat, nested, question
from tests.langgraph.kit import CONFIG, facts
from tests.langgraph.test_encryption import Cipher
from tests.langgraph.test_import import Orders

WITHOUT_LANGGRAPH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("langgraph", "langchain_core", "ormsgpack"):
            raise ModuleNotFoundError(f"{name} is not installed")

sys.meta_path.insert(0, Refuse())
"""


def without_langgraph(code: str, *arguments: str) -> str:
    """What a program prints in a process that has no LangGraph."""
    command = [sys.executable, "-c", WITHOUT_LANGGRAPH + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = str(tmp_path / "agents.db")
    with EventStoreSaver(path, durability="normal") as saver:
        app = chat().compile(checkpointer=saver)
        for number in range(45):
            app.invoke(question(number), CONFIG)
        asking: Any = {"configurable": {"thread_id": "asks"}}
        nested().compile(checkpointer=saver).invoke({"items": ["x"]}, asking)
        saver.copy_thread("t", "copy")
        secret = EventStoreSaver(saver.store, serde=EncryptedSerializer(Cipher(b"k")))
        hidden: Any = {"configurable": {"thread_id": "hidden"}}
        chat().compile(checkpointer=secret).invoke(question(1), hidden)
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_commands_show_threads_with_their_values(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        return shown(capsys, *arguments, "--db", database)

    assert "asks" in run("threads")
    text = run("show", "asks")
    assert text.count("inner?") == 1
    assert "waiting" in text
    events = [json.loads(each) for each in run("events", "t", "--json").splitlines()]
    # LangGraph stores a checkpoint and the writes behind it from two threads.
    assert sorted(each["kind"] for each in events[:2]) == ["checkpoint", "writes"]
    assert len(events) == 225
    history = json.loads(run("history", "t", "--json", "--full", "--limit", "2"))["checkpoints"]
    assert [each["step"] for each in history] == [132, 133]
    assert history[1]["values"]["messages"][-1]["content"] == "answer 89"
    assert history[1]["changed"] == ["messages", "branch:to:answer"]
    differences = json.loads(run("diff", "t", str(history[0]["seq"]), "latest", "--json"))
    assert "answer 89" in json.dumps(differences["changes"])
    assert "history begins" not in run("history", "copy", "--limit", "1")
    assert "all sound" in run("verify", "t")
    assert main(["branches", "t", "--db", database]) == 0
    listed, note = capsys.readouterr()
    assert "copy" in listed and "only copies are listed" in note
    assert "events" in run("stats")


@pytest.mark.slow
def test_encrypted_threads_show_their_structure(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown(capsys, "history", "hidden", "--json", "--full", "--db", database)
    checkpoints = json.loads(found)["checkpoints"]
    assert len(checkpoints) == 3
    assert all(each["encrypted"] == "toy" for each in checkpoints)
    assert main(["diff", "hidden", "latest", "latest", "--db", database]) != 0
    assert "no readable checkpoint" in capsys.readouterr().err


@pytest.mark.slow
def test_commands_show_the_structure_without_langgraph(database: str) -> None:
    code = "from eventstore.cli import main; sys.exit(main(sys.argv[1:]))"
    found = without_langgraph(
        code, "history", "t", "--json", "--full", "--limit", "1", "--db", database
    )
    last = json.loads(found)["checkpoints"][0]
    assert last["step"] == 133
    assert last["values"]["messages"][-1]["$type"] == "langchain_core.messages.ai.AIMessage"
    assert "answer 89" in json.dumps(last["values"]["messages"][-1])
    assert "inner?" in without_langgraph(code, "show", "asks", "--db", database)
    without_langgraph(code, "verify", "--db", database)


@pytest.mark.slow
def test_retention_without_langgraph_keeps_what_is_latest(database: str) -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    with EventStoreSaver(database) as saver:
        latest = facts(saver.get_tuple(config))
        count = len(list(saver.list(config)))
    code = """
import datetime
from eventstore import EventStore
from retention import RetentionPolicy, sweep
later = lambda: datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)
with EventStore(sys.argv[1], clock=later) as store:
    day = datetime.timedelta(days=1)
    print(sweep(store, RetentionPolicy(keep_last_checkpoints=20, seal_after=day)))
"""
    without_langgraph(code, database)
    with EventStoreSaver(database) as saver:
        assert facts(saver.get_tuple(config)) == latest
        assert 20 <= len(list(saver.list(config))) < count
        assert saver.store.verify("t").ok
        chat().compile(checkpointer=saver).invoke(question(99), CONFIG)
        copy: Any = {"configurable": {"thread_id": "copy"}}
        assert len(list(saver.list(copy))) >= 20
        app = nested().compile(checkpointer=saver)
        asking: Any = {"configurable": {"thread_id": "asks"}}
        assert app.invoke(Command(resume="yes"), asking)["items"][-1] == "yes"


def test_a_sweep_spares_a_thread_that_waits(tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from retention import RetentionPolicy, sweep

    path = str(tmp_path / "agents.db")
    with EventStoreSaver(path) as saver:
        approval().compile(checkpointer=saver).invoke({"items": ["x"]}, CONFIG)
        done: Any = {"configurable": {"thread_id": "done"}}
        chat().compile(checkpointer=saver).invoke(question(1), done)
    with EventStoreSaver(path, clock=lambda: datetime.now(UTC) + timedelta(days=9)) as saver:
        sweep(saver.store, RetentionPolicy(ttl=timedelta(days=1)))
        assert saver.get_tuple(CONFIG) is not None
        assert saver.get_tuple(done) is None


@pytest.mark.slow
def test_importing_this_package_loads_no_langgraph() -> None:
    code = """
import eventstore, graph, retention, graph.langgraph
assert not [name for name in sys.modules if name.split(".")[0] in ("langgraph", "langchain_core")]
try:
    graph.langgraph.EventStoreSaver
except ImportError as error:
    print(error)
"""
    assert "pip install 'graph-eventstore[langgraph]'" in without_langgraph(code)


class Order(NamedTuple):
    item: str


def test_a_type_of_the_application_is_shown_without_advice_to_allow_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "agents.db")
    with EventStoreSaver(path) as saver:
        graph = StateGraph(Orders)
        graph.add_node("buy", lambda state: {"orders": [Order("tea")]})
        graph.add_edge(START, "buy")
        graph.compile(checkpointer=saver).invoke({"orders": []}, CONFIG)
    caplog.clear()
    assert '"tea"' in shown(capsys, "events", "t", "--full", "--db", path)
    assert not caplog.records


class Noted(MessagesState):
    note: str


def test_what_a_node_wrote_is_not_called_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "agents.db")
    with EventStoreSaver(path) as saver:
        graph = StateGraph(Noted)
        graph.add_node("answer", lambda state: {"messages": [("ai", "Hello")], "note": "polite"})
        graph.add_edge(START, "answer")
        said: Any = {"messages": [("user", "Hi")]}
        graph.compile(checkpointer=saver).invoke(said, CONFIG)
    events = shown(capsys, "events", "t", "--db", path)
    assert 'assistant: Hello; wrote state: {"note": "polite"}' in events
    told = shown(capsys, "transcript", "t", "--json", "--db", path)
    assert ("wrote", "answer") in [
        (each["kind"], each["role"]) for each in map(json.loads, told.splitlines())
    ]


def test_events_of_others_under_the_same_kinds_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from eventstore import Event, EventStore

    path = str(tmp_path / "other.db")
    datas: list[Any] = [{}, {"b": 1}, {"checkpoint": 5, "changed": 7}, {"says": []}, "text", None]
    with EventStore(path) as store:
        events = [Event(kind, data) for kind in (32, 33, 34) for data in datas]
        store.append("other", events, 0)
    for command in ("events", "history", "show"):
        assert shown(capsys, command, "other", "--db", path)
        assert shown(capsys, command, "other", "--json", "--db", path)
