"""`transcript`: conversations as people read them; messages in `events` and `diff`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, ToolMessage

import graph
from eventstore import EventStore
from eventstore.cli import exits
from graph.langgraph import EventStoreSaver
from tests.cli.support import ESCAPE, Done, config, process, run
from tests.graph.prebuilt.support import ScriptedModel
from tests.graph.prebuilt.test_support_agent import SCRIPT, TURNS, approve, loaded
from tests.langgraph.late import LateSaver

Read = Callable[..., Done]


@pytest.fixture(params=[EventStoreSaver, LateSaver])
def talked(store_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A database with the same conversation twice: on our runtime, and on LangGraph's."""
    monkeypatch.setenv("EVENTSTORE_DB", store_url)
    with EventStore(store_url) as store, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        savers: Any = {"agent": store, "agent_langgraph": request.param(store)}
        for name, saver in savers.items():
            module = loaded(name)
            agent = module.build(ScriptedModel(answers=SCRIPT), saver)
            for text in TURNS:
                given = {"messages": [HumanMessage(text)], "customer": "ann"}
                module.talk(agent, name, given, approve, lambda _: None)
    return store_url


def chat() -> graph.StateGraph:
    declared = graph.StateGraph(graph.MessagesState)

    def answer(state: Any) -> Any:
        if state["messages"][-1].content == "fail":
            raise ValueError("the model is\ndown \x1b[2J")
        return {"messages": [AIMessage(f"You said {state['messages'][-1].content}.")]}

    declared.add_node("answer", answer)
    declared.add_edge(graph.START, "answer")
    return declared


def said(text: str) -> Any:
    return {"messages": [HumanMessage(text, id=text)]}


def lines_of(done: Done) -> list[Any]:
    return [(each["kind"], each["role"], each["text"], each.get("node")) for each in done.lines]


# --- both runtimes -------------------------------------------------------------------------


def test_a_conversation_is_shown_alike_whoever_ran_it(talked: str) -> None:
    ours = run("transcript", "agent", "--json")
    theirs = run("transcript", "agent_langgraph", "--json")
    assert (ours.code, theirs.code) == (exits.OK, exits.OK)
    assert lines_of(theirs) == lines_of(ours)
    assert lines_of(ours)[:8] == [
        ("message", "user", "Please refund A-7", None),
        ("wrote", "input", '{"customer": "ann"}', None),
        ("message", "assistant", "Let me look.", "assistant"),
        ("message", "tool", "A-7: lamp, 40.00", "tools"),
        (
            "message",
            "tool",
            "Error: ValueError('ann has no order B-2')\n Please fix your mistakes.",
            "tools",
        ),
        ("message", "assistant", "I refund the lamp.", "assistant"),
        ("question", "tools", '{"refund": "A-7", "amount": 40.0}', "tools"),
        ("answer", "user", '{"approved": true, "amount": 20.0}', None),
    ]
    calls = [call for each in ours.lines for call in each.get("tool_calls", ())]
    assert calls[0]["name"] == "find_order" and calls[0]["arguments"] == {"order": "A-7"}
    results = [each for each in ours.lines if each.get("tool_call_id")]
    assert [each["name"] for each in results] == [
        "find_order",
        "find_order",
        "refund",
        "refund",
        "escalate",
    ]
    assert all(each["recorded_at"].endswith("+00:00") for each in ours.lines)


def test_people_read_it_in_words(talked: str) -> None:
    for thread in ("agent", "agent_langgraph"):
        out = run("transcript", thread).out
        for part in (
            "  user\n    Please refund A-7\n",
            '  assistant (assistant)\n    Let me look.\n    → find_order(order="A-7")\n',
            "  tool refund (tools)\n    refunded 20.00 for A-7\n",
            '  question (tools)\n    {"refund": "A-7", "amount": 900.0}\n',
            '    {"approved": false, "why": "too much"}\n',
        ):
            assert part in out, part


def test_it_needs_neither_the_application_nor_its_libraries(talked: str) -> None:
    program = process("transcript", "agent", env={"EVENTSTORE_DB": talked})
    out, err = program.communicate(timeout=60)
    assert (program.returncode, err) == (exits.OK, "")
    assert out == run("transcript", "agent").out


# --- what happens in threads -------------------------------------------------------------------


@pytest.fixture
def app(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[graph.CompiledGraph]:
    monkeypatch.setenv("EVENTSTORE_DB", store_url)
    with EventStore(store_url) as store:
        yield chat().compile(store)


def test_errors_edits_and_removals_are_lines(app: graph.CompiledGraph) -> None:
    app.invoke(said("hello"), config("t"))
    with pytest.raises(ValueError, match="down"):
        app.invoke(said("fail"), config("t"))
    app.update_state(config("t"), {"messages": [AIMessage("Sorry.")]}, as_node="answer")
    app.update_state(config("t"), {"messages": [RemoveMessage("hello")]}, as_node="answer")
    done = run("transcript", "t", "--json")
    assert lines_of(done) == [
        ("message", "user", "hello", None),
        ("message", "assistant", "You said hello.", "answer"),
        ("message", "user", "fail", None),
        ("error", "answer", "ValueError: the model is\ndown \x1b[2J", "answer"),
        ("edit", "assistant", "Sorry.", "answer"),
        ("removed", "remove", "hello", "answer"),
    ]
    out = run("transcript", "t").out
    assert "\x1b" not in out and r"down \x1b[2J" in out


def test_a_fork_shows_the_conversation_that_led_to_it(app: graph.CompiledGraph) -> None:
    app.invoke(said("one"), config("t"))
    at: Any = app.get_state(config("t")).config["configurable"]["checkpoint_id"]
    app.invoke(said("two"), config("t"))
    app.invoke(said("other"), config("branch", checkpoint_id=at))
    texts = [each["text"] for each in run("transcript", "branch", "--json").lines]
    assert texts == ["one", "You said one.", "other", "You said other."]


def test_what_was_trimmed_is_shown_as_far_as_the_state_keeps_it(store_url: str) -> None:
    with EventStore(store_url) as store:
        app = chat().compile(store, snapshot_each_run=True)
        for text in ("one", "two", "three"):
            app.invoke(said(text), config("t"))
        before = lines_of(run("transcript", "t", "--json", "--db", store_url))
        point = [*store.trim_points("t")][-1]
        assert store.trim("t", point.seq).events
    after = lines_of(run("transcript", "t", "--json", "--db", store_url))
    assert [each[:3] for each in after] == [each[:3] for each in before]
    assert len(after) == 6


def test_the_newest_lines_and_the_order(app: graph.CompiledGraph) -> None:
    for text in ("one", "two"):
        app.invoke(said(text), config("t"))
    every = run("transcript", "t", "--json").lines
    some = run("transcript", "t", "--json", "--limit", "2")
    assert some.lines == every[-2:]
    assert "2 earlier lines not shown" in some.err
    assert run("transcript", "t", "--json", "--limit", "2", "--all").lines == every
    assert run("transcript", "t", "--json", "--reverse").lines == every[::-1]


def test_other_threads_and_names(app: graph.CompiledGraph) -> None:
    app.invoke(said("hi"), config(ESCAPE))
    assert "hi" in run("transcript", ESCAPE).out
    assert run("transcript", "nobody").code == exits.MISSING
    assert run("transcript", ESCAPE, "--ns", "sub:1").code == exits.MISSING


def test_messages_of_any_form(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_DB", store_url)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    given: list[Any] = [
        {"role": "system", "content": "be brief", "id": "0"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "look"}, {"type": "image"}],
            "id": "1",
        },
        {"role": "assistant", "content": None, "tool_calls": [call], "id": "2"},
        ToolMessage("seen", tool_call_id="1", id="3"),
    ]
    declared = graph.StateGraph(graph.MessagesState)
    declared.add_node("nothing", lambda state: {})
    declared.add_edge(graph.START, "nothing")
    with EventStore(store_url) as store:
        declared.compile(store).invoke({"messages": given}, config("t"))
    out = run("transcript", "t").out
    for part in ("system\n    be brief", "user\n    look\n", "→ f(x=1)", "tool\n    seen"):
        assert part in out, out


# --- events and diff ---------------------------------------------------------------------------


def test_events_and_diff_show_what_messages_say(app: graph.CompiledGraph) -> None:
    app.invoke(said("a question " * 30), config("t"))
    out = run("events", "t").out
    assert "user: a question a question" in out
    assert "assistant: You said a question" in out
    assert "additional_kwargs" not in out
    (first, second) = run("events", "t").out.splitlines()[1:]
    assert run("events", "t", "--reverse").out.splitlines()[1:] == [second, first]
    diff = run("diff", "t", "1", "2", "--app", "tests.cli.test_transcript:chat").out
    assert "appended  messages  assistant: You said a question" in diff
