"""Approval: one process interrupts and ends, another one lists what waits and resumes it.

The two share nothing but the file. The log says afterwards who decided what, and when.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, TypedDict

from graph import Command, CompiledGraph, RunnableConfig, SqliteSaver, StateGraph, interrupt


class Order(TypedDict, total=False):
    item: str
    price: int
    decision: dict[str, Any]
    parcel: str


def look_up(state: Order) -> Order:
    return {"price": len(state["item"]) * 10}


def approve(state: Order) -> Order:
    # Runs again from its top when it is resumed: so it does nothing before interrupt().
    decision = interrupt({"buy": state["item"], "for": state["price"]})
    return {"decision": decision}


def ship(state: Order) -> Order:
    return {"parcel": "sent" if state["decision"]["yes"] else "none"}


def build(path: str) -> CompiledGraph:
    graph = StateGraph(Order)
    graph.add_sequence([look_up, approve, ship])
    graph.set_entry_point("look_up")
    return graph.compile(checkpointer=SqliteSaver(path))


def thread(name: str) -> RunnableConfig:
    return {"configurable": {"thread_id": name}}


def answer(path: str, asked_by: str) -> None:
    """The second process: knows the file, and nothing else of the first one."""
    app = build(path)
    print(f"  the same process: {os.getpid() == int(asked_by)}")
    for info in SqliteSaver(path).store.threads(status="waiting"):
        for question in app.get_state(thread(info.thread_id)).interrupts:
            decision = {"yes": question.value["for"] < 100, "by": "Ann"}
            result = app.invoke(Command(resume=decision), thread(info.thread_id))
            print(f"  {question.value} -> {decision}: parcel {result['parcel']}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        answer(*sys.argv[1:])
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "orders.db")
            for name, item in {"order-1": "a lamp", "order-2": "a grand piano"}.items():
                asked = build(path).invoke({"item": item}, thread(name))["__interrupt__"]
                print(f"{name} asks: {asked[0].value}")
            print("Some days later", flush=True)
            subprocess.run([sys.executable, __file__, path, str(os.getpid())], check=True)
            kinds = [entry.node or entry.kind for entry in build(path).events(thread("order-1"))]
            print(f"The log of order-1: {kinds}")
