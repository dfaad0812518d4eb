"""What the tests of the explorer share: a database to look at, and asking for its pages.

Requests go to the ASGI application in this process, by httpx; `test_process.py` starts real ones.
"""

from __future__ import annotations

import asyncio
import json
import operator
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Final, TypedDict

import httpx
from starlette.applications import Starlette

from eventstore import EventStore
from graph import END, START, Command, StateGraph, add_messages, interrupt
from graph.app import CompiledGraph

TOKEN: Final = "a-token-for-tests"
HOSTILE: Final = "../<script>alert(1)</script>?&#'\"%2F\u202e{{7*7}}"
"""The name of a thread, and text in its state, that would do harm if it were more than text."""


class Talk(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]
    seen: Annotated[list[str], operator.add]
    topic: str
    note: str


def think(state: Talk) -> Talk:
    if state.get("topic") == "fail":
        raise ValueError("no <b>luck</b>")
    call = {"id": "call-1", "name": "lookup", "args": {"order": 7}}
    message = {"role": "assistant", "content": "let me look", "tool_calls": [call], "id": "m2"}
    return {"messages": [message], "seen": ["think"], "note": "line one\nline two\n" * 5}


def lookup(state: Talk) -> Talk:
    return {
        "messages": [
            {"role": "tool", "content": "order 7: shipped", "tool_call_id": "call-1", "id": "m3"}
        ],
        "seen": ["lookup"],
    }


def other(state: Talk) -> Talk:
    return {"seen": ["other"]}


def ask(state: Talk) -> Talk:
    answer = interrupt({"refund?": state.get("topic", HOSTILE)})
    return {
        "messages": [{"role": "assistant", "content": f"refund: {answer}", "id": "m4"}],
        "note": "line one\nanother line\n" * 5,
        "seen": ["ask"],
    }


builder: Final = StateGraph(Talk)
for node in (think, lookup, other, ask):
    builder.add_node(node)
builder.add_edge(START, "think")
builder.add_edge("think", "lookup")
builder.add_edge("think", "other")
builder.add_edge(["lookup", "other"], "ask")
builder.add_edge("ask", END)

graph: Final[CompiledGraph] = builder.compile()
"""The application, as ``--app tests.ui.support:graph`` loads it."""


def config(thread_id: str, **more: Any) -> Any:
    """The config of a thread."""
    return {"configurable": {"thread_id": thread_id, **more}, "metadata": {"kind": "test"}}


def said(text: str) -> dict[str, Any]:
    """A message of a user."""
    return {"role": "user", "content": text, "id": "m1"}


def fill(url: str, tenant: str = "default") -> None:
    """Threads: done and branched, forked from it, waiting, failed, with a hostile name, plain."""
    with EventStore(url, tenant=tenant) as store:
        runs = builder.compile(checkpointer=store)
        question = {"messages": [said("where is order 7?")], "topic": "order 7"}
        runs.invoke(question, config("done"))
        runs.invoke(Command(resume="yes"), config("done"))
        first = [*runs.get_state_history(config("done"), every=True)][-2]
        runs.update_state(first.config, {"topic": "order 8"}, as_node="think")
        place = first.config["configurable"]["checkpoint_id"]
        runs.invoke(None, config("forked", checkpoint_id=place))
        runs.invoke({"messages": [said("hello")], "topic": "waits"}, config("waits"))
        with suppress(ValueError):
            runs.invoke({"topic": "fail"}, config("failed"))
        runs.invoke({"messages": [said(HOSTILE)], "topic": HOSTILE}, config(HOSTILE))
        store.pin("waits", "a case", "Ann")


class Browser:
    """Asks an application for pages, one event loop for each request or for several."""

    def __init__(self, app: Starlette, base: str = "http://127.0.0.1", **headers: str) -> None:
        self.app = app
        self.base = base
        self.headers = {"authorization": f"Bearer {TOKEN}", **headers}

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The response to one request."""
        headers = {**self.headers, **options.pop("headers", {})}
        kept = {name: value for name, value in headers.items() if value}

        async def ask_for() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url=self.base) as client:
                return await client.request(method, path, headers=kept, **options)

        return asyncio.run(ask_for())

    def get(self, view: str, headers: Mapping[str, str] | None = None, **given: Any) -> Any:
        """The response to a GET of a view."""
        return self.request("GET", f"/{view}", params=given, headers=headers or {})

    def page(self, view: str, **given: Any) -> str:
        """The text of a page that is there."""
        found = self.get(view, **given)
        assert found.status_code == 200, (found.status_code, found.text)
        text: str = found.text
        return text

    def json(self, view: str, **given: Any) -> Any:
        """The document of a view that is there."""
        return json.loads(self.page(f"{view}.json", **given))
