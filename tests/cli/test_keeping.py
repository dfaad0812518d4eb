"""`retention`: pins, times to live, and the report."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from eventstore import EventStore
from eventstore.cli import exits
from tests.awaited import core_of
from tests.cli.support import ESCAPE, Done, run

Read = Callable[..., Done]


def test_pinning_says_why_and_by_whom(database: str, read: Read) -> None:
    done = run("retention", "pin", "done", "--reason", "case 7 \x1b[2J", "--by", "Ann")
    assert done.code == exits.OK and done.out == "done is pinned\n"
    found = read("show", "done", "--json").json
    assert found["pinned"] and found["pin"]["reason"] == "case 7 \x1b[2J"
    assert found["pin"]["by"] == "Ann" and datetime.fromisoformat(found["pin"]["at"])
    assert r"case 7 \x1b[2J (by Ann, " in read("show", "done").out
    assert run("retention", "unpin", "done", "--json").json["pinned"] is False
    assert read("show", "done", "--json").json["pin"] is None
    assert run("retention", "pin", "done").code == exits.USAGE, "a reason is needed"
    assert run("retention", "pin", "done", "--reason", "").code != exits.OK


def test_a_thread_may_have_its_own_time_to_live(database: str) -> None:
    assert run("retention", "ttl", "done", "1d12h", "--json").json["ttl_seconds"] == 129_600
    assert run("retention", "ttl", ESCAPE, "2w").out == "a \\x1b[2J\\u202e name is kept for 14d\n"
    assert run("retention", "ttl", "done", "none", "--json").json["ttl_seconds"] is None
    for text in ("soon", "30", "0d", "-1d", "1d x"):
        done = run("retention", "ttl", "done", "--", text)
        assert done.code == exits.USAGE and "duration" in done.err, text


def test_threads_that_are_not_there(database: str) -> None:
    for command in (["pin", "--reason", "x"], ["unpin"], ["ttl"]):
        more = ["1d"] if command == ["ttl"] else []
        assert run("retention", *command[:1], "nobody", *more, *command[1:]).code == exits.MISSING


def test_the_report_tells_what_is_left(database: str, read: Read) -> None:
    empty = read("retention", "report")
    assert empty.code == exits.OK
    assert "no sweeps recorded" in empty.out and "no threads removed" in empty.out
    with EventStore(database) as store:
        sweep = core_of(store).begin_sweep("me", datetime(2026, 1, 1, tzinfo=UTC), {"ttl": "30d"})
        store.delete_thread("done", "old \x1b[2J", policy="chat", asked_by="Ann")
        store.delete_thread("waits", "asked for", erase=True)
        core_of(store).end_sweep(sweep, {"pruned": 2})
    found = read("retention", "report", "--json").json
    (recorded,) = found["sweeps"]
    assert recorded["sweep_id"] == sweep and recorded["counts"] == {"pruned": 2}
    erased, removed = sorted(found["removed"], key=lambda each: not each["erased"])
    assert removed["policy"] == "chat" and removed["asked_by"] == "Ann" and removed["events"] == 7
    assert erased["thread_key"] is None and erased["reason"] == "asked for"
    out = read("retention", "report").out
    assert sweep in out and r"old \x1b[2J" in out and "erased" in out
    assert len(read("retention", "report", "--limit", "1", "--json").json["removed"]) == 1


def test_a_writing_command_makes_no_database() -> None:
    for command in (["unpin", "a"], ["ttl", "a", "1d"], ["pin", "a", "--reason", "x"]):
        done = run("retention", *command, "--db", "no/such/file.db")
        assert done.code == exits.DATABASE
