"""The threads on which parallel tasks run, shared by every run of the process."""

from __future__ import annotations

from eventstore.concurrency import WORKER_NAME as NAME
from eventstore.concurrency import worker_pool as pool

__all__ = ["NAME", "pool"]
