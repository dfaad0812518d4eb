"""Pins and times to live."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from eventstore import (
    Addition,
    ConfigurationError,
    Event,
    EventStore,
    ThreadNotFoundError,
)
from tests.eventstore.support import (
    fill,
    sql,
)


def test_a_pin_says_why_who_and_since_when(store: EventStore) -> None:
    fill(store, "t", 1)
    before = datetime.now(UTC)
    pin = store.pin("t", "court order 7", by="legal@example.org").pin
    assert pin is not None
    assert (pin.reason, pin.by) == ("court order 7", "legal@example.org")
    assert before <= pin.at <= datetime.now(UTC)
    assert store.thread("t").pinned
    assert store.thread("t").pin == store.threads()[0].pin == pin
    assert (store.unpin("t").pinned, store.thread("t").pin) == (False, None)


def test_pinned_can_be_set_as_before(store: EventStore) -> None:
    fill(store, "t", 1)
    assert store.set_thread("t", pinned=True).pin is None
    store.pin("t", "why", "who")
    assert store.set_thread("t", pinned=True).pin is not None
    assert store.set_thread("t", pinned=False).pin is None


@pytest.mark.parametrize(("reason", "by"), [("", "who"), ("why", " ")])
def test_a_pin_needs_a_reason_and_somebody(store: EventStore, reason: str, by: str) -> None:
    fill(store, "t", 1)
    with pytest.raises(ConfigurationError):
        store.pin("t", reason, by)


def test_what_is_said_of_no_thread(store: EventStore) -> None:
    for call in (
        lambda: store.pin("t", "why", "who"),
        lambda: store.unpin("t"),
        lambda: store.set_ttl("t", None),
        lambda: store.descendants("t"),
        lambda: store.delete_thread("t", erase=True),
    ):
        with pytest.raises(ThreadNotFoundError):
            call()


def test_a_thread_that_is_being_removed_cannot_be_pinned(store: EventStore) -> None:
    fill(store, "t", 1)
    sql(store, "UPDATE threads SET condemned_at = 1")
    with pytest.raises(ThreadNotFoundError):
        store.pin("t", "why", "who")


def test_a_ttl_is_heeded_when_the_thread_is_made(store: EventStore) -> None:
    ttl = timedelta(seconds=1.5)
    store.append("a", [Event(1)], 0, ttl=ttl)
    store.append("a", [Event(1)], 1, ttl=timedelta(days=9))
    store.append_after(store.head("b"), [Event(1)], ttl=ttl)
    store.append_together(
        [Addition(store.head("c", ns), [Event(1)]) for ns in ("", "sub")], ttl=ttl
    )
    store.fork("a", 1, "d", ttl=ttl)
    fill(store, "e", 1)
    assert {t.thread_id: t.ttl for t in store.threads()} == {
        **dict.fromkeys("abcd", 2),
        "e": None,
    }


def test_a_ttl_can_be_changed(store: EventStore) -> None:
    fill(store, "t", 1)
    assert store.set_ttl("t", timedelta(days=1)).ttl == 86_400
    assert store.set_ttl("t", None).ttl is None
    for wrong in (timedelta(seconds=-1), 5):
        with pytest.raises(ConfigurationError):
            store.set_ttl("t", wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError):
            store.append("new", [Event(1)], 0, ttl=wrong)  # type: ignore[arg-type]
    assert not store.head("new").exists
