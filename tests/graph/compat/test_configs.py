"""What nodes find in their config, and what of a config is recorded: the same with both."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig

from tests.graph.compat.both import CONFIG, State, assert_same, compiled, line


def conf(config: Any) -> Any:
    place = {
        name: value
        for name, value in config["configurable"].items()
        if not name.startswith("__") and name != "checkpoint_map"
    }
    metadata = {k: v for k, v in (config.get("metadata") or {}).items() if k != "checkpoint_ns"}
    return place, metadata, config.get("tags")


def node_config(library: Any) -> Any:
    got = []

    def a(state: Any, config: RunnableConfig) -> Any:
        got.append(conf(config))
        return {}

    app = compiled(library, {"a": a, "b": a}, line(library, "a", "b"))
    app.invoke(
        {"text": "1"},
        {"configurable": {"thread_id": "t", "user_id": "u"}, "metadata": {"k": "v"}, "tags": ["x"]},
    )
    yield got


def node_config_sub(library: Any) -> Any:
    got = []

    def a(state: Any, config: RunnableConfig) -> Any:
        got.append(conf(config))
        return {}

    inner = library.StateGraph(State)
    inner.add_node("i", a)
    inner.add_edge(library.START, "i")
    app = compiled(library, {"a": inner.compile()}, line(library, "a"))
    app.invoke({"text": "1"}, CONFIG)
    yield got


def node_config_nosaver(library: Any) -> Any:
    got = []

    def a(state: Any, config: RunnableConfig) -> Any:
        got.append(conf(config))
        return {}

    app = compiled(library, {"a": a}, line(library, "a"), saver=False)
    app.invoke({"text": "1"}, {"configurable": {"user_id": "u"}})
    yield got


def cond_config(library: Any) -> Any:
    got = []

    def r(state: Any, config: RunnableConfig) -> Any:
        got.append(conf(config))
        return library.END

    declared = library.StateGraph(State)
    declared.add_node("a", lambda state: {})
    declared.add_edge(library.START, "a")
    declared.add_conditional_edges("a", r)
    declared.compile(checkpointer=library.InMemorySaver()).invoke({"text": "1"}, CONFIG)
    yield got


def get_config_fn(library: Any) -> Any:
    got = []

    def a(state: Any) -> Any:
        got.append(conf(library.get_config()))
        return {}

    app = compiled(library, {"a": a}, line(library, "a"))
    app.invoke({"text": "1"}, CONFIG)
    yield got


def metadata_conf(library: Any) -> Any:
    app = compiled(library, {"a": lambda state: {}}, line(library, "a"))
    c = {
        "configurable": {"thread_id": "t", "user_id": "u", "n": 5, "secret": object(), "lst": [1]},
        "metadata": {"k": "v"},
    }
    app.invoke({"text": "1"}, c)
    yield app.get_state(c).metadata
    yield [
        h.metadata
        for h in app.get_state_history(CONFIG, filter={"user_id": "u"})
        if h.metadata["step"] > 0
    ]
    yield [h.metadata["source"] for h in app.get_state_history(CONFIG, filter={"user_id": "zz"})]


def metadata_bad(library: Any) -> Any:
    class X:
        pass

    app = compiled(library, {"a": lambda state: {}}, line(library, "a"))
    c = {
        "configurable": {"thread_id": "t"},
        "metadata": {"k": X(), "f": lambda: 1, "l": [1, {"x": 1}], "ok": "1"},
    }
    yield app.invoke({"text": "1"}, c)


def metadata_update(library: Any) -> Any:
    app = compiled(library, {"a": lambda state: {}}, line(library, "a"))
    c = {"configurable": {"thread_id": "t", "user_id": "u"}, "metadata": {"k": "v"}}
    app.update_state(c, {"text": "1"}, as_node="a")
    yield app.get_state(CONFIG).metadata


PROGRAMS: Any = [
    node_config,
    node_config_sub,
    node_config_nosaver,
    cond_config,
    get_config_fn,
    metadata_conf,
    metadata_bad,
    metadata_update,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_both_see_the_same(program: Any) -> None:
    assert_same(program)
