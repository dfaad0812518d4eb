"""Drawings, subgraphs and JSON schemas of graphs, as programs for LangGraph ask for them."""

from __future__ import annotations

import operator
from typing import Annotated, Any, NotRequired

import pydantic
import pytest
from typing_extensions import TypedDict

import graph
from tests.graph.compat.both import assert_same


class Keys(TypedDict):
    count: int
    note: NotRequired[str]
    items: Annotated[list[str], operator.add]


class Model(pydantic.BaseModel):
    count: int = 1


class Context(TypedDict):
    user: str


def declared(library: Any, state: Any = Keys, **options: Any) -> Any:
    made = library.StateGraph(state, **options)
    made.add_node("a", lambda state: {}).add_edge(library.START, "a")
    return made


@pytest.mark.parametrize("state", [Keys, Model], ids=lambda state: state.__name__)
def test_both_have_the_same_schemas(state: Any) -> None:
    def program(library: Any) -> Any:
        app = declared(library, state, output_schema=Model).compile()
        yield app.get_input_jsonschema()
        yield app.get_output_jsonschema()
        yield app.get_context_jsonschema()

    assert_same(program)


def test_both_find_the_same_subgraphs() -> None:
    def program(library: Any) -> Any:
        inner = library.StateGraph(Keys).add_node("deep", declared(library).compile())
        inner.add_edge(library.START, "deep")
        outer = library.StateGraph(Keys).add_node("sub", inner.compile())
        app = outer.add_edge(library.START, "sub").compile()
        yield [path for path, _ in app.get_subgraphs()]
        yield [path for path, _ in app.get_subgraphs(recurse=True)]
        yield [path for path, _ in app.get_subgraphs(namespace="sub|deep", recurse=True)]

    assert_same(program)


def test_a_graph_is_printed_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    made = declared(graph).add_node("b", lambda state: {})
    made.add_conditional_edges("a", lambda state: "b", {"next": "b", graph.END: graph.END})
    made.compile().get_graph().print_ascii()
    assert capsys.readouterr().out.splitlines() == [
        "__start__",
        "  --> a",
        "a",
        "  ..> __end__",
        "  ..> b (next)",
        "b",
        "  --> __end__",
        "__end__",
    ]


def test_a_png_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(graph.GraphError, match="mermaid-cli"):
        declared(graph).compile().get_graph().draw_mermaid_png()


def test_mermaid_without_styles() -> None:
    drawn = declared(graph).compile().get_graph().draw_mermaid(with_styles=False)
    assert drawn.startswith("graph TD;") and "classDef" not in drawn
