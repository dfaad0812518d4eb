"""What can be chosen: how a database is opened, and what kind of transaction an operation needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from eventstore.errors import ConfigurationError
from eventstore.limits import check_name, check_number, shown

Durability = Literal["full", "normal"]
"""``"full"`` survives power loss, ``"normal"`` any crash of the process (on PostgreSQL a crash
of the server may lose the last moments)."""

Backend = Literal["sqlite", "postgresql"]

ALONE: Final = "eventstore_alone"
"""Execution option of engines: tables of others in the database are refused at set-up."""

Mode = Literal[
    "read",
    "snapshot_read",
    "write",
    "append",
    "idempotent_write",
    "background_write",
    "statement",
    "autocommit",
]
"""What an operation does, which decides how its transaction begins and whether it is repeated.

- ``read``: it only reads, and each of its statements may see a newer state (PostgreSQL).
- ``snapshot_read``: it only reads, and all its statements see the same state.
- ``write``: it writes; if its commit is in doubt, the caller has to find out.
- ``append``: as ``write``, and short: on SQLite it may share a transaction with others.
- ``idempotent_write``: it writes, and does no harm when it happens twice.
- ``background_write``: as ``idempotent_write``. On SQLite, where others wait for it, it begins as
  a read and takes the lock when it calls :meth:`Background.lock`, and its commit does
  not wait for the disk: it is durable once a later transaction of another mode is.
- ``statement``: as ``append``, with a single statement on a server, which is a transaction by
  itself and saves two round trips.
- ``autocommit``: each statement is a transaction, such as those that cannot be in one.
"""

READS: Final[frozenset[Mode]] = frozenset({"read", "snapshot_read"})
TRANSACTIONAL_WRITES: Final[frozenset[Mode]] = frozenset(
    {"write", "append", "idempotent_write", "background_write"}
)
SHORT_WRITES: Final[frozenset[Mode]] = frozenset({"append", "statement"})


@dataclass(frozen=True)
class PoolOptions:
    """How many connections to PostgreSQL a store may have, and how long it waits for one.

    Attributes:
        min_size: connections kept open once they have been needed.
        max_size: connections open at most.
        timeout_s: seconds to wait for one of them before ``StoreBusyError``.
    """

    min_size: int = 5
    max_size: int = 20
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        check_number("pool_min_size", self.min_size)
        check_number("pool_max_size", self.max_size)
        if isinstance(self.timeout_s, bool) or not isinstance(self.timeout_s, int | float):
            raise ConfigurationError(
                f"pool_timeout must be a number of seconds, not {shown(self.timeout_s)}"
            )
        if self.max_size < 1 or not 0 <= self.min_size <= self.max_size:
            raise ConfigurationError(
                "a pool needs 0 <= pool_min_size <= pool_max_size, and a pool_max_size of at "
                f"least 1, not {self.min_size} and {self.max_size}"
            )
        if not self.timeout_s > 0:
            raise ConfigurationError(f"pool_timeout must be above 0 s, not {self.timeout_s}")


@dataclass(frozen=True)
class Options:
    """How a database is opened.

    Attributes:
        durability: see :data:`Durability`.
        schema: the PostgreSQL schema of the tables; ``None``: the first of the connection's
            search path.
        pool: connections to PostgreSQL.
        read_only: change nothing, not even the journal mode of a file.
        allow_other_tables: use a SQLite file that holds tables of another application.
    """

    durability: Durability = "full"
    schema: str | None = None
    pool: PoolOptions = PoolOptions()
    read_only: bool = False
    allow_other_tables: bool = False

    def __post_init__(self) -> None:
        if self.durability not in ("full", "normal"):
            raise ConfigurationError(
                f"durability must be 'full' or 'normal', not {self.durability!r}"
            )
        name = None if self.schema is None else check_name("schema", self.schema)
        if name is not None and not (name and name.isprintable()):
            raise ConfigurationError(f"schema must be a non-empty schema name, not {self.schema!r}")
