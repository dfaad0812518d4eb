"""``export`` and ``import``: threads as files, out of one database and into another.

``import langgraph`` copies threads out of the tables of LangGraph's own savers, and
``export langgraph`` copies them into these.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final
from urllib.parse import quote

import typer

from eventstore import (
    ArchiveError,
    CorruptEventError,
    EventStore,
    EventStoreError,
    ThreadExistsError,
)
from eventstore.cli.application import load_object
from eventstore.cli.exits import FOUND, MISSING, OUTPUT, USAGE, WRITE_ERRORS, Failed
from eventstore.cli.failures import message_of
from eventstore.cli.options import (
    Db,
    Json,
    Schema,
    Target,
    Tenant,
    reading,
    writing,
)
from eventstore.cli.output import Output, size
from eventstore.cli.threads import for_each_thread
from eventstore.explain import langgraph
from eventstore.explain.values import counted, safe
from eventstore.format.archive.dump import Dump

if TYPE_CHECKING:
    from graph.langgraph.transfer import Moved

SUFFIX: Final = ".thread"
STANDARD: Final = "-"

_NAME_CHARS_MAX: Final = 100


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("export")(export)
    app.command("import")(load)
    app.command("import langgraph")(load_langgraph)
    app.command("export langgraph")(export_langgraph)


def export(
    db: Db,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="FILE|DIR", help="A file for one thread, a directory for several."
        ),
    ],
    threads: Annotated[
        list[str] | None, typer.Argument(metavar="[THREAD]…", help="Thread ids; or pass --all.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every thread of the tenant.")] = False,
    tenant: Tenant = "default",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Write threads to files, each complete in itself and verified. JSON: a line for each.

    The database is not changed. One thread is written to a file ("-" is standard output), several
    threads, or --all, to one file each in a directory.
    """
    if bool(threads) == everything:
        raise typer.BadParameter("name threads, or pass --all")
    is_single = not everything and len(threads or ()) == 1 and not Path(to).is_dir()
    if not is_single and not Path(to).is_dir():
        raise Failed(f"--to {to!r} is not a directory; several threads need an existing one", USAGE)
    out = Output(as_json)
    if is_single and to == STANDARD and (as_json or sys.stdout.isatty()):
        raise Failed("--to - writes binary data: redirect it, and do not pass --json", USAGE)
    failed = 0
    with reading(Target(db, tenant, schema)) as store:

        def write(thread_id: str) -> None:
            nonlocal failed
            try:
                with store.dump(thread_id) as dump:
                    path = _write(dump, to, is_single)
            except (CorruptEventError, ArchiveError) as error:
                failed += 1
                out.note(f"eventstore: cannot export {safe(thread_id)}: {safe(str(error))}")
            else:
                _report(out, dump, path, "to")

        left_out = for_each_thread(out, store, "exporting", threads, write)
        for each in left_out.values():
            out.note(f"eventstore: cannot export {safe(str(each.thread_id))}: {safe(each.problem)}")
    if failed or left_out:
        raise typer.Exit(FOUND)


def _write(dump: Dump, to: str, is_single: bool) -> str:
    try:
        if is_single and to == STANDARD:
            for piece in dump:
                sys.stdout.buffer.write(piece)
            return STANDARD
        path = Path(to) if is_single else Path(to, file_name(dump.header.thread_id, dump))
        dump.save(path)
    except BrokenPipeError:
        raise
    except OSError as error:
        code = OUTPUT if error.errno in WRITE_ERRORS else FOUND
        raise Failed(f"cannot write {to!r}: {error}", code) from error
    return str(path)


def file_name(thread_id: str, dump: Dump) -> str:
    """A file name for a thread: readable, valid on every platform, and unique by its key.

    A shell's ``*`` finds it, and no command takes it for an option.
    """
    readable = quote(thread_id.encode("utf-8", "surrogatepass"), safe=" ")[:_NAME_CHARS_MAX]
    readable = re.sub("^[-.~]", lambda first: f"%{ord(first[0]):02X}", readable)
    return f"{readable}~{dump.header.thread_key:016x}{SUFFIX}"


def load(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help='"-" is standard input.')],
    db: Db,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Refuse threads of other tenants.")
    ] = None,
    schema: Schema = None,
    skip: Annotated[
        bool, typer.Option("--skip-existing", help="Do not fail on threads that already exist.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Load threads from files with their names, keys and events. JSON: a line for each.

    Each file is verified first, and then loaded as a whole or not at all. An existing thread is
    never changed.
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
                out.note(f"eventstore: {safe(name)}: {safe(message_of(error))}")
            except (ArchiveError, OSError) as error:
                failed += 1
                out.note(f"eventstore: {safe(name)}: {safe(str(error))}")
            advance(1)
    if failed:
        raise typer.Exit(FOUND)


def _load(out: Output, store: EventStore, name: str, tenant: str | None) -> None:
    source: BinaryIO | str = sys.stdin.buffer if name == STANDARD else name
    with Dump.open(source) as dump:
        owner = store if tenant is not None else store.with_tenant(dump.header.tenant)
        owner.load(dump)
        _report(out, dump, name, "from")


def _report(out: Output, dump: Dump, path: str, direction: str) -> None:
    header = dump.header
    if out.as_json:
        out.json(
            {
                "thread_id": header.thread_id,
                "tenant": header.tenant,
                "file": path,
                "events": header.events,
                "bytes": dump.size,
            }
        )
    elif path != STANDARD:
        events = counted(header.events, "event")
        out.say(f"{safe(header.thread_id)} {direction} {safe(path)} ({events})")


# --- LangGraph --------------------------------------------------------------------------


def load_langgraph(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="The SQLite file or postgresql:// URL of LangGraph's saver."
        ),
    ],
    db: Db,
    threads: Annotated[
        list[str] | None,
        typer.Argument(metavar="[THREAD]…", help="Thread ids; all if none is named."),
    ] = None,
    serde: Annotated[
        str | None,
        typer.Option(
            "--serde",
            metavar="MODULE:NAME",
            help="The serializer of the source, or a function that returns it: an "
            "EncryptedSerializer with its key, say. Its code is imported and run.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what is missing here; write nothing.")
    ] = False,
    tenant: Tenant = "default",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Copy threads of LangGraph's SQLite or PostgreSQL saver, and verify every checkpoint.

    JSON: a line for each thread. The source is only read, and may be in use. Import again to catch
    up, or after an interruption: what is here already is compared and not written again. A thread
    that was continued here stays as it is.
    """
    try:
        from graph.langgraph.transfer import Import
    except ImportError as error:
        raise Failed(
            "import langgraph needs LangGraph; run pip install 'graph-eventstore[langgraph]' "
            f"({error})",
            USAGE,
        ) from error
    out = Output(as_json)
    serializer = _serde(serde) if serde is not None else None
    opening = reading if dry_run else writing
    tally = _Tally(out, tenant, "here", ("source_bytes", "bytes"), dry_run)
    with (
        opening(Target(db, tenant, schema)) as store,
        Import(store, source, serializer) as work,
        out.progress("importing", None if threads else work.source.count()) as advance,
    ):
        for thread_id in threads or ():
            if not work.source.names(thread_id):
                raise Failed(f"the source has no thread {thread_id!r}", MISSING)
        for thread_id in threads or work.source.threads():
            tally.move(thread_id, partial(work.thread, thread_id, advance, dry_run=dry_run))
    tally.tell("in the source", "here")
    if tally.failed:
        raise typer.Exit(FOUND)


def export_langgraph(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="The SQLite file or postgresql:// URL for LangGraph's saver."
        ),
    ],
    db: Db,
    threads: Annotated[
        list[str] | None,
        typer.Argument(metavar="[THREAD]…", help="Thread ids; all of LangGraph if none is named."),
    ] = None,
    serde: Annotated[
        str | None,
        typer.Option(
            "--serde",
            metavar="MODULE:NAME",
            help="The serializer of the threads, or a function that returns it: an "
            "EncryptedSerializer with its key, say. Its code is imported and run.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what is missing there; write nothing.")
    ] = False,
    tenant: Tenant = "default",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Copy threads that LangGraph wrote here into its SQLite or PostgreSQL saver, and verify them.

    JSON: a line for each thread. The database here is only read; tables that the target has not
    are made. Export again to catch up, or after an interruption: what is there already is compared
    and not written again. A thread that was continued there stays as it is.
    """
    try:
        from graph.langgraph.export import Export
    except ImportError as error:
        raise Failed(
            "export langgraph needs LangGraph; run pip install 'graph-eventstore[langgraph]' "
            f"({error})",
            USAGE,
        ) from error
    out = Output(as_json)
    serializer = _serde(serde) if serde is not None else None
    tally = _Tally(out, tenant, "there", ("bytes", "target_bytes"), dry_run)
    with (
        reading(Target(db, tenant, schema)) as store,
        Export(store, target, serializer, dry_run=dry_run) as work,
    ):

        def copy(thread_id: str) -> Moved | None:
            if langgraph.is_langgraph(store.thread(thread_id)):
                return work.thread(thread_id)
            if threads:
                tally.failed += 1
                out.note(f"eventstore: {safe(thread_id)} was not written by LangGraph")
            return None

        def move(thread_id: str) -> None:
            tally.move(thread_id, partial(copy, thread_id))

        left_out = for_each_thread(out, store, "exporting", threads, move)
        for each in left_out.values():
            tally.failed += 1
            out.note(f"eventstore: cannot export {safe(str(each.thread_id))}: {safe(each.problem)}")
    tally.tell("here", "in the target")
    if tally.failed:
        raise typer.Exit(FOUND)


class _Tally:
    """Copies threads from or to LangGraph's tables, tells of each, and counts.

    Args:
        there: where the copies are: ``"here"`` or ``"there"``.
        sizes: what ``--json`` calls the bytes of a thread and those of its copy.
    """

    def __init__(
        self, out: Output, tenant: str, there: str, sizes: tuple[str, str], dry_run: bool
    ) -> None:
        self._out, self._tenant, self._dry_run = out, tenant, dry_run
        self._there, self._sizes = there, sizes
        self._threads = self._checkpoints = self._copied = self._before = self._after = 0
        self.failed = 0

    def move(self, thread_id: str, copy: Callable[[], Moved | None]) -> None:
        """Copy a thread; an error is told, and counts as failed. ``None`` counts as nothing."""
        try:
            moved = copy()
        except EventStoreError as error:
            self.failed += 1
            self._out.note(f"eventstore: {safe(thread_id)}: {safe(message_of(error))}")
            return
        if moved is None:
            return
        self._threads += 1
        self._checkpoints += moved.checkpoints
        self._copied += moved.copied
        self._before += moved.source_bytes
        self._after += moved.stored_bytes
        if self._out.as_json:
            before, after = self._sizes
            self._out.json(
                {
                    "thread_id": thread_id,
                    "tenant": self._tenant,
                    "checkpoints": moved.checkpoints,
                    "copied": moved.copied,
                    before: moved.source_bytes,
                    after: moved.stored_bytes,
                    f"continued_{self._there}": moved.is_ahead,
                    "dry_run": self._dry_run,
                }
            )
        elif moved.is_ahead:
            self._out.say(f"{safe(thread_id)} was continued {self._there} and stays as it is")

    def tell(self, before: str, after: str) -> None:
        """Say how much was copied, and the bytes ``before`` and ``after``."""
        if self._out.as_json:
            return
        what = "to copy" if self._dry_run else "copied, all verified"
        self._out.say(
            f"{counted(self._threads, 'thread')}, {counted(self._checkpoints, 'checkpoint')}: "
            f"{self._copied:,} {what}; {size(self._before)} {before}, {size(self._after)} {after}"
        )
        if self.failed:
            self._out.say(
                f"{counted(self.failed, 'thread')} refused, for the reasons above; what was copied "
                "of them is not verified"
            )


def _serde(text: str) -> Any:
    """The serializer that ``module:name`` names."""
    name, _, path = text.partition(":")
    if not name or not path:
        raise Failed(f"--serde {text!r}: expected module:name, such as shop.keys:serde", USAGE)
    try:
        found = load_object(name, path)
        if not hasattr(found, "loads_typed") and callable(found):
            found = found()
    except Exception as error:  # the application's own code
        reason = f"{type(error).__name__}: {error}"
        raise Failed(f"--serde {text!r} cannot be loaded: {reason}", USAGE) from error
    if not hasattr(found, "loads_typed") or not hasattr(found, "dumps_typed"):
        kind = type(found).__name__
        raise Failed(f"--serde {text!r} is of type {kind}; expected a serializer", USAGE)
    return found
