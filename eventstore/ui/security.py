"""Who may use the explorer, and what a browser may do with its pages.

A request is refused unless its Host is one that the explorer answers for, it shows the token (or
the operator's own authentication accepts it), and, if it changes something, it comes from a page of
the explorer itself. Every response forbids scripts, styles and frames from elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE: Final = "eventstore_explorer"

LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

Authenticate = Callable[[Request], "str | Awaitable[str | None] | None"]
"""The operator's own check: returns who asks, or ``None`` to refuse."""

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Rules:
    """What the guard checks.

    Attributes:
        token: what a request must show; unused where ``authenticate`` is given.
        hosts: names without a port that requests may be for; ``*`` for any.
        user: who is recorded for changes where nobody else says it.
        user_header: a header of a trusted proxy that says who asks.
        base_path: where a proxy shows the explorer, if it removes that part of the path.
    """

    token: str
    hosts: Collection[str] = LOOPBACK
    authenticate: Authenticate | None = None
    user: str | None = None
    user_header: str | None = None
    base_path: str = ""

    def base(self, scope: Scope) -> str:
        """What the path of every address begins with, as the browser sees it."""
        found: str = self.base_path or scope.get("root_path", "")
        return found.rstrip("/")

    @property
    def cookie_name(self) -> str:
        """The name of the cookie; of several explorers on one host each has its own."""
        return f"{COOKIE}_{self._signed('name')[:8]}"

    @property
    def cookie(self) -> str:
        """What the cookie holds: proof that its browser was shown the token."""
        return self._signed("cookie")

    @property
    def csrf(self) -> str:
        """What every form must send along."""
        return self._signed("form")

    def _signed(self, what: str) -> str:
        return hmac.new(self.token.encode(), what.encode(), hashlib.sha256).hexdigest()

    def is_csrf(self, text: str) -> bool:
        """Whether a form sent the right text."""
        return hmac.compare_digest(text.encode(), self.csrf.encode())


def new_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(24)


class Guard:
    """ASGI middleware that refuses requests by the rules, and sets the headers of responses."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "private, no-cache")
            await send(message)

        request = Request(scope, receive)
        refused = await self._refused(request)
        if refused is not None:
            await refused(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)

    async def _refused(self, request: Request) -> Response | None:
        """The response to a request that is refused; ``None``: it may pass."""
        rules = self._rules
        if not self._is_for_us(request):
            return PlainTextResponse(
                "this explorer does not answer for that host; name it with --allow-host\n", 421
            )
        if request.method not in _SAFE and not self._is_from_us(request):
            return PlainTextResponse("the request came from another site\n", 403)
        if rules.authenticate is not None:
            found: Any = rules.authenticate(request)
            user = await found if inspect.isawaitable(found) else found
            if user is None:
                return PlainTextResponse("not authenticated\n", 401)
        else:
            user = self._user(request)
            if user is None:
                return self._by_token(request)
        request.scope.setdefault("state", {})["user"] = user
        return None

    def _is_for_us(self, request: Request) -> bool:
        if "*" in self._rules.hosts:
            return True
        hosts = request.headers.getlist("host")
        if len(hosts) != 1:
            return False
        try:
            name = urlsplit(f"//{hosts[0]}").hostname or ""
        except ValueError:
            return False
        return any(name == each.strip("[]").lower() for each in self._rules.hosts)

    def _is_from_us(self, request: Request) -> bool:
        site = request.headers.get("sec-fetch-site")
        if site is not None and site != "same-origin":
            return False
        origin = request.headers.get("origin")
        if origin is None:
            return site == "same-origin" or "authorization" in request.headers
        return urlsplit(origin).netloc == request.headers.get("host", "")

    def _user(self, request: Request) -> str | None:
        """Who asks, if the request shows the token."""
        given, rules = request.headers.get("authorization", ""), self._rules
        scheme, _, text = given.partition(" ")
        by_header = scheme.lower() == "bearer" and _same(text.strip(), rules.token)
        by_cookie = _same(request.cookies.get(rules.cookie_name, ""), rules.cookie)
        if not (by_header or by_cookie):
            return None
        named = rules.user_header and request.headers.get(rules.user_header)
        return named or rules.user or ""

    def _by_token(self, request: Request) -> Response:
        """Let a browser in that was given the token in its first address."""
        pairs = parse_qsl(request.url.query, keep_blank_values=True)
        given = [value for name, value in pairs if name == "token"]
        if request.method == "GET" and given and _same(given[-1], self._rules.token):
            rest = urlencode([pair for pair in pairs if pair[0] != "token"])
            base = self._rules.base(request.scope)
            inner = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
            path = f"{base}/{quote(inner.lstrip('/'))}"
            response = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
            response.set_cookie(
                self._rules.cookie_name,
                self._rules.cookie,
                httponly=True,
                samesite="strict",
                secure=request.url.scheme == "https",
                path=base or "/",
            )
            return response
        return PlainTextResponse(
            "the token is missing or wrong; open the address that `eventstore ui` printed when it "
            "started\n",
            401,
        )


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode())
