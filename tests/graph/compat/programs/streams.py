"""Streaming, as dashboards and chat windows do it: every mode, lists of them, tokens, subgraphs."""

import operator
from typing import Annotated

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, program, thread


class S(TypedDict):
    topic: str
    joke: str
    log: Annotated[list, operator.add]


def joker(library, **options):
    b = library.StateGraph(S)
    b.add_node("refine", lambda s: {"topic": s["topic"] + " and cats"})
    b.add_node("write", lambda s: {"joke": "about " + s["topic"], "log": ["w"]})
    b.add_edge(library.START, "refine")
    b.add_edge("refine", "write")
    b.add_edge("write", library.END)
    return b.compile(**options)


def model(*texts):
    return GenericFakeChatModel(
        messages=iter([AIMessage(t, id=f"m{i}") for i, t in enumerate(texts)])
    )


@program
def each_mode(library):
    for mode in ("values", "updates", "custom", "messages", "tasks", "debug", "checkpoints"):
        app = joker(library, checkpointer=library.InMemorySaver())
        yield mode, list(app.stream({"topic": "ice"}, CONFIG, stream_mode=mode))


@program
def modes_in_a_list(library):
    app = joker(library)
    yield from app.stream({"topic": "ice"}, stream_mode=["updates", "values", "custom"])
    yield list(app.stream({"topic": "ice"}, stream_mode=["updates"]))


@program
def version_two(library):
    app = joker(library)
    yield list(app.stream({"topic": "ice"}, stream_mode=["updates", "values"], version="v2"))
    yield list(app.stream({"topic": "ice"}, stream_mode="updates", version="v2"))


@program
def default_mode_and_output_keys(library):
    app = joker(library)
    yield list(app.stream({"topic": "ice"}))
    yield list(app.stream({"topic": "ice"}, output_keys=["joke"]))
    yield list(app.stream({"topic": "ice"}, output_keys="joke", stream_mode="values"))
    yield app.invoke({"topic": "ice"}, output_keys=["joke"])
    yield app.invoke({"topic": "ice"}, stream_mode="updates")


@program
def progress_from_writer(library):
    def work(s):
        writer = library.get_stream_writer()
        for i in range(3):
            writer({"progress": i})
        writer("text")
        return {"log": ["done"]}

    def work2(s, writer: library.StreamWriter):
        writer(("a", 1))
        writer(None)
        return {}

    b = library.StateGraph(S)
    b.add_node("work", work)
    b.add_node("work2", work2)
    b.add_edge(library.START, "work")
    b.add_edge("work", "work2")
    app = b.compile()
    yield list(app.stream({"topic": "x"}, stream_mode="custom"))
    yield list(app.stream({"topic": "x"}, stream_mode=["custom", "updates"]))
    yield list(app.stream({"topic": "x"}))


@program
def tokens_of_a_model(library):
    llm = model("hello big world", "and more")

    def call(s):
        return {"joke": llm.invoke([HumanMessage(s["topic"])]).content}

    b = library.StateGraph(S)
    b.add_node("call", call)
    b.add_edge(library.START, "call")
    app = b.compile()
    for chunk, meta in app.stream({"topic": "x"}, stream_mode="messages"):
        yield type(chunk).__name__, chunk.content, meta["langgraph_node"], meta["langgraph_step"]
    yield [
        (m, c if m == "updates" else c[0].content)
        for m, c in app.stream({"topic": "x"}, stream_mode=["messages", "updates"])
    ]


@program
async def tokens_async_with_tags(library):
    one, two = model("joke text here"), model("poem text here")
    one, two = one.with_config(tags=["joke"]), two.with_config(tags=["poem"])

    async def call(s):
        a = await one.ainvoke(s["topic"])
        b = await two.ainvoke(s["topic"])
        return {"log": [a.content, b.content]}

    b = library.StateGraph(S)
    b.add_node("call", call)
    b.add_edge(library.START, "call")
    app = b.compile()
    async for chunk, meta in app.astream({"topic": "x"}, stream_mode="messages"):
        yield chunk.content, meta.get("tags"), meta["langgraph_node"]


@program
def messages_mode_shows_returned_messages(library):
    b = library.StateGraph(library.MessagesState)
    b.add_node("a", lambda s: {"messages": [AIMessage("whole", id="1")]})
    b.add_node("b", lambda s: {"messages": [("ai", "pair")]})
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile()
    for message, meta in app.stream({"messages": "hi"}, stream_mode="messages"):
        yield type(message).__name__, message.content, meta["langgraph_node"]


@program
def subgraph_updates(library):
    inner = library.StateGraph(S)
    inner.add_node("in1", lambda s: {"log": ["in1"]})
    inner.add_node("in2", lambda s: {"log": ["in2"]})
    inner.add_edge(library.START, "in1")
    inner.add_edge("in1", "in2")
    b = library.StateGraph(S)
    b.add_node("first", lambda s: {"log": ["first"]})
    b.add_node("sub", inner.compile())
    b.add_edge(library.START, "first")
    b.add_edge("first", "sub")
    app = b.compile()
    for mode in ("updates", "values", "tasks"):
        for ns, chunk in app.stream({"topic": "x"}, subgraphs=True, stream_mode=mode):
            yield [n.split(":")[0] for n in ns], chunk
    for ns, mode, chunk in app.stream(
        {"topic": "x"}, subgraphs=True, stream_mode=["updates", "values"]
    ):
        yield [n.split(":")[0] for n in ns], mode, chunk
    yield list(app.stream({"topic": "x"}, stream_mode="updates"))


@program
def subgraph_tokens_and_messages(library):
    llm = model("a b")
    inner = library.StateGraph(library.MessagesState)
    inner.add_node("llm", lambda s: {"messages": [llm.invoke(s["messages"])]})
    inner.add_edge(library.START, "llm")
    b = library.StateGraph(library.MessagesState)
    b.add_node("agent", inner.compile())
    b.add_node("after", lambda s: {"messages": [("ai", "done")]})
    b.add_edge(library.START, "agent")
    b.add_edge("agent", "after")
    app = b.compile()
    for ns, (chunk, meta) in app.stream({"messages": "x"}, stream_mode="messages", subgraphs=True):
        yield [n.split(":")[0] for n in ns], chunk.content, meta["langgraph_node"]


@program
def subgraph_update_messages_are_objects(library):
    inner = library.StateGraph(library.MessagesState)
    inner.add_node("say", lambda s: {"messages": [{"role": "assistant", "content": "dict"}]})
    inner.add_edge(library.START, "say")
    b = library.StateGraph(library.MessagesState)
    b.add_node("sub", inner.compile())
    b.add_edge(library.START, "sub")
    app = b.compile(checkpointer=library.InMemorySaver())
    for chunk in app.stream({"messages": [{"role": "user", "content": "q"}]}, CONFIG):
        yield [(m.type, m.content) for m in chunk["sub"]["messages"]]
    for chunk in app.stream({"messages": "q"}, thread(2), stream_mode="tasks"):
        result = chunk.get("result")
        if result:
            yield [(type(m).__name__, m.content) for m in result["messages"]]
    for state in app.get_state_history(CONFIG):
        for task in state.tasks:
            if task.result and "messages" in task.result:
                yield task.name, [(type(m).__name__, m.content) for m in task.result["messages"]]


@program
def stream_failing(library):
    b = library.StateGraph(S)
    b.add_node("ok", lambda s: {"log": ["ok"]})
    b.add_node("bad", lambda s: s["nothing"])
    b.add_edge(library.START, "ok")
    b.add_edge("ok", "bad")
    app = b.compile(checkpointer=library.InMemorySaver())
    for mode in ("updates", "tasks", "values"):
        found = []
        try:
            for chunk in app.stream({"topic": "x"}, thread(mode), stream_mode=mode):
                found.append(chunk)
        except KeyError as e:
            found.append(repr(e))
        yield found


@program
def stop_reading_early(library):
    app = joker(library, checkpointer=library.InMemorySaver())
    for chunk in app.stream({"topic": "x"}, CONFIG, durability="sync"):
        yield chunk
        break
    yield app.get_state(CONFIG).values["topic"]


@program
async def events_v2(library):
    llm = model("hi you")

    async def call(s):
        return {"joke": (await llm.ainvoke(s["topic"])).content}

    b = library.StateGraph(S)
    b.add_node("call", call)
    b.add_edge(library.START, "call")
    app = b.compile()
    async for event in app.astream_events({"topic": "x"}, version="v2"):
        if event["event"] == "on_chat_model_stream":
            yield event["data"]["chunk"].content, event["metadata"]["langgraph_node"]
        elif event["event"].startswith("on_chain_") and event["name"] in ("LangGraph", "call"):
            yield event["event"], event["name"]


@program
def stream_none_and_parallel(library):
    b = library.StateGraph(S)
    b.add_node("a", lambda s: None)
    b.add_node("b", lambda s: {})
    b.add_node("c", lambda s: {"log": ["c"]})
    for n in "abc":
        b.add_edge(library.START, n)
    app = b.compile()
    found = list(app.stream({"topic": "x"}))
    yield sorted(map(str, found))
    yield list(app.stream({"topic": "x"}, stream_mode="values"))


@program
def print_mode_and_debug(library):
    app = joker(library)
    yield app.invoke({"topic": "x"}, debug=False)
    yield list(app.stream({"topic": "x"}, stream_mode="debug"))
