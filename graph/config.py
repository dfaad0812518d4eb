"""The configuration of a deployment's persistence: ``PersistenceConfig``.

Owns reading it from arguments, the environment and a TOML file, validating it, and turning its
connection string into the target that a saver opens. Promises that the connection string, which
contains the password, appears in no representation, dump, log or error of this module.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
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

from eventstore import ConfigurationError, store
from eventstore.db.connection_string import names_sqlite, postgresql_url
from eventstore.db.engines import backend_of
from eventstore.leases import RUN_LEASE_MAX_S, RUN_LEASE_MIN_S, RUN_LEASE_S
from graph.errors import PersistenceConfigError
from retention import RetentionPolicy, policies_from_file

MASK: Final = "**********"


class ConnectionString(str):
    """A string that drivers can use, and that prints as asterisks.

    ``repr``, ``str`` and formatting, and therefore printing and logging, show asterisks. Code that
    reads a string's characters (psycopg, sqlite3, SQLAlchemy, concatenation, ``encode``) gets the
    real text. :meth:`get_secret_value` returns an ordinary string, for ``pathlib.Path`` say.
    """

    __slots__ = ()

    def get_secret_value(self) -> str:
        """The real text, as an ordinary string."""
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
    # Not the ConnectionString itself: json.dumps() of the dump would write the real text.
    secret = SecretStr(_plain(value))
    return str(ConnectionString(value)) if info.mode_is_json() else secret


def _plain(text: str) -> str:
    return text.get_secret_value() if isinstance(text, ConnectionString) else text


def _or_none(value: Any) -> Any:
    # Neither the environment nor TOML can express None.
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


class PersistenceConfig(BaseSettings):
    """Where threads are stored, and how. Frozen; never shows its connection string.

    Arguments override the environment (``GRAPH_EVENTSTORE_BACKEND``, …), which overrides the file
    that :meth:`from_toml` reads. A setting that a backend does not use is ignored, so that one
    variable turns a deployment's configuration into a test's.

    Attributes:
        backend: ``postgres``, ``sqlite`` or ``memory``.
        connection_string: for PostgreSQL a URL, or ``key=value`` pairs in libpq's syntax; for
            SQLite a path or a ``sqlite:///`` URL. Usable as a string, printed as asterisks
            (:class:`ConnectionString`).
        pool_min_size, pool_max_size: connections kept open, and open at most (PostgreSQL).
        pool_timeout_s: seconds to wait for a free connection (PostgreSQL).
        run_lease_s: seconds without a sign of life after which others take a run for dead.
        checkpoint_ttl_days: days after a thread's last event at which :meth:`retention_policy`
            deletes it; ``None`` (``"none"`` in the environment and in TOML) keeps all threads.
        respect_pending_interrupts: whether that policy keeps threads that wait for a person.
        retention_policy_file: a TOML file of policies that replaces these two settings.
        enable_compression: compress what is written; reading handles both in any case.
        tenant: the tenant of the threads; those of other tenants are invisible.
        durability: ``full`` survives power loss, ``normal`` any crash of the process.
        db_schema: the schema of the tables (PostgreSQL); ``None`` uses the connection's default.

    Raises:
        PersistenceConfigError: a setting is invalid; the message names settings, never values.
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
    run_lease_s: float = Field(default=RUN_LEASE_S, ge=RUN_LEASE_MIN_S, le=RUN_LEASE_MAX_S)
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
        """Read the table ``[persistence]`` of a file, or its top level if there is no such table.

        Args:
            values: settings that override those of the environment and of the file.

        Raises:
            PersistenceConfigError: the file cannot be read, or has unknown keys.
        """
        settings = _read_toml(Path(path))
        unknown = settings.keys() - cls.model_fields.keys()
        if unknown:
            raise PersistenceConfigError(
                [
                    f"{path} has unknown keys {', '.join(sorted(map(repr, unknown)))}; known keys "
                    f"are {', '.join(cls.model_fields)}"
                ]
            )
        return cls(**{**settings, **EnvSettingsSource(cls)(), **values})

    def retention_policy(self) -> RetentionPolicy:
        """The policy given by ``checkpoint_ttl_days``, for the sweeps of ``retention``."""
        days = self.checkpoint_ttl_days
        return RetentionPolicy(
            ttl=None if days is None else timedelta(days=days),
            respect_pending_interrupts=self.respect_pending_interrupts,
        )

    def retention_policies(self) -> tuple[RetentionPolicy, ...]:
        """The policies of ``retention_policy_file``, or :meth:`retention_policy` without a file.

        Raises:
            ConfigurationError: the file cannot be read, or a policy is invalid.
        """
        if self.retention_policy_file is None:
            return (self.retention_policy(),)
        return policies_from_file(self.retention_policy_file)

    def __setattr__(self, name: str, value: Any) -> None:
        # pydantic would refuse this too, but print the value.
        raise AttributeError(f"{name} cannot be changed: a {type(self).__name__} is frozen")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        # model_copy(update=…) and model_construct() set values without validating them.
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
        # Raised outside the handler: pydantic's error, as context, would carry the input along.
        raise PersistenceConfigError(problems)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = list(self._problems(_plain(self.connection_string)))
        if problems:
            raise PersistenceConfigError(problems)
        return self

    def _problems(self, text: str) -> Iterator[str]:
        if self.pool_min_size > self.pool_max_size:
            yield (
                f"pool_min_size ({self.pool_min_size}) must not exceed pool_max_size "
                f"({self.pool_max_size})"
            )
        if self.backend == "memory":
            return
        if not text.strip():
            needed = "a PostgreSQL URL" if self.backend == "postgres" else "a file path"
            yield (
                f"connection_string: backend {self.backend!r} requires {needed}; pass it, or set "
                "GRAPH_EVENTSTORE_CONNECTION_STRING"
            )
        elif self.backend == "postgres":
            try:
                postgresql_url(text)
            except ConfigurationError as error:
                yield f"connection_string: {error}"
        elif not names_sqlite(text):
            yield (
                "connection_string: backend 'sqlite' expects a path or a URL that begins with "
                "sqlite:///; for a PostgreSQL database set backend='postgres'"
            )
        elif text.strip() == "sqlite://":
            yield "connection_string: the URL names no file; set backend='memory' for none"
        else:
            try:
                backend_of(text)
            except ConfigurationError as error:
                yield f"connection_string: {error}"


def target_of(config: PersistenceConfig) -> store.Target:
    """The target that a saver opens. It contains the password: do not print or log it."""
    if config.backend == "postgres":
        return postgresql_url(_plain(config.connection_string))
    return ":memory:" if config.backend == "memory" else _plain(config.connection_string)


def _read_toml(path: Path) -> Mapping[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PersistenceConfigError([f"cannot read {path}: {error.strerror}"]) from error
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        # The parser's message quotes text that may be a password; the position is enough.
        place = re.search(r"at (line \d+, column \d+|end of document)", str(error))
        problem = f"{path} is not valid TOML in UTF-8{f' ({place[0]})' if place else ''}"
    else:
        table = document.get("persistence", document)
        if isinstance(table, Mapping):
            return table
        problem = f"{path}: 'persistence' must be a table, [persistence]"
    raise PersistenceConfigError([problem])
