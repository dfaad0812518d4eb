"""Review: a person sees each tool call of an agent before it runs, and may edit or reject it.

The "model" reads from a script, so that the example runs anywhere; put yours in its place.
"""

from typing import Any

from graph import (
    END,
    START,
    Command,
    MemorySaver,
    MessagesState,
    RunnableConfig,
    StateGraph,
    interrupt,
)

SCRIPT = [
    {"name": "search", "args": {"text": "flights to Oslo"}},
    {"name": "book", "args": {"flight": "OS 1", "seats": 3}},
    {"name": "pay", "args": {"amount": 900}},
]


def model(state: MessagesState) -> dict[str, Any]:
    results = [message for message in state["messages"] if message["role"] == "tool"]
    call = SCRIPT[len(results)] if len(results) < len(SCRIPT) else None
    text = "" if call else f"Done: {results[0]['content']}, {results[1]['content']}."
    return {"messages": [{"role": "assistant", "content": text, "call": call}]}


def review(state: MessagesState) -> dict[str, Any] | Command[str]:
    """Interrupts and does nothing else, so it can run again from its top."""
    proposed = state["messages"][-1]
    answer = interrupt(proposed["call"])
    while answer["do"] not in ("approve", "edit", "reject"):
        answer = interrupt({"not understood": answer["do"], **proposed["call"]})
    if answer["do"] == "reject":
        refusal = {"role": "tool", "content": f"rejected: {answer['why']}"}
        return Command(goto="model", update={"messages": [refusal]})
    if answer["do"] == "edit":  # the same id: the message is replaced
        proposed = {**proposed, "call": {**proposed["call"], "args": answer["args"]}}
    return Command(goto="tool", update={"messages": [proposed]})


def tool(state: MessagesState) -> dict[str, Any]:
    call = state["messages"][-1]["call"]
    print(f"    ran: {call['name']} {call['args']}")
    return {"messages": [{"role": "tool", "content": f"{call['name']} ok"}]}


graph = StateGraph(MessagesState).add_node("model", model)
graph.add_node("review", review, destinations=["model", "tool"])
graph.add_node("tool", tool)
graph.add_edge(START, "model")
graph.add_conditional_edges(
    "model", lambda state: "review" if state["messages"][-1]["call"] else END, ["review", END]
)
graph.add_edge("tool", "model")
app = graph.compile(checkpointer=MemorySaver())

ANSWERS = [
    {"do": "approve"},
    {"do": "hmm"},
    {"do": "edit", "args": {"flight": "OS 1", "seats": 2}},
    {"do": "reject", "why": "too expensive"},
]
config: RunnableConfig = {"configurable": {"thread_id": "trip"}}
result = app.invoke({"messages": [{"role": "user", "content": "Get us to Oslo."}]}, config)
for answer in ANSWERS:
    print(f"{result['__interrupt__'][0].value}\n  answer: {answer}")
    result = app.invoke(Command(resume=answer), config)
print([message["content"] for message in result["messages"] if message["content"]])
