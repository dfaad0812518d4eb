"""The pipeline: three small nodes, one after the other, on many threads."""

from __future__ import annotations

from typing import Any, Final, TypedDict

from benchmarks.workloads.graph_api import GraphApi
from benchmarks.workloads.text import SEED, Writer

PIPELINE_THREADS: Final = 200
PIPELINE_SUPERSTEPS: Final = 3


class PipelineState(TypedDict):
    """A short text, and what the three nodes found out about it."""

    text: str
    words: int
    label: str
    summary: str


def pipeline_inputs(count: int = PIPELINE_THREADS, seed: int = SEED + 1) -> list[dict[str, Any]]:
    """Inputs of about 250 bytes, one per thread."""
    writer = Writer(seed)
    return [{"text": writer.text(200)} for _ in range(count)]


def pipeline_graph(api: GraphApi) -> Any:
    """measure -> classify -> summarise."""

    def measure(state: PipelineState) -> dict[str, Any]:
        return {"words": len(state["text"].split())}

    def classify(state: PipelineState) -> dict[str, Any]:
        return {"label": "long" if state["words"] > 40 else "short"}

    def summarise(state: PipelineState) -> dict[str, Any]:
        return {"summary": f"{state['label']}: {state['text'][:60]}"}

    graph = api.state_graph(PipelineState)
    graph.add_node("measure", measure)
    graph.add_node("classify", classify)
    graph.add_node("summarise", summarise)
    graph.add_edge(api.start, "measure")
    graph.add_edge("measure", "classify")
    graph.add_edge("classify", "summarise")
    graph.add_edge("summarise", api.end)
    return graph
