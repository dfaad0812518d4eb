"""Erasing: removes all of a thread, a person or a tenant, archives included, and hides names.

For data-protection requests. Nothing is changed before everything has been checked: which threads
are pinned, and which others hold bytes of those to erase. An erasure may be interrupted anywhere
and repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from eventstore import AsyncEventStore, EventStore, ThreadInfo
from eventstore.concurrency import Concurrency, run_sync
from eventstore.core.core import Core
from eventstore.core.erase import Erased
from eventstore.errors import (
    ConfigurationError,
    CorruptEventError,
    EventStoreError,
    ThreadNotFoundError,
)
from eventstore.limits import check_name
from retention.archives import Archive
from retention.erasure_targets import Targets, find_targets, pinned_by
from retention.inputs import Store
from retention.policies import Match

Forks = Literal["refuse", "erase", "keep"]


class ErasureRefusedError(EventStoreError):
    """An erasure was refused, and nothing was erased (unless a thread was pinned meanwhile).

    Attributes:
        thread_ids: the threads that cause the refusal.
        problem: why it was refused.
        pinned: whether these threads are pinned; else they hold bytes of those to erase.
        done: what was erased nevertheless.
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
        remedy = (
            "unpin them, or pass despite_pin=True"
            if pinned
            else "pass forks='erase' to erase them too, or forks='keep' to let them keep the bytes"
        )
        super().__init__(f"{problem}; {remedy}; {done}")


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased, or would be.

    Attributes:
        threads: threads erased from the database.
        archived: files deleted from archives, damaged ones included.
        tombstones: tombstones of former threads whose names were hidden.
        kept: ids of threads that keep bytes of what was erased (``forks="keep"``).
        kept_archived: names of files in archives that do.
        wiped: what was done about bytes that deleting leaves behind; ``None`` for a dry run.
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
    metadata: Mapping[str, Any] | None = None,
    archives: Sequence[Archive] = (),
    forks: Forks = "refuse",
    dry_run: bool = False,
    despite_pin: bool = False,
    vacuum: bool | None = None,
) -> Erasure:
    """Remove everything of a thread or a tenant; tombstones without names remain.

    Args:
        reason: why, kept in the tombstones. Do not name the person.
        by: at whose request, kept there, too.
        thread_id: a thread of the store's tenant: all generations of that name, also those that
            are only in an archive.
        tenant: instead of ``thread_id``: all threads of this tenant.
        metadata: instead of both: the threads of the store's tenant that have all of this in their
            metadata, such as ``{"user": "ann"}``, with their files. Threads that are only in an
            archive have no metadata to be found by; erase them by name.
        archives: every archive that may have files of them. Each is listed, since files of forks
            may hold bytes of them, too.
        forks: what to do about other threads that hold bytes of them or refer to them:
            ``"refuse"`` the whole erasure, ``"erase"`` them as well, or let them ``"keep"`` the
            bytes. A fork that was trimmed since no longer records its origin and is not found:
            erase it by its own name.
        dry_run: only report what would be erased.
        despite_pin: erase pinned threads, too, and files of threads that were pinned.
        vacuum: rewrite the SQLite file, while writers wait, or vacuum PostgreSQL's tables;
            ``None``: only SQLite files of up to 1 GiB. Without it old copies may remain.

    Raises:
        ErasureRefusedError: a thread is pinned, or was when it was archived, or another thread
            holds bytes of it.
        ThreadNotFoundError: there is no trace of that name anywhere.
        CorruptEventError: an interrupted deletion of a damaged thread cannot be finished, or a
            damaged row of the tenant does not say which thread it is, or what its metadata is
            (erase that by its name);
            everything else requested is erased nevertheless.
    """
    erasing = _Erasing(store, reason, by, thread_id, tenant, metadata, archives)
    return run_sync(erasing.run(forks, dry_run, despite_pin, vacuum))


async def aerase(
    store: AsyncEventStore,
    reason: str,
    by: str,
    *,
    thread_id: str | None = None,
    tenant: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    archives: Sequence[Archive] = (),
    forks: Forks = "refuse",
    dry_run: bool = False,
    despite_pin: bool = False,
    vacuum: bool | None = None,
) -> Erasure:
    """:func:`erase` for async code."""
    erasing = _Erasing(store, reason, by, thread_id, tenant, metadata, archives)
    return await erasing.run(forks, dry_run, despite_pin, vacuum)


class _Erasing:
    """One erasure."""

    def __init__(
        self,
        store: Store,
        reason: str,
        by: str,
        thread_id: str | None,
        tenant: str | None,
        metadata: Mapping[str, Any] | None,
        archives: Sequence[Archive],
    ) -> None:
        for name, text in (("reason", reason), ("by", by)):
            if not check_name(name, text).strip():
                raise ConfigurationError(f"{name} must be a non-empty string for an erasure")
        if sum(each is not None for each in (thread_id, tenant, metadata)) != 1 or metadata == {}:
            raise ConfigurationError(
                "expected either thread_id, tenant or metadata, to know what to erase"
            )
        try:
            self._match = None if metadata is None else Match(metadata=metadata)
        except TypeError as error:
            raise ConfigurationError(str(error)) from error
        self._core: Core = store.core if tenant is None else store.core.for_tenant(tenant)
        self._concurrency: Concurrency = store.concurrency
        self._reason, self._by = reason, by
        self._thread_id = None if thread_id is None else check_name("a thread_id", thread_id)
        self._archives = archives

    async def run(
        self, forks: Forks, dry_run: bool, despite_pin: bool, vacuum: bool | None
    ) -> Erasure:
        """Check everything, and then erase it."""
        if forks not in ("refuse", "erase", "keep"):
            raise ConfigurationError(f"forks must be refuse, erase or keep, not {forks!r}")
        targets = await self._find()
        while forks == "erase" and targets.holder_ids:
            names = targets.holder_ids | targets.threads.keys()
            if names == targets.threads.keys():  # files of another tenant, forged perhaps
                raise ErasureRefusedError(
                    "files of other tenants hold bytes of what is to be erased: "
                    + ", ".join(file.name for _, file in targets.holding_files[:10]),
                    sorted(targets.holder_ids),
                    pinned=False,
                )
            targets = await self._find(names)
        if forks == "refuse" and targets.holder_ids:
            ids = sorted(targets.holder_ids)
            raise ErasureRefusedError(
                f"other threads hold bytes of what is to be erased: {', '.join(ids[:10])}",
                ids,
                pinned=False,
            )
        pinned = targets.pinned()
        if pinned and not despite_pin:
            raise _pinned(pinned)
        report = Erasure(
            sum(info is not None for info in targets.threads.values()),
            len(targets.files) + len(targets.damaged),
            kept=tuple(sorted(targets.holders)),
            kept_archived=tuple(file.name for _, file in targets.holding_files),
        )
        return report if dry_run else await self._erase(targets, report, despite_pin, vacuum)

    async def _find(self, names: Collection[str] = ()) -> Targets:
        return await find_targets(
            self._core, self._concurrency, self._archives, self._thread_id, names, self._match
        )

    async def _erase(
        self, targets: Targets, report: Erasure, despite_pin: bool, vacuum: bool | None
    ) -> Erasure:
        run, core = self._concurrency.run, self._core
        hidden = 0
        if self._match is not None:  # while the threads can still be found, should this stop here
            await self._remove(targets)
        for name in targets.threads:
            await self._erase_thread(name, despite_pin)
            generations = {
                file.header.generation: (file.header.events, file.header.stored_bytes)
                for _, file in targets.files
                if file.thread_id == name
            }
            hidden += await run(core.hide_tombstones(name, self._reason, self._by, generations))
        unnamed = "; ".join(targets.unnamed.values())
        damage = CorruptEventError(f"not erased: {unnamed}") if unnamed else None
        try:
            await run(core.finish_erasures(self._reason))
        except CorruptEventError as error:  # of another thread: raised when all else is done
            damage = damage or error
        if self._match is None:
            await self._remove(targets)
        # By name, for damaged files and for those that were archived meanwhile.
        for archive in self._archives:
            for name in targets.threads:
                await self._concurrency.call(archive.delete, name, core.tenant)
        wiped = await run(core.vacuum(vacuum))
        if damage is not None:
            raise damage
        return replace(report, tombstones=hidden, wiped=wiped)

    async def _remove(self, targets: Targets) -> None:
        for archive, file in targets.files:
            await self._concurrency.call(archive.remove, file)

    async def _erase_thread(self, name: str, despite_pin: bool) -> None:
        """Erase a thread from the database, if it is there.

        Raises:
            ErasureRefusedError: it was pinned since it was checked.
        """
        pins: dict[str, str] = {}

        def keep(info: ThreadInfo) -> bool:
            if info.pinned and not despite_pin:
                pins[info.thread_id] = pinned_by(info)
            return bool(pins)

        # It may be only in archives, or erased from the database by an interrupted erasure.
        with suppress(ThreadNotFoundError):
            await self._concurrency.run(
                self._core.erase_thread(name, self._reason, self._by, keep_if=keep)
            )
        if pins:
            raise _pinned(pins, "threads listed before it were erased")


def _pinned(pins: Mapping[str, str], done: str = "nothing was erased") -> ErasureRefusedError:
    shown = [f"{thread_id!r}{by}" for thread_id, by in [*pins.items()][:10]]
    return ErasureRefusedError(f"pinned: {', '.join(shown)}", [*pins], pinned=True, done=done)
