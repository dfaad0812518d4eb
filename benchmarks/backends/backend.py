"""What a backend offers: databases for one measurement, their size, and what was written to them.

Every peer has a database of its own, which it opens by its ``target``, a path or a URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from benchmarks.backends.round_trips import RoundTripCounter
from benchmarks.peers.limits import Limit
from benchmarks.peers.peer import Pair


@dataclass(frozen=True)
class Written:
    """What a peer wrote and sent; ``None`` where the server cannot tell.

    Attributes:
        wal: bytes of the write-ahead log.
        images: bytes of these that were whole pages, logged once after a checkpoint.
        commits: transactions that wrote.
        statements: statements sent to the server, ``BEGIN`` and ``COMMIT`` included.
    """

    wal: int
    images: int | None
    commits: int | None
    statements: int | None


class Database(Protocol):
    """One peer's database in one measurement."""

    @property
    def target(self) -> str:
        """The path or URL that a peer opens."""

    def size(self) -> int:
        """Bytes of the peer's tables on disk; nobody has the database open."""

    def growth(self) -> int | None:
        """Bytes by which the whole database grew; ``None`` where that equals the size."""

    def recording(self) -> AbstractContextManager[None]:
        """Count what is written in a ``with`` block."""

    def written(self) -> Written | None:
        """The sum of all recorded blocks; ``None`` where the backend cannot count."""

    def round_trips(self) -> AbstractContextManager[RoundTripCounter] | None:
        """A counter between client and server, where there is a server."""


class Workspace(Protocol):
    """All databases of one measurement; they are removed at its end."""

    def database(self, name: str) -> Database:
        """The database of that name, created when it is first requested."""

    def begin(self) -> None:
        """Prepare for the first turn; all databases exist."""


class Backend(Protocol):
    """A kind of database, and the peers that are compared on it.

    Attributes:
        key: ``sqlite`` or ``postgres``.
        title: the opponent's name in the heading of a report.
        variant: added to the name of each workload.
        pairs: the compared pairs; the first pair is compared in every measure.
        limits: what no library can beat.
    """

    key: str
    title: str
    variant: str

    @property
    def pairs(self) -> Sequence[Pair]: ...
    @property
    def limits(self) -> Sequence[type[Limit]]: ...

    def workspace(self) -> AbstractContextManager[Workspace]:
        """Databases for one measurement."""

    def facts(self) -> dict[str, str]:
        """Versions and settings that figures depend on; no names or paths of the machine."""
