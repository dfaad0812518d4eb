"""`threads`, `show` and `events`: what is stored, shown without the application that wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eventstore import Event, EventStore, ThreadInfo
from eventstore.cli import exits
from eventstore.cli.output import ago
from eventstore.core.core import Core
from tests.cli.support import ESCAPE, Done, run

Read = Callable[..., Done]


def columns(done: Done) -> list[list[str]]:
    """The cells of a table that went to no terminal, without its header."""
    return [re.split(r"\s{2,}", line.strip()) for line in done.out.splitlines()[1:]]


# --- threads ----------------------------------------------------------------------------


def test_threads_are_listed_newest_first(read: Read) -> None:
    done = read("threads")
    assert done.code == exits.OK and done.err == ""
    assert done.out.startswith("THREAD ")
    found = [row[0] for row in columns(done)]
    assert sorted(found) == sorted(["branch", "done", "failed", "waits", r"a \x1b[2J\u202e name"])
    (waits,) = (row for row in columns(done) if row[0] == "waits")
    assert waits[1] == "waiting" and waits[-1] == '{"kind": "test"}'


def test_threads_as_json_lines(read: Read) -> None:
    threads = {each["thread_id"]: each for each in read("threads", "--json").lines}
    assert threads.keys() == {"branch", "done", "failed", "waits", ESCAPE}
    failed = threads["failed"]
    assert failed["status"] == "failed" and failed["metadata"] == {"kind": "test"}
    assert failed["tenant"] == "default" and failed["pin"] is None and not failed["pinned"]
    assert datetime.fromisoformat(failed["created_at"]).tzinfo is not None
    assert re.fullmatch("[0-9a-f]{16}", failed["thread_key"])


def test_threads_are_chosen(database: str, read: Read) -> None:
    with EventStore(database) as store:
        store.append("rich", [Event(1)], 0, metadata={"n": 7, "user": "7"})

    def names(*options: str) -> list[str]:
        return [each["thread_id"] for each in read("threads", "--json", *options).lines]

    assert names("--status", "failed") == ["failed"]
    assert names("--prefix", "wai") == ["waits"]
    assert names("--metadata", "n=7") == ["rich"]
    assert names("--metadata", 'user="7"', "--metadata", "n=7") == ["rich"]
    assert names("--metadata", "user=7") == []
    assert len(names("--metadata", "kind=test")) == 5
    assert len(names("--limit", "2")) == 2
    assert len(names("--limit", "2", "--all")) == 6
    assert names("--all", "--status", "failed") == ["failed"]
    assert names("--all", "--prefix", "wai") == ["waits"]
    assert names("--all", "--metadata", "n=7") == ["rich"]
    assert names("--all", "--metadata", "user=7") == []
    for every in ((), ("--all",)):
        refused = read("threads", "--metadata", "n=[7]", *every)
        assert refused.code == exits.DATABASE and "[7]" in refused.err
    assert names("--tenant", "nobody") == []
    assert run("threads", "--metadata", "kind").code == exits.USAGE


def test_it_says_when_there_is_more_and_when_there_is_nothing(read: Read) -> None:
    assert "--all" in read("threads", "--limit", "1").err
    done = read("threads", "--tenant", "nobody")
    assert (done.code, done.out, done.err) == (exits.OK, "", "no threads\n")


@pytest.mark.slow
def test_all_threads_are_met_while_they_become_active(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`export --all`, `verify`, `stats` and `threads --all` miss none that was there."""
    url, clock = f"sqlite:///{tmp_path}/store.db", [datetime(2026, 1, 1, tzinfo=UTC)]
    monkeypatch.setattr("eventstore.cli.threads.PAGE", 10)
    (tmp_path / "files").mkdir()
    with EventStore(url, clock=lambda: clock[0], durability="normal") as store:
        names = [f"t{number}" for number in range(60)]
        for name in names:
            store.append(name, [Event(1, name)], 0)
        begun, scan = 0, Core.scan

        async def scanned(core: Core, **options: Any) -> list[ThreadInfo]:
            nonlocal begun
            found = await scan(core, **options)
            begun += 1
            clock[0] += timedelta(minutes=2)
            for name in names[begun % 3 :: 3]:  # between two pages
                store.append_after(store.head(name), [Event(1, "again")])
            return found

        monkeypatch.setattr(Core, "scan", scanned)
        listed = run("threads", "--all", "--json", "--db", url).lines
        assert sorted(each["thread_id"] for each in listed) == sorted(names)
        assert run("export", "--all", "--to", str(tmp_path / "files"), "--db", url).code == exits.OK
        assert len([*(tmp_path / "files").iterdir()]) == 60
        assert len(run("verify", "--json", "--db", url).lines) == 60
        assert run("stats", "--json", "--db", url).json["threads"] == 60
        assert begun > 24


# --- show -------------------------------------------------------------------------------


def test_show_tells_what_a_thread_waits_for(read: Read) -> None:
    done = read("show", "waits")
    assert done.code == exits.OK
    assert re.search(r"^status +waiting$", done.out, re.MULTILINE)
    assert 'waits for    ask: {"publish?": "bees"}' in done.out
    found = read("show", "waits", "--json").json
    (question,) = found["questions"]
    assert question["node"] == "ask" and question["value"] == {"publish?": "bees"}
    (log,) = found["logs"]
    assert (log["ns"], log["first"], log["last"], log["kind"]) == ("", 1, 3, "interrupt")
    assert found["stored"]["events"] == 3 and found["forked_from"] is None


def test_show_tells_where_a_fork_comes_from(read: Read) -> None:
    found = read("show", "branch", "--json").json
    assert found["forked_from"] == {"thread_id": "done", "ns": "", "seq": 2}
    assert "done at seq 2" in read("show", "branch").out
    assert read("show", "done", "--json").json["forked_from"] is None


def test_show_tells_why_a_thread_is_pinned_and_its_ttl(database: str, read: Read) -> None:
    with EventStore(database) as store:
        store.set_thread("done", pinned=True, ttl=90_000)
    out = read("show", "done").out
    assert re.search(r"^pinned +yes$", out, re.MULTILINE)
    assert re.search(r"^ttl +1d1h$", out, re.MULTILINE)


@pytest.mark.parametrize("command", ["show", "events", "history", "verify", "stats"])
def test_a_thread_that_is_not_there(read: Read, command: str) -> None:
    done = read(command, "no \x1b[2J one")
    assert done.code == exits.MISSING and done.out == ""
    assert done.err.startswith("eventstore: no thread 'no \\x1b[2J one'")
    assert read(command, "done", "--tenant", "other").code == exits.MISSING


# --- events -----------------------------------------------------------------------------


def test_events_of_unknown_types_are_shown(read: Read) -> None:
    done = read("events", "waits")
    assert done.code == exits.OK
    kinds = [row[2] for row in columns(done)]
    assert kinds == ["input", "output", "interrupt"]
    assert '"author": {"$type": "Author/1", "name": "Ann"}' in done.out
    _, output, _ = read("events", "waits", "--json").lines
    assert output["data"]["writes"]["author"] == {"$type": "Author/1", "name": "Ann"}
    assert output["seq"] == 2 and re.fullmatch("[0-9a-f]{32}", output["digest"])


def test_events_are_chosen_by_seq(read: Read) -> None:
    def seqs(*options: str) -> list[int]:
        return [each["seq"] for each in read("events", "done", "--json", *options).lines]

    every = seqs()
    assert every == list(range(1, len(every) + 1)) and len(every) >= 6
    assert seqs("--after", "3") == every[3:]
    assert seqs("--upto", "2") == [1, 2]
    assert seqs("--last", "2") == every[-2:]
    assert seqs("--upto", "4", "--last", "1") == [4]
    assert seqs("--after", "99") == []


def test_values_are_bounded_unless_they_are_wanted_whole(database: str, read: Read) -> None:
    value = {"text": "x" * 5_000, "rows": list(range(1_000)), "deep": [[[[[[[[[[[1]]]]]]]]]]]}
    with EventStore(database) as store:
        store.append("large", [Event(9, value, key="k\n1")], 0)
    short = read("events", "large").out
    assert len(short.splitlines()) == 2 and len(short) < 600
    assert "[k\\n1] " in short and "…" in short
    full = read("events", "large", "--full").out
    assert "x" * 5_000 in full and " 999\n" in full
    (event,) = read("events", "large", "--json").lines
    assert event["data"] == value and event["kind"] == "9" and event["key"] == "k\n1"


def test_a_log_that_is_not_there(read: Read) -> None:
    done = read("events", "done", "--ns", "sub:1.0")
    assert done.code == exits.MISSING and "has no log 'sub:1.0'" in done.err


def test_a_damaged_event_ends_the_list_with_its_place(database: str, read: Read) -> None:
    with EventStore(database) as store:
        place = (store.thread("done").thread_key,)
        with store.engine.begin() as conn:
            conn.exec_driver_sql(
                "UPDATE events SET kind = 5 WHERE seq = 3 AND thread_key = %d" % place  # noqa: UP031
            )
    done = read("events", "done", "--json")
    assert done.code == exits.FOUND
    assert [each["seq"] for each in done.lines] == [1, 2]
    assert "seq 3" in done.err and "do not match the digest chain" in done.err
    assert read("show", "done").code == exits.OK
    assert read("events", "waits").code == exits.OK


def test_nothing_that_is_stored_reaches_a_terminal_as_it_is(database: str, read: Read) -> None:
    nasty = "\x1b]0;title\x07\x9b2J\r\u2066\udc9b\x00"
    with EventStore(database) as store:
        data = {nasty: [nasty], "node": nasty, "writes": {nasty: nasty}, "to": [nasty]}
        store.append("nasty", [Event(kind, {**data, "step": 1}) for kind in range(1, 8)], 0)
        store.append("nasty", [Event(1, data)], 0, f"{nasty[:5]}")
        store.set_thread("nasty", metadata={nasty: nasty})
    for command in (["threads"], ["show", "nasty"], ["events", "nasty"], ["history", "nasty"]):
        for option in ([], ["--full"], ["--json"]):
            if option == ["--full"] and command[0] in ("threads", "show"):
                continue
            done = read(*command, *option)
            assert done.code == exits.OK, done
            bad = [c for c in done.out if not c.isprintable() and c != "\n"]
            assert bad == [], (command, option)


# --- waiting, branches, blame -----------------------------------------------------------


def test_waiting_lists_what_threads_ask(read: Callable[..., Done]) -> None:
    found = {each["thread_id"]: each for each in read("waiting", "--json").lines}
    assert "waits" in found and "failed" not in found
    assert found["waits"]["questions"][0]["value"] == {"publish?": "bees"}
    assert '{"publish?": "bees"}' in read("waiting").out
    assert "\x1b" not in read("waiting").out


def test_branches_name_both_ends(read: Callable[..., Done]) -> None:
    found = read("branches", "done", "--json").lines
    assert {(each["thread_id"], each["source"]["thread_id"]) for each in found} == {
        ("done", "done"),
        ("branch", "done"),
    }
    assert "branch" in read("branches", "done").out
    assert read("branches", "waits").err.strip() == "no branches"
    assert read("branches", "nobody").code == 4


def test_blame_names_the_event_and_what_was_read(read: Callable[..., Done]) -> None:
    newest, *_ = read("blame", "waits", "author", "--json").lines
    assert (newest["node"], newest["seq"], newest["read_seq"]) == ("write", 2, 1)
    first = read("blame", "waits", "topic", "--json").lines[-1]
    assert (first["kind"], first["node"], first["read_seq"]) == ("input", None, None)
    assert "write" in read("blame", "waits", "author").out
    missing = read("blame", "waits", "author", "--at", "1")
    assert missing.code == 4 and "'author' was not written" in missing.err
    assert read("blame", "waits", "author", "--ns", "none").code == 4


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"),
        (59, "just now"),
        (60, "1 min ago"),
        (3_599, "59 min ago"),
        (7_200, "2 h ago"),
        (86_400, "1 day ago"),
        (3 * 86_400, "3 days ago"),
        (-5, "just now"),
    ],
)
def test_times_are_said_as_people_say_them(seconds: int, said: str) -> None:
    assert ago(datetime.now(UTC) - timedelta(seconds=seconds)) == said


def test_old_times_are_dates() -> None:
    assert ago(datetime(2020, 1, 2, tzinfo=UTC)) == "2020-01-02" and ago(None) == ""
