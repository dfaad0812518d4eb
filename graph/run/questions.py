"""Which of a task's interrupts a call of ``interrupt()`` is, when its node runs again.

Owns the rule by which resume values find their interrupts. A value equal to one that was shown
belongs to that interrupt, wherever it is asked; of equal ones the first. A value that equals none
counts by its place: the nth call is the nth interrupt, so that a value may hold a time or a text
that is made anew each time. That is a guess, and it is withdrawn where it shows to be wrong: if
the value that was shown at that place is asked after all, or if code that runs side by side asks,
too, so that places mean nothing. The node then runs once more, and what equals nothing is asked
anew.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from graph.build.channels import MISSING
from graph.state.state import Asked

Flow = object
"""What runs user code: a task of an event loop, or a thread."""


class MixedUp(BaseException):
    """Leaves a node that asked in another order than before, and was given a wrong resume value.

    No ``Exception``: a node's ``except Exception`` must not swallow it.
    """


class Questions:
    """The interrupts of one attempt of a task.

    Args:
        known: the nth interrupt as it was shown before, if it was.
        count: no more than so many are known.
        same: compares a value with one that was shown.
        strict: guess nothing by place.
        main: runs the node; code that it starts may run beside it, it runs beside nothing.

    Attributes:
        guessed: some were told apart by their places, with values that were not shown before.
    """

    def __init__(
        self,
        known: Callable[[int], Asked | None],
        count: int,
        same: Callable[[Any, Any], bool],
        strict: bool,
        main: Flow,
    ) -> None:
        self.guessed = False
        self._known = {nth: each for nth in range(count) if (each := known(nth)) is not None}
        self._same = same
        self._strict = strict
        self._lock: Final = threading.Lock()
        self._calls = 0
        self._used: set[int] = set()
        self._guesses: dict[int, tuple[Flow, frozenset[Flow]]] = {}
        self._main = main

    def number(self, value: Any) -> int:
        """The number of the interrupt that is asked with this value.

        Raises:
            MixedUp: an earlier call of this attempt was taken for another one.
        """
        with self._lock:
            nth, self._calls = self._calls, self._calls + 1
            if self._known:
                nth = self._find(nth, value)
            self._used.add(nth)
            return nth

    def _find(self, nth: int, value: Any) -> int:
        for each in (nth, *sorted(self._known)):
            if each in self._known and each not in self._used and self._equals(each, value):
                self._refuse_beside()
                return each
        if any(self._equals(each, value) for each in self._guesses):
            raise MixedUp
        free = nth not in self._used
        if free and nth in self._known and not self._strict:
            if self._known[nth].answer is not MISSING:
                self._guesses[nth] = flow(), _others()
                self.guessed = True
            self._refuse_beside()
            return nth
        self._refuse_beside()
        while not free or nth in self._known:
            nth, free = nth + 1, nth + 1 not in self._used
        return nth

    def _equals(self, nth: int, value: Any) -> bool:
        return self._same(self._known[nth].shown, value)

    def _refuse_beside(self) -> None:
        """Refuse guesses where code that was running beside the guess asks, too."""
        asks = flow()
        for guessed, others in self._guesses.values():
            beside = asks in others or isinstance(asks, threading.Thread)
            if beside and asks is not guessed and asks is not self._main:
                raise MixedUp


def alike(pack: Callable[[Any], bytes]) -> Callable[[Any, Any], bool]:
    """Compares values by ``==``, or by what is stored: not every value has an equality that holds
    (NaN, arrays), and what it does is the application's.
    """

    def same(one: Any, other: Any) -> bool:
        with suppress(Exception):
            if one == other:
                return True
        with suppress(Exception):
            return pack(one) == pack(other)
        return False

    return same


def flow() -> Flow:
    """What runs the code that calls this."""
    try:
        return asyncio.current_task() or threading.current_thread()
    except RuntimeError:  # no event loop runs in this thread
        return threading.current_thread()


def _others() -> frozenset[Flow]:
    """The tasks of the event loop that may run user code after this moment."""
    try:
        return frozenset(asyncio.all_tasks())
    except RuntimeError:
        return frozenset()
