"""The node that runs the tools which a model has called.

Owns :class:`ToolNode` and :func:`tools_condition`. Names, arguments and results are those of
LangGraph's; the calls of a message run side by side, and an error becomes a message for the model.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast, get_type_hints

from graph.build import callables
from graph.errors import (
    GraphInterrupt,
    InvalidGraphError,
    InvalidTypeError,
    InvalidUpdateError,
    ToolInvocationError,
)
from graph.prebuilt.approval import InterruptOn, decided, rules_of
from graph.prebuilt.conversation import (
    ToolCall,
    content_of,
    field_of,
    in_form_of,
    is_tool,
    last_ai,
    tool_calls_of,
    tool_message,
    value_of,
)
from graph.prebuilt.tools import FunctionTool, Injected, as_tool
from graph.run.scope import current, get_state
from graph.types import Command, RunnableConfig, Runtime, Send

PARALLEL_MAX: Final = 32
"""Calls that run at the same time, unless the config's ``max_concurrency`` says otherwise."""

ErrorHandling = bool | str | Callable[..., str] | type[Exception] | tuple[type[Exception], ...]


@dataclass(frozen=True)
class ToolCallRequest:
    """What ``wrap_tool_call`` gets of a call.

    Attributes:
        tool_call: the call: ``name``, ``args``, ``id``.
        tool: the tool; ``None`` if the node has none of that name.
        state: the graph's state.
        runtime: what a tool with a parameter ``runtime`` gets.
    """

    tool_call: ToolCall
    tool: Any
    state: Any
    runtime: Any
    asked: Any = field(default=None, repr=False)

    def override(self, **changes: Any) -> ToolCallRequest:
        """The same with other values of some fields."""
        return replace(self, **changes)


Wrapper = Callable[[ToolCallRequest, Callable[[ToolCallRequest], Any]], Any]
AsyncWrapper = Callable[
    [ToolCallRequest, Callable[[ToolCallRequest], Awaitable[Any]]], Awaitable[Any]
]


def _arguments_only(error: Exception) -> str:
    """Tell the model of wrong arguments; raise every other error."""
    if isinstance(error, ToolInvocationError):
        return error.message
    raise error


class ToolNode:
    """Runs the tool calls of the last message of a model, and returns their results as messages.

    Its input is a state with messages, a list of messages, or a list of tool calls (the argument
    of a ``Send``). Add it as a node, or call ``invoke`` in one.

    Args:
        tools: functions, or langchain-core's tools. A tool returns any value, which becomes the
            content of a message; or a ``Command``, whose update holds that message.
        name: the name that it has as a node, unless ``add_node`` gives it another.
        handle_tool_errors: which errors become messages for the model. By default only wrong
            arguments; ``True``: all; a text: all, with that text; exception classes; a function
            from the error to a text, for the errors that its annotation names.
        messages_key: the key of the state that holds the messages.
        wrap_tool_call: called with each :class:`ToolCallRequest` and a function that executes it.
        awrap_tool_call: the same for async runs.
        interrupt_on: tools that a person has to approve; see :func:`~graph.prebuilt.create_agent`.
    """

    def __init__(
        self,
        tools: Sequence[Any],
        *,
        name: str = "tools",
        tags: list[str] | None = None,
        handle_tool_errors: ErrorHandling = _arguments_only,
        messages_key: str = "messages",
        wrap_tool_call: Wrapper | None = None,
        awrap_tool_call: AsyncWrapper | None = None,
        interrupt_on: InterruptOn = None,
    ) -> None:
        self.name = name
        self.tags = tags
        self.tools_by_name = {tool.name: tool for tool in map(as_tool, tools)}
        self._injected = {name: Injected.of(tool) for name, tool in self.tools_by_name.items()}
        self._handles = handle_tool_errors
        self._messages_key = messages_key
        self._wrap = wrap_tool_call
        self._awrap = awrap_tool_call
        self._rules = rules_of(interrupt_on, self.tools_by_name)

    def __repr__(self) -> str:
        return f"ToolNode({list(self.tools_by_name.values())!r})"

    def invoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        runtime: Runtime[Any] | None = None,
    ) -> Any:
        """Run the calls, on threads if there are several."""
        requests, form = self._requests(input, config, runtime)
        if len(requests) == 1:
            return self._combined([self._run(requests[0], form)], form)
        results: list[Any] = []
        limit = (config or {}).get("max_concurrency") or PARALLEL_MAX
        with ThreadPoolExecutor(max(1, min(limit, len(requests)))) as pool:
            futures = [
                pool.submit(contextvars.copy_context().run, self._run, request, form)
                for request in requests
            ]
            for future in futures:
                results.append(future.exception() or future.result())
        return self._combined(_without_errors(results), form)

    async def ainvoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        runtime: Runtime[Any] | None = None,
    ) -> Any:
        """Run the calls side by side; plain functions run on threads."""
        requests, form = self._requests(input, config, runtime)
        if len(requests) == 1:
            return self._combined([await self._arun(requests[0], form)], form)
        results = await asyncio.gather(
            *(self._arun(request, form) for request in requests), return_exceptions=True
        )
        return self._combined(_without_errors(results), form)

    # --- reading the input ----------------------------------------------------------------

    def _requests(
        self, input: Any, config: RunnableConfig | None, runtime: Runtime[Any] | None
    ) -> tuple[list[ToolCallRequest], str]:
        calls, state, asked, form = self._parsed(input)
        scope = current()
        if scope is not None:
            config = config or scope.node_config  # type: ignore[assignment]
            runtime = runtime or scope.runtime()
        runtime = runtime or Runtime()
        requests = []
        for call in calls:
            tool = self.tools_by_name.get(call["name"])
            requests.append(
                ToolCallRequest(
                    call, tool, state, self._runtime(call, state, config, runtime), asked
                )
            )
        return requests, form

    def _runtime(self, call: ToolCall, state: Any, config: Any, runtime: Runtime[Any]) -> Any:
        from graph.prebuilt.injection import ToolRuntime

        return ToolRuntime(
            state=state,
            context=runtime.context,
            config=cast(RunnableConfig, config or {}),
            stream_writer=runtime.stream_writer,
            tool_call_id=call.get("id"),
            store=runtime.store,
            tools=list(self.tools_by_name.values()),
            execution_info=runtime.execution_info,
        )

    def _parsed(self, input: Any) -> tuple[list[ToolCall], Any, Any, str]:
        """The calls, the state, the message that asked for them, and the form of the input."""
        if isinstance(input, Mapping) and input.get("__type") == "tool_call_with_context":
            state = input["state"]
            asked = last_ai(value_of(state, self._messages_key, ()))
            return [input["tool_call"]], state, asked, "tool_calls"
        if isinstance(input, list):
            if input and isinstance(input[-1], Mapping) and input[-1].get("type") == "tool_call":
                state = get_state()
                asked = last_ai(value_of(state, self._messages_key, ()))
                return input, state, asked, "tool_calls"
            messages, form = input, "list"
        else:
            messages, form = value_of(input, self._messages_key, ()), "dict"
        if not messages:
            raise InvalidUpdateError(
                f"a ToolNode found no messages under the key {self._messages_key!r}; pass a state "
                "with messages, or messages_key=…"
            )
        asked = last_ai(messages)
        if asked is None:
            raise InvalidUpdateError(
                "a ToolNode found no message of a model, whose tool calls it could run"
            )
        return tool_calls_of(asked), input, asked, form

    def _with_injected(self, request: ToolCallRequest) -> ToolCall:
        """The call with the arguments that the graph fills in, and none that a model forged."""
        call, tool = request.tool_call, request.tool
        injected = self._injected.get(call["name"]) or Injected.of(tool)
        if not injected.hidden:
            return call
        added: dict[str, Any] = {}
        state = request.state
        if injected.state and isinstance(state, list):
            wanted = {key for key in injected.state.values() if key} - {self._messages_key}
            if wanted:
                raise InvalidUpdateError(
                    f"tool {call['name']!r} needs {', '.join(map(repr, sorted(wanted)))} of the "
                    "state, but the ToolNode was given a list of messages; pass the state"
                )
            state = {self._messages_key: state}
        for name, key in injected.state.items():
            if not key:
                added[name] = state
            elif key in state if isinstance(state, Mapping) else hasattr(state, key):
                added[name] = state[key] if isinstance(state, Mapping) else getattr(state, key)
            elif name not in injected.optional:
                raise KeyError(key)
        if injected.store:
            if request.runtime.store is None:
                raise InvalidGraphError(
                    f"tool {call['name']!r} wants a store, and there is no long-term store; keep "
                    "such data in a database that the tool closes over"
                )
            added[injected.store] = request.runtime.store
        if injected.runtime:
            added[injected.runtime] = request.runtime
        given = {name: value for name, value in call["args"].items() if name not in injected.hidden}
        return {**call, "args": {**given, **added}}

    # --- running --------------------------------------------------------------------------

    def _run(self, request: ToolCallRequest, form: str) -> Any:
        request, answer = self._decided(request)
        if answer is not None:
            return answer
        if self._wrap is None:
            return self._execute(request, form)
        try:
            return self._wrap(request, lambda each: self._execute(each, form))
        except Exception as error:
            return self._wrapper_failed(request, error)

    async def _arun(self, request: ToolCallRequest, form: str) -> Any:
        request, answer = self._decided(request)
        if answer is not None:
            return answer
        try:
            if self._awrap is not None:
                return await self._awrap(request, lambda each: self._aexecute(each, form))
            if self._wrap is not None:
                return self._wrap(request, lambda each: self._execute(each, form))
        except Exception as error:
            return self._wrapper_failed(request, error)
        return await self._aexecute(request, form)

    def _decided(self, request: ToolCallRequest) -> tuple[ToolCallRequest, Any]:
        """The call as a person decided, if one has to; or the message to answer it with instead."""
        if not self._rules:
            return request, None
        request, answer = decided(self._rules, request)
        return request.override(tool=self.tools_by_name.get(request.tool_call["name"])), answer

    def _execute(self, request: ToolCallRequest, form: str) -> Any:
        refused = self._refused(request)
        if refused is not None:
            return refused
        call = self._with_injected(request)
        try:
            if isinstance(request.tool, FunctionTool):
                result = request.tool.bind(call, request.tool_call["args"])()
                if inspect.isawaitable(result):
                    getattr(result, "close", int)()
                    raise InvalidGraphError(
                        f"tool {call['name']!r} is asynchronous; call ainvoke() or astream()"
                    )
            else:
                result = self._checked(
                    request, lambda: request.tool.invoke(_invocable(call), request.runtime.config)
                )
            return self._message(result, request, form)
        except Exception as error:
            return self._handled(request, error)

    async def _aexecute(self, request: ToolCallRequest, form: str) -> Any:
        refused = self._refused(request)
        if refused is not None:
            return refused
        call = self._with_injected(request)
        try:
            if isinstance(request.tool, FunctionTool):
                bound = request.tool.bind(call, request.tool_call["args"])
                result = bound() if request.tool.is_async else await asyncio.to_thread(bound)
                if inspect.isawaitable(result):
                    result = await result
            else:
                config = request.runtime.config
                pending = self._checked(
                    request, lambda: request.tool.ainvoke(_invocable(call), config)
                )
                try:
                    result = await pending
                except ValueError as error:
                    raise self._of_arguments(request, error) from error
            return self._message(result, request, form)
        except Exception as error:
            return self._handled(request, error)

    def _refused(self, request: ToolCallRequest) -> Any:
        """The message about a tool that the node does not have; ``None`` if it has it."""
        if request.tool is not None:
            return None
        call = request.tool_call
        text = (
            f"Error: {call['name']} is not a valid tool, try one of "
            f"[{', '.join(self.tools_by_name)}]."
        )
        return tool_message(call, text, error=True, like=request.asked)

    def _checked(self, request: ToolCallRequest, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except ValueError as error:
            raise self._of_arguments(request, error) from error

    def _of_arguments(self, request: ToolCallRequest, error: ValueError) -> Exception:
        """The error about the arguments that a model gave, if pydantic refused them."""
        details = getattr(error, "errors", None)
        if type(error).__name__ != "ValidationError" or not callable(details):
            return error
        call = request.tool_call
        hidden = (self._injected.get(call["name"]) or Injected.of(request.tool)).hidden
        shown = "\n".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
            for each in details()
            if each["loc"] and each["loc"][0] not in hidden
        )
        return ToolInvocationError(call["name"], error, dict(call["args"]), shown)

    def _handled(self, request: ToolCallRequest, error: Exception) -> Any:
        """The message about an error.

        Raises:
            Exception: the error, if it is not one of those that become messages.
        """
        handles = self._handles
        kinds: tuple[type[Exception], ...] = (Exception,)
        if isinstance(handles, type):
            kinds = (handles,)
        elif isinstance(handles, tuple):
            kinds = handles
        elif callable(handles):
            kinds = _kinds_of(handles)
        if not handles or not isinstance(error, kinds):
            raise error
        return self._error_message(request, error)

    def _wrapper_failed(self, request: ToolCallRequest, error: Exception) -> Any:
        if not self._handles:
            raise error
        return self._error_message(request, error)

    def _error_message(self, request: ToolCallRequest, error: Exception) -> Any:
        handles = self._handles
        if isinstance(handles, str):
            text = handles
        elif callable(handles) and not isinstance(handles, type):
            text = handles(error)
        else:
            text = f"Error: {error!r}\n Please fix your mistakes."
        return tool_message(request.tool_call, text, error=True, like=request.asked)

    # --- results --------------------------------------------------------------------------

    def _message(self, result: Any, request: ToolCallRequest, form: str) -> Any:
        """What a tool returned, as a message, a ``Command``, or a list of them."""
        call, asked = request.tool_call, request.asked
        if isinstance(result, Command):
            return self._command(result, call, form)
        if isinstance(result, list) and any(
            isinstance(each, Command) or _is_message(each) for each in result
        ):
            return self._several(result, call, form)
        if _is_message(result):
            if isinstance(result, Mapping):
                return result
            result.content = content_of(result.content)
            return in_form_of(asked, result)
        if not isinstance(request.tool, FunctionTool):
            raise TypeError(
                f"tool {call['name']!r} returned {type(result)}; expected a message of the tool"
            )
        return tool_message(call, result, like=asked)

    def _several(self, results: list[Any], call: ToolCall, form: str) -> list[Any]:
        """Several results of one call, of which exactly one is its message."""
        if not all(isinstance(each, Command) or _is_message(each) for each in results):
            raise TypeError(
                f"tool {call['name']!r} returned a list; expected all its items to be "
                "messages of tools or Commands"
            )
        found = [each for each in results if not isinstance(each, Command)]
        for each in results:
            if isinstance(each, Command) and isinstance(each.update, Mapping):
                found += each.update.get(self._messages_key, ())
        count = sum(_is_message(each) and _answers(each, call) for each in found)
        if count != 1:
            raise ValueError(
                f"tool {call['name']!r} returned a list with {count} messages for the call "
                f"{call.get('id')!r}; expected exactly one"
            )
        return [
            self._command(each, call, form, needs_message=False)
            if isinstance(each, Command)
            else each
            for each in results
        ]

    def _command(
        self, command: Command[Any], call: ToolCall, form: str, needs_message: bool = True
    ) -> Command[Any]:
        """A ``Command`` of a tool, checked: the call must have a message that answers it."""
        update = command.update
        if isinstance(update, Mapping):
            if form == "list":
                raise ValueError(
                    f"tool {call['name']!r} returned a Command with a dict, but the ToolNode was "
                    "given a list of messages; return a list of messages in Command.update"
                )
            messages = update.get(self._messages_key, [])
        elif isinstance(update, list):
            if form != "list":
                raise ValueError(
                    f"tool {call['name']!r} returned a Command with a list, but the ToolNode was "
                    f"given a state; return {{{self._messages_key!r}: [...]}} in Command.update"
                )
            messages = update
        else:
            return command
        named = [_named(each, call) for each in messages]
        removes_all = len(named) == 1 and field_of(named[0], "id") == "__remove_all__"
        has_answer = any(_is_message(each) and _answers(each, call) for each in named)
        if needs_message and command.graph is None and not has_answer and not removes_all:
            raise ValueError(
                f"tool {call['name']!r} returned a Command without a message that answers its "
                "call, which models refuse; add ToolMessage(…, tool_call_id=tool_call_id) to the "
                "messages in Command.update"
            )
        if isinstance(update, list):
            return replace(command, update=named)
        if self._messages_key in update:
            return replace(command, update={**update, self._messages_key: named})
        return command

    def _combined(self, results: Sequence[Any], form: str) -> Any:
        """The results of all calls, as a node returns them."""
        flat: list[Any] = []
        for each in results:
            flat += each if isinstance(each, list) else [each]
        if not any(isinstance(each, Command) for each in flat):
            return flat if form == "list" else {self._messages_key: flat}
        combined: list[Any] = []
        handoffs: list[Send] = []
        for each in flat:
            if not isinstance(each, Command):
                combined.append([each] if form == "list" else {self._messages_key: [each]})
            elif _is_handoff(each):
                handoffs += each.goto  # type: ignore[arg-type]
            else:
                combined.append(each)
        if handoffs:
            combined.append(Command(graph=Command.PARENT, goto=handoffs))
        return combined


def tools_condition(state: Any, messages_key: str = "messages") -> Literal["tools", "__end__"]:
    """For conditional edges after a model: ``"tools"`` if its message calls tools, else the end."""
    messages = state if isinstance(state, list) else value_of(state, messages_key, ())
    if not messages:
        raise InvalidUpdateError(
            f"tools_condition found no messages under the key {messages_key!r} of the state"
        )
    return "tools" if tool_calls_of(messages[-1]) else "__end__"


def _invocable(call: ToolCall) -> dict[str, Any]:
    return {**call, "type": "tool_call"}


def _is_message(value: Any) -> bool:
    is_object = isinstance(value, Mapping) or hasattr(value, "tool_call_id")
    return is_object and is_tool(value) and field_of(value, "tool_call_id") is not None


def _answers(message: Any, call: ToolCall) -> bool:
    return bool(field_of(message, "tool_call_id") == call.get("id"))


def _named(message: Any, call: ToolCall) -> Any:
    """A copy of the message that answers the call, with the name of its tool."""
    if not _is_message(message) or not _answers(message, call):
        return message
    if isinstance(message, Mapping):
        return {**message, "name": call["name"]}
    return message.model_copy(update={"name": call["name"]})


def _is_handoff(command: Command[Any]) -> bool:
    return (
        command.graph == Command.PARENT
        and isinstance(command.goto, list)
        and all(isinstance(each, Send) for each in command.goto)
    )


def _without_errors(results: list[Any]) -> list[Any]:
    """The results of calls that ran side by side.

    Raises:
        BaseException: the first error; the interrupts of all calls together, if there are only
            interrupts.
    """
    errors = [each for each in results if isinstance(each, BaseException)]
    for error in errors:
        if not isinstance(error, GraphInterrupt):
            raise error
    if len(errors) > 1:
        raise BaseExceptionGroup("tools asked", errors)
    for error in errors:
        raise error
    return results


def _kinds_of(handler: Callable[..., str]) -> tuple[type[Exception], ...]:
    """The errors that a handler is for, by the annotation of its first parameter."""
    parameters = list(inspect.signature(handler).parameters)
    if parameters and parameters[0] in ("self", "cls") and len(parameters) == 2:
        parameters = parameters[1:]
    hint = get_type_hints(callables.underlying(handler)).get(parameters[0]) if parameters else None
    if hint is None:
        return (Exception,)
    kinds = getattr(hint, "__args__", (hint,))
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise InvalidTypeError(
                f"handle_tool_errors takes a function of an exception, not of {kind!r}"
            )
    return tuple(kinds)
