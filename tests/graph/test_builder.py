"""What may be declared, what is read from functions, and which graphs are refused."""

from __future__ import annotations

import functools
import json
import operator
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graph.types
from graph import END, START, InvalidGraphError, MemorySaver, RetryPolicy, StateGraph
from graph.build.callables import may_route
from graph.build.topology import Join, Topology
from graph.types import Command, Send


class State(TypedDict):
    log: Annotated[list[str], operator.add]
    name: str


class Private(TypedDict):
    name: str
    secret: str


@dataclass
class Item:
    path: str


class Form(pydantic.BaseModel):
    answer: str = ""


def work(state: State) -> dict[str, Any]:
    return {}


def other(state: State) -> dict[str, Any]:
    return {}


def declared(*names: str) -> StateGraph:
    """Nodes in a row, from START."""
    graph = StateGraph(State)
    graph.add_sequence([(name, work) for name in names])
    return graph.set_entry_point(names[0])


# --- nodes --------------------------------------------------------------------------------


def test_methods_return_the_graph() -> None:
    topology = (
        StateGraph(State)
        .add_node("a", work)
        .add_node(other)
        .set_entry_point("a")
        .add_edge("a", "other")
        .add_edge("a", "other")
        .set_finish_point("other")
        .topology()
    )
    assert list(topology.nodes) == ["a", "other"]
    assert topology.edges == {START: ("a",), "a": ("other",), "other": (END,)}


class Tool:
    def __call__(self, state: Private, *, config: Any) -> dict[str, Any]:
        return {}

    def method(self, item: Item, writer: Any, size: int = 1) -> None: ...

    async def later(self, state: State) -> None: ...

    def plain(self, state: Any) -> Any:
        return {"name": str(self)}


def test_what_can_be_a_node() -> None:
    graph = StateGraph(State)
    graph.add_node("lambda", lambda state: {})
    graph.add_node("partial", functools.partial(Tool().method, size=3))
    graph.add_node("builtin", print)
    graph.add_node(Tool())
    graph.add_node(Tool().method)
    graph.add_node(Tool().later)
    graph.add_node("form", lambda state: None, input_schema=Form)
    nodes = graph._nodes
    assert list(nodes) == ["lambda", "partial", "builtin", "Tool", "method", "later", "form"]
    assert {name: set(node.accepts) for name, node in nodes.items() if node.accepts} == {
        "partial": {"writer"},
        "Tool": {"config"},
        "method": {"writer"},
    }
    assert {name: node.schema.cls for name, node in nodes.items()} == {
        "lambda": State,
        "partial": Item,
        "builtin": State,
        "Tool": Private,
        "method": Item,
        "later": State,
        "form": Form,
    }
    assert [node.name for node in nodes.values() if node.is_async] == ["later"]


def test_a_bound_config_is_left_alone() -> None:
    graph = StateGraph(State).add_node("a", functools.partial(Tool().__call__, config={"mine": 1}))
    assert graph._nodes["a"].accepts == frozenset()


def test_keys_of_a_nodes_own_schema_become_channels() -> None:
    graph = declared("a").add_node("tool", Tool()).add_edge("a", "tool")
    assert list(graph.topology().channels) == ["log", "name", "secret"]


def test_input_and_output_schemas_by_their_older_names() -> None:
    topology = StateGraph(State, input=Private, output=Form).add_node("a", work)
    topology.add_edge(START, "a")
    found = topology.topology()
    assert (found.input.cls, found.output.cls) == (Private, Form)
    assert [schema.cls for schema in found.schemas()] == [State, Private, Form]


def test_the_topology_reads_and_starts_all_channels() -> None:
    topology = StateGraph(State, input_schema=Private).add_node("a", work).add_edge(START, "a")
    found = topology.topology()
    assert found.initial_values() == {"log": []}
    assert found.to_writes({"secret": "x"}) == [("secret", "x")]


def test_a_compiled_graph_is_a_node() -> None:
    inner = declared("x").compile(name="inner")
    graph = StateGraph(State).add_node(inner).add_node("again", inner)
    assert list(graph._nodes) == ["inner", "again"]
    assert graph._nodes["again"].action is inner


def test_what_has_invoke_is_called_by_it() -> None:
    class Runnable:
        name = "runner"

        def invoke(self, state: Any, config: Any = None) -> dict[str, Any]:
            return {"name": "ran"}

    graph = StateGraph(State).add_node(Runnable()).add_edge(START, "runner")
    assert graph._nodes["runner"].accepts == {"config"}
    assert graph.compile().invoke({})["name"] == "ran"


def test_retry_policies_one_or_several() -> None:
    one, two = RetryPolicy(), RetryPolicy(max_attempts=9)
    graph = StateGraph(State)
    graph.add_node("a", work, retry_policy=one).add_node("b", work, retry=[one, two])
    assert (graph._nodes["a"].retry, graph._nodes["b"].retry) == ((one,), (one, two))
    with pytest.raises(InvalidGraphError, match="retry policy"):
        graph.add_node("c", work, retry_policy=3)  # type: ignore[arg-type]


def by_command(state: State) -> Command[Literal["b", "__end__"]]:
    return Command(goto="b")


def by_union(state: State) -> Command[Literal["b"]] | dict[str, Any]:
    return Command(goto="b")


def test_where_a_command_may_go() -> None:
    graph = StateGraph(State)
    graph.add_node(by_command).add_node(by_union)
    graph.add_node("named", by_command, destinations=["c"])
    graph.add_node("labelled", work, destinations={"b": "as asked"})
    assert {name: node.ends for name, node in graph._nodes.items()} == {
        "by_command": ("b", END),
        "by_union": ("b",),
        "named": ("c",),
        "labelled": ("b",),
    }
    assert graph._nodes["labelled"].labels == {"b": "as asked"}


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (lambda g: g.add_node(lambda state: {}), "needs a name"),
        (lambda g: g.add_node("", work), "needs a name"),
        (lambda g: g.add_node("a"), "has no action"),
        (lambda g: g.add_node(work, work), "the name must be a string"),
        (lambda g: g.add_node("a", "b"), "must be a callable"),
        (lambda g: g.add_node("a", work).add_node("a", other), "a node 'a' exists already"),
        (lambda g: g.add_node(START, work), "'__start__' is reserved"),
        (lambda g: g.add_node(END, work), "'__end__' is reserved"),
        (lambda g: g.add_node("__interrupt__", work), "reserved"),
        (lambda g: g.add_node("a|b", work), r"'a\|b' must not contain '\|'"),
        (lambda g: g.add_node("a:b", work), "'a:b' must not contain ':'"),
        (lambda g: g.add_node("a", lambda: {}), "node 'a' takes no argument"),
        (lambda g: g.add_node("a", lambda s, store: {}), "'store' that gets no value"),
        (lambda g: g.add_node("a", work, input_schema=int), "cannot declare a state"),
        (lambda g: StateGraph({"log": list}), "cannot declare a state"),
        (lambda g: g.add_edge(END, "a"), "END cannot be the start"),
        (lambda g: g.add_edge("a", START), "START cannot be the end"),
        (lambda g: g.add_edge([], "a"), "no source"),
        (lambda g: g.add_edge([START, "a"], "b"), "an edge cannot wait for START"),
        (lambda g: g.add_conditional_edges(END, work), "END cannot have conditional edges"),
        (lambda g: g.add_conditional_edges("a", 3), "must be a callable"),
        (lambda g: g.add_sequence([]), "at least one node"),
    ],
)
def test_declarations_that_are_refused_at_once(
    add: Callable[[StateGraph], Any], message: str
) -> None:
    with pytest.raises(InvalidGraphError, match=message):
        add(StateGraph(State))


# --- channels -----------------------------------------------------------------------------


class Elsewhere(TypedDict):
    log: Annotated[list[str], operator.concat]


class Plain(TypedDict):
    log: list[str]


def test_two_reducers_for_one_key_are_refused() -> None:
    with pytest.raises(InvalidGraphError, match=r"'log' has two reducers.*operator.add.*Elsewhere"):
        StateGraph(State, input_schema=Elsewhere)
    with pytest.raises(InvalidGraphError, match="'log' has two reducers"):
        StateGraph(Plain, input_schema=State)


def test_a_schema_need_not_repeat_a_reducer() -> None:
    graph = StateGraph(State, input_schema=Plain, output_schema=Plain)
    assert graph._channels["log"].reducer is operator.add


# --- edges and branches -------------------------------------------------------------------


def test_a_list_of_sources_is_a_join() -> None:
    graph = declared("a", "b", "c", "d").add_edge(["a", "b", "a"], "d").add_edge(["a", "b"], "d")
    graph.add_edge(["a"], "c")
    topology = graph.topology()
    assert topology.joins == (Join(("a", "b"), "d"),)
    assert topology.edges["a"] == ("b", "c")


def choose(state: State) -> Literal["b", "__end__"]:
    return "b"


def look(item: Item, config: Any) -> str:
    return "b"


def test_ends_of_conditional_edges() -> None:
    graph = declared("a", "b")
    graph.add_conditional_edges("a", choose)
    graph.add_conditional_edges("a", lambda state: True, {True: "b", False: END})
    graph.add_conditional_edges("a", lambda state: "b", ["b", END])
    graph.add_conditional_edges("a", look)
    graph.set_conditional_entry_point(choose)
    branches = graph.topology().branches
    assert [(branch.name, branch.ends) for branch in branches["a"]] == [
        ("choose", {"b": "b", END: END}),
        ("condition", {True: "b", False: END}),
        ("condition_2", {"b": "b", END: END}),
        ("look", None),
    ]
    assert branches["a"][3].accepts == {"config"}
    assert branches["a"][3].schema is not None
    assert branches["a"][3].schema.cls is Item
    assert branches[START][0].name == "choose"
    with pytest.raises(InvalidGraphError, match="by 'choose' already"):
        graph.add_conditional_edges("a", choose)


def test_what_is_declared_later_changes_no_topology() -> None:
    graph = declared("a", "b")
    before = graph.topology()
    graph.add_edge("b", END).add_node("c", work).add_edge("b", "c").add_edge(["a", "b"], "c")
    assert (list(before.nodes), before.joins, "b" in before.edges) == (["a", "b"], (), False)


# --- names that are checked ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (lambda g: g.add_edge("serch", "draft"), r"starts at 'serch'.*did you mean 'search'\?"),
        (lambda g: g.add_edge("search", "drafts"), "'search' goes to 'drafts'.*mean 'draft'"),
        (
            lambda g: g.add_edge("search", "xyz"),
            r"which is not a node; call add_node\('xyz', …\) first",
        ),
        (lambda g: g.add_edge(["search", "drift"], END), "waits for 'drift'.*mean 'draft'"),
        (lambda g: g.add_edge(["search", "draft"], "sarch"), "goes to 'sarch'"),
        (lambda g: g.add_conditional_edges("drafs", choose, [END]), "start at 'drafs'"),
        (lambda g: g.add_conditional_edges("draft", choose, ["serch"]), "'choose' after 'draft'"),
        (lambda g: g.add_conditional_edges("draft", choose), "leads to 'b'"),
        (lambda g: g.add_node("c", by_command), "a Command of 'c' goes to 'b'"),
        (lambda g: g.add_node("c", work, destinations="serch"), "a Command of 'c' goes to 'serch'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    add: Callable[[StateGraph], Any], message: str
) -> None:
    graph = declared("search", "draft")
    add(graph)
    with pytest.raises(InvalidGraphError, match=message):
        graph.topology()


def test_a_graph_without_entry_is_refused() -> None:
    with pytest.raises(InvalidGraphError, match=r"no entry point; add_edge\(START"):
        StateGraph(State).add_node("a", work).topology()


@pytest.mark.parametrize("argument", ["interrupt_before", "interrupt_after"])
def test_interrupts(argument: str) -> None:
    graph = declared("search", "draft")

    def stops(names: Any) -> list[tuple[str, ...]]:
        app = graph.compile(MemorySaver(), **{argument: names})
        config: Any = {"configurable": {"thread_id": "1"}}
        app.invoke({"log": []}, config)
        found = []
        while following := app.get_state(config).next:
            found.append(following)
            app.invoke(None, config)
        return found

    everywhere = [("search",), ("draft",)] if argument == "interrupt_before" else [("draft",)]
    assert stops("*") == everywhere
    one = "draft" if argument == "interrupt_before" else "search"
    assert stops(one) == stops([one]) == [("draft",)]
    assert stops(None) == stops([]) == []
    with pytest.raises(InvalidGraphError, match=f"{argument} names 'drat'.*mean 'draft'"):
        stops(["drat"])


# --- nodes that nothing leads to ----------------------------------------------------------


def with_orphan(first: Any = work, orphan: Any = work, **options: Any) -> StateGraph:
    return declared("a").add_node("b", first, **options).add_edge("a", "b").add_node("o", orphan)


def test_a_node_that_nothing_leads_to_is_refused() -> None:
    with pytest.warns(UserWarning, match=r"no edge leads to 'o'.*destinations="):
        with_orphan().topology()


def test_nodes_that_lead_only_to_each_other_are_refused() -> None:
    graph = with_orphan().add_node("p", work).add_edge("o", "p").add_edge("p", "o")
    with pytest.warns(UserWarning, match="no edge leads to 'o', 'p'"):
        graph.topology()


@pytest.mark.parametrize(
    "lead_to",
    [
        lambda g: g.add_edge("a", "o"),
        lambda g: g.add_edge(["a", "b"], "o"),
        lambda g: g.add_conditional_edges("b", lambda state: 1, {1: "o"}),
        lambda g: g.add_conditional_edges("b", lambda state: "anything"),
        lambda g: g.add_conditional_edges("b", send_to_o, [END]),
        lambda g: g.add_node("c", work, destinations=["o"]).add_edge("b", "c"),
    ],
)
def test_every_way_to_a_node_counts(lead_to: Callable[[StateGraph], Any]) -> None:
    graph = with_orphan()
    lead_to(graph)
    assert isinstance(graph.topology(), Topology)


def send_to_o(state: State) -> Any:
    return [Send("o", state)]


def command_by_helper(state: Any) -> Any:
    return helper(state)


def helper(state: Any) -> Any:
    return graph.types.Command(goto="o")


def command_by_import(state: Any) -> Any:
    from graph.types import Command as Imported

    return Imported(goto="o")


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class Router:
    handlers: tuple[Any, ...] = (helper,)

    def __init__(self) -> None:
        self.go = helper

    def __call__(self, state: Any) -> Any:
        return self.inner(state)

    def inner(self, state: Any) -> Any:
        return self.go(state)

    def by_table(self, state: Any) -> Any:
        return self.handlers[0](state)


ROUTER = Router()


def command_by_object(state: Any) -> Any:
    return ROUTER.inner(state)


def bare(state: Any) -> Command[str]:
    raise AssertionError


@pytest.mark.parametrize(
    "action",
    [
        command_by_helper,
        command_by_import,
        command_by_object,
        bare,
        decorated(helper),
        functools.lru_cache(helper),
        functools.partial(helper),
        lambda state: Command(goto="o"),
        lambda state: [Command(goto=name) for name in "o"],
        Router(),
        Router().by_table,
        print,
    ],
)
def test_no_node_is_called_unreachable_where_code_might_go_there(action: Any) -> None:
    assert may_route(action)
    with_orphan(action).topology()
    with_orphan(orphan=action).topology()


@pytest.mark.parametrize(
    "action",
    [
        work,
        lambda state: {"name": "x"},
        lambda state: json.loads(json.dumps(state)),
        decorated(work),
        functools.partial(work),
        Tool().plain,
        Tool(),
    ],
)
def test_code_that_only_updates_cannot_go_anywhere(action: Any) -> None:
    assert not may_route(action)
    with pytest.warns(UserWarning, match="no edge leads to 'o'"):
        with_orphan(action).topology()


def test_a_command_with_declared_ends_goes_nowhere_else() -> None:
    graph = with_orphan(by_union)
    with pytest.warns(UserWarning, match="no edge leads to 'o'"):
        graph.topology()


names = st.text(string.ascii_lowercase, min_size=1, max_size=3)


@pytest.mark.slow
@given(st.lists(names, unique=True, min_size=1, max_size=6), st.data())
def test_exactly_the_nodes_that_nothing_leads_to_are_refused(
    nodes: list[str], data: st.DataObject
) -> None:
    any_node = st.sampled_from(nodes)
    pairs = data.draw(st.lists(st.tuples(any_node, any_node)))
    graph = StateGraph(State)
    for name in nodes:
        graph.add_node(name, work)
    graph.add_edge(START, nodes[0])
    for source, target in pairs:
        graph.add_edge(source, target)
    reached = {nodes[0]}
    for _ in nodes:
        reached |= {target for source, target in pairs if source in reached}
    lost = [name for name in nodes if name not in reached]
    if not lost:
        assert list(graph.topology().nodes) == nodes
        return
    with pytest.warns(UserWarning, match=f"^no edge leads to {', '.join(map(repr, lost))};"):
        graph.topology()
