"""The fan-out: many nodes side by side in one superstep."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypedDict

from benchmarks.workloads.graph_api import GraphApi
from benchmarks.workloads.text import SEED, Writer

FANOUT_WIDTH: Final = 20
FANOUT_RUNS: Final = 50


class FanoutState(TypedDict):
    """The findings of all workers about one topic."""

    topic: str
    findings: Annotated[list[dict[str, Any]], operator.add]


def fanout_findings(width: int = FANOUT_WIDTH, seed: int = SEED + 3) -> list[dict[str, Any]]:
    """One finding of about 150 bytes per worker."""
    writer = Writer(seed)
    return [
        {"worker": number, "score": round(writer.random.random(), 3), "text": writer.text(60)}
        for number in range(width)
    ]


def fanout_graph(api: GraphApi, findings: Sequence[dict[str, Any]]) -> Any:
    """All workers run in one superstep, side by side."""

    def worker(number: int) -> Callable[[FanoutState], dict[str, Any]]:
        return lambda state: {"findings": [findings[number]]}

    graph = api.state_graph(FanoutState)
    for number in range(len(findings)):
        graph.add_node(f"worker{number:02}", worker(number))
        graph.add_edge(api.start, f"worker{number:02}")
        graph.add_edge(f"worker{number:02}", api.end)
    return graph
