"""The end of a log that an index hides is missed before anything is appended in its place.

The thread's row says where the log ended when an append changed it last: at each change of status,
and at least once a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from eventstore import Addition, ConfigurationError, CorruptEventError, Event, EventStore
from tests.eventstore.support import fill, is_sqlite, sql, sql_without_keys

pytestmark = pytest.mark.every_backend


def reached(store: EventStore, thread_id: str = "t") -> Any:
    ((found,),) = sql(store, "SELECT reached FROM threads WHERE thread_id = ?", (thread_id,))
    return found


def hide(store: EventStore, append: Callable[[], object]) -> None:
    """Append events to PostgreSQL that have no entry in the index by which they are found."""
    ready = "UPDATE pg_index SET indisready = ? WHERE indexrelid = 'events_pkey'::regclass"
    sql(store, ready, (False,))
    # Small tables that were analyzed are read without their index, which hides nothing then.
    sql(store, "ANALYZE events")
    sql(store, "UPDATE pg_class SET relpages = 1, reltuples = 1e6 WHERE relname = 'events'")
    append()
    sql(store, ready, (True,))


def test_the_row_knows_where_the_log_ended_when_it_was_changed_last(store: EventStore) -> None:
    head = store.append_after(store.head("t"), [Event(1, 1), Event(1, 2)])
    assert reached(store) == 2
    head = store.append_after(head, [Event(1, 3)])
    assert reached(store) == 2
    head = store.append_after(head, [Event(1, 4), Event(1, 5)], status="waiting")
    assert reached(store) == 5
    store.append("t", [Event(1, 1)], 0, "sub", status="idle")
    assert reached(store) == 5
    both = [
        Addition(store.head("t"), [Event(1, 6)]),
        Addition(store.head("t", "sub"), [Event(1, 2)]),
    ]
    store.append_together(both, status="waiting")
    assert reached(store) == 6
    store.fork("t", 4, "fork")
    assert reached(store, "fork") == store.head("fork").seq
    assert store.verify("t").ok and store.verify("fork").ok


@pytest.mark.parametrize("lost", ["row", "index entry"])
def test_a_log_that_ends_too_early_is_not_continued(store: EventStore, lost: str) -> None:
    fill(store, "t", 3)
    fill(store, "other", 3)
    if lost == "index entry":
        if is_sqlite(store):
            pytest.skip("SQLite's rows have an order of their own: see test_damage.py")
        events = [Event(1, 4), Event(1, 5)]
        hide(store, lambda: store.append("t", events, 3, status="waiting"))
    else:
        store.append("t", [Event(1, 4), Event(1, 5)], 3, status="waiting")
        sql_without_keys(store, "DELETE FROM events WHERE seq > 3")
    for call in (
        lambda: store.head("t"),
        lambda: store.append("t", [Event(1, "again")], 3),
        lambda: list(store.replay("t").events),
    ):
        with pytest.raises(CorruptEventError, match=r"'t' ends at seq 3.*reached seq 5"):
            call()
    assert any("reached seq 5" in each for each in store.verify("t").problems)
    assert not [each for each in sql(store, "SELECT seq FROM events") if each[0] > 5]
    assert store.verify("other").ok
    assert store.append("other", [Event(1, 4)], 3) == 4
    assert store.delete_thread("t")


@pytest.mark.parametrize("seq", [2**63 - 1, 2**62 + 1, -5])
def test_an_event_at_an_impossible_end(store: EventStore, seq: int) -> None:
    """Damaged numbers are named, and no others are computed with them."""
    fill(store, "t", 3)
    fill(store, "other", 3)
    sql_without_keys(store, f"UPDATE events SET seq = {seq} WHERE seq = 3 AND kind = 1")
    sql(store, "UPDATE threads SET reached = NULL")
    for call in (lambda: store.append("t", [Event(1, 4)], seq), lambda: store.head("t")):
        if seq > 0:
            with pytest.raises(CorruptEventError, match="'t'"):
                call()
    assert not store.verify("t").ok
    with pytest.raises(ConfigurationError, match="the seq of a head"):
        store.append_after(replace(store.head("new"), seq=2**63 - 1), [Event(1, 4)])
    assert store.delete_thread("t")


@pytest.mark.parametrize("value", [None, 1, 2**62, -1])
def test_whatever_the_row_says_nothing_is_lost(store: EventStore, value: int | None) -> None:
    fill(store, "t", 3)
    sql(store, "UPDATE threads SET reached = ?", (value,))
    if value == 2**62:
        with pytest.raises(CorruptEventError, match="'t' ends at seq 3"):
            store.head("t")
        assert not store.verify("t").ok
        sql(store, "UPDATE threads SET reached = NULL")
    assert store.append("t", [Event(1, 4)], 3, status="failed") == 4
    assert reached(store) == 4 and store.verify("t").ok
