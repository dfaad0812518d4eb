"""The threads on which parallel tasks run, shared by every run of the process.

Starting a thread costs more than a short task, so threads are kept: a run borrows as many
as it has tasks side by side, and gives them back. The bound is so high only because a task
may itself run a graph and wait for it; each run bounds what it borrows.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

NAME: Final = "graph-worker"
THREADS_MAX: Final = 1_000

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def pool() -> ThreadPoolExecutor:
    """The process's pool; its threads start when first needed."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix=NAME)
        return _pool


def _forget() -> None:
    """A forked child has none of its parent's threads: it starts its own."""
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
