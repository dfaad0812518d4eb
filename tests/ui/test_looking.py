"""Each view shows what is in the log, as a page and as JSON, and changes nothing."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from eventstore import AsyncEventStore, Codec, Event, EventStore, Fork
from eventstore.ui import create_app
from eventstore.ui.app import VIEWS
from eventstore.ui.views import retention
from graph import START, Command, RetryPolicy, StateGraph
from tests.cli.support import run
from tests.ui.support import HOSTILE, TOKEN, Browser, Talk, builder, config, graph, said

THREADS: Final = ("done", "forked", "waits", "failed", HOSTILE)

pytestmark = pytest.mark.usefixtures("without_langchain")


on_each_backend = pytest.mark.parametrize("store_url", ["sqlite-file", "postgresql"], indirect=True)


@on_each_backend
def test_every_view_of_every_thread_is_there_as_a_page_and_as_json(browser: Browser) -> None:
    for view in VIEWS:
        for thread_id in THREADS:
            given = {"id": thread_id, "key": "messages", "keys": "0"}
            page = browser.page(view, **given)
            assert page.startswith("<!doctype html>")
            assert browser.json(view, **given)["view"] == view
            assert "<script>alert" not in page
            assert "\u202e" not in re.sub('value="[^"]*"', "", page)


def test_json_is_also_given_to_those_who_accept_it(browser: Browser) -> None:
    found = browser.get("threads", {"accept": "application/json"})
    assert found.headers["content-type"] == "application/json"
    assert found.json() == browser.json("threads")
    mixed = browser.get("threads", {"accept": "text/html, application/json;q=0.9"})
    assert mixed.headers["content-type"].startswith("text/html")


# --- threads ----------------------------------------------------------------------------


def names(document: Any) -> list[str]:
    return [each["thread_id"] for each in document["threads"]]


def test_threads_are_listed_and_filtered(browser: Browser) -> None:
    assert set(names(browser.json("threads"))) == set(THREADS)
    assert set(names(browser.json("threads", status="waiting"))) == {
        "done",
        "forked",
        "waits",
        HOSTILE,
    }
    assert names(browser.json("threads", status="failed")) == ["failed"]
    counts = browser.json("counts")["counts"]
    assert sum(counts.values()) == len(THREADS) and (counts["waiting"], counts["failed"]) == (4, 1)
    assert names(browser.json("threads", prefix="do")) == ["done"]
    assert names(browser.json("threads", prefix="../<")) == [HOSTILE]
    assert names(browser.json("threads", pinned="1")) == ["waits"]
    assert set(names(browser.json("threads", metadata="kind=test"))) == set(THREADS)
    assert names(browser.json("threads", metadata="kind=other")) == []
    assert names(browser.json("threads", since="2999-01-01T00:00")) == []
    assert set(names(browser.json("threads", until="2999-01-01T00:00"))) == set(THREADS)
    assert names(browser.json("threads", until="2000-01-01T00:00Z")) == []


def test_pages_of_threads_follow_each_other(browser: Browser) -> None:
    found: list[str] = []
    after = ""
    while True:
        page = browser.json("threads", limit=2, after=after)
        found += names(page)
        if page["next"] is None:
            break
        after = page["next"]
    assert sorted(found) == sorted(THREADS)
    html_page = browser.page("threads", limit=2)
    assert 'rel="next"' in html_page


def test_sizes_are_those_of_the_store(browser: Browser, database: str) -> None:
    rows = browser.json("threads")["threads"]
    sizes = browser.json("sizes", keys=",".join(each["thread_key"] for each in rows))["sizes"]
    with EventStore(database, read_only=True) as store:
        for each in rows:
            stats = store.stats(each["thread_id"])
            found = sizes[each["thread_key"]]
            assert (found["events"], found["bytes"]) == (stats.events, stats.stored_bytes)
            assert (found["waiting_since"] is not None) == (each["status"] == "waiting")


def test_what_waits_says_since_when_and_what_it_asks(browser: Browser) -> None:
    assert set(names(browser.json("waiting"))) == set(
        names(browser.json("threads", status="waiting"))
    )
    found = {each["thread_id"]: each for each in browser.json("waiting")["threads"]}
    assert set(found) >= {"forked", "waits", HOSTILE}
    assert found["waits"]["questions"][0]["value"] == {"refund?": "waits"}
    assert found["waits"]["waiting_since"] >= found["waits"]["created_at"]


# --- a thread ---------------------------------------------------------------------------


def test_a_thread_shows_its_conversation(browser: Browser) -> None:
    found = browser.json("transcript", id="done", seq=6)
    lines = [(each["kind"], each["role"]) for each in found["lines"]]
    assert lines[:4] + lines[-2:] == [
        ("message", "user"),
        ("wrote", "input"),
        ("message", "assistant"),
        ("wrote", "think"),
        ("question", "ask"),
        ("answer", "user"),
    ]
    # Two nodes run in parallel: either may be recorded first.
    assert sorted(lines[4:-2]) == [("message", "tool"), ("wrote", "lookup"), ("wrote", "other")]
    assert found["lines"][2]["tool_calls"] == [
        {"id": "call-1", "name": "lookup", "arguments": {"order": 7}}
    ]
    (tool,) = [each for each in found["lines"] if each["role"] == "tool"]
    assert tool["tool_call_id"] == "call-1"
    assert found["lines"][-1]["text"] == "yes"


def test_the_conversation_of_a_fork_goes_back_into_its_source(browser: Browser) -> None:
    lines = browser.json("transcript", id="forked")["lines"]
    assert lines[0]["text"] == "where is order 7?"
    assert lines[0]["where"]["thread_id"] == "done"
    assert browser.json("thread", id="forked")["origin"] == {
        "thread_id": "done",
        "ns": "",
        "seq": 2,
    }


def test_the_timeline_has_supersteps_with_their_tasks_side_by_side(browser: Browser) -> None:
    groups = browser.json("thread", id="done")["timeline"]
    together = [[each["node"] for each in group["events"]] for group in groups if group["tasks"]]
    assert sorted(together[1]) == ["lookup", "other"]
    assert all(each["seconds"] >= 0 for g in groups if g["tasks"] for each in g["events"])
    left = {each["seq"] for g in groups for each in g["events"] if not each["is_on_path"]}
    assert left == {3, 4, 5, 6, 7}  # behind the checkpoint at which the branch begins


def test_pages_of_the_timeline_follow_each_other(browser: Browser) -> None:
    seqs: list[int] = []
    before: Any = ""
    while True:
        page = browser.json("thread", id="done", limit=3, before=before)
        seqs = [each["seq"] for g in page["timeline"] for each in g["events"]] + seqs
        if page["older"] is None:
            break
        before = page["older"]
    assert seqs == list(range(1, page["seq"] + 1))


def test_errors_show_their_messages_as_text(browser: Browser) -> None:
    assert "no &lt;b&gt;luck&lt;/b&gt;" in browser.page("thread", id="failed")
    (error,) = browser.json("checkpoint", id="failed")["state"]["errors"]
    assert (error["node"], error["type"]) == ("think", "ValueError")


def test_retries_show_what_failed_before(store_url: str) -> None:
    left = [OSError("one"), OSError("two")]

    def flaky(state: Any) -> Any:
        if left:
            raise left.pop()
        return {"topic": "at last"}

    with EventStore(store_url) as store:
        flaky_graph = StateGraph(Talk)
        policy = RetryPolicy(max_attempts=3, initial_interval=0, retry_on=OSError)
        flaky_graph.add_node("flaky", flaky, retry_policy=policy)
        flaky_graph.add_edge(START, "flaky")
        flaky_graph.compile(checkpointer=store).invoke({"topic": "x"}, config("t"))
        browser = Browser(create_app(store, token=TOKEN))
        (group,) = [each for each in browser.json("thread", id="t")["timeline"] if each["tasks"]]
        assert group["events"][0]["retries"] == ["OSError: two", "OSError: one"]
        assert "attempt 2 failed: OSError: one" in browser.page("thread", id="t")


def test_subgraphs_are_one_click_deeper(store_url: str) -> None:
    with EventStore(store_url) as store:
        outer = StateGraph(Talk)
        outer.add_node("inner", builder.compile())
        outer.add_edge(START, "inner")
        runs = outer.compile(checkpointer=store)
        runs.invoke({"messages": [said("hello")], "topic": "x"}, config("t"))
        runs.invoke(Command(resume="yes"), config("t"))
        browser = Browser(create_app(store, token=TOKEN, graph=runs))
        groups = [each for each in browser.json("thread", id="t")["timeline"] if each["tasks"]]
        (ns,) = groups[0]["logs"]
        inside = browser.json("thread", id="t", ns=ns)
        assert [e["node"] for g in inside["timeline"] for e in g["events"]][1] == "think"
        for view in VIEWS:
            browser.page(view, id="t", ns=ns, key="messages", keys="0")
        seq = inside["seq"]
        assert browser.json("checkpoint", id="t", ns=ns, seq=seq)["state"]["next"] == []
        assert "ask" in [
            n["name"] for n in browser.json("graph", id="t", ns=ns)["picture"]["nodes"]
        ]


# --- a checkpoint -----------------------------------------------------------------------


def state_of(browser: Browser, thread_id: str, seq: int) -> dict[str, Any]:
    """The state at a position as the pages show it, opened to the last leaf."""

    def opened(path: str) -> Any:
        node = browser.json("state", id=thread_id, seq=seq, path=path)["tree"]
        if "children" not in node:
            return node["text"]
        found = [
            (each["label"], opened(each["path"]) if each["opens"] else json.loads(each["preview"]))
            for each in node["children"]
        ]
        return [item for _, item in found] if node["type"] == "list" else dict(found)

    result: dict[str, Any] = opened("")
    return result


@pytest.mark.parametrize("with_app", [False, True])
def test_states_are_those_of_the_graph(database: str, with_app: bool) -> None:
    with EventStore(database) as store:
        runs = builder.compile(checkpointer=store)
        history = [*runs.get_state_history(config("done"), every=True)]
        app = create_app(store, token=TOKEN, graph=graph if with_app else None)
        for snapshot in history:
            seq = int(snapshot.config["configurable"]["checkpoint_id"].split("-")[1], 16)
            found = state_of(Browser(app), "done", seq)
            assert found == snapshot.values
            shown = Browser(app).json("checkpoint", id="done", seq=seq)
            assert sorted(shown["state"]["next"]) == sorted(snapshot.next)
            assumed = {key["label"] for key in shown["keys"] if key["assumed"]}
            assert assumed == (set() if with_app else {"messages", "seen"} & found.keys()) or (
                assumed < {"messages", "seen"}
            )


def test_a_position_within_a_superstep_says_so(browser: Browser) -> None:
    found = browser.json("checkpoint", id="done", seq=3)["state"]
    assert (found["is_checkpoint"], found["at"]["seq"]) == (False, 2)


def test_a_large_value_is_shown_a_page_at_a_time(store_url: str) -> None:
    with EventStore(store_url) as store:
        runs = builder.compile(checkpointer=store)
        rows = [f"row {n}" for n in range(1_000)]
        runs.update_state(config("t"), {"seen": rows, "note": "x" * 100_000}, as_node="think")
        browser = Browser(create_app(store, token=TOKEN))
        assert len(browser.page("checkpoint", id="t")) < 20_000
        labels = [key["label"] for key in browser.json("checkpoint", id="t")["keys"]]
        path, found, offset = labels.index("seen"), list[str](), 0
        while offset is not None:
            node = browser.json("state", id="t", path=path, offset=offset)["tree"]
            found += [json.loads(each["preview"]) for each in node["children"]]
            offset = node["next_offset"]
        assert found == rows
        text = browser.json("state", id="t", path=labels.index("note"))["tree"]
        assert len(text["text"]) == text["next_offset"] == 4_000


def test_differences_are_structural_and_by_line_in_texts(browser: Browser) -> None:
    found = {each["path"]: each for each in browser.json("diff", id="done", seq=7)["changes"]}
    assert found["seen"]["change"] == "appended" and found["seen"]["after"] == '["ask"]'
    assert "+another line" in found["note"]["text"] and "-line two" in found["note"]["text"]
    assert found["messages"]["change"] == "appended"
    other = browser.json("diff", id="forked", to_id="done", to=2)
    assert {each["path"] for each in other["changes"]} >= {"messages", "seen"}
    assert browser.json("diff", id="done", seq=7, to=7)["changes"] == []
    assert browser.json("diff", id="done", seq=1)["from"] is None


def test_a_raw_event_has_its_digest(browser: Browser, database: str) -> None:
    found = browser.json("event", id="done", seq=2)
    with EventStore(database, read_only=True) as store:
        event = next(store.read("done", after=1))
    assert (found["digest"], found["bytes"]) == (event.digest.hex(), event.size)
    assert {each["label"] for each in found["tree"]["children"]} == set(event.data)


# --- causes -----------------------------------------------------------------------------


def test_a_value_leads_to_the_event_that_made_it_and_to_its_input(browser: Browser) -> None:
    found = browser.json("blame", id="done", seq=7, key="messages")
    assert [(each["node"], each["at"]["seq"]) for each in found["writes"]] == [
        ("ask", 7),
        ("lookup", 3),
        ("think", 2),
        ("", 1),
    ] or [each["node"] for each in found["writes"]] == ["ask", "lookup", "think", ""]
    assert found["writes"][0]["read"]["seq"] < 7
    keys = [key["label"] for key in browser.json("checkpoint", id="done", seq=7)["keys"]]
    part = browser.json(
        "blame", id="done", seq=7, key="messages", path=f"{keys.index('messages')}.2"
    )
    assert part["cause"]["node"] == "lookup"


def test_outputs_that_a_new_input_withdrew_wrote_nothing(store_url: str) -> None:
    with EventStore(store_url) as store:
        runs = builder.compile(checkpointer=store)
        runs.invoke({"topic": "one"}, config("t"), interrupt_before=["lookup"])
        head = store.head("t")
        done = {"step": 2, "task": 0, "node": "lookup", "writes": {"note": "lost"}, "to": []}
        store.append("t", [Event(2, done)], head.seq)
        runs.invoke({"topic": "two"}, config("t"), interrupt_before=["lookup"])
        browser = Browser(create_app(store, token=TOKEN))
        writes = browser.json("blame", id="t", key="note")["writes"]
        assert all("lost" not in each["value"] for each in writes) and writes[0]["node"] == "think"


def test_branches_say_where_they_went_apart(browser: Browser) -> None:
    found = browser.json("branches", id="done")
    assert [(each["at"]["seq"], each["source"]["seq"]) for each in found["own"]] == [(8, 2)]
    assert (found["trunk_end"], found["own"][0]["is_on_path"]) == (7, True)
    assert [(each["thread_id"], each["source"]["seq"]) for each in found["forks"]] == [
        ("forked", 2)
    ]


def test_branches_of_branches_stand_inside_them(store_url: str) -> None:
    """1 2 3, back to 2: 4 5 6, back to 5: 7 8, back to 1: 9 10; a thread goes on from 6."""
    with EventStore(store_url) as store:
        head = store.append_after(store.head("t"), [Event(1, n) for n in (1, 2, 3)])
        for source in (2, 5, 1):
            at = head.position._replace(seq=source)
            head = store.append_after(head, [Fork(at), Event(1, source)])
            if source == 2:
                head = store.append_after(head, [Event(1, 6)])
        store.fork("t", 6, "other")
        browser = Browser(create_app(store, token=TOKEN))
        found = browser.json("branches", id="t")
        assert [(each["at"]["seq"], each["end"], each["inside"]) for each in found["own"]] == [
            (4, 6, 0),
            (7, 8, 4),
            (9, 10, 0),
        ]
        assert [(each["thread_id"], each["inside"]) for each in found["forks"]] == [("other", 4)]
        page = browser.page("branches", id="t")
        assert page.index("seq 8") < page.index("other") < page.index("seq 10")


@pytest.mark.parametrize("with_app", [False, True])
def test_the_graph_shows_the_path_that_was_taken(database: str, with_app: bool) -> None:
    with EventStore(database, read_only=True) as store:
        app = create_app(store, token=TOKEN, graph=graph if with_app else None)
        found = Browser(app).json("graph", id="done", seq=7)
        taken = {(e["source"], e["target"]) for e in found["picture"]["edges"] if e["taken"]}
        assert taken >= {("__start__", "think"), ("think", "lookup"), ("think", "other")}
        names = {node["name"] for node in found["picture"]["nodes"]}
        assert names >= {"think", "lookup", "other", "ask"}
        assert ("__end__" in names) == with_app
        failed = Browser(app).json("graph", id="failed")
        assert [n["name"] for n in failed["picture"]["nodes"] if "failed" in n["classes"]] == [
            "think"
        ]


# --- other logs -------------------------------------------------------------------------


def test_a_log_of_another_application_is_shown_as_events(store_url: str) -> None:
    with EventStore(store_url) as store:
        store.append("t", [Event(7, {"a": 1}), Event(1, "text"), Event(2, [1, {"writes": 3}])], 0)
        head = store.head("t")
        store.append("u", [Fork(head.position, {"why": 1}), Event(1, {"writes": 3})], 0)
        browser = Browser(create_app(store, token=TOKEN))
        for view in VIEWS:
            for thread_id in ("t", "u"):
                found = browser.get(view, id=thread_id, key="a", keys="0")
                assert found.status_code in (200, 404), (view, found.text)
        assert browser.json("thread", id="t")["timeline"]
        assert browser.json("checkpoint", id="t", seq=2)["state"] is None


def test_types_that_are_not_registered_are_shown_by_their_fields(store_url: str) -> None:
    from tests.cli import application

    with EventStore(store_url) as store:
        application.graph.compile(checkpointer=store).invoke({"topic": "bees"}, config("t"))
    with EventStore(store_url, codec=Codec(opaque_types=True), read_only=True) as store:
        browser = Browser(create_app(store, token=TOKEN))
        keys = {key["label"]: key for key in browser.json("checkpoint", id="t")["keys"]}
        assert "Ann" in keys["author"]["preview"]


def test_damage_is_named_and_the_rest_is_shown(store_url: str) -> None:
    from tests.eventstore.support import sql

    with EventStore(store_url) as store:
        builder.compile(checkpointer=store).invoke({"topic": "x"}, config("t"))
        sql(store, "UPDATE events SET payload = ? WHERE seq = 2", (b"\x00damaged",))
        browser = Browser(create_app(store, token=TOKEN))
        assert "seq 2" in browser.json("thread", id="t")["problem"]
        assert browser.json("checkpoint", id="t", seq=1)["state"]["step"] == 0
        assert browser.json("checkpoint", id="t", seq=2)["problem"]
        assert browser.json("verify", id="t")["ok"] is False
        assert browser.json("threads")["threads"]


@on_each_backend
def test_an_async_store_is_shown_alike(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SECONDS", 60.0)  # measure all threads, however slowly
    import asyncio

    import httpx

    async def looked() -> list[Any]:
        async with AsyncEventStore(database, read_only=True) as store:
            app = create_app(store, token=TOKEN)
            transport = httpx.ASGITransport(app=app)
            headers = {"authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost", headers=headers
            ) as client:
                return [
                    (
                        await client.get(f"/{view}.json?id={quote(HOSTILE)}&key=messages&keys=0")
                    ).json()
                    for view in VIEWS
                ]

    with EventStore(database, read_only=True) as store:
        browser = Browser(create_app(store, token=TOKEN))
        own = [browser.json(view, id=HOSTILE, key="messages", keys="0") for view in VIEWS]
    assert asyncio.run(looked()) == own


@pytest.mark.parametrize("is_late", [False, True])
def test_a_thread_of_langgraph_is_shown(store_url: str, is_late: bool) -> None:
    langgraph = pytest.importorskip("langgraph.graph")
    from graph.langgraph import EventStoreSaver
    from tests.langgraph.late import LateSaver

    with EventStore(store_url) as store:
        theirs = langgraph.StateGraph(langgraph.MessagesState)
        theirs.add_node("reply", lambda state: {"messages": [("ai", "order 7: shipped")]})
        theirs.add_edge("__start__", "reply")
        runs = theirs.compile(checkpointer=(LateSaver if is_late else EventStoreSaver)(store))
        runs.invoke({"messages": [("user", "where is it?")]}, {"configurable": {"thread_id": "t"}})
        browser = Browser(create_app(store, token=TOKEN))
        lines = browser.json("transcript", id="t")["lines"]
        said_by = [(each["role"], each["text"]) for each in lines if each["kind"] == "message"]
        assert said_by == [("user", "where is it?"), ("assistant", "order 7: shipped")]
        keys = browser.json("checkpoint", id="t")["keys"]
        assert [key["label"] for key in keys] == ["messages"] and keys[0]["count"] == 2
        assert browser.json("blame", id="t", key="messages")["writes"][0]["node"] == "reply"
        drawn = browser.json("graph", id="t")["picture"]["edges"]
        assert ("__start__", "reply") in {(e["source"], e["target"]) for e in drawn}
        for view in VIEWS:
            browser.page(view, id="t", key="messages", keys="0")


def test_a_trimmed_thread_shows_what_is_left(store_url: str) -> None:
    with EventStore(store_url) as store:
        runs = builder.compile(checkpointer=store)
        runs = builder.compile(checkpointer=store, snapshot_each_run=True)
        for n in range(3):
            runs.invoke({"topic": f"t{n}", "messages": [said(f"hello {n}")]}, config("t"))
            runs.invoke(Command(resume="yes"), config("t"))
        head = store.head("t")
        from retention import RetentionPolicy, sweep

        sweep(store, RetentionPolicy(keep_last_checkpoints=2))
        browser = Browser(create_app(store, token=TOKEN))
        for view in VIEWS:
            browser.page(view, id="t", key="messages", keys="0")
        assert browser.json("checkpoint", id="t")["seq"] == head.seq
        found = browser.json("thread", id="t")
        assert found["problem"] is None and found["timeline"][-1]["events"][-1]["seq"] == head.seq
        assert found["first"] > 1 and found["transcript"]["lines"]
        gone = browser.get("checkpoint", id="t", seq=1)
        assert gone.status_code == 404 and "trimmed" in gone.text


def test_the_command_that_shows_the_same_can_be_copied(browser: Browser) -> None:
    page = html.unescape(browser.page("thread", id=HOSTILE))
    assert "eventstore history '../<script>" in page


def test_every_command_runs(database: str, tmp_path: Path) -> None:
    """What a page shows to be copied works as it is, with what the explorer was started with."""
    policies = tmp_path / "the policies.toml"
    policies.write_text('[[policy]]\nname = "chats"\nttl = "30d"\n')
    (tmp_path / "archive").mkdir()
    options = {"app": "tests.ui.support:graph", "policies": str(policies)}
    given = {"id": "done", "seq": 7, "key": "messages", "keys": "0"}
    with EventStore(database, read_only=True) as store:
        for known in ({}, options):
            explorer = create_app(
                store,
                token=TOKEN,
                db=database,
                options=known,
                archive=(tmp_path / "archive").as_uri(),
            )
            for view in VIEWS:
                command = Browser(explorer).json(view, **given).get("command")
                if command is None:  # a part of a page
                    assert view in ("sizes", "state")
                    continue
                name, *words = shlex.split(command)
                done = run(*words)
                assert (name, done.code) == ("eventstore", 0), (command, done.err)


def test_the_command_of_a_list_has_its_filters(browser: Browser, database: str) -> None:
    for filters in (
        {"prefix": "do"},
        {"status": "failed", "metadata": ["kind=test", "x=1"]},
        {"pinned": "1", "metadata": "kind=test"},
        {"since": "2020-01-01T00:00", "until": "2999-01-01T00:00"},
        {"until": "2020-01-01T00:00"},
    ):
        found = browser.json("threads", **filters)
        words = shlex.split(found["command"].replace("$EVENTSTORE_DB", database))[1:]
        listed = {each["thread_id"] for each in run(*words, "--json").lines}
        assert listed == set(names(found)), found["command"]
        assert {each["thread_id"] for each in run(*words, "--all", "--json").lines} == listed


def test_the_command_of_a_thread_whose_name_looks_like_an_option(store_url: str) -> None:
    with EventStore(store_url, tenant="a b") as store:
        store.append("--all", [Event(1, 1)], 0)
        found = Browser(create_app(store, token=TOKEN, db="x y.db")).json("event", id="--all")
    assert found["command"] == (
        "eventstore events --upto 1 --full --db 'x y.db' --tenant 'a b' -- --all"
    )
