"""Tools: plain functions and langchain-core's, called in one way.

Owns what a tool is called, what it is described by, which of its parameters the graph fills in,
and how its arguments are checked. langchain-core is used where the application has imported it.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from graph.build import callables
from graph.errors import InvalidTypeError, ToolInvocationError
from graph.prebuilt.conversation import ToolCall
from graph.types import Command

_MARKERS: Final = ("InjectedState", "InjectedStore", "ToolRuntime", "InjectedToolArg")
_JSON: Final[Mapping[Any, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
}


@dataclass(frozen=True, slots=True)
class Injected:
    """The parameters of a tool that the graph fills in.

    Attributes:
        state: by parameter the key of the state; ``None`` stands for the whole state.
        store, runtime: the parameter that gets it.
        optional: parameters that may be left out where the state has no such key.
        hidden: all parameters that a model must not set.
    """

    state: Mapping[str, str | None] = field(default_factory=dict)
    store: str | None = None
    runtime: str | None = None
    optional: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()

    @classmethod
    def of(cls, tool: Any) -> Injected:
        """Read from the annotations of a tool's function, and of its schema."""
        function = getattr(tool, "func", None) or getattr(tool, "coroutine", None)
        annotations = {} if function is None else _hints(function)
        required: set[str] = set()
        schema = getattr(tool, "get_input_schema", None)
        if schema is not None:
            fields = schema().model_fields
            for name, entry in fields.items():
                found = entry.annotation
                if entry.metadata:
                    found = Annotated[(found, *entry.metadata)]
                if name not in annotations or _markers(found):
                    annotations[name] = found
            required = {name for name, entry in fields.items() if entry.is_required()}
        elif function is not None:
            parameters = inspect.signature(function).parameters.values()
            required = {each.name for each in parameters if each.default is each.empty}
        state: dict[str, str | None] = {}
        store = runtime = None
        hidden = set()
        for name, annotation in annotations.items():
            marks = _markers(annotation)
            if marks:
                hidden.add(name)
            if name == "runtime" or "ToolRuntime" in marks:
                runtime = name
                hidden.add(name)
            if "InjectedState" in marks:
                state[name] = getattr(marks["InjectedState"], "field", None)
            if "InjectedStore" in marks:
                store = name
        optional = frozenset(name for name, key in state.items() if key and name not in required)
        return cls(state, store, runtime, optional, frozenset(hidden))


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(callables.underlying(function), include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def _markers(annotation: Any) -> dict[str, Any]:
    """The markers in an annotation by name, whether they are this library's or LangGraph's."""
    found: dict[str, Any] = {}
    origin = get_origin(annotation)
    if origin in (Annotated, Union, types.UnionType):
        for part in get_args(annotation):
            found |= _markers(part)
    cls = annotation if isinstance(annotation, type) else origin or type(annotation)
    names = {base.__name__ for base in getattr(cls, "__mro__", ())}
    return {**found, **{name: annotation for name in _MARKERS if name in names}}


class FunctionTool:
    """A plain function as a tool."""

    return_direct: Final = False

    def __init__(self, function: Callable[..., Any]) -> None:
        self.func = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.description = inspect.getdoc(function) or ""
        self.is_async = callables.is_async(function)

    def __repr__(self) -> str:
        return f"FunctionTool({self.name!r})"

    def bind(self, call: ToolCall, shown: Mapping[str, Any]) -> Callable[[], Any]:
        """The call of the function, ready to be made.

        Args:
            shown: the arguments that the model gave, for the error.

        Raises:
            ToolInvocationError: the arguments do not fit.
        """
        args = call["args"]
        try:
            inspect.signature(self.func).bind(**args)
        except TypeError as error:
            raise ToolInvocationError(self.name, error, dict(shown)) from error
        return lambda: self.func(**args)


def as_tool(tool: Any) -> Any:
    """A tool as the node keeps it: with a ``name``, and ``invoke`` or ``bind``.

    Raises:
        InvalidTypeError: it is neither a function nor a tool.
    """
    if hasattr(tool, "name") and hasattr(tool, "invoke"):
        _let_commands_through()
        return tool
    if not callable(tool):
        raise InvalidTypeError(f"a tool must be a function or a langchain-core tool, not {tool!r}")
    langchain = sys.modules.get("langchain_core.tools")
    if langchain is not None and inspect.getdoc(tool) and not isinstance(tool, type):
        made = langchain.tool(tool)
        _let_commands_through()
        return made
    return FunctionTool(tool)


def _let_commands_through() -> None:
    """Let langchain-core's tools return a ``Command`` as it is, not as text.

    They do so with instances of one class of theirs. It becomes a base of ``Command`` here, because
    ``graph.types`` cannot import it: an application without langchain-core uses commands, too.
    """
    langchain = sys.modules.get("langchain_core.messages.tool")
    if langchain is not None and langchain.ToolOutputMixin not in Command.__bases__:
        Command.__bases__ = (*Command.__bases__, langchain.ToolOutputMixin)


def spec_of(tool: Any) -> dict[str, Any]:
    """What a model is told of a tool: name, description, and a JSON schema of its parameters."""
    if not isinstance(tool, FunctionTool):
        from langchain_core.utils.function_calling import convert_to_openai_tool

        found: dict[str, Any] = convert_to_openai_tool(tool)["function"]
        return found
    hidden, hints = Injected.of(tool).hidden, _hints(tool.func)
    parameters = [
        each
        for each in inspect.signature(tool.func).parameters.values()
        if each.name not in hidden and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": {
            "type": "object",
            "properties": {each.name: _json_type(hints.get(each.name)) for each in parameters},
            "required": [each.name for each in parameters if each.default is each.empty],
        },
    }


def _json_type(hint: Any) -> dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        notes = [each for each in args[1:] if isinstance(each, str)]
        return {**_json_type(args[0]), **({"description": notes[0]} if notes else {})}
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_json_type(each) for each in args]}
    if origin is list and args:
        return {"type": "array", "items": _json_type(args[0])}
    if hint is type(None):
        return {"type": "null"}
    name = _JSON.get(origin or hint)
    return {} if name is None else {"type": name}
