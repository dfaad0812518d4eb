"""Options of LangGraph that this library leaves out.

Owns the sentences that say what to use instead. An option that has no effect (``None``, ``False``,
or another default of LangGraph) is accepted, so that code which only passes it on runs unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from graph.errors import InvalidGraphError

LEFT_OUT: Final[Mapping[str, str]] = {
    "store": "there is no long-term store; keep such data in a database that nodes close over",
    "cache": "there is no node cache; cache inside the node, in functools.lru_cache or a database",
    "cache_policy": (
        "there is no node cache; cache inside the node, in functools.lru_cache or a database"
    ),
    "trace_policy": "there are no trace policies; see docs/how-to/observability.md",
    "transformers": "there are no stream transformers; transform the chunks that stream() yields",
    "serde": (
        "a saver stores msgpack and registered types; pass codec=Codec(…), see docs/how-to/types.md"
    ),
    "factory": "a saver has storage of its own; leave it out",
    "pipe": "a saver batches its statements itself; leave it out",
    "pipeline": "a saver batches its statements itself; leave it out",
    "control": "runs are not drained; cancel the task of ainvoke(), and continue with invoke(None)",
}
"""By option: why it is refused, and what to do instead."""


def refuse_left_out(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without those of LangGraph that are left out here and that ask for nothing.

    Raises:
        InvalidGraphError: one asks for what is left out; the message says what to do instead.
    """
    for name, value in options.items():
        if name in LEFT_OUT and value is not None and value is not False and value != ():
            raise InvalidGraphError(f"{name}= is not supported: {LEFT_OUT[name]}")
    return {name: value for name, value in options.items() if name not in LEFT_OUT}


def refuse(where: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a method does not have.

    Raises:
        InvalidGraphError: an option asks for what is left out.
        TypeError: an option is unknown.
    """
    for name in refuse_left_out(options):
        raise TypeError(f"{where} got an unexpected keyword argument {name!r}")
