"""Writing threads to their policies' archives before a sweep removes anything of them.

Opens each archive once per sweep. Promises that an archive that cannot be used is reported in one
log line and not tried again in this sweep: its threads stay, and the next sweep tries again; and
that a sweep which is to stop does not wait for an archive that does not respond.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, Final, TypeVar

from eventstore import ArchiveUnavailableError, ConfigurationError, EventStoreError
from eventstore.core.part import Stopped
from retention.archives import Archive
from retention.decisions import Decision
from retention.inputs import Store

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_S: Final = 0.5
"""A sweep that waits for an archive looks this often whether it is to stop."""

REFUSALS_MAX: Final = 3
"""A sweep gives an archive up after so many failed threads in a row."""


class ArchiveGivenUp(Exception):
    """An archive is not used any more in this sweep; the log says why."""


class SweepArchives:
    """The archives of one sweep."""

    def __init__(self, store: Store, must_stop: Callable[[], bool]) -> None:
        self._store = store
        self._must_stop = must_stop
        self._opened: dict[str, Archive | None] = {}  # None: given up
        self._refusals = Counter[str]()

    async def put(self, decision: Decision) -> Mapping[str, int]:
        """Write a decision's thread to its archive; returns where its logs ended then.

        Raises:
            ArchiveGivenUp: the archive cannot be used in this sweep.
            Stopped: the sweep was asked to stop meanwhile.
        """
        url = decision.archive
        assert url is not None
        archive = await self._open(url)
        core = self._store.core.for_tenant(decision.tenant).until(self._must_stop)
        concurrency = self._store.concurrency
        with await concurrency.run(core.dump(decision.thread_id)) as dump:
            try:
                archived = await self._unless_stopped(partial(archive.put, dump))
            except ArchiveUnavailableError as error:
                self._refusals[url] += 1
                if self._refusals[url] < REFUSALS_MAX:
                    raise
                raise self._give_up(url, error) from error
        self._refusals[url] = 0
        return archived.header.ends

    async def _open(self, url: str) -> Archive:
        if url not in self._opened:
            try:
                self._opened[url] = await self._unless_stopped(partial(Archive, url))
            except (ArchiveUnavailableError, ConfigurationError) as error:
                raise self._give_up(url, error) from error
        archive = self._opened[url]
        if archive is None:
            raise ArchiveGivenUp
        return archive

    async def _unless_stopped(self, function: Callable[[], T]) -> T:
        """The result of a function that waits for an archive.

        It has a thread of its own, which ends with the process at the latest: a sweep that is to
        stop leaves it behind. An upload that ends nevertheless leaves a file of a thread that is
        still in the store, as any archiving does before it prunes.
        """
        running: Future[T] = Future()

        def work() -> None:
            try:
                running.set_result(function())
            except BaseException as error:
                running.set_exception(error)

        context = contextvars.copy_context()
        threading.Thread(
            target=context.run, args=(work,), name="retention-archive", daemon=True
        ).start()
        while not await self._store.concurrency.call(_wait, running):
            if self._must_stop():
                raise Stopped
        return running.result()

    def _give_up(self, url: str, error: EventStoreError) -> ArchiveGivenUp:
        self._opened[url] = None
        log.error(
            "cannot archive; the threads for this archive stay until the next sweep: %s",
            error,
            extra={"tenant": self._store.tenant},
        )
        return ArchiveGivenUp()


def _wait(running: Future[Any]) -> bool:
    """Wait a moment for a function to end; whether it has."""
    return bool(wait([running], LOOK_S).done)
