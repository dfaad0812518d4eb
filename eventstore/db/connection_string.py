"""PostgreSQL connection strings in every form that libpq takes, as the URL that an engine opens.

Promises that no error quotes the string: what drivers cannot use they quote, and a misread string
makes them quote part of a password, taken for a host or a port. Ambiguous text is refused here.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from eventstore.errors import ConfigurationError

_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")
_SCHEME: Final = re.compile(r"([\w+.-]+)://")
_PAIR: Final = re.compile(r"\b(host|hostaddr|port|dbname|user|password|service)\s*=")
_FIRST_PAIR: Final = re.compile(rf"\s*{_PAIR.pattern}")


def names_sqlite(text: str) -> bool:
    """Whether a connection string can be a path or URL of SQLite."""
    return _scheme(text.strip()) in (None, "sqlite") and not _PAIR.search(text)


def is_pairs(text: str) -> bool:
    """Whether a text begins as ``key=value`` pairs of libpq do, which no path is likely to."""
    return _FIRST_PAIR.match(text) is not None


def postgresql_url(text: str) -> URL:
    """Parse a URL, or ``key=value`` pairs.

    Raises:
        ConfigurationError: it cannot be parsed; the message does not quote it.
    """
    text = text.strip()  # a line break at the end, if it was read from a file
    scheme = _scheme(text)
    if scheme not in _SCHEMES and (scheme or not _PAIR.search(text)):
        raise ConfigurationError(
            "expected a PostgreSQL URL, which begins with postgresql://, or key=value pairs "
            "(host=… dbname=…)"
        )
    if scheme and text.count("@") > 1:
        raise ConfigurationError(
            "it contains several @; write %40 for an @ in user name, password or options"
        )
    url = None
    if scheme:
        with suppress(ArgumentError, ValueError):  # libpq also allows several hosts
            url = make_url(text)
    url = url or _libpq_url(text)
    password = url.query.get("password") if url else None
    if url and isinstance(password, str):
        # As the URL's password SQLAlchemy masks it wherever it prints the URL.
        url = url.set(password=password).difference_update_query(["password"])
    if url is None or "password" in url.query or not _is_plausible(url):
        raise ConfigurationError(
            "it cannot be parsed; in a URL write special characters of user name and password as "
            "%XX, and in key=value pairs quote the values"
        )
    return url


def _scheme(text: str) -> str | None:
    found = _SCHEME.match(text)
    return found[1] if found else None


def _is_plausible(url: URL) -> bool:
    """Whether no part of a password was taken for a host, a database or a port."""
    ports = url.query.get("port", "") if url.port is None else str(url.port)
    return "@" not in f"{url.host or ''}{url.database or ''}" and (
        isinstance(ports, str) and all(_is_port(port) for port in ports.split(",") if ports)
    )


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6 and 0 < int(text) < 2**16


def _libpq_url(text: str) -> URL | None:
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise ConfigurationError(
            "this form requires psycopg; run pip install 'graph-eventstore[postgres]'"
        ) from error
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(text).items()}
    except ProgrammingError:  # its message quotes the text
        return None
    return URL.create(
        "postgresql+psycopg",
        username=found.pop("user", None),
        password=found.pop("password", None),
        database=found.pop("dbname", None),
        query=found,
    )
