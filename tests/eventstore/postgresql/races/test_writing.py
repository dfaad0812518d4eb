"""Two that make one thread, write to it, or use its name again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest

from eventstore import (
    Addition,
    ConcurrencyError,
    Event,
    EventStore,
    EventStoreError,
    Head,
    NewSnapshot,
    ThreadExistsError,
)
from eventstore.models import Status
from tests.eventstore.postgresql.races.support import MOMENTS_MAX, Call, Race, beside, only
from tests.eventstore.support import (
    FINGERPRINT,
    check_whole,
    fill,
    orphans,
    sql,
)

pytestmark = pytest.mark.no_cover  # a search

# --- two that make the same thread ------------------------------------------------------


def test_one_makes_a_thread_while_another_makes_it_too(store: EventStore, race: Race) -> None:
    numbered = itertools.count()

    def prepare() -> tuple[Call, Call]:
        name = f"t{next(numbered)}"
        head = store.head(name)
        return (
            lambda: store.append_after(head, [Event(1, {"n": 1})]).seq,
            lambda: store.append_after(head, [Event(1, {"n": 2}), Event(1, {"n": 3})]).seq,
        )

    def check() -> None:
        losers = [a for a in race.answers if isinstance(a, EventStoreError)]
        (loser,) = losers
        assert isinstance(loser, ConcurrencyError)
        (winner,) = [a for a in race.answers if not isinstance(a, EventStoreError)]
        assert (loser.expected, loser.actual) == (0, winner)
        assert store.threads()[0].thread_id.startswith("t")
        check_whole(store)

    assert beside(race, prepare, check) >= 2


def test_two_begin_two_logs_of_a_new_thread(store: EventStore, race: Race) -> None:
    """With a snapshot each takes several statements, and they meet at the thread's row."""
    numbered = itertools.count()
    kept = NewSnapshot(FINGERPRINT, b"s", b"")

    def prepare() -> tuple[Call, Call]:
        name = f"t{next(numbered)}"
        one, other = store.head(name), store.head(name, "sub")
        batch = [Event(1, {"n": 1})]
        return (
            lambda: store.append_after(one, batch, snapshot=kept).seq,
            lambda: store.append_after(other, batch, snapshot=kept).seq,
        )

    def check() -> None:
        assert race.answers == [1, 1]
        check_whole(store)

    assert beside(race, prepare, check, moments=MOMENTS_MAX) >= 4
    assert race.waited > 0


def test_two_make_a_thread_with_several_logs_each(store: EventStore, race: Race) -> None:
    """Only who wants the same log is in the way."""
    numbered = itertools.count()
    logs = [("", "a"), ("b", "c")]

    def prepare() -> tuple[Call, Call]:
        name = f"t{next(numbered)}"
        one, other = ([store.head(name, ns) for ns in both] for both in logs)
        return lambda: together(store, one), lambda: together(store, other)

    def check() -> None:
        assert race.answers == [[1, 1], [1, 1]]
        check_whole(store)

    assert beside(race, prepare, check, moments=MOMENTS_MAX) >= 4
    assert race.waited > 0


def together(store: EventStore, heads: Sequence[Head], status: Status | None = None) -> list[int]:
    """Append an event to each of these logs."""
    batch = [Event(1, {"n": 1})]
    additions = [Addition(head, batch) for head in heads]
    return [head.seq for head in store.append_together(additions, status=status)]


def test_a_name_is_used_again_while_its_thread_goes(store: EventStore, race: Race) -> None:
    """Whoever makes the next thread of a name gets a key that none had, whatever the moment."""
    fill(store, "t", 1)

    def again() -> int:
        head = store.head("t")
        if head.exists:
            raise ThreadExistsError("t", store.tenant)
        return store.append_after(head, [Event(1, {"n": 1})]).seq

    def prepare() -> tuple[Call, Call]:
        if not store.head("t").exists:
            fill(store, "t", 1)
        return lambda: store.delete_thread("t"), again

    def check() -> None:
        assert race.answers[0] is True
        only(race.answers[1], ThreadExistsError)
        check_keys(store)

    assert beside(race, prepare, check) >= 4


def test_a_thread_comes_and_goes_while_another_is_made(store: EventStore, race: Race) -> None:
    numbered = itertools.count()

    def prepare() -> tuple[Call, Call]:
        name = f"t{next(numbered)}"
        head = store.head(name)

        def come_and_go() -> bool:
            fill(store, name, 1)
            return store.delete_thread(name)

        return lambda: store.append_after(head, [Event(1, {"n": 9})]).seq, come_and_go

    def check() -> None:
        only(race.answers[0], ConcurrencyError)
        only(race.answers[1], ConcurrencyError)
        check_keys(store)

    assert beside(race, prepare, check) >= 2


def check_keys(store: EventStore) -> None:
    """No key has two lives."""
    query = "SELECT thread_key FROM threads NATURAL JOIN tombstones"
    assert sql(store, query) == []
    assert orphans(store) == {}
    check_whole(store)


# --- writers of one thread --------------------------------------------------------------


def test_two_write_to_two_logs_of_a_thread_and_to_its_row(store: EventStore, race: Race) -> None:
    def prepare() -> tuple[Call, Call]:
        one, other = store.head("t"), store.head("t", "sub")
        status: Status = "failed" if one.status == "idle" else "idle"
        # With a snapshot an append is more than one statement, and holds the row for a while.
        kept = NewSnapshot(FINGERPRINT, b"s", b"")
        batch = [Event(1, {"n": one.seq})]
        return (
            lambda: store.append_after(one, batch, status=status, snapshot=kept).seq,
            lambda: store.append_after(other, [Event(1, {"n": 0})], status=status).seq,
        )

    fill(store, "t", 1)

    def check() -> None:
        for answer in race.answers:
            only(answer)
        check_whole(store)

    assert beside(race, prepare, check, moments=MOMENTS_MAX) >= 4
    assert race.waited > 0


@pytest.mark.parametrize("second", ["a b", "b a", "a", "b"])
def test_two_write_to_several_logs_in_any_order(
    store: EventStore, race: Race, caplog: pytest.LogCaptureFixture, second: str
) -> None:
    """One of them is first in all logs that both want, and neither waits for the other in turn."""
    fill(store, "t", 1)
    statuses: Iterator[Status] = itertools.cycle(("failed", "idle"))
    before: dict[str, int] = {}

    def prepare() -> tuple[Call, Call]:
        status = next(statuses)
        one, other = ([store.head("t", ns) for ns in names.split()] for names in ("a b", second))
        before.update({ns: store.head("t", ns).seq for ns in "ab"})
        return lambda: together(store, one, status), lambda: together(store, other, status)

    def check() -> None:
        (loser,) = [a for a in race.answers if isinstance(a, EventStoreError)]
        assert isinstance(loser, ConcurrencyError)
        wrote = "a b" if race.answers[1] is loser else second
        for ns in "ab":
            assert store.head("t", ns).seq == before[ns] + (ns in wrote)
        check_whole(store)

    assert beside(race, prepare, check, moments=MOMENTS_MAX) >= 4
    assert race.waited > 0
    assert not caplog.records  # of a deadlock, after which one of them would try again


def test_two_store_a_snapshot_at_one_place(store: EventStore, race: Race) -> None:
    fill(store, "t", 3)
    head = store.head("t")

    def prepare() -> tuple[Call, Call]:
        store.delete_snapshots("t")
        return (
            lambda: store.put_snapshot(head, NewSnapshot(FINGERPRINT, b"one", b"")),
            lambda: store.put_snapshot(head, NewSnapshot(FINGERPRINT, b"other", b"")),
        )

    def check() -> None:
        assert race.answers == [None, None]
        found = store.replay("t", fingerprint=FINGERPRINT).snapshot
        assert found is not None and found.state in (b"one", b"other")

    assert beside(race, prepare, check) >= 2
