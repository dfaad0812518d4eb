"""Models of agents, called in one way: functions of messages, and langchain-core's chat models.

Owns the three kinds: a function that answers messages, a langchain-core model with the tools bound
to it, and a function of state and runtime that chooses one of the others. Also the prompt that
goes before the messages.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final
from uuid import uuid4

from graph.errors import InvalidGraphError, InvalidTypeError
from graph.prebuilt.conversation import field_of, value_of
from graph.prebuilt.tools import FunctionTool, spec_of

_STRATEGIES: Final = frozenset({"ToolStrategy", "ProviderStrategy", "AutoStrategy"})


class Model:
    """What an agent asks for its next message.

    Args:
        model: a chat model of langchain-core, ``"provider:name"`` for langchain's
            ``init_chat_model``, or a function.
        tools: what it may call: functions, tools, or dicts that describe a provider's own tools.
        prompt: goes before the messages: a text, a message, or a function or Runnable that makes
            the input of the model from the state.
    """

    def __init__(self, model: Any, tools: Sequence[Any], prompt: Any = None) -> None:
        if isinstance(model, str):
            model = _named(model)
        if not hasattr(model, "invoke") and not callable(model):
            raise InvalidTypeError(
                f"a model must be a chat model of langchain-core or a function, not {model!r}"
            )
        self.is_function = not hasattr(model, "invoke")
        self.chooses = self.is_function and _required_count(model) >= 2
        self.answers = self.is_function and not self.chooses
        self._tools = tools
        self._prompt = prompt
        self._chat = model
        self._model = model if self.is_function else _bound(model, tools)

    def ask(self, state: Any, messages: Any, config: Any, runtime: Any) -> Any:
        """The model's next message, in a run without an event loop."""
        model = self._model
        if self.chooses:
            model = _sync(model(state, runtime))
        given = self._input(state, messages, config)
        if hasattr(model, "invoke"):
            return model.invoke(given, config)
        return as_message(_sync(model(given, **self._extras(model))))

    async def aask(self, state: Any, messages: Any, config: Any, runtime: Any) -> Any:
        """:meth:`ask` in an event loop."""
        model = self._model
        if self.chooses:
            model = await _awaited(model(state, runtime))
        given = await _awaited(self._input(state, messages, config, is_async=True))
        if hasattr(model, "ainvoke"):
            return await model.ainvoke(given, config)
        return as_message(await _awaited(model(given, **self._extras(model))))

    def structured(self, wanted: Any, state: Any, config: Any, runtime: Any) -> Any:
        """The conversation's result in the form of a schema.

        Args:
            wanted: a pydantic class or a JSON schema; or (prompt, schema).
        """
        prompt, schema = _schema_of(wanted)
        messages = _with_system(prompt, value_of(state, "messages", []))
        if self.answers:
            extras = self._extras(self._chat, response_format=schema)
            return parsed(_sync(self._chat(messages, **extras)), schema)
        model = _sync(self._chat(state, runtime)) if self.chooses else self._chat
        return _chat_model(model).with_structured_output(schema).invoke(messages, config)

    async def astructured(self, wanted: Any, state: Any, config: Any, runtime: Any) -> Any:
        """:meth:`structured` in an event loop."""
        prompt, schema = _schema_of(wanted)
        messages = _with_system(prompt, value_of(state, "messages", []))
        if self.answers:
            extras = self._extras(self._chat, response_format=schema)
            return parsed(await _awaited(self._chat(messages, **extras)), schema)
        model = await _awaited(self._chat(state, runtime)) if self.chooses else self._chat
        return await _chat_model(model).with_structured_output(schema).ainvoke(messages, config)

    def _input(self, state: Any, messages: Any, config: Any, is_async: bool = False) -> Any:
        prompt = self._prompt
        if prompt is None or isinstance(prompt, str | Mapping):
            return _with_system(prompt, messages, as_dict=self.answers)
        if hasattr(prompt, "invoke"):
            return (prompt.ainvoke if is_async else prompt.invoke)(state, config)
        if callable(prompt):
            passed = {"config": config} if "config" in inspect.signature(prompt).parameters else {}
            return prompt(state, **passed) if is_async else _sync(prompt(state, **passed))
        return [prompt, *messages]

    def _extras(self, model: Callable[..., Any], **more: Any) -> dict[str, Any]:
        """The keyword arguments that a function names."""
        parameters = inspect.signature(model).parameters
        found = {name: value for name, value in more.items() if name in parameters}
        if "tools" in parameters:
            found["tools"] = [
                each if isinstance(each, dict) else spec_of(each) for each in self._tools
            ]
        return found


def as_message(answer: Any) -> Any:
    """The answer of a function as a message: a text, a dict or a message object."""
    if isinstance(answer, str):
        answer = {"content": answer}
    if not isinstance(answer, Mapping):
        return answer
    message = {"role": "assistant", "content": "", **answer}
    if message.get("tool_calls"):
        message["tool_calls"] = [
            {**call, "id": call.get("id") or f"call_{uuid4().hex}"}
            for call in message["tool_calls"]
        ]
    return message


def parsed(answer: Any, schema: Any) -> Any:
    """A function's answer, a dict or JSON text, in the form of a schema."""
    content = answer if isinstance(answer, str) else field_of(answer, "content")
    if isinstance(content, str):
        content = json.loads(content)
    elif content is None:
        content = answer
    if not isinstance(schema, type) or not isinstance(content, Mapping):
        return content
    if hasattr(schema, "model_validate"):
        return schema.model_validate(content)
    return schema(**content)


def _schema_of(wanted: Any) -> tuple[str | None, Any]:
    prompt = None
    if isinstance(wanted, tuple):
        prompt, wanted = wanted
    return prompt, wanted.schema if type(wanted).__name__ in _STRATEGIES else wanted


def _with_system(prompt: Any, messages: Any, as_dict: bool = True) -> list[Any]:
    if prompt is None:
        return list(messages)
    if not isinstance(prompt, str):
        return [prompt, *messages]
    if as_dict and all(isinstance(each, Mapping) for each in messages):
        return [{"role": "system", "content": prompt}, *messages]
    from langchain_core.messages import SystemMessage

    return [SystemMessage(prompt), *messages]


def _required_count(function: Callable[..., Any]) -> int:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(
        each.kind in positional and each.default is each.empty and each.name != "tools"
        for each in inspect.signature(function).parameters.values()
    )


def _sync(result: Any) -> Any:
    if inspect.isawaitable(result):
        getattr(result, "close", int)()
        raise InvalidGraphError(
            "the agent's model is an asynchronous function; call ainvoke() or astream(), or make "
            "it a plain function"
        )
    return result


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _named(name: str) -> Any:
    try:
        init: Any = import_module("langchain.chat_models").init_chat_model
    except ImportError as error:
        raise InvalidGraphError(
            f"the model {name!r} is a name, which needs langchain; install langchain, or pass a "
            "chat model or a function"
        ) from error
    return init(name)


def _binding(model: Any) -> Any:
    """The model in a chain that tools are, or may be, bound to."""
    for step in getattr(model, "steps", ()):
        if hasattr(step, "bind_tools") or hasattr(step, "bound"):
            return step
    return model


def _bound(model: Any, tools: Sequence[Any]) -> Any:
    """A chat model with the tools, unless they are bound to it already.

    Raises:
        InvalidGraphError: other tools are bound to it.
    """
    if not tools:
        return model
    bound = getattr(_binding(model), "kwargs", None)
    known = bound.get("tools") if isinstance(bound, Mapping) else None
    if known is None:
        given = [each.func if isinstance(each, FunctionTool) else each for each in tools]
        return model.bind_tools(given)
    names = {_name_of(each) for each in known} - {None}
    missing = [each.name for each in tools if hasattr(each, "name") and each.name not in names]
    if len(known) != len(tools) or missing:
        raise InvalidGraphError(
            f"the model has {len(known)} tools bound to it and the agent has {len(tools)}"
            f"{': it lacks ' + ', '.join(missing) if missing else ''}; bind the agent's tools, or "
            "none"
        )
    return model


def _name_of(tool: Mapping[str, Any]) -> Any:
    function = tool.get("function")
    return function.get("name") if isinstance(function, Mapping) else tool.get("name")


def _chat_model(model: Any) -> Any:
    found = _binding(model)
    return getattr(found, "bound", found)
