"""Loading an application's graph, for the commands that take ``--app``.

Apart from the options, because most commands need no graph, and importing the runtime takes longer
than they do.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from eventstore import AsyncEventStore, Codec, EventStore
from eventstore.cli.exits import USAGE, Failed
from graph import StateGraph
from graph.app import CompiledGraph


def load_object(name: str, path: str) -> Any:
    """Import what a module of the application has at a dotted path."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    found: Any = importlib.import_module(name)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def load_app(text: str) -> CompiledGraph:
    """Import the graph that ``module:graph`` names.

    Raises:
        Failed: it cannot be imported, or is not a graph.
    """
    name, _, path = text.partition(":")
    if not name or not path:
        raise Failed(f"--app {text!r}: expected module:graph, such as shop.orders:graph", USAGE)
    try:
        found = load_object(name, path)
        if not isinstance(found, CompiledGraph | StateGraph) and callable(found):
            found = found()
        if isinstance(found, StateGraph):
            found = found.compile()
    except Exception as error:  # the application's own code
        reason = f"{type(error).__name__}: {error}"
        raise Failed(f"--app {text!r} cannot be loaded: {reason}", USAGE) from error
    if not isinstance(found, CompiledGraph):
        kind = type(found).__name__
        raise Failed(f"--app {text!r} is of type {kind}; expected a graph", USAGE)
    return found


def codec_of(graph: CompiledGraph | None) -> Codec | None:
    """The codec of the application's store, in which its types are registered."""
    if graph is None:
        return None
    store = getattr(graph.checkpointer, "store", graph.checkpointer)
    return store.codec if isinstance(store, EventStore | AsyncEventStore) else None
