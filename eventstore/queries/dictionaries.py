"""The application's compression dictionaries: store and read them.

Promises that a database has at most one dictionary under an id.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, insert, select

from eventstore.db.schema import dictionaries

_DICTIONARY = select(dictionaries.c.data).where(dictionaries.c.dict_id == bindparam("dict_id"))


class OtherDictionary(Exception):
    """The database holds another dictionary under this id."""

    def __init__(self, dict_id: int) -> None:
        super().__init__(dict_id)
        self.dict_id = dict_id


def read_dictionary(conn: Connection, dict_id: int) -> bytes | None:
    """The dictionary of this id; ``None`` if none was stored."""
    data: bytes | None = conn.execute(_DICTIONARY, {"dict_id": dict_id}).scalar()
    return data


def keep_dictionary(conn: Connection, dict_id: int, data: bytes) -> None:
    """Store a dictionary before payloads are compressed with it, unless it is stored already.

    Raises:
        OtherDictionary: another dictionary has this id.
        Conflict: somebody else stores it at the same moment.
    """
    known = read_dictionary(conn, dict_id)
    if known is None:
        conn.execute(insert(dictionaries), {"dict_id": dict_id, "data": data})
    elif known != data:
        raise OtherDictionary(dict_id)
