"""The chat: a conversation that grows by a question and an answer per turn."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypedDict

from benchmarks.workloads.graph_api import GraphApi
from benchmarks.workloads.text import SEED, Writer

QUESTION_BYTES: Final = 600
ANSWER_BYTES: Final = 1200

Message = dict[str, Any]


class ChatState(TypedDict):
    """Messages, to which each turn appends."""

    messages: Annotated[list[Message], operator.add]


@dataclass(frozen=True)
class Turn:
    """A user's question, and the assistant's answer with a tool call."""

    question: Message
    answer: Message


def chat_turns(count: int, seed: int = SEED) -> list[Turn]:
    """Turns of ~600 bytes of question and ~1,200 bytes of answer, its tool call included."""
    writer = Writer(seed)
    return [_turn(writer) for _ in range(count)]


_TOOLS: Final = ("search_documents", "look_up_order", "read_calendar", "run_query", "get_forecast")


def _turn(writer: Writer) -> Turn:
    pick = writer.random
    arguments = {
        "query": writer.sentence(),
        "customer": writer.word("name"),
        "limit": pick.choice((5, 10, 20, 50)),
        "filters": {
            "status": writer.word("adj"),
            "topics": [writer.word("noun") for _ in range(3)],
            "since": f"2024-{pick.randint(1, 12):02}-{pick.randint(1, 28):02}",
        },
    }
    call = {
        "id": f"call_{pick.getrandbits(96):024x}",
        "type": "function",
        "function": {"name": pick.choice(_TOOLS), "arguments": json.dumps(arguments)},
    }
    call_bytes = len(json.dumps(call))
    # Sentences are never cut: asking for half a sentence less meets the size on average.
    return Turn(
        question={
            "role": "user",
            "content": writer.text(QUESTION_BYTES - 110),
            "id": writer.uuid(),
        },
        answer={
            "role": "assistant",
            "content": writer.text(ANSWER_BYTES - call_bytes - 110),
            "id": writer.uuid(),
            "tool_calls": [call],
        },
    )


def chat_graph(api: GraphApi, turns: Sequence[Turn]) -> Any:
    """A single node, which answers the nth question with the nth answer."""

    def chat(state: ChatState) -> dict[str, Any]:
        return {"messages": [turns[len(state["messages"]) // 2].answer]}

    graph = api.state_graph(ChatState)
    graph.add_node("chat", chat)
    graph.add_edge(api.start, "chat")
    graph.add_edge("chat", api.end)
    return graph
