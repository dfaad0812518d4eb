"""Commands that show what is stored: ``threads``, ``show``, ``events``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Final

import typer

from eventstore import CorruptEventError, EventStore, Position, RecordedEvent, Stats, ThreadInfo
from eventstore.cli import describe
from eventstore.cli.exits import MISSING, Failed
from eventstore.cli.options import (
    All,
    Db,
    Full,
    Json,
    Ns,
    Schema,
    Target,
    Tenant,
    ThreadId,
    reading,
)
from eventstore.cli.output import Output, duration, iso, moment, size
from eventstore.cli.values import block, counted, cut, line, safe
from eventstore.models import Status

PAGE: Final = 256

Limit = Annotated[int, typer.Option("--limit", min=1, help="How many, at most.")]
Metadata = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        metavar="KEY=VALUE",
        help="Only threads that have this in their metadata: JSON, or else text. Repeatable.",
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
    status: Annotated[Status | None, typer.Option(help="Only threads of this status.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Only threads whose id begins so.")] = None,
    metadata: Metadata = None,
    limit: Limit = 50,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """List threads, the most recently active first. JSON: a line for each."""
    out = Output(as_json)
    with reading(Target(db, tenant, schema)) as store:
        found = _threads(store, status=status, prefix=prefix, metadata=_wanted(metadata or ()))
        shown = found if everything else islice(found, limit)
        if as_json:
            for info in shown:
                out.json(thread_json(info))
            return
        rows = [
            (
                info.thread_id,
                info.status,
                moment(info.active_at),
                moment(info.created_at),
                "" if info.ttl is None else duration(info.ttl),
                "pinned" if info.pinned else "",
                line(info.metadata, chars=40) if info.metadata else "",
            )
            for info in shown
        ]
        if not rows:
            out.note("no threads")
            return
        names = ("THREAD", "STATUS", "ACTIVE (UTC)", "CREATED (UTC)", "TTL", "PIN", "METADATA")
        out.table(names, rows)
        if next(found, None) is not None:
            out.note(f"only the first {limit}: --limit, --all")


def _threads(store: EventStore, **chosen: Any) -> Iterator[ThreadInfo]:
    after = None
    while page := store.threads(after=after, limit=PAGE, **chosen):
        yield from page
        after = page[-1]


def _wanted(pairs: Any) -> dict[str, Any]:
    wanted = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE")
        try:
            wanted[key] = json.loads(value)
        except ValueError:
            wanted[key] = value
    return wanted


def thread_json(info: ThreadInfo) -> dict[str, Any]:
    """A thread as JSON shows it."""
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
    """Show one thread: what is known of it, its logs, and what it waits for. JSON: one document."""
    out = Output(as_json)
    with reading(Target(db, tenant, schema)) as store:
        info = store.thread(thread_id)
        logs = [_log(store, thread_id, ns) for ns in store.namespaces(thread_id)]
        try:
            stats: Stats | None = store.stats(thread_id)
        except CorruptEventError:
            stats = None  # which event it is `verify` says
        origin = _origin(store, thread_id)
        asked = _asked(store, thread_id) if info.status == "waiting" else []
    if as_json:
        found = thread_json(info)
        found["logs"] = [{**each, "last_at": iso(each["last_at"])} for each in logs]
        found["stored"] = stats and asdict(stats)
        found["forked_from"] = origin
        found["questions"] = asked
        out.json(found)
        return
    pin = info.pin
    why = pin and f"{pin.reason} (by {pin.by}, {moment(pin.at)})"
    out.facts(
        [
            ("thread", info.thread_id),
            ("tenant", info.tenant),
            ("status", info.status),
            ("created", f"{moment(info.created_at)} UTC"),
            ("active", f"{moment(info.active_at)} UTC"),
            ("ttl", None if info.ttl is None else duration(info.ttl)),
            ("pinned", why or ("yes" if info.pinned else None)),
            ("metadata", line(info.metadata) if info.metadata else None),
            ("stored", stats and f"{counted(stats.events, 'event')}, {size(stats.stored_bytes)}"),
            ("snapshots", stats and f"{stats.snapshots}, {size(stats.snapshot_bytes)}"),
            ("forked from", origin and f"{origin['thread_id'] or '?'} at seq {origin['seq']}"),
        ]
    )
    for each in asked:
        out.say(f"waits for    {safe(str(each['node']))}: {line(each['value'])}")
    out.say()
    rows = [
        (each["ns"] or "(root)", each["first"], each["last"], each["kind"], moment(each["last_at"]))
        for each in logs
    ]
    out.table(("LOG", "FIRST", "LAST", "KIND", "RECORDED (UTC)"), rows, right="FIRST LAST")


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
    """The position of another thread that this one goes on from."""
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


def _asked(store: EventStore, thread_id: str) -> list[dict[str, Any]]:
    """What the last stop of a thread asks, as far as it was not answered."""
    last = store.head(thread_id).seq
    found: dict[Any, dict[str, Any]] = {}
    try:
        for event in store.read(thread_id, after=max(0, last - PAGE)):
            kind = describe.kind_of(event)
            if kind == "interrupt":
                found = {each["id"]: dict(each) for each in describe.questions(event.data)}
            elif kind == "resume":
                for answer in event.data["answers"]:
                    found.pop(answer.get("id"), None)
    except CorruptEventError:
        return []  # `verify` is for that; what is known of the thread is shown all the same
    return list(found.values())


# --- events -----------------------------------------------------------------------------


def list_events(
    thread_id: ThreadId,
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    ns: Ns = "",
    after: Annotated[int, typer.Option(min=0, help="Only events behind this seq.")] = 0,
    upto: Annotated[int | None, typer.Option(min=1, help="The last seq to show.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only so many, the newest.")] = None,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """List the events of a log, oldest first. JSON: a line for each, with all of its data."""
    out = Output(as_json)
    with reading(Target(db, tenant, schema)) as store:
        end = store.head(thread_id, ns).seq
        if not end and ns:
            store.thread(thread_id)
            raise Failed(f"thread {thread_id!r} has no log {ns!r}; see `eventstore show`", MISSING)
        if last is not None:
            after = max(after, (end if upto is None else min(upto, end)) - last)
        events = store.read(thread_id, ns, after=after, upto=upto)
        if as_json:
            for event in events:
                out.json(event_json(event))
            return
        out.say(f"{'SEQ':>6}  {'RECORDED (UTC)':<19}  {'KIND':<9}  {'NODE':<14}  DATA", "bold")
        for event in events:
            _print_event(out, event, full)


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
    out.say(f"{start}{key}{line(event.data, chars=room)}")


def event_json(event: RecordedEvent) -> dict[str, Any]:
    """An event as JSON shows it."""
    return {
        "seq": event.seq,
        "kind": describe.kind_of(event),
        "recorded_at": iso(event.recorded_at),
        "key": event.key,
        "bytes": event.size,
        "digest": event.digest.hex(),
        "data": event.data,
    }
