"""Reads and makes messages in either form: dicts with a ``role``, and langchain-core's messages.

Owns what agents need to know of a message: whose it is, its tool calls, which call it answers.
A message that is made takes the form of the one that it answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

from graph.messages import MessagesState

_AI: Final = frozenset({"ai", "assistant", "AIMessageChunk"})
_TOOL: Final = "tool"
_TEXT_BLOCKS: Final = frozenset(
    {"text", "image_url", "image", "json", "search_result", "custom_tool_call_output", "document"}
)


class ToolCall(TypedDict, total=False):
    """A call of a tool that a model asks for."""

    name: str
    args: dict[str, Any]
    id: str | None
    type: str


def value_of(state: Any, key: str, default: Any = None) -> Any:
    """The value of a state's key, whether the state is a mapping or an object."""
    found = state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)
    return default if found is None else found


def field_of(message: Any, name: str) -> Any:
    """A field of a message; ``None`` if it has none."""
    return message.get(name) if isinstance(message, Mapping) else getattr(message, name, None)


def _kind(message: Any) -> Any:
    return field_of(message, "type") or field_of(message, "role")


def is_ai(message: Any) -> bool:
    """Whether a model wrote the message."""
    return _kind(message) in _AI or field_of(message, "role") in _AI


def is_tool(message: Any) -> bool:
    """Whether the message is the result of a tool call."""
    return _TOOL in (_kind(message), field_of(message, "role"))


def tool_calls_of(message: Any) -> list[ToolCall]:
    """The tool calls of a message, also in the form of OpenAI's API."""
    return [_tool_call(each) for each in field_of(message, "tool_calls") or ()]


def _tool_call(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function")
    if not isinstance(function, Mapping):
        return {"type": "tool_call", "id": None, "args": {}, **call}  # type: ignore[typeddict-item]
    args = function.get("arguments") or {}
    if isinstance(args, str):
        args = json.loads(args)
    return {"name": function["name"], "args": args, "id": call.get("id"), "type": "tool_call"}


def answered(messages: Sequence[Any]) -> set[Any]:
    """The ids of the tool calls that have a result."""
    return {field_of(message, "tool_call_id") for message in messages if is_tool(message)}


def last_ai(messages: Sequence[Any]) -> Any:
    """The last message of a model; ``None`` if there is none."""
    return next((each for each in reversed(messages) if is_ai(each)), None)


def tool_message(call: ToolCall, content: Any, *, error: bool = False, like: Any = None) -> Any:
    """The result of a tool call as a message, in the form of the message that asked for it."""
    status = "error" if error else "success"
    if isinstance(like, Mapping):
        made = {"role": _TOOL, "content": content_of(content), "name": call["name"]}
        return {**made, "tool_call_id": call.get("id"), "status": status}
    from langchain_core.messages import ToolMessage

    return ToolMessage(
        content_of(content), name=call["name"], tool_call_id=call.get("id"), status=status
    )


def in_form_of(like: Any, result: Any) -> Any:
    """A tool's message as a dict, if the message that asked for it is one."""
    if not isinstance(like, Mapping) or isinstance(result, Mapping):
        return result
    made = {"role": _TOOL, "content": result.content, "name": result.name}
    return {**made, "tool_call_id": result.tool_call_id, "status": result.status}


def content_of(output: Any) -> Any:
    """What a tool returned, as the content of a message: text or content blocks."""
    is_blocks = isinstance(output, list) and all(
        isinstance(each, Mapping) and each.get("type") in _TEXT_BLOCKS for each in output
    )
    if isinstance(output, str) or is_blocks:
        return output
    try:
        return json.dumps(output, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(output)


class AgentState(MessagesState):
    """The state of an agent; derive from it to add keys."""
