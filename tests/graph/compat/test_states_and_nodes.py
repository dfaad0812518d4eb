"""States of a bare type, and dicts and Runnables as nodes and edges: the same with both."""

from __future__ import annotations

import operator
from typing import Annotated, Any

import pytest
from langchain_core.runnables import RunnableConfig, RunnableLambda, RunnablePassthrough

from tests.graph.compat.both import CONFIG, State, assert_same, compiled, line


def bare_list(library: Any) -> Any:
    app = compiled(
        library,
        {"a": lambda state: ["a"], "b": lambda state: [len(state)]},
        line(library, "a", "b"),
        Annotated[list, operator.add],
    )
    yield app.invoke(["i"], CONFIG)
    yield app.get_state(CONFIG).values
    yield list(app.stream(["j"], CONFIG, stream_mode=["values", "updates"]))


def bare_list_t(library: Any) -> Any:
    app = compiled(library, {"a": lambda state: [*state, "a"]}, line(library, "a"), list[str])
    yield app.invoke(["i"], CONFIG)
    yield app.get_state(CONFIG).values


def bare_int(library: Any) -> Any:
    app = compiled(library, {"a": lambda state: state + 1}, line(library, "a"), int)
    yield app.invoke(1, CONFIG)


def bare_int_add(library: Any) -> Any:
    app = compiled(
        library,
        {"a": lambda state: state, "b": lambda state: 1},
        line(library, "a", "b"),
        Annotated[int, operator.add],
    )
    yield app.invoke(1, CONFIG)
    yield app.get_state(CONFIG).values


def bare_str(library: Any) -> Any:
    app = compiled(library, {"a": lambda state: state + "x"}, line(library, "a"), str)
    yield app.invoke("q", CONFIG)


def bare_condition(library: Any) -> Any:
    declared = library.StateGraph(Annotated[list, operator.add])
    declared.add_node("a", lambda state: ["a"])
    declared.add_node("b", lambda state: ["b"])
    declared.add_edge(library.START, "a")
    declared.add_conditional_edges(
        "a", lambda state: "b" if len(state) < 3 else library.END, ["b", library.END]
    )
    declared.add_edge("b", "a")
    yield declared.compile().invoke([])


def bare_command(library: Any) -> Any:
    declared = library.StateGraph(Annotated[list, operator.add])
    declared.add_node(
        "a", lambda state: library.Command(update=["c"], goto="b"), destinations=("b",)
    )
    declared.add_node("b", lambda state: ["b"])
    declared.add_edge(library.START, "a")
    yield declared.compile().invoke(["x"])


def dict_node(library: Any) -> Any:
    app = compiled(
        library,
        {
            "a": {
                "text": lambda state: "x" + state["text"],
                "items": RunnableLambda(lambda state: ["q"]),
            }
        },
        line(library, "a"),
    )
    yield app.invoke({"text": "t"}, CONFIG)


def chain_node(library: Any) -> Any:
    app = compiled(
        library,
        {"a": RunnableLambda(lambda state: state["text"]) | (lambda t: {"text": t + "!"})},
        line(library, "a"),
    )
    yield app.invoke({"text": "t"}, CONFIG)


def runnable_named(library: Any) -> Any:
    declared = library.StateGraph(State)
    declared.add_node(RunnableLambda(lambda state: {"text": "n"}, name="named"))
    declared.add_edge(library.START, "named")
    yield declared.compile().invoke({})


def runnable_func_named(library: Any) -> Any:
    def foo(state: Any) -> Any:
        return {"text": "n"}

    declared = library.StateGraph(State)
    declared.add_node(RunnableLambda(foo))
    declared.add_edge(library.START, "foo")
    yield declared.compile().invoke({})


def async_runnable_sync(library: Any) -> Any:
    async def f(state: Any) -> Any:
        return {"text": "af"}

    app = compiled(library, {"a": RunnableLambda(f)}, line(library, "a"))
    yield app.invoke({})


def runnable_config(library: Any) -> Any:
    def f(state: Any, config: RunnableConfig) -> Any:
        return {"text": config["configurable"]["thread_id"]}

    app = compiled(library, {"a": RunnableLambda(f)}, line(library, "a"))
    yield app.invoke({}, CONFIG)


def passthrough_assign(library: Any) -> Any:
    app = compiled(
        library, {"a": RunnablePassthrough.assign(text=lambda state: "p")}, line(library, "a")
    )
    yield app.invoke({"items": ["1"]}, CONFIG)


def sequence_runnables(library: Any) -> Any:
    declared = library.StateGraph(State)
    declared.add_sequence(
        [
            ("x", RunnableLambda(lambda state: {"text": "1"})),
            ("y", lambda state: {"items": [state["text"]]}),
        ]
    )
    declared.add_edge(library.START, "x")
    yield declared.compile().invoke({})


PROGRAMS: Any = [
    bare_list,
    bare_list_t,
    bare_int,
    bare_int_add,
    bare_str,
    bare_condition,
    bare_command,
    dict_node,
    chain_node,
    runnable_named,
    runnable_func_named,
    async_runnable_sync,
    runnable_config,
    passthrough_assign,
    sequence_runnables,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_both_see_the_same(program: Any) -> None:
    assert_same(program)
