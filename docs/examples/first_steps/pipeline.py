"""Crash and resume: tasks that finished before the crash do not run again.

The first process dies inside the second of three nodes, without a chance to clean up. The
second process resumes with ``invoke(None, config)``.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, TypedDict

from graph import CompiledGraph, RunnableConfig, SqliteSaver, StateGraph

ORDER: RunnableConfig = {"configurable": {"thread_id": "order-17"}}


class Order(TypedDict, total=False):
    item: str
    price: int
    paid: bool
    parcel: str


def look_up(state: Order) -> dict[str, Any]:
    print(f"  [{os.getpid()}] look_up: asking for the price of {state['item']}")
    return {"price": 42}


def charge(state: Order) -> dict[str, Any]:
    print(f"  [{os.getpid()}] charge: {state['price']} coins", flush=True)
    if "--crash" in sys.argv:
        os._exit(1)  # as a power cut would: no exception, no clean-up
    return {"paid": True}


def ship(state: Order) -> dict[str, Any]:
    print(f"  [{os.getpid()}] ship: {state['item']}")
    return {"parcel": "DE-0001"}


def build(path: Path) -> CompiledGraph:
    graph = StateGraph(Order)
    graph.add_sequence([look_up, charge, ship])
    graph.set_entry_point("look_up")
    return graph.compile(checkpointer=SqliteSaver(path))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "orders.db"
        print("The first process", flush=True)
        crashed = subprocess.run([sys.executable, __file__, "--crash", str(path)], check=False)
        print(f"  ended with exit code {crashed.returncode}")

        app = build(path)
        print(f"The log says: next is {app.get_state(ORDER).next}")
        print("The second process")
        print(f"  result: {app.invoke(None, ORDER)}")
        ran = [entry.node for entry in app.events(ORDER) if entry.kind == "output"]
        print(f"Nodes that finished, in order: {ran}")


if __name__ == "__main__":
    if "--crash" in sys.argv:
        build(Path(sys.argv[-1])).invoke({"item": "a lamp"}, ORDER)
    else:
        main()
