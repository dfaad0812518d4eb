"""What is streamed, in which form, and what invoke() returns: the same with both."""

from __future__ import annotations

from typing import Any

import pytest
from typing_extensions import TypedDict

from tests.graph.compat.both import CONFIG, State, assert_same, compiled, line


def two(library: Any, **options: Any) -> Any:
    nodes = {"a": lambda state: {"items": ["a"]}, "b": lambda state: {"text": "b"}}
    return compiled(library, nodes, line(library, "a", "b"), **options)


def asks(library: Any) -> Any:
    nodes = {
        "a": lambda state: {"items": ["a"]},
        "b": lambda state: {"text": library.interrupt("q")},
    }
    return compiled(library, nodes, line(library, "a", "b"))


def sends(library: Any) -> Any:
    declared = library.StateGraph(State)
    declared.add_node("p", lambda state: {})
    declared.add_node("w", lambda state: {"items": [state["x"]]})
    declared.add_edge(library.START, "p")
    declared.add_conditional_edges("p", lambda state: [library.Send("w", {"x": 1})], ["w"])
    return declared.compile(checkpointer=library.InMemorySaver())


def nests(library: Any) -> Any:
    inner = library.StateGraph(State)
    inner.add_node("i", lambda state: {"items": ["i"]}).add_edge(library.START, "i")
    return compiled(library, {"a": inner.compile()}, line(library, "a"))


STREAMED: Any = [
    lambda library: (two(library), [{"text": "1"}]),
    lambda library: (two(library), [{}]),
    lambda library: (two(library, interrupt_before=["b"]), [{"text": "1"}, None]),
    lambda library: (asks(library), [{"text": "1"}, library.Command(resume="r")]),
    lambda library: (sends(library), [{"text": "1"}]),
    lambda library: (nests(library), [{"text": "1"}]),
]


@pytest.mark.parametrize("subgraphs", [False, True])
@pytest.mark.parametrize("mode", ["values", "updates", "tasks"])
@pytest.mark.parametrize("case", STREAMED)
def test_both_stream_the_same(case: Any, mode: str, subgraphs: bool) -> None:
    def program(library: Any) -> Any:
        app, inputs = case(library)
        for given in inputs:
            yield from app.stream(given, CONFIG, stream_mode=mode, subgraphs=subgraphs)

    assert_same(program)


@pytest.mark.parametrize("mode", ["checkpoints", "debug"])
def test_checkpoints_have_the_same_shape(mode: str) -> None:
    """All but the one at step -1, which is not recorded here, and the source of the one after."""

    def program(library: Any) -> Any:
        for chunk in two(library).stream({"text": "1"}, CONFIG, stream_mode=mode):
            shown = chunk.get("payload", chunk)
            if "metadata" in shown and shown["metadata"]["step"] < 1:
                continue
            yield chunk

    assert_same(program)


def inv_mode(library: Any) -> Any:
    yield two(library).invoke({"text": "1"}, CONFIG, stream_mode="updates")


def inv_modes(library: Any) -> Any:
    yield two(library).invoke({"text": "1"}, CONFIG, stream_mode=["updates", "values"])


def inv_keys(library: Any) -> Any:
    yield two(library).invoke({"text": "1"}, CONFIG, output_keys=["text"])


def inv_key(library: Any) -> Any:
    yield two(library).invoke({"text": "1"}, CONFIG, output_keys="text")


def str_keys(library: Any) -> Any:
    yield list(
        two(library).stream(
            {"text": "1"}, CONFIG, output_keys="text", stream_mode=["values", "updates"]
        )
    )


def str_keys2(library: Any) -> Any:
    yield list(
        two(library).stream(
            {"text": "1"}, CONFIG, output_keys=["text"], stream_mode=["values", "updates", "tasks"]
        )
    )


def inv_v2(library: Any) -> Any:
    r = two(library).invoke({"text": "1"}, CONFIG, version="v2")
    yield r.value, r.interrupts


def inv_v2_int(library: Any) -> Any:
    app = compiled(
        library, {"b": lambda state: {"text": library.interrupt("q")}}, line(library, "b")
    )
    r = app.invoke({"text": "1"}, CONFIG, version="v2")
    yield r.value, [i.value for i in r.interrupts]


def str_v2(library: Any) -> Any:
    yield list(
        two(library).stream({"text": "1"}, CONFIG, version="v2", stream_mode=["values", "updates"])
    )


def str_v2_one(library: Any) -> Any:
    yield list(two(library).stream({"text": "1"}, CONFIG, version="v2", stream_mode="updates"))


def str_v2_custom(library: Any) -> Any:
    def w(state: Any) -> Any:
        library.get_stream_writer()("x")
        return {}

    yield list(
        compiled(library, {"w": w}, line(library, "w")).stream(
            {"text": "1"}, CONFIG, version="v2", stream_mode="custom"
        )
    )


def str_print(library: Any) -> Any:
    yield list(two(library).stream({"text": "1"}, CONFIG, print_mode=()))


def str_debug(library: Any) -> Any:
    yield list(two(library).stream({"text": "1"}, CONFIG, debug=False))


def inv_sub(library: Any) -> Any:
    yield two(library).invoke({"text": "1"}, CONFIG, subgraphs=True)


def inv_dur(library: Any) -> Any:
    yield two(library).invoke({"text": "1"}, CONFIG, durability=None)


def str_default(library: Any) -> Any:
    yield list(two(library).stream({"text": "1"}, CONFIG))


def no_write(library: Any) -> Any:
    app = compiled(
        library, {"a": lambda state: {}, "b": lambda state: None}, line(library, "a", "b")
    )
    yield list(app.stream({"text": "1"}, CONFIG, stream_mode=["values", "updates"]))


def td_empty(library: Any) -> Any:
    class T(TypedDict, total=False):
        x: int

    app = compiled(library, {"a": lambda state: {"x": 1}}, line(library, "a"), T)
    yield app.invoke({}, CONFIG)


PROGRAMS: Any = [
    inv_mode,
    inv_modes,
    inv_keys,
    inv_key,
    str_keys,
    str_keys2,
    inv_v2,
    inv_v2_int,
    str_v2,
    str_v2_one,
    str_v2_custom,
    str_print,
    str_debug,
    inv_sub,
    inv_dur,
    str_default,
    no_write,
    td_empty,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_both_see_the_same(program: Any) -> None:
    assert_same(program)
