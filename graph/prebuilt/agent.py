"""Agents: a model that calls tools in a loop until it answers.

Owns the graph of an agent, in the form of langchain's ``create_agent`` and of LangGraph's
``create_react_agent``. Each tool call of a message is a task of its own, so that one may wait for
a person while the others are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, TypedDict, get_type_hints

from graph.app import CompiledGraph
from graph.build.options import refuse
from graph.errors import InvalidGraphError, InvalidUpdateError
from graph.messages import add_messages
from graph.prebuilt.approval import InterruptOn
from graph.prebuilt.conversation import (
    AgentState,
    ToolCall,
    answered,
    field_of,
    is_ai,
    is_tool,
    last_ai,
    tool_calls_of,
    value_of,
)
from graph.prebuilt.models import Model
from graph.prebuilt.tool_node import ToolNode
from graph.run.scope import steps_left
from graph.state_graph import StateGraph
from graph.types import END, START, RunnableConfig, Runtime, Send

MORE_STEPS: Final = "Sorry, need more steps to process this request."
_STRUCTURED: Final = "generate_structured_response"


class _StructuredState(AgentState, total=False):
    structured_response: Any


class _PlainState(TypedDict):
    """The state of an agent whose model is a function: its messages are dicts."""

    messages: Annotated[list[dict[str, Any]], add_messages]


class _PlainStructuredState(_PlainState, total=False):
    structured_response: Any


def create_agent(
    model: Any,
    tools: Sequence[Any] | ToolNode | None = None,
    *,
    system_prompt: Any = None,
    prompt: Any = None,
    response_format: Any = None,
    state_schema: Any = None,
    context_schema: Any = None,
    checkpointer: Any = None,
    interrupt_before: Sequence[str] | str | None = None,
    interrupt_after: Sequence[str] | str | None = None,
    interrupt_on: InterruptOn = None,
    debug: bool = False,
    name: str | None = None,
    **others: Any,
) -> CompiledGraph:
    """A graph in which a model calls tools until it answers; its nodes are ``model`` and ``tools``.

    Args:
        model: a chat model of langchain-core, or its name for langchain's ``init_chat_model``; or
            a function that gets a list of message dicts (and, if it names them, ``tools`` and
            ``response_format``) and returns a text or a message dict, perhaps with
            ``tool_calls``; or a function of (state, runtime) that returns one of these.
        tools: functions, langchain-core's tools, dicts for tools of the model's provider, or a
            :class:`ToolNode`.
        system_prompt: goes before the messages: a text, a message, or a function of the state.
            ``prompt`` is another name of it.
        response_format: a pydantic class or JSON schema, or (prompt, schema): the model also
            gives its result in this form, in ``structured_response``.
        state_schema: the state; it has ``messages``. By default the messages of a function are
            dicts, those of a chat model langchain-core's.
        interrupt_before, interrupt_after: nodes at which a run pauses: ``["tools"]``.
        interrupt_on: tools whose calls a person has to approve: names; or by name ``True`` or the
            allowed decisions (``{"allow_accept": True, "allow_edit": True, …}``). Each such call
            interrupts the run with a list of one :class:`HumanInterrupt`, and is resumed with a
            :class:`HumanResponse`: accept, edit, response or ignore.
        others: options of langchain that are left out (``store``, ``cache``, ``middleware``);
            only empty ones are accepted.

    Raises:
        InvalidGraphError: the model, a tool or the state does not fit.
    """
    middleware = others.pop("middleware", ())
    if middleware:
        raise InvalidGraphError(
            "middleware= is not supported: use interrupt_on= for approval, pre_model_hook= and "
            "post_model_hook= of create_react_agent() around the model, or wrap_tool_call= of "
            "ToolNode around tools"
        )
    refuse("create_agent()", others)
    agent = _Agent(
        "model",
        model,
        tools,
        prompt if system_prompt is None else system_prompt,
        response_format,
        state_schema,
        context_schema,
        interrupt_on=interrupt_on,
        name=name,
    )
    return agent.graph().compile(
        checkpointer,
        interrupt_before=interrupt_before,
        interrupt_after=interrupt_after,
        debug=debug,
        name=name,
    )


def create_react_agent(
    model: Any,
    tools: Sequence[Any] | ToolNode,
    *,
    prompt: Any = None,
    response_format: Any = None,
    pre_model_hook: Any = None,
    post_model_hook: Any = None,
    state_schema: Any = None,
    context_schema: Any = None,
    checkpointer: Any = None,
    interrupt_before: Sequence[str] | str | None = None,
    interrupt_after: Sequence[str] | str | None = None,
    debug: bool = False,
    version: str = "v2",
    name: str | None = None,
    config_schema: Any = None,
    interrupt_on: InterruptOn = None,
    **others: Any,
) -> CompiledGraph:
    """:func:`create_agent` in the form of LangGraph's; its nodes are ``agent`` and ``tools``.

    Args:
        pre_model_hook: a node before each call of the model; its ``llm_input_messages`` replace
            the messages that the model gets.
        post_model_hook: a node after each call.
        version: ``v1``: the calls of a message are one task; ``v2``: each is one of its own.
    """
    refuse("create_react_agent()", others)
    if version not in ("v1", "v2"):
        raise InvalidGraphError(f"version must be 'v1' or 'v2', not {version!r}")
    agent = _Agent(
        "agent",
        model,
        tools,
        prompt,
        response_format,
        state_schema,
        config_schema if context_schema is None else context_schema,
        interrupt_on=interrupt_on,
        name=name,
        before=pre_model_hook,
        after=post_model_hook,
        sends=version == "v2",
    )
    return agent.graph().compile(
        checkpointer,
        interrupt_before=interrupt_before,
        interrupt_after=interrupt_after,
        debug=debug,
        name=name,
    )


class _Agent:
    """The parts of an agent's graph."""

    def __init__(
        self,
        node: str,
        model: Any,
        tools: Sequence[Any] | ToolNode | None,
        prompt: Any,
        response_format: Any,
        state_schema: Any,
        context_schema: Any,
        *,
        interrupt_on: InterruptOn = None,
        name: str | None = None,
        before: Any = None,
        after: Any = None,
        sends: bool = True,
    ) -> None:
        self.node, self.name = node, name
        self.before, self.after, self.sends = before, after, sends
        self.response_format = response_format
        if hasattr(tools, "tools_by_name"):
            if interrupt_on:
                raise InvalidGraphError(
                    "the agent was given a ToolNode and interrupt_on; pass interrupt_on to the "
                    "ToolNode"
                )
            self.tools: Any = tools
            self.sends = sends and isinstance(tools, ToolNode)  # LangGraph's reads no state here
            provided = []
        else:
            provided = [each for each in tools or () if isinstance(each, dict)]
            own = [each for each in tools or () if not isinstance(each, dict)]
            self.tools = ToolNode(own, interrupt_on=interrupt_on)
        known = list(self.tools.tools_by_name.values())
        self.direct = {each.name for each in known if each.return_direct}
        self.has_tools = bool(known)
        self.model = Model(model, [*known, *provided], prompt)
        self.schema = self._schema(state_schema)
        self.context = context_schema

    def _schema(self, given: Any) -> Any:
        structured = self.response_format is not None
        if given is None:
            if self.model.answers:
                return _PlainStructuredState if structured else _PlainState
            return _StructuredState if structured else AgentState
        wanted = {"messages"} | ({"structured_response"} if structured else set())
        missing = wanted - set(get_type_hints(given))
        if missing:
            raise InvalidGraphError(
                f"the state of an agent needs the keys {', '.join(map(repr, sorted(missing)))}; "
                f"add them to {given.__qualname__}"
            )
        return given

    def graph(self) -> StateGraph:
        declared = StateGraph(self.schema, self.context)
        entry = self.node
        declared.add_node(self.node, _ModelNode(self), input_schema=self._model_input())
        if self.before is not None:
            entry = "pre_model_hook"
            declared.add_node(entry, self.before)
            declared.add_edge(entry, self.node)
        declared.add_edge(START, entry)
        if self.response_format is not None:
            declared.add_node(_STRUCTURED, _StructuredNode(self))
        last = self.node
        if self.after is not None:
            last = "post_model_hook"
            declared.add_node(last, self.after)
            declared.add_edge(self.node, last)
        end = END if self.response_format is None else _STRUCTURED
        if not self.has_tools:
            declared.add_edge(last, end)
            return declared
        declared.add_node("tools", self.tools)
        ends = ["tools", end, *([entry] if self.after is not None else [])]
        declared.add_conditional_edges(last, _Router(self, end, entry), ends)
        if self.direct:
            declared.add_conditional_edges("tools", self._after_tools(entry), [entry, END])
        else:
            declared.add_edge("tools", entry)
        return declared

    def _model_input(self) -> Any:
        if self.before is None:
            return None

        class ModelInput(self.schema):  # type: ignore[misc, name-defined]
            llm_input_messages: list[Any]

        return ModelInput

    def _after_tools(self, entry: str) -> Any:
        def should_return(state: Any) -> str:
            messages = value_of(state, "messages", [])
            for message in reversed(messages):
                if not is_tool(message):
                    break
                if field_of(message, "name") in self.direct:
                    return END
            asked = last_ai(messages)
            if any(call["name"] in self.direct for call in tool_calls_of(asked)):
                return END
            return entry

        return should_return

    def messages_for_model(self, state: Any) -> Any:
        """The messages that the model gets.

        Raises:
            InvalidUpdateError: there are none, or a tool call has no result.
        """
        messages = value_of(state, "llm_input_messages") if self.before is not None else None
        messages = messages or value_of(state, "messages")
        if messages is None:
            raise InvalidUpdateError("the agent's state has no messages; pass {'messages': […]}")
        done = answered(messages)
        open_calls = [
            call
            for message in messages
            if is_ai(message)
            for call in tool_calls_of(message)
            if call.get("id") not in done
        ]
        if open_calls:
            raise InvalidUpdateError(
                "tool calls in the messages have no result: "
                f"{', '.join(repr(call['name']) for call in open_calls[:3])}; add a tool message "
                "for each, because models refuse such a conversation"
            )
        return messages

    def answer(self, response: Any) -> dict[str, Any]:
        """The update for the model's answer."""
        is_dict = isinstance(response, dict)
        if self.name is not None:
            if is_dict:
                response = {"name": self.name, **response}
            else:
                response.name = self.name
        calls = tool_calls_of(response)
        left = steps_left()
        all_direct = all(call["name"] in self.direct for call in calls)
        if calls and left < (2 if all_direct else 3):  # for the tools, and for the model after them
            if is_dict:
                response = {**response, "content": MORE_STEPS}
                del response["tool_calls"]
            else:
                response = type(response)(content=MORE_STEPS, id=response.id)
        return {"messages": [response]}


class _ModelNode:
    """Asks the model."""

    def __init__(self, agent: _Agent) -> None:
        self._agent = agent

    def invoke(self, state: Any, config: RunnableConfig, runtime: Runtime[Any]) -> Any:
        messages = self._agent.messages_for_model(state)
        return self._agent.answer(self._agent.model.ask(state, messages, config, runtime))

    async def ainvoke(self, state: Any, config: RunnableConfig, runtime: Runtime[Any]) -> Any:
        messages = self._agent.messages_for_model(state)
        return self._agent.answer(await self._agent.model.aask(state, messages, config, runtime))


class _StructuredNode:
    """Asks the model for its result in the form of the response format."""

    def __init__(self, agent: _Agent) -> None:
        self._agent = agent

    def invoke(self, state: Any, config: RunnableConfig, runtime: Runtime[Any]) -> Any:
        model, wanted = self._agent.model, self._agent.response_format
        return {"structured_response": model.structured(wanted, state, config, runtime)}

    async def ainvoke(self, state: Any, config: RunnableConfig, runtime: Runtime[Any]) -> Any:
        model, wanted = self._agent.model, self._agent.response_format
        return {"structured_response": await model.astructured(wanted, state, config, runtime)}


class _Router:
    """Where a run goes on after the model: to the tools that it called, or to the end."""

    __name__ = "should_continue"

    def __init__(self, agent: _Agent, end: str, entry: str) -> None:
        self._agent, self._end, self._entry = agent, end, entry

    def __call__(self, state: Any) -> Any:
        messages = value_of(state, "messages", [])
        asked = last_ai(messages) if self._agent.after else messages[-1]
        done = answered(messages[messages.index(asked) :]) if self._agent.after else ()
        pending = [call for call in _calls_of_ai(asked) if call.get("id") not in done]
        if pending:
            # The calls alone: a state in each Send would be stored again for each call.
            return [Send("tools", [call]) for call in pending] if self._agent.sends else "tools"
        if self._agent.after and is_tool(messages[-1]):
            return self._entry
        return self._end


def _calls_of_ai(message: Any) -> list[ToolCall]:
    return tool_calls_of(message) if message is not None and is_ai(message) else []
