"""One writer wins (rule 2): threads and processes racing on one log."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventstore import ConcurrencyError, DuplicateKeyError, Event, EventStore, Head
from tests import processes
from tests.eventstore.support import check_whole, data_of, fill, numbers

pytestmark = pytest.mark.every_backend

ROOT = Path(__file__).parents[2]


def run_together(*targets: Callable[[], None]) -> None:
    """Run functions in threads that start at the same moment; the first error comes out."""
    barrier = threading.Barrier(len(targets))
    errors: list[BaseException] = []

    def run(target: Callable[[], None]) -> None:
        barrier.wait()
        try:
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_one_winner_for_every_seq(store: EventStore) -> None:
    """Everybody appends after the same head; exactly one succeeds, the others are told."""
    racers, rounds = 4, 15
    losers: list[ConcurrencyError] = []
    for number in range(rounds):
        head = store.head("t")
        won: list[str] = []

        def race(name: str, head: Head = head, won: list[str] = won) -> None:
            try:
                store.append_after(head, [Event(1, [name, part]) for part in range(3)])
                won.append(name)
            except ConcurrencyError as error:
                losers.append(error)

        run_together(*(lambda name=name: race(name) for name in "abcd"[:racers]))
        assert len(won) == 1
        expected = [[won[0], part] for part in range(3)]
        assert data_of(store, "t", after=number * 3) == expected
    assert len(losers) == (racers - 1) * rounds
    assert all(error.thread_id == "t" and error.ns == "" for error in losers)
    assert all(error.actual == error.expected + 3 for error in losers)
    assert store.verify("t").ok


def test_writers_that_try_again_lose_nothing(store: EventStore) -> None:
    def write(name: str) -> None:
        for number in range(25):
            batch = [Event(1, [name, number, part]) for part in range(number % 3 + 1)]
            while True:
                try:
                    store.append("t", batch, store.head("t").seq)
                    break
                except ConcurrencyError:
                    continue

    run_together(*(lambda name=name: write(name) for name in "abc"))
    found = data_of(store, "t")
    assert Counter(name for name, _, _ in found) == dict.fromkeys("abc", 49)
    for name in "abc":
        own = [value for value in found if value[0] == name]
        assert own == sorted(own)
    batches = [tuple(value[:2]) for value in found]
    changes = sum(1 for one, two in itertools.pairwise(batches) if one != two)
    assert changes == 3 * 25 - 1, "batches were interleaved"
    assert store.verify("t").ok


def test_one_of_two_takes_a_key(store: EventStore) -> None:
    """A key names one event however many try to write it: the others' is found, or refused."""
    results: list[int] = []
    refused: list[BaseException] = []

    def write(value: str) -> None:
        while True:
            try:
                results.append(store.append("t", [Event(1, value, key="k")], store.head("t").seq))
                return
            except ConcurrencyError:
                continue
            except DuplicateKeyError as error:
                refused.append(error)
                return

    run_together(*(lambda: write("same") for _ in range(4)))
    assert data_of(store, "t") == ["same"]
    assert set(results) == {1} or refused
    run_together(lambda: write("other"), lambda: write("another"))
    assert data_of(store, "t") == ["same"]
    assert len(refused) >= 2


def test_threads_of_one_process_on_many_logs(store: EventStore) -> None:
    def write(name: str) -> None:
        for number in range(20):
            fill(store, name, 2, start=number * 2 + 1)
            fill(store, name, 1, "sub", start=number + 1)
            assert numbers(store.read(name)) == list(range(1, number * 2 + 3))

    run_together(*(lambda name=f"t{n}": write(name) for n in range(4)))
    assert check_whole(store) == 4
    assert store.stats().events == 4 * 60


def test_readers_see_whole_batches_only(store: EventStore) -> None:
    done = threading.Event()

    def write() -> None:
        try:
            for number in range(30):
                fill(store, "t", 7, start=number * 7 + 1)
        finally:
            done.set()

    def read() -> None:
        while not done.is_set():
            seq = store.head("t").seq
            assert seq % 7 == 0
            if seq:
                found = numbers(store.read("t"))
                assert len(found) % 7 == 0
                assert found == list(range(1, len(found) + 1))

    run_together(write, read, read)


RACER = """
import json, sys
from eventstore import ConcurrencyError, Event, EventStore
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
won, lost = [], []
with EventStore(path) as store:
    store.setup()
    print("ready", flush=True)
    sys.stdin.readline()
    head = store.head("t")
    while len(won) < count:
        try:
            head = store.append_after(head, [Event(1, [name, len(won), part]) for part in (0, 1)])
            won.append(head.seq)
        except ConcurrencyError as error:
            assert error.thread_id == "t" and error.expected == head.seq, error
            lost.append([error.expected, error.actual])
            head = store.head("t")
print(json.dumps([won, lost]))
"""


@pytest.mark.slow
def test_processes_racing_on_one_log(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    count = 60
    racers = [
        processes.Popen(
            [sys.executable, "-c", RACER, str(path), name, str(count)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    results = [racer.communicate("go\n", timeout=120)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    won: dict[int, list[Any]] = {}
    for name, result in zip("abc", results, strict=True):
        seqs, lost = json.loads(result)
        for number, seq in enumerate(seqs):
            won[seq] = [name, number]
        assert all(actual > expected for expected, actual in lost)
    assert sorted(won) == list(range(2, 3 * 2 * count + 1, 2))
    with EventStore(path) as store:
        found = data_of(store, "t")
        assert len(found) == 6 * count
        for seq, (name, number) in won.items():
            assert found[seq - 2 : seq] == [[name, number, 0], [name, number, 1]]
        assert store.verify("t").ok
