"""Looking at graphs and threads: history, editing, time travel, subgraphs' states, attributes."""

import operator
from itertools import pairwise
from typing import Annotated

from langchain_core.messages import AIMessage
from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, history, program, shown, thread


class S(TypedDict, total=False):
    xs: Annotated[list, operator.add]
    n: int


def abc(library, names="abc", **options):
    b = library.StateGraph(S)
    for n in names:
        b.add_node(n, lambda s, n=n: {"xs": [n], "n": s.get("n", 0) + 1})
    b.add_edge(library.START, names[0])
    for x, y in pairwise(names):
        b.add_edge(x, y)
    return b.compile(checkpointer=library.InMemorySaver(), **options)


@program
def attributes_of_a_graph(library):
    app = abc(library)
    yield app.name, sorted(app.nodes), app.checkpointer is not None
    yield isinstance(app, library.CompiledStateGraph)
    yield app.input_schema.model_json_schema()
    yield app.get_input_schema().__name__, app.get_output_schema().__name__
    yield app.get_input_jsonschema()["type"], app.get_name()
    yield app.nodes["a"].invoke({"xs": []})
    named = abc(library, name="my graph")
    yield named.name, named.get_name()
    yield sorted(app.builder.nodes), sorted(app.builder.edges)
    yield app.step_timeout, app.debug
    yield sorted(c for c in app.channels if not c.startswith(("branch:", "__")))
    yield sorted(app.get_graph().to_json()["nodes"], key=str)[0]["id"]


@program
def builder_attributes(library):
    b = library.StateGraph(S)
    b.add_node("a", lambda s: {})
    b.add_edge(library.START, "a")
    yield sorted(b.nodes), sorted(b.edges), b.state_schema is S
    b.compile()


@program
def go_back_and_change(library):
    app = abc(library)
    app.invoke({"xs": ["in"]}, CONFIG)
    states = list(app.get_state_history(CONFIG))
    yield [(s.next, s.values.get("xs"), s.metadata["step"], s.metadata["source"]) for s in states]
    chosen = next(s for s in states if s.next == ("b",))
    forked = app.update_state(chosen.config, {"xs": ["EDIT"]})
    yield app.get_state(forked).next, app.get_state(forked).values
    yield app.invoke(None, forked)
    yield [
        (s.next, s.values.get("xs"), s.metadata["step"], s.metadata["source"])
        for s in app.get_state_history(CONFIG)
    ]


@program
def replay_from_checkpoint(library):
    app = abc(library)
    app.invoke({"xs": ["in"]}, CONFIG)
    states = list(app.get_state_history(CONFIG))
    chosen = states[2]
    yield list(app.stream(None, chosen.config, stream_mode="values"))
    yield app.get_state(CONFIG).values
    yield len(list(app.get_state_history(CONFIG)))
    yield app.get_state(chosen.config).values


@program
def steps_after_a_fork(library):
    app = abc(library)
    app.invoke({"xs": ["in"]}, CONFIG)
    chosen = list(app.get_state_history(CONFIG))[2]
    app.invoke(None, chosen.config)
    yield [
        (s.metadata["step"], s.metadata["source"], s.next) for s in app.get_state_history(CONFIG)
    ]


@program
def new_input_at_old_checkpoint(library):
    app = abc(library)
    app.invoke({"xs": ["in"]}, CONFIG)
    chosen = list(app.get_state_history(CONFIG))[2]
    yield app.invoke({"xs": ["other"]}, chosen.config)
    yield history(app)


@program
def config_shapes(library):
    app = abc(library)
    app.invoke({"xs": ["in"]}, CONFIG)
    state = app.get_state(CONFIG)
    yield sorted(state.config["configurable"]), sorted(state.parent_config["configurable"])
    yield state.config["configurable"]["checkpoint_ns"], state.config["configurable"]["thread_id"]
    yield isinstance(state.created_at, str), state.created_at[10], len(state), state._fields
    ids = [s.config["configurable"]["checkpoint_id"] for s in app.get_state_history(CONFIG)]
    yield ids == sorted(ids, reverse=True), len(set(ids)) == len(ids)
    old = app.get_state({"configurable": {"thread_id": "1", "checkpoint_id": ids[1]}})
    yield old.next, old.values
    parents = [
        s.parent_config and s.parent_config["configurable"]["checkpoint_id"]
        for s in app.get_state_history(CONFIG)
    ]
    yield parents[:-1] == ids[1:], parents[-1]


@program
def history_options(library):
    app = abc(library)
    for i in range(2):
        app.invoke({"xs": [i]}, CONFIG)
    yield len(list(app.get_state_history(CONFIG, limit=3)))
    for f in (
        {"source": "input"},
        {"source": "loop"},
        {"step": 2},
        {"source": "update"},
        {"step": 99},
    ):
        yield f, [(s.metadata["step"], s.next) for s in app.get_state_history(CONFIG, filter=f)]
    third = list(app.get_state_history(CONFIG))[3]
    yield [s.metadata["step"] for s in app.get_state_history(CONFIG, before=third.config)]
    yield [s.metadata["step"] for s in app.get_state_history(CONFIG, before=third.config, limit=1)]


@program
def metadata_of_runs(library):
    app = abc(library, "ab")
    app.invoke(
        {"xs": []}, {**CONFIG, "metadata": {"user": "ann", "n": 1}, "run_name": "r", "tags": ["t"]}
    )
    yield [
        {k: v for k, v in s.metadata.items() if k not in ("run_id", "tags")}
        for s in app.get_state_history(CONFIG)
    ]
    yield len(list(app.get_state_history(CONFIG, filter={"user": "ann"})))


@program
def update_without_as_node(library):
    app = abc(library)
    app.invoke({"xs": []}, CONFIG)
    app.update_state(CONFIG, {"n": 100})
    yield shown(app.get_state(CONFIG))
    fresh = abc(library)
    fresh.update_state(CONFIG, {"xs": ["first"]}, as_node="a")
    yield shown(fresh.get_state(CONFIG)), fresh.invoke(None, CONFIG)
    yield history(fresh)
    fresh.update_state(CONFIG, {"xs": ["x"]}, as_node="zzz")


@program
def update_to_end_a_run(library):
    app = abc(library, interrupt_before=["b"])
    app.invoke({"xs": []}, CONFIG)
    app.update_state(CONFIG, None, as_node=library.END)
    yield shown(app.get_state(CONFIG))
    yield history(app)


@program
def update_with_branch(library):
    b = library.StateGraph(S)
    for n in "abc":
        b.add_node(n, lambda s, n=n: {"xs": [n]})
    b.add_edge(library.START, "a")
    b.add_conditional_edges("a", lambda s: "c" if s.get("n") else "b", ["b", "c"])
    app = b.compile(checkpointer=library.InMemorySaver(), interrupt_after=["a"])
    app.invoke({"xs": []}, CONFIG)
    yield app.get_state(CONFIG).next
    app.update_state(CONFIG, {"n": 1}, as_node="a")
    yield app.get_state(CONFIG).next, app.invoke(None, CONFIG)
    yield history(app)


@program
def command_input_to_an_idle_thread(library):
    app = abc(library)
    app.invoke({"xs": ["in"]}, CONFIG)
    yield app.invoke(library.Command(update={"xs": ["cmd"]}), CONFIG)
    yield app.get_state(CONFIG).values, app.get_state(CONFIG).next
    yield app.invoke(library.Command(goto="b"), CONFIG)
    yield app.get_state(CONFIG).values, app.get_state(CONFIG).next
    yield app.invoke(library.Command(update={"n": 0}, goto="c"), CONFIG)
    yield app.get_state(CONFIG).values, app.get_state(CONFIG).next


@program
def command_input_to_a_new_thread(library):
    app = abc(library)
    yield app.invoke(library.Command(goto="b", update={"xs": ["x"]}), CONFIG)
    yield history(app)


@program
def invoke_none_on_new_thread(library):
    app = abc(library)
    app.invoke(None, CONFIG)


@program
def invoke_none_on_finished(library):
    app = abc(library)
    app.invoke({"xs": []}, CONFIG)
    yield app.invoke(None, CONFIG)
    yield list(app.stream(None, CONFIG))
    yield len(list(app.get_state_history(CONFIG)))


@program
def empty_input(library):
    app = abc(library)
    app.invoke({}, CONFIG)


@program
def subgraph_state_while_waiting(library):
    inner = library.StateGraph(S)
    inner.add_node("i1", lambda s: {"xs": ["i1"]})
    inner.add_node("i2", lambda s: {"xs": ["i2"]})
    inner.add_edge(library.START, "i1")
    inner.add_edge("i1", "i2")
    b = library.StateGraph(S)
    b.add_node("first", lambda s: {"xs": ["first"]})
    b.add_node("sub", inner.compile(interrupt_before=["i2"]))
    b.add_edge(library.START, "first")
    b.add_edge("first", "sub")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"xs": []}, CONFIG)
    state = app.get_state(CONFIG)
    yield state.next, sorted(state.tasks[0].state["configurable"])
    sub = app.get_state(state.tasks[0].state)
    yield shown(sub)
    full = app.get_state(CONFIG, subgraphs=True).tasks[0].state
    yield shown(full)
    yield [s.next for s in app.get_state_history(full.config)]
    app.update_state(full.config, {"xs": ["edited"]})
    yield app.invoke(None, CONFIG)
    yield history(app)


@program
def subgraph_different_state(library):
    class Inner(TypedDict):
        text: str
        count: int

    inner = library.StateGraph(Inner)
    inner.add_node("count", lambda s: {"count": len(s["text"])})
    inner.add_edge(library.START, "count")
    counting = inner.compile()

    def call(s):
        return {"n": counting.invoke({"text": "".join(map(str, s["xs"]))})["count"]}

    b = library.StateGraph(S)
    b.add_node("call", call)
    b.add_edge(library.START, "call")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"xs": ["abc"]}, CONFIG)
    yield [
        ([n.split(":")[0] for n in ns], c)
        for ns, c in app.stream({"xs": ["d"]}, CONFIG, subgraphs=True)
    ]
    yield sorted(app.get_graph(xray=True).nodes)


@program
def subgraph_with_its_own_memory(library):
    inner = library.StateGraph(S)
    inner.add_node("i", lambda s: {"xs": ["i"], "n": s.get("n", 0) + 1})
    inner.add_edge(library.START, "i")
    remembering = inner.compile(checkpointer=True)

    class Outer(TypedDict):
        log: Annotated[list, operator.add]

    b = library.StateGraph(Outer)
    b.add_node("call", lambda s: {"log": [remembering.invoke({"xs": []})]})
    b.add_edge(library.START, "call")
    app = b.compile(checkpointer=library.InMemorySaver())
    for _ in range(3):
        yield app.invoke({"log": []}, CONFIG)["log"][-1]
    yield app.invoke({"log": []}, thread(2))["log"][-1]


@program
def parent_command_from_subgraph(library):
    class Sub(TypedDict):
        xs: Annotated[list, operator.add]

    def leave(s):
        return library.Command(
            update={"xs": ["from sub"]}, goto="other", graph=library.Command.PARENT
        )

    inner = library.StateGraph(Sub)
    inner.add_node("leave", leave)
    inner.add_edge(library.START, "leave")
    b = library.StateGraph(S)
    b.add_node("sub", inner.compile(), destinations=("other",))
    b.add_node("other", lambda s: {"xs": ["other"]})
    b.add_edge(library.START, "sub")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"xs": []}, CONFIG)
    yield list(app.stream({"xs": []}, thread(2), subgraphs=True, stream_mode="updates"))
    yield history(app)


@program
def drawings(library):
    app = abc(library)
    yield app.get_graph().draw_mermaid()
    inner = abc(library, "xy")
    b = library.StateGraph(S)
    b.add_node("sub", inner)
    b.add_node("my node", lambda s: {}, metadata={"k": "v"})
    b.add_edge(library.START, "sub")
    b.add_conditional_edges("sub", lambda s: "go on", {"go on": "my node", "stop": library.END})
    both = b.compile(interrupt_before=["my node"])
    yield both.get_graph().draw_mermaid()
    yield both.get_graph(xray=1).draw_mermaid()
    yield [(n.id, n.name, n.metadata) for n in both.get_graph().nodes.values()]
    yield both.get_graph().first_node().id, both.get_graph().last_node().id


@program
def copies_of_a_thread(library):
    app = abc(library)
    app.invoke({"xs": ["in"]}, CONFIG)
    values = app.get_state(CONFIG).values
    app.update_state(thread("copy"), values, as_node="c")
    yield shown(app.get_state(thread("copy")))
    yield app.invoke({"xs": ["more"]}, thread("copy"))
    yield app.get_state(CONFIG).values


@program
def bulk_updates(library):
    app = abc(library)
    app.bulk_update_state(
        CONFIG,
        [
            [library.StateUpdate({"xs": ["start"]}, library.START)],
            [library.StateUpdate({"xs": ["a"]}, "a")],
            [library.StateUpdate({"xs": ["b"]}, "b")],
        ],
    )
    yield history(app)
    yield app.invoke(None, CONFIG)


@program
def same_graph_on_two_savers(library):
    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"xs": ["a"]})
    b.add_edge(library.START, "a")
    one, two = library.InMemorySaver(), library.InMemorySaver()
    first, second, none = b.compile(one), b.compile(checkpointer=two), b.compile()
    first.invoke({"xs": []}, CONFIG)
    yield first.get_state(CONFIG).values, second.get_state(CONFIG).values
    yield none.invoke({"xs": []})
    none.checkpointer = one
    yield none.invoke({"xs": ["x"]}, CONFIG)


@program
def checkpointer_as_context_manager(library):
    with library.InMemorySaver() as saver:
        b = library.StateGraph(library.MessagesState)
        b.add_node("a", lambda s: {"messages": [AIMessage("x")]})
        b.add_edge(library.START, "a")
        app = b.compile(checkpointer=saver)
        app.invoke({"messages": "q"}, CONFIG)
        yield len(app.get_state(CONFIG).values["messages"])


@program
def pipe_and_runnables(library):
    from langchain_core.runnables import RunnableLambda, RunnablePassthrough

    b = library.StateGraph(S)
    b.add_node("a", RunnableLambda(lambda s: {"xs": ["a"]}))
    b.add_node("b", RunnablePassthrough() | RunnableLambda(lambda s: {"xs": [len(s["xs"])]}))
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile()
    yield (app | RunnableLambda(lambda s: s["xs"])).invoke({"xs": []})
    yield (RunnableLambda(lambda x: {"xs": [x]}) | app).invoke(1)
    yield RunnableLambda(lambda x: app.invoke({"xs": [x]})).batch([1, 2])
