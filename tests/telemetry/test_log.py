"""What appends and replays tell: spans, counts and log records."""

from __future__ import annotations

from typing import Final

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from eventstore import (
    Addition,
    AsyncEventStore,
    ConcurrencyError,
    CorruptEventError,
    Event,
    EventStore,
    NewSnapshot,
    PositionNotFoundError,
    StoreUnavailableError,
)
from tests.awaited import run
from tests.eventstore.support import fill, numbers, sql
from tests.graph.kit import on
from tests.telemetry.support import SECRET, Told, chain, facts, node

FINGERPRINT: Final = "test/1"


def test_a_conflict_is_counted_whoever_finds_it(told: Told, store_url: str) -> None:
    with EventStore(store_url, tenant="test") as store:
        fill(store, "t", 1)
        head = store.head("t")
        fill(store, "t", 1, start=2)
        with pytest.raises(ConcurrencyError):
            store.append_after(head, [Event(1)])
        with pytest.raises(ConcurrencyError):
            store.append("t", [Event(1)], 1)
    *_, failed = (span for span in told.spans if span.name == "eventstore.append")
    assert failed.status.status_code is StatusCode.ERROR
    assert facts(failed)["error.type"] == "eventstore.errors.ConcurrencyError"
    assert told.metrics()["eventstore.conflicts"] == {(): 2}


def test_an_append_to_several_logs_is_told_once(told: Told, store_url: str) -> None:
    with EventStore(store_url, tenant="test") as store:
        snapshot = NewSnapshot(FINGERPRINT, b"state", b"items")
        ends = [store.head("t", ns) for ns in ("", "sub")]
        store.append_together([Addition(end, [Event(1)] * 2, snapshot) for end in ends])
        with pytest.raises(ConcurrencyError):
            store.append_together([Addition(end, [Event(1)]) for end in ends])
        with pytest.raises(ValueError):
            store.append_together([])
        stored = store.stats("t").stored_bytes
    first, second = (span for span in told.spans if span.name == "eventstore.append")
    assert facts(first) | {
        "eventstore.namespace": "",
        "eventstore.events": 4,
        "eventstore.bytes": stored,
        "eventstore.snapshot.bytes": 20,
    } == facts(first)
    assert facts(second)["error.type"] == "eventstore.errors.ConcurrencyError"
    measured = told.metrics()
    assert measured["eventstore.appended.events"] == {(): 4}
    assert measured["eventstore.snapshots"] == {(): 2}
    assert measured["eventstore.conflicts"] == {(): 1}


def test_what_is_appended_and_read_is_counted(told: Told, store_url: str) -> None:
    with EventStore(store_url, tenant="test") as store:
        fill(store, "t", 600)
        snapshot = NewSnapshot(FINGERPRINT, b"state", b"items")
        store.append_after(store.head("t"), [Event(1, {"n": 601})], snapshot=snapshot)
        fill(store, "t", 2, start=602)
        stored = store.stats("t")
        measured = told.metrics()
        assert measured["eventstore.appended.events"] == {(): 603}
        assert measured["eventstore.appended.bytes"] == {(): stored.stored_bytes}
        assert measured["eventstore.snapshots"] == {(): 1}
        assert measured["eventstore.snapshot.bytes"] == {(): 10}
        assert measured["eventstore.append.duration"] == {(): 3}
        assert [facts(s).get("eventstore.snapshot.bytes") for s in told.spans] == [None, 10, None]

        assert numbers(store.replay("t").events) == list(range(1, 604))
        assert numbers(store.replay("t", fingerprint=FINGERPRINT).events) == [602, 603]
        store.put_snapshot(store.head("t"), snapshot)
    whole, short = (span for span in told.spans if span.name == "eventstore.replay")
    place = {
        "eventstore.thread.id": "t",
        "eventstore.namespace": "",
        "eventstore.tenant": "test",
    }
    assert facts(whole) == {
        **place,
        "eventstore.events": 603,
        "eventstore.bytes": stored.stored_bytes,
    }
    size = facts(short)["eventstore.bytes"]
    assert facts(short) == {
        **place,
        "eventstore.snapshot.seq": 601,
        "eventstore.snapshot.bytes": 10,
        "eventstore.events": 2,
        "eventstore.bytes": size,
    }
    alone = told.one("eventstore.snapshot")
    assert facts(alone) == {**place, "eventstore.seq": 603, "eventstore.snapshot.bytes": 10}
    measured = told.metrics()
    assert measured["eventstore.replayed.events"] == {(): 605}
    assert measured["eventstore.replayed.bytes"] == {(): stored.stored_bytes + size}
    assert measured["eventstore.replay.duration"] == {(): 2}
    assert measured["eventstore.snapshots"] == {(): 1}


def test_a_replay_ends_when_it_has_been_read(told: Told) -> None:
    with EventStore() as store:
        fill(store, "t", 300)
        replay = store.replay("t")
        next(replay.events)
        assert "eventstore.replay" not in told.lines()
        list(replay.events)
        assert "eventstore.replay" in told.lines()


def test_a_replay_that_nobody_reads_is_not_told(told: Told) -> None:
    with EventStore() as store:
        fill(store, "t", 1)
        store.replay("t")
    assert told.lines() == ["eventstore.append"]


def test_a_replay_that_finds_nothing_to_begin_with_has_failed(told: Told) -> None:
    with EventStore() as store:
        head = store.head("t")
        with pytest.raises(PositionNotFoundError):
            store.replay("t", upto=head.position._replace(seq=7))
    failed = told.one("eventstore.replay")
    assert facts(failed)["error.type"] == "eventstore.errors.PositionNotFoundError"


def test_a_replay_is_no_one_elses_context(told: Told, store_url: str) -> None:
    async def main() -> list[int]:
        async with AsyncEventStore(store_url, tenant="test") as store:
            await store.append("t", [Event(1, {"n": n}) for n in range(600)], 0)
            with told.tracer.start_as_current_span("request") as request:
                found = []
                async for event in (await store.replay("t")).events:
                    assert trace.get_current_span() is request
                    found.append(event.data["n"])
                return found

    assert run(main()) == list(range(600))
    assert told.lines() == ["eventstore.append", "request", "  eventstore.replay"]


def test_a_damaged_event_fails_its_replay(told: Told) -> None:
    with EventStore() as store:
        fill(store, "t", 3)
        sql(store, "UPDATE events SET payload = x'00' WHERE seq = 2")
        with pytest.raises(CorruptEventError):
            list(store.replay("t").events)
    failed = told.one("eventstore.replay")
    assert failed.status.status_code is StatusCode.ERROR
    assert facts(failed)["error.type"] == "eventstore.errors.CorruptEventError"


def test_a_payload_that_is_not_bytes_is_left_to_the_reader(told: Told) -> None:
    with EventStore() as store:
        fill(store, "t", 2)
        sql(store, "UPDATE events SET payload = 7 WHERE seq = 2")
        with pytest.raises(CorruptEventError):
            list(store.replay("t").events)


def test_a_replay_passes_over_a_damaged_snapshot_in_one_span(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    with EventStore() as store:
        fill(store, "t", 2)
        store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, b"state", b""))
        sql(store, "UPDATE snapshots SET payload = x'00'")
        assert numbers(store.replay("t", fingerprint=FINGERPRINT).events) == [1, 2]
    assert facts(told.one("eventstore.replay"))["eventstore.events"] == 2
    (record,) = caplog.records
    assert vars(record).items() >= {"thread_id": "t", "ns": "", "seq": 2}.items()


def test_retries_are_counted_and_logged_without_the_password(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that does not answer: nobody listens on that port."""
    pytest.importorskip("psycopg")
    with (
        EventStore(f"postgresql://user:{SECRET}@127.0.0.1:1/nowhere") as store,
        told.tracer.start_as_current_span("request"),
        pytest.raises(StoreUnavailableError) as raised,
    ):
        store.append("t", [Event(1)], 0)
    reason = "rolled_back"
    assert told.metrics()["eventstore.retries"] == {(("eventstore.retry.reason", reason),): 3}
    noted = [event for span in told.spans for event in span.events]
    assert [event.name for event in noted] == ["eventstore.retry"] * 3
    records = [each for each in caplog.records if each.name == "eventstore.db.transactions"]
    assert [vars(each)["attempt"] for each in records] == [1, 2, 3]
    assert all(vars(each)["reason"] == reason and vars(each)["pause_s"] > 0 for each in records)
    assert SECRET not in str(raised.value) + caplog.text + told.everything()
    assert SECRET not in "".join(str(vars(each)) for each in records)


def test_a_sqlite_statement_does_not_quote_its_values() -> None:
    """Not even in the traceback of an error, where SQLAlchemy would show them."""
    with (
        EventStore() as store,
        store.engine.connect() as conn,
        pytest.raises(Exception, match="no such table") as raised,
    ):
        conn.exec_driver_sql("INSERT INTO nowhere VALUES (?)", (SECRET,))
    assert SECRET not in str(raised.value)


def test_a_name_that_is_not_unicode_does_not_stop_the_exporter(told: Told) -> None:
    app = chain(EventStore(), ("one", node("one")))
    with pytest.raises(ValueError, match=r"Unicode|surrogates"):
        app.invoke({}, on("\ud800"))
    assert facts(told.one("graph.run"))["eventstore.thread.id"] == "?"
