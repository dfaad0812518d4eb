"""Threads whose old history is gone or packed: every command that reads takes them as they are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from eventstore import EventStore
from eventstore.cli import exits
from graph import END, START, StateGraph
from tests.cli import application
from tests.cli.support import APP, Done, config, run

Read = Callable[..., Done]


@pytest.fixture(params=["trimmed", "sealed"])
def thread(request: pytest.FixtureRequest, database: str) -> str:
    """A thread of many runs, cut or sealed somewhere in the middle."""
    moment = datetime.now(UTC) - timedelta(days=3)
    with EventStore(database, clock=lambda: moment) as store:
        short = StateGraph(application.Article)
        short.add_node("write", application.write)
        short.add_edge(START, "write")
        short.add_edge("write", END)
        graph = short.compile(checkpointer=store, snapshot_each_run=True)
        for number in range(12):
            rows = [f"{number} " * 4_000]
            graph.invoke({"topic": f"topic {number}", "rows": rows}, config("long"))
        moment += timedelta(days=3)
        if request.param == "sealed":
            assert store.seal("long", moment).events
        else:
            points = store.trim_points("long")
            point = points[len(points) // 2]
            assert store.trim("long", point.seq).events
    return str(request.param)


def test_it_is_shown_from_where_it_begins(thread: str, read: Read) -> None:
    shown = read("show", "long", "--json").json
    (log,) = shown["logs"]
    assert (log["first"] > 1) == (thread == "trimmed")
    found = read("events", "long", "--json")
    assert (found.code, found.err) == (exits.OK, "")
    seqs = [each["seq"] for each in found.lines]
    assert seqs == list(range(log["first"], log["last"] + 1))
    told = read("history", "long", "--all", "--json").json
    assert [each["seq"] for each in told["events"]] == seqs
    states = read("history", "long", *APP, "--all", "--json").json["checkpoints"]
    assert states[0]["seq"] <= log["first"] and states[-1]["seq"] == seqs[-1]
    assert read("diff", "long", str(states[-1]["seq"]), *APP).code == exits.OK
    for command in (["verify"], ["verify", *APP], ["stats"], ["show", "long"]):
        assert read(*command).code == exits.OK, command


def test_what_is_gone_is_said_to_be_gone(thread: str, read: Read) -> None:
    done = read("diff", "long", "1", *APP)
    if thread == "sealed":
        assert done.code == exits.OK
    else:
        assert done.code == exits.MISSING and done.err
        assert run("events", "long", "--upto", "1").out.count("\n") <= 1
