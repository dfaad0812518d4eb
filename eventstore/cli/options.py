"""What commands have in common: options, opening a database, loading an application."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import unquote

import typer

from eventstore import AsyncEventStore, Codec, ConfigurationError, EventStore
from eventstore.cli.exits import USAGE, Failed
from eventstore.db.migrations import MIGRATIONS
from graph import StateGraph
from graph.app import CompiledGraph

Db = Annotated[
    str,
    typer.Option(
        "--db",
        envvar="EVENTSTORE_DB",
        metavar="PATH|URL",
        help="A SQLite file, or a URL of PostgreSQL. A password is best left to the variable.",
        show_default=False,
    ),
]
Tenant = Annotated[str, typer.Option("--tenant", envvar="EVENTSTORE_TENANT", help="Whose threads.")]
Schema = Annotated[
    str | None,
    typer.Option("--schema", envvar="EVENTSTORE_SCHEMA", help="Schema of the tables (PostgreSQL)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ThreadId = Annotated[str, typer.Argument(metavar="THREAD", help="The thread_id.")]
Ns = Annotated[str, typer.Option("--ns", help="Which log: that of a subgraph, by its name.")]
App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:GRAPH",
        help="The application's graph: a CompiledGraph, a StateGraph, or a function that gives "
        "one. Its code is imported and run.",
    ),
]
Full = Annotated[bool, typer.Option("--full", help="Show values whole.")]
All = Annotated[bool, typer.Option("--all", help="Without a limit.")]


class Target(NamedTuple):
    """Which threads a command is about."""

    db: str
    tenant: str = "default"
    schema: str | None = None


@contextmanager
def reading(target: Target, codec: Codec | None = None) -> Iterator[EventStore]:
    """A store that writes nothing, for the length of a command."""
    store = EventStore(
        target.db,
        tenant=target.tenant,
        schema=target.schema,
        codec=codec or Codec(opaque_types=True),
        read_only=True,
    )
    with store:
        _refuse_memory(store)
        store.setup()  # which here is to look whether there is an event store at all
        yield store


@contextmanager
def writing(target: Target, create: bool = False, setup: bool = True) -> Iterator[EventStore]:
    """A store for the length of a command that changes something.

    Args:
        create: a file that is not there is made.
        setup: the database has to be ours already, and is migrated if need be.
    """
    store = EventStore(
        target.db, tenant=target.tenant, schema=target.schema, codec=Codec(opaque_types=True)
    )
    with store:
        _refuse_memory(store)
        url = store.engine.url
        # It would be created, and a mistyped name would look like an empty database.
        if (
            not create
            and url.get_backend_name() == "sqlite"
            and not Path(_path(url.database)).is_file()
        ):
            raise ConfigurationError(f"there is no database file {url.database!r}")
        if setup:
            if len(store.pending()) == len(MIGRATIONS):
                raise ConfigurationError(
                    f"there is no event store in {shown(store)}; `eventstore migrate` sets one up"
                )
            store.setup()
        yield store


def _refuse_memory(store: EventStore) -> None:
    url = store.engine.url
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigurationError("a database in memory is seen by the process alone that made it")


def _path(database: str | None) -> str:
    text = database or ""
    return unquote(text.removeprefix("file:").partition("?")[0]) if text[:5] == "file:" else text


def shown(store: EventStore) -> str:
    """The name of a database, without a password."""
    url = store.engine.url
    if url.get_backend_name() == "sqlite":
        return _path(url.database)
    return url.set(query={}).render_as_string(hide_password=True)


# --- durations --------------------------------------------------------------------------

_UNITS: Final = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def parse_duration(text: str) -> timedelta:
    """A length of time such as ``30d``, ``12h``, ``1d12h`` or ``90s``."""
    parts = re.findall(r"([0-9]{1,6})([wdhms])", text)
    if not parts or "".join(map("".join, parts)) != text:
        raise typer.BadParameter(f"{text!r} is no duration such as 30d, 12h or 90s")
    found = sum((timedelta(**{_UNITS[unit]: int(count)}) for count, unit in parts), timedelta())
    if not found:
        raise typer.BadParameter(f"{text!r} is no duration: it is nothing")
    return found


# --- the application --------------------------------------------------------------------


def load_app(text: str) -> CompiledGraph:
    """The graph that ``module:graph`` names.

    Raises:
        Failed: there is none.
    """
    name, _, path = text.partition(":")
    if not name or not path:
        raise Failed(f"--app {text!r}: expected module:graph", USAGE)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    try:
        found: Any = importlib.import_module(name)
        for part in path.split("."):
            found = getattr(found, part)
        if not isinstance(found, CompiledGraph | StateGraph) and callable(found):
            found = found()
        if isinstance(found, StateGraph):
            found = found.compile()
    except Exception as error:  # the application's own code
        reason = f"{type(error).__name__}: {error}"
        raise Failed(f"--app {text!r} cannot be loaded: {reason}", USAGE) from error
    if not isinstance(found, CompiledGraph):
        raise Failed(f"--app {text!r} is no graph, but a {type(found).__name__}", USAGE)
    return found


def codec_of(graph: CompiledGraph | None) -> Codec | None:
    """The codec that an application gave its store, with its types under their names."""
    if graph is None:
        return None
    store = getattr(graph.checkpointer, "store", graph.checkpointer)
    return store.codec if isinstance(store, EventStore | AsyncEventStore) else None


def confirmed(question: str) -> bool:
    """Whether somebody at a terminal says yes."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.isatty() and sys.stdin.readline().strip().lower() in ("y", "yes")


def confirm(question: str, yes: bool) -> None:
    """Ask before something is done that cannot be undone.

    Raises:
        Failed: nobody said yes.
    """
    if not yes and not confirmed(question):
        raise Failed("nothing was done; confirm, or give --yes", USAGE)
