"""``export`` and ``import``: threads as files, out of one database and into another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final
from urllib.parse import quote

import typer

from eventstore import (
    ArchiveError,
    CorruptEventError,
    EventStore,
    ThreadExistsError,
    ThreadNotFoundError,
)
from eventstore.cli.exits import FOUND, USAGE, Failed, said
from eventstore.cli.options import All, Db, Json, Schema, Target, Tenant, reading, writing
from eventstore.cli.output import Output
from eventstore.cli.stats import thread_ids
from eventstore.cli.values import counted, safe
from eventstore.format.archive.dump import Dump

SUFFIX: Final = ".thread"
STANDARD: Final = "-"

_NAME_CHARS_MAX: Final = 100


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("export")(export)
    app.command("import")(load)


def export(
    db: Db,
    to: Annotated[
        str,
        typer.Option("--to", metavar="FILE|DIR", help="A file for one thread; else a folder."),
    ],
    threads: Annotated[list[str] | None, typer.Argument(metavar="[THREAD]…")] = None,
    everything: All = False,
    tenant: Tenant = "default",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Write threads to files, each complete in itself and verified. JSON: a line for each.

    The database stays as it is. One thread goes to a file ("-": standard output); several, or
    --all, to a folder, each to a file of its own.
    """
    if bool(threads) == everything:
        raise typer.BadParameter("name threads, or give --all")
    single = not everything and len(threads or ()) == 1 and not Path(to).is_dir()
    if not single and not Path(to).is_dir():
        raise Failed(f"--to {to!r} is no folder that is there", USAGE)
    out = Output(as_json)
    if single and to == STANDARD and (as_json or sys.stdout.isatty()):
        raise Failed("a file cannot go to a terminal, nor between lines of JSON", USAGE)
    failed = 0
    with reading(Target(db, tenant, schema)) as store:
        total = len(threads or ()) or sum(store.thread_counts().values())
        with out.progress("exporting", total) as advance:
            for thread_id in threads or thread_ids(store):
                try:
                    with store.dump(thread_id) as dump:
                        path = _write(dump, to, single)
                except ThreadNotFoundError:
                    if threads:
                        raise
                except (CorruptEventError, ArchiveError) as error:
                    failed += 1
                    out.note(f"eventstore: cannot export {safe(thread_id)}: {safe(str(error))}")
                else:
                    _tell(out, dump, path, "to")
                advance(1)
    if failed:
        raise typer.Exit(FOUND)


def _write(dump: Dump, to: str, single: bool) -> str:
    try:
        if single and to == STANDARD:
            for piece in dump:
                sys.stdout.buffer.write(piece)
            return STANDARD
        path = Path(to) if single else Path(to, file_name(dump.header.thread_id, dump))
        dump.save(path)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failed(f"cannot write {to!r}: {error}", FOUND) from error
    return str(path)


def file_name(thread_id: str, dump: Dump) -> str:
    """A name for the file of a thread: harmless, readable, and no other thread's."""
    readable = quote(thread_id.encode("utf-8", "surrogatepass"), safe=" ")[:_NAME_CHARS_MAX]
    return f"{readable}~{dump.header.thread_key:016x}{SUFFIX}"


def load(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help='Or "-": standard input.')],
    db: Db,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Refuse threads of other tenants.")
    ] = None,
    schema: Schema = None,
    skip: Annotated[
        bool, typer.Option("--skip-existing", help="Threads that are there are no failure.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put threads back from files, as they were: names, keys, events. JSON: a line for each.

    Each is verified first, and then there whole or not at all; a thread that is there is never
    changed.
    """
    out, failed = Output(as_json), 0
    with (
        writing(Target(db, tenant or "default", schema)) as store,
        out.progress("importing", len(files)) as advance,
    ):
        for name in files:
            try:
                _load(out, store, name, tenant)
            except ThreadExistsError as error:
                failed += not skip
                out.note(f"eventstore: {safe(name)}: {safe(said(error))}")
            except (ArchiveError, OSError) as error:
                failed += 1
                out.note(f"eventstore: {safe(name)}: {safe(str(error))}")
            advance(1)
    if failed:
        raise typer.Exit(FOUND)


def _load(out: Output, store: EventStore, name: str, tenant: str | None) -> None:
    source: BinaryIO | str = sys.stdin.buffer if name == STANDARD else name
    with Dump.open(source) as dump:
        theirs = dump.header.tenant
        owner = store if tenant is not None else store.with_tenant(theirs)
        owner.load(dump)
        _tell(out, dump, name, "from")


def _tell(out: Output, dump: Dump, path: str, way: str) -> None:
    header = dump.header
    if out.as_json:
        found: dict[str, Any] = {
            "thread_id": header.thread_id,
            "tenant": header.tenant,
            "file": path,
            "events": header.events,
            "bytes": dump.size,
        }
        out.json(found)
    elif path != STANDARD:
        out.say(f"{safe(header.thread_id)} {way} {safe(path)} ({counted(header.events, 'event')})")
