"""Who runs a thread, and whether that run is alive: owners, leases, and the renewing thread.

The row of a running thread names the run that owns it: process, length of the lease, number.
While a process has runs that last longer than a quarter of the lease, it increments a counter of
its own in the database. Another process that waits for the thread watches that counter: while it
changes within the lease, by the watcher's monotonic clock, the owner is alive. So no two clocks
are compared, no session holds any state, and short runs write nothing but their events.

Promises that a living run is renewed whatever an event loop does, since a thread does it; and that
a run that ends in a living process releases its thread, however it ends.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, cast

from eventstore import queries, telemetry
from eventstore.concurrency import run_sync
from eventstore.db.transactions import Transactions
from eventstore.errors import ConfigurationError, StoreClosedError
from eventstore.models import Head, Status

log = logging.getLogger(__name__)

RUN_LEASE_S: Final = 10.0
"""Seconds without a sign of life after which a run counts as dead."""

RUN_LEASE_MIN_S: Final = 2.0
RUN_LEASE_MAX_S: Final = 86_400.0

CLOSE_S: Final = 1.0
"""How long closing a store waits for a database that does not answer."""

RENEWALS: Final = 4
"""Renewals in the length of a lease: some may fail or be late."""

_KEPT_US: Final = 24 * 3600 * 1_000_000
"""Counters that were not renewed for so long are removed."""

_Release = tuple[int, str, Status, str | None]
"""Thread key, owner, and what the row of the thread gets: status, owner."""

_OWNER: Final = re.compile(r"([^/]+/\d+/[0-9a-f]+)/(\d+(?:\.\d+)?)/(\d+)")


@dataclass(frozen=True, slots=True)
class Owner:
    """A run, as the row of its thread names it.

    Attributes:
        process: host, process id, and a random part.
        lease_s: seconds without a sign of life after which it counts as dead.
        number: of the run in its process.
    """

    process: str
    lease_s: float
    number: int

    def __str__(self) -> str:
        return f"{self.process}/{self.lease_s:g}/{self.number}"

    @classmethod
    def parse(cls, text: object) -> Owner | None:
        """The owner that a row names, or ``None`` if it names none that this version can read."""
        match = _OWNER.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            return None
        return cls(match[1], min(float(match[2]), RUN_LEASE_MAX_S), int(match[3]))


class _Process:
    """This process: the first part of its owners, and its runs."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, as a child process does after a fork."""
        host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:60] or "host"
        self.name = f"{host}/{os.getpid()}/{secrets.token_hex(4)}"
        self.numbers = itertools.count(1)
        self.runs: set[str] = set()
        for leases in list(_all):
            leases.reset()


class Lease:
    """One run's claim on its thread.

    Attributes:
        owner: what the row of the thread names while the run goes on.
        thread_key: of the thread that the run writes to; ``None``: it has not begun to write.
        is_held: the row may name this run.
        has_begun: the run has claimed the thread, or appended something.
        is_exclusive: the run begins only if no other owns the thread by then.
        taken_from: status and owner of the thread when the run claimed it, until it has appended
            something: where another run turns out to be alive, it gets the thread back.
    """

    def __init__(self, leases: Leases, owner: str, is_exclusive: bool) -> None:
        self.owner = owner
        self.is_exclusive = is_exclusive
        self.thread_key: int | None = None
        self.is_held = False
        self.has_begun = False
        self.taken_from: tuple[Status, str | None] | None = None
        self._leases = leases

    def __del__(self) -> None:
        # A coroutine or generator that was dropped half-way cannot wait for the database.
        self._leases.leave(self, "cancelled")


class Leases:
    """The leases of this process's runs in one database.

    Args:
        transactions: the database.
        now_us: the clock by which abandoned counters are removed.
        lease_s: seconds without a sign of life after which other processes count a run as dead.

    Raises:
        ConfigurationError: ``lease_s`` is not a number of seconds in the permitted range.
    """

    def __init__(
        self, transactions: Transactions, now_us: Callable[[], int], lease_s: float
    ) -> None:
        is_number = isinstance(lease_s, int | float) and not isinstance(lease_s, bool)
        if not is_number or not RUN_LEASE_MIN_S <= lease_s <= RUN_LEASE_MAX_S:
            raise ConfigurationError(
                f"run_lease_s must be a number of seconds from {RUN_LEASE_MIN_S:g} to "
                f"{RUN_LEASE_MAX_S:g}, not {lease_s!r}"
            )
        self.lease_s = float(lease_s)
        self._transactions = transactions
        self._now_us = now_us
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Begin anew, as a child process does after a fork."""
        # Changed without a lock, since a finalizer may do so in the middle of anything.
        self._running: dict[str, float] = {}
        self._unreleased: dict[str, _Release] = {}
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._lock = threading.Lock()  # of the decision whether the thread goes on
        self._renewer: threading.Thread | None = None
        self._is_closed = False

    def close(self) -> None:
        """End the renewing thread; it first releases the threads that it still has to."""
        self._is_closed = True
        self._wake.put(None)
        renewer = self._renewer
        if renewer is not None:
            renewer.join(CLOSE_S)

    # --- of a run -----------------------------------------------------------------------

    def begin(self, *, exclusive: bool = False) -> Lease:
        """The lease of a run that begins; it ends with :meth:`end`, or when it is dropped.

        Args:
            exclusive: its first event is refused if another run owns the thread by then.
        """
        owner = str(Owner(_process.name, self.lease_s, next(_process.numbers)))
        _process.runs.add(owner)
        self._running[owner] = time.monotonic()
        with self._lock:
            if self._renewer is None and not self._is_closed:
                self._renewer = threading.Thread(
                    target=self._renew_while_needed, name="eventstore-leases", daemon=True
                )
                self._renewer.start()
        return Lease(self, owner, exclusive)

    async def claim(self, lease: Lease, head: Head) -> bool:
        """Make a run the owner of the thread that it goes on with.

        A run that begins with an event needs no claim: the event makes it the owner.

        Returns:
            Whether it is; another run claimed the thread since ``head`` was read, otherwise.
        """
        status = cast(Status, head.status)
        lease.thread_key, lease.taken_from, lease.is_held = (
            head.thread_key,
            (status, head.owner),
            True,
        )
        lease.is_held = await self._transactions.run(
            "idempotent_write",
            queries.threads.claim,
            head.thread_key,
            lease.owner,
            status,
            head.owner,
            head.ns,
            head.seq,
        )
        return lease.is_held

    async def end(self, lease: Lease, status: Status, owner: str | None = None) -> None:
        """End a run: release its thread, unless its last event did.

        If that fails, the renewing thread does it as soon as the database answers.

        Args:
            status: of the thread from now on, if it is released here.
            owner: the run that it is given back to.
        """
        self.leave(lease, status, owner, wake=False)
        release = self._unreleased.get(lease.owner)
        if release is not None:
            try:
                await self._transactions.run("idempotent_write", queries.threads.release, *release)
                self._unreleased.pop(lease.owner, None)
            finally:
                self._wake.put(None)

    def leave(
        self, lease: Lease, status: Status, owner: str | None = None, *, wake: bool = True
    ) -> None:
        """As :meth:`end`, by the renewing thread. Safe to call from a finalizer."""
        if lease.is_held and lease.thread_key is not None:
            self._unreleased[lease.owner] = (lease.thread_key, lease.owner, status, owner)
            if wake:
                self._wake.put(None)
        lease.is_held = False
        _process.runs.discard(lease.owner)
        self._running.pop(lease.owner, None)

    # --- renewing -----------------------------------------------------------------------

    def _renew_while_needed(self) -> None:
        """What the thread does: renew, and release what runs could not, until nothing is left."""
        every_s = self.lease_s / RENEWALS
        while True:
            with suppress(Empty):
                self._wake.get(timeout=every_s)
            try:
                self._work_off(time.monotonic() - every_s)
            except StoreClosedError:
                return
            except Exception as error:  # the next round tries again
                log.warning(
                    "could not renew the leases of this process's runs: %s",
                    error,
                    extra={"lease_s": self.lease_s, "error_type": telemetry.kind_of(error)},
                )
            with self._lock:
                if self._is_closed or not (self._running or self._unreleased):
                    self._renewer = None
                    return

    def _work_off(self, began_before: float) -> None:
        database = self._transactions.for_threads()
        for owner, release in list(self._unreleased.items()):
            run_sync(database.run("idempotent_write", queries.threads.release, *release))
            self._unreleased.pop(owner, None)
        lasting = any(began <= began_before for began in list(self._running.values()))
        if lasting and database.is_shared:
            now, renew = self._now_us(), queries.threads.renew
            run_sync(database.run("idempotent_write", renew, _process.name, now, now - _KEPT_US))

    # --- watching others ----------------------------------------------------------------

    async def renewals(self, process: str) -> int | None:
        """How often a process has renewed its leases; ``None``: never so far."""
        return await self._transactions.run("read", queries.threads.renewals, process)


class Watch:
    """Watches the owner of a thread for signs of life, by the watcher's own clock.

    Attributes:
        lease_s: the lease of the owner that was seen last.
    """

    def __init__(self, leases: Leases) -> None:
        self.lease_s = leases.lease_s
        self._leases = leases
        self._seen: object = None
        self._since = time.monotonic()

    async def is_dead(self, head: Head, newest_us: Callable[[], Awaitable[int]]) -> bool:
        """Whether the owner has shown no sign of life for the length of its lease.

        Args:
            head: the end of the thread's root log, just read.
            newest_us: the time of the thread's newest event, in any log; asked where the row
                names no owner, as older versions left it.
        """
        owner, self.lease_s = Owner.parse(head.owner), self._leases.lease_s
        sign: object
        if owner is None:
            sign = await newest_us()
        elif owner.process == _process.name:
            return str(owner) not in _process.runs
        else:
            self.lease_s = owner.lease_s
            sign = await self._leases.renewals(owner.process)
        now, seen = time.monotonic(), (head.thread_key, head.seq, head.owner, sign)
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since >= self.lease_s


_all: weakref.WeakSet[Leases] = weakref.WeakSet()
_process: Final = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.reset)
