"""A state-graph runtime whose node outputs are events in an append-only log.

The API is LangGraph's: change the imports, keep the code.
"""

import logging
from typing import Any, Final

from graph.app import CompiledGraph, CompiledStateGraph
from graph.errors import (
    EmptyInputError,
    GraphBubbleUp,
    GraphError,
    GraphInterrupt,
    GraphRecursionError,
    InvalidConfigError,
    InvalidGraphError,
    InvalidUpdateError,
    NodeTimeoutError,
    ReducerError,
    SchemaChangedError,
    ThreadBusyError,
)
from graph.messages import REMOVE_ALL_MESSAGES, MessagesState, RemoveMessage, add_messages
from graph.read.replay_check import ReplayMismatch, ReplayReport
from graph.run.scope import get_config, get_runtime, get_stream_writer, interrupt
from graph.savers import (
    AsyncPostgresSaver,
    AsyncSqliteSaver,
    InMemorySaver,
    MemorySaver,
    PostgresSaver,
    SqliteSaver,
)
from graph.state_graph import StateGraph
from graph.types import (
    END,
    START,
    All,
    AuditEntry,
    Command,
    Durability,
    ExecutionInfo,
    GraphOutput,
    Interrupt,
    Overwrite,
    PregelTask,
    RetryPolicy,
    RunnableConfig,
    Runtime,
    Send,
    StateSnapshot,
    StateTask,
    StateUpdate,
    StreamMode,
    StreamWriter,
)

__all__ = [
    "END",
    "REMOVE_ALL_MESSAGES",
    "START",
    "All",
    "AsyncPostgresSaver",
    "AsyncSqliteSaver",
    "AuditEntry",
    "Command",
    "CompiledGraph",
    "CompiledStateGraph",
    "Durability",
    "EmptyInputError",
    "ExecutionInfo",
    "GraphBubbleUp",
    "GraphError",
    "GraphInterrupt",
    "GraphOutput",
    "GraphRecursionError",
    "InMemorySaver",
    "Interrupt",
    "InvalidConfigError",
    "InvalidGraphError",
    "InvalidUpdateError",
    "MemorySaver",
    "MessagesState",
    "NodeTimeoutError",
    "Overwrite",
    "PostgresSaver",
    "PregelTask",
    "ReducerError",
    "RemoveMessage",
    "ReplayMismatch",
    "ReplayReport",
    "RetryPolicy",
    "RunnableConfig",
    "Runtime",
    "SchemaChangedError",
    "Send",
    "SqliteSaver",
    "StateGraph",
    "StateSnapshot",
    "StateTask",
    "StateUpdate",
    "StreamMode",
    "StreamWriter",
    "ThreadBusyError",
    "add_messages",
    "get_config",
    "get_runtime",
    "get_stream_writer",
    "interrupt",
]

_LEFT_OUT: Final = {
    "CachePolicy": "there is no node cache; cache inside the node",
    "InMemoryStore": "there is no long-term store; keep such data in a database",
    "NodeInterrupt": "call interrupt(value) in the node",
    "RunControl": "cancel the task of ainvoke(), and continue with invoke(None, config)",
    "TimeoutPolicy": "pass the seconds: add_node(…, timeout=30)",
    "entrypoint": "there is no functional API; declare a StateGraph",
    "task": "there is no functional API; declare a StateGraph",
}


def __getattr__(name: str) -> Any:
    """Say what to use instead of a name of LangGraph that is left out."""
    if name in _LEFT_OUT:
        raise ImportError(f"graph has no {name}: {_LEFT_OUT[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# The application configures logging; without it nothing is printed.
logging.getLogger(__name__).addHandler(logging.NullHandler())
