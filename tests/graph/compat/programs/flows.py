"""How graphs flow: maps, joins, deferred nodes, retries, schemas, errors, batches."""

import asyncio
import operator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, Field, field_validator
from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, history, program, shown, thread


class S(TypedDict):
    xs: Annotated[list, operator.add]


class Overall(TypedDict, total=False):
    topic: str
    subjects: list
    jokes: Annotated[list, operator.add]
    best: str


def add(name):
    return lambda s: {"xs": [name]}


@program
def joke_map_reduce(library):
    b = library.StateGraph(Overall)
    b.add_node("topics", lambda s: {"subjects": [s["topic"] + str(i) for i in range(3)]})
    b.add_node("joke", lambda s: {"jokes": ["joke about " + s["subject"]]})
    b.add_node("best", lambda s: {"best": max(s["jokes"])})
    b.add_edge(library.START, "topics")
    b.add_conditional_edges(
        "topics", lambda s: [library.Send("joke", {"subject": x}) for x in s["subjects"]], ["joke"]
    )
    b.add_edge("joke", "best")
    b.add_edge("best", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield sorted(map(str, app.stream({"topic": "t"}, CONFIG)))
    yield history(app)
    yield app.get_graph().draw_mermaid()


@program
def send_to_subgraph(library):
    class Inner(TypedDict):
        subject: str
        jokes: Annotated[list, operator.add]

    inner = library.StateGraph(Inner)
    inner.add_node("write", lambda s: {"jokes": [s["subject"] + "!"]})
    inner.add_edge(library.START, "write")
    b = library.StateGraph(Overall)
    b.add_node("joke", inner.compile())
    b.add_conditional_edges(
        library.START,
        lambda s: [library.Send("joke", {"subject": x, "jokes": []}) for x in s["subjects"]],
        ["joke"],
    )
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"subjects": ["a", "b"]}, CONFIG)
    yield list(app.stream({"subjects": ["c"]}, thread(2), subgraphs=True))
    yield shown(app.get_state(CONFIG))


@program
def sends_of_two_kinds(library):
    b = library.StateGraph(S)
    b.add_node("a", lambda v: {"xs": [f"a{v}"]})
    b.add_node("b", lambda v: {"xs": [f"b{v}"]})
    b.add_node("end", lambda s: {"xs": [len(s["xs"])]})

    def route(s):
        return [library.Send("b", 1), library.Send("a", 2), "end", library.Send("a", 3)]

    b.add_conditional_edges(library.START, route, ["a", "b", "end"])
    app = b.compile()
    yield app.invoke({"xs": []})
    yield sorted(map(str, app.stream({"xs": []})))


@program
def sends_chain(library):
    def again(s):
        if s["n"] == 0:
            return library.Command(update={"xs": ["end"]})
        return library.Command(
            update={"xs": [s["n"]]}, goto=[library.Send("again", {"n": s["n"] - 1})]
        )

    b = library.StateGraph(S)
    b.add_node("again", again)
    b.add_conditional_edges(library.START, lambda s: library.Send("again", {"n": 3}), ["again"])
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"xs": []}, CONFIG)
    yield history(app)


@program
def fan_out_fan_in_with_extra_step(library):
    b = library.StateGraph(S)
    for n in ("a", "b", "b2", "c", "d"):
        b.add_node(n, lambda s, n=n: {"xs": [n + str(len(s["xs"]))]})
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    b.add_edge("a", "c")
    b.add_edge("b", "b2")
    b.add_edge(["b2", "c"], "d")
    b.add_edge("d", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"xs": []}, CONFIG)
    chunks = app.stream({"xs": []}, thread(2), stream_mode="tasks")
    yield sorted((c["name"], c.get("triggers", ()), str(c.get("result"))) for c in chunks)


@program
def deferred_join(library):
    b = library.StateGraph(S)
    for n in ("a", "b", "b2", "c"):
        b.add_node(n, add(n))
    b.add_node("d", lambda s: {"xs": ["d" + str(len(s["xs"]))]}, defer=True)
    for x, y in [
        (library.START, "a"),
        ("a", "b"),
        ("a", "c"),
        ("b", "b2"),
        ("b2", "d"),
        ("c", "d"),
    ]:
        b.add_edge(x, y)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield list(app.stream({"xs": []}, CONFIG, stream_mode="values"))
    yield history(app)


@program
def sorted_fan_in(library):
    def sort(a, b):
        return sorted((a or []) + b)

    class T(TypedDict):
        seen: Annotated[list, sort]

    b = library.StateGraph(T)
    for n in "zyx":
        b.add_node(n, lambda s, n=n: {"seen": [n]})
        b.add_edge(library.START, n)
    yield b.compile().invoke({"seen": ["m"]})


@program
def conditional_entry(library):
    b = library.StateGraph(S)
    b.add_node("a", add("a"))
    b.add_node("b", add("b"))
    b.set_conditional_entry_point(
        lambda s: "first" if s["xs"] else "second", {"first": "a", "second": "b"}
    )
    b.set_finish_point("a")
    b.add_edge("b", library.END)
    app = b.compile()
    yield app.invoke({"xs": []}), app.invoke({"xs": [0]})
    yield app.get_graph().draw_mermaid()
    yield (
        sorted(app.get_graph().nodes),
        [(e.source, e.target, e.conditional, e.data) for e in app.get_graph().edges],
    )


@program
def literal_router(library):
    def route(s) -> Literal["a", "b"]:
        return "b" if len(s["xs"]) > 1 else "a"

    b = library.StateGraph(S)
    b.add_node("a", add("a"))
    b.add_node("b", add("b"))
    b.add_conditional_edges(library.START, route)
    b.add_conditional_edges("a", route)
    app = b.compile()
    yield app.invoke({"xs": []})
    yield app.get_graph().draw_mermaid()


@program
def two_conditional_edges_of_one_node(library):
    b = library.StateGraph(S)
    for n in "abc":
        b.add_node(n, add(n))
    b.add_edge(library.START, "a")
    b.add_conditional_edges("a", lambda s: "b", ["b"])

    def other(s):
        return ["c"]

    b.add_conditional_edges("a", other, ["c"])
    yield b.compile().invoke({"xs": []})


@program
async def async_routers_and_nodes(library):
    async def node(s):
        await asyncio.sleep(0)
        return {"xs": ["n"]}

    async def route(s):
        return "node" if len(s["xs"]) < 3 else library.END

    b = library.StateGraph(S)
    b.add_node(node)
    b.add_node("plain", add("p"))
    b.add_edge(library.START, "plain")
    b.add_edge("plain", "node")
    b.add_conditional_edges("node", route)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield await app.ainvoke({"xs": []}, CONFIG)
    yield [c async for c in app.astream({"xs": []}, thread(2), stream_mode="values")]
    yield await asyncio.gather(*(app.ainvoke({"xs": [i]}, thread(10 + i)) for i in range(3)))
    app.invoke({"xs": []}, thread(3))


@program
def loop_until_recursion_error(library):
    b = library.StateGraph(S)
    b.add_node("a", add("a"))
    b.add_node("b", add("b"))
    b.add_edge(library.START, "a")
    b.add_conditional_edges(
        "a", lambda s: "b" if len(s["xs"]) < 7 else library.END, ["b", library.END]
    )
    b.add_edge("b", "a")
    app = b.compile(checkpointer=library.InMemorySaver())
    try:
        app.invoke({"xs": []}, {**CONFIG, "recursion_limit": 4})
    except library.GraphRecursionError as e:
        yield isinstance(e, RecursionError), "4" in str(e)
    yield shown(app.get_state(CONFIG))
    yield app.invoke(None, CONFIG)
    seen = []
    try:
        for chunk in app.stream({"xs": []}, {"recursion_limit": 2, **thread(2)}):
            seen.append(chunk)
    except library.GraphRecursionError:
        yield seen


@program
def remaining_steps(library):
    class T(TypedDict):
        xs: Annotated[list, operator.add]
        left: library.RemainingSteps

    b = library.StateGraph(T)
    b.add_node("a", lambda s: {"xs": [s["left"]]})
    b.add_conditional_edges(
        "a", lambda s: library.END if s["left"] <= 2 else "a", ["a", library.END]
    )
    b.add_edge(library.START, "a")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"xs": []}, {"recursion_limit": 5, **CONFIG})
    yield app.get_state(CONFIG).values


@program
def is_last_step(library):
    class T(TypedDict):
        xs: Annotated[list, operator.add]
        is_last_step: library.IsLastStep

    b = library.StateGraph(T)
    b.add_node("a", lambda s: {"xs": [s["is_last_step"]]})
    b.add_conditional_edges(
        "a", lambda s: library.END if s["is_last_step"] else "a", ["a", library.END]
    )
    b.add_edge(library.START, "a")
    yield b.compile().invoke({"xs": []}, {"recursion_limit": 4})


@program
def retry_on_own_errors(library):
    tries = {"n": 0}

    class Flaky(Exception):
        pass

    def node(s):
        tries["n"] += 1
        if tries["n"] < 3:
            raise Flaky(str(tries["n"]))
        return {"xs": [tries["n"]]}

    b = library.StateGraph(S)
    policy = library.RetryPolicy(
        max_attempts=5, initial_interval=0.001, jitter=False, retry_on=Flaky
    )
    b.add_node("n", node, retry_policy=policy)
    b.add_edge(library.START, "n")
    yield b.compile().invoke({"xs": []})
    tries["n"] = 0
    b = library.StateGraph(S)
    b.add_node(
        "n",
        node,
        retry_policy=[
            library.RetryPolicy(retry_on=lambda e: isinstance(e, KeyError)),
            library.RetryPolicy(max_attempts=2, initial_interval=0.001, retry_on=(Flaky,)),
        ],
    )
    b.add_edge(library.START, "n")
    b.compile().invoke({"xs": []})


@program
def default_retry_skips_value_errors(library):
    tries = []

    def node(s):
        tries.append(1)
        raise ValueError("no")

    b = library.StateGraph(S)
    b.add_node("n", node, retry_policy=library.RetryPolicy(initial_interval=0.001))
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    try:
        app.invoke({"xs": []}, CONFIG)
    except ValueError as e:
        yield str(e), len(tries)
    yield shown(app.get_state(CONFIG))


@program
def fail_then_continue(library):
    fail = [True]

    def flaky(s):
        if fail[0]:
            raise RuntimeError("down")
        return {"xs": ["flaky"]}

    b = library.StateGraph(S)
    b.add_node("a", add("a"))
    b.add_node("ok", add("ok"))
    b.add_node("flaky", flaky)
    b.add_edge(library.START, "a")
    b.add_edge("a", "ok")
    b.add_edge("a", "flaky")
    app = b.compile(checkpointer=library.InMemorySaver())
    try:
        app.invoke({"xs": []}, CONFIG)
    except RuntimeError as e:
        yield str(e)
    state = app.get_state(CONFIG)
    yield state.values, set(state.next), {t.name: bool(t.error) for t in state.tasks}
    fail[0] = False
    yield app.invoke(None, CONFIG)
    yield app.get_state(CONFIG).next


@program
def error_handler_of_node(library):
    def node(s):
        raise ValueError("boom")

    def handler(s, error: library.NodeError):
        return library.Command(update={"xs": [f"{error.node}: {error.error}"]}, goto="after")

    b = library.StateGraph(S)
    b.add_node("n", node, error_handler=handler)
    b.add_node("after", add("after"))
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"xs": []}, CONFIG)
    yield app.get_state(CONFIG).values


@program
async def timeout_policy(library):
    async def slow(s):
        await asyncio.sleep(5)

    b = library.StateGraph(S)
    b.add_node("n", slow, timeout=library.TimeoutPolicy(run_timeout=0.05))
    b.add_edge(library.START, "n")
    app = b.compile()
    try:
        await app.ainvoke({"xs": []})
    except library.NodeTimeoutError as e:
        yield e.node, e.kind, e.timeout


@program
def private_state_between_nodes(library):
    class Private(TypedDict):
        secret: str

    class Out(TypedDict):
        answer: str

    class In(TypedDict):
        question: str

    class All(In, Out):
        pass

    def one(s: In) -> Private:
        return {"secret": s["question"] + "?"}

    def two(s: Private) -> Out:
        return {"answer": f"{sorted(s)} {s['secret']}"}

    b = library.StateGraph(All, input_schema=In, output_schema=Out)
    b.add_sequence([one, two])
    b.add_edge(library.START, "one")
    b.add_edge("two", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"question": "q"}, CONFIG)
    yield list(app.stream({"question": "q"}, thread(2)))
    yield list(app.stream({"question": "q"}, thread(3), stream_mode="values"))
    yield shown(app.get_state(CONFIG))
    yield app.get_input_jsonschema()["properties"], app.get_output_jsonschema()["properties"]


@program
def pydantic_validation(library):
    class P(BaseModel):
        name: str
        age: int = Field(ge=0, default=1)
        tags: Annotated[list[str], operator.add] = Field(default_factory=list)
        note: str | None = None

        @field_validator("name")
        @classmethod
        def upper(cls, v):
            return v.upper()

    def node(s: P):
        return {"tags": [s.name, str(s.age)], "age": s.age + 1}

    b = library.StateGraph(P)
    b.add_node(node)
    b.add_edge(library.START, "node")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"name": "ann"}, CONFIG)
    yield app.invoke(P(name="bob", age=3), thread(2))
    yield app.get_state(CONFIG).values
    yield list(app.stream({"name": "x", "age": "5"}, thread(3), stream_mode="values"))
    app.invoke({"name": "x", "age": -1}, thread(4))


@program
def pydantic_bad_output(library):
    class P(BaseModel):
        n: int

    b = library.StateGraph(P)
    b.add_node("a", lambda s: {"n": "no number"})
    b.add_node("b", lambda s: {"n": s.n + 1})
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    b.compile().invoke({"n": 1})


@program
def dataclass_defaults(library):
    @dataclass
    class D:
        q: str
        n: int = 3
        xs: Annotated[list, operator.add] = field(default_factory=list)

    def node(s: D):
        return {"xs": [s.q * s.n]}

    b = library.StateGraph(D)
    b.add_node(node)
    b.add_edge(library.START, "node")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"q": "a"}, CONFIG)
    yield app.invoke(D(q="b", n=1), thread(2))
    yield app.get_state(CONFIG).values


@program
def optional_keys_and_defaults(library):
    class T(TypedDict):
        a: str
        b: NotRequired[int]
        c: Annotated[dict, lambda x, y: {**x, **y}]
        d: Annotated[set, operator.or_]
        e: Annotated[int, lambda x, y: max(x, y)]

    b = library.StateGraph(T)
    b.add_node("n", lambda s: {"c": {"n": sorted(s)}, "d": {1}, "e": 5})
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"a": "x"}, CONFIG)
    yield app.invoke({"a": "y", "b": None, "e": 9, "c": {"k": 1}}, CONFIG)


@program
def batches(library):
    b = library.StateGraph(S)
    b.add_node("n", lambda s: {"xs": [sum(s["xs"])]})
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.batch([{"xs": [i]} for i in range(3)], [thread(i) for i in range(3)])
    yield app.with_config(configurable={"thread_id": "w"}).invoke({"xs": [1]})
    yield app.get_state(thread("w")).values
    yield app.batch([{"xs": [1]}, {"xs": ["bad"]}], [thread(8), thread(9)], return_exceptions=True)[
        0
    ]


@program
async def abatches(library):
    async def node(s):
        return {"xs": [sum(s["xs"])]}

    b = library.StateGraph(S)
    b.add_node("n", node)
    b.add_edge(library.START, "n")
    app = b.compile()
    yield await app.abatch([{"xs": [i]} for i in range(3)])
    yield await app.abatch([{"xs": [1]}, {"xs": [2]}], {"max_concurrency": 1, "tags": ["t"]})


@program
def errors_while_building(library):
    def tried(build):
        b = library.StateGraph(S)
        try:
            build(b)
            return "fine"
        except Exception as e:
            return [c.__name__ for c in type(e).__mro__ if c in (ValueError, TypeError, KeyError)]

    def dup(b):
        b.add_node("a", add("a"))
        b.add_node("a", add("a"))

    def unknown_edge(b):
        b.add_node("a", add("a"))
        b.add_edge(library.START, "a")
        b.add_edge("a", "zzz")
        b.compile()

    def no_entry(b):
        b.add_node("a", add("a"))
        b.compile()

    def from_end(b):
        b.add_edge(library.END, "a")

    def to_start(b):
        b.add_node("a", add("a"))
        b.add_edge("a", library.START)

    def reserved(b):
        b.add_node(library.START, add("a"))

    def bad_interrupt(b):
        b.add_node("a", add("a"))
        b.add_edge(library.START, "a")
        b.compile(interrupt_before=["zzz"])

    def same_as_key(b):
        b.add_node("xs", add("a"))

    def twice_conditional(b):
        def r(s):
            return "a"

        b.add_node("a", add("a"))
        b.add_conditional_edges("a", r)
        b.add_conditional_edges("a", r)

    for each in (
        dup,
        unknown_edge,
        no_entry,
        from_end,
        to_start,
        reserved,
        bad_interrupt,
        same_as_key,
        twice_conditional,
    ):
        yield each.__name__, tried(each)


@program
def errors_while_running(library):
    def tried(node, given: Any = None, schema: Any = S):
        b = library.StateGraph(schema)
        b.add_node("n", node)
        b.add_edge(library.START, "n")
        try:
            return b.compile().invoke({"xs": []} if given is None else given)
        except Exception as e:
            return type(e).__name__

    yield tried(lambda s: 5)
    yield tried(lambda s: [{"xs": [1]}, {"xs": [2]}])
    yield tried(lambda s: "text")
    yield tried(lambda s: {"xs": [1]}, {})
    yield tried(lambda s: {"xs": [1]}, "text")
    yield tried(lambda s: s["nokey"])
    yield tried(lambda s: 1 / 0)
    yield tried(lambda s: {"xs": None})
    yield tried(lambda s: {})
    yield tried(lambda s: None)


@program
def no_thread_id(library):
    b = library.StateGraph(S)
    b.add_node("n", add("n"))
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"xs": []})


@program
def get_state_without_checkpointer(library):
    b = library.StateGraph(S)
    b.add_node("n", add("n"))
    b.add_edge(library.START, "n")
    app = b.compile()
    yield app.invoke({"xs": []}, CONFIG)
    app.get_state(CONFIG)


@program
def runtime_context_everywhere(library):
    @dataclass
    class Ctx:
        user: str
        n: int = 2

    def node(s, runtime: library.Runtime[Ctx]):
        runtime.stream_writer({"w": runtime.context.user})
        return {"xs": [runtime.context.user * runtime.context.n]}

    def route(s, runtime: library.Runtime[Ctx]):
        return "b" if runtime.context.n > 1 else library.END

    b = library.StateGraph(S, context_schema=Ctx)
    b.add_node("a", node)
    b.add_node("b", lambda s: {"xs": [library.get_runtime(Ctx).context.user]})
    b.add_edge(library.START, "a")
    b.add_conditional_edges("a", route, ["b", library.END])
    app = b.compile()
    yield app.invoke({"xs": []}, context=Ctx("u"))
    yield app.invoke({"xs": []}, context={"user": "v", "n": 1})
    yield list(app.stream({"xs": []}, context=Ctx("u"), stream_mode=["custom", "updates"]))


@program
def config_reaches_nodes(library):
    from langchain_core.runnables import RunnableConfig

    def a(s, config: RunnableConfig):
        m = config["metadata"]
        return {
            "xs": [
                config["configurable"]["model"],
                m["langgraph_step"],
                m["langgraph_node"],
                m["user"],
            ]
        }

    def b_(s, config):
        return {"xs": [sorted(config.get("tags") or []), config["recursion_limit"]]}

    b = library.StateGraph(S)
    b.add_node("a", a)
    b.add_node("b", b_)
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile().with_config({"tags": ["app"], "metadata": {"user": "x"}})
    yield app.invoke(
        {"xs": []}, {"configurable": {"model": "m"}, "tags": ["t"], "recursion_limit": 9}
    )
