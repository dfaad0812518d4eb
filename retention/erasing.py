"""Erasing: everything of a thread, or of a tenant, everywhere, and what is known of it after.

For requests to be forgotten. Nothing is touched before everything has been looked at: who is
pinned, and who else holds bytes of what is to go. It may be cut short at any moment and done
again: threads, archives and tombstones are found by the name that was asked for, whatever is
still there of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from eventstore import AsyncEventStore, EventStore, ThreadInfo
from eventstore.concurrency import awaited, run_sync
from eventstore.core.core import Core
from eventstore.core.erase import Erased
from eventstore.errors import (
    ArchiveError,
    ConfigurationError,
    CorruptEventError,
    EventStoreError,
    ThreadNotFoundError,
)
from eventstore.format import digests
from retention.archives import Archive, Archived, is_of

T = TypeVar("T")

Forks = Literal["refuse", "erase", "keep"]

PAGE = 1000


class ErasureRefusedError(EventStoreError):
    """Something stands against an erasure, and nothing was erased (if a thread was pinned while
    others were being erased, these were).

    Attributes:
        thread_ids: of the threads that it is about.
        problem: what stands against it.
        pinned: whether that is a pin; else other threads hold bytes of what is to go.
        done: what was erased all the same.
    """

    def __init__(
        self,
        problem: str,
        thread_ids: Sequence[str],
        *,
        pinned: bool,
        done: str = "nothing was erased",
    ) -> None:
        self.thread_ids = tuple(thread_ids)
        self.problem, self.pinned, self.done = problem, pinned, done
        way = (
            "unpin what may go, or say despite_pin=True"
            if pinned
            else "say forks='erase' to erase them too, or forks='keep' to let them keep these"
        )
        super().__init__(f"{problem}; {way}; {done}")


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased, or would be.

    Attributes:
        threads: erased from the database.
        archived: files deleted from archives, damaged ones too.
        tombstones: of former threads, that told whose they were and do no longer.
        kept: threads that keep bytes of what was erased (``forks="keep"``), by their ids.
        kept_archived: and files in archives that do, by their names.
        wiped: what was done about the bytes that deleting leaves behind; ``None``: a dry run.
    """

    threads: int = 0
    archived: int = 0
    tombstones: int = 0
    kept: tuple[str, ...] = ()
    kept_archived: tuple[str, ...] = ()
    wiped: Erased | None = None


def erase(
    store: EventStore,
    reason: str,
    by: str,
    *,
    thread_id: str | None = None,
    tenant: str | None = None,
    archives: Sequence[Archive] = (),
    forks: Forks = "refuse",
    dry_run: bool = False,
    despite_pin: bool = False,
    vacuum: bool | None = None,
) -> Erasure:
    """Remove everything of a thread, or of a tenant, and leave tombstones that tell no name.

    Args:
        reason, by: kept in the tombstones: not whose data it was, but why, and who asked for it.
        thread_id: of a thread of the store's tenant: every generation of that name, in the
            database or in an archive only.
        tenant: in its place, a tenant: all of its threads.
        archives: every place where files of them may be. Each is listed, since a file of a fork
            may hold bytes of them, too.
        forks: what becomes of other threads that hold bytes of them or refer to them:
            ``"refuse"`` to erase anything, ``"erase"`` them as well, or let them ``"keep"`` these.
            A fork that was trimmed since does not tell what it was forked from, and is not found:
            erase it by its own name.
        dry_run: only say what would be erased.
        despite_pin: erase pinned threads, too, and files of threads that were pinned.
        vacuum: write an SQLite file anew, while writers wait, or vacuum PostgreSQL's tables;
            ``None``: SQLite files of up to 1 GiB only. What is not vacuumed may hold copies.

    Raises:
        ErasureRefusedError: a thread is pinned, or was when it was archived, or another one
            holds bytes of it.
        ThreadNotFoundError: nothing of that name is anywhere.
        CorruptEventError: a deletion that was cut short before cannot be ended; everything that
            was asked for is erased all the same.
    """
    work = _Work(store.core, awaited, _at_once, archives, reason, by)
    return run_sync(work.run(thread_id, tenant, forks, dry_run, despite_pin, vacuum))


async def aerase(
    store: AsyncEventStore,
    reason: str,
    by: str,
    *,
    thread_id: str | None = None,
    tenant: str | None = None,
    archives: Sequence[Archive] = (),
    forks: Forks = "refuse",
    dry_run: bool = False,
    despite_pin: bool = False,
    vacuum: bool | None = None,
) -> Erasure:
    """As :func:`erase`, for event loops: archives are waited for on another thread."""
    perform = store.database.perform
    work = _Work(store.core, perform, asyncio.to_thread, archives, reason, by)
    return await work.run(thread_id, tenant, forks, dry_run, despite_pin, vacuum)


async def _at_once(call: Callable[..., T], *args: Any) -> T:
    return call(*args)


@dataclass
class _Targets:
    """What is to go: names, those of them that are there, their files (of damaged ones the
    names), and who holds bytes."""

    names: dict[str, ThreadInfo | None] = field(default_factory=dict)
    files: list[tuple[Archive, Archived]] = field(default_factory=list)
    damaged: list[tuple[Archive, str]] = field(default_factory=list)
    holders: dict[str, ThreadInfo] = field(default_factory=dict)
    holding_files: list[tuple[Archive, Archived]] = field(default_factory=list)

    def pinned(self) -> dict[str, str]:
        """Who is pinned, and why: in the database or, of what is not there, in the newest file."""
        newest: dict[int, Archived] = {}
        for _, file in sorted(self.files, key=lambda found: found[1].header.archived_us):
            newest[file.header.thread_key] = file
        pinned = {}
        for info in self.names.values():
            if info is not None:
                newest.pop(info.thread_key, None)
                if info.pinned:
                    pinned[info.thread_id] = _why(info)
        for file in newest.values():
            pin = file.header.pin
            if pin is not None:
                why = f" by {pin['by']} ({pin['reason']})" if "by" in pin else ""
                pinned.setdefault(file.thread_id, f"{why} in an archive")
        return pinned


class _Work:
    """One erasure, whatever way is waited in."""

    def __init__(
        self,
        core: Core,
        perform: Callable[[Awaitable[Any]], Awaitable[Any]],
        wait: Callable[..., Awaitable[Any]],
        archives: Sequence[Archive],
        reason: str,
        by: str,
    ) -> None:
        for what, text in (("a reason", reason), ("who asks for it", by)):
            if not text.strip():
                raise ConfigurationError(f"{what} must be said, for something to be erased")
        self._core = core
        self._do = perform
        self._wait = wait
        self._archives = archives
        self._reason = reason
        self._by = by

    async def run(
        self,
        thread_id: str | None,
        tenant: str | None,
        forks: Forks,
        dry_run: bool,
        despite_pin: bool,
        vacuum: bool | None,
    ) -> Erasure:
        if (thread_id is None) == (tenant is None):
            raise ConfigurationError("name either a thread_id or a tenant to erase")
        if forks not in ("refuse", "erase", "keep"):
            raise ConfigurationError(f"forks must be refuse, erase or keep, not {forks!r}")
        if tenant is not None:
            self._core = self._core.for_tenant(tenant)
        found = await self._look(thread_id)
        while forks == "erase" and (found.holders or found.holding_files):
            more = {*found.holders, *(file.thread_id for _, file in found.holding_files)}
            found = await self._look(thread_id, more | found.names.keys())
        if forks == "refuse" and (found.holders or found.holding_files):
            names = sorted({*found.holders, *(f.thread_id for _, f in found.holding_files)})
            raise ErasureRefusedError(
                f"other threads hold bytes of what is to be erased: {', '.join(names[:10])}",
                names,
                pinned=False,
            )
        pinned = found.pinned()
        if pinned and not despite_pin:
            raise _pinned(pinned)
        report = Erasure(
            sum(info is not None for info in found.names.values()),
            len(found.files) + len(found.damaged),
            kept=tuple(sorted(found.holders)),
            kept_archived=tuple(file.name for _, file in found.holding_files),
        )
        if dry_run:
            return report
        return await self._erase(found, report, despite_pin, vacuum)

    async def _look(self, thread_id: str | None, names: Any = ()) -> _Targets:
        found = _Targets()
        everything, damaged = await self._files()
        wanted = {*names} if thread_id is None else {thread_id, *names}
        if thread_id is None:  # a whole tenant
            wanted |= {file.thread_id for _, file in everything if self._is_mine(file)}
            after = None
            while page := await self._do(self._core.scan(after=after, limit=PAGE)):
                wanted |= {info.thread_id for info in page}
                after = page[-1].thread_key
        generations: dict[str, set[int]] = {name: set() for name in wanted}
        for archive, file in everything:
            if self._is_mine(file) and file.thread_id in wanted:
                found.files.append((archive, file))
                generations[file.thread_id].add(file.header.generation)
        prefixes = set()
        for name in sorted(wanted):
            try:
                found.names[name] = await self._do(self._core.thread(name))
            except ThreadNotFoundError:
                found.names[name] = None
            known = generations[name] | await self._do(self._core.former_generations(name))
            info = found.names[name]
            keys = {digests.thread_key(self._core.tenant, name, generation) for generation in known}
            keys |= {info.thread_key} if info else set()
            prefixes |= {digests.prefix_ns(key, "") for key in keys}
            for holder in await self._do(self._core.holders(name, known)):
                if holder.thread_id not in wanted:
                    found.holders[holder.thread_id] = holder
            mine = [each for each in damaged if is_of(each[1], self._core.tenant, name)]
            found.damaged += mine
            if thread_id is not None and not keys and not mine:
                raise ThreadNotFoundError(name, self._core.tenant)
        for archive, file in everything:
            goes = self._is_mine(file) and file.thread_id in wanted
            if not goes and any(log[:18] in prefixes for log in file.header.logs):
                found.holding_files.append((archive, file))
        return found

    def _is_mine(self, file: Archived) -> bool:
        return file.tenant == self._core.tenant

    async def _files(self) -> tuple[list[tuple[Archive, Archived]], list[tuple[Archive, str]]]:
        """What is in the archives, and the names of what is damaged."""
        found, damaged = [], []
        for archive in self._archives:
            for name, file in await self._wait(_listed, archive):
                if isinstance(file, Archived):
                    found.append((archive, file))
                else:
                    damaged.append((archive, name))
        return found, damaged

    async def _erase(
        self, found: _Targets, report: Erasure, despite_pin: bool, vacuum: bool | None
    ) -> Erasure:
        core, hidden = self._core, 0
        for name in found.names:
            pins: dict[str, str] = {}

            def keep(info: ThreadInfo, pins: dict[str, str] = pins) -> bool:
                if info.pinned and not despite_pin:  # since we looked
                    pins[info.thread_id] = _why(info)
                return bool(pins)

            # It may be in archives only, or an erasure that was cut short had come so far.
            with suppress(ThreadNotFoundError):
                await self._do(core.erase_thread(name, self._reason, self._by, keep_if=keep))
            if pins:
                raise _pinned(pins, "what came before it was erased")
            files = [file for _, file in found.files if file.thread_id == name]
            generations = {
                f.header.generation: (f.header.events, f.header.stored_bytes) for f in files
            }
            hidden += await self._do(
                core.hide_tombstones(name, self._reason, self._by, generations)
            )
        damage: CorruptEventError | None = None
        try:
            await self._do(core.finish_erasures(self._reason))
        except CorruptEventError as error:  # of another thread, and so in nobody's way
            damage = error
        for archive, file in found.files:
            await self._wait(archive.remove, file)
        # What is damaged, and once more: somebody may have been archiving meanwhile.
        for archive in self._archives:
            for name in found.names:
                await self._wait(archive.delete, name, core.tenant)
        wiped = await self._do(core.vacuum(vacuum))
        if damage is not None:
            raise damage
        return Erasure(
            report.threads, report.archived, hidden, report.kept, report.kept_archived, wiped
        )


def _listed(archive: Archive) -> list[tuple[str, Archived | ArchiveError]]:
    return list(archive.look_through())


def _why(info: ThreadInfo) -> str:
    return f" by {info.pin.by} ({info.pin.reason})" if info.pin else ""


def _pinned(pins: Mapping[str, str], done: str = "nothing was erased") -> ErasureRefusedError:
    said = [f"{thread_id!r}{why}" for thread_id, why in [*pins.items()][:10]]
    return ErasureRefusedError(f"pinned: {', '.join(said)}", [*pins], pinned=True, done=done)
