"""Appends that wait at the same moment share a transaction on PostgreSQL, each with its verdict.

Only one transaction may be under way here; another connection holds it up by a lock, so that the
others gather behind it. Threads use the sync API, tasks of an event loop the async one.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import make_url

from eventstore import (
    ConcurrencyError,
    DuplicateKeyError,
    Event,
    EventStore,
    ThreadNotFoundError,
)
from eventstore.db import writers
from tests.eventstore.postgresql.crowd import (
    WAIT_S,
    Held,
    Tasks,
    Threads,
    appends,
    begun,
    outcome,
    stored,
    until,
)
from tests.eventstore.postgresql.lossy import lossy
from tests.eventstore.postgresql.support import terminate_all

WRITERS: Final = 12


@pytest.fixture(params=[Threads, Tasks])
def crowd(
    request: pytest.FixtureRequest, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Threads | Tasks]:
    monkeypatch.setattr(writers, "PARALLEL", 1)
    opened = request.param(store_url)
    opened.ask(lambda store: store.setup())
    yield opened
    opened.close()


@pytest.fixture
def held(store_url: str) -> Held:
    return Held(store_url)


def transactions_of(url: str, *names: str) -> list[int]:
    """The transactions that inserted the last events of threads."""
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            "SELECT DISTINCT ON (t.thread_key) e.xmin::text::bigint FROM events e"
            " JOIN threads t USING (thread_key) WHERE t.thread_id = ANY(%s)"
            " ORDER BY t.thread_key, e.seq DESC",
            [list(names)],
        ).fetchall()
    return [row[0] for row in rows]


def test_they_share_a_transaction(crowd: Threads | Tasks, held: Held, store_url: str) -> None:
    names = [f"t{number}" for number in range(WRITERS)]
    heads = [begun(crowd, name) for name in names]
    found = crowd.together(held, appends(heads))
    assert [head.seq for head in found] == [2] * WRITERS
    assert len(set(transactions_of(store_url, *names))) == 1
    for name in names:
        assert stored(store_url, name) == [{"n": 1}, {"n": 2}]


def test_each_has_a_verdict_of_its_own(crowd: Threads | Tasks, held: Held, store_url: str) -> None:
    stale, gone, plain = (begun(crowd, name) for name in ("stale", "gone", "plain"))
    crowd.ask(lambda store: store.append("stale", [Event(1, {"n": 2})], 1))
    crowd.ask(lambda store: store.delete_thread("gone"))
    new = crowd.ask(lambda store: store.head("new"))
    other = begun(crowd, "other")
    found = crowd.together(
        held,
        [
            *appends([stale, gone, plain]),
            lambda store: store.append_after(new, [Event(1, {"n": 1}), Event(1, {"n": 2})]),
            lambda store: store.append_after(other, [Event(1, {"n": 2})], status="failed"),
        ],
    )
    assert isinstance(found[0], ConcurrencyError)
    assert (found[0].expected, found[0].actual) == (1, 2)
    assert isinstance(found[1], ThreadNotFoundError)
    assert [found[2].seq, found[3].seq, found[4].status] == [2, 2, "failed"]
    for name in ("stale", "plain", "new", "other"):
        assert stored(store_url, name) == [{"n": 1}, {"n": 2}]
    assert crowd.ask(lambda store: store.thread("other")).status == "failed"


def test_one_that_is_refused_does_not_hold_up_the_others(
    crowd: Threads | Tasks, held: Held, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    gone, *heads = (begun(crowd, name) for name in ("gone", "t1", "t2", "t3"))
    crowd.ask(lambda store: store.delete_thread("gone"))
    found = crowd.together(held, appends([gone, *heads]))
    assert isinstance(found[0], ThreadNotFoundError)
    assert [head.seq for head in found[1:]] == [2, 2, 2]
    assert len(set(transactions_of(store_url, "t1", "t2", "t3"))) == 1
    assert not caplog.records


def test_if_the_transaction_fails_each_is_done_by_itself(
    crowd: Threads | Tasks, held: Held, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    heads = [begun(crowd, f"t{number}") for number in range(3)]
    crowd.ask(lambda store: store.append("keyed", [Event(1, {"n": 1}, key="k")], 0))
    keyed = crowd.ask(lambda store: store.head("keyed"))
    found = crowd.together(
        held,
        [*appends(heads), lambda store: store.append_after(keyed, [Event(1, {"n": 2}, key="k")])],
    )
    assert [head.seq for head in found[:3]] == [2, 2, 2]
    assert isinstance(found[3], DuplicateKeyError)
    assert len(set(transactions_of(store_url, "t0", "t1", "t2"))) == 3
    assert stored(store_url, "keyed") == [{"n": 1}]
    assert not caplog.records, "nothing is wrong that anybody has to see"


def test_of_writers_of_one_log_one_wins(crowd: Threads | Tasks, held: Held, store_url: str) -> None:
    head = begun(crowd, "t")
    found = crowd.together(held, appends([head] * WRITERS))
    lost = [each for each in found if isinstance(each, ConcurrencyError)]
    assert len(lost) == WRITERS - 1
    assert {(each.expected, each.actual) for each in lost} == {(1, 2)}
    assert len(stored(store_url, "t")) == 2


def test_writers_of_one_log_win_in_turn(crowd: Threads | Tasks) -> None:
    """Each looks at its end and appends, again and again."""
    store: Any = crowd.store
    wins = dict.fromkeys(range(4), 0)
    most = 60

    async def task(writer: int) -> None:
        while sum(wins.values()) < most:
            with suppress(ConcurrencyError):
                head = await store.head("t")
                await store.append_after(head, [Event(1)])
                wins[writer] += 1

    def thread(writer: int) -> None:
        while sum(wins.values()) < most:
            with suppress(ConcurrencyError):
                store.append_after(store.head("t"), [Event(1)])
                wins[writer] += 1

    async def tasks() -> None:
        await asyncio.gather(*map(task, wins))

    if isinstance(crowd, Tasks):
        crowd.run(tasks())
    else:
        with ThreadPoolExecutor(len(wins)) as pool:
            list(pool.map(thread, wins))
    assert min(wins.values()) >= most / 20, wins


def test_what_waits_is_done_when_the_server_cuts_every_connection(
    crowd: Threads | Tasks, store_url: str
) -> None:
    heads = [begun(crowd, f"t{number}") for number in range(WRITERS)]

    class Cut(Held):
        def release(self) -> None:
            terminate_all(store_url)  # the lock goes, too

    found = crowd.together(Cut(store_url), appends(heads))
    assert [head.seq for head in found] == [2] * WRITERS
    for number in range(WRITERS):
        assert stored(store_url, f"t{number}") == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("kind", [Threads, Tasks])
def test_a_commit_whose_answer_is_lost_is_looked_up_by_each(
    kind: type[Threads | Tasks], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "PARALLEL", 1)
    if "host" not in make_url(store_url).query:
        pytest.skip("the server is not one of ours")
    with lossy(store_url) as proxy:
        crowd = kind(proxy.url)
        crowd.ask(lambda store: store.setup())
        heads = [begun(crowd, f"t{number}") for number in range(WRITERS)]

        class Losing(Held):
            def release(self) -> None:
                super().release()
                until(self._first_is_done)
                proxy.loses = True

            def _first_is_done(self) -> bool:
                with EventStore(store_url) as store:
                    return store.head("first").seq == 1

        found = crowd.together(Losing(store_url), appends(heads))
        assert [head.seq for head in found] == [2] * WRITERS
        for number in range(WRITERS):
            assert stored(store_url, f"t{number}") == [{"n": 1}, {"n": 2}]
        crowd.close()


def test_if_the_thread_that_writes_is_interrupted_the_others_go_on(
    held: Held, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "PARALLEL", 1)
    threads = Threads(store_url)
    threads.ask(lambda store: store.setup())
    head, *others = (begun(threads, f"t{number}") for number in range(4))
    waiting = threads.store.core.transactions._writers._waiting
    here = threading.get_ident()
    with psycopg.connect(store_url) as lock, ThreadPoolExecutor(5) as pool, held:
        lock.execute("SELECT 1 FROM threads WHERE thread_id = 't0' FOR UPDATE")
        first = pool.submit(threads.store.append, "first", [Event(1)], 0)
        held.wait()

        def interrupt() -> list[Any]:
            until(lambda: len(waiting) == 1)  # that of this thread, which will write for all
            jobs = [pool.submit(outcome, partial(call, threads.store)) for call in appends(others)]
            until(lambda: len(waiting) == 4)
            held.release()
            until(lambda: len(waiting) == 0)
            time.sleep(0.1)
            signal.pthread_kill(here, signal.SIGINT)
            return [job.result(WAIT_S) for job in jobs]

        interrupting = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            threads.store.append_after(head, [Event(1, {"n": 2})])
        lock.rollback()
        assert first.result(WAIT_S) == 1
        assert [each.seq for each in interrupting.result(WAIT_S)] == [2, 2, 2]
    for number in range(1, 4):
        assert stored(store_url, f"t{number}") == [{"n": 1}, {"n": 2}]
    assert threads.ask(lambda store: store.append("last", [Event(1)], 0)) == 1
    threads.close()


def test_a_task_that_is_cancelled_while_it_waits_stores_nothing(
    held: Held, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "PARALLEL", 1)
    tasks = Tasks(store_url)
    tasks.ask(lambda store: store.setup())
    heads = [begun(tasks, f"t{number}") for number in range(4)]

    async def cancel(jobs: list[asyncio.Task[Any]]) -> None:
        jobs[1].cancel()
        await asyncio.wait([jobs[1]], timeout=WAIT_S)
        assert jobs[1].cancelled()

    found = tasks.run(tasks.gathered(held, appends(heads), cancel))
    assert isinstance(found[1], asyncio.CancelledError)
    assert [found[at].seq for at in (0, 2, 3)] == [2, 2, 2]
    assert [len(stored(store_url, f"t{number}")) for number in range(4)] == [2, 1, 2, 2]
    tasks.close()


def test_tasks_cancelled_at_any_moment_lose_nothing_that_was_acknowledged(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "PARALLEL", 2)
    tasks = Tasks(store_url)
    tasks.ask(lambda store: store.setup())
    acknowledged: dict[str, int] = {}

    async def write(name: str) -> None:
        head = await tasks.store.head(name)
        while True:
            head = await tasks.store.append_after(head, [Event(1, {"n": head.seq + 1})])
            acknowledged[name] = head.seq

    async def main() -> None:
        for start in range(0, 80, 20):
            names = [f"t{number}" for number in range(start, start + 20)]
            jobs = [asyncio.create_task(write(name)) for name in names]
            while not acknowledged.keys() >= set(names):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            for job in jobs:
                job.cancel()
                await asyncio.sleep(0.002)
            await asyncio.wait(jobs)

    tasks.run(main())
    assert len(acknowledged) == 80
    for name, last in acknowledged.items():
        found = [each["n"] for each in stored(store_url, name)]
        assert found == list(range(1, len(found) + 1))
        assert last <= len(found) <= last + 1, "the last one may have been stored while cancelled"
    tasks.close()
