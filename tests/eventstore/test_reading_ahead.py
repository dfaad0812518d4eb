"""Async iterators of small items read several at once, which nobody can tell from outside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

import pytest

from eventstore.concurrency import AHEAD, Asyncio, iterate
from tests import awaited

T = TypeVar("T")


class Counted(Asyncio):
    """Counts the operations that are run."""

    count = 0

    def run(self, operation: Awaitable[T]) -> Awaitable[T]:
        self.count += 1
        return super().run(operation)


class Numbers:
    """Numbers from 0 on, up to an error if there is one; knows how many were read."""

    def __init__(self, length: int, error: Exception | None = None) -> None:
        self.length, self.error = length, error
        self.given, self.closed = 0, False

    async def __call__(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self.length):
                self.given += 1
                yield number
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 31, 32, 33, 500])
def test_all_items_come_in_order_in_few_operations(length: int) -> None:
    counted, numbers = Counted(), Numbers(length)

    async def main() -> list[int]:
        return [each async for each in iterate(counted, numbers(), AHEAD)]

    assert awaited.run(main()) == list(range(length))
    assert counted.count <= 6 + length // AHEAD and numbers.closed


@pytest.mark.parametrize("length", [0, 1, 4, 40])
def test_an_error_comes_after_the_items_before_it(length: int) -> None:
    numbers, found = Numbers(length, ValueError("damaged")), list[int]()

    async def main() -> None:
        async for each in iterate(Asyncio(), numbers(), AHEAD):
            found.append(each)

    with pytest.raises(ValueError, match="damaged"):
        awaited.run(main())
    assert found == list(range(length))


@pytest.mark.parametrize("wanted", [1, 2, 5, 20])
def test_who_stops_early_has_read_at_most_as_much_again(wanted: int) -> None:
    numbers = Numbers(10_000)

    async def main() -> None:
        items = iterate(Asyncio(), numbers(), AHEAD)
        for number in range(wanted):
            assert await anext(items) == number
        await items.aclose()

    awaited.run(main())
    assert numbers.given <= 2 * wanted and numbers.closed


def test_large_items_are_read_one_at_a_time() -> None:
    numbers = Numbers(10)

    async def main() -> None:
        items = iterate(Asyncio(), numbers())
        for number in range(5):
            assert await anext(items) == number == numbers.given - 1
        await items.aclose()

    awaited.run(main())
