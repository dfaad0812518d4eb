"""What commands share: options, opening a database, asking to confirm.

Promises that no command creates a database by mistake, that a read-only command changes nothing,
and that no message shows a password.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, NamedTuple
from urllib.parse import unquote

import typer

from eventstore import Codec, ConfigurationError, EventStore
from eventstore.cli.exits import USAGE, Failed
from eventstore.db.migrations import MIGRATIONS

Db = Annotated[
    str,
    typer.Option(
        "--db",
        envvar="EVENTSTORE_DB",
        metavar="PATH|URL",
        help="A SQLite file or a PostgreSQL URL. Keep passwords in the variable, not here.",
        show_default=False,
    ),
]
Tenant = Annotated[
    str, typer.Option("--tenant", envvar="EVENTSTORE_TENANT", help="The tenant of the threads.")
]
Schema = Annotated[
    str | None,
    typer.Option(
        "--schema", envvar="EVENTSTORE_SCHEMA", help="Schema of the tables in PostgreSQL."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
ThreadId = Annotated[str, typer.Argument(metavar="THREAD", help="The thread_id.")]
Threads = Annotated[
    list[str] | None, typer.Argument(metavar="[THREAD]…", help="Thread ids; all if none is named.")
]
Ns = Annotated[str, typer.Option("--ns", help="Namespace of the log of a subgraph.")]
App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:GRAPH",
        help="The application's graph: a CompiledGraph, a StateGraph, or a function that returns "
        "one. Its code is imported and run.",
    ),
]
Full = Annotated[bool, typer.Option("--full", help="Show values in full.")]
LIMIT_MAX: Final = 1_000_000_000

Limit = Annotated[
    int, typer.Option("--limit", min=1, max=LIMIT_MAX, help="Show at most this many.")
]
Reverse = Annotated[bool, typer.Option("--reverse", help="Newest first.")]
All = Annotated[bool, typer.Option("--all", help="Show all, without a limit.")]


class Target(NamedTuple):
    """The database and tenant that a command works on."""

    db: str
    tenant: str = "default"
    schema: str | None = None


@contextmanager
def reading(target: Target, codec: Codec | None = None) -> Iterator[EventStore]:
    """A read-only store, open while a command runs."""
    store = EventStore(
        target.db,
        tenant=target.tenant,
        schema=target.schema,
        codec=codec or Codec(opaque_types=True),
        read_only=True,
    )
    with store:
        _refuse_memory(store)
        store.setup()  # on a read-only store: checks that the tables exist and are up to date
        yield store


@contextmanager
def writing(
    target: Target,
    create: bool = False,
    setup: bool = True,
    other_tables: bool = False,
    codec: Codec | None = None,
) -> Iterator[EventStore]:
    """A writable store, open while a command runs.

    Args:
        create: create a SQLite file that does not exist.
        other_tables: also in a SQLite file that holds tables of another application.
        setup: require an event store in the database, and migrate it if necessary.
        codec: that of the application, if its types are needed.
    """
    store = EventStore(
        target.db,
        tenant=target.tenant,
        schema=target.schema,
        codec=codec or Codec(opaque_types=True),
        allow_other_tables=other_tables,
    )
    with store:
        _refuse_memory(store)
        url = store.engine.url
        # SQLite would create the file, and a mistyped name would look like an empty database.
        if (
            not create
            and url.get_backend_name() == "sqlite"
            and not Path(_path(url.database)).is_file()
        ):
            raise ConfigurationError(
                f"there is no database file {url.database!r}; check --db, or create it with "
                "`eventstore migrate --create`"
            )
        if setup:
            if len(store.pending()) == len(MIGRATIONS):
                raise ConfigurationError(
                    f"no event store in {database_name(store)}; create its tables with "
                    "`eventstore migrate`"
                )
            store.setup()
        yield store


def _refuse_memory(store: EventStore) -> None:
    url = store.engine.url
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigurationError(
            "a database in memory exists only within the process that created it; expected --db "
            "to name a file or a server"
        )


def _path(database: str | None) -> str:
    text = database or ""
    return unquote(text.removeprefix("file:").partition("?")[0]) if text[:5] == "file:" else text


def database_name(store: EventStore) -> str:
    """The path or URL of a store's database, without a password."""
    url = store.engine.url
    if url.get_backend_name() == "sqlite":
        return _path(url.database)
    return url.set(query={}).render_as_string(hide_password=True)


# --- times and durations --------------------------------------------------------------------------

_UNITS: Final = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def parse_duration(text: str) -> timedelta:
    """Parse a length of time such as ``30d``, ``12h``, ``1d12h`` or ``90s``."""
    parts = re.findall(r"([0-9]{1,6})([wdhms])", text)
    if not parts or "".join(map("".join, parts)) != text:
        raise typer.BadParameter(
            f"{text!r} is not a duration; expected a form such as 30d, 12h or 90s"
        )
    found = sum((timedelta(**{_UNITS[unit]: int(count)}) for count, unit in parts), timedelta())
    if not found:
        raise typer.BadParameter(f"the duration {text!r} must be positive")
    return found


def parse_moment(text: str) -> datetime:
    """Parse a time in ISO 8601; without a zone it is UTC."""
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{text!r} is not a time; expected a form such as 2026-01-31T12:00"
        ) from error


def confirmed(question: str) -> bool:
    """Ask a question on standard error; true if a person at a terminal answers yes."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.isatty() and sys.stdin.readline().strip().lower() in ("y", "yes")


def confirm(question: str, yes: bool) -> None:
    """Ask for confirmation, unless ``yes``, before an action that cannot be undone.

    Raises:
        Failed: the action was not confirmed.
    """
    if not yes and not confirmed(question):
        raise Failed(
            "not confirmed, nothing was done; answer y at a terminal, or pass --yes", USAGE
        )
