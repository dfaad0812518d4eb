"""The command ``transcript``: a conversation as a support person reads it, from the log alone.

Owns its layout. What counts as a message, and what is said of other events, is decided in
``eventstore.explain.transcript``. Needs no application: threads of graphs and those that LangGraph
wrote through the saver are read alike.
"""

from __future__ import annotations

import textwrap
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from typing import Any, Final

import typer

from eventstore import EventStore, RecordedEvent
from eventstore.cli.options import (
    All,
    Db,
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
from eventstore.concurrency import iterate_sync
from eventstore.explain import langgraph
from eventstore.explain.states import state_at
from eventstore.explain.transcript import Line, call_text, of_values, transcript
from eventstore.explain.values import counted, safe
from eventstore.models import from_micros
from graph.types import START

_STYLES: Final = {
    "user": "bold cyan",
    "assistant": "bold green",
    "tool": "bold blue",
    "question": "bold yellow",
    "answer": "bold yellow",
    "error": "bold red",
    "edit": "bold magenta",
    "removed": "bold magenta",
}
_INDENT: Final = "    "


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("transcript")(show)


def show(
    thread_id: ThreadId,
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    ns: Ns = "",
    limit: Limit = 200,
    everything: All = False,
    reverse: Reverse = False,
    as_json: Json = False,
) -> None:
    """Show a conversation, oldest first: who said what, tool calls and results, questions, answers,
    edits and errors.

    Works without the application, and for threads that LangGraph wrote. JSON: a line for each.
    """
    out = Output(as_json)
    with reading(Target(db, tenant, schema)) as store:
        info = store.thread(thread_id)
        if langgraph.is_langgraph(info):
            lines = _saved_lines(store, thread_id, ns)
        elif store.head(thread_id, ns).seq:
            lines = iterate_sync(_lines(store, thread_id, ns))
        else:
            raise no_such_log(thread_id, ns)
        kept: deque[Line] = deque(maxlen=None if everything else limit)
        count = 0
        for line in lines:
            kept.append(line)
            count += 1
    if reverse:
        kept.reverse()
    for line in kept:
        if as_json:
            out.json(_json(line))
        else:
            _print(out, line)
    if count > len(kept):
        out.note(f"{counted(count - len(kept), 'earlier line')} not shown; pass --limit or --all")
    elif not count:
        out.note("nothing was said")


async def _lines(store: EventStore, thread_id: str, ns: str) -> AsyncGenerator[Line, None]:
    """The lines of the log that led to the end of a thread, through forks; what was trimmed is
    shown as far as the state keeps it.
    """
    replay = await store.core.replay(thread_id, ns, snapshots=False)
    if replay.snapshot is not None:
        at = replay.snapshot.position
        found = await state_at(store.core, thread_id, at, None)
        if found is not None:
            for line in of_values(at, found.values, found.state.created_us):
                yield line
    async with aclosing(replay.events) as pages:
        async for page in pages:
            for line in transcript(page):
                yield line


def _saved_lines(store: EventStore, thread_id: str, ns: str) -> Iterator[Line]:
    """The lines of a thread that LangGraph wrote; a message that it stores again is one line."""
    seen: set[str] = set()
    for line in transcript(_saved_events(store, thread_id, ns)):
        if line.kind == "message" and line.message_id is not None:
            if line.message_id in seen:
                continue
            seen.add(line.message_id)
        yield line


def _saved_events(store: EventStore, thread_id: str, ns: str) -> Iterator[RecordedEvent]:
    """The events of a namespace in the order of what happened.

    Tasks store what they write before the checkpoint that it leads to, or right behind it, and
    sometimes before the one that they belong to. A checkpoint is told which nodes wrote its
    channels, so it is held back until the next one.
    """
    known: set[Any] = set()
    early: dict[Any, list[langgraph.Entry]] = {}
    nodes: dict[Any, dict[str, set[str]]] = {}
    held: list[langgraph.Entry] = []
    parent, late = None, list[langgraph.Entry]()
    for entry in langgraph.entries(store, thread_id):
        if entry.ns != ns:
            continue
        event = entry.event
        data = event.data if isinstance(event.data, dict) else {}
        name = data.get("checkpoint")
        if langgraph.is_checkpoint(entry):
            yield from _told([*late, *held], nodes)
            known.add(name)
            held = [entry, *early.pop(name, ())]
            parent, late = data.get("parent"), []
            continue
        for channel, _ in data.get("writes", ()):
            found = nodes.setdefault(name, {}).setdefault(channel, set())
            found |= {data.get("node", "")} - {START}
        if name is not None and name == parent:
            late.append(entry)
        elif name is None or name in known:
            held.append(entry)
        else:
            early.setdefault(name, []).append(entry)
    if not known:
        raise no_such_log(thread_id, ns)
    yield from _told([*late, *held], nodes)
    for others in early.values():
        yield from _told(others, nodes)


def _told(
    held: Iterable[langgraph.Entry], nodes: dict[Any, dict[str, set[str]]]
) -> Iterator[RecordedEvent]:
    """A checkpoint, told which nodes wrote its channels, and the events behind it."""
    for entry in held:
        event = entry.event
        if langgraph.is_checkpoint(entry):
            data = event.data if isinstance(event.data, dict) else {}
            wrote = nodes.pop(data.get("parent"), {})
            named = {channel: "/".join(sorted(found)) for channel, found in wrote.items()}
            event = event._replace(data={**data, "nodes": named})
        yield event


def _json(line: Line) -> dict[str, Any]:
    return {**line.as_json(), **line.extra, "recorded_at": iso(from_micros(line.recorded_us))}


def _print(out: Output, line: Line) -> None:
    is_message = line.kind == "message"
    who = line.role if is_message else line.kind
    name = line.extra.get("name")
    parts = [who, str(name) if name else "", f"({line.node})" if line.node else ""]
    head = " ".join(safe(part) for part in parts if part)
    out.say(f"{moment(from_micros(line.recorded_us))}  {head}", _STYLES.get(who))
    for text in line.text.splitlines():
        _print_text(out, safe(text))
    for call in line.calls:
        _print_text(out, f"→ {call_text(call)}")
    out.say()


def _print_text(out: Output, text: str) -> None:
    """A line of text, indented, and broken at the width of a terminal."""
    width = out.width
    if width is None:
        out.say(f"{_INDENT}{text}")
        return
    for part in textwrap.wrap(text, max(width - len(_INDENT), 20)) or [""]:
        out.say(f"{_INDENT}{part}")
