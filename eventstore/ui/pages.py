"""Requests in, responses out: what a view is asked, and how its document becomes a page or JSON.

A view is a function from a :class:`Query` to a document: plain data that is complete and already
redacted. The page is a template over that document, the JSON twin is the document itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from eventstore import (
    ConfigurationError,
    CorruptEventError,
    EventStoreError,
    LineageMovedError,
    PositionNotFoundError,
    StoreBusyError,
    StoreUnavailableError,
    ThreadNotFoundError,
)
from eventstore.explain.values import simple
from eventstore.models import from_micros
from eventstore.ui.security import Rules
from eventstore.ui.source import Source
from graph.errors import GraphError

Document = dict[str, Any]

LIMIT_MAX: Final = 500
"""Rows in a page at most."""


class BadRequest(Exception):
    """A parameter of a request is wrong; its text says how."""


class NotFound(Exception):
    """There is no such thing to show."""


@dataclass(frozen=True)
class Query:
    """What a view is asked.

    Attributes:
        given: the parameters of the address; of several of one name the last.
        metadata: all parameters named ``metadata``.
        edits: whether changes are allowed.
        user: who asks, if known.
    """

    source: Source
    given: Mapping[str, str]
    metadata: tuple[str, ...] = ()
    edits: bool = False
    user: str = ""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def text(self, name: str, default: str = "") -> str:
        """A parameter as text."""
        found = self.given.get(name, default)
        if "\0" in found or any("\ud800" <= c <= "\udfff" for c in found):
            raise BadRequest(f"the parameter {name!r} holds characters that no name may have")
        return found

    def needed(self, name: str) -> str:
        """A parameter that must be there."""
        found = self.text(name)
        if not found:
            raise BadRequest(f"the parameter {name!r} is missing")
        return found

    def number(self, name: str, default: int | None = None, most: int = 2**53) -> int | None:
        """A parameter as a whole number that is not negative."""
        text = self.text(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > most:
            raise BadRequest(f"the parameter {name!r} must be a whole number up to {most}")
        return int(text)

    def limit(self, default: int) -> int:
        """How many rows to show."""
        found = self.number("limit", default, LIMIT_MAX) or default
        return found


View = Callable[[Query], Document]

_STATUS: Final[list[tuple[type[Exception], int]]] = [
    (BadRequest, 400),
    (NotFound, 404),
    (ThreadNotFoundError, 404),
    (PositionNotFoundError, 404),
    (LineageMovedError, 409),
    (StoreBusyError, 503),
    (StoreUnavailableError, 503),
    (CorruptEventError, 500),
    (ConfigurationError, 400),
    (EventStoreError, 500),
    (GraphError, 409),
]

KNOWN: Final = tuple(kind for kind, _ in _STATUS)
"""Errors that become a page of their own; others are faults of the explorer."""


def status_of(error: Exception) -> int:
    """The status of the response that reports an error."""
    return next(code for kind, code in _STATUS if isinstance(error, kind))


class Pages:
    """Makes responses."""

    def __init__(self, source: Source, rules: Rules, edits: bool, title: str) -> None:
        self._source = source
        self._rules = rules
        self._edits = edits
        self._title = title
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        self._templates.filters |= {
            "duration": duration,
            "size": size,
            "moment": moment,
            "ago": ago,
            "shown": shown,
        }

    def query(self, request: Request, given: Mapping[str, str] | None = None) -> Query:
        """What a request asks; ``given``: the fields of its form."""
        params = dict(request.query_params) if given is None else given
        source, tenant = self._source, self._tenant(request)
        if tenant != source.store.tenant:
            if not source.all_tenants:
                raise NotFound("this explorer shows one tenant; start it with --all-tenants")
            source = source.of_tenant(tenant)
        metadata = tuple(request.query_params.getlist("metadata"))
        user = request.scope.get("state", {}).get("user") or ""
        return Query(source, params, metadata, self._edits, user)

    def _tenant(self, request: Request) -> str:
        """The tenant that an address names; by default the store's."""
        return request.query_params.get("tenant") or self._source.store.tenant

    def to_thread(self, request: Request, thread_id: str) -> str:
        """The address of a thread of the tenant that a request names."""
        given = {"id": thread_id, **self._named(request)}
        return f"{self._rules.base(request.scope)}/thread?{urlencode(given)}"

    def _named(self, request: Request) -> dict[str, str]:
        """What addresses say about the tenant: nothing about the store's own."""
        tenant = self._tenant(request)
        return {} if tenant == self._source.store.tenant else {"tenant": tenant}

    async def respond(
        self, request: Request, view: View, template: str, *, as_json: bool = False
    ) -> Response:
        """The response of a view, as a page or as JSON."""
        as_json = as_json or wants_json(request)
        try:
            query = self.query(request)
            document = await run_in_threadpool(view, query)
            code = 200
        except KNOWN as error:
            document, template, code = self.problem(error), "error.html", status_of(error)
        return await self.made(request, document, template, code, as_json=as_json)

    async def made(
        self,
        request: Request,
        document: Document,
        template: str,
        code: int = 200,
        *,
        as_json: bool = False,
    ) -> Response:
        """The response that shows a document."""
        return await run_in_threadpool(self._made, request, document, template, code, as_json)

    def problem(self, error: Exception) -> Document:
        """The document that reports an error."""
        text = str(error)
        return {"error": self._source.redaction.text("error", text), "kind": type(error).__name__}

    def _made(
        self, request: Request, document: Document, template: str, code: int, as_json: bool
    ) -> Response:
        if as_json:
            body = json.dumps(simple(document), allow_nan=False, ensure_ascii=False)
            kind = "application/json"
        else:
            body, kind = self.html(request, document, template), "text/html; charset=utf-8"
        data = body.encode("utf-8", "backslashreplace")
        tag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
        headers = {"etag": tag, "vary": "accept, hx-request, cookie"}
        known = request.headers.get("if-none-match", "")
        if code == 200 and tag in [each.strip().removeprefix("W/") for each in known.split(",")]:
            return Response(None, 304, headers)
        return Response(data, code, headers, kind)

    def html(self, request: Request, document: Document, template: str) -> str:
        """A page, or the part of one that htmx asked for."""
        base = self._rules.base(request.scope)
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))

        named = self._named(request) if self._source.all_tenants else {}

        def link(view: str, **parameters: Any) -> str:
            parameters = {**named, **parameters}
            given = [(n, v) for n, v in parameters.items() if v is not None and v != ""]
            text = urlencode(given, doseq=True, errors="backslashreplace")
            return f"{base}/{view}?{text}" if text else f"{base}/{view}"

        json_path = f"{path.removesuffix('.json').lstrip('/') or 'threads'}.json"
        return self._templates.get_template(template).render(
            doc=document,
            link=link,
            static=f"{base}/static",
            title=self._title,
            tenant=named.get("tenant", self._source.store.tenant),
            named=named,
            all_tenants=self._source.all_tenants,
            edits=self._edits,
            has_app=self._source.graph is not None,
            user=request.scope.get("state", {}).get("user") or "",
            csrf=self._rules.csrf if self._edits else "",
            json_link=link(json_path, **dict(request.query_params)),
            is_part="hx-request" in request.headers,
            view=path.strip("/"),
        )


def wants_json(request: Request) -> bool:
    accepted = request.headers.get("accept", "")
    kinds = [each.partition(";")[0].strip().lower() for each in accepted.split(",")]
    if "application/json" not in kinds:
        return False
    return "text/html" not in kinds or kinds.index("application/json") < kinds.index("text/html")


def command(source: Source, *words: str, **options: Any) -> str:
    """The command line that shows the same, to be copied.

    Args:
        words: the command with its arguments.
        options: its options; of a list each item is given.
    """
    place = {"db": source.db, "schema": source.options.get("schema")}
    if source.store.tenant != "default" and words[0] != "tenants":
        place["tenant"] = source.store.tenant
    if words[0] == "archive":  # its files are not in the database
        place = {"tenant": source.store.tenant}
    parts: list[str] = []
    for name, given in {**options, **place}.items():
        for value in given if isinstance(given, list | tuple) else [given]:
            if value is True:
                parts.append(f"--{name}")
            elif value not in (None, "", False):
                text = str(value) if value == UNNAMED and name == "db" else quoted(value)
                parts.append(quoted(f"--{name}={value}") if text[:1] == "-" else f"--{name} {text}")
    groups = 2 if words[0] in ("retention", "archive") else 1
    arguments = [quoted(word) for word in words[groups:]]
    if any(word[:1] == "-" for word in words[groups:]):  # not an option
        return " ".join(["eventstore", *words[:groups], *parts, "--", *arguments])
    return " ".join(["eventstore", *words[:groups], *arguments, *parts])


UNNAMED: Final = "$EVENTSTORE_DB"
"""How commands name the database if the operator does not say it: a variable, not quoted."""


def quoted(value: Any) -> str:
    """A word for a shell."""
    return shlex.quote(str(value))


# --- how values look in templates -------------------------------------------------------


def shown(text: Any) -> str:
    """A text with its unprintable characters escaped, line breaks kept."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in str(text))


def moment(value: Any) -> str:
    """A time in UTC, to the second."""
    if isinstance(value, int):
        value = from_micros(value)
    if isinstance(value, str):
        return value[:19].replace("T", " ")
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if value else ""


def ago(value: Any) -> str:
    """How long ago a time was, roughly; a fixed text, so that pages can be compared."""
    return moment(value)[:16]


def size(count: Any) -> str:
    """A number of bytes for people."""
    if count is None:
        return ""
    number = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError("unreachable")


def duration(seconds: Any) -> str:
    """A time span for people."""
    if seconds is None:
        return ""
    value = float(seconds)
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    steps = (("d", 86400), ("h", 3600), ("m", 60))
    for index, (unit, length) in enumerate(steps):
        if value >= length:
            rest = math.floor(value % length / steps[index + 1][1]) if unit != "m" else 0
            below = f" {rest}{steps[index + 1][0]}" if rest else ""
            return f"{math.floor(value / length)}{unit}{below}"
    return f"{value:.0f} s"
