"""Sweepers that share the work: slices, leases and the record of sweeps."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventstore import (
    ConfigurationError,
    EventStore,
)
from eventstore.retention_models import SLICES
from tests.awaited import core_of
from tests.eventstore.support import (
    SOON,
    later,
)

LEASE = timedelta(seconds=30)


def test_a_slice_is_had_by_one(store: EventStore, clock: Callable[[timedelta], None]) -> None:
    due = datetime(2026, 1, 1, tzinfo=UTC)
    found = [core_of(store).claim_slice(f"holder {n % 2}", LEASE, due) for n in range(SLICES)]
    assert {each.number for each in found if each} == set(range(SLICES))
    assert core_of(store).claim_slice("late", LEASE, due) is None
    edges = sorted((each.first_key, each.last_key) for each in found if each)
    assert (edges[0][0], edges[-1][1]) == (0, 2**63 - 1)
    assert all(one[1] + 1 == other[0] for one, other in itertools.pairwise(edges))


def test_a_lease_ends(store: EventStore, clock: Callable[[timedelta], None]) -> None:
    due = datetime(2026, 1, 1, tzinfo=UTC)
    claimed = [core_of(store).claim_slice("dead", LEASE, due) for _ in range(SLICES)]
    clock(LEASE * 0.6)
    first = claimed[0]
    assert first is not None
    assert core_of(store).renew_slice(first, "dead", LEASE)
    clock(LEASE * 0.6)
    # All but the one that was renewed are free again, for others to take.
    taken = {
        each.number for _ in range(SLICES) if (each := core_of(store).claim_slice("b", LEASE, due))
    }
    assert taken == set(range(SLICES)) - {first.number}
    second = claimed[1]
    assert second is not None
    assert not core_of(store).renew_slice(second, "dead", LEASE)
    core_of(store).release_slice(second, "dead", due)  # not theirs any more: changes nothing
    assert core_of(store).renew_slice(second, "b", LEASE)


def test_what_was_swept_is_not_due(store: EventStore, clock: Callable[[timedelta], None]) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    first = core_of(store).claim_slice("a", LEASE, start)
    assert first is not None
    core_of(store).release_slice(first, "a", start)
    clock(timedelta(hours=1))
    rest = {
        each.number
        for _ in range(SLICES)
        if (each := core_of(store).claim_slice("a", LEASE, start))
    }
    assert rest == set(range(SLICES)) - {first.number}
    # One that was given back unfinished comes before one that was swept.
    core_of(store).release_slice(replace(first, number=5), "a")
    again = [core_of(store).claim_slice("b", LEASE, start + SOON) for _ in range(3)]
    assert [each and each.number for each in again] == [5, first.number, None]


def test_many_claim_at_once(store_url: str) -> None:
    due = datetime.now(UTC)
    with EventStore(store_url) as store:
        store.setup()
        found: list[Any] = []

        def claim(name: str) -> None:
            while each := core_of(store).claim_slice(name, LEASE, due):
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
            core_of(store).claim_slice(holder, lease, later())


def test_sweeps_are_on_record(store: EventStore, clock: Callable[[timedelta], None]) -> None:
    cutoff = datetime(2025, 1, 1, tzinfo=UTC)
    ids = []
    for number in range(3):
        ids.append(core_of(store).begin_sweep("host", cutoff, {"name": "chat", "ttl": number}))
        clock(SOON)
    core_of(store).end_sweep(ids[0], {"pruned": 7})
    last, _, first = store.sweeps()
    assert [each.sweep_id for each in store.sweeps(2)] == [ids[2], ids[1]]
    assert (first.holder, first.cutoff, first.policy["ttl"]) == ("host", cutoff, 0)
    assert first.counts == {"pruned": 7}
    assert first.finished_at is not None
    assert (last.finished_at, last.counts) == (None, {})
    with pytest.raises(ConfigurationError, match="nobody"):
        core_of(store).end_sweep("nobody", {})


def test_sweeps_of_long_ago_are_forgotten(
    store: EventStore, clock: Callable[[timedelta], None]
) -> None:
    cutoff = datetime(2025, 1, 1, tzinfo=UTC)
    core_of(store).end_sweep(core_of(store).begin_sweep("old", cutoff, {}), {})
    clock(timedelta(days=399))
    core_of(store).end_sweep(core_of(store).begin_sweep("young", cutoff, {}), {})
    assert [each.holder for each in store.sweeps()] == ["young", "old"]
    clock(timedelta(days=2))
    core_of(store).end_sweep(core_of(store).begin_sweep("new", cutoff, {}), {})
    assert [each.holder for each in store.sweeps()] == ["new", "young"]
