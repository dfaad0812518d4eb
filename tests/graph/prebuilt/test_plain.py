"""Agents of plain functions, in a process in which langchain-core cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
for name in ("langchain_core", "langgraph", "langchain"):
    sys.modules[name] = None

from typing import Annotated, Any

from graph import Command, SqliteSaver
from graph.prebuilt import InjectedState, ToolRuntime, create_agent


def refund(
    order: str, messages: Annotated[list, InjectedState("messages")], runtime: ToolRuntime
) -> str:
    '''Refund an order.'''
    return f"refunded {order}, {len(messages)} messages, {runtime.tool_call_id}"


def model(messages: Any) -> Any:
    if messages[-1]["role"] == "user":
        call = {"name": "refund", "args": {"order": "A"}, "id": "1"}
        return {"content": "", "tool_calls": [call]}
    return "Done: " + messages[-1]["content"]


with SqliteSaver(sys.argv[1]) as saver:
    agent = create_agent(model, [refund], interrupt_on=["refund"], checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}}
    result = agent.invoke({"messages": [("user", "money")]}, config)
    print(result["__interrupt__"][0].value[0]["action_request"]["args"])
    result = agent.invoke(Command(resume=[{"type": "accept"}]), config)
    print(result["messages"][-1]["content"])
"""


def test_an_agent_needs_no_langchain(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "agent.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["{'order': 'A'}", "Done: refunded A, 2 messages, 1"]
