"""Keep the compression dictionaries that an application registers."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, insert, select

from eventstore.db.schema import dictionaries

_DICTIONARY = select(dictionaries.c.data).where(dictionaries.c.dict_id == bindparam("dict_id"))


class OtherDictionary(Exception):
    """Another dictionary of the same number is in use."""


def read_dictionary(conn: Connection, dict_id: int) -> bytes | None:
    """The dictionary of this number, if any payload was ever written with it."""
    data: bytes | None = conn.execute(_DICTIONARY, {"dict_id": dict_id}).scalar()
    return data


def keep_dictionary(conn: Connection, dict_id: int, data: bytes) -> None:
    """Keep what payloads are about to be compressed with, unless it is kept already.

    Raises:
        OtherDictionary: another one has the number.
        Conflict: somebody else keeps it at the same moment.
    """
    known = read_dictionary(conn, dict_id)
    if known is None:
        conn.execute(insert(dictionaries), {"dict_id": dict_id, "data": data})
    elif known != data:
        raise OtherDictionary
