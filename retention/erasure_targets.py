"""What an erasure concerns: threads, their files in archives, and everything that holds bytes of
them. Reads, and changes nothing.

Threads are found by name: every generation that is in the database, in a tombstone or in an
archive, so that an interrupted erasure finds the rest of its work again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from eventstore import ThreadInfo
from eventstore.concurrency import Concurrency
from eventstore.core.core import Core
from eventstore.errors import ArchiveError, ThreadNotFoundError
from eventstore.format import digests
from eventstore.models import ThreadDamage
from retention.archives import Archive, Archived
from retention.archives.naming import belongs_to
from retention.policies import Match

PAGE: Final = 1000


@dataclass
class Targets:
    """What is to be erased, and what holds bytes of it.

    Attributes:
        threads: names to erase; ``None`` for those that are not in the database.
        files: their files in archives.
        damaged: names of their files whose headers cannot be read.
        holders: other threads that hold bytes of them, by id.
        holding_files: files of other threads that hold bytes of them.
        unnamed: damaged rows of the tenant, by key, that do not say which thread they are.
    """

    threads: dict[str, ThreadInfo | None] = field(default_factory=dict)
    files: list[tuple[Archive, Archived]] = field(default_factory=list)
    damaged: list[tuple[Archive, str]] = field(default_factory=list)
    holders: dict[str, ThreadInfo] = field(default_factory=dict)
    holding_files: list[tuple[Archive, Archived]] = field(default_factory=list)
    unnamed: dict[int, str] = field(default_factory=dict)

    @property
    def holder_ids(self) -> set[str]:
        """Ids of all other threads that hold bytes, in the database or in an archive."""
        return {*self.holders, *(file.thread_id for _, file in self.holding_files)}

    def pinned(self) -> dict[str, str]:
        """Pinned threads, and by whom and why.

        A thread's row decides; for a thread that is only in archives, its newest file.
        """
        newest: dict[int, Archived] = {}
        for _, file in sorted(self.files, key=lambda found: found[1].recency):
            newest[file.header.thread_key] = file
        pinned = {}
        for info in self.threads.values():
            if info is not None:
                newest.pop(info.thread_key, None)
                if info.pinned:
                    pinned[info.thread_id] = pinned_by(info)
        for file in newest.values():
            pin = file.header.pin
            if pin is not None:
                by = f" by {pin['by']} ({pin['reason']})" if "by" in pin else ""
                pinned.setdefault(file.thread_id, f"{by} in an archive")
        return pinned


def pinned_by(info: ThreadInfo) -> str:
    """By whom and why a thread is pinned, as it follows the thread's name in messages."""
    return f" by {info.pin.by} ({info.pin.reason})" if info.pin else ""


async def find_targets(
    core: Core,
    concurrency: Concurrency,
    archives: Sequence[Archive],
    thread_id: str | None,
    names: Collection[str] = (),
    match: Match | None = None,
) -> Targets:
    """Everything that concerns the erasure of these threads of the core's tenant.

    Args:
        thread_id: a thread to erase; ``None`` for all of the tenant.
        names: further threads to erase.
        match: instead of all of the tenant: those that fit, with their files.

    Raises:
        ThreadNotFoundError: there is no trace of ``thread_id``.
    """
    run, targets = concurrency.run, Targets()
    listed, damaged = await _list_archives(concurrency, archives)
    own = [(archive, file) for archive, file in listed if file.tenant == core.tenant]
    wanted = {*names} if thread_id is None else {thread_id, *names}
    if thread_id is None:
        wanted |= {file.thread_id for _, file in own} if match is None else set()
        after = None

        def note(damage: ThreadDamage) -> None:
            name = damage.thread_id
            if (
                match is None
                and isinstance(name, str)
                and digests.generation_of(damage.thread_key, core.tenant, name) is not None
            ):
                wanted.add(name)
            else:
                targets.unnamed[damage.thread_key] = damage.problem

        while page := await run(core.scan(after=after, limit=PAGE, on_damage=note)):
            wanted |= {info.thread_id for info in page if match is None or match.fits(info)}
            after = page[-1].thread_key
    targets.files = [(archive, file) for archive, file in own if file.thread_id in wanted]
    archived: dict[str, set[int]] = {name: set() for name in wanted}
    for _, file in targets.files:
        archived[file.thread_id].add(file.header.generation)
    prefixes = set[str]()
    for name in sorted(wanted):
        info = targets.threads[name] = await run(core.target(name))
        generations = archived[name] | await run(core.former_generations(name))
        keys = {digests.thread_key(core.tenant, name, generation) for generation in generations}
        keys |= {info.thread_key} if info else set()
        prefixes |= {digests.prefix_ns(key, "") for key in keys}
        for holder in await run(core.holders(name, generations)):
            if holder.thread_id not in wanted:
                targets.holders[holder.thread_id] = holder
        damaged_here = [each for each in damaged if belongs_to(each[1], core.tenant, name)]
        targets.damaged += damaged_here
        if thread_id is not None and not keys and not damaged_here:
            raise ThreadNotFoundError(name, core.tenant)
    for archive, file in listed:
        is_target = file.tenant == core.tenant and file.thread_id in wanted
        # A fork's logs of bytes from another thread begin with that thread's 18-character prefix.
        if not is_target and any(log[:18] in prefixes for log in file.header.logs):
            targets.holding_files.append((archive, file))
    return targets


async def _list_archives(
    concurrency: Concurrency, archives: Sequence[Archive]
) -> tuple[list[tuple[Archive, Archived]], list[tuple[Archive, str]]]:
    """The files in archives, and the names of those whose headers cannot be read."""
    files, damaged = list[tuple[Archive, Archived]](), list[tuple[Archive, str]]()
    for archive in archives:
        for name, found in await concurrency.call(_scan, archive):
            if isinstance(found, Archived):
                files.append((archive, found))
            else:
                damaged.append((archive, name))
    return files, damaged


def _scan(archive: Archive) -> list[tuple[str, Archived | ArchiveError]]:
    return list(archive.scan())
