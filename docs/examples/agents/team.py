"""A team: a supervisor hands out tasks to two subgraphs.

The researcher keeps what it has read from one task to the next (``checkpointer=True``). The
buyer starts anew for each task, and asks a person. Both end with ``Command.PARENT``.
"""

import operator
from typing import Annotated, Any, TypedDict

from graph import END, START, Command, MemorySaver, RunnableConfig, StateGraph, interrupt


class Team(TypedDict, total=False):
    todo: list[str]
    task: str
    report: Annotated[list[str], operator.add]


class Research(TypedDict, total=False):
    task: str
    read: Annotated[list[str], operator.add]  # grows from task to task


class Purchase(TypedDict, total=False):
    task: str
    offer: str


def reported(line: str) -> Command[str]:
    return Command(graph=Command.PARENT, goto="supervisor", update={"report": [line]})


def read(state: Research) -> dict[str, Any]:
    return {"read": [state["task"].removeprefix("read about ")]}


def tell(state: Research) -> Command[str]:
    return reported(f"researcher: read {state['read'][-1]}; knows {', '.join(state['read'])}")


def find_offer(state: Purchase) -> Purchase:
    print(f"    (looking for an offer: {state['task']})")
    return {"offer": f"{state['task']} for {len(state['task'])} coins"}


def ask(state: Purchase) -> Command[str]:
    answer = interrupt(f"{state['offer']}?")
    return reported(f"buyer: {state['offer']}: {answer}")


def supervisor(state: Team) -> Command[str]:
    if not state["todo"]:
        return Command(goto=END)
    task, *rest = state["todo"]
    worker = "researcher" if task.startswith("read") else "buyer"
    return Command(goto=worker, update={"task": task, "todo": rest})


researcher = StateGraph(Research).add_sequence([read, tell]).set_entry_point("read")
buyer = StateGraph(Purchase).add_sequence([find_offer, ask]).set_entry_point("find_offer")
graph = StateGraph(Team)
graph.add_node("supervisor", supervisor, destinations=["researcher", "buyer", END])
graph.add_node("researcher", researcher.compile(checkpointer=True), destinations=["supervisor"])
graph.add_node("buyer", buyer.compile(), destinations=["supervisor"])
graph.add_edge(START, "supervisor")
app = graph.compile(checkpointer=MemorySaver())

config: RunnableConfig = {"configurable": {"thread_id": "team"}}
todo = ["read about bees", "buy a hive", "read about honey", "buy a jar"]
result = app.invoke({"todo": todo}, config)
while "__interrupt__" in result:
    print("asked:", result["__interrupt__"][0].value)
    result = app.invoke(Command(resume="yes"), config)
print("\n".join([*result["report"], f"logs: {', '.join(app.verify(config).namespaces[1:])}"]))
