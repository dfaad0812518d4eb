"""Marks parameters of tools that the graph fills in, and a model never sees.

Owns the markers. They are langchain-core's where that is installed, so that its tools hide such
parameters from models; a plain function as a tool needs no langchain-core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from graph.types import ExecutionInfo

if TYPE_CHECKING:

    class _Marker:
        """An annotation of an argument that is injected."""

    class _Direct:
        """A class of arguments that are injected."""
else:
    try:
        from langchain_core.tools import InjectedToolArg as _Marker
        from langchain_core.tools.base import _DirectlyInjectedToolArg as _Direct
    except ImportError:

        class _Marker:
            """An annotation of an argument that is injected."""

        class _Direct:
            """A class of arguments that are injected."""


ContextT = TypeVar("ContextT")
StateT = TypeVar("StateT")

STATE: Final = "InjectedState"
STORE: Final = "InjectedStore"
RUNTIME: Final = "ToolRuntime"


class InjectedState(_Marker):
    """``Annotated[dict, InjectedState]``: the argument is the graph's state.

    ``Annotated[list, InjectedState("messages")]``: it is the value of this key.
    """

    def __init__(self, field: str | None = None) -> None:
        self.field = field


class InjectedStore(_Marker):
    """``Annotated[Any, InjectedStore()]``: the argument is ``runtime.store``.

    A run has none, because there is no long-term store; tests and wrappers may set it.
    """


@dataclass
class ToolRuntime(_Direct, Generic[ContextT, StateT]):
    """Passed to a tool that has a parameter ``runtime: ToolRuntime``.

    Attributes:
        state: the graph's state, as its node got it.
        context: the caller's ``context``.
        config: the config of the call, a ``RunnableConfig``. (Pydantic looks at these annotations,
            and takes no ``TypedDict`` of Python 3.11.)
        stream_writer: streams a value (stream mode ``custom``).
        tool_call_id: the id of the call, which the tool's message must name.
        store: see :class:`InjectedStore`.
        tools: all tools of the node.
        execution_info: where the node runs.
    """

    state: StateT
    context: ContextT
    config: Mapping[str, Any]
    stream_writer: Callable[[Any], None]
    tool_call_id: str | None
    store: Any = None
    tools: list[Any] = field(default_factory=list)
    execution_info: ExecutionInfo | None = None
