"""Many writers of one process at one thread: all is kept, and what gathers is stored together."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from eventstore import Codec, SerializationError
from graph.langgraph import EventStoreSaver, appending
from tests import processes
from tests.effort import effort
from tests.langgraph.kit import Driver

ROOT: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
WRITERS = 40

pytestmark = pytest.mark.every_backend


def checkpoint(number: int) -> Any:
    """A checkpoint at which the channel ``x`` has this number, and it is its version."""
    return empty_checkpoint() | {
        "channel_values": {"x": number},
        "channel_versions": {"x": str(number)},
    }


def begin(driver: Driver) -> Any:
    return driver.call("put", ROOT, checkpoint(1), {"step": 1}, {"x": "1"})


def config_of(checkpoint: Any) -> Any:
    return {"configurable": {**ROOT["configurable"], "checkpoint_id": checkpoint["id"]}}


def pending(driver: Driver, config: Any) -> list[Any]:
    found = driver.get(config)
    assert found is not None
    return list(found.pending_writes or ())


def write_all(driver: Driver, config: Any, values: list[Any]) -> list[Any]:
    """Put a write of each value at once; what each call returned or raised."""
    if not driver.is_async:
        with ThreadPoolExecutor(len(values)) as pool:
            jobs = [
                pool.submit(driver.saver.put_writes, config, [("x", value)], f"task {number:03}")
                for number, value in enumerate(values)
            ]
            return [job.exception() for job in jobs]

    async def gathered() -> list[Any]:
        calls = (
            driver.saver.aput_writes(config, [("x", value)], f"task {number:03}")
            for number, value in enumerate(values)
        )
        return await asyncio.gather(*calls, return_exceptions=True)

    return list(driver.run(gathered()))


def test_parallel_writes_are_all_kept(driver: Driver) -> None:
    config = begin(driver)
    assert write_all(driver, config, list(range(WRITERS))) == [None] * WRITERS
    for _ in range(2):
        found = driver.get(ROOT)
        assert found is not None
        assert [value for _, _, value in found.pending_writes or ()] == list(range(WRITERS))
        driver.reopen()


def waiting(driver: Driver) -> int:
    lines = driver.saver._operations.writing.appending._lines
    return sum(len(each.waiting) for each in lines.values())


@pytest.mark.parametrize(("value", "events"), [("2", 1), ("2" * 5_000, 3)])
def test_writes_share_the_commit_of_the_checkpoint_that_follows_and_small_ones_its_event(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, value: str, events: int
) -> None:
    monkeypatch.setattr(appending, "PATIENCE_S", 60.0)
    parent = begin(driver)
    follows = parent, checkpoint(2), {"step": 2}, {"x": "2"}
    if driver.is_async:

        async def both() -> None:
            writes = [
                asyncio.create_task(
                    driver.saver.aput_writes(parent, [("x", value)], f"task {number}")
                )
                for number in range(2)
            ]
            while waiting(driver) < 2:
                await asyncio.sleep(0.01)
            await asyncio.gather(*writes, driver.saver.aput(*follows))

        driver.run(both())
    else:
        with ThreadPoolExecutor(2) as pool:
            writes = [
                pool.submit(driver.saver.put_writes, parent, [("x", value)], f"task {number}")
                for number in range(2)
            ]
            while waiting(driver) < 2:
                time.sleep(0.01)
            driver.saver.put(*follows)
            for each in writes:
                each.result()
    _, *others = driver.events("t")
    assert len(others) == events
    assert len({each.recorded_us for each in others}) == 1
    for _ in range(2):
        stored = [(task, written) for task, _, written in pending(driver, parent)]
        assert stored == [("task 0", value), ("task 1", value)]
        latest = driver.get(ROOT)
        assert latest is not None and latest.checkpoint["channel_values"] == {"x": 2}
        driver.reopen()


def test_writes_wait_for_the_checkpoint_that_follows_them_and_not_for_an_earlier_one(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LangGraph hands over the writes of a superstep while earlier checkpoints are stored."""
    monkeypatch.setattr(appending, "PATIENCE_S", 60.0)
    monkeypatch.setattr(appending, "PATIENCE_MAX_S", 60.0)
    first = begin(driver)
    checkpoints = [checkpoint(number) for number in range(2, 5)]
    places = [first, *map(config_of, checkpoints)]
    writes = [(place, [("x", place["configurable"]["checkpoint_id"])], "t") for place in places[:3]]
    puts = [
        (place, each, {"step": 1, "source": "input"}, {"x": each["channel_versions"]["x"]})
        for place, each in zip(places, checkpoints, strict=False)
    ]
    if driver.is_async:

        async def run_ahead() -> None:
            tasks = [asyncio.create_task(driver.saver.aput_writes(*each)) for each in writes]
            while waiting(driver) < 3:
                await asyncio.sleep(0.01)
            for each in puts:
                await driver.saver.aput(*each)
            await asyncio.gather(*tasks)

        driver.run(run_ahead())
    else:
        with ThreadPoolExecutor(3) as pool:
            jobs = [pool.submit(driver.saver.put_writes, *each) for each in writes]
            while waiting(driver) < 3:
                time.sleep(0.01)
            for each in puts:
                driver.saver.put(*each)
            for job in jobs:
                job.result()
    _, *others = driver.events("t")
    assert [each.data.get("w") for each in others] == [True] * 3
    for place in places[:3]:
        expected = place["configurable"]["checkpoint_id"]
        assert [value for _, _, value in pending(driver, place)] == [expected]


def test_writes_for_a_checkpoint_that_never_comes_are_stored(driver: Driver) -> None:
    begin(driver)
    later = config_of(checkpoint(2))
    driver.call("put_writes", later, [("x", 2)], "task", "")
    assert [event.data.get("id") for event in driver.events("t")][1:] == [
        later["configurable"]["checkpoint_id"]
    ]


def test_one_who_calls_one_method_after_the_other_does_not_wait_each_time(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "PATIENCE_S", 0.5)
    config = begin(driver)
    started = time.monotonic()
    for number in range(40):
        driver.call("put_writes", config, [("x", number)], f"task {number}", "")
    assert time.monotonic() - started < 10  # waited twice or thrice
    assert len(pending(driver, config)) == 40


def test_writes_that_take_all_threads_do_not_wait_for_a_checkpoint_each_time(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    if driver.is_async:
        pytest.skip("tasks of an event loop take no threads")
    monkeypatch.setattr(appending, "PATIENCE_S", 1.0)
    parent = begin(driver)
    started = time.monotonic()
    with ThreadPoolExecutor(3) as pool:  # as LangGraph's, which has few threads for all tasks
        jobs = [
            pool.submit(driver.saver.put_writes, parent, [("x", number)], f"task {number:03}")
            for number in range(WRITERS)
        ]
        jobs.append(pool.submit(driver.saver.put, parent, checkpoint(2), {"step": 2}, {"x": "2"}))
        for job in jobs:
            job.result()
    assert time.monotonic() - started < 6  # waited once or twice, not for each three
    assert [value for _, _, value in pending(driver, parent)] == list(range(WRITERS))


@pytest.mark.parametrize("channel", ["__interrupt__", "__error__", "__resume__"])
def test_what_ends_or_resumes_a_task_waits_for_no_checkpoint(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, channel: str
) -> None:
    monkeypatch.setattr(appending, "PATIENCE_S", 60.0)
    config = begin(driver)
    started = time.monotonic()
    driver.call("put_writes", config, [(channel, "x")], "task", "")
    assert time.monotonic() - started < 30
    assert len(pending(driver, config)) == 1


def test_an_early_checkpoint_is_stored_after_its_writes(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    if driver.is_async:
        pytest.skip("tasks of an event loop keep their order")
    monkeypatch.setattr(appending, "PATIENCE_S", 60.0)
    parent = begin(driver)
    with ThreadPoolExecutor(1) as pool:
        metadata = {"step": 2, "source": "loop"}
        put = pool.submit(driver.saver.put, parent, checkpoint(2), metadata, {"x": "2"})
        while waiting(driver) < 1:
            time.sleep(0.01)
        driver.saver.put_writes(parent, [("x", 2)], "task")
        put.result()
    _, both = driver.events("t")
    assert both.data["w"]  # it holds the writes, too
    assert len(pending(driver, parent)) == 1
    latest = driver.get(ROOT)
    assert latest is not None and latest.checkpoint["channel_values"] == {"x": 2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_waits_for_no_thread_of_its_parent(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    if driver.is_async:
        pytest.skip("an event loop does not survive a fork")
    if driver.saver.store.core.is_server:
        pytest.skip("a process of its own opens its own connections")
    parent = begin(driver)
    monkeypatch.setattr(appending, "PATIENCE_S", 1.0)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(driver.saver.put_writes, parent, [("x", 1)], "task 1")
        while waiting(driver) < 1:
            time.sleep(0.01)
        child = os.fork()
        if not child:
            waits = waiting(driver)
            os._exit(waits)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        job.result()
    assert len(pending(driver, parent)) == 1


def test_a_write_that_cannot_be_stored_fails_alone(driver: Driver) -> None:
    driver.reopen(codec=Codec(max_decoded_bytes=100_000))
    config = begin(driver)
    import random

    huge = random.Random(1).randbytes(200_000)
    values = [huge if number == 7 else number for number in range(WRITERS)]
    results = write_all(driver, config, values)
    assert [type(each) for each in results if each is not None] == [SerializationError]
    found = driver.get(ROOT)
    assert found is not None
    assert len(found.pending_writes or ()) == WRITERS - 1


def test_a_cancelled_writer_does_not_keep_the_others(driver: Driver) -> None:
    if not driver.is_async:
        pytest.skip("only tasks are cancelled")
    config = begin(driver)

    async def main() -> None:
        tasks = [
            asyncio.create_task(driver.saver.aput_writes(config, [("x", number)], f"{number:03}"))
            for number in range(WRITERS)
        ]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    driver.run(main())
    found = driver.get(ROOT)
    assert found is not None
    kept = {value for _, _, value in found.pending_writes or ()}
    assert kept >= set(range(WRITERS)) - set(range(0, WRITERS, 3))
    begin(driver)


RUN = """
import sys
from graph.langgraph import EventStoreSaver
from tests.langgraph.graphs import chat, question

with EventStoreSaver(sys.argv[1]) as saver:
    app = chat().compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}}
    number = len(app.get_state(config).values.get("messages", ())) // 2
    while True:
        app.invoke(question(number), config, durability="sync")
        print(number, flush=True)
        number += 1
"""


@pytest.mark.slow
def test_a_killed_run_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    from tests.langgraph.graphs import chat

    path = str(tmp_path / "agents.db")
    config: Any = {"configurable": {"thread_id": "t"}}
    for round_ in range(effort(4, 200)):
        process = processes.Popen(
            [sys.executable, "-c", RUN, path],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(2 + round_ % 5)][-1]
        process.kill()
        acknowledged = max([acknowledged, *map(int, process.communicate()[0].split())])
        with EventStoreSaver(path) as saver:
            app = chat().compile(checkpointer=saver)
            contents = [each.content for each in app.get_state(config).values["messages"]]
            questions = [each for each in contents if each.startswith("question")]
            assert questions[: acknowledged + 1] == [
                f"question {number}" for number in range(acknowledged + 1)
            ]
            assert saver.store.verify("t").ok
            for each in saver.list(config):
                assert each.checkpoint["id"]
