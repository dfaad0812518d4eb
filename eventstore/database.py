"""A database opened as an event store: connections, set-up, transactions, errors.

Owns everything that ends a transaction. The parts of the store built on it (reading,
appending, removal, inspection) run operations inside ``_read()`` and ``_write()``, and keep
encoding, decoding and waiting outside. Drivers' errors leave here in our own words.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from sqlalchemy import URL, Connection, Engine, exc

from eventstore import dialects, migrations
from eventstore.codec import Codec
from eventstore.errors import StoreClosedError, StoreUnavailableError
from eventstore.events import to_micros

Conflict = exc.IntegrityError
"""What the database says when a key is taken or a row referred to is gone."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Database:
    """An open database: what every part of an event store works with."""

    def __init__(
        self,
        target: str | os.PathLike[str] | URL | Engine | sqlite3.Connection = ":memory:",
        *,
        tenant: str = "default",
        durability: dialects.Durability = "full",
        codec: Codec | None = None,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.tenant = tenant
        self.codec = codec or Codec()
        self._clock = clock
        self.engine, self._owned = dialects.open_engine(target, durability)
        self._turns = dialects.turns(self.engine)
        self._begin = dialects.beginner(self.engine)
        self._is_set_up = False
        self._closed = False

    def setup(self) -> None:
        """Create or migrate the tables. Done at first use; safe from many processes at once."""
        if self._closed:
            raise StoreClosedError
        with self._transaction(write=False) as conn:
            missing = migrations.pending(conn)
        with self._turns, _translated():
            dialects.settle(self.engine)
        if missing:
            with self._transaction(write=True) as conn:
                migrations.migrate(conn, self.now_us())
        self._is_set_up = True

    def close(self) -> None:
        """Close every connection that this store opened. A second call does nothing."""
        if not self._closed and self._owned:
            self.engine.dispose()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.engine.url!r}, tenant={self.tenant!r})"

    def now_us(self) -> int:
        """What the store's clock says, in microseconds since 1970 UTC."""
        return to_micros(self._clock())

    def _read(self) -> AbstractContextManager[Connection]:
        if not self._is_set_up or self._closed:
            self.setup()
        return self._transaction(write=False)

    def _write(self) -> AbstractContextManager[Connection]:
        if not self._is_set_up or self._closed:
            self.setup()
        return self._transaction(write=True)

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Connection]:
        with self._turns, _translated(), self.engine.connect() as conn:
            self._begin(conn, write)
            with conn.begin():
                yield conn


class LostConnection(StoreUnavailableError):
    """The connection went away inside a transaction: whether it was committed is unknown."""


@contextmanager
def _translated() -> Iterator[None]:
    """Drivers' errors in our words; ``IntegrityError`` is for the operation to explain."""
    try:
        yield
    except exc.IntegrityError:
        raise
    except exc.SQLAlchemyError as error:
        if dialects.is_lost_connection(error):
            raise LostConnection(str(error)) from error
        ours = dialects.translate(error)
        if ours is None:
            raise
        raise ours from error
