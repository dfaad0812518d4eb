"""What the explorer says about retention is what policies, sweeps and archives say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eventstore import Event, EventStore
from eventstore.ui import create_app
from retention import Match, RetentionPolicy, sweep
from tests.ui.support import TOKEN, Browser

NOW = datetime.now(UTC)
OLD = NOW - timedelta(days=40)

POLICIES = (
    RetentionPolicy(timedelta(days=90), name="failed ones", match=Match(status="failed")),
    RetentionPolicy(timedelta(days=30), name="all", seal_after=timedelta(days=7)),
)


@pytest.fixture
def store(store_url: str) -> Iterator[EventStore]:
    """Threads: old, old and pinned, old and failed, new, new with a ttl of its own."""
    moment = OLD
    with EventStore(store_url, clock=lambda: moment) as opened:
        for name in ("old", "pinned", "failed"):
            opened.append(name, [Event(1, {"n": n}) for n in range(3)], 0)
        opened.pin("pinned", "a <b>case</b>", "Ann")
        opened.set_thread("failed", status="failed")
        moment = NOW
        opened.append("new", [Event(1, {"n": 1})], 0)
        opened.append("brief", [Event(1, {"n": 1})], 0)
        opened.set_ttl("brief", timedelta(days=2))
        yield opened


def test_threads_say_when_they_will_go_and_by_which_policy(store: EventStore) -> None:
    browser = Browser(create_app(store, token=TOKEN, policies=POLICIES))
    found = {each["thread_id"]: each["expires"] for each in browser.json("threads")["threads"]}
    assert (found["old"]["policy"], found["old"]["now"]) == ("all", True)
    assert (found["pinned"]["reason"], found["pinned"]["at"]) == ("pinned", None)
    assert found["failed"]["policy"] == "failed ones" and not found["failed"]["now"]
    for name, days in (("new", 30), ("brief", 2)):
        active = store.thread(name).active_at
        assert found[name]["at"] == (active + timedelta(days=days)).isoformat()
    assert "due now" in browser.page("threads")


def test_without_policies_only_a_ttl_of_its_own_says_when_a_thread_goes(store: EventStore) -> None:
    browser = Browser(create_app(store, token=TOKEN))
    found = {each["thread_id"]: each["expires"] for each in browser.json("threads")["threads"]}
    assert found["old"] is None and found["brief"]["reason"] == "its own ttl"


def test_the_plan_goes_through_all_threads_page_by_page(store: EventStore) -> None:
    browser = Browser(create_app(store, token=TOKEN, policies=POLICIES))
    found: dict[str, Any] = {}
    after = ""
    while after is not None:
        page = browser.json("plan", limit=2, after=after)
        found |= {each["thread_id"]: each["actions"] for each in page["threads"]}
        after = page["next"]
    assert found["old"] == ["prune"] and found["failed"] == [] and len(found) == 5


def test_sweeps_pins_and_tombstones_are_shown(store: EventStore) -> None:
    sweep(store, POLICIES, now=NOW)
    store.delete_thread("new")
    browser = Browser(create_app(store, token=TOKEN, policies=POLICIES))
    found = browser.json("retention")
    assert [each["name"] for each in found["policies"]] == ["failed ones", "all"]
    assert len(found["sweeps"]) == 1 and found["sweeps"][0]["counts"]
    assert [each["thread_id"] for each in found["pinned"]] == ["pinned"]
    assert {each["policy"] for each in found["tombstones"]} == {"all", None}
    first = browser.json("tombstones", limit=1)
    second = browser.json("tombstones", limit=1, deleted_before=first["next_tombstone"])
    assert [*first["tombstones"], *second["tombstones"]] == found["tombstones"]
    assert "a &lt;b&gt;case&lt;/b&gt;" in browser.page("retention")


def test_storage_shows_what_is_stored(store: EventStore) -> None:
    store.seal("old", NOW)
    browser = Browser(create_app(store, token=TOKEN))
    found: dict[str, Any] = {}
    after = ""
    while after is not None:
        page = browser.json("storage", limit=2, after=after)
        found |= {each["thread_id"]: each for each in page["threads"]}
        after = page["next"]
    assert found["old"]["events"] == 3 and found["old"]["ratio"] > 0
    assert found["old"]["sealed_share"] == store.stats("old").sealed_events / 3
    total = browser.json("storage", all=1)["total"]
    assert (total["threads"], total["events"]) == (5, 11)
    assert "measure all threads" in browser.page("storage")


def test_an_archive_is_listed(store: EventStore, tmp_path: Path) -> None:
    from retention.archives import Archive, archive_thread

    place = (tmp_path / "archive").as_uri()
    archive_thread(store, Archive(place), "old")
    browser = Browser(create_app(store, token=TOKEN, archive=place))
    assert [each["thread_id"] for each in browser.json("archive")["threads"]] == ["old"]
    hidden = create_app(store, token=TOKEN, archive="s3://key:secret@bucket/x?token=secret")
    assert "secret" not in Browser(hidden).page("retention")
