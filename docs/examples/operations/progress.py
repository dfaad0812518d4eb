"""A long job: it reports progress, retries, is killed in the middle, and resumes.

The first process dies without a chance to clean up. The second one runs
the tasks that are not in the log.
"""

import operator
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, TypedDict

from graph import (
    END,
    START,
    CompiledGraph,
    RetryPolicy,
    RunnableConfig,
    Runtime,
    SqliteSaver,
    StateGraph,
    get_stream_writer,
)

JOB: RunnableConfig = {"configurable": {"thread_id": "import"}}


class Import(TypedDict, total=False):
    parts: int
    rows: Annotated[list[int], operator.add]


def load(state: Import, runtime: Runtime[None]) -> Import:
    """One part of the file: its rows are durable before the next part begins."""
    part, attempt = len(state["rows"]) + 1, runtime.execution_info.node_attempt
    get_stream_writer()(f"part {part} of {state['parts']}, attempt {attempt}")
    if part == 2 and attempt == 1:
        raise ConnectionError("the line is busy")
    if part == 3 and "--crash" in sys.argv:
        sys.stdout.flush()
        os._exit(1)  # as kill -9 would: no exception, no clean-up
    return {"rows": [part * 100]}


def build(path: str) -> CompiledGraph:
    retry = RetryPolicy(initial_interval=0.01, jitter=False)
    graph = StateGraph(Import)
    graph.add_node("load", load, retry_policy=retry, timeout=10)
    graph.add_edge(START, "load")
    graph.add_conditional_edges(
        "load", lambda state: "load" if len(state["rows"]) < state["parts"] else END, ["load", END]
    )
    return graph.compile(checkpointer=SqliteSaver(path))


def run(path: str, given: Import | None) -> None:
    for mode, chunk in build(path).stream(given, JOB, stream_mode=["custom", "updates"]):
        print(f"  {mode}: {chunk}")


if __name__ == "__main__":
    if "--crash" in sys.argv:
        run(sys.argv[-1], {"parts": 4})
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "import.db")
            print("The first process", flush=True)
            subprocess.run([sys.executable, __file__, "--crash", path], check=False)
            print("The second process")
            run(path, None)
            for entry in build(path).events(JOB):
                print(f"{entry.seq} {entry.kind} {entry.writes} {entry.data.get('failed', '')}")
