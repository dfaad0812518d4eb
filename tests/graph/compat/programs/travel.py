"""Histories, time travel, forks, edits."""

import operator
from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, history, program, shown, thread


def _tt(library):

    class S(TypedDict):
        topic: NotRequired[str]
        joke: NotRequired[str]

    b = library.StateGraph(S)
    b.add_node("topic", lambda s: {"topic": "socks"})
    b.add_node("joke", lambda s: {"joke": "about " + s["topic"]})
    b.add_edge(library.START, "topic")
    b.add_edge("topic", "joke")
    b.add_edge("joke", library.END)
    return b.compile(checkpointer=library.InMemorySaver())


@program
def time_travel_docs(library):
    app = _tt(library)
    yield app.invoke({}, CONFIG)
    states = list(app.get_state_history(CONFIG))
    yield [(s.next, s.values) for s in states]
    sel = states[1]
    new = app.update_state(sel.config, values={"topic": "chickens"})
    yield shown(app.get_state(new))
    yield app.invoke(None, new)
    yield history(app)


@program
def replay_past(library):
    app = _tt(library)
    app.invoke({}, CONFIG)
    states = list(app.get_state_history(CONFIG))
    yield app.invoke(None, states[1].config)
    yield [(s.values, s.next, s.metadata["source"]) for s in app.get_state_history(CONFIG)]
    yield [s.next for s in app.get_state_history(CONFIG, limit=2)]
    yield list(app.stream(None, states[-1].config))


@program
def fork_from_history(library):
    app = _tt(library)
    app.invoke({}, CONFIG)
    before = next(s for s in app.get_state_history(CONFIG) if s.next == ("joke",))
    for t in ["a", "b"]:
        c = app.update_state(before.config, {"topic": t})
        yield app.invoke(None, c)
    yield [
        (s.values.get("joke"), s.next, s.metadata["source"]) for s in app.get_state_history(CONFIG)
    ]
    yield app.get_state(CONFIG).values
    yield app.get_state(before.config).values


@program
def update_as_node(library):
    app = _tt(library)
    app.invoke({}, CONFIG)
    c = app.update_state(CONFIG, {"topic": "x"}, as_node="topic")
    yield shown(app.get_state(CONFIG))
    yield app.invoke(None, CONFIG)
    app.update_state(CONFIG, {"joke": "done"}, as_node="joke")
    yield shown(app.get_state(CONFIG))
    app.update_state(CONFIG, None, as_node=library.END)
    yield shown(app.get_state(CONFIG))
    app.update_state(CONFIG, {"topic": "s"}, as_node="__start__")
    yield shown(app.get_state(CONFIG))
    yield history(app)


@program
def update_empty_thread(library):
    app = _tt(library)
    app.update_state(CONFIG, {"topic": "pre"})
    yield shown(app.get_state(CONFIG))
    yield app.invoke({"topic": "in"}, CONFIG)
    yield history(app)
    app.update_state(thread(2), {"topic": "pre"}, as_node="topic")
    yield shown(app.get_state(thread(2)))
    yield app.invoke(None, thread(2))
    yield history(app, thread(2))


@program
def history_filter(library):
    app = _tt(library)
    app.invoke({}, {**CONFIG, "metadata": {"user": "u1"}})
    app.invoke({"topic": "2"}, {**CONFIG, "metadata": {"user": "u2"}})
    app.update_state(CONFIG, {"joke": "z"})
    yield [s.metadata["step"] for s in app.get_state_history(CONFIG, filter={"user": "u1"})]
    yield [s.metadata["step"] for s in app.get_state_history(CONFIG, filter={"source": "update"})]
    yield [s.metadata["step"] for s in app.get_state_history(CONFIG, filter={"step": 1})]
    yield [s.metadata["step"] for s in app.get_state_history(CONFIG, limit=3)]
    all_ = list(app.get_state_history(CONFIG))
    yield [s.metadata["step"] for s in app.get_state_history(CONFIG, before=all_[2].config)]
    yield [s.metadata["step"] for s in app.get_state_history(CONFIG, before=all_[3].config)]
    yield [
        (s.parent_config or {}).get("configurable", {}).get("checkpoint_id")
        == (all_[i + 1].config["configurable"]["checkpoint_id"] if i + 1 < len(all_) else None)
        for i, s in enumerate(all_)
    ]


@program
def bulk_update(library):

    class S(TypedDict):
        v: Annotated[list, operator.add]

    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"v": ["a"]})
    b.add_node("b", lambda s: {"v": ["b"]})
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.bulk_update_state(
        CONFIG,
        [
            [library.StateUpdate({"v": ["1"]}, "__start__")],
            [library.StateUpdate({"v": ["2"]}, "a")],
        ],
    )
    yield history(app)
    yield shown(app.get_state(CONFIG))
    yield app.invoke(None, CONFIG)


@program
def empty_state(library):
    app = _tt(library)
    s = app.get_state(thread("nothing"))
    yield (s.values, s.next, s.tasks, s.metadata, s.created_at, s.parent_config)
    yield s.config
    yield list(app.get_state_history(thread("nothing")))
    try:
        app.invoke(None, thread("nothing"))
    except Exception as e:
        yield ("EmptyInputError" in [c.__name__ for c in type(e).__mro__])
    try:
        app.invoke({})
    except ValueError:
        yield "ValueError"


@program
def second_input_memory(library):

    class S(TypedDict):
        messages: Annotated[list, library.add_messages]
        n: int

    b = library.StateGraph(S)
    b.add_node(
        "bot", lambda s: {"messages": [("ai", f"{len(s['messages'])}")], "n": s.get("n", 0) + 1}
    )
    b.add_edge(library.START, "bot")
    app = b.compile(checkpointer=library.InMemorySaver())
    for t in ["hi", "ho"]:
        r = app.invoke({"messages": [("user", t)]}, CONFIG)
        yield ([(m.type, m.content) for m in r["messages"]], r["n"])
    yield [
        (s.metadata["source"], s.metadata["step"], s.next, len(s.values.get("messages", [])))
        for s in app.get_state_history(CONFIG)
    ]


@program
def reads_checkpointer(library):
    app = _tt(library)
    app.invoke({}, CONFIG)
    app.checkpointer.delete_thread("1")
    yield app.get_state(CONFIG).values


@program
def durability_modes(library):

    class S(TypedDict):
        l: Annotated[list, operator.add]

    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"l": ["a"]})
    b.add_node("b", lambda s: {"l": ["b"]})
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile(checkpointer=library.InMemorySaver())
    for d in ["sync", "async"]:
        app.invoke({"l": []}, thread(d), durability=d)
        yield (d, [(s.metadata["step"], s.next) for s in app.get_state_history(thread(d))])


@program
def edits_in_the_name_of_a_task(library):
    class S(TypedDict):
        v: Annotated[list, operator.add]

    b = library.StateGraph(S)
    for name in "abc":
        b.add_node(name, (lambda name: lambda s: {"v": [name]})(name))
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    b.add_edge("b", "c")
    app = b.compile(checkpointer=library.InMemorySaver(), interrupt_before=["b"])
    app.invoke({"v": []}, CONFIG)
    app.update_state(CONFIG, {"v": ["by hand"]}, as_node="b")
    yield shown(app.get_state(CONFIG))
    yield history(app)
    yield app.invoke(None, CONFIG)
    yield history(app)
