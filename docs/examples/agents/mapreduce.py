"""Map-reduce: one task per item; a reducer merges the results.

``Send`` runs a node with an input of its own. The tasks run in parallel threads, and each result is
recorded as it comes. Results are merged in the order in which the tasks were sent, so the order of
finishing does not matter.
"""

import random
import time
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from graph import START, MemorySaver, RunnableConfig, Send, StateGraph

POEM = """\
The log remembers what was done,
each step a line, and all but one;
who goes astray may turn around
and still find all the steps he found."""


def add_up(old: Mapping[str, list[int]], new: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """A reducer: combines the old value with an update."""
    return {word: [*old.get(word, []), *new.get(word, [])] for word in [*old, *new]}


class Index(TypedDict, total=False):
    text: str
    lines: Annotated[dict[str, list[int]], add_up]
    repeated: dict[str, list[int]]


def split(state: Index) -> list[Send]:
    lines = state["text"].splitlines()
    return [Send("look_at", {"number": n, "line": line}) for n, line in enumerate(lines, 1)]


def look_at(item: dict[str, Any]) -> Index:
    time.sleep(random.uniform(0.01, 0.1))  # stands for something slow
    words = item["line"].replace(",", "").strip(";.").lower().split()
    return {"lines": {word: [item["number"]] for word in words}}


def collect(state: Index) -> Index:
    return {"repeated": {word: at for word, at in state["lines"].items() if len(at) > 1}}


graph = StateGraph(Index)
graph.add_node("look_at", look_at)
graph.add_node("collect", collect)
graph.add_conditional_edges(START, split, ["look_at"])
graph.add_edge("look_at", "collect")  # runs once, when all tasks are done
app = graph.compile(checkpointer=MemorySaver())

config: RunnableConfig = {"configurable": {"thread_id": "poem"}, "max_concurrency": 4}
result = app.invoke({"text": POEM}, config)
for word, numbers in sorted(result["repeated"].items()):
    print(f"{word:<4} in lines {numbers}")

outputs = [entry for entry in app.events(config) if entry.kind == "output"]
print(f"{len(outputs)} tasks: {[entry.node for entry in outputs]}")
print(f"\n{app.get_graph().draw_mermaid()}")
