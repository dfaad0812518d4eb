"""`kill -9` while threads are pruned: each is whole or gone, and those that stay are untouched."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from eventstore import Event, EventStore, NewSnapshot
from tests import processes
from tests.awaited import core_of
from tests.effort import effort
from tests.eventstore.support import FINGERPRINT, check_whole, orphans

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here"),
    pytest.mark.slow,
]

THREADS: Final = 400
KEPT_EVERY: Final = 4
KILLS: Final = effort(2, 4)
SWEEPER: Final = """
import sys
from eventstore import EventStore, Expired
from eventstore.concurrency import run_sync

with EventStore(sys.argv[1]) as store:
    print("begun", flush=True)
    after = None
    while page := run_sync(store.core.scan(after=after, limit=50)):
        after = page[-1].thread_key
        batch = [Expired(thread.thread_key, None, "ttl", "p") for thread in page]
        while batch:
            keep = lambda thread: thread.pinned
            done = run_sync(store.core.prune(batch, keep_if=keep, rows=40))
            batch = batch[len(done):]
"""


def test_a_sweeper_that_is_killed_leaves_no_half(store_url: str) -> None:
    if store_url == "sqlite://":
        pytest.skip("it does not outlive its store")
    chance = random.Random(5)
    with EventStore(store_url) as store:
        kept = set()
        for number in range(THREADS):
            name = f"t{number}"
            head = store.append_after(
                store.head(name), [Event(1, n) for n in range(3)], snapshot=_snapshot()
            )
            store.append_after(store.head(name, "sub"), [Event(1, number)])
            if number % KEPT_EVERY == 0:
                kept.add(head.thread_key)
                store.pin(name, "why", "who")
        for _ in range(KILLS):
            _sweep(store_url, chance.uniform(0.01, 0.15))
            assert orphans(store) == {}
            alive = {thread.thread_key for thread in core_of(store).scan(limit=THREADS)}
            buried = [grave.thread_key for grave in store.tombstones(THREADS)]
            assert kept <= alive
            assert len(alive) + len(buried) == THREADS
            assert alive.isdisjoint(buried)
        _sweep(store_url, None)
        assert check_whole(store) == len(kept)
        assert len(store.tombstones(THREADS)) == THREADS - len(kept)


def _snapshot() -> NewSnapshot:
    return NewSnapshot(FINGERPRINT, b"state", b"items")


def _sweep(url: str, killed_after_s: float | None) -> None:
    """Run a sweeper, to its end or until it is killed."""
    command = [sys.executable, "-c", SWEEPER, url]
    with processes.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as sweeper:
        assert sweeper.stdout is not None
        sweeper.stdout.readline()
        if killed_after_s is not None:
            time.sleep(killed_after_s)
            sweeper.kill()
        assert sweeper.wait() in (0, -signal.SIGKILL)
