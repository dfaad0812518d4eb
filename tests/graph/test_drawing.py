"""The picture of a graph: what is drawn, and that any name gives Mermaid that parses."""

from __future__ import annotations

import operator
import re
from typing import Annotated, Any, Literal, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph import END, START, Command, StateGraph
from graph.build.drawing import DrawableEdge, DrawableGraph
from graph.types import INTERRUPT


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def work(state: State) -> dict[str, Any]:
    return {}


def again(state: State) -> Command[Literal["again", "__end__"]]:
    return Command(goto=END)


def body(graph: StateGraph, **options: Any) -> list[str]:
    """The lines between the header and the styles."""
    lines = DrawableGraph.of(graph.topology(), **options).draw_mermaid().splitlines()
    return [line.strip() for line in lines[lines.index("graph TD;") + 1 : -3]]


def edges(graph: StateGraph) -> list[str]:
    return [line for line in body(graph) if line.endswith(";")]


def approval() -> StateGraph:
    graph = StateGraph(State)
    for name in ("draft", "approve", "publish"):
        graph.add_node(name, work)
    graph.add_edge(START, "draft").add_edge("draft", "approve")
    return graph.add_conditional_edges(
        "approve", lambda state: "yes", {"yes": "publish", "not yet": "draft", END: END}
    )


def test_a_whole_picture() -> None:
    assert DrawableGraph.of(approval().topology()).draw_mermaid() == (
        "---\n"
        "config:\n"
        "  flowchart:\n"
        "    curve: linear\n"
        "---\n"
        "graph TD;\n"
        "\t__start__([<p>__start__</p>]):::first\n"
        "\tdraft(draft)\n"
        "\tapprove(approve)\n"
        "\tpublish(publish)\n"
        "\t__end__([<p>__end__</p>]):::last\n"
        "\t__start__ --> draft;\n"
        "\tapprove -.-> __end__;\n"
        "\tapprove -. &nbsp;not yet&nbsp; .-> draft;\n"
        "\tapprove -. &nbsp;yes&nbsp; .-> publish;\n"
        "\tdraft --> approve;\n"
        "\tpublish --> __end__;\n"
        "\tclassDef default fill:#f2f0ff,line-height:1.2\n"
        "\tclassDef first fill-opacity:0\n"
        "\tclassDef last fill:#bfb6fc\n"
    )


def fan(kind: Any) -> Any:
    graph = kind(State)
    for name in ("a", "b", "c", "d", "e_1"):
        graph.add_node(name, work)
    graph.add_edge(START, "a").add_edge(START, "b").add_edge(["a", "b"], "c")
    graph.add_conditional_edges("c", lambda state: 1, {"go on": "d", "stop now": END, "e_1": "e_1"})
    return graph.add_edge("d", END).add_edge("e_1", "d")


@pytest.mark.parametrize("make", [fan])
def test_the_same_text_as_langgraph(make: Any) -> None:
    from langgraph.graph import StateGraph as Theirs

    ours = make(StateGraph).compile().get_graph().draw_mermaid()
    assert ours == make(Theirs).compile().get_graph().draw_mermaid()


def test_joins_and_commands() -> None:
    graph = StateGraph(State).add_node("a", work).add_node("b", work).add_node(again)
    graph.add_edge(START, "a").add_edge(START, "b").add_edge(["a", "b"], "again")
    assert edges(graph) == [
        "__start__ --> a;",
        "__start__ --> b;",
        "a --> again;",
        "again -.-> __end__;",
        "b --> again;",
        "again -.-> again;",
    ]


def test_a_condition_without_known_ends_may_lead_to_every_node() -> None:
    graph = StateGraph(State).add_node("a", work).add_node("b", work).add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: "b")
    assert edges(graph) == ["__start__ --> a;", "a -.-> __end__;", "a -.-> b;", "b --> __end__;"]


def test_edges_between_the_same_nodes_are_one() -> None:
    graph = StateGraph(State).add_node("a", work, destinations={"b": "asked"}).add_node("b", work)
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: 1, {1: "b", 2: "b"})
    assert DrawableEdge("a", "b", True, "1, 2, asked") in DrawableGraph.of(graph.topology()).edges
    graph.add_edge("a", "b")
    assert DrawableEdge("a", "b") in DrawableGraph.of(graph.topology()).edges


def test_metadata_and_interrupts_are_shown() -> None:
    graph = StateGraph(State).add_node("a", work, defer=True, metadata={"owner": "<me>"})
    graph.add_edge(START, "a")
    assert body(graph, interrupt_before=["a"], interrupt_after=["a"])[1] == (
        'a("a<hr/><small><em>owner = #60;me#62;<br/>defer = True'
        '<br/>__interrupt = before,after</em></small>")'
    )


def nested() -> StateGraph:
    leaf = StateGraph(State).add_node("in", work).add_node("a", work)
    leaf.add_edge(START, "in").add_edge("in", "a")
    middle = StateGraph(State).add_node("first", work).add_node("leaf", leaf.compile())
    middle.add_edge(START, "first").add_edge(START, "leaf")
    graph = StateGraph(State).add_node("a", work).add_node("middle", middle.compile())
    return graph.add_edge(START, "a").add_edge("a", "middle").add_edge("middle", END)


def test_subgraphs_stay_closed_unless_asked() -> None:
    assert edges(nested()) == ["__start__ --> a;", "a --> middle;", "middle --> __end__;"]


def test_subgraphs_opened() -> None:
    assert body(nested(), xray=True) == [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a --> middle\\3afirst;",
        "a --> middle\\3aleaf\\3ain;",
        "middle\\3afirst --> __end__;",
        "middle\\3aleaf\\3aa --> __end__;",
        "subgraph middle",
        "middle\\3afirst(first)",
        'subgraph middle\\3aleaf["leaf"]',
        "middle\\3aleaf\\3ain(in)",
        "middle\\3aleaf\\3aa(a)",
        "middle\\3aleaf\\3ain --> middle\\3aleaf\\3aa;",
        "end",
        "end",
    ]


def test_subgraphs_opened_one_level() -> None:
    assert "middle\\3aleaf(leaf)" in body(nested(), xray=1)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("my node", "my\\20node(my node)"),
        ("a-b", 'a-b("a-b")'),
        ("a-", 'a\\2d("a-")'),
        ("end", '\\65nd("end")'),
        ("style-guide", '\\73tyle-guide("style-guide")'),
        ("ending", "ending(ending)"),
        ('say "hi" <b>', 'say\\20\\22hi\\22\\20\\3cb\\3e("say #34;hi#34; #60;b#62;")'),
        ("é", '\\e9("é")'),
        ("__x__", '__x__("__x__")'),
        ("`a`", '\\60a\\60("#96;a#96;")'),
    ],
)
def test_names_are_escaped(name: str, line: str) -> None:
    graph = StateGraph(State).add_node(name, work).add_edge(START, name)
    assert body(graph)[1] == line


NODE = re.compile(r'(?!(?:end|graph|style|class|click)\b)[\w\\-]+\((?:[A-Za-z0-9_ ]+|"[^"]*")\)')
EDGE = re.compile(
    r'[\w\\-]+ (?:-->|-\.->|-\. (?:&nbsp;[A-Za-z0-9_ ]+&nbsp;|"[^"]*") \.->) [\w\\-]+;'
)
texts = st.text(min_size=1, max_size=12).filter(
    lambda text: not {":", "|", "\0"} & set(text) and text not in {START, END, INTERRUPT}
)


@pytest.mark.slow
@given(st.lists(texts, unique=True, min_size=2, max_size=5), texts)
def test_any_names_and_labels_give_lines_of_the_known_forms(names: list[str], label: str) -> None:
    graph = StateGraph(State)
    for name in names:
        graph.add_node(name, work)
    graph.add_edge(START, names[0])
    graph.add_conditional_edges(names[0], lambda state: label, {label: names[1], 2: names[-1]})
    for name in names[2:]:
        graph.add_edge(names[1], name)
    lines = body(graph)
    drawn, rest = lines[1 : len(names) + 1], lines[len(names) + 2 :]
    assert all(NODE.fullmatch(line) for line in drawn), drawn
    assert all(EDGE.fullmatch(line) for line in rest), rest
    assert len({line.partition("(")[0] for line in drawn}) == len(names)
