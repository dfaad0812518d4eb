"""Who gets in, what a request may do, and what never leaves the process."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from eventstore import ConfigurationError, EventStore
from eventstore.ui import create_app
from eventstore.ui.app import VIEWS
from tests.ui.support import HOSTILE, TOKEN, Browser, builder, config, said

PATHS: Final = (
    "/",
    "/threads",
    "/threads.json",
    "/thread?id=done",
    "/static/style.css",
    "/nothing",
)


@pytest.fixture
def stranger(browser: Browser) -> Browser:
    """Asks without the token."""
    return Browser(browser.app, authorization="")


def test_without_the_token_nothing_is_shown(stranger: Browser) -> None:
    for path in PATHS:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}):
            found = stranger.request("GET", path, headers=headers)
            assert found.status_code == 401, path
            assert "done" not in found.text
    assert stranger.request("GET", "/threads?token=wrong").status_code == 401
    assert stranger.request("HEAD", f"/threads?token={TOKEN}").status_code == 401


def test_the_token_lets_a_browser_in_and_leaves_the_address(stranger: Browser) -> None:
    found = stranger.request("GET", f"/threads?prefix=do%26&token={TOKEN}")
    assert found.status_code == 303
    assert found.headers["location"] == "/threads?prefix=do%26"
    cookie = found.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    pair = cookie.partition(";")[0]
    assert stranger.request("GET", "/threads", headers={"cookie": pair}).status_code == 200
    name = pair.partition("=")[0]
    assert stranger.request("GET", "/threads", headers={"cookie": f"{name}=x"}).status_code == 401


def test_the_token_leads_nowhere_else(stranger: Browser) -> None:
    for path in ("//evil.example/", "/%2F%2Fevil.example", "/\\evil.example"):
        found = stranger.request("GET", f"http://127.0.0.1{path}?token={TOKEN}")
        assert "location" not in found.headers or not found.headers["location"].startswith("//")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "a@b", "[::1", "0"])
def test_another_host_is_refused(browser: Browser, host: str) -> None:
    found = browser.request("GET", "/threads", headers={"host": host} if host else {"host": " "})
    assert found.status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8321", "localhost", "[::1]:9", "LOCALHOST:1"])
def test_this_host_is_answered(browser: Browser, host: str) -> None:
    assert browser.request("GET", "/threads", headers={"host": host}).status_code == 200


def test_every_response_forbids_what_is_from_elsewhere(browser: Browser, stranger: Browser) -> None:
    responses = [browser.request("GET", path) for path in PATHS]
    responses += [stranger.request("GET", "/threads"), browser.request("POST", "/threads")]
    for found in responses:
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["cross-origin-resource-policy"] == "same-origin"
    for path in ("/threads", "/thread?id=done", "/checkpoint?id=done", "/graph?id=done"):
        text = browser.request("GET", path).text
        assert (
            " style=" not in text
            and " onclick=" not in text
            and "http://" not in text.replace("http://127.0.0.1", "")
        )


def test_head_has_the_headers_of_get_and_no_body(browser: Browser) -> None:
    for view in ("threads", "thread.json", "checkpoint"):
        get = browser.get(view, id="done")
        head = browser.request("HEAD", f"/{view}", params={"id": "done"})
        assert (head.status_code, head.text) == (200, "")
        assert head.headers["etag"] == get.headers["etag"]
        assert head.headers["content-type"] == get.headers["content-type"]


def test_a_page_that_has_not_changed_is_not_sent_again(browser: Browser) -> None:
    tag = browser.get("thread", id="done").headers["etag"]
    for known in (tag, f"W/{tag}", f'"x", {tag}'):
        found = browser.get("thread", {"if-none-match": known}, id="done")
        assert (found.status_code, found.text) == (304, "")
    assert browser.get("thread", {"if-none-match": '"x"'}, id="done").status_code == 200


def test_nothing_can_be_changed(browser: Browser) -> None:
    for path in [f"/{view}" for view in VIEWS] + ["/answer", "/fork", "/edit", "/pin", "/ttl"]:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            found = browser.request(method, path, data={"id": "done", "csrf": "x"})
            assert found.status_code in (403, 404, 405)


HARMFUL: Final[list[dict[str, Any]]] = [
    {"id": "\0"},
    {"id": "x" * 20_000},
    {"id": "'; DROP TABLE threads; --"},
    {"id": "done", "seq": "-1"},
    {"id": "done", "seq": "99999999999999999999999"},
    {"id": "done", "seq": "9223372036854775807"},
    {"id": "done", "seq": "1e3"},
    {"id": "done", "seq": "٣"},
    {"id": "done", "ns": "no:such|log"},
    {"id": "done", "ns": "\0"},
    {"id": "done", "path": "9.9.9"},
    {"id": "done", "path": "-1"},
    {"id": "done", "path": "." * 10},
    {"id": "done", "path": "0." * 5_000 + "0"},
    {"id": "done", "offset": "99999999"},
    {"id": "done", "limit": "0"},
    {"id": "done", "limit": "1000000000"},
    {"id": "done", "before": "0"},
    {"id": "done", "to": "0"},
    {"id": "done", "to": "999"},
    {"id": "done", "to_id": "nobody"},
    {"id": "done", "key": "__proto__"},
    {"id": "done", "from": "99"},
    {"status": "gone"},
    {"metadata": "novalue"},
    {"metadata": 'a={"b": ' * 500},
    {"metadata": "a=[1]"},
    {"since": "yesterday"},
    {"after": "x"},
    {"after": "99999999999999999999-1"},
    {"after": "-1--1"},
    {"keys": "zz"},
    {"keys": "f" * 16},
    {"deleted_before": "1-x"},
    {"prefix": "\udcff"},
    {},
]


def test_no_parameter_makes_an_explorer_fail(browser: Browser) -> None:
    for given in HARMFUL:
        params = {n: v.encode("utf-8", "surrogatepass") for n, v in given.items()}
        for view in VIEWS:
            found = browser.get(f"{view}.json", **params)
            assert found.status_code in (200, 400, 404), (view, given, found.text)
            if found.status_code != 200:
                assert found.json()["error"]


def test_an_unknown_thread_is_not_found(browser: Browser) -> None:
    found = browser.get("thread", id=f"x{HOSTILE}")
    assert found.status_code == 404
    assert "<script>alert" not in found.text


# --- in another application -------------------------------------------------------------


def test_it_can_be_mounted_in_another_application(database: str) -> None:
    with EventStore(database, read_only=True) as store:
        outer = Starlette(routes=[Mount("/ops/explorer", create_app(store, token=TOKEN))])
        browser = Browser(outer)
        page = browser.request("GET", "/ops/explorer/thread?id=done")
        assert page.status_code == 200
        assert 'href="/ops/explorer/checkpoint?id=done' in page.text
        assert 'src="/ops/explorer/static/' in page.text
        assert browser.request("GET", "/ops/explorer/static/style.css").status_code == 200
        home = browser.request("GET", "/ops/explorer/")
        assert home.headers["location"] == "/ops/explorer/threads"
        entry = Browser(outer, authorization="").request("GET", f"/ops/explorer/?token={TOKEN}")
        assert entry.headers["location"] == "/ops/explorer/"
        assert "Path=/ops/explorer" in entry.headers["set-cookie"]


def test_a_proxy_may_remove_the_base_path(database: str) -> None:
    with EventStore(database, read_only=True) as store:
        browser = Browser(create_app(store, token=TOKEN, base_path="/why", hosts=["ops.example"]))
        page = browser.request("GET", "/thread?id=done", headers={"host": "ops.example"})
        assert 'href="/why/checkpoint?id=done' in page.text


def test_the_operator_may_authenticate(database: str) -> None:
    async def known(request: Request) -> str | None:
        return request.headers.get("x-user")

    def by_name(request: Request) -> str | None:
        return request.headers.get("x-user")

    checks: list[Callable[[Request], Any]] = [known, by_name]
    with EventStore(database, read_only=True) as store:
        for check in checks:
            browser = Browser(create_app(store, token=TOKEN, authenticate=check))
            assert browser.request("GET", "/threads").status_code == 401
            found = browser.request("GET", "/threads", headers={"x-user": "Ann"})
            assert found.status_code == 200 and "Ann" in found.text


def test_without_a_token_one_is_made(database: str) -> None:
    with EventStore(database, read_only=True) as store:
        app = create_app(store)
        assert len(app.state.token) >= 32
        headers = {"authorization": f"Bearer {app.state.token}"}
        assert Browser(app, **headers).get("threads").status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [{"token": "short"}, {"base_path": "x"}, {"graph": 1}, {"redact": ["a[b"]}, {"redact": [""]}],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with EventStore() as store, pytest.raises(ConfigurationError):
        create_app(store, **wrong)
    with pytest.raises(ConfigurationError):
        create_app("no store")  # type: ignore[arg-type]


# --- redaction --------------------------------------------------------------------------

SECRET: Final = "5555-4444-3333"


@pytest.mark.parametrize(
    "how",
    [
        {"redact": ["messages[*].content", "topic", "seen[*]", "refund?", "note", "kind"]},
        {"redact": ["messages", "topic", "seen", "refund?", "note", "kind", "value"]},
        {"redact_hook": lambda what, value: _without(value)},
    ],
)
def test_what_is_redacted_is_in_no_view(store_url: str, how: dict[str, Any]) -> None:
    with EventStore(store_url) as store:
        runs = builder.compile(checkpointer=store)
        first = {"messages": [said(SECRET)], "topic": SECRET, "seen": [SECRET], "note": SECRET * 9}
        place: Any = {**config("t"), "metadata": {"kind": SECRET}}
        runs.invoke(first, place)
        runs.update_state(config("t"), {"messages": said(SECRET), "note": SECRET}, as_node="lookup")
        runs.invoke({"topic": SECRET, "messages": said(SECRET)}, config("one"))
        browser = Browser(create_app(store, token=TOKEN, **how))
        for view, thread_id in itertools.product(VIEWS, ("t", "one")):
            last = store.head(thread_id).seq
            for seq, path in itertools.product((1, last), ("", "0", "0.0.1")):
                given: dict[str, Any] = {"id": thread_id, "seq": seq, "path": path, "keys": "0"}
                found = browser.get(f"{view}.json", **given, key="messages")
                assert SECRET not in found.text, (view, given)
            assert SECRET not in browser.get(view, id=thread_id, key="note", keys="0").text


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without(item) for item in value]
    return value.replace(SECRET, "…") if isinstance(value, str) else value
