"""Changes to threads, for explorers that allow them: each is shown first, confirmed, and recorded.

A change is prepared from the fields of a form: what it will do, in words, and a function that does
it by the same calls that applications use. Nothing is done before the person has confirmed what was
shown, and nothing if the thread has changed since.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from eventstore import EventStore
from eventstore.explain import langgraph
from eventstore.explain.values import line
from eventstore.ui import events, states
from eventstore.ui.pages import KNOWN, BadRequest, Document, Pages, Query, status_of, wants_json
from eventstore.ui.security import Rules
from eventstore.ui.source import Source
from graph import Command
from graph.app import CompiledGraph
from graph.state.state import checkpoint_id

log = logging.getLogger(__name__)

BODY_MAX: Final = 1_000_000
"""Bytes of a form."""

PATIENCE_S: Final = 5.0
"""How long a response waits for a run to end; then the run goes on, and its page is shown."""


@dataclass(frozen=True)
class Change:
    """A change that is ready to be made.

    Attributes:
        says: what it does, in a sentence.
        facts: its parts, by name, to be read before it is confirmed.
        do: makes it.
        thread_id: the thread to show afterwards.
    """

    says: str
    facts: Mapping[str, str]
    do: Callable[[], object]
    thread_id: str


class Refused(Exception):
    """The change cannot be made; its text says why."""


_TOLD: Final[tuple[type[Exception], ...]] = (Refused, *KNOWN)


# --- what each change does --------------------------------------------------------------


def _answer(query: Query) -> Change:
    """Resume a thread with the answer to one question."""
    source, thread_id = query.source, query.needed("id")
    graph = _graph(source)
    info = source.run(source.core.thread(thread_id))
    wanted = query.needed("question")
    asked = {str(each["id"]): each for each in events.questions_of(source, info)}
    if wanted not in asked:
        raise Refused("the question was answered meanwhile, or withdrawn")
    value = answer_to(asked[wanted]["value"], query.needed("decision"), query.text("text"))
    place = _config(query, thread_id)

    def do() -> object:
        return _run(source, graph, Command(resume={wanted: value}), place)

    facts = {"question": line(asked[wanted]["value"], chars=600), "answer": line(value, chars=600)}
    return Change(f"Answer {asked[wanted]['node']!s} and continue the run", facts, do, thread_id)


def answer_to(question: Any, decision: str, text: str) -> Any:
    """The resume value for a decision: in the form that its question asks for.

    Args:
        decision: ``accept``, ``ignore``, ``respond`` (with the text), ``json`` (the text is the
            value) or ``edit`` (the text is the action to run instead, as JSON).
    """
    if decision not in ("accept", "ignore", "respond", "json", "edit"):
        raise BadRequest("the decision must be accept, ignore, respond, json or edit")
    if decision == "json":
        return _json(text)
    first = question[0] if isinstance(question, list) and len(question) == 1 else question
    if isinstance(first, dict) and "action_request" in first:
        kind = "response" if decision == "respond" else decision
        args = text if decision == "respond" else _json(text) if decision == "edit" else None
        return [{"type": kind, "args": args}]
    if isinstance(first, dict) and isinstance(first.get("action_requests"), list):
        kinds = {"accept": "approve", "ignore": "reject", "respond": "reject", "edit": "edit"}
        one: dict[str, Any] = {"type": kinds[decision]}
        if decision == "edit":
            one["edited_action"] = _json(text)
        elif kinds[decision] == "reject" and text:
            one["message"] = text
        return {"decisions": [one] * len(first["action_requests"])}
    if decision == "edit":
        return _json(text)
    return {"accept": True, "ignore": False}.get(decision, text)


def _edit(query: Query) -> Change:
    """Edit the state as if a node had written it."""
    source, thread_id, ns = query.source, query.needed("id"), query.text("ns")
    graph = _graph(source)
    info = source.run(source.core.thread(thread_id))
    if langgraph.is_langgraph(info):
        raise Refused("a thread of LangGraph is edited by its own application")
    values, node = _json(query.needed("values")), query.text("as_node") or None
    if values is not None and not isinstance(values, dict):
        raise BadRequest("the values must be a JSON object: keys of the state with their updates")
    place = _config(query, thread_id, ns)

    def do() -> object:
        if isinstance(source.store, EventStore):
            return graph.update_state(place, values, node)
        return source.wait(graph.aupdate_state(place, values, node))

    facts = {"update": line(values, chars=2_000), "as node": node or "(the last one that wrote)"}
    return Change("Edit the state at the end of the log", facts, do, thread_id)


def _fork(query: Query) -> Change:
    """Start a new thread that goes on from a checkpoint."""
    source, thread_id, new = query.source, query.needed("id"), query.needed("new_id")
    info = source.run(source.core.thread(thread_id))
    if query.text("ns"):
        raise Refused("fork the root log: a subgraph goes along with it")
    if langgraph.is_langgraph(info):
        raise Refused("a thread of LangGraph is copied by its own application: saver.copy_thread")
    at = events.position(query, info)
    state = states.state(source, info, at)
    if state is not None and state.checkpoint.seq != at.seq:
        at = state.checkpoint
    if source.run(source.core.head(new)).exists:
        raise Refused(f"thread {new!r} exists already; choose another id")
    if at.thread_key != info.thread_key or not at.seq:
        raise Refused("the checkpoint belongs to another thread; fork that one")
    place = _config(query, new)
    place["configurable"]["checkpoint_id"] = checkpoint_id(at)

    def do() -> object:
        if source.graph is None or state is None:
            data, metadata = {"by": query.user}, {"by": query.user}
            return source.run(
                source.core.fork(thread_id, at.seq, new, data=data, metadata=metadata)
            )
        graph = _graph(source)
        if isinstance(source.store, EventStore):
            return graph.update_state(place, None, "__copy__")
        return source.wait(graph.aupdate_state(place, None, "__copy__"))

    facts = {"from": f"{thread_id} at seq {at.seq}", "new thread": new}
    return Change("Start a new thread from here", facts, do, new)


def _resume(query: Query) -> Change:
    """Continue a run that failed, was interrupted or was edited."""
    source, thread_id = query.source, query.needed("id")
    graph = _graph(source)
    info = source.run(source.core.thread(thread_id))
    if langgraph.is_langgraph(info):
        raise Refused("a thread of LangGraph is continued by its own application")
    place = _config(query, thread_id)
    facts = {"status": info.status}
    return Change("Continue the run", facts, lambda: _run(source, graph, None, place), thread_id)


def _pin(query: Query) -> Change:
    """Keep a thread whatever policies say."""
    source, thread_id, reason = query.source, query.needed("id"), query.needed("reason")
    return Change(
        "Pin the thread: no policy removes it",
        {"reason": reason},
        lambda: source.run(source.core.pin(thread_id, reason, query.user)),
        thread_id,
    )


def _unpin(query: Query) -> Change:
    """Let policies decide about a thread again."""
    source, thread_id = query.source, query.needed("id")
    return Change(
        "Unpin the thread: policies decide about it again",
        {},
        lambda: source.run(source.core.unpin(thread_id)),
        thread_id,
    )


def _ttl(query: Query) -> Change:
    """Give a thread its own time to live."""
    source, thread_id = query.source, query.needed("id")
    days = query.number("days", None, 36_500)
    ttl = None if days is None else timedelta(days=days)
    return Change(
        "Let its policy decide how long the thread is kept"
        if ttl is None
        else "Give the thread its own time to live, counted from its last event",
        {} if days is None else {"days": str(days)},
        lambda: source.run(source.core.set_ttl(thread_id, ttl)),
        thread_id,
    )


CHANGES: Final[dict[str, Callable[[Query], Change]]] = {
    "answer": _answer,
    "edit": _edit,
    "fork": _fork,
    "resume": _resume,
    "pin": _pin,
    "unpin": _unpin,
    "ttl": _ttl,
}
"""The changes by their address."""


def _graph(source: Source) -> CompiledGraph:
    if source.graph is None:
        raise Refused("this needs the application's code: start the explorer with --app")
    return source.graph.with_checkpointer(source.store)


def _config(query: Query, thread_id: str, ns: str = "") -> Any:
    place: dict[str, Any] = {"thread_id": thread_id}
    if ns:
        place["checkpoint_ns"] = ns
    return {"configurable": place, "metadata": {"by": query.user, "via": "explorer"}}


def _run(source: Source, graph: CompiledGraph, given: Any, place: Any) -> object:
    if isinstance(source.store, EventStore):
        return graph.invoke(given, place)
    return source.wait(graph.ainvoke(given, place))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the text is not JSON: {error}") from None


# --- requests ---------------------------------------------------------------------------


@dataclass
class Editor:
    """Answers the requests that change threads.

    Attributes:
        running: runs that go on after their response was sent.
    """

    pages: Pages
    rules: Rules
    running: set[asyncio.Task[object]] = field(default_factory=set)

    async def post(self, request: Request, name: str) -> Response:
        """Show a change to be confirmed, or make one that was."""
        as_json = wants_json(request)
        try:
            given = await _form(request)
            self._check(request, given)
            query = self.pages.query(request, given)
            if not query.user:
                raise Refused("nobody is named for this change; start the explorer with --user")
            change, seen = await run_in_threadpool(_prepared, name, query)
            if given.get("sure") != "yes":
                document = _to_confirm(name, given, change, seen, query.user)
                return await self.pages.made(request, document, "confirm.html", as_json=as_json)
            if given.get("seen") != seen:
                raise Refused("the thread has changed since this was shown; look at it again")
            await self._made(change)
            _recorded(change, name, query)
        except _TOLD as error:
            code = 409 if isinstance(error, Refused) else status_of(error)
            return await self._failed(request, error, code, as_json)
        except Exception as error:  # the application's own code: its run has failed
            return await self._failed(request, error, 500, as_json)
        return RedirectResponse(self.pages.to_thread(request, change.thread_id), 303)

    async def _failed(
        self, request: Request, error: Exception, code: int, as_json: bool
    ) -> Response:
        document = self.pages.problem(error)
        return await self.pages.made(request, document, "error.html", code, as_json=as_json)

    def _check(self, request: Request, given: Mapping[str, str]) -> None:
        by_header = request.headers.get("authorization", "").lower().startswith("bearer ")
        if by_header and self.rules.authenticate is None:
            return  # a browser sends no such header by itself
        if not self.rules.is_csrf(given.get("csrf", "")):
            raise Refused("the form is out of date, or was not this explorer's; load it again")

    async def _made(self, change: Change) -> None:
        """Make a change; a run that takes long goes on by itself."""
        task: asyncio.Task[object] = asyncio.create_task(run_in_threadpool(change.do))
        self.running.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
        if done:
            await task

    def _ended(self, task: asyncio.Task[object]) -> None:
        self.running.discard(task)
        if not task.cancelled():
            task.exception()  # the log of the thread has it


def _recorded(change: Change, name: str, query: Query) -> None:
    """Note a change in the log of the process: what a thread's row says has no events."""
    what = "; ".join(f"{key}: {value}" for key, value in change.facts.items())
    log.info(
        "%s changed thread %r in the explorer: %s%s",
        query.user,
        change.thread_id,
        change.says,
        f" ({what})" if what and name in _OF_ROWS else "",
        extra={"thread_id": change.thread_id, "user": query.user, "change": name},
    )


_OF_ROWS: Final = frozenset({"pin", "unpin", "ttl"})
"""Changes whose parts are no content of the thread: the log of a process may quote them."""


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX:
            raise BadRequest(f"a form may have {BODY_MAX} bytes")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise BadRequest("a form must be sent as application/x-www-form-urlencoded")
    try:
        found = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=50, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise BadRequest("the form cannot be read") from None
    return {name: values[-1] for name, values in found.items()}


def _prepared(name: str, query: Query) -> tuple[Change, str]:
    """A change, and where the log ended when it was prepared."""
    change = CHANGES[name](query)
    head = query.source.run(query.source.core.head(query.needed("id"), query.text("ns")))
    return change, str(head.seq)


def _to_confirm(
    name: str, given: Mapping[str, str], change: Change, seen: str, user: str
) -> Document:
    kept = {n: value for n, value in given.items() if n not in ("csrf", "sure", "seen")}
    return {
        "view": "confirm",
        "action": name,
        "says": change.says,
        "facts": dict(change.facts),
        "fields": {**kept, "seen": seen, "sure": "yes"},
        "thread_id": kept.get("id", ""),
        "by": user,
    }
