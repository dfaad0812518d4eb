"""Two runs on one thread: what each policy keeps, and which run wins."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from eventstore import ConcurrencyError, ConfigurationError
from graph.langgraph import EventStoreSaver
from tests import processes
from tests.effort import effort
from tests.langgraph.graphs import chat, question
from tests.langgraph.kit import CONFIG, Driver, driving

ROOT: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def put(driver: Driver, config: Any, value: str) -> Any:
    version = driver.saver.get_next_version(None, None)
    checkpoint: Any = empty_checkpoint()
    checkpoint |= {"channel_values": {"text": value}, "channel_versions": {"text": version}}
    return driver.call("put", config, checkpoint, {"source": "loop", "step": 1}, {"text": version})


def text(found: Any) -> str:
    value: str = found.checkpoint["channel_values"]["text"]
    return value


@pytest.fixture
def two(store: str, store_url: str) -> Any:
    """Opens two savers on one database."""
    if store_url == "sqlite://":
        pytest.skip("two savers share no database in memory")

    def opened(policy: str) -> Any:
        return (
            driving(store_url, store == "async", on_conflict=policy),
            driving(store_url, store == "async", on_conflict=policy),
        )

    return opened


pytestmark = pytest.mark.every_backend


@pytest.mark.parametrize("policy", ["last", "error", "branch"])
def test_two_runs_continue_the_same_checkpoint(
    two: Any, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = two(policy)
    with first as one, second as other:
        begun = put(one, ROOT, "begun")
        for each in (one, other):
            assert text(each.get(ROOT)) == "begun"
        fast = put(one, begun, "fast")
        with caplog.at_level(logging.WARNING):
            if policy == "error":
                with pytest.raises(ConcurrencyError, match="another run continued checkpoint"):
                    put(other, begun, "slow")
            else:
                slow = put(other, begun, "slow")
                slow = put(other, slow, "slower")
        fast = put(one, fast, "faster")
        expected = {"last": "faster", "error": "faster", "branch": "faster"}
        assert text(other.get(ROOT)) == text(one.get(ROOT)) == expected[policy]
        if policy != "error":
            assert other.saver.conflicts == 1
            assert "two runs continue checkpoint" in caplog.text
            assert text(one.get(slow)) == "slower"
        everything = [text(each) for each in one.listed(ROOT)]
        kept = ["begun", "fast", "faster"] + (["slow", "slower"] if policy != "error" else [])
        assert sorted(everything) == kept


def test_a_branch_is_never_the_latest(two: Any) -> None:
    first, second = two("branch")
    with first as one, second as other:
        begun = put(one, ROOT, "begun")
        other.get(ROOT)
        put(one, begun, "winner")
        slow = put(other, begun, "slow")
        for number in range(70):  # past a snapshot
            slow = put(other, slow, f"slow {number}")
        one.reopen()
        assert text(one.get(ROOT)) == "winner"
        assert text(one.get(slow)) == "slow 69"
        assert len(one.listed(ROOT)) == 73


def test_going_back_on_purpose_is_no_conflict(driver: Driver) -> None:
    driver.reopen(on_conflict="error")
    app = driver.app(chat())
    for number in range(3):
        app.invoke(question(number), CONFIG)
    past = app.history()[4]
    app.invoke(question(10), past.config)
    app.update(past.config, question(11), as_node="answer")
    app.invoke(question(12), CONFIG)
    assert driver.saver.conflicts == 0


def test_two_runs_in_one_saver(driver: Driver) -> None:
    driver.reopen(on_conflict="error")
    begun = put(driver, ROOT, "begun")
    driver.get(ROOT)
    put(driver, begun, "one")
    with pytest.raises(ConcurrencyError):
        put(driver, begun, "other")


def test_two_first_runs_of_a_thread(two: Any) -> None:
    first, second = two("error")
    with first as one, second as other:
        assert one.get(ROOT) is None
        assert other.get(ROOT) is None
        put(one, ROOT, "first")
        with pytest.raises(ConcurrencyError):
            put(other, ROOT, "second")


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="on_conflict must be one of last, error, branch"):
        EventStoreSaver(on_conflict="first")


RACER = """
import sys
from eventstore import ConcurrencyError
from graph.langgraph import EventStoreSaver
from langgraph.checkpoint.base import empty_checkpoint

url, policy, name, rounds = *sys.argv[1:4], int(sys.argv[4])
with EventStoreSaver(url, on_conflict=policy) as saver:
    print("ready", flush=True)
    for line in sys.stdin:
        config = {"configurable": {"thread_id": line.strip(), "checkpoint_ns": ""}}
        found = saver.get_tuple(config)
        print("read", flush=True)
        sys.stdin.readline()
        checkpoint = empty_checkpoint()
        version = saver.get_next_version(None, None)
        checkpoint |= {"channel_values": {"text": name}, "channel_versions": {"text": version}}
        place = found.config if found else config
        try:
            saver.put(place, checkpoint, {"step": 1}, {"text": version})
            print("won", flush=True)
        except ConcurrencyError:
            print("lost", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["last", "error", "branch"])
def test_two_processes_on_one_thread(store_url: str, policy: str) -> None:
    if store_url == "sqlite://":
        pytest.skip("processes share no database in memory")
    rounds = effort(30, 1_000)
    arguments = [sys.executable, "-c", RACER, store_url, policy]
    with EventStoreSaver(store_url) as saver:
        saver.setup()
        racers = [
            processes.Popen(
                [*arguments, name, str(rounds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("one", "other")
        ]

        def tell(words: str) -> None:
            for each in racers:
                assert each.stdin is not None
                each.stdin.write(words + "\n")
                each.stdin.flush()

        def hear() -> list[str]:
            heard = []
            for each in racers:
                assert each.stdout is not None
                heard.append(each.stdout.readline().strip())
            return heard

        try:
            assert hear() == ["ready"] * 2
            for number in range(rounds):
                tell(f"t{number}")
                assert hear() == ["read"] * 2
                tell("go")
                results = sorted(hear())
                config: Any = {"configurable": {"thread_id": f"t{number}", "checkpoint_ns": ""}}
                kept = [text(each) for each in saver.list(config)]
                if policy == "error":
                    assert (results, len(kept)) == (["lost", "won"], 1)
                else:
                    assert (results, sorted(kept)) == (["won"] * 2, ["one", "other"])
                assert text(saver.get_tuple(config)) in kept
        finally:
            for each in racers:
                each.kill()
                each.communicate()
