"""A support agent: tools, approval of refunds, streamed tokens, and a database by configuration.

    SUPPORT_MODEL=openai:gpt-4o SUPPORT_DATABASE=support.db python agent.py customer-1

``SUPPORT_DATABASE`` names a file of SQLite, or a PostgreSQL: ``postgresql://…``. The thread waits
for an approval in the database: stop the program, and start it again on another machine.
``agent.py`` and ``agent_langgraph.py``, the same agent on LangGraph, differ by their imports only.
"""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.prebuilt import InjectedState, ToolNode, tools_condition
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

ORDERS = {
    "A-7": {"customer": "ann", "item": "lamp", "price": 40.0},
    "B-2": {"customer": "bob", "item": "chair", "price": 120.0},
}

PROMPT = "You help customers of a furniture shop. Look orders up before you refund them."


class State(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]
    customer: str
    refunded: float
    escalated: bool


@tool
def find_order(order: str, customer: Annotated[str, InjectedState("customer")]) -> str:
    """Look up an order of the customer."""
    found = ORDERS.get(order)
    if found is None or found["customer"] != customer:
        raise ValueError(f"{customer} has no order {order}")
    return f"{order}: {found['item']}, {found['price']:.2f}"


@tool
def refund(order: str, amount: float, tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
    """Refund an order, or a part of it. A person approves it first."""
    answer = interrupt({"refund": order, "amount": amount})
    if not answer["approved"]:
        return f"not refunded: {answer.get('why', 'declined')}"
    amount = answer.get("amount", amount)
    message = ToolMessage(f"refunded {amount:.2f} for {order}", tool_call_id=tool_call_id)
    return Command(update={"messages": [message], "refunded": amount})


@tool
def escalate(reason: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
    """Hand the conversation over to a person."""
    message = ToolMessage(f"handed over: {reason}", tool_call_id=tool_call_id)
    return Command(update={"messages": [message], "escalated": True}, goto="hand_over")


TOOLS = [find_order, refund, escalate]


def build(model: Any, checkpointer: Any) -> Any:
    """The agent's graph: the model calls tools until it answers or hands over."""
    bound = model.bind_tools(TOOLS)

    def assistant(state: State) -> dict[str, Any]:
        return {"messages": [bound.invoke([SystemMessage(PROMPT), *state["messages"]])]}

    def hand_over(state: State) -> dict[str, Any]:
        return {"messages": [HumanMessage(f"(a colleague takes over from {state['customer']})")]}

    def after_tools(state: State) -> str:
        return END if state.get("escalated") else "assistant"

    graph = StateGraph(State)
    graph.add_node("assistant", assistant)
    graph.add_node("tools", ToolNode(TOOLS, handle_tool_errors=True))
    graph.add_node("hand_over", hand_over)
    graph.add_edge(START, "assistant")
    graph.add_conditional_edges("assistant", tools_condition)
    graph.add_conditional_edges("tools", after_tools, ["assistant", END])
    graph.add_edge("hand_over", END)
    return graph.compile(checkpointer=checkpointer)


def opened(database: str) -> AbstractContextManager[Any]:
    """The saver for a database: PostgreSQL for its URLs, else a file of SQLite."""
    if database.startswith("postgresql://"):
        return PostgresSaver.from_conn_string(database)
    return SqliteSaver.from_conn_string(database)


def talk(
    agent: Any,
    thread: str,
    given: Any,
    approve: Callable[[Any], Any],
    show: Callable[[str], Any],
) -> Any:
    """One turn: stream it, ask a person for each approval, and go on until the agent has answered.

    Args:
        given: the input of the run; ``None`` goes on with a thread that waits.
        approve: asks a person, and returns the answer.
        show: gets the tokens of the model, and a line for each result of a tool.
    """
    config: Any = {"configurable": {"thread_id": thread}, "tags": ["support"]}
    if given is None:
        given = _answered(agent, config, approve)
    while given is not None:
        for mode, chunk in agent.stream(given, config, stream_mode=["messages", "updates"]):
            if mode == "messages" and chunk[1]["langgraph_node"] == "assistant":
                show(chunk[0].content)
            elif mode == "updates" and "tools" in chunk:
                show(f"[{', '.join(_results(chunk['tools']))}]\n")
        show("\n")
        given = _answered(agent, config, approve)
    return agent.get_state(config).values


def _answered(agent: Any, config: Any, approve: Callable[[Any], Any]) -> Any:
    """The input that resumes a thread which waits for approval; ``None``: it waits for none."""
    waiting = agent.get_state(config).interrupts
    if not waiting:
        return None
    return Command(resume={each.id: approve(each.value) for each in waiting})


def _results(update: Any) -> list[str]:
    updates = update if isinstance(update, list) else [update]
    return [str(each.content) for part in updates for each in part.get("messages", ())]


def ask(value: Any) -> Any:
    """Ask the person at the terminal."""
    return {"approved": input(f"refund {value['amount']:.2f} for {value['refund']}? ") == "yes"}


def main(thread: str, customer: str = "ann") -> None:
    from langchain.chat_models import init_chat_model  # type: ignore[import-not-found]

    model = init_chat_model(os.environ["SUPPORT_MODEL"])
    with opened(os.environ.get("SUPPORT_DATABASE", "support.db")) as saver:
        saver.setup()
        agent = build(model, saver)
        talk(agent, thread, None, ask, sys.stdout.write)
        while text := input("> "):
            given = {"messages": [HumanMessage(text)], "customer": customer}
            talk(agent, thread, given, ask, sys.stdout.write)


if __name__ == "__main__":
    main(*sys.argv[1:])
