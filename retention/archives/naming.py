"""Object names in an archive: pure functions from a thread to the name of its file.

A name is ``ab/abcd…/<generation>-<archived at>-<checksum>.thread``. The folder is a hash of tenant
and thread id, so names reveal no thread ids, all files of one thread are found by listing one
folder, and within it they sort by age.
"""

from __future__ import annotations

from typing import Final

from eventstore.format import digests
from eventstore.format.archive.dump import Dump

SUFFIX: Final = ".thread"


def folder_of(tenant: str, thread_id: str) -> str:
    """The folder that holds all files of a thread."""
    digest = digests.name_digest(tenant, thread_id).hex()
    return f"{digest[:2]}/{digest}"


def name_of(dump: Dump) -> str:
    """The object name for a dump: in the thread's folder, sorted after its older files."""
    header = dump.header
    base = f"{header.generation:08x}-{header.archived_us:016x}-{dump.checksum.hex()[:16]}"
    return f"{folder_of(header.tenant, header.thread_id)}/{base}{SUFFIX}"


def is_archive_file(name: str, generation: int | None = None) -> bool:
    """Whether an object is the file of a thread, and of this generation if one is given."""
    prefix = "" if generation is None else f"{generation:08x}-"
    return name.endswith(SUFFIX) and _base(name).startswith(prefix)


def belongs_to(name: str, tenant: str, thread_id: str) -> bool:
    """Whether this is the name of a file of a thread, whatever the object contains."""
    return f"/{name}".endswith(f"/{folder_of(tenant, thread_id)}/{_base(name)}")


def _base(name: str) -> str:
    return name.rpartition("/")[2]
