"""Subgraphs and streams."""

import asyncio
import operator
from typing import Annotated

from langchain_core.messages import (
    AIMessage,
)
from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, history, program, shown, thread


@program
def sub_shared(library):

    class Sub(TypedDict):
        foo: str
        bar: str

    class P(TypedDict):
        foo: str

    s = library.StateGraph(Sub)
    s.add_node("s1", lambda x: {"bar": "bar"})
    s.add_node("s2", lambda x: {"foo": x["foo"] + x["bar"]})
    s.add_edge(library.START, "s1")
    s.add_edge("s1", "s2")
    b = library.StateGraph(P)
    b.add_node("n1", lambda x: {"foo": "hi! " + x["foo"]})
    b.add_node("n2", s.compile())
    b.add_edge(library.START, "n1")
    b.add_edge("n1", "n2")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield list(app.stream({"foo": "foo"}, CONFIG))
    yield list(app.stream({"foo": "foo"}, thread(2), subgraphs=True))
    yield list(app.stream({"foo": "foo"}, thread(3), subgraphs=True, stream_mode="values"))
    yield list(app.stream({"foo": "foo"}, thread(4), subgraphs=True, stream_mode="debug"))
    yield history(app)


@program
def sub_different(library):

    class Sub(TypedDict):
        bar: str

    class P(TypedDict):
        foo: str

    s = library.StateGraph(Sub)
    s.add_node("s1", lambda x: {"bar": "hi! " + x["bar"]})
    s.add_edge(library.START, "s1")
    sg = s.compile()

    def call(x):
        return {"foo": sg.invoke({"bar": x["foo"]})["bar"]}

    b = library.StateGraph(P)
    b.add_node("n1", call)
    b.add_edge(library.START, "n1")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield list(app.stream({"foo": "foo"}, CONFIG, subgraphs=True))
    yield list(
        app.stream({"foo": "foo"}, thread(2), subgraphs=True, stream_mode=["values", "updates"])
    )
    yield history(app)


@program
def sub_levels(library):

    class S(TypedDict):
        k: str

    gc = library.StateGraph(S)
    gc.add_node("g", lambda x: {"k": x["k"] + ", gc"})
    gc.add_edge(library.START, "g")
    c = library.StateGraph(S)
    c.add_node("gc", gc.compile())
    c.add_node("c2", lambda x: {"k": x["k"] + ", c"})
    c.add_edge(library.START, "gc")
    c.add_edge("gc", "c2")
    p = library.StateGraph(S)
    p.add_node("child", c.compile())
    p.add_edge(library.START, "child")
    app = p.compile(checkpointer=library.InMemorySaver())
    yield list(app.stream({"k": "v"}, CONFIG, subgraphs=True))
    yield ([n for n, _ in app.get_subgraphs()], [n for n, _ in app.get_subgraphs(recurse=True)])


@program
def sub_state_inspect(library):

    class S(TypedDict):
        k: Annotated[list, operator.add]

    s = library.StateGraph(S)
    s.add_node("s1", lambda x: {"k": ["s1"]})
    s.add_node("s2", lambda x: {"k": ["s2"]})
    s.add_edge(library.START, "s1")
    s.add_edge("s1", "s2")
    p = library.StateGraph(S)
    p.add_node("sub", s.compile(interrupt_before=["s2"]))
    p.add_node("z", lambda x: {"k": ["z"]})
    p.add_edge(library.START, "sub")
    p.add_edge("sub", "z")
    app = p.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"k": ["in"]}, CONFIG)
    st = app.get_state(CONFIG, subgraphs=True)
    yield shown(st)
    inner = st.tasks[0].state
    yield shown(inner)
    place = {
        k: v for k, v in inner.config["configurable"].items() if k in ("thread_id", "checkpoint_ns")
    }
    yield [shown(h) for h in app.get_state_history({"configurable": place})]
    yield app.invoke(None, CONFIG)
    for h in app.get_state_history(CONFIG):
        if h.next == ("sub",):
            yield [type(t.state).__name__ for t in h.tasks]
            full = app.get_state(h.config, subgraphs=True)
            yield [t.state and type(t.state).__name__ for t in full.tasks]


@program
def sub_persistent(library):

    class S(TypedDict):
        k: Annotated[list, operator.add]

    s = library.StateGraph(S)
    s.add_node("s1", lambda x: {"k": [len(x["k"])]})
    s.add_edge(library.START, "s1")

    class P(TypedDict):
        out: str

    sg = s.compile(checkpointer=True)
    p = library.StateGraph(P)
    p.add_node("n", lambda x: {"out": str(sg.invoke({"k": ["x"]}))})
    p.add_edge(library.START, "n")
    app = p.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"out": ""}, CONFIG)
    yield app.invoke({"out": ""}, CONFIG)
    yield app.invoke({"out": ""}, thread(2))


@program
def handoff_parent(library):

    class S(TypedDict):
        foo: Annotated[str, operator.add]

    def n1(s):
        return library.Command(update={"foo": "a"}, goto="other", graph=library.Command.PARENT)

    s = library.StateGraph(S)
    s.add_node("n1", n1)
    s.add_edge(library.START, "n1")
    p = library.StateGraph(S)
    p.add_node("sub", s.compile(), destinations=("other",))
    p.add_node("other", lambda x: {"foo": "b"})
    p.add_edge(library.START, "sub")
    app = p.compile(checkpointer=library.InMemorySaver())
    yield (list(app.stream({"foo": ""}, CONFIG)), app.get_state(CONFIG).values)
    yield list(app.stream({"foo": ""}, thread(2), subgraphs=True))
    yield history(app)


@program
def multi_agent_handoff(library):

    def make(name, to):

        def agent(s):
            n = len(s["messages"])
            if n < 4:
                return library.Command(
                    goto=to,
                    update={"messages": [AIMessage(f"{name}{n}", name=name)]},
                    graph=library.Command.PARENT,
                )
            return {"messages": [AIMessage("final", name=name)]}

        g = library.StateGraph(library.MessagesState)
        g.add_node("agent", agent)
        g.add_edge(library.START, "agent")
        return g.compile()

    b = library.StateGraph(library.MessagesState)
    b.add_node("alice", make("alice", "bob"), destinations=("bob",))
    b.add_node("bob", make("bob", "alice"), destinations=("alice",))
    b.add_edge(library.START, "alice")
    app = b.compile(checkpointer=library.InMemorySaver())
    r = app.invoke({"messages": [("user", "hi")]}, CONFIG)
    yield [(m.type, m.content, m.name) for m in r["messages"]]
    yield [
        [(k, len(v["messages"]) if v else v) for k, v in c.items()]
        for c in app.stream({"messages": [("user", "hi")]}, thread(2))
    ]


@program
def custom_stream(library):

    class S(TypedDict):
        q: str

    def node(s):
        w = library.get_stream_writer()
        w({"progress": 1})
        w("two")
        return {"q": "done"}

    b = library.StateGraph(S)
    b.add_node("n", node)
    b.add_edge(library.START, "n")
    app = b.compile()
    yield list(app.stream({"q": ""}, stream_mode="custom"))
    yield list(app.stream({"q": ""}, stream_mode=["custom", "updates"]))
    yield app.invoke({"q": ""})


@program
def writer_arg(library):

    class S(TypedDict):
        q: str

    def node(s, writer):
        writer({"a": 1})
        return {"q": "x"}

    node.__annotations__ = {"writer": library.StreamWriter}
    b = library.StateGraph(S)
    b.add_node("n", node)
    b.add_edge(library.START, "n")
    yield list(b.compile().stream({"q": ""}, stream_mode="custom"))


@program
def sub_custom_stream(library):

    class S(TypedDict):
        q: str

    def inner(s):
        library.get_stream_writer()("inner")
        return {"q": "i"}

    g = library.StateGraph(S)
    g.add_node("i", inner)
    g.add_edge(library.START, "i")
    sg = g.compile()
    b = library.StateGraph(S)
    b.add_node("sub", sg)
    b.add_node("call", lambda s: sg.invoke(s))
    b.add_edge(library.START, "sub")
    b.add_edge("sub", "call")
    app = b.compile()
    yield list(app.stream({"q": ""}, stream_mode="custom", subgraphs=True))
    yield list(app.stream({"q": ""}, stream_mode=["custom", "updates", "values"], subgraphs=True))


@program
def all_modes(library):

    class S(TypedDict):
        q: str
        l: Annotated[list, operator.add]

    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"q": "a", "l": [1]})
    b.add_node("b", lambda s: {"l": [2]})
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile(checkpointer=library.InMemorySaver())
    for i, m in enumerate(["values", "updates", "tasks", "checkpoints", "debug"]):
        yield list(app.stream({"q": "0"}, thread(i), stream_mode=m))
        yield list(app.stream({"q": "1"}, thread(i), stream_mode=m))
        yield list(app.stream({"q": "0"}, thread(f"v2{i}"), stream_mode=m, version="v2"))


@program
def stream_empty_modes(library):

    class S(TypedDict):
        q: str

    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"q": "a"})
    b.add_edge(library.START, "a")
    app = b.compile()
    yield list(app.stream({"q": "0"}, stream_mode=["updates"]))
    yield (
        app.invoke({"q": "0"}, stream_mode="updates"),
        app.invoke({"q": "0"}, stream_mode=["updates", "values"]),
    )
    yield app.invoke({"q": "0"}, output_keys="q")
    yield list(app.stream({"q": "0"}, output_keys=["q"]))


@program
def stream_sends_cmd(library):

    class S(TypedDict):
        l: Annotated[list, operator.add]

    def p(s):
        return library.Command(
            goto=[library.Send("w", {"l": [1]}), library.Send("w", {"l": [2]}), "z"]
        )

    b = library.StateGraph(S)
    b.add_node("p", p, destinations=("w", "z"))
    b.add_node("w", lambda s: {"l": s["l"]})
    b.add_node("z", lambda s: {"l": ["z"]})
    b.add_edge(library.START, "p")
    app = b.compile(checkpointer=library.InMemorySaver())
    for i, m in enumerate(["updates", "values", "tasks", "debug"]):
        yield list(app.stream({"l": []}, thread(i, max_concurrency=1), stream_mode=m))
    yield history(app, thread(0))


@program
def astream_all(library):

    class S(TypedDict):
        l: Annotated[list, operator.add]

    async def a(s):
        await asyncio.sleep(0)
        return {"l": ["a"]}

    def b_(s):
        return {"l": ["b"]}

    b = library.StateGraph(S)
    b.add_node("a", a)
    b.add_node("b", b_)
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile(checkpointer=library.InMemorySaver())

    async def go():
        out = [await app.ainvoke({"l": []}, CONFIG)]
        for m in ["values", "updates", "debug"]:
            out.append([c async for c in app.astream({"l": []}, thread(m), stream_mode=m)])
        out.append(shown(await app.aget_state(CONFIG)))
        out.append([shown(s) async for s in app.aget_state_history(CONFIG)])
        await app.aupdate_state(CONFIG, {"l": ["u"]})
        out.append(shown(await app.aget_state(CONFIG)))
        out.append(await app.abatch([{"l": []}, {"l": ["x"]}], [thread(7), thread(8)]))
        return out

    yield asyncio.run(go())
