"""Appending by a store that appended to the log before: it knows the end, and need not look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from eventstore import (
    ConcurrencyError,
    DuplicateKeyError,
    Event,
    EventStore,
    ThreadNotFoundError,
)
from tests.eventstore.support import data_of


@pytest.fixture
def two(store_url: str) -> Iterator[tuple[EventStore, EventStore]]:
    """Two stores on one database, which know nothing of each other."""
    if store_url == "sqlite://":
        pytest.skip("a database in memory has one store")
    with EventStore(store_url) as one, EventStore(store_url) as other:
        one.append("t", [Event(1, {"n": 1})], 0)
        yield one, other


def test_it_takes_one_statement(store_url: str) -> None:
    with EventStore(store_url) as store:
        store.append("t", [Event(1, {"n": 1})], 0)
        statements: list[str] = []

        def seen(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
            statements.append(statement)

        event.listen(store.engine, "before_cursor_execute", seen)
        for seq in range(1, 4):
            assert store.append("t", [Event(1, {"n": seq + 1})], seq) == seq + 1
        assert [each.split()[0] for each in statements] == ["INSERT"] * 3
        assert store.append("t", [Event(1, {"n": 5})], 4, status="failed") == 5
        assert len(statements) > 4, "the status that it replaces has to be looked up"
        assert store.thread("t").status == "failed"
        assert [each["n"] for each in data_of(store, "t")] == [1, 2, 3, 4, 5]
        assert store.verify("t").ok


def test_what_others_appended_is_not_overwritten(two: tuple[EventStore, EventStore]) -> None:
    one, other = two
    other.append("t", [Event(1, {"n": 2})], 1)
    with pytest.raises(ConcurrencyError) as refused:
        one.append("t", [Event(1, {"n": "lost"})], 1)
    assert (refused.value.expected, refused.value.actual) == (1, 2)
    assert one.append("t", [Event(1, {"n": 3})], 2) == 3
    assert other.append("t", [Event(1, {"n": 4})], 3) == 4
    assert [each["n"] for each in data_of(one, "t")] == [1, 2, 3, 4]


def test_the_status_that_others_gave_stays(two: tuple[EventStore, EventStore]) -> None:
    one, other = two
    other.append("t", [Event(1)], 1, status="waiting")
    one.append("t", [Event(1)], 2)
    one.append("t", [Event(1)], 3)
    assert one.thread("t").status == "waiting"
    other.append("t", [Event(1)], 4, status="idle")
    one.append("t", [Event(1)], 5, status="waiting")
    assert other.thread("t").status == "waiting"


def test_a_batch_that_others_sent_under_its_keys_is_found(
    two: tuple[EventStore, EventStore],
) -> None:
    one, other = two
    batch = [Event(1, {"n": 2}, key="a"), Event(1, {"n": 3}, key="b")]
    other.append("t", batch, 1)
    assert one.append("t", batch, 1) == 3
    assert one.append("t", [Event(1, {"n": 4})], 3) == 4
    with pytest.raises(DuplicateKeyError, match="'a'"):
        one.append("t", [Event(1, {"n": "other"}, key="a")], 4)
    assert [each["n"] for each in data_of(one, "t")] == [1, 2, 3, 4]


def test_a_thread_that_others_deleted_is_not_found(two: tuple[EventStore, EventStore]) -> None:
    one, other = two
    other.delete_thread("t")
    with pytest.raises(ThreadNotFoundError):
        one.append("t", [Event(1)], 1)
    assert one.append("t", [Event(1, {"n": "new"})], 0) == 1
    assert data_of(other, "t") == [{"n": "new"}]


def test_one_that_others_made_anew_is_appended_to(two: tuple[EventStore, EventStore]) -> None:
    one, other = two
    other.delete_thread("t")
    other.append("t", [Event(1, {"n": "new"})], 0)
    assert one.append("t", [Event(1, {"n": "second"})], 1) == 2
    assert [each["n"] for each in data_of(other, "t")] == ["new", "second"]
    assert other.verify("t").ok


def test_logs_and_tenants_are_kept_apart(store_url: str) -> None:
    with EventStore(store_url, tenant="a") as store:
        twin = store.with_tenant("b")
        for _ in range(2):
            for each in (store, twin):
                for ns in ("", "child"):
                    seq = each.head("t", ns).seq
                    assert each.append("t", [Event(1, {"n": seq})], seq, ns) == seq + 1
        assert store.verify("t").ok and twin.verify("t").ok


def test_few_ends_are_remembered(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventstore.cache.ENDS", 3)
    with EventStore(store_url) as store:
        for seq in range(2):
            for number in range(9):
                assert store.append(f"t{number}", [Event(1)], seq) == seq + 1
        assert len(store.core.ends._ends) == 3
