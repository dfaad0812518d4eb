"""The ASGI application: which address shows which view, behind the guard."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from eventstore import AsyncEventStore, ConfigurationError, EventStore
from eventstore.limits import shown
from eventstore.ui import events, security
from eventstore.ui.edits import CHANGES, Editor
from eventstore.ui.live import Live
from eventstore.ui.pages import Pages, View
from eventstore.ui.redaction import Hook, Redaction
from eventstore.ui.source import Source
from eventstore.ui.views import checkpoint, history, retention, thread, threads
from graph.app import CompiledGraph

VIEWS: Final[dict[str, tuple[View, str]]] = {
    "threads": (threads.threads, "threads.html"),
    "counts": (threads.counts, "counts.html"),
    "tenants": (threads.tenants, "tenants.html"),
    "waiting": (threads.waiting, "waiting.html"),
    "sizes": (threads.sizes, "sizes.html"),
    "thread": (thread.thread, "thread.html"),
    "transcript": (thread.talk, "transcript.html"),
    "checkpoint": (checkpoint.checkpoint, "checkpoint.html"),
    "state": (checkpoint.part, "state.html"),
    "event": (events.event, "event.html"),
    "diff": (checkpoint.diff, "diff.html"),
    "blame": (checkpoint.who, "blame.html"),
    "branches": (history.branches, "branches.html"),
    "graph": (history.picture, "graph.html"),
    "verify": (history.verify, "verify.html"),
    "retention": (retention.overview, "retention.html"),
    "plan": (retention.plan, "plan.html"),
    "tombstones": (retention.tombstones, "tombstones.html"),
    "archive": (retention.archive, "archive.html"),
    "storage": (retention.storage, "storage.html"),
}
"""The views by their address, each with its template; ``.json`` behind it gives the document."""


def create_app(
    store: EventStore | AsyncEventStore,
    *,
    graph: CompiledGraph | None = None,
    token: str | None = None,
    authenticate: security.Authenticate | None = None,
    hosts: Collection[str] = security.LOOPBACK,
    base_path: str = "",
    redact: Sequence[str] = (),
    redact_hook: Hook | None = None,
    allow_edits: bool = False,
    user: str | None = None,
    user_header: str | None = None,
    policies: Sequence[Any] = (),
    archive: str | None = None,
    db: str = "$EVENTSTORE_DB",
    options: Mapping[str, str] | None = None,
    all_tenants: bool = False,
    title: str = "eventstore",
) -> Starlette:
    """An ASGI application that shows what is in a store: it runs alone, or mounted in another.

    Args:
        store: the threads of its tenant are shown. Open it with ``read_only=True`` unless edits
            are allowed.
        graph: the application's graph. Its reducers compute states; without it the log alone says
            what they were, as far as it can.
        token: what a browser must show once, as ``?token=``, and a program as
            ``Authorization: Bearer``; ``None`` makes one: see ``app.state.token``.
        authenticate: called with each request in place of asking for the token; returns who
            asks, or ``None`` to refuse. It may be a coroutine function.
        hosts: names that requests may be for, without a port; ``"*"`` for any.
        base_path: where a proxy shows the explorer, if it removes that part of the path. A mount
            in another application is known without it.
        redact: paths to hide, such as ``messages[*].content``, wherever they occur.
        redact_hook: called with what a value is and the plain value; returns what may be shown.
        allow_edits: add forms that change threads; each asks first and is recorded.
        user: who is recorded for changes, if neither ``authenticate`` nor ``user_header`` says it.
        user_header: a header of a trusted proxy that says who asks.
        policies: retention policies, to say when threads will go.
        archive: URL of the archive of pruned threads, to list it.
        db: how the commands that pages show name the database.
        options: further options of these commands: ``schema``, ``app`` as MODULE:APP, and
            ``policies``, the file of the policies.
        all_tenants: addresses may name any tenant, not only the store's.
        title: what pages are called.

    Raises:
        ConfigurationError: an argument is not valid.
    """
    if not isinstance(store, EventStore | AsyncEventStore):
        raise ConfigurationError(f"store must be an EventStore, not {shown(store)}")
    if graph is not None and not isinstance(graph, CompiledGraph):
        raise ConfigurationError(f"graph must be a CompiledGraph, not {shown(graph)}")
    if token is not None and (not isinstance(token, str) or len(token) < 8):
        raise ConfigurationError("token must be text of at least 8 characters")
    if base_path and (not base_path.startswith("/") or "//" in base_path):
        raise ConfigurationError(f"base_path must begin with one '/', not {base_path!r}")
    redaction = Redaction.of(redact, redact_hook)
    source = Source(
        store, graph, redaction, tuple(policies), archive, db, options or {}, all_tenants
    )
    rules = security.Rules(
        token or security.new_token(), tuple(hosts), authenticate, user, user_header, base_path
    )
    pages = Pages(source, rules, allow_edits, title)

    async def index(request: Request) -> Response:
        return RedirectResponse(f"{rules.base(request.scope)}/threads", 303)

    routes: list[BaseRoute] = [Route("/", index)]
    for name, (view, template) in VIEWS.items():
        routes.append(Route(f"/{name}", _endpoint(pages, view, template, False)))
        routes.append(Route(f"/{name}.json", _endpoint(pages, view, template, True)))
    live = Live(pages)
    routes.append(Route("/live", live.watch))
    if allow_edits:
        editor = Editor(pages, rules)
        routes += [Route(f"/{name}", _change(editor, name), methods=["POST"]) for name in CHANGES]
    files = StaticFiles(directory=Path(__file__).parent / "static")
    routes.append(Mount("/static", files, name="static"))
    app = Starlette(routes=routes, middleware=[Middleware(security.Guard, rules=rules)])
    app.state.token = rules.token
    app.state.live = live
    return app


def _change(editor: Editor, name: str) -> Any:
    async def endpoint(request: Request) -> Response:
        return await editor.post(request, name)

    return endpoint


def _endpoint(pages: Pages, view: View, template: str, as_json: bool) -> Any:
    async def endpoint(request: Request) -> Response:
        return await pages.respond(request, view, template, as_json=as_json)

    return endpoint
