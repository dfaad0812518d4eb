"""ToolNode and tools_condition do what LangGraph's do with the same tools and messages."""

# Without postponed annotations: those of tools made in a function name what is local there.
import operator
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from typing_extensions import TypedDict

from graph.prebuilt import ToolNode
from tests.graph.prebuilt.support import assert_same_agents, calls, told

ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def shout(text: str) -> str:
    """Say it loudly."""
    return text.upper()


def table() -> dict[str, Any]:
    """Return a table."""
    return {"rows": [1, 2], "ü": None}


def failing(text: str) -> str:
    """Fail."""
    raise ValueError(f"no {text}")


async def later(text: str) -> str:
    """Answer later."""
    return f"later {text}"


class State(TypedDict, total=False):
    messages: Annotated[list[Any], "messages"]
    user: str
    found: Annotated[list[str], operator.add]


def graph_with(library: Any, *tools: Any, saver: bool = False, **options: Any) -> Any:
    class WithMessages(State, total=False):
        messages: Annotated[list[Any], library.add_messages]

    declared = library.StateGraph(WithMessages)
    declared.add_node("tools", library.ToolNode(list(tools), **options))
    declared.add_node("after", lambda state: {})
    declared.add_edge(library.START, "tools")
    declared.add_edge("tools", "after")
    return declared.compile(checkpointer=library.InMemorySaver() if saver else None)


MESSAGES = [
    calls(("add", {"a": 1, "b": 2}), ("shout", {"text": "x"}), ("table", {})),
    calls(("add", {"a": "1", "b": 2})),
    calls(("add", {"a": "one"})),
    calls(("none", {}), ("shout", {"text": "x"})),
    calls(("failing", {"text": "x"})),
    AIMessage("nothing to call"),
]


@pytest.mark.parametrize(
    "handling",
    [
        {},
        {"handle_tool_errors": True},
        {"handle_tool_errors": False},
        {"handle_tool_errors": "try again"},
        {"handle_tool_errors": ValueError},
        {"handle_tool_errors": (KeyError,)},
    ],
    ids=["default", "all", "none", "text", "class", "other class"],
)
@ASYNC
def test_calls_become_messages(handling: Any, is_async: bool) -> None:
    for message in MESSAGES:
        given = {"messages": [HumanMessage("go"), message]}

        def program(library: Any, given: Any = given) -> Iterator[Any]:
            app = graph_with(library, add, shout, table, failing, **handling)
            yield told(app.invoke(given)["messages"])

        async def async_program(library: Any, given: Any = given) -> Any:
            app = graph_with(library, add, shout, table, failing, later, **handling)
            yield told((await app.ainvoke(given))["messages"])

        assert_same_agents(async_program if is_async else program)


def test_a_handler_is_for_the_errors_that_it_names() -> None:
    def explain(error: ValueError) -> str:
        return f"not so: {error}"

    def other(error: KeyError) -> str:
        return "never"

    def program(library: Any) -> Iterator[Any]:
        for handler in (explain, other):
            app = graph_with(library, failing, handle_tool_errors=handler)
            message = calls(("failing", {"text": "x"}))
            yield told(app.invoke({"messages": [message]})["messages"])

    assert_same_agents(program)


def test_state_and_runtime_are_injected_and_cannot_be_forged() -> None:
    def program(library: Any) -> Iterator[Any]:
        def who(
            text: str,
            state: Annotated[dict[str, Any], library.InjectedState],
            user: Annotated[str, library.InjectedState("user")],
            runtime: library.ToolRuntime,
        ) -> str:
            """Say who."""
            runtime.stream_writer({"seen": text})
            return (
                f"{text} {len(state['messages'])} {user} {runtime.tool_call_id} {runtime.context}"
            )

        as_tool: Any = tool(who)
        yield sorted(as_tool.tool_call_schema.model_fields)
        for each in (who, as_tool):
            app = graph_with(library, each)
            message = calls(("who", {"text": "x", "user": "forged", "state": {}}))
            given = {"messages": [message], "user": "ann"}
            yield told(app.invoke(given, context={"tenant": "t"})["messages"])
            yield list(app.stream(given, stream_mode="custom"))

    assert_same_agents(program)


def test_a_command_of_a_tool_updates_the_state() -> None:
    def program(library: Any) -> Iterator[Any]:
        @tool
        def look_up(text: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
            """Look it up."""
            message = ToolMessage(f"found {text}", tool_call_id=tool_call_id)
            return library.Command(update={"found": [text], "messages": [message]})

        @tool
        def forgetful(text: str) -> Any:
            """Forget the message."""
            return library.Command(update={"found": [text]})

        @tool
        def several(text: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
            """Return several."""
            return [
                library.Command(update={"found": [text, text]}),
                ToolMessage("twice", tool_call_id=tool_call_id),
            ]

        app = graph_with(library, look_up, several, add)
        message = calls(
            ("look_up", {"text": "x"}), ("add", {"a": 1, "b": 1}), ("several", {"text": "y"})
        )
        result = app.invoke({"messages": [message], "found": []})
        yield result["found"], told(result["messages"])
        app = graph_with(library, forgetful)
        app.invoke({"messages": [calls(("forgetful", {"text": "x"}))], "found": []})

    assert_same_agents(program)


@ASYNC
def test_a_tool_may_interrupt_and_gets_its_answer(is_async: bool) -> None:
    def tools(library: Any) -> list[Any]:
        @tool
        def ask(what: str) -> str:
            """Ask a person."""
            return f"{what}: {library.interrupt(what)}"

        return [ask, add]

    message = calls(("add", {"a": 1, "b": 2}), ("ask", {"what": "colour"}))
    config: Any = {"configurable": {"thread_id": "1"}}

    def program(library: Any) -> Iterator[Any]:
        app = graph_with(library, *tools(library), saver=True)
        yield [each.value for each in app.invoke({"messages": [message]}, config)["__interrupt__"]]
        yield told(app.invoke(library.Command(resume="red"), config)["messages"])

    async def async_program(library: Any) -> Any:
        app = graph_with(library, *tools(library), saver=True)
        result = await app.ainvoke({"messages": [message]}, config)
        yield [each.value for each in result["__interrupt__"]]
        yield told((await app.ainvoke(library.Command(resume="red"), config))["messages"])

    assert_same_agents(async_program if is_async else program)


def test_calls_run_side_by_side() -> None:
    both = threading.Barrier(2, timeout=5)

    def meet(name: str) -> str:
        """Meet."""
        both.wait()
        return name

    node = ToolNode([meet])
    found = node.invoke([calls(("meet", {"name": "a"}), ("meet", {"name": "b"}))])
    assert [each.content for each in found] == ["a", "b"]


def test_a_wrapper_sees_and_changes_calls() -> None:
    def wrap(request: Any, execute: Any) -> Any:
        if request.tool is None:
            return ToolMessage("no such tool", tool_call_id=request.tool_call["id"])
        doubled = {name: 2 * value for name, value in request.tool_call["args"].items()}
        return execute(request.override(tool_call={**request.tool_call, "args": doubled}))

    def program(library: Any) -> Iterator[Any]:
        app = graph_with(library, add, wrap_tool_call=wrap)
        message = calls(("add", {"a": 1, "b": 2}), ("none", {}))
        yield told(app.invoke({"messages": [message]})["messages"])

    assert_same_agents(program)


def test_the_condition_leads_to_tools_or_to_the_end() -> None:
    def program(library: Any) -> Iterator[Any]:
        for message in (calls(("add", {})), AIMessage("x"), HumanMessage("x")):
            yield library.tools_condition({"messages": [message]})
            yield library.tools_condition([message])
            yield library.tools_condition({"chat": [message]}, messages_key="chat")
        library.tools_condition({"messages": []})

    assert_same_agents(program)


def test_message_dicts_are_answered_by_dicts() -> None:
    asked = {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "1",
                "type": "function",
                "function": {"name": "add", "arguments": '{"a":1,"b":2}'},
            },
            {"id": "2", "name": "none", "args": {}},
        ],
    }
    assert ToolNode([add]).invoke({"messages": [asked]}) == {
        "messages": [
            {
                "role": "tool",
                "content": "3",
                "name": "add",
                "tool_call_id": "1",
                "status": "success",
            },
            {
                "role": "tool",
                "content": "Error: none is not a valid tool, try one of [add].",
                "name": "none",
                "tool_call_id": "2",
                "status": "error",
            },
        ]
    }
