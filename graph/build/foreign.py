"""What a program still imports from LangGraph after changing some of its imports.

Owns which of LangGraph's objects mean the same here and are taken as ours (``Command``, ``Send``,
``Overwrite``, ``RetryPolicy``, ``add_messages``), and the sentence for its functions that work only
inside its own runs (``interrupt``, ``get_stream_writer``, …). Does not import LangGraph.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

from graph.errors import InvalidGraphError, InvalidUpdateError
from graph.messages import add_messages
from graph.types import Command, Overwrite, RetryPolicy, Send

TYPES: Final = "langgraph.types"
"""The module of the classes that may be taken; where it matters, callers look before they call."""

_FUNCTIONS: Final[Mapping[str, frozenset[str]]] = {
    TYPES: frozenset({"interrupt"}),
    "langgraph.config": frozenset({"get_config", "get_store", "get_stream_writer"}),
    "langgraph.runtime": frozenset({"get_runtime"}),
}
"""By module: LangGraph's functions that need a run of its own around them."""


def taken(value: Any) -> Any:
    """LangGraph's ``Command``, ``Send`` or ``Overwrite`` as ours; anything else as it is."""
    kind = type(value)
    if kind.__module__ != TYPES:
        return value
    if kind.__name__ == "Command":
        return Command(
            update=value.update,
            goto=taken_targets(value.goto),
            resume=value.resume,
            graph=value.graph,
        )
    if kind.__name__ == "Send":
        return Send(value.node, value.arg)
    return Overwrite(value.value) if kind.__name__ == "Overwrite" else value


def taken_targets(goto: Any) -> Any:
    """The targets of a ``Command``, with LangGraph's ``Send`` as ours."""
    return [taken(each) for each in goto] if isinstance(goto, list | tuple) else taken(goto)


def taken_policy(policy: Any) -> Any:
    """LangGraph's ``RetryPolicy`` as ours; anything else as it is."""
    kind = type(policy)
    if kind.__module__ != TYPES or kind.__name__ != "RetryPolicy":
        return policy
    return RetryPolicy(**policy._asdict())


def taken_reducer(reducer: Any) -> Any:
    """LangGraph's ``add_messages`` as ours, whose ids a replay sees again; another one as it is."""
    function = reducer.func if isinstance(reducer, functools.partial) else reducer
    is_theirs = getattr(function, "__module__", None) == "langgraph.graph.message"
    if not is_theirs or getattr(function, "__name__", "").lstrip("_") != "add_messages":
        return reducer
    options = reducer.keywords if isinstance(reducer, functools.partial) else {}
    return add_messages(**options)


def refuse_foreign(value: Any) -> None:
    """Refuse another object of LangGraph's where one of this library is needed.

    Raises:
        InvalidUpdateError: names it, and the import to change.
    """
    kind = type(value)
    if kind.__module__ == TYPES:
        raise InvalidUpdateError(
            f"this is LangGraph's {kind.__name__}; import {kind.__name__} from graph instead"
        )


def misplaced(error: BaseException) -> InvalidGraphError | None:
    """The error to raise for a function of LangGraph's that a node called, if one has failed."""
    found: TracebackType | None = error.__traceback__
    while found is not None:
        module = found.tb_frame.f_globals.get("__name__", "")
        name = found.tb_frame.f_code.co_name
        if module.startswith("langgraph.pregel"):  # a graph of LangGraph's runs in the node
            return None
        if name in _FUNCTIONS.get(module, ()):
            return InvalidGraphError(
                f"this is LangGraph's {name}(), which works only in its own runs; import {name} "
                "from graph instead"
            )
        found = found.tb_next
    return None
