"""The edited text: 200 KB in one string, of which each step rewrites one per cent."""

from __future__ import annotations

from typing import Any, Final, TypedDict

from benchmarks.workloads.graph_api import GraphApi
from benchmarks.workloads.text import SEED, Writer

TEXT_BYTES: Final = 200_000
EDIT_BYTES: Final = TEXT_BYTES // 100


class TextState(TypedDict):
    """A text, and the number of edits so far."""

    text: str
    revision: int


def make_text(steps: int, seed: int = SEED + 5) -> tuple[str, list[tuple[int, str]]]:
    """A text and its edits, each a place and what is written over what is there."""
    writer = Writer(seed)
    text = writer.text(TEXT_BYTES)
    edits = [
        (writer.random.randrange(len(text) - EDIT_BYTES), writer.text(EDIT_BYTES)[:EDIT_BYTES])
        for _ in range(steps)
    ]
    return text, edits


def text_graph(api: GraphApi, edits: list[tuple[int, str]]) -> Any:
    """A single node, which runs again until it has made every edit."""

    def edit(state: TextState) -> dict[str, Any]:
        (at, new), text = edits[state["revision"]], state["text"]
        return {"text": text[:at] + new + text[at + len(new) :], "revision": state["revision"] + 1}

    def more(state: TextState) -> str:
        return "edit" if state["revision"] < len(edits) else api.end

    graph = api.state_graph(TextState)
    graph.add_node("edit", edit)
    graph.add_edge(api.start, "edit")
    graph.add_conditional_edges("edit", more, ["edit", api.end])
    return graph
