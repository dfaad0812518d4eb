"""Every error that the graph raises on purpose, as one tree.

    GraphError
    ├── InvalidGraphError      the graph as declared cannot run
    ├── InvalidUpdateError     an update does not fit the state
    ├── InvalidConfigError     the config names no thread, or a checkpoint that does not fit it
    ├── EmptyInputError        nothing to resume, and no input
    └── GraphRecursionError    more supersteps than ``recursion_limit``

What a node itself raises is passed on as it is, with a note that names node and thread.
"""

from __future__ import annotations


class GraphError(Exception):
    """Base of everything that this package raises on purpose."""


class InvalidGraphError(GraphError, ValueError):
    """The graph as declared cannot run; the message names the node or edge and the remedy."""


class InvalidUpdateError(GraphError, ValueError):
    """An update does not fit the state: an unknown key, or two writers without a reducer."""


class InvalidConfigError(GraphError, ValueError):
    """The config names no thread, or a checkpoint that does not belong to it."""


class EmptyInputError(GraphError):
    """``invoke(None, …)`` on a thread that has nothing to resume."""


class GraphRecursionError(GraphError, RecursionError):
    """The run took more supersteps than ``recursion_limit`` allows."""

    def __init__(self, limit: int, frontier: tuple[str, ...]) -> None:
        self.limit = limit
        self.frontier = frontier
        super().__init__(
            f"{limit} supersteps without reaching END; next would be {', '.join(frontier)}. "
            "If that is no endless loop, pass a higher limit: config={'recursion_limit': …}; "
            "what was done so far is kept, and invoke(None, config) goes on from there."
        )
