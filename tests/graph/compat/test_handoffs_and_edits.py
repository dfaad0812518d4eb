"""Handoffs, edits as inputs and copies, and resuming at static breakpoints: the same with both."""

from __future__ import annotations

from typing import Any

import pytest

from tests.graph.compat.both import CONFIG, State, assert_same, compiled, line


def handoff(library: Any) -> Any:
    inner = library.StateGraph(State)
    inner.add_node(
        "i",
        lambda state: library.Command(
            graph=library.Command.PARENT, goto="other", update={"text": "h"}
        ),
    )
    inner.add_edge(library.START, "i")
    declared = library.StateGraph(State)
    declared.add_node("one", inner.compile())
    declared.add_node("other", lambda state: {"items": ["o"]})
    declared.add_edge(library.START, "one")
    yield declared.compile(checkpointer=library.InMemorySaver()).invoke({"text": "q"}, CONFIG)


def handoff_fn(library: Any) -> Any:
    inner = library.StateGraph(State)
    inner.add_node(
        "i",
        lambda state: library.Command(
            graph=library.Command.PARENT, goto="other", update={"text": "h"}
        ),
    )
    inner.add_edge(library.START, "i")
    ig = inner.compile()

    def call(state: Any) -> Any:
        return ig.invoke(state)

    declared = library.StateGraph(State)
    declared.add_node("one", call)
    declared.add_node("other", lambda state: {"items": ["o"]})
    declared.add_edge(library.START, "one")
    yield declared.compile().invoke({"text": "q"})


def swarm(library: Any) -> Any:
    def agent(name: str, other: str) -> Any:
        inner = library.StateGraph(State)

        def n(state: Any) -> Any:
            if len(state.get("items", [])) < 3:
                return library.Command(
                    graph=library.Command.PARENT, goto=other, update={"items": [name]}
                )
            return {"text": "done " + name}

        inner.add_node("n", n)
        inner.add_edge(library.START, "n")
        return inner.compile()

    declared = library.StateGraph(State)
    declared.add_node("x", agent("x", "y"))
    declared.add_node("y", agent("y", "x"))
    declared.add_edge(library.START, "x")
    yield declared.compile().invoke({"text": ""})


def us_copy(library: Any) -> Any:
    app = compiled(
        library,
        {"a": lambda state: {"items": ["a"]}, "b": lambda state: {"items": ["b"]}},
        line(library, "a", "b"),
    )
    app.invoke({"text": "1"}, CONFIG)
    h = list(app.get_state_history(CONFIG))
    at = next(x for x in h if x.next == ("b",))
    c = app.update_state(at.config, None, as_node="__copy__")
    st = app.get_state(CONFIG)
    yield st.values, st.next
    yield app.invoke(None, c)
    yield app.get_state(CONFIG).values


def us_copy_head(library: Any) -> Any:
    app = compiled(
        library, {"a": lambda state: {"items": ["a"]}}, line(library, "a"), interrupt_before=["a"]
    )
    app.invoke({"text": "1"}, CONFIG)
    app.update_state(CONFIG, None, as_node="__copy__")
    st = app.get_state(CONFIG)
    yield st.values, st.next
    yield app.invoke(None, CONFIG)


def us_end(library: Any) -> Any:
    app = compiled(
        library, {"a": lambda state: {"items": ["a"]}}, line(library, "a"), interrupt_before=["a"]
    )
    app.invoke({"text": "1"}, CONFIG)
    app.update_state(CONFIG, None, as_node=library.END)
    st = app.get_state(CONFIG)
    yield st.values, st.next


def us_none_none(library: Any) -> Any:
    app = compiled(
        library, {"a": lambda state: {"items": ["a"]}}, line(library, "a"), interrupt_before=["a"]
    )
    app.invoke({"text": "1"}, CONFIG)
    app.update_state(CONFIG, None)
    st = app.get_state(CONFIG)
    yield st.values, st.next


def bulk(library: Any) -> Any:
    app = compiled(
        library,
        {"a": lambda state: {"items": ["a"]}, "b": lambda state: {"items": ["b"]}},
        line(library, "a", "b"),
    )
    app.bulk_update_state(
        CONFIG,
        [
            [library.StateUpdate({"items": []}, "__input__")],
            [library.StateUpdate({"items": ["x"]}, "a")],
        ],
    )
    st = app.get_state(CONFIG)
    yield st.values, st.next
    yield app.invoke(None, CONFIG)


def bulk_two(library: Any) -> Any:
    declared = library.StateGraph(State)
    for n in "ab":
        declared.add_node(n, lambda state: {"items": ["z"]})
        declared.add_edge(library.START, n)
    declared.add_node("c", lambda state: {"text": "c"})
    declared.add_edge(["a", "b"], "c")
    app = declared.compile(checkpointer=library.InMemorySaver())
    app.bulk_update_state(
        CONFIG,
        [
            [library.StateUpdate({"items": []}, "__input__")],
            [
                library.StateUpdate({"items": ["x"]}, "a"),
                library.StateUpdate({"items": ["y"]}, "b"),
            ],
        ],
    )
    st = app.get_state(CONFIG)
    yield st.values, st.next


def bulk_input_twice(library: Any) -> Any:
    app = compiled(library, {"a": lambda state: {"items": ["a"]}}, line(library, "a"))
    app.bulk_update_state(
        CONFIG,
        [
            [
                library.StateUpdate({"text": "in"}, "__input__"),
                library.StateUpdate({"text": "in"}, "__input__"),
            ]
        ],
    )


def resume_static(library: Any) -> Any:
    app = compiled(
        library,
        {"a": lambda state: {"items": ["a"]}, "b": lambda state: {"items": ["b"]}},
        line(library, "a", "b"),
        interrupt_before=["b"],
    )
    yield app.invoke({"text": "1"}, CONFIG)
    yield app.invoke(library.Command(resume="go"), CONFIG)
    yield app.get_state(CONFIG).next


def resume_static_true(library: Any) -> Any:
    app = compiled(
        library,
        {"a": lambda state: {"items": ["a"]}, "b": lambda state: {"items": ["b"]}},
        line(library, "a", "b"),
        interrupt_after=["a"],
    )
    yield app.invoke({"text": "1"}, CONFIG)
    yield list(app.stream(library.Command(resume=True), CONFIG, stream_mode="updates"))


def resume_static_update(library: Any) -> Any:
    app = compiled(
        library,
        {"a": lambda state: {"items": ["a"]}, "b": lambda state: {"items": [state["text"]]}},
        line(library, "a", "b"),
        interrupt_before=["b"],
    )
    app.invoke({"text": "1"}, CONFIG)
    yield app.invoke(library.Command(resume="go", update={"text": "2"}), CONFIG)


def resume_static_interrupting_node(library: Any) -> Any:
    app = compiled(
        library,
        {
            "a": lambda state: {"items": ["a"]},
            "b": lambda state: {"items": [library.interrupt("q")]},
        },
        line(library, "a", "b"),
        interrupt_before=["b"],
    )
    app.invoke({"text": "1"}, CONFIG)
    yield app.invoke(None, CONFIG)
    yield app.invoke(library.Command(resume="ans"), CONFIG)


def resume_static_sub(library: Any) -> Any:
    inner = library.StateGraph(State)
    inner.add_node("i", lambda state: {"items": ["i"]})
    inner.add_edge(library.START, "i")
    app = compiled(library, {"a": inner.compile(interrupt_before=["i"])}, line(library, "a"))
    app.invoke({"text": "1"}, CONFIG)
    yield app.get_state(CONFIG).next
    yield app.invoke(library.Command(resume=True), CONFIG)


PROGRAMS: Any = [
    handoff,
    handoff_fn,
    swarm,
    us_copy,
    us_copy_head,
    us_end,
    us_none_none,
    bulk,
    bulk_two,
    bulk_input_twice,
    resume_static,
    resume_static_true,
    resume_static_update,
    resume_static_interrupting_node,
    resume_static_sub,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_both_see_the_same(program: Any) -> None:
    assert_same(program)
