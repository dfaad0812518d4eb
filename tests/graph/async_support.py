"""What the tests of async runs share: small graphs, and a checkpointer opened in the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from eventstore import AsyncEventStore
from graph import (
    END,
    START,
    CompiledGraph,
    RetryPolicy,
    StateGraph,
)
from tests.awaited import opened
from tests.graph.kit import Trail


@asynccontextmanager
async def checkpointer(kept: bool) -> AsyncIterator[AsyncEventStore | None]:
    if not kept:
        yield None
        return
    async with opened("sqlite://") as store:
        yield store


def fan(
    nodes: dict[str, Any], checkpointer: Any = None, *, retry: RetryPolicy | None = None
) -> CompiledGraph:
    """Nodes side by side, and behind them all a plain node ``end``."""
    graph = StateGraph(Trail)
    for name, action in nodes.items():
        graph.add_node(name, action, retry_policy=retry)
        graph.add_edge(START, name)
    graph.add_node("end", lambda state: {"log": ["end"]})
    graph.add_edge(list(nodes), "end")
    return graph.compile(checkpointer=checkpointer)


def one(action: Any, checkpointer: Any = None, **options: Any) -> CompiledGraph:
    """A graph of a single node ``node``."""
    graph = StateGraph(Trail)
    graph.add_node("node", action, **options)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph.compile(checkpointer=checkpointer)


def logging(name: str, seconds: float | None = None) -> Callable[[Trail], Awaitable[Any]]:
    """An asynchronous node that logs its name after a while."""

    async def node(state: Trail) -> dict[str, Any]:
        if seconds is not None:
            await asyncio.sleep(seconds)
        return {"log": [name], "total": 1}

    return node
