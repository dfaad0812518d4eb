"""``with`` and ``async with`` for everything that has ``close()``: on leaving, it is closed."""

from __future__ import annotations

from typing import Protocol, Self


class _Closes(Protocol):
    def close(self) -> None: ...


class _ClosesAsync(Protocol):
    async def close(self) -> None: ...


class Closing:
    """``with`` for a class that has ``close()``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self: _Closes, *_: object) -> None:
        self.close()


class AsyncClosing:
    """``async with`` for a class whose ``close()`` is awaited."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self: _ClosesAsync, *_: object) -> None:
        await self.close()
