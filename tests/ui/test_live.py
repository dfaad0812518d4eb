"""Who watches a thread sees it grow, from where they left off, and costs nothing afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from eventstore import EventStore
from eventstore.ui import create_app, live
from graph import Command
from tests.ui.serving import served
from tests.ui.support import HOSTILE, TOKEN, builder, config, said

HEADERS = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    with EventStore(tmp_path / "store.db") as opened:
        yield opened


def following(response: httpx.Response) -> Iterator[tuple[str, str, str]]:
    """The server-sent events of a stream: name, id, data."""
    found: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, text = line.partition(": ")
            found[name] = f"{found[name]}\n{text}" if name in found else text
        elif found:
            yield found.get("event", ""), found.get("id", ""), found.get("data", "")
            found = {}


def watched(client: httpx.Client, **given: Any) -> Any:
    return client.stream("GET", "/live", params=given, headers=HEADERS)


def test_a_watched_thread_grows(store: EventStore) -> None:
    runs = builder.compile(checkpointer=store)
    runs.invoke({"messages": [said(HOSTILE)], "topic": "t"}, config("t"))
    app = create_app(store, token=TOKEN)
    with served(app) as address, httpx.Client(base_url=address, timeout=20) as client:
        with watched(client, id="t", after=3) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert "default-src 'none'" in response.headers["content-security-policy"]
            found = following(response)
            assert next(found)[0] == "status"
            name, at, text = next(found)
            assert (name, at) == ("events", "5") and 'id="seq-4"' in text
            assert next(found)[0] == "lines"
            runs.invoke(Command(resume="yes"), config("t"))
            news = [next(found) for _ in range(3)]
            assert "refund: yes" in "".join(text for _, _, text in news)
            assert app.state.live.viewers == 1
        with client.stream(
            "GET", "/live?id=t&after=0", headers={**HEADERS, "last-event-id": "6"}
        ) as response:
            found = following(response)
            assert next(found)[0] == "status"
            assert 'id="seq-6"' not in next(found)[2]
        give_up_at = time.monotonic() + 10
        while app.state.live.viewers:
            assert time.monotonic() < give_up_at, "it polls for nobody"
            time.sleep(0.05)


def test_what_is_watched_is_bounded(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    builder.compile(checkpointer=store).invoke({"topic": "t"}, config("t"))
    monkeypatch.setattr(live, "SECONDS_MAX", 0.5)
    app = create_app(store, token=TOKEN)
    with served(app) as address, httpx.Client(base_url=address, timeout=20) as client:
        with watched(client, id="t", after=99) as response:
            assert [name for name, _, _ in following(response)] == ["status"]  # and it ends
        app.state.live.viewers = live.VIEWERS_MAX
        assert client.get("/live?id=t", headers=HEADERS).status_code == 503
        app.state.live.viewers = 0
        assert client.get("/live", headers=HEADERS).status_code == 400
        assert client.get("/live?id=t&after=x", headers=HEADERS).status_code == 400
        assert client.get("/live?id=t").status_code == 401
        with watched(client, id="nobody") as response:
            ((name, _, text),) = following(response)
        assert name == "problem" and "nobody" in text
