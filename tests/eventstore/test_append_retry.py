"""Commits whose outcome is lost: what was appended is appended once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext

from eventstore import (
    Addition,
    ConcurrencyError,
    DuplicateKeyError,
    Event,
    EventStore,
    NewSnapshot,
    StoreUnavailableError,
    ThreadNotFoundError,
)
from eventstore.db.sqlite import sqlite_driver
from eventstore.queries.events import KEYS_PAGE
from tests.eventstore.support import (
    FINGERPRINT,
    check_whole,
    fill,
    numbers,
    set_everywhere,
    sql,
)


class Lossy:
    """A real engine on a file; commits of writes fail on demand, before or after they happen."""

    def __init__(self, path: Path) -> None:
        self.before = 0
        self.after = 0
        driver = sqlite_driver()
        lossy = self

        class Connection(driver.Connection):  # type: ignore[misc, name-defined]
            written = 0

            def commit(self) -> None:
                self._lose(super().commit)

            def execute(self, statement: str, *parameters: Any) -> Any:
                run = super().execute
                if statement.strip().upper() in ("COMMIT", "END"):
                    return self._lose(lambda: run(statement, *parameters))
                return run(statement, *parameters)

            def _lose(self, commit: Callable[[], Any]) -> Any:
                wrote = self.total_changes > self.written
                self.written = self.total_changes
                return lossy.lose(commit) if wrote else commit()

        def connect() -> Any:
            return driver.connect(
                str(path), factory=Connection, isolation_level=None, check_same_thread=False
            )

        self.engine: Engine = create_engine(
            f"sqlite:///{path}", module=driver, creator=connect, pool_size=4
        )
        self._error = driver.OperationalError
        event.listen(self.engine, "handle_error", self._handle)

    def lose(self, commit: Callable[[], Any]) -> Any:
        if self.before:
            self.before -= 1
            raise self._error("server closed the connection unexpectedly")
        done = commit()
        if self.after:
            self.after -= 1
            raise self._error("server closed the connection unexpectedly")
        return done

    def _handle(self, context: ExceptionContext) -> None:
        if "closed the connection" in str(context.original_exception):
            context.is_disconnect = True


@pytest.fixture
def lossy(tmp_path: Path) -> Iterator[Lossy]:
    made = Lossy(tmp_path / "lossy.db")
    yield made
    made.engine.dispose()


@contextmanager
def opened(lossy: Lossy) -> Iterator[EventStore]:
    with EventStore(lossy.engine, tenant="test") as store:
        store.setup()
        yield store


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("new", [True, False], ids=["new thread", "known thread"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_commit_is_appended_exactly_once(
    lossy: Lossy, moment: str, new: bool, keyed: bool
) -> None:
    with opened(lossy) as store:
        expected = 0 if new else fill(store, "t", 2)
        batch = [Event(1, {"n": n}, key=f"k{n}" if keyed else None) for n in (7, 8, 9)]
        setattr(lossy, moment, 1)
        assert store.append("t", batch, expected) == expected + 3
        assert numbers(store.read("t", after=expected)) == [7, 8, 9]
        assert store.head("t").seq == expected + 3
        assert store.append("t", [Event(1, {"n": 10})], expected + 3) == expected + 4
        assert store.verify("t").ok


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_commit_with_a_snapshot_and_status(lossy: Lossy, moment: str) -> None:
    with opened(lossy) as store:
        fill(store, "t", 1)
        setattr(lossy, moment, 1)
        head = store.append_after(
            store.head("t"),
            [Event(1, {"n": 2})],
            status="waiting",
            snapshot=NewSnapshot(FINGERPRINT, b"state", b""),
        )
        assert head.seq == 2
        assert store.thread("t").status == "waiting"
        replay = store.replay("t", fingerprint=FINGERPRINT)
        assert replay.snapshot is not None and replay.snapshot.state == b"state"
        assert store.append_after(head, [Event(1, {"n": 3})]).seq == 3


@pytest.mark.parametrize("new", [True, False], ids=["new thread", "known thread"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_commit_to_several_logs(lossy: Lossy, moment: str, new: bool) -> None:
    with opened(lossy) as store:
        expected = 0 if new else fill(store, "t", 2)
        heads = [store.head("t"), store.head("t", "sub")]
        setattr(lossy, moment, 1)
        batch = [Event(1, {"n": 7}), Event(1, {"n": 8})]
        heads = store.append_together([Addition(head, batch) for head in heads])
        assert [head.seq for head in heads] == [expected + 2, 2]
        assert numbers(store.read("t", after=expected)) == [7, 8]
        assert numbers(store.read("t", "sub")) == [7, 8]
        store.append_together([Addition(head, batch) for head in heads])
        assert store.verify("t").ok


def test_a_commit_lost_while_a_namesake_is_being_removed(lossy: Lossy) -> None:
    """The new thread lives under another key than the one first thought of."""
    with opened(lossy) as store:
        fill(store, "t", 3)
        sql(store, "UPDATE threads SET condemned_at = 1")
        lossy.after = 1
        head = store.append_after(store.head("t"), [Event(1, {"n": 1})])
        assert head.position == store.head("t").position
        assert numbers(store.read("t")) == [1]
        assert store.append_after(head, [Event(1, {"n": 2})]).seq == 2


def test_losing_several_commits_in_a_row(lossy: Lossy) -> None:
    with opened(lossy) as store:
        fill(store, "t", 1)
        lossy.before = 3
        assert fill(store, "t", 2, start=2) == 3
        assert numbers(store.read("t")) == [1, 2, 3]


@pytest.mark.slow
def test_losing_every_commit_is_an_error_within_a_bound(
    lossy: Lossy, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_everywhere(monkeypatch, "PAUSE_MAX_S", 0.05)
    with opened(lossy) as store:
        fill(store, "t", 1)
        lossy.before = 10**6
        with pytest.raises(StoreUnavailableError):
            fill(store, "t", 1, start=2)
        tries = 10**6 - lossy.before
        assert 2 <= tries <= 20
        lossy.before = 0
        assert store.head("t").seq == 1


def test_another_writer_takes_the_place_of_a_commit_that_failed(
    lossy: Lossy, tmp_path: Path
) -> None:
    with opened(lossy) as store, opened(lossy) as other:
        fill(store, "t", 1)
        head = store.head("t")
        lossy.before = 1
        once = iter([True])

        def handle(context: ExceptionContext) -> None:
            if next(once, False):
                raw: Any = context.connection and context.connection.connection.dbapi_connection
                raw.rollback()
                other.append("t", [Event(1, {"n": 99})], 1)

        event.listen(lossy.engine, "handle_error", handle)
        try:
            with pytest.raises(ConcurrencyError) as caught:
                store.append_after(head, [Event(1, {"n": 2})])
        finally:
            event.remove(lossy.engine, "handle_error", handle)
        assert (caught.value.expected, caught.value.actual) == (1, 2)
        assert numbers(store.read("t")) == [1, 99]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_commit_of_everything_else_can_be_repeated(lossy: Lossy, moment: str) -> None:
    """Other writes say that the store was unavailable; doing them again ends well."""
    with opened(lossy) as store:
        fill(store, "t", 3)
        fill(store, "gone", 3)
        steps: list[Callable[[], Any]] = [
            lambda: store.set_thread("t", pinned=True, metadata={"a": 1}),
            lambda: store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, b"s", b"")),
            lambda: store.delete_snapshots("t"),
            lambda: store.delete_thread("gone"),
        ]
        for step in steps:
            setattr(lossy, moment, 1)
            try:
                step()
            except StoreUnavailableError:
                pass
            except ThreadNotFoundError:
                assert step is steps[-1]
            lossy.before = lossy.after = 0
            try:
                step()
            except ThreadNotFoundError:
                assert step is steps[-1]
        store.finish_deletions()
        assert not store.head("gone").exists
        assert store.thread("t").pinned
        assert check_whole(store) == 1


def test_many_keyed_events_sent_again_are_found_in_pages(store: EventStore) -> None:
    """More keys than a driver takes parameters in one statement."""
    batch = [Event(1, n, key=f"k{n}") for n in range(2 * KEYS_PAGE + 1)]
    assert store.append("t", batch, 0) == len(batch)
    assert store.append("t", batch, 0) == len(batch)
    with pytest.raises(DuplicateKeyError) as caught:
        store.append("t", [*batch[:-1], Event(1, "other", key=batch[-1].key)], 0)
    assert caught.value.seq == len(batch)


@pytest.mark.slow
def test_more_keys_than_parameters_of_a_driver(postgresql_url: str) -> None:
    batch = [Event(1, n, key=f"k{n}") for n in range(66_000)]
    with EventStore(postgresql_url) as store:
        assert store.append("t", batch, 0) == len(batch)
        assert store.append("t", batch, 0) == len(batch)
