"""Commands about states: ``history`` and ``diff``.

The application's reducers compute a state from events, so these commands load its graph
(``--app``). Without one, ``history`` shows what the log alone contains.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import typer

from eventstore import EventStore, PositionNotFoundError, RecordedEvent
from eventstore.cli.application import codec_of, load_app
from eventstore.cli.exits import MISSING, USAGE, Failed
from eventstore.cli.options import (
    All,
    App,
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
    reading,
)
from eventstore.cli.output import Output, iso, moment
from eventstore.cli.threads import no_such_log
from eventstore.concurrency import iterate_sync, run_sync
from eventstore.explain import compare, describe, langgraph
from eventstore.explain.values import block, cut, line, safe
from graph import StateSnapshot
from graph.app import CompiledGraph
from graph.read.history import Reader
from graph.read.subgraphs import graph_of
from graph.run.address import Address
from graph.state.state import checkpoint_id
from graph.types import RunnableConfig

T = TypeVar("T")

LATEST: Final = "latest"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("history")(history)
    app.command("diff")(diff)


# --- history ----------------------------------------------------------------------------


def history(
    thread_id: ThreadId,
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    app: App = None,
    ns: Ns = "",
    limit: Limit = 30,
    everything: All = False,
    reverse: Reverse = False,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """Show the history of a thread, oldest first, of a long one the end. JSON: one document.

    With --app: its checkpoints, with step, next nodes and the state keys that changed (with --full
    their values). Without: the runs, tasks, questions, edits, forks and errors in its log. Of a
    LangGraph thread: its checkpoints, without --app.
    """
    out = Output(as_json)
    shows = _Shown(None if everything else limit, reverse, full)
    graph = load_app(app) if app else None
    with reading(Target(db, tenant, schema), codec_of(graph)) as store:
        info = store.thread(thread_id)
        if langgraph.is_langgraph(info):
            _print_saved(out, store, thread_id, ns, shows)
            return
        if not store.head(thread_id, ns).seq:
            raise no_such_log(thread_id, ns)
        if graph is None:
            _print_log(out, store, thread_id, ns, shows)
        else:
            _print_checkpoints(out, reader_of(graph, store, ns), thread_id, ns, shows)


class _Shown(NamedTuple):
    """How much of a history is printed, and in which order."""

    limit: int | None
    newest_first: bool
    full: bool

    def ordered(self, oldest_first: Iterable[T]) -> list[T]:
        """The newest entries, in order."""
        found = list(oldest_first)
        return found[::-1] if self.newest_first else found


def _print_saved(out: Output, store: EventStore, thread_id: str, ns: str, shows: _Shown) -> None:
    """The checkpoints of a LangGraph thread."""
    newest: deque[langgraph.Entry] = deque(maxlen=shows.limit)
    for entry in langgraph.entries(store, thread_id):
        if langgraph.is_checkpoint(entry) and entry.ns == ns:
            newest.append(entry)
    if not newest:
        raise no_such_log(thread_id, ns)
    entries = shows.ordered(newest)
    if out.as_json:
        found = [_saved_json(entry, shows.full) for entry in entries]
        out.json({"thread_id": thread_id, "ns": ns, "checkpoints": found})
        return
    rows = []
    for entry in entries:
        data = entry.event.data
        asked = langgraph.interrupts(entry.saved) if entry.saved is not None else []
        changed = ", ".join(map(safe, data.get("changed", ()))) or "?"
        waits = "".join(f" (asks: {line(each['value'], chars=40)})" for each in asked)
        at = moment(entry.event.recorded_at)
        facts = (entry.event.seq, data.get("step"), at, data.get("source"), changed + waits)
        rows.append((*facts, data.get("checkpoint")))
    names = ("SEQ", "STEP", "RECORDED (UTC)", "SOURCE", "CHANGED", "CHECKPOINT")
    out.table(names, rows, right="SEQ STEP")
    if shows.full:
        for entry in entries:
            out.say(f"\nseq {entry.event.seq}\n{block(entry.event.data.get('changed'))}")


def _saved_json(entry: langgraph.Entry, full: bool) -> dict[str, Any]:
    data = dict(entry.event.data)
    changed = data.pop("changed", {})
    found = {"seq": entry.event.seq, "recorded_at": iso(entry.event.recorded_at), **data}
    if entry.saved is None:
        return found
    found["changed"] = list(changed)
    found["metadata"] = langgraph.metadata(entry.saved)
    found["questions"] = langgraph.interrupts(entry.saved)
    return {**found, "values": langgraph.values(entry.saved)} if full else found


def _print_log(out: Output, store: EventStore, thread_id: str, ns: str, shows: _Shown) -> None:
    summary = describe.Summary()
    newest: deque[RecordedEvent] = deque(maxlen=shows.limit)
    for event in store.read(thread_id, ns):
        summary.add(event)
        newest.append(event)
    events = shows.ordered(newest)
    if out.as_json:
        listed = [_entry_json(event) for event in events]
        out.json({"thread_id": thread_id, "ns": ns, "summary": summary.as_json(), "events": listed})
        return
    for each in summary.lines():
        out.say(each)
    out.say()
    names = ("SEQ", "RECORDED (UTC)", "KIND", "STEP", "NODE", "WHAT")
    rows = [
        (
            event.seq,
            moment(event.recorded_at),
            describe.kind_of(event),
            _or_blank(describe.step_of(event)),
            describe.node_of(event),
            describe.sentence(event),
        )
        for event in events
    ]
    out.table(names, rows, right="SEQ STEP")
    if shows.full:
        for event in events:
            out.say(f"\nseq {event.seq}\n{block(event.data)}")


def _or_blank(number: int | None) -> int | str:
    return "" if number is None else number


def _entry_json(event: RecordedEvent) -> dict[str, Any]:
    data = event.data if isinstance(event.data, dict) else {}
    found: dict[str, Any] = {
        "seq": event.seq,
        "recorded_at": iso(event.recorded_at),
        "kind": describe.kind_of(event),
        "step": describe.step_of(event),
        "node": describe.node_of(event) or None,
        "writes": describe.written_keys(data),
        "next": describe.next_nodes(data),
        "says": describe.sentence(event),
    }
    if found["kind"] == "interrupt":
        found["questions"] = list(describe.interrupts(data))
    return found


def reader_of(graph: CompiledGraph, store: EventStore, ns: str) -> Reader:
    """The reader of the states in a log of this store."""
    reader: Reader = graph_of(graph, ns).reader_on(store.core)
    return reader


def _print_checkpoints(out: Output, reader: Reader, thread_id: str, ns: str, shows: _Shown) -> None:
    newest = list(islice(_with_changes(reader, thread_id, ns), shows.limit))
    shown = shows.ordered(reversed(newest))
    if out.as_json:
        entries = [_checkpoint_json(snapshot, changed, shows.full) for snapshot, changed in shown]
        out.json({"thread_id": thread_id, "ns": ns, "checkpoints": entries})
        return
    names = ("SEQ", "STEP", "CREATED (UTC)", "SOURCE", "NEXT", "CHANGED", "CHECKPOINT")
    rows = []
    for snapshot, changed in shown:
        metadata = snapshot.metadata or {}
        next_nodes = ", ".join(snapshot.next)
        asked = "".join(f" (asks: {line(each.value, chars=40)})" for each in snapshot.interrupts)
        place = place_of(snapshot)
        rows.append(
            (
                place["seq"],
                metadata.get("step"),
                _time(snapshot),
                metadata.get("source"),
                next_nodes + asked,
                ", ".join(changed),
                place["checkpoint_id"],
            )
        )
    out.table(names, rows, right="SEQ STEP")
    if shows.full:
        for snapshot, changed in shown:
            values = {key: snapshot.values.get(key) for key in changed}
            out.say(f"\nseq {place_of(snapshot)['seq']}\n{block(values)}")


def _with_changes(
    reader: Reader, thread_id: str, ns: str
) -> Iterator[tuple[StateSnapshot, list[str]]]:
    """The checkpoints, newest first, each with the state keys that differ from its parent's."""
    newer: StateSnapshot | None = None
    for snapshot in iterate_sync(reader.history(thread_id, None, ns, every=True)):
        if newer is not None:
            yield newer, _changed(reader, snapshot, newer)
        newer = snapshot
    if newer is not None:
        yield newer, _changed(reader, None, newer)


def _changed(reader: Reader, before: StateSnapshot | None, after: StateSnapshot) -> list[str]:
    parent = after.parent_config
    if parent is None:
        old: dict[str, Any] = {}
    elif before is not None and place_of(before)["checkpoint_id"] == _id(parent):
        old = before.values
    else:  # the parent is not the next one in the log, or was not read
        try:
            old = run_sync(reader.state(Address.of(parent))).values
        except PositionNotFoundError:  # trimmed
            old = {}
    return [each.path for each in compare.channels(old, after.values)]


def _id(config: RunnableConfig) -> str:
    return str(config["configurable"].get("checkpoint_id", ""))


def place_of(snapshot: StateSnapshot) -> dict[str, Any]:
    """The id of a checkpoint, and its seq in the log."""
    at = Address.of(snapshot.config).position
    return {"checkpoint_id": _id(snapshot.config), "seq": at.seq if at else 0}


def _time(snapshot: StateSnapshot) -> str:
    return (snapshot.created_at or "")[:19].replace("T", " ")


def _checkpoint_json(snapshot: StateSnapshot, changed: list[str], full: bool) -> dict[str, Any]:
    metadata = dict(snapshot.metadata or {})
    found = {
        **place_of(snapshot),
        "thread_id": snapshot.config["configurable"]["thread_id"],
        "parent_id": _id(snapshot.parent_config) if snapshot.parent_config else None,
        "step": metadata.pop("step", None),
        "source": metadata.pop("source", None),
        "created_at": snapshot.created_at,
        "next": list(snapshot.next),
        "changed": changed,
        "tasks": [{"name": task.name, "error": task.error} for task in snapshot.tasks],
        "questions": [{"id": each.id, "value": each.value} for each in snapshot.interrupts],
        "metadata": metadata,
    }
    return {**found, "values": snapshot.values} if full else found


# --- diff -------------------------------------------------------------------------------


def diff(
    thread_id: ThreadId,
    db: Db,
    before: Annotated[str, typer.Argument(metavar="A", help="A checkpoint, by its id or its seq.")],
    after: Annotated[
        str, typer.Argument(metavar="B", help="The checkpoint to compare it with.")
    ] = LATEST,
    tenant: Tenant = "default",
    schema: Schema = None,
    app: App = None,
    ns: Ns = "",
    full: Full = False,
    as_json: Json = False,
) -> None:
    """Compare the states at two checkpoints: what was added, removed, changed or appended.

    Requires --app, except for LangGraph threads: the application's reducers compute the states.
    JSON: one document.
    """
    out = Output(as_json)
    if app is None:
        with reading(Target(db, tenant, schema)) as store:
            if langgraph.is_langgraph(store.thread(thread_id)):
                _diff_saved(out, store, thread_id, ns, (before, after), full)
                return
        raise Failed(
            "--app is required: the application's reducers compute the states to compare; pass "
            "--app module:graph, or see the recorded writes with `eventstore events`",
            USAGE,
        )
    graph = load_app(app)
    with reading(Target(db, tenant, schema), codec_of(graph)) as store:
        store.thread(thread_id)
        reader = reader_of(graph, store, ns)
        one, other = (_state(reader, store, thread_id, ns, text) for text in (before, after))
    _print_diff(out, thread_id, (_at(one), _at(other)), (one.values, other.values), full)


def _diff_saved(
    out: Output, store: EventStore, thread_id: str, ns: str, texts: tuple[str, str], full: bool
) -> None:
    """Compare two checkpoints of a LangGraph thread."""
    places, values = [], []
    for text in texts:
        entry = langgraph.find(store, thread_id, ns, text)
        if entry is None or entry.saved is None:
            raise Failed(
                f"thread {thread_id!r} has no readable checkpoint {text!r} in namespace {ns!r}; "
                "`eventstore history` lists them",
                MISSING,
            )
        places.append(
            {
                "checkpoint_id": entry.saved.id,
                "seq": entry.event.seq,
                "step": entry.event.data.get("step"),
                "created_at": entry.event.recorded_at.isoformat(),
            }
        )
        values.append(langgraph.values(entry.saved))
    _print_diff(out, thread_id, (places[0], places[1]), (values[0], values[1]), full)


def _print_diff(
    out: Output,
    thread_id: str,
    places: tuple[dict[str, Any], dict[str, Any]],
    values: tuple[Any, Any],
    full: bool,
) -> None:
    changes = list(compare.changes(*values))
    named = dict(zip(("from", "to"), places, strict=True))
    if out.as_json:
        out.json({"thread_id": thread_id, **named, "changes": [each.as_json() for each in changes]})
        return
    for name, at in named.items():
        created = (at["created_at"] or "")[:19].replace("T", " ")
        when = f"{created} UTC" if created else "before the first event"
        out.say(f"{name:<4}  seq {at['seq']}, step {at['step']}, {when}, {at['checkpoint_id']}")
    out.say()
    if not changes:
        out.say("no difference")
    elif full:
        for change in changes:
            out.say(f"{change.kind} {safe(change.path)}")
            out.say("\n".join(f"    {each}" for each in block(change.values()).split("\n")))
    else:
        rows = [(each.kind, each.path, cut(each.line(), 200)) for each in changes]
        out.table(("CHANGE", "WHERE", "WHAT"), rows)


def _at(snapshot: StateSnapshot) -> dict[str, Any]:
    step = (snapshot.metadata or {}).get("step")
    return {**place_of(snapshot), "step": step, "created_at": snapshot.created_at}


def _state(reader: Reader, store: EventStore, thread_id: str, ns: str, text: str) -> StateSnapshot:
    """The state at a checkpoint, given by its id, its seq or ``latest``."""
    place: dict[str, Any] = {"thread_id": thread_id, "checkpoint_ns": ns}
    if re.fullmatch("[0-9]{1,12}", text):
        at = store.head(thread_id, ns).position._replace(seq=int(text))
        place["checkpoint_id"] = checkpoint_id(at)
    elif text != LATEST:
        place["checkpoint_id"] = text
    return run_sync(reader.state(Address.of({"configurable": place})))
