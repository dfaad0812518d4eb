"""A saver for LangGraph: its threads as logs of this library, one event per change.

Owns what LangGraph's checkpoints and writes look like in a log, and the saver that LangGraph
calls. An edge: nothing imports it. LangGraph is imported only by the saver itself, so that tools
can read the structure of such threads without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graph.langgraph.async_saver import AsyncEventStoreSaver
    from graph.langgraph.saver import EventStoreSaver

__all__ = ["AsyncEventStoreSaver", "EventStoreSaver"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from graph.langgraph.async_saver import AsyncEventStoreSaver
        from graph.langgraph.saver import EventStoreSaver
    except ImportError as error:
        raise ImportError(
            f"{name} needs LangGraph; run pip install 'graph-eventstore[langgraph]' ({error})"
        ) from error
    return {"AsyncEventStoreSaver": AsyncEventStoreSaver, "EventStoreSaver": EventStoreSaver}[name]
