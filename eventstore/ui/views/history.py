"""How a thread came to be: its branches, its graph with the path taken, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from eventstore import CorruptEventError, RecordedEvent
from eventstore.explain import describe, langgraph
from eventstore.explain.values import text_of
from eventstore.ui import drawing, events, states
from eventstore.ui.pages import Document, Query, command
from graph.errors import GraphError
from graph.read.subgraphs import graph_of
from graph.state.events import updates_of

EVENTS: Final = 1_000
"""Events, the newest, that tell which path was taken."""

BRANCHES: Final = 200
"""Branches in a page."""


def branches(query: Query) -> Document:
    """The branches of a thread, where each went apart, and the threads that were forked from it."""
    source, thread_id = query.source, query.needed("id")
    info = source.run(source.core.thread(thread_id))
    found = source.run(source.core.branches(thread_id))
    head = source.run(source.core.head(thread_id))
    path = events.spans(source, head.position, 1)
    names: dict[int, str | None] = {info.thread_key: thread_id}
    own, others = [], []
    for each in found[:BRANCHES]:
        line: Document = {
            "thread_id": each.thread_id,
            "at": events.place(source, each.at, names),
            "source": events.place(source, each.source, names),
        }
        if each.at.thread_key == info.thread_key:
            line["is_on_path"] = events.is_in(each.at.seq, path)
            own.append(line)
        else:
            others.append(line)
    ends = [line["at"]["seq"] - 1 for line in own] + [head.seq]
    for line, end in zip(own, ends[1:], strict=True):
        line["end"] = end
    begins = [0, *(line["at"]["seq"] for line in own)]
    for line in (*own, *others):
        known = line["source"] is not None and line["source"]["thread_id"] == thread_id
        place = line["source"]["seq"] if known else 0
        is_own = line["at"] is not None and line["at"]["thread_id"] == thread_id
        end = line["at"]["seq"] if is_own else place + 1  # no branch stands inside itself
        line["inside"] = max(begin for begin in begins if begin <= min(place, end - 1))
    return {
        "view": "branches",
        "thread_id": thread_id,
        "status": info.status,
        "trunk_end": ends[0],
        "seq": head.seq,
        "own": own,
        "forks": others,
        "more": max(0, len(found) - BRANCHES),
        "command": command(source, "branches", thread_id),
    }


def picture(query: Query) -> Document:
    """The graph of a thread, of the log alone or as the application declares it, with its path."""
    source, thread_id = query.source, query.needed("id")
    info = source.run(source.core.thread(thread_id))
    at = events.position(query, info)
    problem, seen, due = None, drawing.Seen(), list[str]()
    try:
        found, _ = events.led_here(source, info, at, EVENTS) if at.seq else ([], None)
        seen = path_of(reversed(found), langgraph.is_langgraph(info))
        state = states.state(source, info, at) if at.seq else None
        due = state.facts["next"] if state is not None else []
    except (*events.READING, GraphError) as error:
        problem = source.redaction.text("error", str(error))
    nodes, edges = list[str](), dict[tuple[str, str], bool]()
    if source.graph is not None and not langgraph.is_langgraph(info):
        try:
            declared = graph_of(source.graph, at.ns).get_graph()
        except GraphError as error:
            problem = str(error)
        else:
            nodes = list(declared.nodes)
            edges = {(edge.source, edge.target): edge.conditional for edge in declared.edges}
    logs = source.run(source.core.namespaces(thread_id))
    return {
        "view": "graph",
        "thread_id": thread_id,
        "ns": at.ns,
        "seq": at.seq,
        "is_declared": bool(nodes),
        "events": EVENTS,
        "problem": problem,
        "picture": drawing.drawn(nodes, edges, seen, due),
        "logs": [ns for ns in logs if ns != at.ns][:100],
        "command": command(source, "history", thread_id, ns=at.ns),
    }


def path_of(found: Iterable[RecordedEvent], is_langgraph: bool) -> drawing.Seen:
    """Which nodes ran, and which edges were taken."""
    seen = drawing.Seen()
    for event in found:
        kind, data = describe.kind_of(event), event.data
        if is_langgraph:
            _take(seen, kind, data)
            continue
        if kind not in ("input", "output", "update", "error"):
            continue
        for part in updates_of(data):
            node = drawing.START if kind == "input" else text_of(part.get("node"))
            if kind == "error":
                seen.failed.add(node)
                continue
            if kind == "output":
                seen.runs[node] = seen.runs.get(node, 0) + 1
                seen.failed.discard(node)
            for target in describe.next_nodes(part):
                seen.take(node, target)
    return seen


def _take(seen: drawing.Seen, kind: str, data: Any) -> None:
    """Note the node that wrote an event of LangGraph's, and where its writes led."""
    node = text_of(data.get("node", "")) if kind == "writes" and isinstance(data, dict) else ""
    if not node:
        return
    if node != drawing.START:
        seen.runs[node] = seen.runs.get(node, 0) + 1
    for pair in data["writes"]:
        if isinstance(pair[0], str) and pair[0].startswith(_BRANCH):
            seen.take(node, pair[0].removeprefix(_BRANCH))


_BRANCH: Final = "branch:to:"
"""How LangGraph's channels begin that trigger a node."""


def verify(query: Query) -> Document:
    """Whether every event and snapshot of a thread verifies and decodes. Reads all of it."""
    source, thread_id = query.source, query.needed("id")
    found: dict[str, Any] = {"problems": [], "events": 0, "snapshots": 0}
    try:
        report = source.run(source.core.verify(thread_id))
        found = {
            "problems": [source.redaction.text("error", each) for each in report.problems],
            "events": report.events,
            "snapshots": report.snapshots,
        }
    except CorruptEventError as error:
        found["problems"] = [source.redaction.text("error", str(error))]
    return {
        "view": "verify",
        "thread_id": thread_id,
        **found,
        "ok": not found["problems"],
        "command": command(source, "verify", thread_id),
    }
