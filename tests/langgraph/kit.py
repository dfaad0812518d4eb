"""Drives a saver for LangGraph, sync or async, by the same calls; and compares what it returns.

`Driver` has the methods of a saver and of a compiled graph, and runs the sync ones or, on an event
loop, their async twins. `facts` are what two savers must agree on about a checkpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple

from graph.langgraph import AsyncEventStoreSaver, EventStoreSaver

Config = Any

CONFIG: Config = {"configurable": {"thread_id": "t"}}


class Driver:
    """A saver, and how to call it.

    Attributes:
        saver: sync or async; `reopen` replaces it.
    """

    def __init__(self, url: str, is_async: bool, runner: asyncio.Runner, **options: Any) -> None:
        self.url, self.is_async, self.options = url, is_async, options
        self._runner = runner
        self.saver = self._opened()

    def _opened(self) -> Any:
        kind: Any = AsyncEventStoreSaver if self.is_async else EventStoreSaver
        return kind(self.url, **self.options)

    def close(self) -> None:
        self.run(self.saver.close())

    def reopen(self, **options: Any) -> None:
        """Close the saver and open another one on the same database, if that can be."""
        if self.url == "sqlite://" and not options:
            return
        self.close()
        self.options |= options
        self.saver = self._opened()

    def run(self, result: Any) -> Any:
        """The result of a call, awaited if need be."""
        return self._runner.run(result) if self.is_async and result is not None else result

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """The result of a method of the saver or of its async twin."""
        if not self.is_async:
            return getattr(self.saver, name)(*args, **kwargs)
        return self._runner.run(getattr(self.saver, f"a{name}")(*args, **kwargs))

    def store(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """The result of a method of the store."""
        return self.run(getattr(self.saver.store, name)(*args, **kwargs))

    def get(self, config: Config = CONFIG) -> CheckpointTuple | None:
        found: CheckpointTuple | None = self.call("get_tuple", config)
        return found

    def listed(self, config: Config | None = CONFIG, **kwargs: Any) -> list[CheckpointTuple]:
        """All checkpoints that a listing gives."""
        if not self.is_async:
            return list(self.saver.list(config, **kwargs))
        return self._collected(self.saver.alist(config, **kwargs))

    def _collected(self, items: Any) -> list[Any]:
        async def collect() -> list[Any]:
            return [item async for item in items]

        return self._runner.run(collect())

    def events(self, thread_id: str) -> list[Any]:
        """The events of a thread, as the store has them."""
        found = self.saver.store.read(thread_id)
        return self._collected(found) if self.is_async else list(found)

    def app(self, graph: Any, **options: Any) -> App:
        """A graph compiled with this saver."""
        return App(self, lambda: graph.compile(checkpointer=self.saver, **options))


class App:
    """A compiled graph, called the way of its saver; compiled anew for each call."""

    def __init__(self, driver: Driver, compiled: Callable[[], Any]) -> None:
        self._driver, self._compiled = driver, compiled

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        app = self._compiled()
        if not self._driver.is_async:
            return getattr(app, name)(*args, **kwargs)
        return self._driver.run(getattr(app, f"a{name}")(*args, **kwargs))

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        return self._call("invoke", *args, **kwargs)

    def state(self, config: Config = CONFIG, **kwargs: Any) -> Any:
        return self._call("get_state", config, **kwargs)

    def update(self, config: Config, *args: Any, **kwargs: Any) -> Any:
        return self._call("update_state", config, *args, **kwargs)

    def history(self, config: Config = CONFIG) -> list[Any]:
        app = self._compiled()
        if not self._driver.is_async:
            return list(app.get_state_history(config))
        return self._driver._collected(app.aget_state_history(config))


@contextmanager
def driving(url: str, is_async: bool, **options: Any) -> Iterator[Driver]:
    """A driver for the length of a ``with`` block."""
    with asyncio.Runner() as runner:
        driver = Driver(url, is_async, runner, **options)
        try:
            yield driver
        finally:
            driver.close()


def facts(found: CheckpointTuple | None) -> Any:
    """What two savers must agree on about a checkpoint."""
    if found is None:
        return None
    parent = found.parent_config
    return {
        "config": _place(found.config),
        "checkpoint": found.checkpoint,
        "metadata": found.metadata,
        "parent": None if parent is None else _place(parent),
        "writes": found.pending_writes,
    }


def _place(config: Any) -> dict[str, Any]:
    names = ("thread_id", "checkpoint_ns", "checkpoint_id")
    return {name: config["configurable"].get(name) for name in names}
