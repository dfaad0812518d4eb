"""Agents do what LangGraph's do with the same model and tools; people approve their calls."""

# Without postponed annotations: those of tools made in a function name what is local there.
import asyncio
import json
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from pydantic import BaseModel
from typing_extensions import TypedDict

import graph
from graph.prebuilt import ToolNode, create_agent
from tests.graph.prebuilt.support import (
    OUR_AGENTS,
    THEIR_AGENTS,
    ScriptedModel,
    assert_same_agents,
    calls,
    told,
)


@pytest.fixture
def saver() -> Iterator[Any]:
    with graph.InMemorySaver() as opened:
        yield opened


CONFIG: Any = {"configurable": {"thread_id": "1"}}


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool(return_direct=True)
def look_up(name: str) -> str:
    """Look a name up."""
    return f"{name} is known"


def remove(path: str) -> str:
    """Remove a file."""
    return f"removed {path}"


class Answer(BaseModel):
    total: int


SCRIPT: list[Any] = [
    calls(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4}), text="adding"),
    calls(("add", {"a": 3, "b": 7})),
    "ten it is",
]

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prompt": {"prompt": "be brief"},
    "system message": {"prompt": SystemMessage("be brief")},
    "function as prompt": {"prompt": lambda state: [SystemMessage("x"), *state["messages"][-1:]]},
    "named": {"name": "adder"},
    "v1": {"version": "v1"},
    "structured": {"response_format": Answer},
    "structured with prompt": {"response_format": ("as numbers", Answer)},
    "hooks": {
        "pre_model_hook": lambda state: {"llm_input_messages": state["messages"][-3:]},
        "post_model_hook": lambda state: {},
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_agent_calls_tools_until_it_answers(variant: str) -> None:
    options = VARIANTS[variant]

    def program(library: Any) -> Iterator[Any]:
        model = ScriptedModel(answers=SCRIPT, structured={"total": 10})
        app = library.create_react_agent(model, [add], **options)
        result = app.invoke({"messages": [HumanMessage("go")]})
        yield told(result["messages"]), str(result.get("structured_response"))
        # Before the first call of a model: what both give it. Later also what it answered.
        yield [told(each) for each in model.asked]
        yield [list(chunk) for chunk in app.stream({"messages": [HumanMessage("go")]})]

    async def async_program(library: Any) -> Any:
        model = ScriptedModel(answers=SCRIPT, structured={"total": 10})
        app = library.create_react_agent(model, [add], **options)
        result = await app.ainvoke({"messages": [HumanMessage("go")]})
        yield told(result["messages"]), str(result.get("structured_response"))

    assert_same_agents(program)
    assert_same_agents(async_program)


def test_without_tools_a_model_answers_once() -> None:
    def program(library: Any) -> Iterator[Any]:
        app = library.create_react_agent(ScriptedModel(answers=["hello"]), [])
        yield told(app.invoke({"messages": [HumanMessage("go")]})["messages"])

    assert_same_agents(program)


def test_a_tool_may_end_the_run() -> None:
    def program(library: Any) -> Iterator[Any]:
        for named in (
            (("look_up", {"name": "x"}),),
            (("add", {"a": 1, "b": 1}), ("look_up", {"name": "x"})),
        ):
            model = ScriptedModel(answers=[calls(*named), "not reached"])
            app = library.create_react_agent(model, [add, look_up])
            yield told(app.invoke({"messages": [HumanMessage("go")]})["messages"])

    assert_same_agents(program)


def test_an_agent_says_that_it_needs_more_steps() -> None:
    """LangGraph raises if the last allowed superstep is the last one; here that run has ended."""

    def last(library: Any, limit: int) -> str:
        app = library.create_react_agent(ScriptedModel(answers=SCRIPT), [add])
        given = {"messages": [HumanMessage("go")]}
        return str(app.invoke(given, {"recursion_limit": limit})["messages"][-1].content)

    more = "Sorry, need more steps to process this request."
    assert [last(OUR_AGENTS, limit) for limit in range(1, 7)] == [
        *[more] * 4,
        *["ten it is"] * 2,
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [last(THEIR_AGENTS, limit) for limit in (2, 4, 6)] == [more, more, "ten it is"]


def test_a_run_pauses_before_tools_and_goes_on() -> None:
    def program(library: Any) -> Iterator[Any]:
        app = library.create_react_agent(
            ScriptedModel(answers=SCRIPT),
            [add],
            checkpointer=library.InMemorySaver(),
            interrupt_before=["tools"],
        )
        app.invoke({"messages": [HumanMessage("go")]}, CONFIG)
        while app.get_state(CONFIG).next:
            yield app.get_state(CONFIG).next
            result = app.invoke(None, CONFIG)
            yield told(result["messages"])

    assert_same_agents(program)


def test_a_model_may_be_chosen_by_state_and_context() -> None:
    def program(library: Any) -> Iterator[Any]:
        models = {name: ScriptedModel(answers=[name]) for name in ("small", "large")}

        def choose(state: Any, runtime: Any) -> Any:
            return models[runtime.context["size"]].bind_tools([add])

        class Context(TypedDict):
            size: str

        app = library.create_react_agent(choose, [add], context_schema=Context)
        for size in models:
            given = {"messages": [HumanMessage("go")]}
            yield told(app.invoke(given, context={"size": size})["messages"])

    assert_same_agents(program)


def test_a_call_without_a_result_is_refused() -> None:
    def program(library: Any) -> Iterator[Any]:
        app = library.create_react_agent(ScriptedModel(answers=SCRIPT), [add])
        yield app.invoke({"messages": [HumanMessage("x"), calls(("add", {}))]})

    assert_same_agents(program)


def test_state_is_read_by_tools_of_an_agent() -> None:
    def program(library: Any) -> Iterator[Any]:
        class WithUser(TypedDict, total=False):
            messages: Annotated[list[Any], library.add_messages]
            user: str
            remaining_steps: int

        def who(user: Annotated[str, library.InjectedState("user")]) -> str:
            """Say who is here."""
            return user

        model = ScriptedModel(answers=[calls(("who", {}), ("who", {})), "done"])
        app = library.create_react_agent(model, [who], state_schema=WithUser)
        yield told(app.invoke({"messages": [HumanMessage("x")], "user": "ann"})["messages"])

    assert_same_agents(program)


# --- functions as models ---------------------------------------------------------------------


def assistant(messages: list[dict[str, Any]], tools: Any = ()) -> Any:
    if messages[-1]["role"] == "user":
        return {
            "tool_calls": [
                {"name": "add", "args": {"a": 1, "b": 2}, "id": "1"},
                {"name": "remove", "args": {"path": "/x"}, "id": "2"},
            ]
        }
    return "; ".join(each["content"] for each in messages if each["role"] == "tool")


async def async_assistant(messages: list[dict[str, Any]]) -> Any:
    return assistant(messages)


def test_a_function_of_message_dicts_is_a_model() -> None:
    seen: list[Any] = []

    def model(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Any:
        seen.append((messages[0], tools))
        return assistant(messages)

    app = create_agent(model, [add, remove], system_prompt="be brief")
    result = app.invoke({"messages": [("user", "go")]})
    assert result["messages"][-1]["content"] == "3; removed /x"
    assert [each["role"] for each in result["messages"]] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    system, tools = seen[0]
    assert system == {"role": "system", "content": "be brief"}
    assert [each["name"] for each in tools] == ["add", "remove"]
    assert set(tools[0]["parameters"]["properties"]) == {"a", "b"}


def test_an_async_function_is_a_model_of_async_runs() -> None:
    app = create_agent(async_assistant, [add, remove])
    result = asyncio.run(app.ainvoke({"messages": [("user", "go")]}))
    assert result["messages"][-1]["content"] == "3; removed /x"
    with pytest.raises(graph.InvalidGraphError, match="ainvoke"):
        app.invoke({"messages": [("user", "go")]})


def test_a_function_gives_its_result_in_a_form() -> None:
    def model(messages: list[dict[str, Any]], response_format: Any = None) -> Any:
        return json.dumps({"total": 3}) if response_format else "three"

    app = create_agent(model, response_format=Answer)
    result = app.invoke({"messages": [("user", "go")]})
    assert result["structured_response"] == Answer(total=3)
    assert result["messages"][-1]["content"] == "three"


# --- approval ----------------------------------------------------------------------------------


def approved(
    saver: Any,
    decision: Any,
    interrupt_on: Any = ("remove",),
    is_async: bool = False,
    thread: str = "1",
) -> Any:
    """The results of the tools after a decision, and what the person was asked."""
    app = create_agent(assistant, [add, remove], interrupt_on=interrupt_on, checkpointer=saver)
    given, resumed = {"messages": [("user", "go")]}, graph.Command[str](resume=decision)
    config: Any = {"configurable": {"thread_id": thread}}
    if is_async:

        async def both() -> Any:
            return await app.ainvoke(given, config), await app.ainvoke(resumed, config)

        asked, result = asyncio.run(both())
    else:
        asked, result = app.invoke(given, config), app.invoke(resumed, config)
    (question,) = asked["__interrupt__"]
    return result["messages"][-1]["content"], question.value


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("decision", "result"),
    [
        ({"type": "accept"}, "3; removed /x"),
        ([{"type": "accept", "args": None}], "3; removed /x"),
        ([{"type": "edit", "args": {"action": "remove", "args": {"path": "/y"}}}], "3; removed /y"),
        ([{"type": "response", "args": "ask Bob first"}], "3; ask Bob first"),
        ([{"type": "ignore"}], "3; The call of remove was declined and did not run."),
        ({"decisions": [{"type": "approve"}]}, "3; removed /x"),
        ({"decisions": [{"type": "reject", "message": "never"}]}, "3; never"),
        (
            {
                "decisions": [
                    {"type": "edit", "edited_action": {"name": "add", "args": {"a": 2, "b": 2}}}
                ]
            },
            "3; 4",
        ),
    ],
)
def test_a_person_decides_about_a_call(
    saver: Any, decision: Any, result: str, is_async: bool
) -> None:
    content, question = approved(saver, decision, is_async=is_async)
    assert content == result
    assert question == [
        {
            "action_request": {"action": "remove", "args": {"path": "/x"}},
            "config": {
                "allow_accept": True,
                "allow_edit": True,
                "allow_respond": True,
                "allow_ignore": True,
            },
            "description": "Please review the tool call",
        }
    ]


def test_only_allowed_decisions_are_taken(saver: Any) -> None:
    rule = {"remove": {"allowed_decisions": ["approve", "reject"], "description": "remove it?"}}
    content, question = approved(saver, {"type": "accept"}, rule, thread="accepted")
    assert content == "3; removed /x"
    assert question[0]["description"] == "remove it?"
    assert not question[0]["config"]["allow_edit"]
    for number, wrong in enumerate(({"type": "edit", "args": {}}, {"type": "perhaps"}, 3)):
        with pytest.raises(graph.InvalidUpdateError, match="remove"):
            approved(saver, wrong, rule, thread=f"{number}")


def test_two_calls_are_approved_one_by_one(saver: Any) -> None:
    app = create_agent(assistant, [add, remove], interrupt_on=True, checkpointer=saver)
    asked = app.invoke({"messages": [("user", "go")]}, CONFIG)["__interrupt__"]
    by_action = {each.value[0]["action_request"]["action"]: each.id for each in asked}
    result = app.invoke(graph.Command(resume={by_action["remove"]: "accept"}), CONFIG)
    assert [each.id for each in result["__interrupt__"]] == [by_action["add"]]
    result = app.invoke(graph.Command(resume="ignore"), CONFIG)
    assert result["messages"][-1]["content"] == (
        "The call of add was declined and did not run.; removed /x"
    )


def test_one_task_with_two_calls_asks_for_both(saver: Any) -> None:
    declared = graph.StateGraph(graph.MessagesState)
    declared.add_node("tools", ToolNode([add, remove], interrupt_on=["add", "remove"]))
    declared.add_edge(graph.START, "tools")
    app = declared.compile(saver)
    message = calls(("add", {"a": 1, "b": 2}), ("remove", {"path": "/x"}))
    asked = app.invoke({"messages": [message]}, CONFIG)["__interrupt__"]
    assert len(asked) == 2
    result = app.invoke(graph.Command(resume={each.id: "accept" for each in asked}), CONFIG)
    assert [each.content for each in result["messages"][1:]] == ["3", "removed /x"]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(graph.InvalidConfigError, match="'removal', which is not a tool"):
        create_agent(assistant, [remove], interrupt_on=["removal"])
    with pytest.raises(graph.InvalidGraphError, match="middleware"):
        create_agent(assistant, [remove], middleware=[object()])
    with pytest.raises(graph.InvalidGraphError, match="long-term store"):
        create_agent(assistant, [remove], store=object())
    with pytest.raises(TypeError, match="a model must be"):
        create_agent(3, [remove])  # a number
    with pytest.raises(graph.InvalidGraphError, match="'messages'"):
        create_agent(assistant, [remove], state_schema=Answer)


def test_langgraphs_own_tool_node_is_a_node() -> None:
    import langgraph.prebuilt

    declared = graph.StateGraph(graph.MessagesState)
    declared.add_node("tools", langgraph.prebuilt.ToolNode([add]))
    declared.add_edge(graph.START, "tools")
    app = declared.compile()
    given = {"messages": [calls(("add", {"a": 1, "b": 2}))]}
    assert app.invoke(given)["messages"][-1].content == "3"
    assert asyncio.run(app.ainvoke(given))["messages"][-1].content == "3"
    assert isinstance(given["messages"][0], AIMessage)
