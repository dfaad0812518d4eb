"""Commands that show what is stored: ``threads``, ``show`` and ``events``.

Owns walking the threads of a tenant in pages, and the JSON form of a thread and of an event, for
the other commands too. Nothing here needs the application that wrote the events.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from eventstore import (
    ConfigurationError,
    CorruptEventError,
    EventStore,
    Position,
    RecordedEvent,
    Stats,
    ThreadInfo,
    ThreadNotFoundError,
)
from eventstore.cli.exits import FOUND, MISSING, Failed
from eventstore.cli.options import (
    All,
    Db,
    Full,
    Json,
    Limit,
    Ns,
    Reverse,
    Schema,
    Target,
    Tenant,
    ThreadId,
    parse_moment,
    reading,
)
from eventstore.cli.output import Output, ago, duration, iso, moment, size
from eventstore.concurrency import run_sync
from eventstore.explain import describe, langgraph, questions
from eventstore.explain.transcript import in_brief
from eventstore.explain.values import block, counted, cut, line, safe, text_of
from eventstore.models import Status, ThreadDamage

if TYPE_CHECKING:
    from retention import Match

PAGE: Final = 256

Metadata = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        metavar="KEY=VALUE",
        help="Only threads with this in their metadata; VALUE is JSON, else text. Repeatable.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("threads")(list_threads)
    app.command("show")(show)
    app.command("events")(list_events)


# --- threads ----------------------------------------------------------------------------


def list_threads(
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    status: Annotated[Status | None, typer.Option(help="Only threads with this status.")] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Only threads whose id begins with this.")
    ] = None,
    metadata: Metadata = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only threads active since this time.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only threads last active until this time.")
    ] = None,
    pinned: Annotated[bool, typer.Option("--pinned", help="Only pinned threads.")] = False,
    limit: Limit = 50,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """List threads, the most recently active first. JSON: a line for each thread.

    With --all and --json, they come in the order of their keys, and those that become active
    meanwhile are there, too.
    """
    out, wanted = Output(as_json), parsed_metadata(metadata or ())
    begin, end = (None if each is None else parse_moment(each) for each in (since, until))
    with reading(Target(db, tenant, schema)) as store:
        damaged: dict[int, ThreadDamage] = {}
        found: Iterable[ThreadInfo]
        if everything:
            match = _match(status, wanted)
            found = (
                info
                for info in all_threads(store, damaged)
                if match.fits(info)
                and info.thread_id.startswith(prefix or "")
                and (begin is None or info.active_at >= begin)
                and (end is None or info.active_at <= end)
                and (info.pinned or not pinned)
            )
        else:
            found = store.threads(
                status=status,
                prefix=prefix,
                metadata=wanted,
                active_since=begin,
                active_until=end,
                pinned=True if pinned else None,
                limit=limit + 1,
                on_damage=noted_in(damaged),
            )
        if as_json:
            for info in found if everything else islice(found, limit):
                out.json(thread_json(info))
            report_damaged(out, damaged)
            return
        listed = sorted(found, key=lambda info: info.active_at, reverse=True)
        shown = listed if everything else listed[:limit]
        rows = [
            (
                info.thread_id,
                info.status,
                ago(info.active_at),
                ago(info.created_at),
                "" if info.ttl is None else duration(info.ttl),
                "pinned" if info.pinned else "",
                line(info.metadata, chars=40) if info.metadata else "",
            )
            for info in shown
        ]
        if not rows:
            out.note("no threads")
            report_damaged(out, damaged)
            return
        names = ("THREAD", "STATUS", "ACTIVE", "CREATED", "TTL", "PIN", "METADATA")
        out.table(names, rows)
        if len(shown) < len(listed):
            out.note(f"only the first {limit} are shown; pass --limit or --all for more")
        report_damaged(out, damaged)


def report_damaged(out: Output, damaged: Mapping[int, ThreadDamage]) -> None:
    """Name the threads that a list left out because their rows are damaged, and fail."""
    for each in damaged.values():
        out.note(f"eventstore: {safe(each.problem)}")
    if damaged:
        raise typer.Exit(FOUND)


def parsed_metadata(pairs: Sequence[str]) -> dict[str, Any]:
    """The metadata that ``--metadata`` options name."""
    found = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise typer.BadParameter(f"{pair!r} does not have the form KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _match(status: Status | None, metadata: Mapping[str, Any]) -> Match:
    from retention import Match

    try:
        return Match(status=status, metadata=metadata)
    except TypeError as error:
        raise ConfigurationError(str(error)) from error


def noted_in(damaged: dict[int, ThreadDamage]) -> Callable[[ThreadDamage], None]:
    """Collects threads that a list leaves out because their rows are damaged, by key."""

    def note(damage: ThreadDamage) -> None:
        damaged[damage.thread_key] = damage

    return note


def all_threads(store: EventStore, damaged: dict[int, ThreadDamage]) -> Iterator[ThreadInfo]:
    """Every thread of a tenant, read a page at a time, in the order of their keys.

    Pages by last activity would miss threads that become active meanwhile.

    Args:
        damaged: collects those whose rows are damaged, by key.
    """
    after, note = None, noted_in(damaged)
    while page := run_sync(store.core.scan(after=after, limit=PAGE, on_damage=note)):
        yield from page
        after = page[-1].thread_key


def for_each_thread(
    out: Output,
    store: EventStore,
    title: str,
    names: Sequence[str] | None,
    work: Callable[[str], None],
) -> Mapping[int, ThreadDamage]:
    """Call ``work`` with each named thread, or with every thread of the tenant, under a bar.

    Returns:
        The threads that were left out because their rows are damaged, by key.

    Raises:
        ThreadNotFoundError: a named thread does not exist. Without names, a thread that another
            process deletes meanwhile is skipped.
    """
    total = len(names) if names else sum(store.thread_counts().values())
    damaged: dict[int, ThreadDamage] = {}
    with out.progress(title, total) as advance:
        for thread_id in names or (info.thread_id for info in all_threads(store, damaged)):
            try:
                work(thread_id)
            except ThreadNotFoundError:
                if names:
                    raise
            advance(1)
    return damaged


def thread_json(info: ThreadInfo) -> dict[str, Any]:
    """A thread as ``--json`` prints it."""
    return {
        "thread_id": info.thread_id,
        "tenant": info.tenant,
        "status": info.status,
        "created_at": iso(info.created_at),
        "active_at": iso(info.active_at),
        "ttl_seconds": info.ttl,
        "pinned": info.pinned,
        "pin": info.pin and {"reason": info.pin.reason, "by": info.pin.by, "at": iso(info.pin.at)},
        "metadata": dict(info.metadata),
        "thread_key": f"{info.thread_key:016x}",
    }


# --- one thread -------------------------------------------------------------------------


def show(
    thread_id: ThreadId,
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Show one thread: its status, its logs, and what it waits for. JSON: one document."""
    out = Output(as_json)
    with reading(Target(db, tenant, schema)) as store:
        info = store.thread(thread_id)
        logs = [_log(store, thread_id, ns) for ns in store.namespaces(thread_id)]
        try:
            stats: Stats | None = store.stats(thread_id)
        except CorruptEventError:
            stats = None  # `verify` names the damaged event
        origin = _origin(store, thread_id)
        interrupts = (
            run_sync(questions.pending(store.core, info)) if info.status == "waiting" else []
        )
    if as_json:
        found = thread_json(info)
        found["logs"] = [{**each, "last_at": iso(each["last_at"])} for each in logs]
        found["stored"] = stats and asdict(stats)
        found["forked_from"] = origin
        found["questions"] = interrupts
        out.json(found)
        return
    pin = info.pin
    pinned = pin and f"{pin.reason} (by {pin.by}, {moment(pin.at)})"
    out.facts(
        [
            ("thread", info.thread_id),
            ("tenant", info.tenant),
            ("status", info.status),
            ("created", f"{moment(info.created_at)} UTC ({ago(info.created_at)})"),
            ("active", f"{moment(info.active_at)} UTC ({ago(info.active_at)})"),
            ("ttl", None if info.ttl is None else duration(info.ttl)),
            ("pinned", pinned or ("yes" if info.pinned else None)),
            ("metadata", line(info.metadata) if info.metadata else None),
            ("stored", stats and f"{counted(stats.events, 'event')}, {size(stats.stored_bytes)}"),
            ("snapshots", stats and f"{stats.snapshots}, {size(stats.snapshot_bytes)}"),
            ("forked from", origin and f"{origin['thread_id'] or '?'} at seq {origin['seq']}"),
        ]
    )
    for each in interrupts:
        out.say(f"waits for    {safe(text_of(each['node']))}: {line(each['value'])}")
    out.say()
    rows = [
        (each["ns"] or "(root)", each["first"], each["last"], each["kind"], ago(each["last_at"]))
        for each in logs
    ]
    out.table(("LOG", "FIRST", "LAST", "KIND", "RECORDED"), rows, right="FIRST LAST")


def _log(store: EventStore, thread_id: str, ns: str) -> dict[str, Any]:
    head = store.head(thread_id, ns)
    found: dict[str, Any] = {"ns": ns, "first": 1, "last": head.seq, "kind": "", "last_at": None}
    try:
        at = head.position
        while (lineage := store.lineage(at)).first > 1 and lineage.base is None:
            at = at._replace(seq=lineage.first - 1)
        found["first"] = lineage.first
        for event in store.read(thread_id, ns, after=head.seq - 1):
            found |= {"kind": describe.kind_of(event), "last_at": event.recorded_at}
    except CorruptEventError as error:
        found["kind"] = f"damaged: {error.reason}"
    return found


def _origin(store: EventStore, thread_id: str) -> dict[str, Any] | None:
    """The position in another thread that this one was forked from."""
    at: Position | None = store.head(thread_id).position
    while at is not None and at.seq > 0:
        lineage = store.lineage(at)
        if lineage.base is not None:
            return None
        if lineage.first == 1:
            break
        at = at._replace(seq=lineage.first - 1)
    else:
        return None
    source = lineage.source
    if source is None:
        return None
    owner = store.thread_at(source.thread_key)
    return {"thread_id": owner.thread_id if owner else None, "ns": source.ns, "seq": source.seq}


# --- events -----------------------------------------------------------------------------


def list_events(
    thread_id: ThreadId,
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    ns: Ns = "",
    after: Annotated[int, typer.Option(min=0, help="Only events after this seq.")] = 0,
    upto: Annotated[int | None, typer.Option(min=1, help="Only events up to this seq.")] = None,
    last: Annotated[
        int | None, typer.Option(min=1, help="Only this many of the newest events.")
    ] = None,
    reverse: Reverse = False,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """List the events of a log, oldest first. JSON: a line for each event, with all its data."""
    out = Output(as_json)
    with reading(Target(db, tenant, schema)) as store:
        end = store.head(thread_id, ns).seq
        if not end and ns:
            store.thread(thread_id)
            raise no_such_log(thread_id, ns)
        if last is not None:
            after = max(after, (end if upto is None else min(upto, end)) - last)
        events = _readable(store, thread_id, ns, after, upto)
        if reverse:
            events = reversed(list(events))
        if as_json:
            for event in events:
                out.json(event_json(event))
            return
        out.say(f"{'SEQ':>6}  {'RECORDED (UTC)':<19}  {'KIND':<9}  {'NODE':<14}  DATA", "bold")
        for event in events:
            _print_event(out, event, full)


def _readable(
    store: EventStore, thread_id: str, ns: str, after: int, upto: int | None
) -> Iterator[RecordedEvent]:
    """The events of a log; those of LangGraph's say what happened, not how it is stored."""
    if (
        ns
        or not store.head(thread_id).exists
        or not langgraph.is_langgraph(store.thread(thread_id))
    ):
        return store.read(thread_id, ns, after=after, upto=upto)
    key = store.head(thread_id).thread_key
    return (
        entry.event
        for entry in langgraph.entries(store, thread_id)
        if entry.event.thread_key == key
        and not entry.event.ns
        and entry.event.seq > after
        and (upto is None or entry.event.seq <= upto)
    )


def no_such_log(thread_id: str, ns: str) -> Failed:
    """The error for a namespace in which a thread has no events."""
    return Failed(
        f"thread {thread_id!r} has no log {ns!r}; `eventstore show` lists its logs", MISSING
    )


def _print_event(out: Output, event: RecordedEvent, full: bool) -> None:
    node = cut(safe(describe.node_of(event)), 14)
    at = moment(event.recorded_at)
    start = f"{event.seq:>6}  {at:<19}  {describe.kind_of(event):<9}  {node:<14}  "
    key = f"[{safe(event.key)}] " if event.key is not None else ""
    if full:
        out.say(f"{start}{key}{size(event.size)}")
        out.say("\n".join(f"        {each}" for each in block(event.data).split("\n")))
        return
    room = 200 if out.width is None else max(out.width - len(start) - len(key), 20)
    said = in_brief(event)
    text = line(event.data, chars=room) if said is None else cut(said, room)
    out.say(f"{start}{key}{text}")


def event_json(event: RecordedEvent) -> dict[str, Any]:
    """An event as ``--json`` prints it."""
    return {
        "seq": event.seq,
        "kind": describe.kind_of(event),
        "recorded_at": iso(event.recorded_at),
        "key": event.key,
        "bytes": event.size,
        "digest": event.digest.hex(),
        "data": event.data,
    }
