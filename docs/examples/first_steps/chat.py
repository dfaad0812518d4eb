"""A chat: one thread per conversation, whose messages add up, and their history.

The "model" answers from a table, so that the example runs anywhere; put yours in its place.
"""

from typing import Any

from graph import START, MemorySaver, MessagesState, RemoveMessage, RunnableConfig, StateGraph

ANSWERS = {
    "hello": "Hello! Ask me about opening hours or returns.",
    "hours": "We are open from 9 to 18 o'clock, Monday to Saturday.",
    "returns": "You can send anything back within 30 days.",
}


def answer(state: MessagesState) -> dict[str, Any]:
    question = state["messages"][-1]["content"].lower()
    found = (text for word, text in ANSWERS.items() if word in question)
    text = next(found, "I do not know. Shall I ask a colleague?")
    return {"messages": [{"role": "assistant", "content": text}]}


def thread(name: str) -> RunnableConfig:
    return {"configurable": {"thread_id": name}}


def show(title: str, messages: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    for message in messages:
        print(f"  {message['role']:>9}: {message['content']}")


graph = StateGraph(MessagesState)
graph.add_node("answer", answer)
graph.add_edge(START, "answer")
app = graph.compile(checkpointer=MemorySaver())

for who, question in (
    ("ann", "Hello"),
    ("bob", "What are your hours?"),
    ("ann", "How do returns work?"),
    ("ann", "Can you sing?"),
):
    # Each invoke adds to the thread's messages; a text is a message of the user.
    app.invoke({"messages": question}, thread(who))

show("Ann's conversation", app.get_state(thread("ann")).values["messages"])
show("Bob's conversation", app.get_state(thread("bob")).values["messages"])

# A message is replaced by writing one with its id, and removed by its id.
last_question = app.get_state(thread("ann")).values["messages"][-2]
app.update_state(thread("ann"), {"messages": [RemoveMessage(id=last_question["id"])]})
show("Ann, without her last question", app.get_state(thread("ann")).values["messages"])

print("\nAnn's history, newest first")
for snapshot in app.get_state_history(thread("ann"), limit=5):
    assert snapshot.metadata is not None
    source, count = snapshot.metadata["source"], len(snapshot.values["messages"])
    print(f"  step {snapshot.metadata['step']}  {source:<6}  {count} messages")
