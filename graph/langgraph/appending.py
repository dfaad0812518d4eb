"""Writers of one process take turns at a thread, and append together what gathered meanwhile.

LangGraph stores the writes of parallel tasks and checkpoints from several threads or tasks at once.
While one commit is in progress, further ones for the same thread queue up, and the next turn takes
all of them in one append. Writes wait a moment for the checkpoint that follows them, where one
does, and share its commit. Each caller returns when its own part is stored.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from eventstore import (
    ConcurrencyError,
    DuplicateKeyError,
    Event,
    EventStoreError,
    ThreadNotFoundError,
)
from eventstore.concurrency import Asyncio, Concurrency
from graph.langgraph.finding import NeedsLog
from graph.langgraph.logs import AS_USUAL, Creation, Logs, Plan, Tip
from graph.langgraph.state.sealing import Seal

ATTEMPTS: Final = 100
"""How often an append is made anew because another writer was first."""

TOGETHER_MAX: Final = 64
"""Requests that are appended together."""

PATIENCE_S: Final = 0.005
"""How long writes wait for the checkpoint that follows them."""

_QUEUES: Final = 64
_TRUST_MAX: Final = 4
_TIRED_MAX: Final = 1024


@dataclass(eq=False, slots=True)
class _Request:
    """Something to be appended.

    Attributes:
        plan: what to append to a thread that ends at a tip; may be asked for again.
        tip: the thread with it; ``None``: not yet.
        error: why it cannot be appended.
        done: set when one of both is there, if its caller waits for that.
    """

    thread_id: str
    seal: Seal
    plan: Callable[[Tip], Awaitable[Plan | None]]
    creation: Creation
    tip: Tip | None = None
    error: Exception | None = None
    done: asyncio.Event | threading.Event | None = None

    @property
    def is_done(self) -> bool:
        return self.tip is not None or self.error is not None

    def end(self, tip: Tip | None, error: Exception | None = None) -> None:
        """It is appended, or cannot be."""
        self.tip, self.error = tip, error
        if self.done is not None:
            self.done.set()


class _Patience:
    """Whether it is worth waiting: only as long as what was waited for came.

    LangGraph's runtime stores a superstep's writes and its checkpoint from several threads or tasks
    at once. A caller that makes one call after the other must not wait in between for nothing.
    """

    def __init__(self) -> None:
        self._trust, self._skips, self._tired = 1, 0, 16

    def is_worth_it(self) -> bool:
        """Whether to wait this time."""
        if self._trust:
            return True
        self._skips -= 1
        if self._skips <= 0:
            self._trust = 1
        return False

    def note(self, came: bool) -> None:
        """Whether what was waited for came."""
        if came:
            self._trust, self._tired = min(self._trust + 1, _TRUST_MAX), 16
        else:
            self._trust = max(0, self._trust - 1)
            if not self._trust:
                self._skips, self._tired = self._tired, min(self._tired * 2, _TIRED_MAX)


@dataclass(eq=False, slots=True)
class _Queue:
    turn: Any
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: list[_Request] = field(default_factory=list)

    def add(self, request: _Request) -> None:
        with self.lock:
            self.waiting.append(request)

    def take(self, own: _Request) -> list[_Request]:
        """The requests for the same thread, in the order in which they came; ours among them."""
        with self.lock:
            found = [
                each
                for each in self.waiting
                if (each.thread_id, each.seal) == (own.thread_id, own.seal)
            ]
            if own not in found[:TOGETHER_MAX]:
                found.insert(0, own)
            found = found[:TOGETHER_MAX]
            self.waiting = [each for each in self.waiting if each not in found]
            return found

    def drop(self, request: _Request) -> None:
        with self.lock:
            if request in self.waiting:
                self.waiting.remove(request)


class Appending:
    """Appends to the threads of LangGraph in a store; shared by all copies of a saver."""

    def __init__(self, logs: Logs, concurrency: Concurrency) -> None:
        self.logs = logs
        self._awaits = isinstance(concurrency, Asyncio) and concurrency.threads is None
        make: Callable[[], Any] = asyncio.Lock if self._awaits else threading.Lock
        self._queues = [_Queue(make()) for _ in range(_QUEUES)]
        self._patience = _Patience()

    async def write(
        self,
        thread_id: str,
        seal: Seal,
        plan: Callable[[Tip], Awaitable[Plan | None]],
        creation: Creation = AS_USUAL,
        *,
        waits: bool = False,
    ) -> Tip:
        """Append what ``plan`` makes of the thread's end, which it may be asked for again.

        Args:
            waits: something probably follows at once that it should be appended with.

        Raises:
            ConcurrencyError: others were first ``ATTEMPTS`` times.
        """
        queue = self._queues[hash(thread_id) % _QUEUES]
        request = _Request(thread_id, seal, plan, creation)
        waits = waits and self._patience.is_worth_it()
        if waits:
            request.done = asyncio.Event() if self._awaits else threading.Event()
        queue.add(request)
        try:
            if waits:
                await _wait(request)
            async with self._turn(queue):
                if waits:
                    self._patience.note(request.is_done)
                if not request.is_done:
                    await self._append(queue.take(request))
        finally:
            queue.drop(request)
        if request.error is not None:
            raise request.error
        assert request.tip is not None
        return request.tip

    async def write_all(
        self, thread_id: str, seal: Seal, plans: Sequence[Callable[[Tip], Awaitable[Plan | None]]]
    ) -> None:
        """Append what several plans make of a thread, in their order, as much as can be together.

        Raises:
            EventStoreError: one of them cannot be appended; the others are.
        """
        queue = self._queues[hash(thread_id) % _QUEUES]
        for start in range(0, len(plans), TOGETHER_MAX):
            part = plans[start : start + TOGETHER_MAX]
            requests = [_Request(thread_id, seal, plan, AS_USUAL) for plan in part]
            async with self._turn(queue):
                await self._append(requests)
            for request in requests:
                if request.error is not None:
                    raise request.error

    @asynccontextmanager
    async def _turn(self, queue: _Queue) -> AsyncIterator[None]:
        if self._awaits:
            async with queue.turn:
                yield
        else:
            with queue.turn:
                yield

    async def _append(self, requests: Sequence[_Request]) -> None:
        """Append requests for one thread, as many together as can be planned together.

        Those that are left undone when this is cancelled are taken up by their own callers.
        """
        first = requests[0]
        tip = await self.logs.writing_tip(first.thread_id, first.seal)
        attempt, count = 0, len(requests)
        while requests := [each for each in requests if not each.is_done]:
            planned, plan = await self._planned(requests[:count], tip)
            if plan.events:
                try:
                    tip = await self.logs.append(tip, plan, planned[0].creation)
                except (ConcurrencyError, DuplicateKeyError, ThreadNotFoundError) as error:
                    attempt += 1
                    if attempt < ATTEMPTS:
                        tip = await self.logs.tip(first.thread_id, first.seal)
                        continue
                    for each in planned:
                        each.end(None, error)
                    continue
                except EventStoreError as error:
                    if len(planned) == 1:
                        planned[0].end(None, error)
                    count = 1  # one by one, so that each fails for its own reason only
                    continue
            for each in planned:
                each.end(tip)

    async def _planned(self, requests: Sequence[_Request], tip: Tip) -> tuple[list[_Request], Plan]:
        """The first requests that can be appended together, and what that appends."""
        planned: list[_Request] = []
        events: list[Event] = []
        ahead, fold, status = tip, tip.fold, None
        for request in requests:
            if fold is not ahead.fold:
                head = replace(tip.head, seq=tip.head.seq + len(events))
                ahead = Tip(head, fold, tip.base, is_planned=True)
            try:
                plan = await request.plan(ahead)
            except NeedsLog:
                break
            except Exception as error:
                request.end(None, error)
                continue
            planned.append(request)
            if plan is None:
                continue
            events += plan.events
            fold, status = plan.fold, plan.status or status
        return planned, Plan(events, fold, status)


async def _wait(request: _Request) -> None:
    """Wait until somebody has appended it, but not for long."""
    if isinstance(request.done, threading.Event):
        request.done.wait(PATIENCE_S)
    elif request.done is not None:
        with suppress(TimeoutError):
            await asyncio.wait_for(request.done.wait(), PATIENCE_S)
