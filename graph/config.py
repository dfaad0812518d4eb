"""How a deployment says where its threads are kept: ``PersistenceConfig``.

Owns reading that from arguments, the environment and a TOML file, checking that it makes
sense, and keeping what it holds in confidence: the connection string, which has the password,
shows in no representation, dump, log or error of this module.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    ValidationError,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from graph.errors import PersistenceConfigError
from retention import RetentionPolicy, policies_from_file

MASK: Final = "**********"

_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")
_SCHEME: Final = re.compile(r"([\w+.-]+)://")
_PAIR: Final = re.compile(r"\b(host|hostaddr|port|dbname|user|password|service)\s*=")


class ConnectionString(str):
    """Text for whoever connects, and asterisks for whoever looks.

    ``repr``, ``str``, formatting, and so printing and logging, show none of it. What takes a
    string's characters (psycopg, sqlite3, SQLAlchemy, concatenation, ``encode``) gets them. To
    have an ordinary string, for ``pathlib.Path`` say, call :meth:`get_secret_value`.
    """

    __slots__ = ()

    def get_secret_value(self) -> str:
        """The same as an ordinary string, which hides nothing."""
        return str.__str__(self)

    def __repr__(self) -> str:
        return repr(str(self))

    def __str__(self) -> str:
        return MASK if self else ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


def _revealed(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _hidden(value: str, info: SerializationInfo) -> Any:
    # Not the ConnectionString itself: json.dumps() of the dump would write its characters.
    secret = SecretStr(_plain(value))
    return str(ConnectionString(value)) if info.mode_is_json() else secret


def _plain(text: str) -> str:
    return text.get_secret_value() if isinstance(text, ConnectionString) else text


def _or_none(value: Any) -> Any:
    # Neither the environment nor TOML has a null.
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


class PersistenceConfig(BaseSettings):
    """Where and how threads are kept. Frozen, and never shows its connection string.

    Arguments go before the environment (``GRAPH_EVENTSTORE_BACKEND``, …), which goes before
    the file that :meth:`from_toml` reads. What only one backend understands is ignored by the
    others, so that a single variable turns a deployment's configuration into a test's.

    Attributes:
        backend: ``postgres``, ``sqlite`` or ``memory``.
        connection_string: for PostgreSQL a URL or ``key=value`` pairs as libpq takes them, for
            SQLite a path or ``sqlite:///`` URL. A string, to be passed on as it is; printed it
            is asterisks (:class:`ConnectionString`).
        pool_min_size, pool_max_size: connections kept, and open at most (PostgreSQL).
        pool_timeout_s: how long one of them is waited for (PostgreSQL).
        checkpoint_ttl_days: what :meth:`retention_policy` lets go, so long after a thread's
            last event; ``None`` (``"none"`` in the environment and in TOML) keeps all.
        respect_pending_interrupts: whether that policy spares threads that wait for a person.
        retention_policy_file: a TOML file of policies, in the place of that one.
        enable_compression: of what is written; both kinds are read whatever this says.
        tenant: whose threads these are; those of others are not seen.
        durability: ``full`` survives power loss, ``normal`` any crash of the process.
        db_schema: of the tables (PostgreSQL); ``None``: the connection's own.

    Raises:
        PersistenceConfigError: it makes no sense; names the settings, and shows no values.
    """

    model_config = SettingsConfigDict(
        env_prefix="GRAPH_EVENTSTORE_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )

    backend: Literal["postgres", "sqlite", "memory"] = "postgres"
    connection_string: Annotated[
        str,
        BeforeValidator(_revealed),
        AfterValidator(ConnectionString),
        PlainSerializer(_hidden),
    ] = ""
    pool_min_size: int = Field(default=5, ge=0)
    pool_max_size: int = Field(default=20, ge=1)
    pool_timeout_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    checkpoint_ttl_days: Annotated[
        int | None, Field(ge=1, le=timedelta.max.days), BeforeValidator(_or_none)
    ] = 30
    respect_pending_interrupts: bool = True
    retention_policy_file: Annotated[str | None, Field(min_length=1), BeforeValidator(_or_none)] = (
        None
    )
    enable_compression: bool = True
    tenant: str = Field(default="default", min_length=1)
    durability: Literal["full", "normal"] = "full"
    db_schema: Annotated[str | None, Field(min_length=1), BeforeValidator(_or_none)] = None

    @classmethod
    def from_toml(cls, path: str | Path, **values: Any) -> Self:
        """Read a file's table ``[persistence]``, or its top level where it has none.

        Args:
            values: settings that go before the file's and the environment's.

        Raises:
            PersistenceConfigError: the file cannot be read, or it has keys that are no settings.
        """
        settings = _read_toml(Path(path))
        unknown = settings.keys() - cls.model_fields.keys()
        if unknown:
            raise PersistenceConfigError(
                [
                    f"{path} has unknown keys {', '.join(sorted(map(repr, unknown)))}; known are "
                    f"{', '.join(cls.model_fields)}"
                ]
            )
        return cls(**{**settings, **EnvSettingsSource(cls)(), **values})

    def retention_policy(self) -> RetentionPolicy:
        """The policy that ``checkpoint_ttl_days`` stands for; for ``retention``'s sweeps."""
        days = self.checkpoint_ttl_days
        return RetentionPolicy(
            ttl=None if days is None else timedelta(days=days),
            respect_pending_interrupts=self.respect_pending_interrupts,
        )

    def retention_policies(self) -> tuple[RetentionPolicy, ...]:
        """Those of ``retention_policy_file``; without one, :meth:`retention_policy` alone.

        Raises:
            ConfigurationError: the file cannot be read, or makes no sense.
        """
        if self.retention_policy_file is None:
            return (self.retention_policy(),)
        return policies_from_file(self.retention_policy_file)

    def __setattr__(self, name: str, value: Any) -> None:
        # pydantic refuses this too, and prints the value as it does.
        raise AttributeError(f"{name} cannot be changed: a {type(self).__name__} is frozen")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        # A copy made with model_copy(update=…) or model_construct() was not validated.
        for name, value in super().__repr_args__():
            yield name, ConnectionString(value) if name == "connection_string" else value

    @model_validator(mode="wrap")
    @classmethod
    def _without_values(cls, data: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return check(data)
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False, include_context=False)
            problems = [
                f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg']}" for each in found
            ]
        # Out here, so that pydantic's error, which has the input, is not this one's context.
        raise PersistenceConfigError(problems)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        problems = list(self._problems(_plain(self.connection_string)))
        if problems:
            raise PersistenceConfigError(problems)
        return self

    def _problems(self, text: str) -> Iterator[str]:
        if self.pool_min_size > self.pool_max_size:
            yield (
                f"pool_min_size ({self.pool_min_size}) is more than pool_max_size "
                f"({self.pool_max_size})"
            )
        if self.backend == "memory":
            return
        if not text.strip():
            needed = "a URL of PostgreSQL" if self.backend == "postgres" else "the path of a file"
            yield (
                f"connection_string: backend {self.backend!r} needs {needed}; pass it, or set "
                "GRAPH_EVENTSTORE_CONNECTION_STRING"
            )
        elif self.backend == "postgres":
            try:
                _postgres_url(text)
            except PersistenceConfigError as error:
                yield from error.problems
        elif _scheme(text.strip()) not in (None, "sqlite") or _PAIR.search(text):
            yield (
                "connection_string: backend 'sqlite' takes a path or a URL that begins with "
                "sqlite:///, and this looks like another database's; set backend='postgres'?"
            )


def target_of(config: PersistenceConfig) -> URL | str:
    """What a connection string names, in the form that savers take. Not to be shown."""
    if config.backend == "postgres":
        return _postgres_url(_plain(config.connection_string))
    return ":memory:" if config.backend == "memory" else _plain(config.connection_string)


def _read_toml(path: Path) -> Mapping[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PersistenceConfigError([f"cannot read {path}: {error.strerror}"]) from error
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        # They quote, and carry along, what may be a password; where it is will do.
        place = re.search(r"at (line \d+, column \d+|end of document)", str(error))
        problem = f"{path} is no TOML in UTF-8{f' ({place[0]})' if place else ''}"
    else:
        table = document.get("persistence", document)
        if isinstance(table, Mapping):
            return table
        problem = f"{path}: persistence must be a table, [persistence]"
    raise PersistenceConfigError([problem])


def _scheme(text: str) -> str | None:
    found = _SCHEME.match(text)
    return found[1] if found else None


def _postgres_url(text: str) -> URL:
    """What a connection string of any form says, as the URL that SQLAlchemy takes.

    Whatever could be misread is refused here, because drivers quote what they cannot use:
    the half of a password that was taken for a host or a port.

    Raises:
        PersistenceConfigError: it cannot be read; says why without quoting it.
    """
    text = text.strip()  # such as the end of the line that it was read from
    scheme = _scheme(text)
    if scheme not in _SCHEMES and (scheme or not _PAIR.search(text)):
        raise _refused(
            "backend 'postgres' takes a URL that begins with postgresql://, or key=value pairs "
            "(host=… dbname=…)"
        )
    if scheme and text.count("@") > 1:
        raise _refused("write %40 for an @ within the user name, password or options")
    url = None
    if scheme:
        with suppress(ArgumentError, ValueError):  # several hosts, say, which libpq reads
            url = make_url(text)
    url = url or _as_libpq_reads(text)
    password = url.query.get("password") if url else None
    if url and isinstance(password, str):
        # In its own place SQLAlchemy hides it wherever it shows the URL.
        url = url.set(password=password).difference_update_query(["password"])
    if url is None or "password" in url.query or not _is_plausible(url):
        raise _refused(
            "cannot be read; in a URL every special character of user name and password is "
            "written as %XX, and a key=value pair quotes its value"
        )
    return url


def _is_plausible(url: URL) -> bool:
    """Whether no part of a password has been taken for a host, a database or a port."""
    ports = url.query.get("port", "") if url.port is None else str(url.port)
    return "@" not in f"{url.host or ''}{url.database or ''}" and (
        isinstance(ports, str) and all(_is_port(port) for port in ports.split(",") if ports)
    )


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6 and 0 < int(text) < 2**16


def _as_libpq_reads(text: str) -> URL | None:
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise _refused(
            "reading this form needs psycopg; pip install 'graph-eventstore[postgres]'"
        ) from error
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(text).items()}
    except ProgrammingError:  # quotes what it stumbled upon
        return None
    return URL.create(
        "postgresql+psycopg",
        username=found.pop("user", None),
        password=found.pop("password", None),
        database=found.pop("dbname", None),
        query=found,
    )


def _refused(why: str) -> PersistenceConfigError:
    return PersistenceConfigError([f"connection_string: {why}"])
