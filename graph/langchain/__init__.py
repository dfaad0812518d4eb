"""What langchain-core expects of a graph: callbacks, streamed tokens, and to be a Runnable.

Owns the one adapter in each direction. A run asks :func:`observer_of` once; without langchain-core
among the imported modules that is a look into a dict. Nothing here is stored.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from graph.errors import InvalidConfigError

if TYPE_CHECKING:
    from graph.langchain.tracing import RunTrace

MESSAGES = "messages"
"""The stream mode of the tokens of models."""


def observer_of(
    config: Mapping[str, Any],
    name: str,
    *,
    is_async: bool,
    run_id: Any = None,
    tokens: Callable[[str, Any], None] | None = None,
    subgraphs: bool = False,
) -> RunTrace | None:
    """What reports a run to langchain-core's callbacks; ``None`` where it is not imported.

    Args:
        config: of the run: its callbacks, tags, metadata and run name.
        name: of the graph.
        run_id: of the run, if the caller chose one.
        tokens: gets the namespace and the chunk of each token, if the caller asked for them.
        subgraphs: also the tokens of subgraphs.

    Raises:
        InvalidConfigError: tokens are asked for, and langchain-core is not installed.
    """
    if "langchain_core" not in sys.modules and tokens is None:
        return None
    try:
        from graph.langchain.tracing import RunTrace
    except ImportError as error:
        if tokens is None:
            return None
        raise InvalidConfigError(
            "the stream mode 'messages' needs langchain-core; install graph-eventstore[messages], "
            "or stream tokens with the node's writer (stream mode 'custom')"
        ) from error
    return RunTrace(
        config, name, is_async=is_async, run_id=run_id, tokens=tokens, subgraphs=subgraphs
    )


def register(cls: type[Any]) -> None:
    """Let langchain-core take graphs of a class for Runnables, as in ``runnable | graph``."""
    runnables = sys.modules.get("langchain_core.runnables.base")
    if runnables is not None:
        runnables.Runnable.register(cls)


def runnable_of(graph: Any) -> Any:
    """A graph as a Runnable of langchain-core.

    Raises:
        InvalidConfigError: langchain-core is not installed.
    """
    try:
        from graph.langchain.runnable import GraphRunnable
    except ImportError as error:
        raise InvalidConfigError(
            "composing a graph with Runnables needs langchain-core; install "
            "graph-eventstore[messages]"
        ) from error
    return GraphRunnable(graph)
