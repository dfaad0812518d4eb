"""What retention asks of a store: pins and times to live, going over all threads, pruning many
at once, what is left of them, and giving the room back."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventstore import (
    Addition,
    ConfigurationError,
    Event,
    EventStore,
    Expired,
    Fork,
    NewSnapshot,
    Outcome,
    ThreadNotFoundError,
    chain,
    graves,
)
from eventstore.forgetting import SLICES
from tests.eventstore.support import (
    FINGERPRINT,
    check_whole,
    fill,
    is_sqlite,
    orphans,
    rows_of,
    set_everywhere,
    sql,
    tables_by_thread,
)

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
SOON = timedelta(minutes=1)


def later() -> datetime:
    """A moment after everything that a test has appended."""
    return datetime.now(UTC) + SOON


def expired(store: EventStore, *names: str, **said: Any) -> list[Expired]:
    """These threads, as ones that may go."""
    given = {"idle_since": later(), "reason": "ttl", **said}
    return [Expired(store.thread(name).thread_key, **given) for name in names]


@pytest.fixture
def clock(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Moves the time of the store; it stands still otherwise."""
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def move(by: timedelta) -> None:
        nonlocal now
        now += by

    monkeypatch.setattr(store.core, "_clock", lambda: now)
    return move


# --- pins and times to live -------------------------------------------------------------


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


# --- going over all threads -------------------------------------------------------------


def test_a_scan_goes_over_all_threads_by_their_keys(store: EventStore) -> None:
    for number in range(25):
        fill(store, f"t{number}", 1)
    found, after = [], None
    while page := store.scan(after=after, limit=10):
        assert len(page) <= 10
        found += page
        after = page[-1].thread_key
    keys = [thread.thread_key for thread in found]
    assert keys == sorted(keys)
    assert len(set(keys)) == 25
    part = store.scan(first=keys[5], last=keys[9])
    assert [thread.thread_key for thread in part] == keys[5:10]
    assert found[0] == store.thread(found[0].thread_id)


def test_a_scan_leaves_out_what_is_being_removed_or_damaged(store: EventStore) -> None:
    for name in ("a", "b", "c", "d"):
        fill(store, name, 1)
    first, second, third, _ = (thread.thread_id for thread in store.scan())
    sql(store, "UPDATE threads SET condemned_at = 1 WHERE thread_id = ?", (third,))
    sql(store, "UPDATE threads SET metadata = '[' WHERE thread_id = ?", (first,))
    # The first page holds nothing but damage: that is not the end.
    assert [thread.thread_id for thread in store.scan(limit=1)] == [second]
    assert len(store.scan()) == 2


def test_a_scan_for_what_may_have_expired(
    store: EventStore, clock: Callable[[timedelta], None]
) -> None:
    moments = []
    for name in ("old", "busy", "new"):
        fill(store, name, 1)
        moments.append(store.thread(name).created_at)
        clock(timedelta(days=1))
    fill(store, "busy", 1, start=2)
    store.append("brief", [Event(1)], 0, ttl=SOON)

    def names(**conditions: Any) -> set[str]:
        return {thread.thread_id for thread in store.scan(**conditions)}

    assert names(idle_before=moments[0]) == {"old"}
    assert names(idle_before=moments[2]) == {"old", "new"}
    assert names(created_before=moments[1]) == {"old", "busy"}
    assert names(with_ttl=True) == {"brief"}
    assert names(idle_before=moments[0], with_ttl=True) == {"old", "brief"}
    with pytest.raises(ConfigurationError):
        store.scan(limit=0)


def test_another_tenant_on_the_same_database(store: EventStore) -> None:
    assert store.tenants() == []
    fill(store, "t", 1)
    other = store.with_tenant("other")
    fill(other, "t", 2)
    fill(other, "u", 2)
    assert (store.tenant, other.tenant) == ("test", "other")
    assert store.tenants() == other.tenants() == ["other", "test"]
    assert [len(each.scan()) for each in (store, other)] == [1, 2]
    assert len(store.scan(all_tenants=True)) == 3
    assert other.delete_thread("t")
    assert store.head("t").exists
    if isinstance(other, EventStore):
        other.close()
    assert store.head("t").exists
    assert other.head("u").exists


# --- pruning ----------------------------------------------------------------------------


def full_thread(store: EventStore, name: str) -> int:
    """A thread with rows in every table that threads have rows in; its key."""
    fill(store, name, 3)
    fill(store, name, 2, "sub")
    store.put_snapshot(store.head(name), NewSnapshot(FINGERPRINT, b"s", b"i"))
    head = store.head(name)
    store.append(name, [Fork(head.position._replace(seq=2)), Event(1)], head.seq)
    key = head.thread_key
    values = "(?, 'sealed', 1, 256, x'00', x'00', 1, 9, x'0102')"
    columns = "(thread_key, ns, seq, last, link, digest, recorded_at, raw, payload)"
    sql(store, f"INSERT INTO segments {columns} VALUES {values}", (key,))
    assert rows_of(store, key).keys() == set(tables_by_thread(store)) - {"tombstones"}
    return key


def test_pruning_leaves_nothing_but_a_tombstone(store: EventStore) -> None:
    keys = [full_thread(store, name) for name in ("a", "b", "c")]
    fill(store, "other", 3)
    batch = expired(store, "a", "b", "c", policy="chat")
    assert store.prune(batch) == ["pruned"] * 3
    for key in keys:
        assert rows_of(store, key) == {}
    assert orphans(store) == {}
    assert check_whole(store) == 1
    graves = store.tombstones()
    assert {grave.thread_key for grave in graves} == set(keys)
    assert {(g.reason, g.policy, g.asked_by, g.erased) for g in graves} == {
        ("ttl", "chat", None, False)
    }
    assert {grave.events for grave in graves} == {7 + 256}
    assert store.prune(batch) == ["gone"] * 3


def test_pruning_says_what_deleting_one_by_one_says(store: EventStore) -> None:
    full_thread(store, "a")
    full_thread(store, "b")
    store.prune(expired(store, "a"))
    store.delete_thread("b", "ttl")
    one, other = store.tombstones()
    assert (one.events, one.bytes, one.reason) == (other.events, other.bytes, other.reason)


def test_every_thread_is_judged_again(store: EventStore) -> None:
    for name in ("idle", "pinned", "same", "grown", "gone", "source"):
        fill(store, name, 2)
    batch = [
        *expired(store, "idle"),
        *expired(store, "idle", idle_since=LONG_AGO),
        *expired(store, "pinned"),
        *expired(store, "same", unchanged={"": 2}),
        *expired(store, "grown", unchanged={"": 1}),
        *expired(store, "gone"),
        *expired(store, "source"),
    ]
    idle, *batch = batch
    store.delete_thread("gone")
    store.pin("pinned", "why", "who")
    store.fork("source", 2, "fork")
    found = store.prune(batch, keep_if=lambda thread: thread.pinned)
    assert found == ["kept", "kept", "pruned", "kept", "gone", "large"]
    assert store.prune([idle]) == ["pruned"]
    assert {t.thread_id for t in store.threads()} == {"pinned", "grown", "source", "fork"}
    assert check_whole(store) == 4


def test_a_log_that_was_not_archived_keeps_a_thread(store: EventStore) -> None:
    fill(store, "t", 2)
    fill(store, "t", 2, "sub")
    for unchanged in ({"": 2}, {"": 2, "sub": 1}, {"": 2, "sub": 2, "more": 1}):
        assert store.prune(expired(store, "t", unchanged=unchanged)) == ["kept"]
        assert not store.delete_thread("t", unchanged=unchanged)
    assert store.delete_thread("t", unchanged={"": 2, "sub": 2})


def test_a_fork_that_goes_first_lets_its_source_go(store: EventStore) -> None:
    fill(store, "source", 2)
    store.fork("source", 2, "fork")
    batch = expired(store, "source", "fork")
    assert store.prune(batch) == ["large", "pruned"]
    assert store.prune(batch[:1]) == ["pruned"]
    assert orphans(store) == {}


def test_pruning_is_bounded_by_rows(store: EventStore) -> None:
    names = [f"t{number:02}" for number in range(20)]
    for name in names:
        fill(store, name, 9)  # ten rows with its own
    fill(store, names[3], 20, start=10)
    batch = expired(store, *names)
    outcomes: list[list[Outcome]] = []
    while batch:
        outcomes.append(store.prune(batch, rows=25, seconds=60))
        batch = batch[len(outcomes[-1]) :]
    assert outcomes[0] == ["pruned", "pruned"]
    assert outcomes[1] == ["pruned", "large", "pruned"]
    assert all(1 <= len(each) <= 3 for each in outcomes)
    assert [thread.thread_id for thread in store.threads()] == [names[3]]
    assert orphans(store) == {}


def test_pruning_is_bounded_by_time(store: EventStore) -> None:
    names = [f"t{number:02}" for number in range(20)]
    for name in names:
        fill(store, name, 1)
    batch = expired(store, *names)
    count = len(store.prune(batch, seconds=0))
    assert 1 <= count < 20
    assert len(store.threads()) == 20 - count
    assert store.prune(batch[count:]) == ["pruned"] * (20 - count)


def test_what_cannot_be_pruned_at_once(store: EventStore) -> None:
    fill(store, "t", 1)
    assert store.prune([]) == []
    with pytest.raises(ValueError, match="twice"):
        store.prune(expired(store, "t", "t"))
    with pytest.raises(ConfigurationError):
        store.prune(expired(store, "t"), rows=0)


def test_a_damaged_thread_is_kept_and_stops_no_other(store: EventStore) -> None:
    fill(store, "bad", 1)
    fill(store, "good", 1)
    batch = expired(store, "bad", "good")
    sql(store, "UPDATE threads SET metadata = '[' WHERE thread_id = 'bad'")
    assert store.prune(batch, keep_if=lambda thread: thread.pinned) == ["kept", "pruned"]


def test_an_error_of_the_caller_leaves_all_as_it_was(store: EventStore) -> None:
    for name in ("a", "b"):
        fill(store, name, 1)

    def angry(thread: Any) -> bool:
        if thread.thread_id == "b":
            raise ZeroDivisionError
        return False

    with pytest.raises(ZeroDivisionError):
        store.prune(expired(store, "a", "b"), keep_if=angry)
    assert check_whole(store) == 2


def test_a_pruned_name_is_used_again_and_its_key_never(store: EventStore) -> None:
    keys = set()
    for count in range(6):
        fill(store, "t", 1)
        keys.add(store.head("t").thread_key)
        assert len(keys) == count + 1
        store.prune(expired(store, "t"))


# --- tombstones -------------------------------------------------------------------------


class Killed(BaseException):
    """As if the process had ended here."""


def test_who_ends_a_deletion_writes_the_tombstone_that_was_meant(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store_url == "sqlite://":
        pytest.skip("it does not outlive its store")
    set_everywhere(monkeypatch, "DELETE_BATCH", 3)
    with EventStore(store_url) as store:
        fill(store, "t", 10)
        size = store.stats("t").stored_bytes
        removed = store.core._remove

        async def cut_short(*_: Any) -> None:
            raise Killed

        monkeypatch.setattr(store.core, "_remove", cut_short)
        with pytest.raises(Killed):
            store.delete_thread("t", "court", policy="p", asked_by="dpo", erase=True)
        monkeypatch.setattr(store.core, "_remove", removed)
        key = sql(store, "SELECT thread_key FROM threads")[0][0]
        sql(store, "DELETE FROM events WHERE seq < 5")  # it had got that far
    with EventStore(store_url) as store:
        assert store.finish_deletions("another reason") == 1
        (grave,) = store.tombstones()
        assert (grave.reason, grave.policy, grave.asked_by) == ("court", "p", "dpo")
        assert (grave.events, grave.bytes, grave.erased) == (10, size, True)
        assert rows_of(store, key) == {}


def test_tombstones_come_in_pages_the_last_first(
    store: EventStore, clock: Callable[[timedelta], None]
) -> None:
    for number in range(7):
        fill(store, "t", 1)
        store.delete_thread("t", f"{number}")
        clock(timedelta(seconds=number % 2))  # some at the same moment
    fill(store.with_tenant("other"), "t", 1)
    store.with_tenant("other").delete_thread("t")
    found, after = [], None
    while page := store.tombstones(3, after):
        found += page
        after = page[-1]
    assert sorted(grave.reason for grave in found) == [f"{number}" for number in range(7)]
    moments = [grave.deleted_at for grave in found]
    assert moments == sorted(moments, reverse=True)


# --- erasure ----------------------------------------------------------------------------


def everything(store: EventStore) -> list[Any]:
    """Every value in every table."""
    tables = [*tables_by_thread(store), "eventstore_secrets", "retention_sweeps"]
    rows = [row for table in tables for row in sql(store, f"SELECT * FROM {table}")]
    return [bytes(v) if isinstance(v, memoryview) else v for row in rows for v in row]


def test_what_is_left_of_an_erased_thread_tells_nothing_of_its_name(store: EventStore) -> None:
    fill(store, "person@example.org", 5)
    assert store.delete_thread("person@example.org", "art. 17", asked_by="dpo", erase=True)
    (grave,) = store.tombstones()
    assert (grave.erased, grave.events, grave.reason, grave.asked_by) == (
        True,
        5,
        "art. 17",
        "dpo",
    )
    left = everything(store)
    name = ("test", "person@example.org")
    assert name[1] not in left
    assert chain.name_digest(*name) not in left
    for life in range(10):
        assert chain.thread_key(*name, life) not in left
    # With the secret it can still be told that this is the one.
    ((secret,),) = sql(store, "SELECT value FROM eventstore_secrets")
    secret = bytes(secret)
    assert len(secret) == 32
    assert grave.name_digest == chain.keyed_name_digest(secret, *name)
    assert grave.thread_key == chain.grave(secret, chain.thread_key(*name, 0))


BEGINNINGS: dict[str, Callable[[EventStore], Any]] = {
    "append": lambda store: store.append("t", [Event(1)], 0),
    "several": lambda store: store.append("t", [Event(1)] * 3, 0),
    "together": lambda store: store.append_together(
        [Addition(store.head("t", ns), [Event(1)]) for ns in ("", "sub")]
    ),
    "fork": lambda store: store.fork("source", 1, "t"),
}


@pytest.mark.parametrize("how", BEGINNINGS)
@pytest.mark.parametrize("erase", ["yyyyyyy", "nynynny", "ynnnnny"])
def test_an_erased_name_is_used_again_and_its_key_never(
    store: EventStore, how: str, erase: str
) -> None:
    fill(store, "source", 1)
    keys = set()
    for count, each in enumerate(erase, 1):
        BEGINNINGS[how](store)
        head = store.head("t")
        keys.add(head.thread_key)
        assert len(keys) == count
        store.append("t", [Event(1)], 0, "another log")
        store.append("t", [Event(1)], head.seq)
        assert store.verify("t").ok
        assert store.delete_thread("t", erase=each == "y")
        assert not store.head("t").exists
    assert orphans(store) == {}


def test_a_thread_that_is_erased_behind_the_back_of_its_maker(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looked at the tombstones before the first erasure has to look again."""
    fill(store, "source", 1)
    fill(store, "t", 1)
    key = store.head("t").thread_key
    store.delete_thread("t", erase=True)
    real, looked = graves.buried, 0

    def buried(*args: Any) -> Any:
        nonlocal looked
        looked += 1
        return graves.Buried(0, set(), None) if looked == 1 else real(*args)

    monkeypatch.setattr(graves, "buried", buried)
    store.append_together([Addition(store.head("t", ns), [Event(1)]) for ns in ("", "sub")])
    assert looked > 1
    assert store.head("t").thread_key != key


def test_of_two_who_make_the_secret_one_wins(store_url: str) -> None:
    if store_url == "sqlite://":
        pytest.skip("it has one connection")
    with EventStore(store_url) as one, EventStore(store_url) as other:
        stores = [one, other]
        for number, store in enumerate(stores):
            fill(store, f"t{number}", 1)
        meet = threading.Barrier(2)

        def erase(number: int) -> None:
            meet.wait()
            stores[number].delete_thread(f"t{number}", erase=True)

        threads = [threading.Thread(target=erase, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ((value,),) = sql(one, "SELECT value FROM eventstore_secrets")
        digests = {chain.keyed_name_digest(bytes(value), "default", f"t{n}") for n in range(2)}
        assert {grave.name_digest for grave in one.tombstones()} == digests


# --- descendants ------------------------------------------------------------------------


def test_descendants_are_who_would_miss_something(store: EventStore) -> None:
    fill(store, "root", 4)
    fill(store, "other", 4)
    store.fork("root", 3, "child")
    fill(store, "child", 2)
    store.fork("child", 3, "grandchild")
    store.fork("other", 2, "stranger")
    store.append("stranger", [Event(1)], 1)
    position = store.head("root").position._replace(seq=2)
    store.append("stranger", [Fork(position), Event(1)], 2)
    store.fork("stranger", 2, "before")  # of a moment before the root came in
    store.fork("stranger", 4, "behind")

    def names(thread_id: str) -> set[str]:
        return {thread.thread_id for thread in store.descendants(thread_id)}

    assert names("root") == {"child", "grandchild", "stranger", "behind"}
    assert names("other") == {"stranger", "before"}
    assert names("grandchild") == set()
    root = store.head("root").thread_key
    store.delete_thread("child")  # the grandchild is given what it needs, of the root as well
    assert names("root") == {"grandchild", "stranger", "behind"}
    store.delete_thread("stranger")
    assert "behind" in names("root")
    assert store.thread_at(root) is not None


# --- sweepers that share the work -------------------------------------------------------

LEASE = timedelta(seconds=30)


def test_a_slice_is_had_by_one(store: EventStore, clock: Callable[[timedelta], None]) -> None:
    due = datetime(2026, 1, 1, tzinfo=UTC)
    found = [store.claim_slice(f"holder {n % 2}", LEASE, due) for n in range(SLICES)]
    assert {each.number for each in found if each} == set(range(SLICES))
    assert store.claim_slice("late", LEASE, due) is None
    edges = sorted((each.first_key, each.last_key) for each in found if each)
    assert (edges[0][0], edges[-1][1]) == (0, 2**63 - 1)
    assert all(one[1] + 1 == other[0] for one, other in itertools.pairwise(edges))


def test_a_lease_ends(store: EventStore, clock: Callable[[timedelta], None]) -> None:
    due = datetime(2026, 1, 1, tzinfo=UTC)
    claimed = [store.claim_slice("dead", LEASE, due) for _ in range(SLICES)]
    clock(LEASE * 0.6)
    first = claimed[0]
    assert first is not None
    assert store.renew_slice(first, "dead", LEASE)
    clock(LEASE * 0.6)
    # All but the one that was renewed are free again, for others to take.
    taken = {each.number for _ in range(SLICES) if (each := store.claim_slice("b", LEASE, due))}
    assert taken == set(range(SLICES)) - {first.number}
    second = claimed[1]
    assert second is not None
    assert not store.renew_slice(second, "dead", LEASE)
    store.release_slice(second, "dead", due)  # not theirs any more: changes nothing
    assert store.renew_slice(second, "b", LEASE)


def test_what_was_swept_is_not_due(store: EventStore, clock: Callable[[timedelta], None]) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    first = store.claim_slice("a", LEASE, start)
    assert first is not None
    store.release_slice(first, "a", start)
    clock(timedelta(hours=1))
    rest = {each.number for _ in range(SLICES) if (each := store.claim_slice("a", LEASE, start))}
    assert rest == set(range(SLICES)) - {first.number}
    # One that was given back unfinished comes before one that was swept.
    store.release_slice(replace(first, number=5), "a")
    again = [store.claim_slice("b", LEASE, start + SOON) for _ in range(3)]
    assert [each and each.number for each in again] == [5, first.number, None]


def test_many_claim_at_once(store_url: str) -> None:
    due = datetime.now(UTC)
    with EventStore(store_url) as store:
        store.setup()
        found: list[Any] = []

        def claim(name: str) -> None:
            while each := store.claim_slice(name, LEASE, due):
                found.append(each.number)

        threads = [threading.Thread(target=claim, args=(f"{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == list(range(SLICES))


def test_a_claim_makes_sense(store: EventStore) -> None:
    for holder, lease in (("", LEASE), ("a", timedelta(0))):
        with pytest.raises(ConfigurationError):
            store.claim_slice(holder, lease, later())


def test_sweeps_are_on_record(store: EventStore, clock: Callable[[timedelta], None]) -> None:
    cutoff = datetime(2025, 1, 1, tzinfo=UTC)
    ids = []
    for number in range(3):
        ids.append(store.begin_sweep("host", cutoff, {"name": "chat", "ttl": number}))
        clock(SOON)
    store.end_sweep(ids[0], {"pruned": 7})
    last, _, first = store.sweeps()
    assert [each.sweep_id for each in store.sweeps(2)] == [ids[2], ids[1]]
    assert (first.holder, first.cutoff, first.policy["ttl"]) == ("host", cutoff, 0)
    assert first.counts == {"pruned": 7}
    assert first.finished_at is not None
    assert (last.finished_at, last.counts) == (None, {})
    with pytest.raises(ConfigurationError, match="nobody"):
        store.end_sweep("nobody", {})


def test_sweeps_of_long_ago_are_forgotten(
    store: EventStore, clock: Callable[[timedelta], None]
) -> None:
    cutoff = datetime(2025, 1, 1, tzinfo=UTC)
    store.end_sweep(store.begin_sweep("old", cutoff, {}), {})
    clock(timedelta(days=399))
    store.end_sweep(store.begin_sweep("young", cutoff, {}), {})
    assert [each.holder for each in store.sweeps()] == ["young", "old"]
    clock(timedelta(days=2))
    store.end_sweep(store.begin_sweep("new", cutoff, {}), {})
    assert [each.holder for each in store.sweeps()] == ["new", "young"]


# --- room -------------------------------------------------------------------------------


def test_a_file_shrinks_step_by_step(store: EventStore) -> None:
    for number in range(20):
        store.append(f"t{number}", [Event(1, "x" * 50 + str(n)) for n in range(100)], 0)
    store.prune(expired(store, *(f"t{n}" for n in range(20))), rows=10_000, seconds=60)
    if not is_sqlite(store):
        assert store.reclaim(2**20) == 0
        return
    free = sql(store, "PRAGMA freelist_count")[0][0]
    size = sql(store, "PRAGMA page_size")[0][0]
    steps = []
    while step := store.reclaim(10 * size):
        steps.append(step)
    if store.engine.url.database is None:
        return  # memory has no file; what is free is used again
    assert max(steps) == 10 * size
    assert sum(steps) == free * size
    assert check_whole(store) == 0
    with pytest.raises(ConfigurationError):
        store.reclaim(0)


def test_our_large_tables_are_vacuumed_soon(postgresql_url: str) -> None:
    with EventStore(postgresql_url) as store:
        store.setup()
        said = sql(store, "SELECT relname, reloptions FROM pg_class WHERE reloptions IS NOT NULL")
        options = {name: set(given) for name, given in said}
    for table in ("threads", "events", "segments", "snapshots"):
        assert "autovacuum_vacuum_scale_factor=0.02" in options[table]
    assert sum(name.startswith("pg_toast") for name in options) == 4
