"""Writers of one process take turns at a thread, and append together what gathered meanwhile.

LangGraph stores the writes of parallel tasks and checkpoints from several threads or tasks at once.
While one commit is in progress, further requests for the same thread wait in a line. The one that
has the turn appends all of them together, and then hands the turn to the first that came meanwhile.
Writes wait a moment for the checkpoint that follows them, where one does, and share its commit.
Each caller returns when its own part is stored.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

from eventstore import (
    ConcurrencyError,
    DuplicateKeyError,
    ThreadNotFoundError,
)
from eventstore.concurrency import Asyncio, Concurrency
from eventstore.workers import renew_in_children
from graph.langgraph.finding import NeedsLog
from graph.langgraph.logs import AS_USUAL, Creation, Logs, Plan, Tip
from graph.langgraph.state.drafts import Draft, joined
from graph.langgraph.state.sealing import Seal

ATTEMPTS: Final = 100
"""How often an append is made anew because another writer was first."""

TOGETHER_MAX: Final = 64
"""Requests that are appended together."""

PATIENCE_S: Final = 0.01
"""How long writes wait for the checkpoint that follows them, and a checkpoint for its writes, while
nothing is stored in their thread."""

PATIENCE_MAX_S: Final = 0.1
"""How long they wait at most; also writes whose own checkpoint is yet to come."""

_TRUST_MAX: Final = 4
_SKIPS_MIN: Final = 16
_SKIPS_MAX: Final = 1024

Planning = Callable[[Tip], Awaitable[Plan | None]]
"""What to append to a thread that ends at a tip; may be asked for again."""

Awaited = Literal["checkpoint", "writes"]
"""What probably comes at once, to be appended together with a request."""


class About(NamedTuple):
    """What is appended about a checkpoint, named by its namespace and id.

    Attributes:
        is_next: it is the checkpoint that follows; else writes for it.
        awaits: what probably comes at once.
        is_early: the checkpoint itself is yet to come, too.
    """

    name: tuple[str, str | None]
    is_next: bool
    awaits: Awaited | None = None
    is_early: bool = False


class _Waker(Protocol):
    """Wakes the caller of a request, once."""

    def wake(self) -> bool:
        """Let it go on; false if it never will."""

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is woken; false if it was not in time."""


class _ThreadWaker:
    """Wakes a thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> bool:
        self._lock.release()
        return True

    async def wait(self, timeout_s: float | None = None) -> bool:
        return self._lock.acquire(timeout=-1 if timeout_s is None else timeout_s)


class _TaskWaker:
    """Wakes a task of an event loop, from this loop or another one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def wake(self) -> bool:
        with suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._event.set)
            return True
        return False

    async def wait(self, timeout_s: float | None = None) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        return self._event.is_set()


@dataclass(eq=False, slots=True)
class _Request:
    """Something to be appended.

    Attributes:
        tip: the thread with it; ``None``: not yet.
        error: why it cannot be appended.
        about: the checkpoint that it continues or has writes for, if any.
        awaits: what it waits for; ``None``: only for its turn.
        until: when it waits for that no more.
        leads: its caller has the turn.
        is_over: its caller waits no more.
        waker: of its caller, if that waits.
    """

    thread_id: str
    seal: Seal
    plan: Planning
    creation: Creation
    about: About | None = None
    tip: Tip | None = None
    error: Exception | None = None
    awaits: Awaited | None = None
    until: float = 0.0
    leads: bool = False
    is_over: bool = False
    waker: _Waker | None = None

    @property
    def is_done(self) -> bool:
        return self.tip is not None or self.error is not None


@dataclass(slots=True)
class _Line:
    """The requests for one thread.

    Attributes:
        waiting: in the order in which they came.
        has_leader: a caller has the turn.
        moved: when somebody had it last.
    """

    waiting: list[_Request] = field(default_factory=list)
    has_leader: bool = False
    moved: float = 0.0

    def count(self, about: About, *, is_next: bool) -> int:
        """How many writes for a checkpoint, or that follow it, are among them."""
        return sum(
            each.about is not None
            and each.about.name == about.name
            and each.about.is_next == is_next
            for each in self.waiting
        )

    def next_group(self, own: _Request) -> list[_Request]:
        """What is appended with the request of the one that has the turn.

        Writes that wait for a later checkpoint are left: LangGraph hands them over while it waits
        until this one is stored.
        """
        found = [each for each in self.waiting if each.seal is own.seal]
        names = {each.about.name for each in found if each.about and each.about.is_next}
        if own.about is not None:
            names.add(own.about.name)
        found = [
            each
            for each in found
            if each.awaits != "checkpoint" or each.about is None or each.about.name in names
        ]
        return found[:TOGETHER_MAX]


class _Patience:
    """Whether it is worth waiting: only as long as what was waited for came.

    A caller that makes one call after the other must not wait in between for nothing. Nor must the
    writes of many tasks wait on all threads that LangGraph has for a run, as the checkpoint then
    cannot come. So it is learned how many may wait.
    """

    def __init__(self) -> None:
        self._most = TOGETHER_MAX - 1
        self._trust, self._skips, self._tired = 1, 0, _SKIPS_MIN

    def allows(self, others: int) -> bool:
        """Whether one more may wait, beside others; now and then it is tried with more."""
        if others < self._most:
            return True
        self._skips -= 1
        if self._skips <= 0:
            self._most = min(2 * self._most or 1, TOGETHER_MAX - 1)
        return False

    def came(self, count: int) -> None:
        """It came while so many waited."""
        self._trust = min(self._trust + 1, _TRUST_MAX)
        if count >= self._most:
            self._tired = _SKIPS_MIN

    def missed(self, count: int) -> None:
        """It did not come while so many waited."""
        if count == 1:
            self._trust = max(0, self._trust - 1)
            if self._trust:
                return
        self._most, self._skips = count - 1, self._tired
        self._tired = min(self._tired * 4, _SKIPS_MAX)


class Appending:
    """Appends to the threads of LangGraph in a store; shared by all copies of a saver."""

    def __init__(self, logs: Logs, concurrency: Concurrency) -> None:
        self.logs = logs
        in_loop = isinstance(concurrency, Asyncio) and concurrency.threads is None
        self._waker: Callable[[], _Waker] = _TaskWaker if in_loop else _ThreadWaker
        self._keeps_order = in_loop
        self.renew()
        renew_in_children(self)
        self._patience: dict[Awaited, _Patience] = {
            "checkpoint": _Patience(),
            "writes": _Patience(),
        }

    def renew(self) -> None:
        """Begin without anybody in line, at first and in a forked process."""
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}

    async def write(
        self,
        thread_id: str,
        seal: Seal,
        plan: Planning,
        creation: Creation = AS_USUAL,
        about: About | None = None,
    ) -> Tip:
        """Append what ``plan`` makes of the thread's end.

        Args:
            about: which checkpoint it is about. LangGraph stores the writes of a superstep before
                the checkpoint that follows, but from another thread, which may be later.

        Raises:
            ConcurrencyError: others were first ``ATTEMPTS`` times.
        """
        request = _Request(thread_id, seal, plan, creation, about)
        try:
            self._stand_in_line([request])
            await self._appended(request)
        finally:
            self._step_out(request)
        if request.error is not None:
            raise request.error
        assert request.tip is not None
        return request.tip

    async def write_all(
        self,
        thread_id: str,
        seal: Seal,
        plans: Sequence[Planning],
        creation: Creation = AS_USUAL,
    ) -> None:
        """Append what several plans make of a thread, in their order, as much as can be together.

        Raises:
            EventStoreError: one of them cannot be appended; the others are.
        """
        for start in range(0, len(plans), TOGETHER_MAX):
            part = plans[start : start + TOGETHER_MAX]
            requests = [_Request(thread_id, seal, plan, creation) for plan in part]
            try:
                self._stand_in_line(requests)
                for request in requests:
                    await self._appended(request)
                    self._step_out(request)
            finally:
                for request in requests:
                    self._step_out(request)
            for request in requests:
                if request.error is not None:
                    raise request.error

    # --- taking turns -------------------------------------------------------------------

    def _stand_in_line(self, requests: Sequence[_Request]) -> None:
        """Let requests wait, or the first lead if nobody does and it need not wait."""
        first = requests[0]
        with self._lock:
            line = self._lines.setdefault(first.thread_id, _Line())
            about = first.about
            if about is not None:
                self._note_arrival(line, about)
            if about is not None and self._is_to_wait(line, about):
                first.awaits = about.awaits
                first.until = time.monotonic() + PATIENCE_MAX_S
            elif not line.has_leader:
                line.has_leader = first.leads = True
            for each in requests:
                if not each.leads:
                    each.waker = self._waker()
            line.waiting += requests

    def _note_arrival(self, line: _Line, about: About) -> None:
        """Something came that may be what others in line wait for."""
        awaited: Awaited = "checkpoint" if about.is_next else "writes"
        waiting = sum(
            each.awaits == awaited and each.about is not None and each.about.name == about.name
            for each in line.waiting
        )
        if waiting:
            self._patience[awaited].came(waiting)

    def _is_to_wait(self, line: _Line, about: About) -> bool:
        if about.awaits is None or line.count(about, is_next=not about.is_next):
            return False
        if about.is_next and (line.has_leader or self._keeps_order):
            return False
        others = line.count(about, is_next=about.is_next)
        return self._patience[about.awaits].allows(others)

    async def _appended(self, request: _Request) -> None:
        """Wait until somebody has appended a request, or do it with all that is in line."""
        waker = request.waker
        if waker is not None:
            while request.awaits is not None and not await waker.wait(PATIENCE_S):
                self._lose_patience(request)
            if not (request.leads or request.is_done):
                await waker.wait()
        if request.leads:
            await self._lead(request)

    def _lose_patience(self, request: _Request) -> None:
        """What it waited for did not come: take the turn, if it is free.

        While others have it, or had it a moment ago, nothing was missed: LangGraph stores a
        checkpoint only after the one before it is stored.
        """
        now = time.monotonic()
        with self._lock:
            about, line = request.about, self._lines.get(request.thread_id)
            if line is None or request not in line.waiting or line.has_leader:
                return
            if about is None or request.awaits is None:
                return
            if (about.is_early or now - line.moved < PATIENCE_S) and now < request.until:
                return
            others = line.count(about, is_next=about.is_next)
            self._patience[request.awaits].missed(others)
            request.awaits = None
            line.has_leader = request.leads = True

    async def _lead(self, own: _Request) -> None:
        """Append all that is in line, and further requests until the own one is among them."""
        line = self._lines[own.thread_id]
        while not own.is_done:
            with self._lock:
                group = line.next_group(own)
                line.waiting = [each for each in line.waiting if each not in group]
            # A checkpoint that came before its writes waited for them.
            group.sort(key=lambda each: each.awaits == "writes")
            for each in group:
                each.awaits = None
            try:
                await self._append(group)
            finally:
                with self._lock:  # if this is cancelled, the callers of the others go on
                    undone = [each for each in group if not (each.is_done or each.is_over)]
                    line.waiting[:0] = undone
                for each in group:
                    if each.is_done and each.waker is not None and each is not own:
                        each.waker.wake()

    def _step_out(self, request: _Request) -> None:
        """Wait no more, and hand the turn on."""
        with self._lock:
            request.is_over = True
            line = self._lines.get(request.thread_id)
            if line is None:
                return
            if request in line.waiting:
                line.waiting.remove(request)
            if request.leads:
                request.leads = False
                line.moved = time.monotonic()
                line.has_leader = self._is_led_by_next(line)
            if not line.waiting and not line.has_leader:
                del self._lines[request.thread_id]

    @staticmethod
    def _is_led_by_next(line: _Line) -> bool:
        """Whether one that waits only for its turn has it now."""
        for each in line.waiting:
            if each.awaits is None and each.waker is not None:
                each.leads = True
                if each.waker.wake():
                    return True
                each.leads = False
        return False

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
                        each.error = error
                    continue
                except Exception as error:
                    if len(planned) == 1:
                        planned[0].error = error
                    count = 1  # one by one, so that each fails for its own reason only
                    continue
            for each in planned:
                each.tip = tip

    async def _planned(self, requests: Sequence[_Request], tip: Tip) -> tuple[list[_Request], Plan]:
        """The first requests that can be appended together, and what that appends."""
        planned: list[_Request] = []
        events: list[Draft] = []
        ahead, fold, status = tip, tip.fold, None
        for request in requests:
            if fold is not ahead.fold:
                ahead = Tip(tip.head, fold, tip.base, planned=len(events))
            try:
                plan = await request.plan(ahead)
            except NeedsLog:
                break
            except Exception as error:
                request.error = error
                continue
            planned.append(request)
            if plan is None:
                continue
            events = joined(events, plan.events)
            fold, status = plan.fold, plan.status or status
        return planned, Plan(events, fold, status)
