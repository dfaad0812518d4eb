"""One program, run with LangGraph and with this library: what programs share, and what is compared.

A program takes a library and yields what it sees. Names that either library makes up (ids, times,
namespaces' endings) are replaced by their order of appearance, so that both see the same text.
"""

from __future__ import annotations

import asyncio
import inspect
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from itertools import pairwise
from typing import Annotated, Any, Final

import langgraph.checkpoint.base
import langgraph.config
import langgraph.constants
import langgraph.errors
import langgraph.graph
import langgraph.graph.message
import langgraph.graph.state
import langgraph.managed
import langgraph.prebuilt
import langgraph.runtime
import langgraph.types
from langgraph.checkpoint.memory import InMemorySaver
from typing_extensions import TypedDict

import graph
import graph.prebuilt

_MODULES: Final = (
    langgraph.graph,
    langgraph.types,
    langgraph.errors,
    langgraph.runtime,
    langgraph.config,
    langgraph.graph.message,
    langgraph.graph.state,
    langgraph.managed,
    langgraph.prebuilt,
    langgraph.constants,
    langgraph.checkpoint.base,
)


class _Theirs:
    name = "LangGraph"
    InMemorySaver = InMemorySaver

    def __getattr__(self, name: str) -> Any:
        return next(getattr(module, name) for module in _MODULES if hasattr(module, name))


class _Ours:
    name = "graph"

    def __getattr__(self, name: str) -> Any:
        return getattr(graph if hasattr(graph, name) else graph.prebuilt, name)


THEIRS: Final[Any] = _Theirs()
OURS: Final[Any] = _Ours()

CONFIG: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict, total=False):
    items: Annotated[list[Any], operator.add]
    text: str


def compiled(
    library: Any, nodes: Any, edges: Any, schema: Any = State, saver: bool = True, **options: Any
) -> Any:
    """A graph of these nodes and edges."""
    declared = library.StateGraph(schema)
    for name, node in nodes.items():
        declared.add_node(name, node)
    for edge in edges:
        declared.add_edge(*edge)
    return declared.compile(checkpointer=library.InMemorySaver() if saver else None, **options)


def line(library: Any, *names: str) -> list[tuple[str, str]]:
    """Edges from the start through these nodes."""
    return list(pairwise([library.START, *names]))


Program = Callable[[Any], Any]

_NOT_COMPARED: Final = {"run_id", "response_schema", "parents", "tags", "checkpoint_map"}

_MADE_UP: Final = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16}-[0-9a-f]{10}i?(?:/\d+)?|[0-9a-f]{32}"
    r"|\d{4}-\d\d-\d\dT[\d:.]+(?:\+00:00)?|(?<=:)[0-9a-f.]+(?=$|\|)"
)


def seen(library: Any, program: Program, saver: Callable[[], Any] | None = None) -> list[Any]:
    """What a program yields, in comparable form; an exception that it raises ends the list.

    Args:
        saver: makes the savers that the program gets instead of those in memory.
    """
    found: list[Any] = []
    opened: list[Any] = []

    class Library:
        def __getattr__(self, name: str) -> Any:
            return getattr(library, name)

        def InMemorySaver(self) -> Any:
            opened.append(saver() if saver is not None else library.InMemorySaver())
            return opened[-1]

    try:
        result = program(Library())
        if inspect.isasyncgen(result):
            asyncio.run(_collect(result, found))
        else:
            for each in result:
                found.append(plain(each))
    except NameError:  # a mistake in the program
        raise
    except Exception as error:
        found.append(Raised(error))
    finally:
        for saver in opened:
            getattr(saver, "close", int)()
    return found


async def _collect(result: Any, found: list[Any]) -> None:
    async for each in result:
        found.append(plain(each))


class Raised:
    """The exception that ended a program."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        return f"raised {type(self.error).__mro__}: {self.error}"

    def is_caught_like(self, other: Raised) -> bool:
        """Whether handlers for the other error catch this one: by class, or by LangGraph's name."""
        ours = {cls.__name__ for cls in type(self.error).__mro__}
        return type(other.error).__name__ in ours


def plain(value: Any) -> Any:
    """A value as plain data: dataclasses and tuples of either library become dicts and lists."""
    if isinstance(value, str):
        return _MADE_UP.sub("#", value)
    if isinstance(value, Mapping):
        return {plain(key): plain(each) for key, each in value.items() if key not in _NOT_COMPARED}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if is_dataclass(value) and not isinstance(value, type):
        shown = asdict(value)
        return plain({name: each for name, each in shown.items() if name != "type"})
    if hasattr(value, "model_dump"):
        return {**plain(value.model_dump()), "class": type(value).__name__}
    if isinstance(value, BaseException):
        return repr(value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, tuple):
        return tuple(plain(each) for each in value)
    return value


def assert_same(program: Program, saver: Callable[[], Any] | None = None) -> None:
    """Run a program with both libraries, and compare what it sees.

    Args:
        saver: makes the savers that ours gets.
    """
    theirs, ours = seen(THEIRS, program), seen(OURS, program, saver)
    if theirs and ours and isinstance(theirs[-1], Raised) and isinstance(ours[-1], Raised):
        assert ours[-1].is_caught_like(theirs[-1]), f"{ours[-1]}\n  not like {theirs[-1]}"
        theirs.pop(), ours.pop()
    assert ours == theirs
