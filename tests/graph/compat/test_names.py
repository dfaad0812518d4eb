"""Names and forms of LangGraph's API that programs use: each program sees the same with both."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph._internal._config import DEFAULT_RECURSION_LIMIT

import graph
from graph import InMemorySaver, MemorySaver, StateGraph
from graph.configured import RECURSION_LIMIT
from tests.graph.compat.both import assert_same


class State(TypedDict, total=False):
    items: Annotated[list[str], operator.add]
    text: str


CONFIG: Any = {"configurable": {"thread_id": "t"}}


def one_node(library: Any, node: Any, saver: bool = True, **options: Any) -> Any:
    declared = library.StateGraph(State)
    declared.add_node("a", node)
    declared.add_edge(library.START, "a")
    return declared.compile(checkpointer=library.InMemorySaver() if saver else None, **options)


def deletes_threads(library: Any) -> Iterator[Any]:
    saver = library.InMemorySaver()
    declared = library.StateGraph(State).add_node("a", lambda state: {"text": "x"})
    app = declared.add_edge(library.START, "a").compile(checkpointer=saver)
    app.invoke({"text": "y"}, CONFIG)
    saver.delete_thread("unknown")
    yield app.get_state(CONFIG).values
    saver.delete_thread("t")
    yield app.get_state(CONFIG).values


async def deletes_threads_async(library: Any) -> AsyncIterator[Any]:
    saver = library.InMemorySaver()
    declared = library.StateGraph(State).add_node("a", lambda state: {"text": "x"})
    app = declared.add_edge(library.START, "a").compile(checkpointer=saver)
    await app.ainvoke({"text": "y"}, CONFIG)
    await saver.adelete_thread("unknown")
    yield (await app.aget_state(CONFIG)).values
    await saver.adelete_thread("t")
    yield (await app.aget_state(CONFIG)).values


def overwrites(library: Any) -> Iterator[Any]:
    app = one_node(library, lambda state: {"items": library.Overwrite(["new"])})
    yield app.invoke({"items": ["old"]}, CONFIG)
    yield app.get_state(CONFIG).values
    yield app.invoke({"items": ["more"]}, CONFIG)


def overwrites_beside_others(library: Any) -> Iterator[Any]:
    declared = library.StateGraph(State)
    for name in "abc":
        update: Any = library.Overwrite(["b"]) if name == "b" else [name]
        declared.add_node(name, lambda state, update=update: {"items": update})
        declared.add_edge(library.START, name)
    declared.add_node("d", lambda state: {"items": ["d"]}).add_edge(["a", "b", "c"], "d")
    yield declared.compile().invoke({"items": ["old"]})


def overwrites_twice(library: Any) -> Iterator[Any]:
    declared = library.StateGraph(State)
    for name in "ab":
        declared.add_node(name, lambda state: {"items": library.Overwrite(["x"])})
        declared.add_edge(library.START, name)
    yield declared.compile().invoke({"items": ["old"]})


def overwrites_in_json(library: Any) -> Iterator[Any]:
    app = one_node(library, lambda state: {"items": {"__overwrite__": ["new"]}})
    yield app.invoke({"items": ["old"]}, CONFIG)


def overwrites_by_edit(library: Any) -> Iterator[Any]:
    app = one_node(library, lambda state: {"items": ["a"]})
    app.invoke({"items": ["old"]}, CONFIG)
    app.update_state(CONFIG, {"items": library.Overwrite([])})
    yield app.get_state(CONFIG).values


def makes_a_runtime(library: Any) -> Iterator[Any]:
    runtime = library.Runtime(context={"user": "u"})
    yield runtime.context, runtime.store, runtime.previous, runtime.execution_info
    runtime.stream_writer("nothing listens")
    yield runtime.override(context={"user": "v"}).context
    yield runtime.merge(library.Runtime(context={"user": "w"})).context
    yield runtime.merge(library.Runtime()).context


def accepts_none(library: Any) -> Iterator[Any]:
    declared = library.StateGraph(State, None, input_schema=None, output_schema=None)
    declared.add_node(
        "a", lambda state: {"text": "x"}, cache_policy=None, error_handler=None, retry_policy=None
    )
    declared.add_edge(library.START, "a")
    yield declared.compile(None, cache=None, store=None, name=None, debug=False).invoke({})


def subscripts(library: Any) -> Iterator[Any]:
    declared = library.StateGraph[State](State)
    declared.add_node("a", lambda state: {"text": "x"}).add_edge(library.START, "a")
    yield declared.compile().invoke({})


def loops_long(library: Any) -> Iterator[Any]:
    class Count(TypedDict):
        n: int

    declared = library.StateGraph(Count)
    declared.add_node("a", lambda state: {"n": state["n"] + 1})
    declared.add_edge(library.START, "a")
    declared.add_conditional_edges("a", lambda state: "a" if state["n"] < 60 else library.END)
    app = declared.compile()
    yield app.invoke({"n": 0})
    yield app.invoke({"n": 0}, {"recursion_limit": 5})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_config_schema_is_the_context_schema() -> None:
    class Context(TypedDict):
        user: str

    declared = StateGraph(State, config_schema=Context)
    declared.add_node("a", lambda state, runtime: {"text": runtime.context["user"]})
    declared.add_edge(graph.START, "a")
    assert declared.compile().invoke({}, context={"user": "u"})["text"] == "u"


def test_the_recursion_limit_is_langgraphs() -> None:
    assert RECURSION_LIMIT == DEFAULT_RECURSION_LIMIT


PROGRAMS: Any = [
    deletes_threads,
    deletes_threads_async,
    overwrites,
    overwrites_beside_others,
    overwrites_twice,
    overwrites_in_json,
    overwrites_by_edit,
    makes_a_runtime,
    accepts_none,
    subscripts,
    loops_long,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_both_see_the_same(program: Any) -> None:
    assert_same(program)


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (lambda: StateGraph(State).compile(store=object()), "database"),
        (lambda: StateGraph(State).add_node("a", len, cache_policy=object()), "lru_cache"),
        (lambda: MemorySaver(serde=object()), "docs/how-to/types.md"),
    ],
)
def test_an_option_that_is_left_out_says_what_to_use_instead(call: Any, advice: str) -> None:
    with pytest.raises(graph.InvalidGraphError, match=advice):
        call()


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="checkpoint"):
        StateGraph(State).compile(checkpoint=InMemorySaver())


def test_a_name_that_is_left_out_says_what_to_use_instead() -> None:
    with pytest.raises(ImportError, match="no functional API; declare a StateGraph"):
        exec("from graph import entrypoint")
