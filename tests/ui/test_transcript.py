"""A conversation reads the same whatever format its messages have."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import Event, EventStore
from eventstore.explain.transcript import transcript

CALL: Any = {"id": "c1", "name": "look", "arguments": {"n": 1}}


def lines(*events: Event) -> list[dict[str, Any]]:
    with EventStore() as store:
        store.append("t", list(events), 0)
        return [line.as_json() for line in transcript(store.read("t"))]


def wrote(message: Any) -> Event:
    data = {"step": 1, "task": 0, "node": "model", "writes": {"messages": [message]}, "to": []}
    return Event(2, data)


ARGUMENTS = {"n": 1}
PLAIN = {"id": "c1", "name": "look", "args": ARGUMENTS}
OPENAI = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": ARGUMENTS}}
ANTHROPIC = {"type": "tool_use", "id": "c1", "name": "look", "input": ARGUMENTS}
LANGCHAIN = {"type": "ai", "content": "hi", "tool_calls": [PLAIN]}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "hi", "tool_calls": [PLAIN]},
        {"role": "assistant", "content": "hi", "tool_calls": [OPENAI]},
        {"role": "assistant", "content": [{"type": "text", "text": "hi"}, ANTHROPIC]},
        LANGCHAIN,
        {"$type": "langchain_core.messages.ai.AIMessage", "value": LANGCHAIN},
    ],
)
def test_messages_of_an_assistant(message: Any) -> None:
    (line,) = lines(wrote(message))
    assert (line["kind"], line["role"], line["text"], line["node"]) == (
        "message",
        "assistant",
        "hi",
        "model",
    )
    assert line["tool_calls"] == [CALL]


def test_messages_of_langchain() -> None:
    messages = pytest.importorskip("langchain_core.messages")
    found = lines(
        wrote({"role": "user", "content": "where?"}),
        wrote({"role": "tool", "content": "here", "tool_call_id": "c1"}),
        wrote({"role": "remove", "id": "m1"}),
    )
    assert [each["role"] for each in found] == ["user", "tool", "remove"]
    assert found[1]["tool_call_id"] == "c1"
    from eventstore.explain.transcript import _message
    from eventstore.models import Position

    line = _message((Position(1, "", 1), 0), "n", messages.HumanMessage("hello", id="7"), "wrote")
    assert line is not None and (line.role, line.text, line.message_id) == ("user", "hello", "7")


def test_what_is_no_message_is_one_line_in_brief() -> None:
    (line,) = lines(wrote({"n": "x" * 10_000}))
    assert line["kind"] == "wrote" and len(line["text"]) <= 300


def test_events_of_anybody_do_no_harm() -> None:
    strange: list[Any] = [None, 1, "x", [], {}, {"writes": 3}, {"writes": [[1]]}, {"answers": 1}]
    strange += [{"step": 1, "task": 0, "node": n, "writes": w} for n in strange for w in strange]
    for kind in (1, 2, 3, 4, 5, 6, 32, 33, 34, 99):
        lines(*(Event(kind, each) for each in strange))
