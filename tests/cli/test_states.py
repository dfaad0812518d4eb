"""`history` and `diff`: with the application's graph, and what the log tells without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eventstore import Event, EventStore
from eventstore.cli import exits
from tests.cli.support import APP, Done, run

Read = Callable[..., Done]


# --- history without the application ----------------------------------------------------


def test_the_log_alone_tells_runs_tasks_questions_and_edits(read: Read) -> None:
    found = read("history", "done", "--json").json
    summary = found["summary"]
    assert summary["runs"] == 1 and summary["tasks"] == {"write": 1, "ask": 1}
    assert (summary["questions"], summary["answers"]) == (1, 1)
    assert (summary["edits"], summary["forks"], summary["errors"]) == (1, 1, {})
    events = found["events"]
    assert [each["seq"] for each in events] == list(range(1, len(events) + 1))
    kinds = [each["kind"] for each in events]
    assert kinds == ["input", "output", "interrupt", "resume", "output", "fork", "update"]
    (asked,) = (each for each in events if each["kind"] == "interrupt")
    assert asked["questions"][0]["value"] == {"publish?": "bees"}
    out = read("history", "done").out
    assert "7 events: 1 run, 2 tasks done, 0 errors, 1 question, 1 answer, 1 edit, 1 fork" in out
    assert "wrote rows, author, notes → ask" in out
    assert "continues from seq 2" in out and 'asks ask: {"publish?": "bees"}' in out


def test_errors_are_told_by_kind(read: Read) -> None:
    assert read("history", "failed", "--json").json["summary"]["errors"] == {"ValueError": 1}
    out = read("history", "failed").out
    assert "errors: ValueError 1×" in out
    assert r"failed: ValueError: " in out and r"nothing to\nwrite \u001b[2J about" in out


def test_a_log_that_no_graph_wrote_is_told_too(database: str, read: Read) -> None:
    with EventStore(database) as store:
        odd = [Event(kind, value) for kind in range(1, 8) for value in (None, 1, {}, {"to": 3})]
        store.append("odd", odd, 0)
    done = read("history", "odd", "--all", "--json")
    assert {each["kind"] for each in done.json["events"]} == set("1234567")
    assert done.json["summary"]["runs"] == 0
    assert read("history", "odd").code == exits.OK


def test_history_is_limited_and_counts_all_the_same(read: Read) -> None:
    found = read("history", "done", "--limit", "2", "--json").json
    assert [each["seq"] for each in found["events"]] == [6, 7]
    assert found["summary"]["runs"] == 1


@pytest.mark.parametrize("app", [(), APP], ids=["log", "checkpoints"])
def test_history_is_oldest_first_unless_reversed(app: tuple[str, ...], read: Read) -> None:
    def seqs(*options: str) -> list[int]:
        found = read("history", "done", *app, *options, "--json").json
        return [each["seq"] for each in found["checkpoints" if app else "events"]]

    whole = seqs()
    assert whole == sorted(whole) and seqs("--reverse") == whole[::-1]
    assert seqs("--limit", "2") == whole[-2:] and seqs("--limit", "2", "--reverse") == whole[:-3:-1]


# --- history with it --------------------------------------------------------------------


def test_checkpoints_with_what_was_next_and_what_changed(read: Read) -> None:
    found = read("history", "done", *APP, "--json").json["checkpoints"]
    begin, wrote, stop, end, back, edit = found
    sources = [each["source"] for each in found]
    assert sources == ["input", "loop", "interrupt", "loop", "fork", "update"]
    assert begin["next"] == ["write"] and begin["changed"] == ["topic", "rows"]
    assert wrote["changed"] == ["rows", "author", "notes"] and wrote["next"] == ["ask"]
    assert stop["changed"] == [] and stop["questions"][0]["value"] == {"publish?": "bees"}
    assert end["changed"] == ["rows", "notes"] and end["next"] == []
    # Gone back to the step of `write`, not to the end that stands before it in the log.
    assert back["parent_id"] == wrote["checkpoint_id"] and back["changed"] == []
    assert edit["parent_id"] == back["checkpoint_id"] and edit["changed"] == ["topic"]
    assert "values" not in begin and begin["metadata"]["kind"] == "test"
    text = read("history", "done", *APP)
    assert text.code == exits.OK and len(text.out.splitlines()) == 7
    assert edit["checkpoint_id"] in text.out and 'ask (asks: {"publish?": "bees"})' in text.out


def test_checkpoints_with_their_values(read: Read) -> None:
    *_, newest = read("history", "waits", *APP, "--full", "--json").json["checkpoints"]
    assert newest["values"]["author"] == {"$type": "Author", "name": "Ann"}
    assert '"$type": "Author"' in read("history", "waits", *APP, "--full").out


def test_a_branch_shows_the_history_that_led_to_it(read: Read) -> None:
    found = read("history", "branch", *APP, "--json").json["checkpoints"]
    assert [each["thread_id"] for each in found[:2]] == ["done", "done"]
    assert found[-1]["thread_id"] == "branch"
    (newest,) = read("history", "branch", *APP, "--limit", "1", "--json").json["checkpoints"]
    assert newest == found[-1]


# --- the application --------------------------------------------------------------------


def test_the_graph_may_come_from_a_function(read: Read) -> None:
    assert read("history", "done", "--app", "tests.cli.application:make").code == exits.OK


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tests.cli.application", "expected module:graph"),
        ("no.such.module:graph", "cannot be loaded: ModuleNotFoundError"),
        ("tests.cli.application:missing", "cannot be loaded: AttributeError"),
        ("tests.cli.application:fails", "cannot be loaded: RuntimeError: no such luck"),
        ("tests.cli.application:number", "is of type int; expected a graph"),
    ],
)
def test_an_application_that_cannot_be_loaded(tmp_path: Path, text: str, said: str) -> None:
    for command in (["history", "a"], ["diff", "a", "1"], ["verify"]):
        done = run(*command, "--db", str(tmp_path / "any.db"), "--app", text)
        assert done.code == exits.USAGE and said in done.err


# --- diff -------------------------------------------------------------------------------


def test_diff_needs_the_application(read: Read) -> None:
    done = read("diff", "done", "1", "2")
    assert done.code == exits.USAGE and "--app" in done.err


def test_diff_tells_what_came_went_and_changed(read: Read) -> None:
    found = read("diff", "done", "1", "5", *APP, "--json").json
    assert (found["from"]["seq"], found["to"]["seq"]) == (1, 5)
    assert found["to"]["step"] == 2
    assert {each["path"]: each for each in found["changes"]} == {
        "rows": {"path": "rows", "change": "appended", "after": ["first", "yes"]},
        "author": {
            "path": "author",
            "change": "added",
            "after": {"$type": "Author", "name": "Ann"},
        },
        "notes": {"path": "notes", "change": "added", "after": {"n": 1, "by": "Bob"}},
    }
    back = read("diff", "done", "5", "2", *APP, "--json").json["changes"]
    assert back == [
        {"path": "rows", "change": "removed", "before": ["yes"]},
        {"path": "notes.by", "change": "removed", "before": "Bob"},
    ]
    text = read("diff", "done", "1", "5", *APP)
    assert text.code == exits.OK and 'appended  rows    ["first", "yes"]' in text.out
    assert "Bob" in read("diff", "done", "1", "5", *APP, "--full").out


def test_diff_takes_ids_and_by_default_the_latest(read: Read) -> None:
    checkpoints = read("history", "done", *APP, "--json").json["checkpoints"]
    oldest = checkpoints[0]["checkpoint_id"]
    found = read("diff", "done", oldest, *APP, "--json").json
    assert found["to"]["checkpoint_id"] == checkpoints[-1]["checkpoint_id"]
    assert {"path": "topic", "change": "changed", "before": "bees", "after": "wasps"} in found[
        "changes"
    ]
    same = read("diff", "done", oldest, oldest, *APP)
    assert same.code == exits.OK and "no difference" in same.out
    assert read("diff", "branch", oldest, *APP).code == exits.OK, "an ancestor's checkpoint"


@pytest.mark.parametrize("place", ["4", "99", "0", "no-such-id", "0000000000000001-0000000001"])
def test_a_checkpoint_that_is_not_there(read: Read, place: str) -> None:
    done = read("diff", "done", place, *APP)
    assert done.code == exits.MISSING and done.err.startswith("eventstore: ")
