"""What people keep in states, and how they write nodes: documents, models, methods, chains."""

import asyncio
import datetime
import enum
import functools
import operator
import uuid
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple

from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import (
    FakeListChatModel,
    FakeMessagesListChatModel,
    GenericFakeChatModel,
)
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import StructuredTool, tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, history, program, shown, thread


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Person(BaseModel):
    name: str
    born: datetime.date | None = None


@dataclass
class Point:
    x: int
    y: int = 0
    tags: list = field(default_factory=list)


class Inner(BaseModel):
    n: int = 0


class Pair(NamedTuple):
    a: int
    b: str


class Values(TypedDict, total=False):
    value: Any
    docs: list[Document]
    color: Color
    level: Level
    person: Person
    people: list[Person]
    point: Point
    when: datetime.datetime
    amount: Decimal
    key: uuid.UUID
    raw: bytes
    names: set
    pair: Pair
    log: Annotated[list, operator.add]


def one(library, update, schema=Values, **options):
    b = library.StateGraph(schema)
    b.add_node("n", lambda s: update)
    b.add_edge(library.START, "n")
    return b.compile(checkpointer=library.InMemorySaver(), **options)


@program
def documents_in_state(library):
    docs = [Document(page_content="a", metadata={"source": "x", "page": 1}), Document("b")]
    app = one(library, {"docs": docs})
    r = app.invoke({"value": "q"}, CONFIG)
    yield [(type(d).__name__, d.page_content, d.metadata) for d in r["docs"]]
    yield [
        (type(d).__name__, d.page_content, d.metadata) for d in app.get_state(CONFIG).values["docs"]
    ]


@program
def standard_types_in_state(library):
    values = {
        "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        "amount": Decimal("1.10"),
        "key": uuid.UUID(int=5),
        "raw": b"\x00\xff",
        "names": {"a"},
        "value": {"nested": [1, None, True, 1.5, {"k": datetime.date(2024, 1, 1)}]},
    }
    app = one(library, values)
    yield {k: (type(v).__name__, str(v)) for k, v in app.invoke({"log": []}, CONFIG).items()}
    yield {k: (type(v).__name__, str(v)) for k, v in app.get_state(CONFIG).values.items()}


@program
def enums_and_models_in_state(library):
    values = {
        "color": Color.RED,
        "level": Level.LOW,
        "person": Person(name="Ann", born=datetime.date(2000, 1, 1)),
        "people": [Person(name="Bob")],
        "point": Point(1, tags=["t"]),
    }
    app = one(library, values)
    app.invoke({"log": []}, CONFIG)
    found = app.get_state(CONFIG).values
    yield found["color"] is Color.RED, found["level"] == 1, type(found["level"]).__name__
    yield found["person"], found["people"][0].name, found["point"]
    yield type(found["person"]).__name__, type(found["point"]).__name__


@program
def models_in_an_any_key(library):
    app = one(library, {"value": Person(name="x"), "log": [Point(1)]})
    app.invoke({"log": []}, CONFIG)
    found = app.get_state(CONFIG).values
    yield type(found["value"]).__name__, type(found["log"][0]).__name__


@program
def tuples_and_deques(library):
    app = one(library, {"value": deque([1, 2]), "log": [[1, 2]]})
    yield type(app.invoke({"log": []}, CONFIG)["value"]).__name__
    yield type(app.get_state(CONFIG).values["value"]).__name__


@program
def methods_and_callables_as_nodes(library):
    class Nodes:
        def __init__(self, n):
            self.n = n

        def step(self, state):
            return {"log": [self.n]}

        def __call__(self, state, config: RunnableConfig):
            return {"log": [f"called {self.n}"]}

        @staticmethod
        def static(state):
            return {"log": ["static"]}

    def with_args(state, extra, *, more=None):
        return {"log": [extra, more]}

    nodes = Nodes(5)
    b = library.StateGraph(Values)
    b.add_node("step", nodes.step)
    b.add_node("call", nodes)
    b.add_node(Nodes.static)
    b.add_node("partial", functools.partial(with_args, extra="e", more="m"))

    b.add_edge(library.START, "step")
    b.add_edge("step", "call")
    b.add_edge("call", "static")
    b.add_edge("static", "partial")
    yield b.compile().invoke({"log": []})


@program
def chains_as_nodes(library):
    prompt = ChatPromptTemplate.from_messages([("system", "be nice"), ("human", "{value}")])
    chain = prompt | FakeListChatModel(responses=["hello"]) | StrOutputParser()
    b = library.StateGraph(Values)
    b.add_node("chain", chain | RunnableLambda(lambda text: {"log": [text]}))
    b.add_node("assign", RunnableLambda(lambda s: {"value": chain.invoke({"value": s["value"]})}))
    b.add_edge(library.START, "chain")
    b.add_edge("chain", "assign")
    app = b.compile()
    yield app.invoke({"value": "hi", "log": []})
    yield [
        (m.content, meta["langgraph_node"])
        for m, meta in app.stream({"value": "x", "log": []}, stream_mode="messages")
    ]


@program
def model_as_node_with_messages(library):
    llm = FakeMessagesListChatModel(responses=[AIMessage("one", id="1"), AIMessage("two", id="2")])

    class State(TypedDict):
        messages: Annotated[list[AnyMessage], library.add_messages]

    b = library.StateGraph(State)
    b.add_node("llm", lambda s: {"messages": llm.invoke([SystemMessage("s"), *s["messages"]])})
    b.set_entry_point("llm")
    b.set_finish_point("llm")
    app = b.compile(checkpointer=library.InMemorySaver())
    for t in "ab":
        r = app.invoke({"messages": [HumanMessage(t)]}, CONFIG)
        yield [(m.type, m.content) for m in r["messages"]]


@program
def llm_stop_after_tool_results(library):
    calls = []

    @tool
    def search(query: str, limit: int = 3) -> list[dict]:
        """Search the web."""
        calls.append((query, limit))
        return [{"title": query, "n": limit}]

    @tool(return_direct=True)
    def final(text: str) -> str:
        """Give the answer."""
        return text.upper()

    def typed(a: int, b: float = 2.0) -> float:
        """Typed."""
        return a * b

    node = library.ToolNode([search, final, StructuredTool.from_function(typed)])
    b = library.StateGraph(library.MessagesState)
    b.add_node("tools", node)
    b.add_edge(library.START, "tools")
    app = b.compile()

    def call(name, **args):
        return {"name": name, "args": args, "id": name, "type": "tool_call"}

    message = AIMessage(
        "", tool_calls=[call("search", query="q"), call("final", text="x"), call("typed", a=2)]
    )
    for m in app.invoke({"messages": [message]})["messages"][1:]:
        yield m.name, m.content, m.tool_call_id, m.status
    yield calls


@program
def tool_artifacts_and_config(library):
    @tool(response_format="content_and_artifact")
    def chart(n: int, config: RunnableConfig) -> tuple[str, dict]:
        """Chart."""
        return f"chart for {config['configurable']['user']}", {"n": n}

    b = library.StateGraph(library.MessagesState)
    b.add_node("tools", library.ToolNode([chart]))
    b.add_edge(library.START, "tools")
    app = b.compile()
    call = {"name": "chart", "args": {"n": 1}, "id": "1", "type": "tool_call"}
    r = app.invoke(
        {"messages": [AIMessage("", tool_calls=[call])]}, {"configurable": {"user": "u"}}
    )
    yield r["messages"][-1].content, r["messages"][-1].artifact


@program
async def async_tools(library):
    @tool
    async def wait(n: int) -> str:
        """Wait."""
        await asyncio.sleep(0)
        return f"waited {n}"

    b = library.StateGraph(library.MessagesState)
    b.add_node("tools", library.ToolNode([wait]))
    b.add_edge(library.START, "tools")
    app = b.compile()
    calls = [
        {"name": "wait", "args": {"n": n}, "id": str(n), "type": "tool_call"} for n in range(3)
    ]
    r = await app.ainvoke({"messages": [AIMessage("", tool_calls=calls)]})
    yield [(m.content, m.tool_call_id) for m in r["messages"][1:]]


@program
def tool_writes_to_stream(library):
    @tool
    def slow(city: str) -> str:
        """Slow."""
        writer = library.get_stream_writer()
        writer(f"looking up {city}")
        return "sunny"

    b = library.StateGraph(library.MessagesState)
    b.add_node("tools", library.ToolNode([slow]))
    b.add_edge(library.START, "tools")
    app = b.compile()
    call = {"name": "slow", "args": {"city": "sf"}, "id": "1", "type": "tool_call"}
    yield list(app.stream({"messages": [AIMessage("", tool_calls=[call])]}, stream_mode="custom"))


@program
def toolnode_alone(library):
    @tool
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    node = library.ToolNode([add], messages_key="chat", handle_tool_errors="oops")

    class S(TypedDict):
        chat: Annotated[list[BaseMessage], library.add_messages]

    b = library.StateGraph(S)
    b.add_node("tools", node)
    b.add_conditional_edges(
        library.START, functools.partial(library.tools_condition, messages_key="chat")
    )
    app = b.compile()
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "1", "type": "tool_call"}
    yield [m.content for m in app.invoke({"chat": [AIMessage("", tool_calls=[call])]})["chat"]]
    yield [m.content for m in app.invoke({"chat": [AIMessage("none")]})["chat"]]
    bad = {"name": "add", "args": {"a": "x", "b": 2}, "id": "1", "type": "tool_call"}
    yield app.invoke({"chat": [AIMessage("", tool_calls=[bad])]})["chat"][-1].content


@program
def tool_runtime(library):
    class State(library.MessagesState):
        user: str

    @tool
    def who(greeting: str, runtime: library.ToolRuntime) -> str:
        """Who."""
        runtime.stream_writer({"tool": "who"})
        return f"{greeting} {runtime.state['user']} {runtime.tool_call_id} {runtime.context}"

    b = library.StateGraph(State)
    b.add_node("tools", library.ToolNode([who]))
    b.add_edge(library.START, "tools")
    app = b.compile()
    call = {"name": "who", "args": {"greeting": "hi"}, "id": "7", "type": "tool_call"}
    given = {"messages": [AIMessage("", tool_calls=[call])], "user": "Ann"}
    yield app.invoke(given)["messages"][-1].content
    yield list(app.stream(given, stream_mode="custom"))


@program
def agent_with_structured_response(library):
    class Weather(BaseModel):
        conditions: str = Field(description="c")

    class Model(GenericFakeChatModel):
        def bind_tools(self, tools, **kwargs):
            return self

        def with_structured_output(self, schema, **kwargs):
            return RunnableLambda(lambda _: schema(conditions="fine"))

    llm = Model(messages=iter([AIMessage("sunny")]))
    agent = library.create_react_agent(llm, [], response_format=Weather)
    r = agent.invoke({"messages": [("user", "w")]})
    yield r["structured_response"], r["messages"][-1].content


@program
def agent_tool_that_fails(library):
    @tool
    def broken(x: int) -> str:
        """Broken."""
        raise RuntimeError("no")

    class Model(GenericFakeChatModel):
        def bind_tools(self, tools, **kwargs):
            return self

    call = {"name": "broken", "args": {"x": 1}, "id": "1", "type": "tool_call"}
    llm = Model(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("sorry")]))
    agent = library.create_react_agent(llm, library.ToolNode([broken], handle_tool_errors=True))
    yield [(m.type, m.content) for m in agent.invoke({"messages": "x"})["messages"]]


@program
def dynamic_model_and_prompt(library):
    class Model(GenericFakeChatModel):
        def bind_tools(self, tools, **kwargs):
            return self

    class Ctx(TypedDict):
        lang: str

    one_, two = Model(messages=iter([AIMessage("en")])), Model(messages=iter([AIMessage("de")]))

    def select(state, runtime):
        return two if runtime.context["lang"] == "de" else one_

    agent = library.create_react_agent(select, [], context_schema=Ctx)
    yield agent.invoke({"messages": "x"}, context={"lang": "de"})["messages"][-1].content


@program
def union_and_literal_routes(library):
    def a(s) -> library.Command[Literal["b", "c"]]:
        return library.Command(goto=["b", "c"], update={"log": ["a"]})

    def b_(s) -> library.Command[Literal["d"]] | dict:
        return library.Command(goto="d") if s["log"] else {}

    b = library.StateGraph(Values)
    b.add_node("a", a)
    b.add_node("b", b_)
    b.add_node("c", lambda s: {"log": ["c"]})
    b.add_node("d", lambda s: {"log": ["d"]})
    b.add_edge(library.START, "a")
    app = b.compile()
    yield app.invoke({"log": []})
    yield app.get_graph().draw_mermaid()


@program
def command_update_forms(library):
    def node(update):
        b = library.StateGraph(Values)
        b.add_node("n", lambda s: library.Command(update=update))
        b.add_edge(library.START, "n")
        return b.compile().invoke({"log": [0]})

    yield node({"log": [1]})
    yield node([("log", [1]), ("log", [2]), ("value", 3)])
    yield node(None)
    yield node({})


@program
def list_of_commands_and_dicts(library):
    def n(s):
        return [library.Command(update={"log": [1]}, goto="m"), {"log": [2]}]

    b = library.StateGraph(Values)
    b.add_node("n", n)
    b.add_node("m", lambda s: {"log": ["m"]})
    b.add_edge(library.START, "n")
    app = b.compile()
    yield app.invoke({"log": []})
    yield list(app.stream({"log": []}))


@program
def max_concurrency_and_order(library):
    b = library.StateGraph(Values)
    b.add_node("w", lambda s: {"log": [s["i"]]})
    b.add_conditional_edges(
        library.START, lambda s: [library.Send("w", {"i": i}) for i in range(6)], ["w"]
    )
    app = b.compile()
    yield app.invoke({"value": 1}, {"max_concurrency": 1})["log"]
    yield app.invoke({"value": 1}, {"max_concurrency": 3})["log"]


@program
async def async_map_in_order(library):
    async def w(s):
        await asyncio.sleep(0.002 * (3 - s["i"]))
        return {"log": [s["i"]]}

    b = library.StateGraph(Values)
    b.add_node("w", w)
    b.add_conditional_edges(
        library.START, lambda s: [library.Send("w", {"i": i}) for i in range(3)], ["w"]
    )
    app = b.compile()
    yield (await app.ainvoke({"value": 1}))["log"]
    yield [c async for c in app.astream({"value": 1})]


@program
async def async_retries(library):
    tries = []

    async def flaky(s):
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("down")
        return {"log": [len(tries)]}

    b = library.StateGraph(Values)
    policy = library.RetryPolicy(initial_interval=0.001, jitter=False)
    b.add_node("flaky", flaky, retry_policy=policy)
    b.add_edge(library.START, "flaky")
    yield await b.compile().ainvoke({"log": []})


@program
async def cancel_a_run(library):
    started = asyncio.Event()

    async def slow(s):
        started.set()
        await asyncio.sleep(10)

    b = library.StateGraph(Values)
    b.add_node("fast", lambda s: {"log": ["fast"]})
    b.add_node("slow", slow)
    b.add_edge(library.START, "fast")
    b.add_edge("fast", "slow")
    app = b.compile(checkpointer=library.InMemorySaver())
    task = asyncio.create_task(app.ainvoke({"log": []}, CONFIG, durability="sync"))
    await started.wait()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        yield "cancelled"
    state = await app.aget_state(CONFIG)
    yield state.values, state.next


@program
def nested_models_as_state(library):
    class Outer(BaseModel):
        inner: Inner = Inner()
        items: list[Inner] = []
        text: str = ""

    def n(s: Outer):
        return {"inner": Inner(n=s.inner.n + 1), "items": [*s.items, Inner(n=5)], "text": "t"}

    app_builder = library.StateGraph(Outer)
    app_builder.add_node("n", n)
    app_builder.add_edge(library.START, "n")
    app = app_builder.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"text": "x"}, CONFIG)
    yield app.invoke(Outer(inner=Inner(n=3)), CONFIG)
    yield app.get_state(CONFIG).values


@program
def same_key_reducers_in_two_schemas(library):
    class In(TypedDict):
        log: list
        question: str

    class All(TypedDict):
        log: Annotated[list, operator.add]
        question: str
        answer: str

    class Out(TypedDict):
        answer: str
        log: list

    b = library.StateGraph(All, input_schema=In, output_schema=Out)
    b.add_node("n", lambda s: {"answer": s["question"] + "!", "log": ["n"]})
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"question": "q", "log": ["in"]}, CONFIG)
    yield list(app.stream({"question": "q", "log": []}, CONFIG, stream_mode="values"))
    yield app.get_state(CONFIG).values


@program
def old_names(library):
    class Conf(TypedDict):
        model: str

    def n(s, config):
        return {"log": [config["configurable"].get("model", "none")]}

    b = library.StateGraph(Values)
    b.add_node("n", n, retry_policy=None)
    b.set_entry_point("n")
    b.set_finish_point("n")
    app = b.compile()
    yield app.invoke({"log": []}, config={"configurable": {"model": "m"}})
    yield app.invoke({"log": []}, {"configurable": {}})


@program
def stream_modes_with_interrupt_and_subgraph(library):
    inner = library.StateGraph(Values)
    inner.add_node("ask", lambda s: {"log": [library.interrupt("?")]})
    inner.add_edge(library.START, "ask")
    b = library.StateGraph(Values)
    b.add_node("sub", inner.compile())
    b.add_edge(library.START, "sub")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield list(app.stream({"log": []}, CONFIG, subgraphs=True))
    yield list(app.stream({"log": []}, thread(2), stream_mode=["values", "updates"]))
    yield list(
        app.stream(library.Command(resume="x"), CONFIG, subgraphs=True, stream_mode="values")
    )
    yield shown(app.get_state(thread(2)))


@program
def history_of_subgraph(library):
    inner = library.StateGraph(Values)
    inner.add_node("a", lambda s: {"log": ["a"]})
    inner.add_node("b", lambda s: {"log": [library.interrupt("b?")]})
    inner.add_edge(library.START, "a")
    inner.add_edge("a", "b")
    b = library.StateGraph(Values)
    b.add_node("sub", inner.compile())
    b.add_edge(library.START, "sub")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"log": ["in"]}, CONFIG)
    place = app.get_state(CONFIG).tasks[0].state
    yield [(s.next, s.values) for s in app.get_state_history(place)]
    yield app.invoke(library.Command(resume="yes"), CONFIG)
    yield history(app)


@program
def two_threads_forked_by_copying_config(library):
    b = library.StateGraph(Values)
    b.add_node("a", lambda s: {"log": ["a"]})
    b.add_node("b", lambda s: {"log": ["b"]})
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile(checkpointer=library.InMemorySaver(), interrupt_before=["b"])
    app.invoke({"log": []}, CONFIG)
    state = app.get_state(CONFIG)
    app.update_state(thread(2), state.values, as_node="a")
    yield app.get_state(thread(2)).next, app.invoke(None, thread(2)), app.get_state(CONFIG).next


@program
def recursion_in_subgraph(library):
    inner = library.StateGraph(Values)
    inner.add_node("loop", lambda s: {"log": ["l"]})
    inner.add_edge(library.START, "loop")
    inner.add_conditional_edges("loop", lambda s: "loop", ["loop"])
    b = library.StateGraph(Values)
    b.add_node("sub", inner.compile())
    b.add_edge(library.START, "sub")
    b.compile().invoke({"log": []}, {"recursion_limit": 5})


@program
def error_in_router(library):
    b = library.StateGraph(Values)
    b.add_node("a", lambda s: {"log": ["a"]})
    b.add_edge(library.START, "a")
    b.add_conditional_edges("a", lambda s: {"x": 1}["y"], ["a", library.END])
    app = b.compile(checkpointer=library.InMemorySaver())
    try:
        app.invoke({"log": []}, CONFIG)
    except KeyError as e:
        yield str(e)


@program
def router_returns_unmapped_value(library):
    b = library.StateGraph(Values)
    b.add_node("a", lambda s: {"log": ["a"]})
    b.add_edge(library.START, "a")
    b.add_conditional_edges("a", lambda s: "nowhere", {"somewhere": library.END})
    b.compile().invoke({"log": []})


@program
def name_and_tags_in_events(library):
    from langchain_core.callbacks import BaseCallbackHandler

    seen = []

    class Handler(BaseCallbackHandler):
        def on_chain_start(self, serialized, inputs, *, name=None, tags=None, metadata=None, **kw):
            seen.append((name, sorted(t for t in tags or () if not t.startswith(("seq", "graph")))))

        def on_chat_model_start(self, serialized, messages, **kwargs):
            seen.append("model")

        def on_tool_start(self, serialized, input_str, **kwargs):
            seen.append(("tool", serialized["name"]))

    @tool
    def t(x: int) -> int:
        """T."""
        return x

    llm = FakeListChatModel(responses=["hi"])

    def node(s):
        llm.invoke("x")
        t.invoke({"x": 1})
        return {"log": []}

    b = library.StateGraph(Values)
    b.add_node("node", node)
    b.add_edge(library.START, "node")
    app = b.compile(name="mygraph")
    app.invoke({"log": []}, {"callbacks": [Handler()], "tags": ["mine"]})
    yield seen
    seen.clear()
    app.invoke({"log": []}, {"callbacks": [Handler()], "run_name": "named"})
    yield seen[0]


@program
def graph_as_tool_and_chain(library):
    b = library.StateGraph(Values)
    b.add_node("n", lambda s: {"value": f"v {s['value']}"})
    b.add_edge(library.START, "n")
    app = b.compile(name="sub")
    chain = RunnableLambda(lambda x: {"value": x}) | app | RunnableLambda(lambda s: s["value"])
    yield chain.invoke("x"), chain.batch(["a", "b"])
    yield app.with_retry().invoke({"value": 1})["value"]
    yield app.with_config(tags=["x"]).invoke({"value": 2})["value"]


@program
async def mixed_sync_async(library):
    async def a(s):
        return {"log": ["async"]}

    def b_(s):
        return {"log": ["sync"]}

    b = library.StateGraph(Values)
    b.add_node("a", a)
    b.add_node("b", b_)
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield await app.ainvoke({"log": []}, CONFIG)
    await app.aupdate_state(CONFIG, {"log": ["u"]}, as_node="a")
    yield (await app.aget_state(CONFIG)).next
    yield await app.ainvoke(None, CONFIG)
    yield [s.metadata["source"] async for s in app.aget_state_history(CONFIG)]


@program
def parallel_write_conflict(library):
    b = library.StateGraph(Values)
    b.add_node("a", lambda s: {"value": 1})
    b.add_node("b", lambda s: {"value": 2})
    b.add_edge(library.START, "a")
    b.add_edge(library.START, "b")
    b.compile().invoke({"value": 0})


@program
def overwrite_in_update_state(library):
    b = library.StateGraph(Values)
    b.add_node("a", lambda s: {"log": ["a"]})
    b.add_edge(library.START, "a")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"log": ["x"]}, CONFIG)
    app.update_state(CONFIG, {"log": library.Overwrite(["new"])})
    yield app.get_state(CONFIG).values
    yield app.invoke({"log": ["y"]}, CONFIG)


@program
def tool_message_pairs_survive_edits(library):
    call = {"name": "t", "args": {}, "id": "1", "type": "tool_call"}
    b = library.StateGraph(library.MessagesState)
    b.add_node("m", lambda s: {"messages": [AIMessage("", tool_calls=[call], id="a")]})
    b.add_node("t", lambda s: {"messages": [ToolMessage("r", tool_call_id="1", id="b")]})
    b.add_edge(library.START, "m")
    b.add_edge("m", "t")
    app = b.compile(checkpointer=library.InMemorySaver(), interrupt_before=["t"])
    app.invoke({"messages": [HumanMessage("q", id="q")]}, CONFIG)
    last = app.get_state(CONFIG).values["messages"][-1]
    last.tool_calls[0]["args"] = {"x": 1}
    app.update_state(CONFIG, {"messages": [last]})
    yield app.get_state(CONFIG).values["messages"][-1].tool_calls, app.get_state(CONFIG).next
    yield [(m.id, m.type) for m in app.invoke(None, CONFIG)["messages"]]
