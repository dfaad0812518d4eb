"""With edits allowed: each change is shown, confirmed, made by the API, and in the audit trail."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import httpx
import pytest

from eventstore import AsyncEventStore, EventStore
from eventstore.ui import create_app
from eventstore.ui.edits import answer_to
from tests.ui.support import HOSTILE, TOKEN, Browser, builder, config, fill, graph

pytestmark = pytest.mark.usefixtures("without_langchain")


@pytest.fixture
def store(database: str) -> Iterator[EventStore]:
    with EventStore(database) as opened:
        yield opened


@pytest.fixture
def browser(store: EventStore) -> Browser:
    """As a person's browser: with the cookie, not with the header."""
    app = create_app(store, token=TOKEN, graph=graph, allow_edits=True, user="Ann")
    entry = Browser(app, authorization="").request("GET", f"/threads?token={TOKEN}")
    cookie = entry.headers["set-cookie"].partition(";")[0]
    return Browser(app, authorization="", cookie=cookie, origin="http://127.0.0.1")


def fields(page: str, action: str) -> dict[str, str]:
    """The hidden fields of a form."""
    form = re.search(rf'<form[^>]*action="/{action}".*?</form>', page, re.DOTALL)
    assert form is not None, page
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form[0])
    return {name: html.unescape(value) for name, value in found}


def change(browser: Browser, page: str, action: str, **given: str) -> httpx.Response:
    """Fill in a form, read what it will do, and confirm."""
    asked = browser.request("POST", f"/{action}", data={**fields(page, action), **given})
    assert asked.status_code == 200, asked.text
    assert "recorded as" in asked.text and "Ann" in asked.text
    return browser.request("POST", f"/{action}", data=fields(asked.text, action))


def test_a_question_is_answered(browser: Browser, store: EventStore) -> None:
    page = browser.page("thread", id=HOSTILE)
    before = store.head(HOSTILE).seq
    browser.request("POST", "/answer", data={**fields(page, "answer"), "decision": "accept"})
    assert store.head(HOSTILE).seq == before  # only shown so far
    done = change(browser, page, "answer", decision="respond", text="go ahead")
    assert done.status_code == 303
    assert done.headers["location"].startswith("/thread?id=")
    state = graph.with_checkpointer(store).get_state(config(HOSTILE))
    assert state.values["messages"][-1]["content"] == "refund: go ahead"
    (resumed,) = [each for each in store.read(HOSTILE) if each.kind == 5]
    assert resumed.data["by"] == "Ann"
    lines = browser.json("transcript", id=HOSTILE)["lines"]
    assert [each["by"] for each in lines if each["kind"] == "answer"] == ["Ann"]
    again = browser.request(
        "POST", "/answer", data={**fields(page, "answer"), "decision": "accept"}
    )
    assert again.status_code == 409 and "answered meanwhile" in again.text


def test_the_state_is_edited_as_a_node(browser: Browser, store: EventStore) -> None:
    page = browser.page("thread", id="done")
    done = change(browser, page, "edit", values='{"topic": "order 9"}', as_node="think")
    assert done.status_code == 303
    *_, last = store.read("done")
    assert (last.kind, last.data["node"], last.data["writes"]) == (6, "think", {"topic": "order 9"})
    assert last.data["metadata"] == {"by": "Ann", "via": "explorer"}
    assert "Ann" in browser.page("thread", id="done")
    wrong = change(browser, page, "edit", values='{"nothing": 1}', as_node="nobody")
    assert wrong.status_code == 409


def test_a_fork_goes_on_in_a_new_thread(browser: Browser, store: EventStore) -> None:
    page = browser.page("checkpoint", id="done", seq=2)
    done = change(browser, page, "fork", new_id="a new/one")
    assert done.headers["location"] == "/thread?id=a+new%2Fone"
    found = browser.json("thread", id="a new/one")
    assert found["origin"] == {"thread_id": "done", "ns": "", "seq": 2}
    runs = graph.with_checkpointer(store)
    assert sorted(runs.get_state(config("a new/one")).next) == ["lookup", "other"]
    assert store.thread("a new/one").metadata.get("by") == "Ann"
    taken = browser.request("POST", "/fork", data={**fields(page, "fork"), "new_id": "waits"})
    assert taken.status_code == 409 and "exists already" in taken.text


def test_a_fork_needs_no_application(store: EventStore) -> None:
    app = create_app(store, token=TOKEN, allow_edits=True, user="Ann")
    browser = Browser(app)
    given = {"id": "done", "seq": "2", "new_id": "n"}
    seen = str(store.head("done").seq)
    found = browser.request("POST", "/fork", data={**given, "seen": seen, "sure": "yes"})
    assert found.status_code == 303
    assert sorted(builder.compile(checkpointer=store).get_state(config("n")).next) == [
        "lookup",
        "other",
    ]
    refused = browser.request("POST", "/resume", data={"id": "done"})
    assert refused.status_code == 409 and "--app" in refused.text


def test_a_run_is_continued(browser: Browser, store: EventStore) -> None:
    page = browser.page("thread", id="done")
    change(browser, page, "edit", values='{"topic": "again"}', as_node="think")
    assert change(browser, browser.page("thread", id="done"), "resume").status_code == 303
    assert graph.with_checkpointer(store).get_state(config("done")).next == ("ask",)
    failed = change(browser, browser.page("thread", id="failed"), "resume")
    assert failed.status_code == 500 and "no &lt;b&gt;luck" in failed.text


def test_pins_and_ttl(browser: Browser, store: EventStore) -> None:
    page = browser.page("thread", id="done")
    change(browser, page, "pin", reason="case 7")
    pin = store.thread("done").pin
    assert pin is not None and (pin.reason, pin.by) == ("case 7", "Ann")
    change(browser, browser.page("thread", id="done"), "unpin")
    assert not store.thread("done").pinned
    change(browser, page, "ttl", days="30")
    assert store.thread("done").ttl == timedelta(days=30).total_seconds()
    change(browser, page, "ttl", days="")
    assert store.thread("done").ttl is None


def test_each_change_is_told_in_the_log(
    browser: Browser, store: EventStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "eventstore.ui.edits")
    change(browser, browser.page("thread", id="done"), "ttl", days="5")
    change(browser, browser.page("thread", id="waits"), "unpin")
    found = [each.getMessage() for each in caplog.records]
    assert found[0].startswith("Ann changed thread 'done' in the explorer: Give the thread its own")
    assert "(days: 5)" in found[0] and "'waits'" in found[1] and len(found) == 2


def test_a_thread_that_has_changed_is_looked_at_again(browser: Browser, store: EventStore) -> None:
    page = browser.page("thread", id="done")
    asked = browser.request("POST", "/resume", data=fields(page, "resume"))
    graph.with_checkpointer(store).update_state(config("done"), {"topic": "x"}, as_node="think")
    found = browser.request("POST", "/resume", data=fields(asked.text, "resume"))
    assert found.status_code == 409 and "has changed" in found.text


# --- who may ----------------------------------------------------------------------------


def test_a_form_from_elsewhere_changes_nothing(browser: Browser, store: EventStore) -> None:
    data = {**fields(browser.page("thread", id="done"), "pin"), "reason": "x", "sure": "yes"}
    data["seen"] = str(store.head("done").seq)
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1:99",
    ):
        found = browser.request("POST", "/pin", data=data, headers={"origin": origin})
        assert found.status_code == 403
    cross = {"sec-fetch-site": "cross-site"}
    assert browser.request("POST", "/pin", data=data, headers=cross).status_code == 403
    no_origin = Browser(browser.app, authorization="", cookie=browser.headers["cookie"])
    assert no_origin.request("POST", "/pin", data=data).status_code == 403
    for csrf in ("", "x", TOKEN):
        found = browser.request("POST", "/pin", data={**data, "csrf": csrf})
        assert found.status_code == 409 and "form" in found.text
    stranger = Browser(browser.app, authorization="", origin="http://127.0.0.1")
    assert stranger.request("POST", "/pin", data=data).status_code == 401
    assert browser.request("GET", "/pin", params=data).status_code == 405
    assert not store.thread("done").pinned


def test_a_program_shows_the_token_in_place_of_a_form(browser: Browser, store: EventStore) -> None:
    program = Browser(browser.app)
    seen = str(store.head("done").seq)
    data = {"id": "done", "reason": "x", "sure": "yes", "seen": seen}
    assert program.request("POST", "/pin", data=data).status_code == 303
    assert store.thread("done").pinned


WRONG: Final[list[tuple[str, dict[str, str]]]] = [
    ("/pin", {"id": "done"}),
    ("/pin", {"reason": "x"}),
    ("/ttl", {"id": "done", "days": "-1"}),
    ("/ttl", {"id": "done", "days": "x"}),
    ("/edit", {"id": "done", "values": "{"}),
    ("/edit", {"id": "done", "values": "[1]"}),
    ("/edit", {"id": "done", "values": "[" * 100_000}),
    ("/answer", {"id": "waits", "question": "x", "decision": "accept"}),
    ("/fork", {"id": "done", "new_id": ""}),
    ("/fork", {"id": "done", "new_id": "\0"}),
    ("/fork", {"id": "nobody", "new_id": "x"}),
    ("/fork", {"id": "done", "new_id": "x", "seq": "99"}),
    ("/resume", {"id": "x" * 2_000_000}),
]


def test_wrong_forms_are_refused(browser: Browser) -> None:
    for path, data in WRONG:
        found = Browser(browser.app).request("POST", path, data=data)
        assert found.status_code in (400, 404, 409), (path, found.text)


def test_other_bodies_are_refused(browser: Browser) -> None:
    program = Browser(browser.app)
    assert program.request("POST", "/pin", json={"id": "done"}).status_code == 400
    assert program.request("POST", "/pin", files={"id": b"done"}).status_code == 400
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert program.request("POST", "/pin", content=b"id=\xff", headers=kind).status_code == 400


def test_nobody_changes_anything_without_a_name(store: EventStore) -> None:
    browser = Browser(create_app(store, token=TOKEN, allow_edits=True))
    found = browser.request("POST", "/pin", data={"id": "done", "reason": "x"})
    assert found.status_code == 409 and "--user" in found.text


def test_a_trusted_header_says_who(store: EventStore) -> None:
    app = create_app(store, token=TOKEN, allow_edits=True, user_header="x-user", user="nobody")
    browser = Browser(app, **{"x-user": "Bob"})
    seen = str(store.head("done").seq)
    data = {"id": "done", "reason": "x", "sure": "yes", "seen": seen}
    browser.request("POST", "/pin", data=data)
    pin = store.thread("done").pin
    assert pin is not None and pin.by == "Bob"


def test_an_async_store_is_changed_alike(store_url: str) -> None:
    fill(store_url)

    async def answered() -> Any:
        async with AsyncEventStore(store_url) as store:
            app = create_app(store, token=TOKEN, graph=graph, allow_edits=True, user="Ann")
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app),
                base_url="http://localhost",
                headers={"authorization": f"Bearer {TOKEN}"},
            ) as client:
                page = await client.get("/thread.json", params={"id": "waits"})
                (asked,) = page.json()["questions"]
                head = await store.head("waits")
                data = {"id": "waits", "question": asked["id"], "decision": "accept"}
                more = {"sure": "yes", "seen": str(head.seq)}
                done = await client.post("/answer", data={**data, **more})
                assert done.status_code == 303, done.text
                fork = {"id": "done", "seq": "2", "new_id": "n", "sure": "yes"}
                fork["seen"] = str((await store.head("done")).seq)
                assert (await client.post("/fork", data=fork)).status_code == 303
                return (await client.get("/transcript.json", params={"id": "waits"})).json()

    assert asyncio.run(answered())["lines"][-2]["text"] == "refund: True"


# --- answers ----------------------------------------------------------------------------

ACTION: Any = {"action_request": {"action": "pay", "args": {"n": 1}}, "config": {}}
ACTIONS: Any = {"action_requests": [{"name": "a"}, {"name": "b"}], "review_configs": []}


@pytest.mark.parametrize(
    ("question", "decision", "text", "expected"),
    [
        ("ok?", "accept", "", True),
        ("ok?", "ignore", "", False),
        ("ok?", "respond", "text", "text"),
        ("ok?", "json", '{"a": 1}', {"a": 1}),
        ("ok?", "edit", "[1]", [1]),
        ([ACTION], "accept", "", [{"type": "accept", "args": None}]),
        (ACTION, "ignore", "", [{"type": "ignore", "args": None}]),
        ([ACTION], "respond", "no", [{"type": "response", "args": "no"}]),
        ([ACTION], "edit", '{"action": "x"}', [{"type": "edit", "args": {"action": "x"}}]),
        (ACTIONS, "accept", "", {"decisions": [{"type": "approve"}] * 2}),
        (ACTIONS, "respond", "no", {"decisions": [{"type": "reject", "message": "no"}] * 2}),
        (ACTIONS, "edit", "{}", {"decisions": [{"type": "edit", "edited_action": {}}] * 2}),
    ],
)
def test_answers_have_the_form_that_questions_ask_for(
    question: Any, decision: str, text: str, expected: Any
) -> None:
    assert answer_to(question, decision, text) == expected
