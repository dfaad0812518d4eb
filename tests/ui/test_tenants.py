"""An explorer of all tenants shows one at a time; any other one shows its own alone."""

from __future__ import annotations

import json

import pytest

from eventstore import EventStore
from eventstore.ui import create_app
from tests.cli.support import run, unchanged
from tests.ui.support import TOKEN, Browser, builder, config, fill, graph

HOSTILE = "a&tenant=b<i>"


@pytest.fixture
def database(store_url: str) -> str:
    """A database with threads of the same names in two tenants, and one with a hostile name."""
    fill(store_url)
    fill(store_url, "acme")
    with EventStore(store_url, tenant=HOSTILE) as store:
        builder.compile(checkpointer=store).update_state(config("one"), {"topic": "x"}, "think")
    return store_url


def test_every_tenant_is_listed_with_its_threads(database: str) -> None:
    with EventStore(database, read_only=True) as store, unchanged(database):
        browser = Browser(create_app(store, token=TOKEN, all_tenants=True))
        found = {each["tenant"]: each["counts"] for each in browser.json("tenants")["tenants"]}
        assert found.keys() == {"default", "acme", HOSTILE}
        assert found["acme"] == store.with_tenant("acme").thread_counts() == found["default"]
        page = browser.json("tenants", limit=1)
        assert len(page["tenants"]) == 1
        assert len(browser.json("tenants", after=page["next"])["tenants"]) == 2
        assert "<i>" not in browser.page("tenants")
        (only,) = browser.json("threads", tenant=HOSTILE)["threads"]
        assert (only["thread_id"], only["tenant"]) == ("one", HOSTILE)
        assert "one" not in {each["thread_id"] for each in browser.json("threads")["threads"]}
        assert browser.json("storage", tenant=HOSTILE, all=1)["total"]["threads"] == 1


def test_links_and_commands_stay_with_the_tenant(database: str) -> None:
    with EventStore(database, read_only=True) as store:
        browser = Browser(create_app(store, token=TOKEN, all_tenants=True))
        for view in ("threads", "thread", "checkpoint", "branches", "graph", "retention"):
            page = browser.page(view, id="done", tenant="acme")
            links = [part.partition('"')[0] for part in page.split('href="/')[1:]]
            other = [each for each in links if not each.startswith(("static", "tenants"))]
            assert other and all("tenant=acme" in each for each in other), other
            assert "--tenant acme" in browser.json(view, id="done", tenant="acme")["command"]
        assert 'name="tenant" value="acme"' in browser.page("threads", tenant="acme")
        assert "tenant=" not in browser.page("thread", id="done")


def test_a_change_is_made_in_the_tenant_that_is_shown(database: str) -> None:
    with EventStore(database) as store:
        app = create_app(
            store, token=TOKEN, all_tenants=True, allow_edits=True, user="Ann", graph=graph
        )
        browser = Browser(app)
        acme = store.with_tenant("acme")
        given = {"id": "done", "reason": "a case", "sure": "yes", "seen": acme.head("done").seq}
        done = browser.request("POST", "/pin", params={"tenant": "acme"}, data=given)
        assert (done.status_code, done.headers["location"]) == (303, "/thread?id=done&tenant=acme")
        assert acme.thread("done").pinned and not store.thread("done").pinned


def test_others_show_their_own_tenant_alone(database: str) -> None:
    with EventStore(database, tenant="acme", read_only=True) as store:
        browser = Browser(create_app(store, token=TOKEN))
        for tenant in ("default", HOSTILE, "nobody", "\0"):
            found = browser.get("threads.json", tenant=tenant)
            assert found.status_code in (400, 404) and "threads" not in json.loads(found.text)
            assert browser.get("live", id="done", tenant=tenant).status_code == 400
        assert [each["tenant"] for each in browser.json("tenants")["tenants"]] == ["acme"]
        assert browser.get("threads", tenant="acme").status_code == 200


def test_a_tenant_that_cannot_be_is_refused(database: str) -> None:
    with EventStore(database, read_only=True) as store:
        browser = Browser(create_app(store, token=TOKEN, all_tenants=True))
        for tenant, status in (("nobody", 200), ("\0", 400), ("x" * 10_000, 200)):
            assert browser.get("threads", tenant=tenant).status_code == status


def test_the_command_lists_them_too(database: str) -> None:
    lines = run("tenants", "--db", database, "--json").out.splitlines()
    found = {each["tenant"]: each["by_status"] for each in map(json.loads, lines)}
    assert found.keys() == {"default", "acme", HOSTILE} and found[HOSTILE] == {"waiting": 1}
    assert "acme" in run("tenants", "--db", database).out
