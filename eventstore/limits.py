"""What can be stored, the same on every database: names, numbers and times.

Checked before a statement runs, so that a value is refused alike on SQLite, which would take
nearly anything, and on PostgreSQL. Lengths are checked where a name is stored for the first time:
threads and logs with longer names stay readable. Knows no store.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from eventstore.errors import ConfigurationError

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
"""What a column of numbers holds."""

THREAD_ID_BYTES_MAX: Final = 2**17
TENANT_BYTES_MAX: Final = 1_024
NS_BYTES_MAX: Final = 1_536
KEY_BYTES_MAX: Final = 1_024
"""Bytes of names in UTF-8. Namespace and key share an entry of an index, and one of PostgreSQL
has room for 2,704 bytes."""

METADATA_BYTES_MAX: Final = 2**16
"""Bytes of a thread's metadata as JSON. Every listing reads it."""

TTL_MAX: Final = timedelta(days=365_250)
"""A thousand years: any moment plus a time to live is a moment that the calendar has."""

_BITS_SHOWN_MAX: Final = 256
_COMPARED_MAX: Final = 2**_BITS_SHOWN_MAX - 1
_SECOND: Final = timedelta(seconds=1)


def shown(value: object) -> str:
    """The beginning of a value's representation, for an error about it."""
    if isinstance(value, int) and value.bit_length() > _BITS_SHOWN_MAX:  # too long to print
        return f"a number of {value.bit_length()} bits"
    try:
        return f"{value!r:.80}"
    except Exception as error:  # the caller's own code
        return f"a {type(value).__name__} whose repr raises {type(error).__name__}"


def check_name(what: str, text: object, bytes_max: int | None = None) -> str:
    """Check that a name can be stored as text; returns it.

    Raises:
        ConfigurationError: it is not text, is not valid Unicode, contains a NUL or is too long.
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"{what} must be text, not {type(text).__name__}: {shown(text)}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"{what} {shown(text)} is not valid Unicode: {error.reason}"
        ) from error
    if "\0" in text:
        raise ConfigurationError(f"{what} must not contain a NUL character: {shown(text)}")
    if bytes_max is not None and size > bytes_max:
        raise ConfigurationError(
            f"{what} must not be longer than {bytes_max} bytes in UTF-8, and has {size}: "
            f"{shown(text)}"
        )
    return text


def check_number(what: str, value: object, least: int | None = INT_MIN, most: int = INT_MAX) -> int:
    """Check that a number is whole and within a range; returns it.

    Args:
        least: ``None``: it is only compared, never sent to the database.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigurationError(
            f"{what} must be a whole number, not {type(value).__name__}: {shown(value)}"
        )
    if least is None:
        least, most = -_COMPARED_MAX, _COMPARED_MAX
    if not least <= value <= most:
        raise ConfigurationError(f"{what} must be between {least} and {most}, not {shown(value)}")
    return value


def check_type(what: str, value: object, kind: type) -> None:
    """Check that an argument is of a type.

    Raises:
        ConfigurationError: it is of another one.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(f"{what} must be a {kind.__name__}, not {shown(value)}")


def check_position(what: str, at: object) -> None:
    """Check that a position can be one: thread key, namespace and seq.

    Raises:
        ConfigurationError: it cannot.
    """
    if not isinstance(at, Sequence) or isinstance(at, str) or len(at) != 3:
        raise ConfigurationError(
            f"{what} must be a Position(thread_key, ns, seq), not {type(at).__name__}"
        )
    check_number(f"the thread_key of {what}", at[0])
    check_name(f"the namespace of {what}", at[1])
    check_number(f"the seq of {what}", at[2])


def check_moment(what: str, moment: object) -> None:
    """Check that a moment says in which time zone it is.

    Raises:
        ConfigurationError: it is no ``datetime``, or a naive one.
    """
    if not isinstance(moment, datetime):
        raise ConfigurationError(
            f"{what} must be a datetime, not {type(moment).__name__}: {shown(moment)}"
        )
    if moment.utcoffset() is None:
        raise ConfigurationError(
            f"{what} must be timezone-aware, such as datetime.now(UTC), not {moment.isoformat()}"
        )


def seconds_of(what: str, span: object, most: timedelta = TTL_MAX) -> int:
    """A span of time in whole seconds, rounded up.

    Raises:
        ConfigurationError: it is no ``timedelta``, is negative, or is longer than ``most``.
    """
    if not isinstance(span, timedelta):
        raise ConfigurationError(
            f"{what} must be a timedelta, not {type(span).__name__}: {shown(span)}"
        )
    if not timedelta(0) <= span <= most:
        raise ConfigurationError(f"{what} must be between 0 and {most.days} days, not {span}")
    return -(-span // _SECOND)
