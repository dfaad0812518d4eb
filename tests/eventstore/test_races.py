"""Two calls at the same time on PostgreSQL, where many write at once.

Each pair of calls is run again and again: before the first statement of the one, before the
second, and so on up to its commits, the other is started beside it, and either finishes there
or waits for a lock that the first one holds. Whatever the moment, both end with an answer in
our words, and what they leave is whole. SQLite lets one writer in at a time; there, moments
between transactions are all there are (`test_deletion`, `test_forks`).
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import event

from eventstore import (
    Addition,
    ConcurrencyError,
    Event,
    EventStore,
    EventStoreError,
    Expired,
    Fork,
    Head,
    LineageMovedError,
    NewSnapshot,
    Outcome,
    Position,
    PositionNotFoundError,
    ThreadExistsError,
    ThreadNotFoundError,
    Trimmed,
    VerifyReport,
)
from eventstore.events import Status
from tests.eventstore.support import (
    FINGERPRINT,
    WRITES,
    check_whole,
    fill,
    numbers,
    orphans,
    rows_of,
    seal_now,
    set_everywhere,
    sql,
)

END_S_MAX: Final = 30.0
MOMENTS_MAX: Final = 200
EVERY: Final = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 6
WAITS: Final = """
    SELECT EXISTS (SELECT FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock')
"""

Call = Callable[[], Any]


@pytest.fixture
def store_url(postgresql_url: str) -> str:
    return postgresql_url


@pytest.fixture
def store(blocking_store: EventStore) -> EventStore:
    """What the asynchronous store sends is the same: both run the same operations."""
    return blocking_store


class Race:
    """Runs a call, with another one beside it from a certain moment on."""

    def __init__(self, store: EventStore, watcher: psycopg.Connection[Any]) -> None:
        self._watcher = watcher
        self._moment = 0
        self._seen = 0
        self._other: Call | None = None
        self._thread: threading.Thread | None = None
        self._mine: int | None = None
        self.waited = 0
        self.answers: list[Any] = []
        event.listen(store.engine, "before_cursor_execute", self._at)
        event.listen(store.engine, "commit", self._at)

    def _at(self, *_: Any) -> None:
        if threading.get_ident() != self._mine:
            return
        self._seen += 1
        if self._seen == self._moment:
            self._thread = threading.Thread(target=self._run)
            self._thread.start()
            give_up_at = time.monotonic() + END_S_MAX
            while self._thread.is_alive() and time.monotonic() < give_up_at:
                if self._watcher.execute(WAITS).fetchone() == (True,):
                    self.waited += 1
                    return
                self._thread.join(0.002)

    def _run(self) -> None:
        assert self._other is not None
        self.answers[1] = _answer(self._other)

    def at(self, moment: int, one: Call, other: Call) -> bool:
        """Run both; false when the one was over before the moment came."""
        self._moment, self._seen, self._other, self._thread = moment, 0, other, None
        self.answers = [None, None]
        self._mine = threading.get_ident()
        self.answers[0] = _answer(one)
        self._mine = None
        if self._thread is None:
            return False
        self._thread.join(END_S_MAX)
        assert not self._thread.is_alive(), "the two wait for each other"
        return True


def _answer(call: Call) -> Any:
    try:
        return call()
    except EventStoreError as error:
        return error


@pytest.fixture
def race(store: EventStore, store_url: str) -> Iterator[Race]:
    store.setup()
    with psycopg.connect(store_url, autocommit=True) as watcher:
        yield Race(store, watcher)


GONE: Final = (ThreadNotFoundError, PositionNotFoundError)


def beside(
    race: Race, prepare: Callable[[], tuple[Call, Call]], check: Call, every: int = EVERY
) -> int:
    """Run the race at every moment, each time with new threads; returns how many there were.

    At every sixth one, unless thorough tests are asked for.
    """
    for moment in range(1, MOMENTS_MAX, every):
        one, other = prepare()
        if not race.at(moment, one, other):
            return moment - 1
        check()
    raise AssertionError("the call never came to its end")


def only(answer: Any, *errors: type[EventStoreError]) -> None:
    """The answer is one of these errors, or none."""
    assert not isinstance(answer, EventStoreError) or isinstance(answer, errors), repr(answer)


def deleted_or_whole(store: EventStore, key: int) -> None:
    """Nothing of the thread is left, or all of it is there; and the others are whole."""
    if store.thread_at(key) is None:
        assert rows_of(store, key) == {}
    check_whole(store)
    assert orphans(store) == {}


# --- many at once, and another call ---


def prune_all(store: EventStore, keep_if: Any = None) -> list[Outcome]:
    """Prune every thread there is, as one batch."""
    batch = [Expired(thread.thread_key, None, "ttl") for thread in store.scan()]
    return store.prune(batch, keep_if=keep_if, seconds=60)


BESIDE_PRUNING: Final[dict[str, Callable[[EventStore, Any], Any]]] = {
    **WRITES,
    "pin": lambda store, head: store.pin("t", "why", "who"),
    "fork": lambda store, head: store.fork("t", 2, "fork of t"),
    "prune": lambda store, head: prune_all(store),
    "append to another": lambda store, head: fill(store, "u", 1, start=3),
    "begin": lambda store, head: fill(store, "new", 2),
    "erase": lambda store, head: store.delete_thread("t", erase=True),
    "change another": lambda store, head: store.set_thread("u", status="failed"),
}


@pytest.mark.parametrize("pruning_first", [True, False])
@pytest.mark.parametrize("name", BESIDE_PRUNING)
def test_pruning_and_another_call(
    store: EventStore, race: Race, name: str, pruning_first: bool
) -> None:
    heads: dict[str, Head] = {}

    def pruned() -> list[Outcome]:
        return prune_all(store, lambda thread: thread.pinned or thread.thread_id not in heads)

    def prepare() -> tuple[Call, Call]:
        for thread in store.scan():
            store.unpin(thread.thread_id)
            store.delete_thread(thread.thread_id)
        for thread_id in ("t", "u", "v"):
            fill(store, thread_id, 3)
            store.put_snapshot(store.head(thread_id), NewSnapshot(FINGERPRINT, b"s", b"i"))
            fill(store, thread_id, 2, start=4)
            heads[thread_id] = store.head(thread_id)
        calls = (pruned, lambda: BESIDE_PRUNING[name](store, heads["t"]))
        return calls if pruning_first else calls[::-1]

    def check() -> None:
        outcomes, answer = race.answers if pruning_first else race.answers[::-1]
        only(outcomes)
        only(answer, *GONE, ConcurrencyError)
        for head in heads.values():
            deleted_or_whole(store, head.thread_key)
        failed = isinstance(answer, EventStoreError)
        alive = store.thread_at(heads["t"].thread_key) is not None
        if name == "pin":
            assert alive == (not failed)  # what was said to be pinned stays
        if name == "fork" and not failed:
            assert numbers(store.replay("fork of t").events) == [1, 2]
        if name == "prune":
            assert store.scan() == []  # between the two, nothing is kept by both

    assert beside(race, prepare, check) > 0


# --- a deletion and another call --------------------------------------------------------


@pytest.mark.parametrize("deletion_first", [True, False])
@pytest.mark.parametrize("size", [1_000, 2])
@pytest.mark.parametrize("name", WRITES)
def test_a_deletion_and_another_call(
    store: EventStore,
    race: Race,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    size: int,
    deletion_first: bool,
) -> None:
    set_everywhere(monkeypatch, "DELETE_BATCH", size)  # in one transaction, or condemned first
    key = 0

    def prepare() -> tuple[Call, Call]:
        nonlocal key
        if store.head("t").exists:
            store.delete_thread("t")
        fill(store, "t", 3)
        store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, b"s", b"i"))
        fill(store, "t", 2, start=4)
        head = store.head("t")
        key = head.thread_key
        calls = lambda: store.delete_thread("t"), lambda: WRITES[name](store, head)
        return calls if deletion_first else (calls[1], calls[0])

    def check() -> None:
        deletion, call = race.answers if deletion_first else race.answers[::-1]
        only(call, ThreadNotFoundError)
        if name == "verify" and isinstance(call, VerifyReport):
            assert call.ok, call.problems
        if name in ("read", "replay") and isinstance(call, list):
            # Of a thread that is not there a replay is empty.
            assert numbers(call) in ([[1, 2, 3, 4, 5]] if name == "read" else [[4, 5], []])
        only(deletion, *([ThreadNotFoundError] if name == "delete_thread" else []))
        assert store.thread_at(key) is None
        deleted_or_whole(store, key)

    assert beside(race, prepare, check) >= 2


# --- a deletion and forks ---------------------------------------------------------------


def parent(store: EventStore) -> int:
    """A thread with a snapshot, that an old fork goes on from; returns its key."""
    for name in ("parent", "old", "new", "newer"):
        if store.head(name).exists:
            store.delete_thread(name)
    fill(store, "parent", 6)
    store.put_snapshot(store.head("parent"), NewSnapshot(FINGERPRINT, b"s", b"i"))
    fill(store, "parent", 2, start=7)
    store.fork("parent", 4, "old")
    return store.head("parent").thread_key


def of(store: EventStore, thread_id: str) -> list[int]:
    return numbers(store.replay(thread_id).events)


@pytest.mark.parametrize("deletion_first", [True, False])
@pytest.mark.parametrize("forked", [True, False])
def test_a_deletion_and_a_new_fork(
    store: EventStore, race: Race, deletion_first: bool, forked: bool
) -> None:
    key = 0
    outcomes = set()

    def prepare() -> tuple[Call, Call]:
        nonlocal key
        key = parent(store)
        if not forked:
            store.delete_thread("old")
        calls = lambda: store.delete_thread("parent"), lambda: store.fork("parent", 7, "new")
        return calls if deletion_first else (calls[1], calls[0])

    def check() -> None:
        deletion, fork = race.answers if deletion_first else race.answers[::-1]
        assert deletion is True
        only(fork, *GONE)
        outcomes.add(type(fork))
        if fork == 1:
            assert of(store, "new") == [1, 2, 3, 4, 5, 6, 7]
        else:
            assert not store.head("new").exists
        if forked:
            assert of(store, "old") == [1, 2, 3, 4]
        deleted_or_whole(store, key)

    assert beside(race, prepare, check, every=1) >= 4
    assert len(outcomes) > 1
    assert race.waited > 0


def test_two_end_the_same_deletion(
    store: EventStore, race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_everywhere(monkeypatch, "DELETE_BATCH", 3)
    key = 0

    def prepare() -> tuple[Call, Call]:
        nonlocal key
        key = parent(store)
        store.fork("parent", 7, "new")
        sql(store, "UPDATE threads SET condemned_at = 1 WHERE thread_id = 'parent'")
        return store.finish_deletions, store.finish_deletions

    def check() -> None:
        assert set(race.answers) <= {0, 1}
        assert rows_of(store, key) == {}
        assert of(store, "old") == [1, 2, 3, 4]
        assert of(store, "new") == [1, 2, 3, 4, 5, 6, 7]
        deleted_or_whole(store, key)

    assert beside(race, prepare, check, every=1) >= 8
    assert race.waited > 0


@pytest.mark.parametrize("first", ["parent", "middle", "child"])
@pytest.mark.parametrize("second", ["parent", "middle", "child"])
def test_a_thread_and_its_fork_are_deleted_together(
    store: EventStore, race: Race, first: str, second: str
) -> None:
    """Of three generations any two go at the same time; the third keeps what it needs."""
    names = {"parent", "middle", "child"}

    def prepare() -> tuple[Call, Call]:
        for name in names:
            if store.head(name).exists:
                store.delete_thread(name)
        fill(store, "parent", 3)
        store.fork("parent", 2, "middle")
        fill(store, "middle", 2, start=10)
        store.fork("middle", 2, "child")
        fill(store, "child", 1, start=20)
        return lambda: store.delete_thread(first), lambda: store.delete_thread(second)

    def check() -> None:
        for answer in race.answers:
            only(answer, *([ThreadNotFoundError] if first == second else []))
        wanted = {"parent": [1, 2, 3], "middle": [1, 2, 10, 11], "child": [1, 2, 10, 20]}
        for name in names - {first, second}:
            assert of(store, name) == wanted[name]
        check_whole(store)
        assert orphans(store) == {}
        assert len(store.threads()) == len(names - {first, second})

    assert beside(race, prepare, check) >= 4


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

    assert beside(race, prepare, check, every=1) >= 4
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

    assert beside(race, prepare, check, every=1) >= 4
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

    assert beside(race, prepare, check, every=1) >= 4
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

    assert beside(race, prepare, check, every=1) >= 4
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


# --- a trim and another call ------------------------------------------------------------


def trimmable(store: EventStore) -> Head:
    """A thread with two points, and a fork that goes on from before them; the thread's end."""
    for name in ("t", "old", "new"):
        if store.head(name).exists:
            store.delete_thread(name)
    for last in (3, 6):
        fill(store, "t", 3, start=last - 2)
        state = ",".join(map(str, range(1, last + 1))).encode()
        store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, state, b""))
    fill(store, "t", 1, start=7)
    fill(store, "t", 2, "a:2.0")
    store.fork("t", 2, "old")
    return store.head("t")


def folded(store: EventStore, thread_id: str, at: Position | None = None) -> list[int]:
    """The numbers that a thread comes to."""
    replay = store.replay(thread_id, upto=at, fingerprint=FINGERPRINT)
    before = replay.snapshot.state.decode().split(",") if replay.snapshot else []
    return [*map(int, before), *numbers(replay.events)]


def trimmed_and_whole(store: EventStore) -> None:
    """Thread ``t`` begins at 6 and is otherwise as it was; so is its fork; nothing is left over."""
    assert folded(store, "t")[:7] == [1, 2, 3, 4, 5, 6, 7]
    assert next(iter(store.read("t"))).seq == 7
    assert folded(store, "old") == [1, 2]
    for name in ("t", "old"):
        assert store.verify(name).problems == ()
    assert orphans(store) == {}


BESIDE_TRIM: dict[str, Callable[[EventStore, Head], Any]] = {
    "append": lambda store, head: store.append_after(head, [Event(1, {"n": 8})]).seq,
    "append with a snapshot": lambda store, head: (
        store.append_after(
            head,
            [Event(1, {"n": 8})],
            snapshot=NewSnapshot(FINGERPRINT, b"1,2,3,4,5,6,7,8", b""),
        ).seq
    ),
    "go back": lambda store, head: (
        store.append_after(head, [Fork(head.position._replace(seq=5))]).seq
    ),
    "fork": lambda store, _: store.fork("t", 5, "new"),
    "trim": lambda store, _: store.trim("t", 6),
    "trim less": lambda store, _: store.trim("t", 3),
    "delete the fork": lambda store, _: store.delete_thread("old"),
    "delete snapshots": lambda store, _: store.delete_snapshots("t"),
    "read": lambda store, _: numbers(store.read("t")),
    "replay": lambda store, _: folded(store, "t"),
    "replay the fork": lambda store, _: folded(store, "old"),
    "replay the past": lambda store, head: folded(store, "t", head.position._replace(seq=5)),
    "verify": lambda store, _: store.verify("t").problems,
    "points": lambda store, _: [point.seq for point in store.trim_points("t")],
}


@pytest.mark.parametrize("trim_first", [True, False])
@pytest.mark.parametrize("name", BESIDE_TRIM)
def test_a_trim_and_another_call(
    store: EventStore, race: Race, monkeypatch: pytest.MonkeyPatch, name: str, trim_first: bool
) -> None:
    set_everywhere(monkeypatch, "STEP", 1)

    def prepare() -> tuple[Call, Call]:
        head = trimmable(store)
        calls = lambda: store.trim("t", 6), lambda: BESIDE_TRIM[name](store, head)
        return calls if trim_first else (calls[1], calls[0])

    def check() -> None:
        trim, call = race.answers if trim_first else race.answers[::-1]
        assert isinstance(trim, Trimmed)
        if name == "fork":
            only(call, PositionNotFoundError)
            if call == 1:
                assert folded(store, "new") == [1, 2, 3, 4, 5]
                store.delete_thread("new")
        elif name == "go back":
            only(call, PositionNotFoundError)
            if call == 8:  # it was first, and is in the way of the second step
                assert trim.base == 3
                assert folded(store, "t") == [1, 2, 3, 4, 5]
                assert store.verify("t").problems == ()
                assert orphans(store) == {}
                return
        elif name == "delete the fork":
            assert call is True
            store.fork("t", 6, "old")
            assert folded(store, "t") == [1, 2, 3, 4, 5, 6, 7]
            assert orphans(store) == {}
            return
        elif name == "delete snapshots":
            only(call)
            assert folded(store, "t") == [1, 2, 3, 4, 5, 6, 7]
            assert store.verify("t").problems == ()
            return
        elif name in ("replay", "replay the fork", "replay the past"):
            only(call, LineageMovedError, PositionNotFoundError)
            wanted = {"replay": 7, "replay the fork": 2, "replay the past": 5}[name]
            if isinstance(call, list):
                assert call == list(range(1, wanted + 1))
            if name == "replay":
                assert not isinstance(call, PositionNotFoundError)
        elif name == "read":
            assert call[-1] == 7
            assert sorted(call) == call
        elif name == "verify":
            assert call == ()
        else:
            only(call)
        assert trim.base == 6
        trimmed_and_whole(store)

    assert beside(race, prepare, check) >= 2


# --- reading, while what is read goes into a segment or out of one ---

KEYED: Final = [Event(1, {"n": number}, key=f"k{number}") for number in range(51, 61)]

READS: Final[dict[str, tuple[Callable[[EventStore, str], Any], Any]]] = {
    "read": (lambda store, name: numbers(store.read(name, after=50)), list(range(51, 81))),
    "replay": (
        lambda store, name: numbers(store.replay(name, fingerprint=FINGERPRINT).events),
        list(range(21, 81)),
    ),
    "verify": (lambda store, name: store.verify(name).problems, ()),
    "append again": (lambda store, name: store.append(name, KEYED, 50), 60),
}


@pytest.mark.parametrize("other", ["seal", "trim"])
@pytest.mark.parametrize("name", READS)
def test_what_moves_between_rows_and_segments_is_read(
    store: EventStore, race: Race, name: str, other: str
) -> None:
    """A trim within a segment gives the events behind it their rows again."""
    read, wanted = READS[name]
    made = itertools.count()

    def prepare() -> tuple[Call, Call]:
        thread = f"{name} {next(made)}"
        fill(store, thread, 20)
        store.put_snapshot(store.head(thread), NewSnapshot(FINGERPRINT, b"", b""))
        fill(store, thread, 30, start=21)
        store.append(thread, KEYED, 50)
        fill(store, thread, 20, start=61)
        if other == "seal":
            return lambda: read(store, thread), lambda: seal_now(store, thread)
        seal_now(store, thread)
        return lambda: read(store, thread), lambda: store.trim(thread, 20)

    def check() -> None:
        assert race.answers[0] == wanted
        assert not isinstance(race.answers[1], EventStoreError)

    assert beside(race, prepare, check) >= 4
