"""Users, queries in URLs and lost connections, for the tests on PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg


def terminate_all(url: str) -> None:
    """End every other connection to this database, as an administrator would."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@contextmanager
def role(url: str, options: str) -> Iterator[str]:
    """A user of the server, who is dropped afterwards."""
    name = f"role_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {name} {options}".encode())
        try:
            yield name
        finally:
            conn.execute(f"DROP ROLE {name}".encode())
