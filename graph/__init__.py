"""A state-graph runtime whose node outputs are events in an append-only log.

The API is LangGraph's: change the imports, keep the code.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from graph.app import CompiledGraph, CompiledStateGraph
    from graph.checkpoints import BaseCheckpointSaver, CheckpointTuple
    from graph.errors import (
        EmptyInputError,
        GraphBubbleUp,
        GraphError,
        GraphInterrupt,
        GraphRecursionError,
        InvalidConfigError,
        InvalidGraphError,
        InvalidUpdateError,
        NodeInterrupt,
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
        TAG_HIDDEN,
        TAG_NOSTREAM,
        All,
        AuditEntry,
        Command,
        Durability,
        ExecutionInfo,
        GraphOutput,
        Interrupt,
        IsLastStep,
        NodeError,
        Overwrite,
        PregelTask,
        RemainingSteps,
        RetryPolicy,
        RunnableConfig,
        Runtime,
        Send,
        StateSnapshot,
        StateTask,
        StateUpdate,
        StreamMode,
        StreamWriter,
        TimeoutPolicy,
    )

_HOMES: Final = (
    "graph.types",
    "graph.errors",
    "graph.messages",
    "graph.run.scope",
    "graph.checkpoints",
    "graph.savers",
    "graph.read.replay_check",
    "graph.state_graph",
    "graph.app",
)
"""The modules of the exported names, the lightest first. A name is imported when it is first used,
so that a command that needs one part does not wait for all others.
"""

__all__ = [
    "END",
    "REMOVE_ALL_MESSAGES",
    "START",
    "TAG_HIDDEN",
    "TAG_NOSTREAM",
    "All",
    "AsyncPostgresSaver",
    "AsyncSqliteSaver",
    "AuditEntry",
    "BaseCheckpointSaver",
    "CheckpointTuple",
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
    "IsLastStep",
    "MemorySaver",
    "MessagesState",
    "NodeError",
    "NodeInterrupt",
    "NodeTimeoutError",
    "Overwrite",
    "PostgresSaver",
    "PregelTask",
    "ReducerError",
    "RemainingSteps",
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
    "TimeoutPolicy",
    "add_messages",
    "get_config",
    "get_runtime",
    "get_stream_writer",
    "interrupt",
]

_LEFT_OUT: Final = {
    "CachePolicy": "there is no node cache; cache inside the node",
    "InMemoryStore": "there is no long-term store; keep such data in a database",
    "MessageGraph": "declare StateGraph(MessagesState)",
    "NodeBuilder": "declare a StateGraph",
    "Pregel": "declare a StateGraph",
    "TracePolicy": "see docs/how-to/observability.md",
    "RunControl": "cancel the task of ainvoke(), and continue with invoke(None, config)",
    "entrypoint": "there is no functional API; declare a StateGraph",
    "get_store": "there is no long-term store; keep such data in a database",
    "task": "there is no functional API; declare a StateGraph",
}


def __getattr__(name: str) -> Any:
    """Import an exported name; say what to use instead of one of LangGraph that is left out."""
    for home in _HOMES if name in __all__ else ():
        module = import_module(home)
        if hasattr(module, name):
            found = globals()[name] = getattr(module, name)
            return found
    if name in _LEFT_OUT:
        raise ImportError(f"graph has no {name}: {_LEFT_OUT[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]


# The application configures logging; without it nothing is printed.
logging.getLogger(__name__).addHandler(logging.NullHandler())
