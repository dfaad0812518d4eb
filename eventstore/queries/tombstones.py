"""Tombstones: what is kept of deleted threads, so that no key is ever used twice.

A tombstone has the key of its thread and a digest of its name. The tombstone of an erased thread
has neither: its key and digest are made with a secret of the database, so that nobody who has the
tombstones alone can confirm a guessed name. The secret is made at the first erasure; without one,
nothing here needs a second query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    and_,
    bindparam,
    delete,
    func,
    literal_column,
    or_,
    select,
    union_all,
)

from eventstore.db.schema import insert_if_new, secrets, tombstones
from eventstore.format import digests
from eventstore.models import SqlRow

ERASURE: Final = "erasure"
"""Name of the secret."""

SECRET_BYTES: Final = 32

_SECRET = select(secrets.c.value).where(secrets.c.name == ERASURE)
_digest: Any = bindparam("name_digest", type_=tombstones.c.name_digest.type)
_NEWEST = select(func.max(tombstones.c.generation)).where(tombstones.c.name_digest == _digest)
_LAST_GENERATION = select(
    _NEWEST.scalar_subquery().label("generation"), _SECRET.scalar_subquery().label("secret")
)
_next = tombstones.alias("next_tombstone")
_FORMER_GENERATIONS = select(
    tombstones.c.generation.label("generation"), tombstones.c.name_digest.label("value")
).where(
    tombstones.c.name_digest == _digest,
    ~select(_next.c.generation)
    .where(
        _next.c.name_digest == tombstones.c.name_digest,
        _next.c.generation == tombstones.c.generation + 1,
    )
    .exists(),
)
_KNOWN = select(tombstones).where(tombstones.c.name_digest == _digest)
_DELETE = delete(tombstones).where(tombstones.c.thread_key == bindparam("key"))
_OF_SECRET: Final = -1
"""In place of a generation, in the row that carries the secret."""
_TOMBSTONES = select(
    tombstones.c.thread_key,
    tombstones.c.name_digest.label("digest"),
    tombstones.c.generation.label("generation"),
).where(
    or_(
        tombstones.c.thread_key.in_(bindparam("keys", type_=BigInteger, expanding=True)),
        and_(
            tombstones.c.name_digest == _digest,
            tombstones.c.generation == _NEWEST.scalar_subquery(),
        ),
    )
)
_FORMER_GENERATIONS_AND_SECRET = union_all(
    _FORMER_GENERATIONS,
    select(literal_column(f"{_OF_SECRET}"), secrets.c.value).where(secrets.c.name == ERASURE),
)
_TOMBSTONES_AND_SECRET = union_all(
    _TOMBSTONES,
    select(literal_column("0"), secrets.c.value, literal_column(f"{_OF_SECRET}")).where(
        secrets.c.name == ERASURE
    ),
)


class FormerThreads(NamedTuple):
    """The deleted threads of a name, and those that had certain keys.

    Attributes:
        generations: how many threads of the name were deleted.
        keys: the given keys that a deleted thread had.
        secret: for tombstones of erased threads; ``None`` if there never was an erasure.
    """

    generations: int
    keys: set[int]
    secret: bytes | None


def secret(conn: Connection) -> bytes | None:
    """The secret for tombstones of erased threads; ``None`` if there never was an erasure."""
    found: bytes | None = conn.execute(_SECRET).scalar()
    return found


def make_secret(conn: Connection, value: bytes) -> None:
    """Store the secret unless there is one; if several processes do so at once, one wins."""
    conn.execute(insert_if_new(conn, secrets), {"name": ERASURE, "value": value})


def last_generation(conn: Connection, tenant: str, thread_id: str) -> int | None:
    """The generation of the last deleted thread of this name; ``None`` if there is none."""
    digest = digests.name_digest(tenant, thread_id)
    generation, key = conn.execute(_LAST_GENERATION, {"name_digest": digest}).one()
    if key is None:
        return None if generation is None else int(generation)
    digest = digests.keyed_name_digest(key, tenant, thread_id)
    erased = conn.execute(_NEWEST, {"name_digest": digest}).scalar()
    return max((each for each in (generation, erased) if each is not None), default=None)


def generations_after(conn: Connection, tenant: str, thread_id: str) -> set[int]:
    """The generations that a thread of this name may have: those that follow a deleted one.

    A generation that other deleted ones follow in turn was restored from an archive.
    """
    rows = conn.execute(
        _FORMER_GENERATIONS_AND_SECRET,
        {"name_digest": digests.name_digest(tenant, thread_id)},
    ).fetchall()
    key = next((row.value for row in rows if row.generation == _OF_SECRET), None)
    if key is not None:
        digest = digests.keyed_name_digest(key, tenant, thread_id)
        rows = [*rows, *conn.execute(_FORMER_GENERATIONS, {"name_digest": digest})]
    return {row.generation + 1 for row in rows if row.generation != _OF_SECRET}


def known(conn: Connection, tenant: str, thread_id: str) -> Sequence[SqlRow]:
    """The tombstones of a name, without those of erased threads."""
    return conn.execute(_KNOWN, {"name_digest": digests.name_digest(tenant, thread_id)}).fetchall()


def generations_of(conn: Connection, tenant: str, thread_id: str) -> set[int]:
    """The deleted generations of a name, erased ones included."""
    names = [digests.name_digest(tenant, thread_id)]
    key = secret(conn)
    if key is not None:
        names.append(digests.keyed_name_digest(key, tenant, thread_id))
    found = (conn.execute(_KNOWN, {"name_digest": each}) for each in names)
    return {row.generation for rows in found for row in rows}


def hide(conn: Connection, row: Mapping[str, Any], key: bytes, name: tuple[str, str]) -> None:
    """Insert a tombstone that does not reveal its thread, in place of one that does, if any."""
    conn.execute(_DELETE, {"key": row["thread_key"]})
    hidden = {
        "thread_key": digests.tombstone_key(key, row["thread_key"]),
        "name_digest": digests.keyed_name_digest(key, *name),
    }
    conn.execute(insert_if_new(conn, tombstones), {**row, **hidden})


def is_erased(conn: Connection, thread_key: int) -> bool:
    """Whether the thread that had this key was erased, not just deleted."""
    key = secret(conn)
    if key is None:
        return False
    place = {"keys": [digests.tombstone_key(key, thread_key)], "name_digest": b""}
    return conn.execute(_TOMBSTONES, place).first() is not None


def former_threads(
    conn: Connection, tenant: str, thread_id: str, keys: Sequence[int]
) -> FormerThreads:
    """The deleted threads of this name, and those that had these keys."""
    digest = digests.name_digest(tenant, thread_id)
    rows = conn.execute(_TOMBSTONES_AND_SECRET, {"keys": keys, "name_digest": digest}).fetchall()
    value: bytes | None = next((row.digest for row in rows if row.generation == _OF_SECRET), None)
    tombstones = [row for row in rows if row.generation != _OF_SECRET]
    generations = [row.generation + 1 for row in tombstones if row.digest == digest]
    taken = {row.thread_key for row in tombstones}
    if value is not None:
        hidden = {digests.tombstone_key(value, key): key for key in keys}
        digest = digests.keyed_name_digest(value, tenant, thread_id)
        rows = conn.execute(_TOMBSTONES, {"keys": list(hidden), "name_digest": digest}).fetchall()
        generations += [row.generation + 1 for row in rows if row.digest == digest]
        taken |= {hidden[row.thread_key] for row in rows if row.thread_key in hidden}
    return FormerThreads(max(generations, default=0), taken, value)
