"""A peer: a library under measurement, its graph classes and its opened store.

A peer lends a workload its graph classes (``GraphApi``) and opens its own store on a file or a
database. All peers commit durably (``synchronous=FULL`` in WAL mode, ``synchronous_commit=on``) and
are used as their documentation says. An async peer runs on one event loop that already runs;
``SyncApp`` wraps its applications, so that the same code measures sync and async peers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

RunCoroutine = Callable[[Coroutine[Any, Any, Any]], Any]


@dataclass(frozen=True)
class Session:
    """A peer's opened store.

    Attributes:
        saver: the checkpointer that a graph is compiled with.
        compile: makes an application of a graph, with synchronous methods.
        delete_thread: deletes everything stored of a thread.
    """

    saver: Any
    compile: Callable[[Any], Any]
    delete_thread: Callable[[str], Any]


@dataclass(frozen=True)
class Peer:
    """A library under measurement; satisfies ``GraphApi``.

    Attributes:
        key: its name in ``PEERS``, for use in another process.
        name: its name in reports.
        ours: whether it is this library.
        session: opens the store at a path or URL, for a ``with`` block.
    """

    key: str
    name: str
    ours: bool
    state_graph: Callable[[Any], Any]
    start: str
    end: str
    session: Callable[[str], AbstractContextManager[Session]]


@dataclass(frozen=True)
class Pair:
    """Two peers that are compared.

    Attributes:
        suffix: added to the name of each measure.
        gain: whether the ratio says how much less ours costs; else how much more.
        only_turns: they are compared by the turns of a chat alone.
    """

    ours: Peer
    other: Peer
    suffix: str = ""
    gain: bool = True
    only_turns: bool = False


class SyncApp:
    """An application's async methods, called synchronously."""

    def __init__(self, app: Any, run: RunCoroutine) -> None:
        self._app = app
        self._run = run

    def invoke(self, values: Any, config: Any) -> Any:
        return self._run(self._app.ainvoke(values, config))

    def get_state(self, config: Any) -> Any:
        return self._run(self._app.aget_state(config))

    def get_state_history(self, config: Any) -> list[Any]:
        async def collect() -> list[Any]:
            return [state async for state in self._app.aget_state_history(config)]

        history: list[Any] = self._run(collect())
        return history


def sync_session(saver: Any, delete_thread: Callable[[str], Any], **options: Any) -> Session:
    """A session over a saver with a sync API; ``options`` are those of ``compile``."""
    return Session(saver, lambda graph: graph.compile(checkpointer=saver, **options), delete_thread)


def async_session(saver: Any, delete_thread: Callable[[str], Any], run: RunCoroutine) -> Session:
    """A session over a saver with an async API."""
    return Session(
        saver,
        lambda graph: SyncApp(graph.compile(checkpointer=saver), run),
        lambda thread_id: run(delete_thread(thread_id)),
    )


@contextmanager
def event_loop() -> Iterator[RunCoroutine]:
    """An event loop, as a function that runs one coroutine after the other on it."""
    # The loop itself, because Runner.run installs a handler for Ctrl-C on each call.
    with asyncio.Runner() as runner:
        yield runner.get_loop().run_until_complete
