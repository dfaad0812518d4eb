"""A walk through time travel, in cells: run them one by one in an editor, or all at once.

Editors and Jupyter (with jupytext) show each ``# %%`` as a cell of a notebook.
"""

# %% A graph of two steps: plan a trip, and book it.
import operator
from typing import Annotated, Any, TypedDict

from graph import MemorySaver, RunnableConfig, StateGraph


class Trip(TypedDict, total=False):
    city: str
    budget: int
    done: Annotated[list[str], operator.add]


def plan(state: Trip) -> dict[str, Any]:
    return {"done": [f"planned {state['city']} for {state['budget']}"]}


def book(state: Trip) -> dict[str, Any]:
    return {"done": ["booked a " + ("hotel" if state["budget"] > 500 else "hostel")]}


app = StateGraph(Trip).add_sequence([plan, book]).set_entry_point("plan").compile(MemorySaver())
trip: RunnableConfig = {"configurable": {"thread_id": "trip"}}
print(app.invoke({"city": "Rome", "budget": 300}, trip)["done"])

# %% Every superstep left a checkpoint. The newest comes first.
for checkpoint in app.get_state_history(trip):
    print("next:", checkpoint.next, checkpoint.values["done"])

# %% What was the state before the booking?
before = next(each for each in app.get_state_history(trip) if each.next == ("book",))
print(before.values)

# %% Go back there, with more money. The first way stays in the history.
richer = app.update_state(before.config, {"budget": 900})
print(app.invoke(None, richer)["done"])

# %% The thread now continues the second way; the first one can still be read by its checkpoint.
print(app.get_state(trip).values["budget"], app.get_state(before.config).values["budget"])

# %% Start another thread from the same moment. It shares the past, and copies nothing.
elsewhere = {**before.config["configurable"], "thread_id": "trip-of-a-friend"}
print(app.invoke(None, {"configurable": elsewhere})["done"])

# %% The log tells all of it: the run, the fork, the edit, the second run.
for entry in app.events(trip):
    print(entry.seq, entry.kind, entry.node, entry.writes)
