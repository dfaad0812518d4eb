"""An application for the tests of the command line: it writes, asks, and may fail."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypedDict

from graph import END, START, StateGraph, interrupt
from graph.app import CompiledGraph


@dataclass
class Author:
    """A type that only this application knows."""

    name: str


class Article(TypedDict, total=False):
    topic: str
    rows: Annotated[list[str], operator.add]
    author: Author
    notes: dict[str, Any]


def write(state: Article) -> Article:
    if state["topic"] == "nothing":
        raise ValueError("nothing to\nwrite \x1b[2J about")
    return {"rows": ["first"], "author": Author("Ann"), "notes": {"n": 1}}


def ask(state: Article) -> Article:
    answer = interrupt({"publish?": state["topic"]})
    return {"rows": [answer], "notes": {"n": 1, "by": "Bob"}}


graph: Final = StateGraph(Article)
graph.add_sequence([write, ask])
graph.add_edge(START, "write")
graph.add_edge("ask", END)


def make() -> CompiledGraph:
    """A function that gives the graph."""
    return graph.compile()


number: Final = 7


def fails() -> None:
    raise RuntimeError("no such luck")
