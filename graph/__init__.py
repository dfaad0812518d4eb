"""A state-graph runtime whose node outputs are events in an append-only log.

The API is LangGraph's: change the imports, keep the code.
"""

import logging

from graph.app import CompiledGraph
from graph.errors import (
    EmptyInputError,
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
    MemorySaver,
    PostgresSaver,
    SqliteSaver,
)
from graph.state_graph import StateGraph
from graph.types import (
    END,
    START,
    AuditEntry,
    Command,
    ExecutionInfo,
    Interrupt,
    RetryPolicy,
    RunnableConfig,
    Runtime,
    Send,
    StateSnapshot,
    StateTask,
    StateUpdate,
)

__all__ = [
    "END",
    "REMOVE_ALL_MESSAGES",
    "START",
    "AsyncPostgresSaver",
    "AsyncSqliteSaver",
    "AuditEntry",
    "Command",
    "CompiledGraph",
    "EmptyInputError",
    "ExecutionInfo",
    "GraphError",
    "GraphInterrupt",
    "GraphRecursionError",
    "Interrupt",
    "InvalidConfigError",
    "InvalidGraphError",
    "InvalidUpdateError",
    "MemorySaver",
    "MessagesState",
    "NodeTimeoutError",
    "PostgresSaver",
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
    "ThreadBusyError",
    "add_messages",
    "get_config",
    "get_runtime",
    "get_stream_writer",
    "interrupt",
]

# The application configures logging; without it nothing is printed.
logging.getLogger(__name__).addHandler(logging.NullHandler())
