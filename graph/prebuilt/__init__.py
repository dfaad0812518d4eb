"""Agents and tools, ready made: the names of ``langgraph.prebuilt``, and ``create_agent``.

Works with plain functions as models and tools; langchain-core's are taken as they are. Knows of
graphs only what applications know. ``InjectedState``, ``InjectedStore`` and ``ToolRuntime`` are
imported when they are first asked for, because they import langchain-core where it is installed.
"""

from typing import TYPE_CHECKING, Any

from graph.prebuilt.agent import create_agent, create_react_agent
from graph.prebuilt.approval import (
    ActionRequest,
    HumanInterrupt,
    HumanInterruptConfig,
    HumanResponse,
)
from graph.prebuilt.conversation import AgentState, ToolCall
from graph.prebuilt.tool_node import ToolCallRequest, ToolNode, tools_condition

if TYPE_CHECKING:
    from graph.prebuilt.injection import InjectedState, InjectedStore, ToolRuntime

__all__ = [
    "ActionRequest",
    "AgentState",
    "HumanInterrupt",
    "HumanInterruptConfig",
    "HumanResponse",
    "InjectedState",
    "InjectedStore",
    "ToolCall",
    "ToolCallRequest",
    "ToolNode",
    "ToolRuntime",
    "create_agent",
    "create_react_agent",
    "tools_condition",
]


def __getattr__(name: str) -> Any:
    if name in ("InjectedState", "InjectedStore", "ToolRuntime"):
        from graph.prebuilt import injection

        return getattr(injection, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
