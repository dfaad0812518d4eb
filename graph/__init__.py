"""A state-graph runtime whose node outputs are events in an append-only log.

The API is the one that LangGraph's users know; change the imports and keep the code.
"""

import logging

from graph.app import CompiledGraph
from graph.builder import StateGraph
from graph.driver import get_stream_writer
from graph.errors import (
    EmptyInputError,
    GraphError,
    GraphRecursionError,
    InvalidConfigError,
    InvalidGraphError,
    InvalidUpdateError,
)
from graph.messages import REMOVE_ALL_MESSAGES, MessagesState, RemoveMessage, add_messages
from graph.savers import (
    AsyncPostgresSaver,
    AsyncSqliteSaver,
    MemorySaver,
    PostgresSaver,
    SqliteSaver,
)
from graph.types import (
    END,
    START,
    AuditEntry,
    Command,
    Interrupt,
    RetryPolicy,
    RunnableConfig,
    Send,
    StateSnapshot,
    StateTask,
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
    "GraphError",
    "GraphRecursionError",
    "Interrupt",
    "InvalidConfigError",
    "InvalidGraphError",
    "InvalidUpdateError",
    "MemorySaver",
    "MessagesState",
    "PostgresSaver",
    "RemoveMessage",
    "RetryPolicy",
    "RunnableConfig",
    "Send",
    "SqliteSaver",
    "StateGraph",
    "StateSnapshot",
    "StateTask",
    "add_messages",
    "get_stream_writer",
]

# Whoever uses the library decides where its log goes; nothing is printed unasked.
logging.getLogger(__name__).addHandler(logging.NullHandler())
