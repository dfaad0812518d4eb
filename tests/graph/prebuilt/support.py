"""Programs with agents, run with LangGraph's prebuilt parts and with this library's.

Owns the scripted chat model that both call, and the comparison.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import langgraph.prebuilt
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import Field

import graph
import graph.prebuilt
from tests.graph.compat.both import THEIRS, Raised, seen


class _Library:
    def __init__(self, name: str, *places: Any) -> None:
        self.name, self._places = name, places

    def __getattr__(self, name: str) -> Any:
        return next(getattr(place, name) for place in self._places if hasattr(place, name))


THEIR_AGENTS = _Library("LangGraph", langgraph.prebuilt, THEIRS)
OUR_AGENTS = _Library("ours", graph.prebuilt, graph)


class ScriptedModel(BaseChatModel):
    """Gives its answers in turn, word by word when streamed; records what it was asked."""

    answers: list[Any]
    asked: list[list[BaseMessage]] = Field(default_factory=list)
    tools: list[Any] = Field(default_factory=list)
    structured: Any = None

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[Any, Any]:
        self.tools.extend(tools)
        return self

    def with_structured_output(self, schema: Any, **_: Any) -> Runnable[Any, Any]:
        return RunnableLambda(lambda _: schema(**self.structured))

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        answer = self.answers[len(self.asked) % len(self.answers)]
        self.asked.append(list(messages))
        if isinstance(answer, Exception):
            raise answer
        message = AIMessage(answer) if isinstance(answer, str) else answer
        return message.model_copy()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> Iterator[ChatGenerationChunk]:
        answer = self._next(messages)
        words = str(answer.content).split(" ")
        for place, word in enumerate(words):
            text = word if place == 0 else f" {word}"
            chunk = ChatGenerationChunk(
                message=AIMessageChunk(
                    content=text, tool_calls=answer.tool_calls if place == 0 else []
                )
            )
            if run_manager is not None:
                run_manager.on_llm_new_token(text, chunk=chunk)
            yield chunk


def calls(*named: tuple[str, dict[str, Any]], text: str = "") -> AIMessage:
    """A model's message that calls these tools."""
    return AIMessage(
        text,
        tool_calls=[
            {"name": name, "args": args, "id": _id(name, args), "type": "tool_call"}
            for name, args in named
        ],
    )


def _id(name: str, args: dict[str, Any]) -> str:
    return "-".join([name, *map(str, args.values())])


def told(messages: Sequence[BaseMessage]) -> list[Any]:
    """Messages without what is made up."""
    return [
        (
            each.type,
            each.content,
            each.name,
            [(call["name"], call["args"], call["id"]) for call in getattr(each, "tool_calls", ())],
            getattr(each, "tool_call_id", None),
            getattr(each, "status", None),
        )
        for each in messages
    ]


def assert_same_agents(program: Callable[[Any], Any]) -> list[Any]:
    """Run a program with both libraries, and compare what it sees."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = seen(THEIR_AGENTS, program)
    ours = seen(OUR_AGENTS, program)
    if theirs and ours and isinstance(theirs[-1], Raised) and isinstance(ours[-1], Raised):
        assert ours[-1].is_caught_like(theirs[-1]), f"{ours[-1]}\n  not like {theirs[-1]}"
        theirs.pop(), ours.pop()
    for one, other in zip_longest(ours, theirs):
        assert one == other, f"{one}\n  instead of {other}"
    return ours
