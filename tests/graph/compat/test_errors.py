"""What raises with LangGraph raises here, and the handlers written for it catch it."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Annotated, Any

import pydantic
import pytest
from typing_extensions import TypedDict

from tests.graph.compat.both import CONFIG, State, assert_same, compiled, line


def ex_pydantic(library: Any) -> Any:
    class M(pydantic.BaseModel):
        n: int

    app = compiled(library, {"a": lambda state: {"n": 1}}, line(library, "a"), M)
    yield app.invoke({"n": "x"}, CONFIG)


def ex_pydantic_node(library: Any) -> Any:
    class M(pydantic.BaseModel):
        n: int

    app = compiled(
        library, {"a": lambda state: {"n": "x"}, "b": lambda state: {}}, line(library, "a", "b"), M
    )
    yield app.invoke({"n": 1}, CONFIG)


def ex_pydantic_missing(library: Any) -> Any:
    class M(pydantic.BaseModel):
        n: int

    app = compiled(library, {"a": lambda state: {"n": 1}}, line(library, "a"), M)
    yield app.invoke({}, CONFIG)


def ex_dataclass_missing(library: Any) -> Any:
    @dataclasses.dataclass
    class D:
        n: int

    app = compiled(library, {"a": lambda state: {"n": 1}}, line(library, "a"), D)
    yield app.invoke({}, CONFIG)


def ex_context_pyd(library: Any) -> Any:
    class M(pydantic.BaseModel):
        n: int

    declared = library.StateGraph(State, context_schema=M)
    declared.add_node("a", lambda state: {})
    declared.add_edge(library.START, "a")
    yield declared.compile().invoke({"text": "1"}, context={"n": "x"})


def ex_context_dc(library: Any) -> Any:
    @dataclasses.dataclass
    class D:
        n: int

    declared = library.StateGraph(State, context_schema=D)
    declared.add_node("a", lambda state: {})
    declared.add_edge(library.START, "a")
    yield declared.compile().invoke({"text": "1"}, context={"m": "x"})


def ex_async_in_sync(library: Any) -> Any:
    async def f(state: Any) -> Any:
        return {}

    app = compiled(library, {"a": f}, line(library, "a"))
    yield app.invoke({}, CONFIG)


def ex_no_thread(library: Any) -> Any:
    app = compiled(library, {"a": lambda state: {}}, line(library, "a"))
    yield app.invoke({"text": "1"}, CONFIG)


def ex_bad_return(library: Any) -> Any:
    app = compiled(library, {"a": lambda state: 5}, line(library, "a"))
    yield app.invoke({"text": "1"}, CONFIG)


def ex_none_new(library: Any) -> Any:
    app = compiled(library, {"a": lambda state: {}}, line(library, "a"))
    yield app.invoke(None, CONFIG)


def ex_dup_node(library: Any) -> Any:
    declared = library.StateGraph(State)
    declared.add_node("a", lambda state: {})
    declared.add_node("a", lambda state: {})


def ex_unknown_edge(library: Any) -> Any:
    declared = library.StateGraph(State)
    declared.add_edge(library.START, "zz")
    declared.compile()


def ex_no_entry(library: Any) -> Any:
    declared = library.StateGraph(State)
    declared.add_node("a", lambda state: {})
    declared.compile()


def ex_cond_unknown(library: Any) -> Any:
    declared = library.StateGraph(State)
    declared.add_node("a", lambda state: {})
    declared.add_edge(library.START, "a")
    declared.add_conditional_edges("a", lambda state: "zz", ["a"])
    yield declared.compile().invoke({"text": "1"})


def ex_get_state_nosaver(library: Any) -> Any:
    app = compiled(library, {"a": lambda state: {}}, line(library, "a"), saver=False)
    yield app.get_state(CONFIG)


def ex_update_nosaver(library: Any) -> Any:
    app = compiled(library, {"a": lambda state: {}}, line(library, "a"), saver=False)
    yield app.update_state(CONFIG, {})


def ex_update_bad_node(library: Any) -> Any:
    app = compiled(library, {"a": lambda state: {}}, line(library, "a"))
    app.invoke({"text": "1"}, CONFIG)
    yield app.update_state(CONFIG, {"text": "2"}, as_node="zz")


def ex_interrupt_outside(library: Any) -> Any:
    yield library.interrupt("x")


def ex_resume_nosaver(library: Any) -> Any:
    app = compiled(
        library,
        {"a": lambda state: {"text": library.interrupt("q")}},
        line(library, "a"),
        saver=False,
    )
    yield app.invoke(library.Command(resume=1))


def ex_int_nosaver(library: Any) -> Any:
    app = compiled(
        library,
        {"a": lambda state: {"text": library.interrupt("q")}},
        line(library, "a"),
        saver=False,
    )
    yield app.invoke({"text": "1"}, CONFIG)


def ex_reducer_args(library: Any) -> Any:
    class Q(TypedDict):
        x: Annotated[list[Any], lambda a: a]

    library.StateGraph(Q)


def ex_interrupt_unknown(library: Any) -> Any:
    declared = library.StateGraph(State)
    declared.add_node("a", lambda state: {})
    declared.add_edge(library.START, "a")
    declared.compile(interrupt_before=["zz"])


def ex_bad_saver(library: Any) -> Any:
    declared = library.StateGraph(State)
    declared.add_node("a", lambda state: {})
    declared.add_edge(library.START, "a")
    declared.compile(checkpointer=object())


def ex_recursion0(library: Any) -> Any:
    app = compiled(library, {"a": lambda state: {}}, line(library, "a"))
    yield app.invoke({"text": "1"}, {**CONFIG, "recursion_limit": 0})


def ex_reserved(library: Any) -> Any:
    library.StateGraph(State).add_node("__start__", lambda state: {})


def ex_reserved2(library: Any) -> Any:
    library.StateGraph(State).add_node("a|b", lambda state: {})


def ex_edge_end(library: Any) -> Any:
    library.StateGraph(State).add_node("a", lambda state: {}).add_edge(library.END, "a")


def ex_add_node_type(library: Any) -> Any:
    library.StateGraph(State).add_node("a", 5)


def ex_timeout(library: Any) -> Any:

    async def f(state: Any) -> Any:
        await asyncio.sleep(2)

    declared = library.StateGraph(State).add_node("a", f, timeout=0.05).add_edge(library.START, "a")
    yield asyncio.run(declared.compile().ainvoke({"text": "1"}))


PROGRAMS: Any = [
    ex_pydantic,
    ex_pydantic_node,
    ex_pydantic_missing,
    ex_dataclass_missing,
    ex_context_pyd,
    ex_context_dc,
    ex_async_in_sync,
    ex_no_thread,
    ex_bad_return,
    ex_none_new,
    ex_dup_node,
    ex_unknown_edge,
    ex_no_entry,
    ex_cond_unknown,
    ex_get_state_nosaver,
    ex_update_nosaver,
    ex_update_bad_node,
    ex_interrupt_outside,
    ex_resume_nosaver,
    ex_int_nosaver,
    ex_reducer_args,
    ex_interrupt_unknown,
    ex_bad_saver,
    ex_recursion0,
    ex_reserved,
    ex_reserved2,
    ex_edge_end,
    ex_add_node_type,
    ex_timeout,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_both_see_the_same(program: Any) -> None:
    assert_same(program)
