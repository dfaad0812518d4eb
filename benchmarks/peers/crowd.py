"""Many runs of the pipeline at once, in one process, by one library: each on a thread of its own.

    python -m benchmarks.peers.crowd KEY TARGET RUNS AT_ONCE

Prints seconds and CPU seconds of the process as JSON. Each library is used as its documentation
shows, and every step is durable before the next begins.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.peers.registry import find_peer
from benchmarks.workloads.pipeline import pipeline_graph, pipeline_inputs

Values = dict[str, Any]
SyncRun = Callable[[str, Values], Values]
AsyncRun = Callable[[str, Values], Awaitable[Values]]

WARM_UP: Final = 10


def config_of(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id}}


class Crowd:
    """Runs the pipeline for all inputs, so many at once, and takes the time."""

    def __init__(self, runs: int, at_once: int) -> None:
        self._inputs = pipeline_inputs(runs)
        self._at_once = at_once
        self.figures: dict[str, float] = {}

    def threads(self, run: SyncRun) -> None:
        """In threads, each of which makes one run after the other."""
        for number in range(WARM_UP):
            run(f"warm-up-{number}", self._inputs[0])
        with ThreadPoolExecutor(self._at_once) as pool:
            list(pool.map(lambda _: time.sleep(0.05), range(self._at_once)))  # start them
            with self._timed():
                found = list(pool.map(run, map(str, range(len(self._inputs))), self._inputs))
        self._check(found)

    async def tasks(self, run: AsyncRun) -> None:
        """In tasks of one event loop."""
        for number in range(WARM_UP):
            await run(f"warm-up-{number}", self._inputs[0])
        work = iter(enumerate(self._inputs))
        found: list[Values] = []

        async def several() -> None:
            for number, values in work:
                found.append(await run(str(number), values))

        with self._timed():
            await asyncio.gather(*(several() for _ in range(self._at_once)))
        self._check(found)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        gc.collect()
        gc.freeze()
        began, used = time.perf_counter(), time.process_time()
        yield
        self.figures = {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - used,
        }

    def _check(self, found: Sequence[Values]) -> None:
        if sorted(each["text"] for each in found) != sorted(each["text"] for each in self._inputs):
            raise AssertionError("a run has no result, or that of another one")
        if not all(each["summary"] for each in found):
            raise AssertionError("a run did not reach its end")


# --- this library -----------------------------------------------------------------------


def ours(target: str, crowd: Crowd) -> None:
    import graph

    with graph.PostgresSaver(target) if "://" in target else graph.SqliteSaver(target) as saver:
        app = pipeline_graph(find_peer("ours")).compile(checkpointer=saver)
        crowd.threads(lambda thread_id, values: app.invoke(values, config_of(thread_id)))


def ours_async(target: str, crowd: Crowd) -> None:
    import graph

    async def main() -> None:
        opened = graph.AsyncPostgresSaver if "://" in target else graph.AsyncSqliteSaver
        async with opened(target) as saver:
            app = pipeline_graph(find_peer("ours")).compile(checkpointer=saver)
            await crowd.tasks(lambda thread_id, values: app.ainvoke(values, config_of(thread_id)))

    asyncio.run(main())


# --- LangGraph --------------------------------------------------------------------------


def langgraph(target: str, crowd: Crowd) -> None:
    from langgraph.checkpoint.postgres import PostgresSaver

    from benchmarks.peers.langgraph import opened_sqlite
    from benchmarks.peers.pools import documented_pool

    def work(saver: Any) -> None:
        app = _langgraph_app(saver)
        crowd.threads(
            lambda thread_id, values: app.invoke(values, config_of(thread_id), durability="sync")
        )

    if "://" not in target:
        with opened_sqlite(target) as saver:
            work(saver)
        return
    with documented_pool(target) as pool:
        on_pool = PostgresSaver(pool)
        on_pool.setup()
        work(on_pool)


def langgraph_async(target: str, crowd: Crowd) -> None:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    from benchmarks.peers.pools import documented_async_pool

    async def work(saver: Any) -> None:
        await saver.setup()
        app = _langgraph_app(saver)
        await crowd.tasks(
            lambda thread_id, values: app.ainvoke(values, config_of(thread_id), durability="sync")
        )

    async def main() -> None:
        if "://" not in target:
            async with AsyncSqliteSaver.from_conn_string(target) as saver:
                await saver.conn.execute("PRAGMA synchronous = FULL")
                await work(saver)
            return
        pool = await documented_async_pool(target)
        try:
            await work(AsyncPostgresSaver(pool))
        finally:
            await pool.close()

    asyncio.run(main())


def _langgraph_app(saver: Any) -> Any:
    return pipeline_graph(find_peer("langgraph")).compile(checkpointer=saver)


# --- DBOS -------------------------------------------------------------------------------


def dbos(target: str, crowd: Crowd) -> None:
    """Workflows that are called directly: nothing is queued, and nobody polls for results."""
    DBOS = _dbos()

    measure, classify, summarise = (DBOS.step()(step) for step in _steps())

    def pipeline(values: Values) -> Values:
        values = {**values, **measure(values)}
        values = {**values, **classify(values)}
        return {**values, **summarise(values)}

    workflow = DBOS.workflow()(pipeline)
    with _launched(target):
        crowd.threads(lambda _, values: workflow(values))


def dbos_async(target: str, crowd: Crowd) -> None:
    """As :func:`dbos`, with coroutines."""
    DBOS = _dbos()

    def awaited(step: Callable[[Values], Values]) -> Any:
        async def run(values: Values) -> Values:
            return step(values)

        run.__qualname__ = step.__name__
        return DBOS.step()(run)

    measure, classify, summarise = map(awaited, _steps())

    async def pipeline(values: Values) -> Values:
        values = {**values, **await measure(values)}
        values = {**values, **await classify(values)}
        return {**values, **await summarise(values)}

    workflow = DBOS.workflow()(pipeline)
    with _launched(target):
        asyncio.run(crowd.tasks(lambda _, values: workflow(values)))


def _dbos() -> Any:
    """Its class, untyped: only the extra `bench` brings the library."""
    return importlib.import_module("dbos").DBOS


def _steps() -> list[Callable[[Values], Values]]:
    """The three nodes of the pipeline, as functions."""
    found: list[Callable[[Values], Values]] = []

    class Collected:
        def __init__(self, _schema: Any) -> None: ...

        def add_node(self, _name: str, node: Callable[[Values], Values]) -> None:
            node.__qualname__ = node.__name__
            found.append(node)

        def add_edge(self, _start: str, _end: str) -> None: ...

    class Api:
        state_graph = Collected
        start = end = ""

    pipeline_graph(Api)
    return found


@contextmanager
def _launched(target: str) -> Iterator[None]:
    DBOS = _dbos()

    url = target.replace("postgresql://", "postgresql+psycopg://")
    DBOS(config={"name": "benchmark", "system_database_url": url, "log_level": "ERROR"})
    DBOS.launch()
    try:
        yield
    finally:
        DBOS.destroy()


CROWDS: Final[dict[str, Callable[[str, Crowd], None]]] = {
    "ours": ours,
    "ours-async": ours_async,
    "langgraph": langgraph,
    "langgraph-async": langgraph_async,
    "dbos": dbos,
    "dbos-async": dbos_async,
}


def main(key: str, target: str, runs: str, at_once: str) -> None:
    """Measure, and print the figures."""
    crowd = Crowd(int(runs), int(at_once))
    CROWDS[key](target, crowd)
    print(json.dumps(crowd.figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
