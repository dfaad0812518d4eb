"""Writing threads to their policies' archives before a sweep removes anything of them.

Opens each archive once per sweep. Promises that an archive that cannot be used is reported in one
log line and not tried again in this sweep: its threads stay, and the next sweep tries again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from eventstore import ArchiveUnavailableError, ConfigurationError, EventStoreError
from retention.archives import Archive
from retention.decisions import Decision
from retention.inputs import Store

log = logging.getLogger(__name__)

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
            Stopped: the sweep must stop.
        """
        url = decision.archive
        assert url is not None
        archive = await self._open(url)
        core = self._store.core.for_tenant(decision.tenant).until(self._must_stop)
        concurrency = self._store.concurrency
        with await concurrency.run(core.dump(decision.thread_id)) as dump:
            try:
                archived = await concurrency.call(archive.put, dump)
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
                self._opened[url] = await self._store.concurrency.call(Archive, url)
            except (ArchiveUnavailableError, ConfigurationError) as error:
                raise self._give_up(url, error) from error
        archive = self._opened[url]
        if archive is None:
            raise ArchiveGivenUp
        return archive

    def _give_up(self, url: str, error: EventStoreError) -> ArchiveGivenUp:
        self._opened[url] = None
        log.error(
            "cannot archive; the threads for this archive stay until the next sweep: %s",
            error,
            extra={"tenant": self._store.tenant},
        )
        return ArchiveGivenUp()
