"""The pace of a sweep: short transactions, and a rest after each.

Live writers get the database in between. Owns the bounds (:class:`Pace`) and the rests
(:class:`Pacer`); the operations themselves keep to the bounds.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from eventstore.db.background import QUIET_S
from retention.inputs import Store

T = TypeVar("T")

REST_S_MAX: Final = 1.0

DISK_REST: Final = 20
"""Rest after a sweep has kept the disk busy, as a multiple of that time: one append in fifty waits
for it then. With a multiple of 150 that is one in three hundred, and a sweep takes five times as
long."""

DISK_REST_S_MAX: Final = 10.0
"""How long a sweep rests at most after it has kept the disk busy."""

_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Pace:
    """How much of the database a sweep takes for itself.

    Attributes:
        rows: about how many rows one transaction deletes.
        seconds: about how long one transaction keeps others from writing (on SQLite; on PostgreSQL
            it does not, and may take ten times as long). If nobody else has written for longer
            than a hundred times that, a hundredth of the time since then.
        rest: pause after each, as a multiple of the time it took; 0 for none. On SQLite there is
            none either when nobody else has written for five seconds; otherwise there are longer
            ones whenever the sweep has kept the disk busy, for 20 times as long.
        bytes: how much of an SQLite file is returned to the file system in one step.
    """

    rows: int = 2_000
    seconds: float = 0.001
    rest: float = 0.5
    bytes: int = 262_144

    def __post_init__(self) -> None:
        if self.rows < 1 or self.seconds <= 0 or self.rest < 0 or self.bytes < 1:
            raise ValueError(
                f"rows, seconds and bytes must be above 0, and rest at least 0, not {self}"
            )


DEFAULT_PACE: Final = Pace()


class Pacer:
    """Runs operations of a store at a :class:`Pace`.

    Args:
        must_stop: asked during long rests, which end then.
    """

    def __init__(self, store: Store, pace: Pace, must_stop: Callable[[], bool]) -> None:
        self.pace = pace
        self._concurrency = store.concurrency
        self._background = store.core.transactions.background
        self._must_stop = must_stop

    async def run(self, operation: Awaitable[T]) -> T:
        """The result of an operation, after a rest in proportion to it."""
        began = time.monotonic()
        result = await self._concurrency.run(operation)
        if self.pace.rest and self._background.quiet_s < QUIET_S:
            took, moved = time.monotonic() - began, self._background.moved_s
            await self._concurrency.sleep(min(self.pace.rest * (took - moved), REST_S_MAX))
            await self._rest(moved * DISK_REST)
        return result

    async def _rest(self, seconds: float) -> None:
        """Leave the disk to others."""
        ends = time.monotonic() + min(seconds, DISK_REST_S_MAX)
        while (left := ends - time.monotonic()) > 0 and not self._must_stop():
            await self._concurrency.sleep(min(left, _LOOK_S))
