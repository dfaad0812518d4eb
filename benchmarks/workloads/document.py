"""The document: 200 KB by paragraph, and one run of many supersteps that edits one at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypedDict

from benchmarks.workloads.graph_api import GraphApi
from benchmarks.workloads.text import SEED, Writer

DOCUMENT_BYTES: Final = 200_000
DOCUMENT_STEPS: Final = 100
DOCUMENT_RUNS: Final = 5


def replace_paragraphs(document: dict[str, str], edits: dict[str, str]) -> dict[str, str]:
    """The reducer of a document: edited paragraphs replace the old ones."""
    return {**document, **edits}


class DocumentState(TypedDict):
    """A document by paragraph, and the number of edits so far."""

    paragraphs: Annotated[dict[str, str], replace_paragraphs]
    revision: int


@dataclass(frozen=True)
class Document:
    """The first version of a document, and its edits, one per superstep."""

    paragraphs: dict[str, str]
    edits: list[dict[str, str]] = field(repr=False)


def make_document(steps: int = DOCUMENT_STEPS, seed: int = SEED + 2) -> Document:
    """200 KB in paragraphs of about 500 bytes; each edit rewrites one paragraph."""
    writer = Writer(seed)
    paragraphs: dict[str, str] = {}
    size = 0
    while size < DOCUMENT_BYTES:
        text = writer.text(400)
        paragraphs[f"p{len(paragraphs):04}"] = text
        size += len(text)
    keys = list(paragraphs)
    return Document(
        paragraphs, [{writer.random.choice(keys): writer.text(400)} for _ in range(steps)]
    )


def document_graph(api: GraphApi, doc: Document) -> Any:
    """A single node, which runs again until it has made every edit."""

    def edit(state: DocumentState) -> dict[str, Any]:
        revision = state["revision"]
        return {"paragraphs": doc.edits[revision], "revision": revision + 1}

    def more(state: DocumentState) -> str:
        return "edit" if state["revision"] < len(doc.edits) else api.end

    graph = api.state_graph(DocumentState)
    graph.add_node("edit", edit)
    graph.add_edge(api.start, "edit")
    graph.add_conditional_edges("edit", more, ["edit", api.end])
    return graph
