"""What the row of a thread may hold, whatever put it there: the one place that judges it. Pure.

A bad disk, another program or a forged file may have put anything into a column. Rows of the
database and rows of archive files are judged here alike, so that a thread that was loaded from a
file is never called damaged afterwards. Owns the limits of metadata, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from operator import attrgetter
from typing import Any, Final, get_args

from eventstore.errors import ConfigurationError, CorruptEventError, SerializationError
from eventstore.format import digests
from eventstore.limits import METADATA_BYTES_MAX
from eventstore.models import Pin, SqlRow, Status, from_micros, to_micros

METADATA_DEPTH_MAX: Final = 100
"""Levels of lists and mappings inside metadata, its own level included."""

STORED_TTL_MAX: Final = timedelta.max // timedelta(seconds=1)
"""Seconds in a row that was written before :data:`eventstore.limits.TTL_MAX` was the limit."""

FIRST_US: Final = to_micros(datetime.min.replace(tzinfo=UTC))
LAST_US: Final = to_micros(datetime.max.replace(tzinfo=UTC))
_STATUSES: Final = frozenset(get_args(Status))


def check_thread(row: Any) -> tuple[dict[str, Any], Pin | None]:
    """Check the row of a thread: types, ranges, and that its key belongs to its name.

    Args:
        row: has the columns of the table as attributes.

    Returns:
        Its metadata and its pin.

    Raises:
        CorruptEventError: a column holds what nobody stored there.
    """
    values = _thread_values(row)
    if tuple(map(type, values)) not in _THREAD_TYPES or not _are_plain(values):
        for (name, kinds), value in zip(_THREAD.items(), values, strict=True):
            if type(value) not in kinds or (type(value) is str and not _is_text(value)):
                raise CorruptEventError(f"the column {name!r} holds an invalid value")
    if not digests.belongs(row.thread_key, row.tenant, row.thread_id, row.generation):
        raise CorruptEventError("its key does not belong to its name and generation")
    checksum = getattr(row, "checksum", None)  # a file is protected as a whole
    if checksum is not None and checksum != checksum_of(row):
        raise CorruptEventError("it does not match its checksum")
    check_moment("created_at", row.created_at)
    check_moment("active_at", row.active_at)
    check_status(row.status)
    if row.ttl is not None and not 0 <= row.ttl <= STORED_TTL_MAX:
        raise CorruptEventError(f"its ttl is {row.ttl}")
    pin = None if row.pin is None else pin_of(_parsed("pin", row.pin))
    if pin is not None and not row.pinned:
        raise CorruptEventError("it has a pin and is not pinned")
    return _parsed("metadata", row.metadata), pin


def checksum_of(row: Any) -> bytes:
    """The checksum that the row of a thread should have."""
    return digests.row_checksum(row.created_at, row.ttl, row.pinned, row.metadata, row.pin)


_THREAD: Final[dict[str, tuple[type, ...]]] = {
    "thread_key": (int,),
    "tenant": (str,),
    "thread_id": (str,),
    "created_at": (int,),
    "active_at": (int,),
    "status": (str,),
    "ttl": (int, type(None)),
    "pinned": (bool,),
    "deleting_since": (int, type(None)),
    "metadata": (str,),
    "generation": (int,),
    "pin": (str, type(None)),
    "deletion": (str, type(None)),
}


_thread_values: Final = attrgetter(*_THREAD)

_THREAD_TYPES: Final = frozenset(product(*_THREAD.values()))


def _are_plain(values: Iterable[object]) -> bool:
    """Whether all texts among these are ASCII without NUL, as nearly all are."""
    text = "".join([value for value in values if type(value) is str])
    return text.isascii() and "\0" not in text


def _is_text(text: str) -> bool:
    return "\0" not in text and _is_unicode(text)


def check_moment(name: str, value: object) -> int:
    """Check that a value is a moment in microseconds since 1970 that the calendar has.

    Raises:
        CorruptEventError: it is not.
    """
    if type(value) is not int or not FIRST_US <= value <= LAST_US:
        raise CorruptEventError(f"{name} is not a moment: {value!r:.80}")
    return value


def check_reached(thread_id: str, reached: object, last: int) -> None:
    """Check that a root log ends where its thread's row has seen it, or later.

    Args:
        reached: what the row says; ``None``: it is not known.

    Raises:
        CorruptEventError: the log is shorter.
    """
    if reached is None or (type(reached) is int and reached <= last):
        return
    raise CorruptEventError(
        f"the log of thread {thread_id!r} ends at seq {last}, and its row says that it reached seq "
        f"{reached!r:.40}: an index is damaged or rows were lost; run eventstore verify, rebuild "
        "the indexes (REINDEX) or restore a backup",
        thread_id=thread_id,
    )


def check_status(value: object) -> None:
    """Check that a value is the status of a thread.

    Raises:
        CorruptEventError: it is not.
    """
    if type(value) is not str or value not in _STATUSES:
        raise CorruptEventError(f"it has the unknown status {value!r:.80}")


def pin_of(stored: Mapping[str, Any]) -> Pin:
    """A pin from its stored form.

    Raises:
        CorruptEventError: it is not one.
    """
    reason, by = stored.get("reason"), stored.get("by")
    if set(stored) != {"reason", "by", "at"} or type(reason) is not str or type(by) is not str:
        raise CorruptEventError("its pin does not say why, by whom and when")
    return Pin(reason, by, from_micros(check_moment("the pin's time", stored["at"])))


def _parsed(name: str, text: str) -> dict[str, Any]:
    """A JSON object of a column.

    Raises:
        CorruptEventError: the text is no JSON object, or nested too deeply.
    """
    if text == "{}":
        return {}
    try:
        found = _JSON.decode(text)
    except (ValueError, RecursionError) as error:
        raise CorruptEventError(f"its {name} is not JSON: {error!s:.200}") from error
    if type(found) is not dict:
        raise CorruptEventError(f"its {name} is not a JSON object")
    if _is_deep(found, text):
        raise CorruptEventError(f"its {name} is nested deeper than {METADATA_DEPTH_MAX} levels")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")


_JSON: Final = json.JSONDecoder(parse_constant=_refuse)


def _is_deep(value: object, text: str) -> bool:
    """Whether a value is nested too deeply. Counting brackets settles it for nearly all."""
    if text.count("[") + text.count("{") <= METADATA_DEPTH_MAX:
        return False
    level = [value]
    for _ in range(METADATA_DEPTH_MAX + 1):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """The metadata of a thread as JSON text.

    Raises:
        ConfigurationError: it is no mapping, or larger or deeper than the limits.
        SerializationError: a value is not JSON.
    """
    if not isinstance(metadata, Mapping):
        raise ConfigurationError(f"metadata must be a mapping, not {type(metadata).__name__}")
    for name, value in metadata.items():
        try:
            json.dumps(value, allow_nan=False)
        except RecursionError as error:
            raise _too_deep() from error
        except (TypeError, ValueError) as error:
            raise SerializationError(
                f"metadata[{name!r}]", type(value).__name__, f"metadata must be JSON: {error}"
            ) from error
    text = json.dumps(dict(metadata), ensure_ascii=True)
    if len(text) > METADATA_BYTES_MAX:
        raise ConfigurationError(
            f"metadata takes {len(text)} bytes as JSON, and may take {METADATA_BYTES_MAX}; store "
            "large values in events"
        )
    if _is_deep(json.loads(text), text):
        raise _too_deep()
    return text


def _too_deep() -> ConfigurationError:
    return ConfigurationError(
        f"metadata is nested deeper than {METADATA_DEPTH_MAX} levels; make it flatter"
    )


def checked(rows: Sequence[SqlRow]) -> Sequence[SqlRow]:
    """These rows, whose columns hold values of the kinds that the schema gives to their names.

    PostgreSQL keeps to the schema by itself; SQLite takes any value in any column.

    Raises:
        CorruptEventError: a column holds a value of another kind.
    """
    if rows:
        kinds = [(name, _COLUMNS[name]) for name in rows[0]._fields]
        for row in rows:
            for value, (name, kind) in zip(row, kinds, strict=True):
                if (
                    type(value) not in kind
                    or (type(value) is str and not _is_unicode(value))
                    or (name in _SEQS and value is not None and value < 0)
                    or (
                        name == "recorded_at"
                        and value is not None
                        and not FIRST_US <= value <= LAST_US
                    )
                ):
                    raise CorruptEventError(f"the column {name!r} holds {value!r:.80}")
    return rows


def is_storable(row: SqlRow) -> bool:
    """Whether a row that is copied as it is can be stored again."""
    return not any(type(value) is str and not _is_unicode(value) for value in row)


def _is_unicode(text: str) -> bool:
    """Whether a text was decoded without bytes that are no text."""
    return text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)


_WHOLE: Final = (int,)
_WHOLE_OR_NONE: Final = (int, type(None))
_COLUMNS: Final[dict[str, tuple[type, ...]]] = {
    "digest": (bytes,),
    "checksum": (bytes,),
    "fingerprint": (str,),
    "first": _WHOLE,
    "is_base": (bool,),
    "last": _WHOLE,
    "link": (bytes,),
    "ns": (str,),
    "payload": (bytes,),
    "raw": _WHOLE,
    "recorded_at": _WHOLE_OR_NONE,
    "rests_on": _WHOLE_OR_NONE,
    "seq": _WHOLE,
    "source_ns": (str,),
    "source_seq": _WHOLE,
    "source_thread_key": _WHOLE,
    "step": _WHOLE_OR_NONE,
    "thread_key": _WHOLE,
    "young": _WHOLE_OR_NONE,
    "bytes": (int, float, Decimal, type(None)),
}
"""Kinds of values by the names of columns, as queries select them."""

_SEQS: Final = frozenset({"first", "last", "rests_on", "seq", "source_seq"})


def check_kinds(record: Any) -> None:
    """Check that the fields of a record that was made from a row hold values of their kinds.

    Raises:
        CorruptEventError: a field does not.
    """
    for name, annotation in type(record).__annotations__.items():
        value = getattr(record, name)
        if type(value) not in _KINDS[annotation]:
            raise CorruptEventError(f"{name} holds a {type(value).__name__}: {value!r:.80}")


_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "bool": (bool,),
    "bytes": (bytes,),
    "datetime": (datetime,),
    "datetime | None": (datetime, type(None)),
    "int": (int,),
    "Mapping[str, Any]": (dict,),
    "str": (str,),
    "str | None": (str, type(None)),
}
"""The annotations of these records, which are text at run time, as types."""
