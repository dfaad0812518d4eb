"""Time travel: go back to a checkpoint, try another way, and keep both.

Within a thread, going back is itself an event, so nothing is lost. A new thread can start from
another thread's checkpoint without copying it.
"""

from typing import Any, TypedDict

from graph import END, START, MemorySaver, RunnableConfig, StateGraph


class Trip(TypedDict, total=False):
    budget: int
    options: list[str]
    choice: str


PRICES = {"tent": 20, "hostel": 60, "hotel": 140}


def search(state: Trip) -> dict[str, Any]:
    return {"options": [name for name, price in PRICES.items() if price <= state["budget"]]}


def choose(state: Trip) -> dict[str, Any]:
    return {"choice": state["options"][-1]}


def thread(name: str, **more: str) -> RunnableConfig:
    return {"configurable": {"thread_id": name, **more}}


graph = StateGraph(Trip)
graph.add_sequence([search, choose])
graph.add_edge(START, "search")
graph.add_edge("choose", END)
app = graph.compile(checkpointer=MemorySaver())

print("The first way:", app.invoke({"budget": 80}, thread("trip")))

# Find the checkpoint at which `search` was about to run.
history = list(app.get_state_history(thread("trip")))
start = next(snapshot for snapshot in history if snapshot.next == ("search",))

# Run again from there, unchanged: the same thread continues from its past.
print("Run again:    ", app.invoke(None, start.config))

# Another way: edit the state at that checkpoint as if the input had been different.
config = app.update_state(start.config, {"budget": 200}, as_node=START)
print("Another way:  ", app.invoke(None, config))

# The same in a new thread: it begins as a fork of the checkpoint.
fork = thread("frugal trip", checkpoint_id=start.config["configurable"]["checkpoint_id"])
app.update_state(fork, {"budget": 30}, as_node=START)
print("In a new one: ", app.invoke(None, fork))

print("\nBoth threads as they stand now")
for name in ("trip", "frugal trip"):
    print(f"  {name:<12}", app.get_state(thread(name)).values["choice"])

print("\nThe whole story of 'trip'")
for entry in app.events(thread("trip")):
    print(f"  {entry.seq:>2} {entry.kind:<7} {entry.node or '':<10} {entry.writes}")
