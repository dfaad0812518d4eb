"""Policies and verdicts: what may be removed at a moment, what stays, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import EventStore, ThreadInfo
from eventstore.cli.output import Output
from eventstore.cli.sweep import show_plan
from eventstore.core.trim import TrimPoint
from retention import Match, RetentionPolicy, Verdict, judge, plan, sweep
from retention.policies import policies_of
from retention.trimming import promised
from tests.eventstore.support import fill, sql
from tests.retention.support import DAY

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MONTH = RetentionPolicy(30 * DAY)


def thread(days: float, **values: Any) -> ThreadInfo:
    """A thread created and last active this many days before NOW."""
    at = NOW - days * DAY
    return dataclasses.replace(ThreadInfo("t", "x", at, at, "idle", None, False), **values)


@pytest.mark.parametrize(
    ("policy", "about", "reason"),
    [
        (MONTH, thread(31), "idle for the ttl of 30 days"),
        (MONTH, thread(30), "idle for the ttl of 30 days"),
        (MONTH, thread(29.99), "active"),
        (MONTH, thread(-5), "active"),
        (MONTH, thread(31, status="running"), "idle for the ttl of 30 days"),
        (MONTH, thread(31, status="waiting"), "waiting"),
        (MONTH, thread(31, pinned=True), "pinned"),
        (MONTH, thread(31, ttl=40 * 86_400), "active"),
        (MONTH, thread(2, ttl=86_400), "idle for its own ttl of 1 day"),
        (MONTH, thread(2, ttl=1, pinned=True), "pinned"),
        (MONTH, thread(2, ttl=1, status="waiting"), "waiting"),
        (MONTH, thread(0, ttl=0), "idle for its own ttl of 0:00:00"),
        (MONTH, thread(-1, ttl=-9_999_999), "active"),
        (MONTH, thread(31, ttl=10**11), "no ttl"),
        (MONTH, thread(31, ttl=10**30), "no ttl"),
        (RetentionPolicy(timedelta.max), thread(31), "no ttl"),
        (
            RetentionPolicy(timedelta.max),
            thread(2, ttl=86_400),
            "idle for its own ttl of 1 day",
        ),
        (RetentionPolicy(), thread(9_999), "no limits"),
        (RetentionPolicy(), thread(2, ttl=86_400), "no limits"),
        (RetentionPolicy(archive="file:///var/archive"), thread(2, ttl=86_400), "no limits"),
        (
            RetentionPolicy(DAY, respect_pending_interrupts=False),
            thread(2, status="waiting"),
            "idle for the ttl of 1 day",
        ),
        (
            RetentionPolicy(DAY, respect_pending_interrupts=False),
            thread(2, pinned=True),
            "pinned",
        ),
        (RetentionPolicy(max_age=DAY), thread(1), "older than the max_age of 1 day"),
        (RetentionPolicy(max_age=DAY), thread(0.5), "active"),
        (RetentionPolicy(max_age=DAY), thread(2, status="waiting"), "waiting"),
        (RetentionPolicy(max_age=DAY), thread(2, pinned=True), "pinned"),
        (
            RetentionPolicy(30 * DAY, max_age=DAY),
            thread(2, ttl=10**9),
            "older than the max_age of 1 day",
        ),
        (RetentionPolicy(DAY, match=Match(tenant="y")), thread(2), "no policy"),
        (RetentionPolicy(DAY, match=Match(tenant="y")), thread(2, ttl=1), "no policy"),
        (RetentionPolicy(max_events=5), thread(2), "no ttl"),
    ],
)
def test_a_policy_says_what_may_go(policy: RetentionPolicy, about: ThreadInfo, reason: str) -> None:
    verdict = judge([policy], about, NOW)
    assert verdict.reason == reason
    assert verdict.prune == reason.startswith(("idle for", "older than"))
    assert (verdict.idle_since is not None) == reason.startswith("idle for")
    assert verdict.idle_since is None or about.active_at <= verdict.idle_since <= NOW


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        (Match(), True),
        (Match(tenant="x"), True),
        (Match(tenant="X"), False),
        (Match(thread_id="chat-*"), True),
        (Match(thread_id="chat-?"), False),
        (Match(thread_id="CHAT-*"), False),
        (Match(thread_id="chat-[0-9][0-9]"), True),
        (Match(metadata={"case": "open"}), True),
        (Match(metadata={"case": "open", "level": 1}), True),
        (Match(metadata={"level": True}), False),
        (Match(metadata={"level": 1.0}), False),
        (Match(metadata={"none": None}), True),
        (Match(metadata={"absent": None}), False),
        (Match(status="failed"), True),
        (Match(status="idle"), False),
        (Match("x", "chat-*", {"case": "open"}, "failed"), True),
        (Match("x", "chat-*", {"case": "shut"}, "failed"), False),
    ],
)
def test_a_match_is_all_of_what_it_says(match: Match, fits: bool) -> None:
    metadata = {"case": "open", "level": 1, "none": None, "list": [1]}
    about = thread(1, thread_id="chat-12", metadata=metadata, status="failed")
    assert match.fits(about) is fits


def test_the_first_policy_that_matches_is_the_only_one() -> None:
    policies = [
        RetentionPolicy(name="held", match=Match(metadata={"case": "open"})),
        RetentionPolicy(DAY, "chat", Match(thread_id="chat-*")),
        RetentionPolicy(5 * DAY, "rest"),
    ]
    held = judge(policies, thread(99, thread_id="chat-1", metadata={"case": "open"}), NOW)
    assert held == Verdict(policies[0], "no limits")
    chat = judge(policies, thread(2, thread_id="chat-1"), NOW)
    assert (chat.policy, chat.prune) == (policies[1], True)
    rest = judge(policies, thread(2), NOW)
    assert rest == Verdict(policies[2], "active")


@pytest.mark.parametrize(
    ("policy", "about", "trim", "seal"),
    [
        (RetentionPolicy(keep_history_for=DAY, seal_after=DAY), thread(1), True, True),
        (RetentionPolicy(keep_history_for=DAY, seal_after=DAY), thread(0.5), False, False),
        (RetentionPolicy(keep_last_checkpoints=3), thread(0), True, False),
        (RetentionPolicy(max_bytes=3), thread(0), True, False),
        (RetentionPolicy(max_events=3), thread(0, status="waiting"), True, False),
        (RetentionPolicy(max_events=3, seal_after=DAY), thread(9, pinned=True), False, False),
        (RetentionPolicy(DAY, max_events=3, seal_after=DAY), thread(9), False, False),
        (RetentionPolicy(seal_after=timedelta.max), thread(9), False, False),
    ],
)
def test_what_there_may_be_to_trim_and_to_seal(
    policy: RetentionPolicy, about: ThreadInfo, trim: bool, seal: bool
) -> None:
    verdict = judge([policy], about, NOW)
    assert (verdict.trim, verdict.seal) == (trim, seal)


# --- at random --------------------------------------------------------------------------

durations = st.timedeltas(timedelta(microseconds=1), timedelta(days=500))
maybe = st.none() | durations
matches = st.builds(
    Match,
    tenant=st.sampled_from([None, "x", "y"]),
    thread_id=st.sampled_from([None, "a*", "b*"]),
    status=st.sampled_from([None, "waiting", "idle"]),
)
policies = st.lists(
    st.builds(
        RetentionPolicy,
        ttl=maybe,
        match=matches,
        max_age=maybe,
        keep_history_for=maybe,
        max_events=st.sampled_from([None, 1]),
        seal_after=maybe,
        respect_pending_interrupts=st.booleans(),
    ),
    min_size=1,
    max_size=4,
)
moments = st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)
threads = st.builds(
    ThreadInfo,
    thread_id=st.sampled_from(["a1", "b1", "c1"]),
    tenant=st.sampled_from(["x", "y"]),
    created_at=moments,
    active_at=moments,
    status=st.sampled_from(["waiting", "idle", "running"]),
    ttl=st.none() | st.integers(0, 10**8),
    pinned=st.booleans(),
)


@given(policies, threads, moments)
def test_nothing_goes_before_its_time_and_nothing_stays_for_ever(
    given_policies: list[RetentionPolicy], about: ThreadInfo, now: datetime
) -> None:
    verdict = judge(given_policies, about, now)
    first = next((each for each in given_policies if each.match.fits(about)), None)
    assert verdict.policy is first
    if first is None or about.pinned or not first.limits:
        assert not (verdict.prune or verdict.trim or verdict.seal)
        return
    ttl = first.ttl if about.ttl is None else timedelta(seconds=about.ttl)
    idle = ttl is not None and now - about.active_at >= ttl
    old = first.max_age is not None and now - about.created_at >= first.max_age
    held = about.status == "waiting" and first.respect_pending_interrupts
    assert verdict.prune == ((idle or old) and not held)
    if verdict.idle_since is not None:  # a later event saves the thread
        assert ttl is not None and verdict.idle_since == now - ttl
    assert verdict.prune or verdict.idle_since is None
    if verdict.prune and not old:
        assert verdict.idle_since is not None, "its last event has to be asked for"
    later = judge(given_policies, about, now + timedelta(days=1))
    assert later.prune or not verdict.prune, "what may go today may go tomorrow"


points = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.timedeltas(timedelta(0), 9 * DAY)),
    max_size=12,
)


@given(
    points,
    st.none() | st.timedeltas(timedelta(microseconds=1), 20 * DAY),
    st.none() | st.integers(1, 10),
)
def test_trimming_keeps_at_least_what_was_promised(
    steps: list[tuple[int, int, timedelta]], history: timedelta | None, last: int | None
) -> None:
    policy = RetentionPolicy(keep_history_for=history, keep_last_checkpoints=last)
    seq = step = 0
    at = NOW - 90 * DAY
    found: list[TrimPoint] = []
    for events, checkpoints, time in steps:
        seq, step, at = seq + events + 1, step + checkpoints + 1, min(at + time, NOW)
        found.append(TrimPoint(seq, step if checkpoints else None, at, seq))
    chosen = promised(policy, found, NOW)

    def keeps(point: TrimPoint) -> bool:
        if history is not None and point.recorded_at > NOW - history:
            return False
        known = [each.step for each in found if each.step is not None]
        if last is None:
            return True
        return point.step is not None and max(known) - point.step + 1 >= last

    good = [point for point in found if keeps(point)] if history or last else []
    assert chosen == (good[-1] if good else None)


# --- what makes no sense ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ttl": timedelta(0)}, "ttl must be greater than zero"),
        ({"max_age": timedelta(seconds=-1)}, "max_age must be greater than zero"),
        ({"ttl": 30}, "ttl must be a timedelta or None, not 30"),
        ({"seal_after": "6h"}, "seal_after must be a timedelta or None, not '6h'"),
        ({"max_events": 0}, "max_events must be at least 1, not 0"),
        ({"max_bytes": 1.5}, "max_bytes must be a whole number or None, not 1.5"),
        ({"keep_last_checkpoints": True}, "keep_last_checkpoints must be a whole number"),
        ({"name": ""}, "name must be a non-empty string"),
        ({"archive": ""}, "archive must be a non-empty string"),
        ({"archive": "/var/archive"}, "archive must be a URL such as .*, not '/var/archive'"),
        ({"archive": "file:arch"}, "archive must be a URL"),
        ({"archive": "file://host/arch"}, "archive must be a URL"),
        ({"archive": "s3:///prefix"}, "archive must be a URL"),
        ({"archive": "s4://me:secret@x/y"}, "archive must be a URL such as .*, not 's4://x/y'"),
        ({"match": {"tenant": "x"}}, "match must be a Match"),
        ({"respect_pending_interrupts": 1}, "must be True or False"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        RetentionPolicy(**values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"status": "bored"}, "match.status must be one of .*'waiting'.*, not 'bored'"),
        ({"tenant": ""}, "match.tenant must be a non-empty string"),
        ({"thread_id": 5}, "match.thread_id must be a non-empty string"),
        ({"metadata": ["a"]}, "match.metadata must be a mapping"),
        ({"metadata": {"a": []}}, "match.metadata must map names to text, numbers"),
    ],
)
def test_a_match_that_makes_no_sense_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        Match(**values)


@pytest.mark.parametrize(
    ("several", "said"),
    [
        ([], "expected at least one policy"),
        ([MONTH, MONTH], "two policies are named 'default'"),
        ([MONTH, 5], "must be a RetentionPolicy, not 5"),
    ],
)
def test_policies_that_make_no_sense_together_are_refused(
    several: Sequence[Any], said: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        policies_of(several)


def test_a_policy_cannot_be_changed_and_can_be_compared() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MONTH.ttl = None  # type: ignore[misc]
    given_metadata = {"case": "open"}
    policy = RetentionPolicy(match=Match(metadata=given_metadata))
    given_metadata["case"] = "shut"
    assert policy == RetentionPolicy(match=Match(metadata={"case": "open"}))
    assert len({policy, MONTH, RetentionPolicy(30 * DAY)}) == 2


def test_a_policy_can_be_written_down() -> None:
    policy = RetentionPolicy(DAY, "chat", Match(thread_id="c*"), max_events=5)
    said = {"name": "chat", "ttl": 86_400.0, "match": {"thread_id": "c*"}, "max_events": 5}
    assert policy.described() == said
    assert RetentionPolicy().described() == {"name": "default"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:s3cret@bucket/threads", "s3://bucket/threads"),
        ("https://user:s3cret@host:9000/bucket?sig=s3cret#s3cret", "https://host:9000/bucket"),
        ("https://host/bucket?X-Amz-Signature=s3cret", "https://host/bucket"),
        ("s3://key:s3/cret@bucket/threads", "s3://bucket/threads"),
        ("s3://key:s3cr@et@bucket/threads", "s3://bucket/threads"),
        ("s3://bucket/of@somebody", "s3://bucket/of@somebody"),
        ("file:///home/of@somebody/a?b", "file:///home/of@somebody/a?b"),
    ],
)
def test_passwords_of_archives_are_recorded_nowhere(
    url: str, shown: str, blocking_store: EventStore, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = RetentionPolicy(timedelta(days=1), archive=url)
    assert policy.described()["archive"] == shown
    fill(blocking_store, "t", 1)
    now = datetime.now(UTC) + timedelta(days=2)
    found = plan(blocking_store, policy, now)
    assert found.decisions[0].archive == url, "a sweep needs it"
    show_plan(Output(as_json=True), found, everything=True)
    sweep(blocking_store, RetentionPolicy(timedelta(days=1), archive=url))
    recorded = str(sql(blocking_store, "SELECT policy FROM retention_sweeps"))
    for text in (capsys.readouterr().out, recorded, repr(policy), repr(found)):
        assert "s3cret" not in text and "cret@" not in text
    assert shown in recorded
