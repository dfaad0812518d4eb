"""Running a coroutine to its end at once, for those who wait by blocking.

Everything above single operations is written once, as coroutines, which wait only for what
they were given to wait for: a transaction, a pause, a task. Where that waits by blocking the
thread, the coroutine never suspends, and one ``send`` is a plain call of it; where it waits
by awaiting, an event loop runs the very same coroutine. (psycopg does the like with
generators: https://www.psycopg.org/articles/2024/09/23/async-to-sync/.)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

_END: Any = object()


class Perform(Protocol):
    """How a whole operation is run from an event loop: awaited, or driven on another thread."""

    async def __call__(self, operation: Awaitable[T], /) -> T:
        """Its result."""


def run_sync(awaitable: Awaitable[T]) -> T:
    """The result of a coroutine that never suspends.

    Raises:
        RuntimeError: it did suspend: it waits for something that needs an event loop.
    """
    running = awaitable.__await__()
    try:
        next(running)
    except StopIteration as end:
        result: T = end.value
        return result
    running.close()
    raise RuntimeError("a blocking call came upon something that only an event loop can await")


def iterate_sync(items: AsyncIterator[T]) -> Iterator[T]:
    """The items of an asynchronous iterator that never suspends."""
    try:
        while True:
            try:
                yield run_sync(items.__anext__())
            except StopAsyncIteration:
                return
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            run_sync(close())


async def perform_each(perform: Perform, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """The items of an asynchronous iterator, each fetched the way that ``perform`` runs things.

    Closing it is not: that waits for nothing, and is possible when the store is closed already.
    """
    try:
        while (item := await perform(anext(items, _END))) is not _END:
            yield item
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


async def awaited(awaitable: Awaitable[T]) -> T:
    """Perform by awaiting, where that blocks nothing."""
    return await awaitable


def abandon(awaitable: object) -> None:
    """Close a coroutine that will not be run after all."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
