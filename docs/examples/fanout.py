"""Map-reduce: one task per item, as many as there are items; then a join.

``Send`` runs a node with an input of its own. The tasks run in parallel threads, each result is
recorded as it comes, and they are merged in the order in which they were sent.
"""

import operator
import time
from typing import Annotated, Any, TypedDict

from graph import START, MemorySaver, RetryPolicy, RunnableConfig, Send, StateGraph

POEM = """\
The log remembers what was done,
each step a line, each line but one;
who goes astray may turn around
and still find all the steps he found."""


class Count(TypedDict):
    text: str
    found: Annotated[list[tuple[str, int]], operator.add]
    longest: str


attempts: dict[str, int] = {}


def fan_out(state: Count) -> list[Send]:
    return [Send("measure", line) for line in state["text"].splitlines()]


def measure(line: str) -> dict[str, Any]:
    attempts[line] = attempts.get(line, 0) + 1
    time.sleep(0.05)  # stands for something slow
    if "astray" in line and attempts[line] == 1:
        raise ConnectionError("the line is busy")
    return {"found": [(line, len(line.split()))]}


def reduce(state: Count) -> dict[str, Any]:
    return {"longest": max(state["found"], key=lambda pair: pair[1])[0]}


graph = StateGraph(Count)
graph.add_node("measure", measure, retry_policy=RetryPolicy(initial_interval=0.01, jitter=False))
graph.add_node("reduce", reduce)
graph.add_conditional_edges(START, fan_out, ["measure"])
graph.add_edge("measure", "reduce")
app = graph.compile(checkpointer=MemorySaver())

config: RunnableConfig = {"configurable": {"thread_id": "poem"}, "max_concurrency": 4}
begun = time.perf_counter()
result = app.invoke({"text": POEM}, config)
took = time.perf_counter() - begun

for line, words in result["found"]:
    print(f"{words:>3} words, {attempts[line]} attempt(s): {line}")
print(f"\nlongest: {result['longest']}")
print(f"{len(result['found'])} tasks of 0.05 s, one of them twice, in {took:.2f} s")
print(f"\n{app.get_graph().draw_mermaid()}")
