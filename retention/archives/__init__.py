"""Archives: threads as files in a directory or in object storage.

``storage`` reads and writes objects, ``naming`` names them, ``archive`` keeps one file per thread
and generation, ``moving`` moves threads from a store into an archive and back, and ``files`` does
so with plain files. Nothing here decides when a thread is archived: policies and sweeps do.

Needs ``obstore`` (``pip install 'graph-eventstore[archive]'``).
"""

from retention.archives.archive import Archive, Archived
from retention.archives.files import (
    aexport_thread,
    aimport_thread,
    export_thread,
    import_thread,
)
from retention.archives.moving import (
    PruningRefusedError,
    aarchive_and_prune,
    aarchive_thread,
    archive_and_prune,
    archive_thread,
    arestore,
    restore,
)

__all__ = [
    "Archive",
    "Archived",
    "PruningRefusedError",
    "aarchive_and_prune",
    "aarchive_thread",
    "aexport_thread",
    "aimport_thread",
    "archive_and_prune",
    "archive_thread",
    "arestore",
    "export_thread",
    "import_thread",
    "restore",
]
