"""The records of an archive file: their tags, the columns of their rows, and the types of both.

Rows are those of the database's tables. Their columns are listed here once more, because files
outlive tables: a file keeps its names and order whatever is renamed or moved in the schema. A
test compares the two. Promises that a row arranged and checked here can be inserted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from eventstore.codec.compression import dictionary_id
from eventstore.errors import ArchiveDamagedError, CorruptEventError

END, COLUMNS, THREAD, DICTIONARY, LOG, SNAPSHOT, FORK_LINK, SEGMENT, EVENT = range(9)
"""Tags of records. The last four are rows of the log that the last ``LOG`` record named."""

Row = Sequence[Any]
Record = tuple[int, Row]


class Column(NamedTuple):
    """A column of a table in a file.

    Attributes:
        name: as in the code.
        bits: the size of whole numbers, sign included.
        stored: its name in files, where that is older than ``name``.
    """

    name: str
    kind: type
    nullable: bool = False
    bits: int = 64
    stored: str = ""


TABLES: Final = {
    THREAD: (
        Column("thread_key", int),
        Column("tenant", str),
        Column("thread_id", str),
        Column("created_at", int),
        Column("active_at", int),
        Column("status", str),
        Column("ttl", int, nullable=True),
        Column("pinned", bool),
        Column("deleting_since", int, nullable=True, stored="condemned_at"),
        Column("metadata", str),
        Column("generation", int, bits=32, stored="life"),
        Column("pin", str, nullable=True),
        Column("deletion", str, nullable=True, stored="fate"),
    ),
    SNAPSHOT: (
        Column("seq", int),
        Column("fingerprint", str),
        Column("is_base", bool),
        Column("rests_on", int, nullable=True),
        Column("step", int, nullable=True),
        Column("digest", bytes),
        Column("checksum", bytes),
        Column("additions", bytes),
        Column("payload", bytes),
    ),
    FORK_LINK: (
        Column("seq", int),
        Column("source_thread_key", int),
        Column("source_ns", str),
        Column("source_seq", int),
    ),
    SEGMENT: (
        Column("seq", int),
        Column("last", int),
        Column("link", bytes),
        Column("digest", bytes),
        Column("recorded_at", int),
        Column("raw", int),
        Column("payload", bytes),
    ),
    EVENT: (
        Column("seq", int),
        Column("kind", int, bits=16),
        Column("key", str, nullable=True),
        Column("recorded_at", int),
        Column("digest", bytes),
        Column("payload", bytes),
    ),
}
"""The columns of each table, in the order in which rows are written."""

FIELDS: Final = {tag: tuple(column.name for column in table) for tag, table in TABLES.items()}
"""Their names in the code."""

STORED_NAMES: Final = {
    tag: [column.stored or column.name for column in table] for tag, table in TABLES.items()
}
"""Their names in files."""

_CHECKS: Final = {
    tag: [(column, column.kind, 2 ** (column.bits - 1)) for column in table]
    for tag, table in TABLES.items()
}


def layouts_of(tables: Mapping[str, Sequence[str]]) -> dict[int, list[str]]:
    """The columns of each table in the order of a file, by their names in the code.

    Raises:
        ArchiveDamagedError: a column is unknown.
    """
    layouts = {}
    for tag, names in ((int(tag), list(names)) for tag, names in tables.items()):
        fields = dict(zip(STORED_NAMES[tag], FIELDS[tag], strict=True))
        unknown = set(names) - set(fields)
        if unknown:
            raise ArchiveDamagedError(f"a table has the unknown columns {sorted(unknown)}")
        layouts[tag] = [fields[name] for name in names]
    return layouts


def arranged(tag: int, values: Row, layouts: Mapping[int, Sequence[str]]) -> Row:
    """A row in the order of ``FIELDS``; columns that are newer than the file are ``None``.

    Raises:
        ArchiveDamagedError: it has too many columns, or too few.
    """
    if tag not in TABLES:
        return values
    names = layouts[tag]
    if len(values) != len(names):
        raise ArchiveDamagedError(f"a row has {len(values)} columns and its table {len(names)}")
    if tuple(names) == FIELDS[tag]:
        return values
    named = dict(zip(names, values, strict=True))
    return [named.get(name) for name in FIELDS[tag]]


def check_types(tag: int, row: Row) -> None:
    """Check that a row can be inserted into its table.

    Raises:
        CorruptEventError: it cannot.
    """
    for value, (column, kind, limit) in zip(row, _CHECKS[tag], strict=True):
        if value is None:
            valid = column.nullable
        elif kind is int:
            valid = type(value) is int and -limit <= value < limit
        else:
            valid = type(value) is kind and not (type(value) is str and b"\0" in value.encode())
        if not valid:
            raise CorruptEventError(f"the column {column.name!r} holds an invalid value")


def dictionaries_of(tag: int, row: Row) -> set[int]:
    """The ids of the application's dictionaries that a row's payloads are compressed with."""
    if tag == SNAPSHOT:
        return {dictionary_id(row[-1]), dictionary_id(row[-2])} - {0}
    return {dictionary_id(row[-1])} - {0} if tag in (SEGMENT, EVENT) else set()
