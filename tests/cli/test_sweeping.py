"""`retention plan`, `sweep` and `run`: what would be removed, what is, and the confirmation."""

from __future__ import annotations

import json
import signal
import socket
import sys
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from eventstore import Event, EventStore
from eventstore.cli import exits
from eventstore.cli.options import database_name
from eventstore.cli.sweep import policy_text
from retention import Match, RetentionPolicy
from tests.cli.support import SECONDS_MAX, Done, process, run
from tests.cli.test_process import at_a_terminal, unix

Read = Callable[..., Done]

POLICIES = """
[[policy]]
name = "short"
match = { thread_id = "new*" }
ttl = "1s"

[[policy]]
name = "rest"
ttl = "30d"
"""


OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "examples" / "operations"


@pytest.fixture
def aged(store_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two old threads, one pinned, one waiting and one new."""
    monkeypatch.setenv("EVENTSTORE_DB", store_url)
    moment = datetime.now(UTC) - timedelta(days=100)
    with EventStore(store_url, clock=lambda: moment) as store:
        for name in ("a", "b \x1b[2J", "pinned"):
            store.append(name, [Event(1, name)] * 3, 0)
        store.append("waits", [Event(1)], 0, status="waiting")
        store.pin("pinned", "case 7", "Ann")
        moment += timedelta(days=100)
        store.append("new", [Event(1)], 0)
    return store_url


@pytest.fixture
def read(aged: str) -> Read:
    """Run a read-only command, which must not change the file."""
    from tests.cli.support import unchanged

    def command(*arguments: str, **environment: str | None) -> Done:
        with unchanged(aged):
            return run(*arguments, **environment)

    return command


def left(url: str) -> list[str]:
    """The ids of the remaining threads."""
    with EventStore(url, read_only=True) as store:
        return sorted(thread.thread_id for thread in store.threads())


# --- plan -------------------------------------------------------------------------------


def test_a_plan_says_what_and_why_and_touches_nothing(aged: str, read: Read) -> None:
    done = read("retention", "plan", "--ttl", "30d")
    assert (done.code, done.err) == (exits.OK, "")
    assert r"b \x1b[2J  idle" in done.out and "idle for the ttl of 30 days" in done.out
    assert done.out.endswith("2 to prune, 1 active, 1 pinned, 1 waiting\n")
    found = read("retention", "plan", "--ttl", "30d", "--sizes", "--json").json
    assert found["counts"] == {"prune": 2, "active": 1, "pinned": 1, "waiting": 1}
    assert found["policies"] == [{"name": "default", "ttl": 2592000.0}]
    assert {each["thread_id"] for each in found["decisions"]} == {"a", "b \x1b[2J"}
    assert found["events"] == {"prune": 6}
    assert len(left(aged)) == 5


def test_policies_come_from_a_file_the_environment_or_an_option(
    aged: str, read: Read, tmp_path: Path
) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(POLICIES)
    found = read("retention", "plan", "--policies", str(path), "--json").json
    assert [each["name"] for each in found["policies"]] == ["short", "rest"]
    by_file = read("retention", "plan", "--json", RETENTION_POLICY_FILE=str(path)).json
    assert by_file["policies"] == found["policies"]
    by_value = read("retention", "plan", "--json", RETENTION_TTL="30d").json
    assert by_value["counts"]["prune"] == 2
    nothing = read("retention", "plan", "--json").json
    assert nothing["counts"]["prune"] == 0
    with EventStore(aged) as store:
        store.set_ttl("a", timedelta(days=1))
    own = read("retention", "plan", "--json").json
    assert [each["thread_id"] for each in own["decisions"]] == ["a"]
    both = read("retention", "plan", "--policies", str(path), "--ttl", "1d")
    assert both.code == exits.USAGE
    path.write_text("[[policy]]\nttk = '1d'\n")
    wrong = read("retention", "plan", "--policies", str(path))
    assert wrong.code == exits.USAGE and "'ttk'" in wrong.err


def test_a_sweep_for_another_moment(aged: str) -> None:
    sweep = ("retention", "sweep", "--ttl", "30d", "--yes", "--json")
    early = run(*sweep, "--at", "2020-01-01")
    assert (early.code, early.json["pruned"]) == (exits.OK, 0)
    for wrong in ("soon", (datetime.now(UTC) + timedelta(days=365)).isoformat()):
        assert run(*sweep, "--at", wrong).code == exits.USAGE
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    assert run(*sweep, "--at", yesterday).json["pruned"] == 2


def test_a_plan_for_another_moment(read: Read) -> None:
    later = (datetime.now(UTC) + timedelta(days=50)).isoformat()
    assert (
        read("retention", "plan", "--ttl", "30d", "--at", later, "--json").json["counts"]["prune"]
        == 3
    )
    early = read("retention", "plan", "--ttl", "30d", "--at", "2020-01-01", "--json").json
    assert early["counts"]["prune"] == 0
    assert read("retention", "plan", "--at", "soon").code == exits.USAGE


def test_all_tenants(aged: str, read: Read) -> None:
    with EventStore(aged, tenant="x\x1b", clock=lambda: datetime(2020, 1, 1, tzinfo=UTC)) as store:
        store.append("theirs", [Event(1)], 0)
    done = read("retention", "plan", "--ttl", "30d", "--all-tenants")
    assert r"x\x1b/theirs" in done.out and "default/a" in done.out
    assert read("retention", "plan", "--ttl", "30d", "--json").json["counts"]["prune"] == 2


@pytest.mark.parametrize(
    "command", [["plan"], ["sweep", "--yes"], ["run", "--yes", "--cron", "* * * * *"]]
)
def test_what_archives_needs_obstore_before_anything_is_due(
    aged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    path = tmp_path / "policies.toml"
    path.write_text('[[policy]]\nttl = "1000d"\narchive = "file:///var/archive"\n')
    monkeypatch.setitem(sys.modules, "obstore", None)
    done = run("retention", *command, "--policies", str(path))
    assert done.code == exits.DATABASE
    assert done.err.count("\n") == 1 and "archives need obstore" in done.err


# --- sweep ------------------------------------------------------------------------------


def test_a_sweep_asks_first_and_a_dry_run_does_not(aged: str, read: Read) -> None:
    done = read("retention", "sweep", "--ttl", "30d", "--dry-run")
    assert done.code == exits.OK and "2 to prune" in done.out
    done = run("retention", "sweep", "--ttl", "30d")
    assert done.code == exits.USAGE and "2 to prune" in done.out and "--yes" in done.err
    assert len(left(aged)) == 5
    done = run("retention", "sweep", "--ttl", "30d", "--yes", "--json")
    assert done.code == exits.OK and done.json["pruned"] == 2
    assert left(aged) == ["new", "pinned", "waits"]
    report = read("retention", "report", "--json").json
    assert report["sweeps"][0]["counts"]["pruned"] == 2
    assert {each["policy"] for each in report["removed"]} == {"default"}
    assert "pruned 0 threads, in " in run("retention", "sweep", "--ttl", "30d", "--yes").out


@unix
@pytest.mark.parametrize(("answer", "code", "there"), [("y\n", 0, 3), ("n\n", 2, 5)])
def test_somebody_at_a_terminal_is_asked(aged: str, answer: str, code: int, there: int) -> None:
    command = ("retention", "sweep", "--ttl", "30d")
    found, out, err = at_a_terminal(*command, typed=answer)
    assert found == code
    assert "Apply this plan? [y/N]" in err and "\x1b[2J" not in out
    assert len(left(aged)) == there


# --- run --------------------------------------------------------------------------------


@unix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_sweeps_until_a_signal_and_exits_0(aged: str, number: signal.Signals) -> None:
    command = ("retention", "run", "--ttl", "30d", "--every", "1s", "--yes", "--json")
    daemon = process(*command)
    try:
        assert daemon.stdout is not None
        assert [json.loads(daemon.stdout.readline())["pruned"] for _ in range(2)] == [2, 0]
        daemon.send_signal(number)
        _, err = daemon.communicate(timeout=SECONDS_MAX)
    finally:
        daemon.kill()
        daemon.communicate()
    assert daemon.returncode == exits.OK
    with EventStore(aged, read_only=True) as store:
        database = database_name(store)
    assert err.splitlines() == [
        f"sweeping tenant 'default' of {database} every 1s, starting now",
        "policy 'default': ttl 30d",
        f"{number.name}: finishing the batch under way",
        "stopped",
    ]
    assert left(aged) == ["new", "pinned", "waits"]


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (RetentionPolicy(timedelta.max, name="own ttl"), "prune threads by their own ttl"),
        (RetentionPolicy(match=Match(thread_id="c*", status="idle")), "keep everything, match"),
        (RetentionPolicy(timedelta(days=1), max_events=5), "ttl 1d, max_events 5"),
        (RetentionPolicy(seal_after=timedelta(hours=6), archive="s3://a/b"), "archive s3://a/b"),
        (RetentionPolicy(timedelta(1), archive="https://u:s3cret@h/a"), "archive https://h/a"),
    ],
)
def test_a_policy_in_one_line(policy: RetentionPolicy, text: str) -> None:
    assert text in policy_text(policy) and "s3cret" not in policy_text(policy)


@unix
def test_it_serves_metrics(aged: str) -> None:
    command = ("retention", "run", "--ttl", "30d", "--every", "1h", "--yes", "--json")
    daemon = process(*command, "--metrics", "19464")
    try:
        assert daemon.stdout is not None
        daemon.stdout.readline()
        with urllib.request.urlopen("http://127.0.0.1:19464/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert 'retention_sweeps_total{result="done"} 1.0' in text
        daemon.send_signal(signal.SIGTERM)
        _, err = daemon.communicate(timeout=SECONDS_MAX)
        assert "metrics at http://127.0.0.1:19464/metrics" in err
    finally:
        daemon.kill()
        daemon.communicate()
    assert daemon.returncode == exits.OK


def test_a_port_that_is_taken_is_said_in_one_line(aged: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = str(taken.getsockname()[1])
        done = run("retention", "run", "--cron", "0 3 * * *", "--yes", "--metrics", place)
    assert done.code == exits.DATABASE
    assert done.err.count("\n") == 1
    assert f"cannot serve metrics on 127.0.0.1:{place}" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--every", "1h", "--cron", "0 3 * * *"],
        ["--cron", "at three"],
        ["--every", "often"],
        ["--every", "1h", "--metrics", "here"],
        ["--every", "1h", "--metrics", "99999"],
    ],
)
def test_a_schedule_must_make_sense(aged: str, arguments: list[str]) -> None:
    done = run("retention", "run", "--ttl", "30d", "--yes", *arguments)
    assert done.code == exits.USAGE and done.err
    assert len(left(aged)) == 5


def test_a_container_without_arguments_prunes_nothing(aged: str) -> None:
    lines = (OPERATIONS / "Containerfile").read_text().splitlines()
    words = [json.loads(line[line.index("[") :]) for line in lines if line[:3] in ("ENT", "CMD")]
    (entry, *default) = words
    assert default == [] and entry[0] == "eventstore"
    done = run(*entry[1:])
    assert done.code == exits.USAGE and "--every" in done.err
    assert len(left(aged)) == 5


def test_the_unit_for_systemd_names_a_file_of_policies() -> None:
    text = (OPERATIONS / "retention.service").read_text()
    assert "--policies /etc/" in text and "--ttl" not in text


def test_python_m_retention_is_the_same(aged: str, capsys: pytest.CaptureFixture[str]) -> None:
    from retention.__main__ import main

    assert main(["plan", "--ttl", "30d"]) == exits.OK
    assert "2 to prune" in capsys.readouterr().out
    assert main(["sweep", "--ttl", "30d", "--dry-run", "--json"]) == exits.OK
    assert json.loads(capsys.readouterr().out)["counts"]["prune"] == 2
    assert main(["sweep", "--ttl", "30d", "--yes", "--json"]) == exits.OK
    assert json.loads(capsys.readouterr().out)["pruned"] == 2
    assert main(["report"]) == exits.OK and main([]) == exits.USAGE
    assert main(["--help"]) == exits.OK
    assert "Usage: eventstore retention " in capsys.readouterr().out
    assert main(["sweep", "--ttl", "30"]) == exits.USAGE
    assert sys.stdin is not None
