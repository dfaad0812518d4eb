"""``retention archive``, ``restore`` and ``erase``; ``archive ls`` and ``archive verify``.

Everything about threads in archives. Commands that remove threads from the database ask for
confirmation first.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from eventstore import ArchiveError, CorruptEventError, ThreadNotFoundError
from eventstore.cli import exits, failures
from eventstore.cli.exits import FOUND, MISSING, Failed
from eventstore.cli.options import (
    Db,
    Json,
    Schema,
    Target,
    Tenant,
    ThreadId,
    Yes,
    confirm,
    parse_duration,
    reading,
    writing,
)
from eventstore.cli.output import Output, ago, iso, size
from eventstore.cli.threads import parsed_metadata, thread_json
from eventstore.explain.values import counted, safe
from retention.archives import (
    Archive,
    Archived,
    PruningRefusedError,
    archive_and_prune,
    archive_thread,
)
from retention.archives import restore as restore_thread
from retention.erasing import Erasure, Forks
from retention.erasing import erase as erase_everywhere

archive = typer.Typer(
    name="archive",
    help="Inspect an archive of threads. Needs no database.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Place = Annotated[
    str,
    typer.Option(
        "--archive",
        envvar="EVENTSTORE_ARCHIVE",
        metavar="URL",
        help="file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the group ``archive``, which works without a database."""
    archive.command("ls")(list_archive)
    archive.command("verify")(verify_archive)
    app.add_typer(archive)


def register_retention(app: typer.Typer) -> None:
    """Add the commands on threads of a database to the group ``retention``."""
    app.command("archive")(archive_threads)
    app.command("restore")(restore)
    app.command("erase")(erase)


# --- threads of a database --------------------------------------------------------------


def archive_threads(
    threads: Annotated[list[str], typer.Argument(metavar="THREAD…")],
    db: Db,
    place: Place,
    tenant: Tenant = "default",
    schema: Schema = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also remove them from the database.")
    ] = False,
    reason: Annotated[
        str, typer.Option(help="With --prune: the reason in the tombstone.")
    ] = "archived",
    by: Annotated[str | None, typer.Option(help="With --prune: who asked for it.")] = None,
    despite_pin: Annotated[
        bool,
        typer.Option("--despite-pin", help="With --prune: include pinned and waiting threads."),
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Write threads, as they are now, to an archive. JSON: a line for each.

    With --prune, each thread is removed from the database once its file was read back and compared,
    and only if it has not changed since; this asks for confirmation. Pinned threads, and threads
    that wait for a resume value, stay. If a thread fails, the others are still archived; the exit
    code is that of the first failure.
    """
    out, where = Output(as_json), Archive(place)
    if prune:
        many = counted(len(threads), "thread")
        confirm(f"Archive {many} and remove them from the database?", yes)
    code = exits.OK
    opened = writing if prune else reading
    with (
        opened(Target(db, tenant, schema)) as store,
        out.progress("archiving", len(threads)) as advance,
    ):
        for thread_id in threads:
            try:
                if prune:
                    moved = archive_and_prune(
                        store,
                        where,
                        thread_id,
                        reason,
                        asked_by=by or getpass.getuser(),
                        despite_pin=despite_pin,
                    )
                    if moved is None:
                        raise Failed(
                            f"thread {thread_id!r} changed while it was archived and was kept; "
                            "try again",
                            FOUND,
                        )
                    _print_archived(out, moved, "moved to")
                else:
                    _print_archived(out, archive_thread(store, where, thread_id), "archived as")
            except (ThreadNotFoundError, CorruptEventError, PruningRefusedError, Failed) as error:
                out.note(f"eventstore: {safe(failures.message_of(error))}")
                code = code or failures.code_of(error)
            advance(1)
    if code:
        raise typer.Exit(code)


def _print_archived(out: Output, archived: Archived, what: str) -> None:
    if out.as_json:
        out.json(_archived_json(archived))
    else:
        out.say(f"{safe(archived.thread_id)} {what} {safe(archived.name)}")


def restore(
    thread_id: ThreadId,
    db: Db,
    place: Place,
    tenant: Tenant = "default",
    schema: Schema = None,
    generation: Annotated[
        int | None,
        typer.Option(
            min=0, help="0 for the first thread of that name, and so on; by default the last."
        ),
    ] = None,
    pin: Annotated[
        str | None, typer.Option("--pin", metavar="REASON", help="Pin it, for this reason.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="With --pin: who asked for it; by default the user of this computer."),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Its own time to live, counted from its last event."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Load a thread from an archive, unchanged; its file stays there. JSON: the thread.

    Its last event keeps its age, so the next sweep may prune it again; --pin or --ttl prevent that.
    """
    length = None if ttl is None else parse_duration(ttl)
    pinned = None if pin is None else (pin, by or getpass.getuser())
    out, where = Output(as_json), Archive(place)
    with writing(Target(db, tenant, schema)) as store:
        info = restore_thread(
            store, where, thread_id, generation=generation, pin=pinned, ttl=length
        )
    if as_json:
        out.json(thread_json(info))
    else:
        out.say(f"{safe(info.thread_id)} restored")


def erase(
    db: Db,
    reason: Annotated[str, typer.Option(help="Kept in the tombstone; do not name the person.")],
    thread_id: Annotated[str | None, typer.Argument(metavar="[THREAD]")] = None,
    tenant: Tenant = "default",
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            metavar="KEY=VALUE",
            help="Erase all threads with this in their metadata; VALUE is JSON, else text. "
            "Repeatable. Threads that are only in an archive are not found so.",
        ),
    ] = None,
    whole_tenant: Annotated[
        bool, typer.Option("--whole-tenant", help="Erase all threads of the tenant.")
    ] = False,
    schema: Schema = None,
    by: Annotated[
        str | None, typer.Option(help="Who asked for it; by default the user of this computer.")
    ] = None,
    places: Annotated[
        list[str] | None,
        typer.Option(
            "--archive",
            envvar="EVENTSTORE_ARCHIVE",
            metavar="URL",
            help="An archive that may have files of it; pass the option once per archive.",
        ),
    ] = None,
    forks: Annotated[
        Forks, typer.Option(help="What to do about other threads that hold bytes of it.")
    ] = "refuse",
    despite_pin: Annotated[
        bool, typer.Option("--despite-pin", help="Erase pinned threads, too.")
    ] = False,
    vacuum: Annotated[
        bool | None,
        typer.Option(
            "--vacuum/--no-vacuum", help="Rewrite the database's files.", show_default="by size"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be erased.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Erase everything of a thread, a person or a tenant, archives included. Asks for confirmation.

    A tombstone without a name remains: when, why and how much. JSON: one document.
    """
    if sum((thread_id is not None, bool(metadata), whole_tenant)) != 1:
        raise typer.BadParameter("expected either a thread, --metadata or --whole-tenant")
    out = Output(as_json)
    what: dict[str, Any] = {"tenant": tenant} if whole_tenant else {"thread_id": thread_id}
    if metadata:
        what = {"metadata": parsed_metadata(metadata)}
    archives = [Archive(url) for url in places or ()]
    with writing(Target(db, tenant, schema)) as store:

        def work(dry: bool) -> Erasure:
            return erase_everywhere(
                store,
                reason,
                by or getpass.getuser(),
                **what,
                archives=archives,
                forks=forks,
                dry_run=dry,
                despite_pin=despite_pin,
                vacuum=vacuum,
            )

        if dry_run or not yes:
            found = work(True)
            if metadata and not found.threads:
                raise Failed(f"no thread has {', '.join(metadata)} in its metadata", MISSING)
            if dry_run:
                _print_erasure(out, found, "would be erased")
                return
            out.note(_erasure_text(found, "would be erased"))
            confirm("Erase them for good?", yes)
        done = work(False)
        if metadata and not done.threads:
            raise Failed(f"no thread has {', '.join(metadata)} in its metadata", MISSING)
        _print_erasure(out, done, "erased")


def _print_erasure(out: Output, found: Erasure, what: str) -> None:
    if out.as_json:
        out.json(asdict(found))
    else:
        out.say(_erasure_text(found, what))
        for name in (*found.kept, *found.kept_archived):
            out.say(f"still holds bytes of it: {safe(name)}")
    if found.wiped is not None and found.wiped.problem is not None:
        raise Failed(f"erased, but bytes of it may remain: {found.wiped.problem}", FOUND)


def _erasure_text(found: Erasure, what: str) -> str:
    return f"{counted(found.threads, 'thread')} and {counted(found.archived, 'file')} {what}"


# --- the archive alone ------------------------------------------------------------------


def list_archive(
    place: Place,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Only files of this tenant.", show_default="all")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the files of an archive. JSON: a line for each.

    Files whose headers cannot be read are named, and the others are listed; exits with 1 then.
    """
    out, damaged = Output(as_json), list[tuple[str, ArchiveError]]()

    def sound() -> Iterator[Archived]:
        for name, each in Archive(place).scan(quiet=True):
            if not isinstance(each, Archived):
                damaged.append((name, each))
            elif tenant in (None, each.tenant):
                yield each

    _list(out, sound(), tenant)
    for name, problem in damaged:
        out.note(f"eventstore: {safe(name)}: {safe(str(problem))}")
    if damaged:
        raise typer.Exit(FOUND)


def _list(out: Output, found: Iterator[Archived], tenant: str | None) -> None:
    if out.as_json:
        for each in found:
            out.json(_archived_json(each))
        return
    rows = [
        (
            each.thread_id,
            each.tenant,
            ago(each.header.active_at),
            ago(each.header.archived_at),
            each.header.events,
            size(each.size),
            each.name,
        )
        for each in found
    ]
    if not rows:
        out.note(
            "the archive is empty" if tenant is None else f"no files of tenant {safe(repr(tenant))}"
        )
        return
    names = ("THREAD", "TENANT", "ACTIVE", "ARCHIVED", "EVENTS", "SIZE", "FILE")
    out.table(names, rows, right="EVENTS SIZE")


def _archived_json(each: Archived) -> dict[str, Any]:
    header = each.header
    return {
        "thread_id": header.thread_id,
        "tenant": header.tenant,
        "name": each.name,
        "generation": header.generation,
        "created_at": iso(header.created_at),
        "active_at": iso(header.active_at),
        "archived_at": iso(header.archived_at),
        "events": header.events,
        "bytes": each.size,
    }


def verify_archive(place: Place, as_json: Json = False) -> None:
    """Read and check every file of an archive. JSON: a line for each.

    Exits with 1 if a file is damaged.
    """
    out, checked, broken = Output(as_json), 0, []
    with out.progress("verifying", None) as advance:
        for name, problem in Archive(place).verify():
            checked += 1
            if problem is not None:
                broken.append((name, problem))
            if as_json:
                out.json({"name": name, "ok": problem is None, "problem": problem})
            advance(1)
    if not as_json:
        for name, problem in broken:
            out.say(f"{safe(name)}: {safe(problem)}", "red")
        result = f"{len(broken)} damaged" if broken else "all sound"
        out.say(f"{counted(checked, 'file')}, {result}")
    if broken:
        raise typer.Exit(FOUND)
