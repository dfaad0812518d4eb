"""What is known of threads that are no more, so that no key is ever used twice.

A tombstone bears the key that a thread had and a digest of its name. That of an erased thread
bears neither: its own key and its digest are made with a secret of the database, so that
nobody who has the tombstones alone can find a name in them by guessing. The secret is made at
the first erasure; where there was none, nothing here takes a further look.

Operations over a connection, as in :mod:`eventstore.operations`.
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

from eventstore import chain, dialects
from eventstore.schema import SqlRow, secrets, tombstones

ERASURE: Final = "erasure"
"""Name of the secret."""

SECRET_BYTES: Final = 32

_SECRET = select(secrets.c.value).where(secrets.c.name == ERASURE)
_MAKE_SECRET = dialects.insert_if_new(secrets)
_digest: Any = bindparam("name_digest", type_=tombstones.c.name_digest.type)
_DEAD = select(func.max(tombstones.c.life)).where(tombstones.c.name_digest == _digest)
_LAST_LIFE = select(
    _DEAD.scalar_subquery().label("life"), _SECRET.scalar_subquery().label("secret")
)
_next = tombstones.alias("next_grave")
_LAST_OF_DEAD = select(tombstones.c.life, tombstones.c.name_digest.label("value")).where(
    tombstones.c.name_digest == _digest,
    ~select(_next.c.life)
    .where(_next.c.name_digest == tombstones.c.name_digest, _next.c.life == tombstones.c.life + 1)
    .exists(),
)
_KNOWN = select(tombstones).where(tombstones.c.name_digest == _digest)
_DELETE = delete(tombstones).where(tombstones.c.thread_key == bindparam("key"))
_PUT = dialects.insert_if_new(tombstones)
_OF_SECRET: Final = -1
"""What stands for a life in the row of the secret."""
_GRAVES = select(
    tombstones.c.thread_key, tombstones.c.name_digest.label("digest"), tombstones.c.life
).where(
    or_(
        tombstones.c.thread_key.in_(bindparam("keys", type_=BigInteger, expanding=True)),
        and_(tombstones.c.name_digest == _digest, tombstones.c.life == _DEAD.scalar_subquery()),
    )
)
_LAST_OF_DEAD_AND_SECRET = union_all(
    _LAST_OF_DEAD,
    select(literal_column(f"{_OF_SECRET}"), secrets.c.value).where(secrets.c.name == ERASURE),
)
_GRAVES_AND_SECRET = union_all(
    _GRAVES,
    select(literal_column("0"), secrets.c.value, literal_column(f"{_OF_SECRET}")).where(
        secrets.c.name == ERASURE
    ),
)


class Buried(NamedTuple):
    """What was there before under a name, and under some keys.

    Attributes:
        lives: how many threads of the name are known to have come and gone.
        keys: those of the given ones that a thread had.
        secret: of the erased ones; ``None``: there never was an erasure.
    """

    lives: int
    keys: set[int]
    secret: bytes | None


def secret(conn: Connection) -> bytes | None:
    """What tombstones of erased threads are made with; ``None``: there is none yet."""
    found: bytes | None = conn.execute(_SECRET).scalar()
    return found


def make_secret(conn: Connection, value: bytes) -> None:
    """Store the secret, unless there is one: of several that do so, one wins."""
    conn.execute(_MAKE_SECRET[conn.dialect.name], {"name": ERASURE, "value": value})


def last_life(conn: Connection, tenant: str, thread_id: str) -> int | None:
    """The life of the last thread of this name that was removed."""
    digest = chain.name_digest(tenant, thread_id)
    life, key = conn.execute(_LAST_LIFE, {"name_digest": digest}).one()
    if key is None:
        return None if life is None else int(life)
    digest = chain.keyed_name_digest(key, tenant, thread_id)
    erased = conn.execute(_DEAD, {"name_digest": digest}).scalar()
    return max((each for each in (life, erased) if each is not None), default=None)


def lives_after(conn: Connection, tenant: str, thread_id: str) -> set[int]:
    """Where a thread of this name may be: the lives that follow on those that were removed.

    The one after the last of them; and one that is followed by others was restored.
    """
    rows = conn.execute(
        _LAST_OF_DEAD_AND_SECRET, {"name_digest": chain.name_digest(tenant, thread_id)}
    ).fetchall()
    key = next((row.value for row in rows if row.life == _OF_SECRET), None)
    if key is not None:
        digest = chain.keyed_name_digest(key, tenant, thread_id)
        rows = [*rows, *conn.execute(_LAST_OF_DEAD, {"name_digest": digest})]
    return {row.life + 1 for row in rows if row.life != _OF_SECRET}


def known(conn: Connection, tenant: str, thread_id: str) -> Sequence[SqlRow]:
    """The tombstones of a name that tell whose they are, to one who knows it."""
    return conn.execute(_KNOWN, {"name_digest": chain.name_digest(tenant, thread_id)}).fetchall()


def lives_of(conn: Connection, tenant: str, thread_id: str) -> set[int]:
    """The lives of a name that were removed, erased ones too."""
    digests = [chain.name_digest(tenant, thread_id)]
    key = secret(conn)
    if key is not None:
        digests.append(chain.keyed_name_digest(key, tenant, thread_id))
    found = (conn.execute(_KNOWN, {"name_digest": each}) for each in digests)
    return {row.life for rows in found for row in rows}


def hide(conn: Connection, row: Mapping[str, Any], key: bytes, name: tuple[str, str]) -> None:
    """Put a tombstone that tells nothing in the place of one that does (or of none)."""
    conn.execute(_DELETE, {"key": row["thread_key"]})
    hidden = {
        "thread_key": chain.grave(key, row["thread_key"]),
        "name_digest": chain.keyed_name_digest(key, *name),
    }
    conn.execute(_PUT[conn.dialect.name], {**row, **hidden})


def is_erased(conn: Connection, thread_key: int) -> bool:
    """Whether the thread that had this key was erased, and not only removed."""
    key = secret(conn)
    if key is None:
        return False
    place = {"keys": [chain.grave(key, thread_key)], "name_digest": b""}
    return conn.execute(_GRAVES, place).first() is not None


def buried(conn: Connection, tenant: str, thread_id: str, keys: Sequence[int]) -> Buried:
    """What was there before under this name, and under these keys."""
    digest = chain.name_digest(tenant, thread_id)
    rows = conn.execute(_GRAVES_AND_SECRET, {"keys": keys, "name_digest": digest}).fetchall()
    value: bytes | None = next((row.digest for row in rows if row.life == _OF_SECRET), None)
    graves = [row for row in rows if row.life != _OF_SECRET]
    lives = [row.life + 1 for row in graves if row.digest == digest]
    taken = {row.thread_key for row in graves}
    if value is not None:
        hidden = {chain.grave(value, key): key for key in keys}
        digest = chain.keyed_name_digest(value, tenant, thread_id)
        rows = conn.execute(_GRAVES, {"keys": list(hidden), "name_digest": digest}).fetchall()
        lives += [row.life + 1 for row in rows if row.digest == digest]
        taken |= {hidden[row.thread_key] for row in rows if row.thread_key in hidden}
    return Buried(max(lives, default=0), taken, value)
