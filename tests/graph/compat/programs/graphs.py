"""Nodes, edges, routing, map-reduce, retries, failures, errors."""

import asyncio
import operator
import time
from typing import Annotated, Literal

from langchain_core.runnables import RunnableLambda
from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, history, program, shown, thread


@program
def hello(library):

    class State(TypedDict):
        name: str
        greeting: str

    def greet(state: State):
        return {"greeting": f"Hello {state['name']}"}

    def shout(state: State) -> State:
        return {"greeting": state["greeting"].upper()}

    b = library.StateGraph(State)
    b.add_node("greet", greet)
    b.add_node("shout", shout)
    b.add_edge(library.START, "greet")
    b.add_edge("greet", "shout")
    b.add_edge("shout", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"name": "Bob"}, CONFIG)
    yield shown(app.get_state(CONFIG))
    yield history(app)


@program
def reducers_parallel(library):

    class State(TypedDict):
        aggregate: Annotated[list, operator.add]

    def node(n):
        return lambda state: {"aggregate": [n]}

    b = library.StateGraph(State)
    for n in "abcd":
        b.add_node(n, node(n))
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    b.add_edge("a", "c")
    b.add_edge("b", "d")
    b.add_edge("c", "d")
    b.add_edge("d", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"aggregate": []}, CONFIG)
    yield history(app)
    yield list(app.stream({"aggregate": []}, thread(2, max_concurrency=1)))
    yield list(app.stream({"aggregate": []}, thread(3), stream_mode="values"))


@program
def defer_node(library):

    class State(TypedDict):
        aggregate: Annotated[list, operator.add]

    b = library.StateGraph(State)
    for n in ["a", "b", "b_2", "c"]:
        b.add_node(n, (lambda n: lambda s: {"aggregate": [n]})(n))
    b.add_node("d", lambda s: {"aggregate": ["d"]}, defer=True)
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    b.add_edge("a", "c")
    b.add_edge("b", "b_2")
    b.add_edge("b_2", "d")
    b.add_edge("c", "d")
    b.add_edge("d", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield list(app.stream({"aggregate": []}, thread(1, max_concurrency=1)))
    yield history(app)


@program
def conditional_fanout(library):

    class State(TypedDict):
        aggregate: Annotated[list, operator.add]
        which: str

    b = library.StateGraph(State)
    for n in "abcde":
        b.add_node(n, (lambda n: lambda s: {"aggregate": [n]})(n))
    b.add_edge(library.START, "a")

    def route(state: State):
        return ["c", "d"] if state["which"] == "cd" else ["b", "c"]

    b.add_conditional_edges("a", route, ["b", "c", "d"])
    for n in "bcd":
        b.add_edge(n, "e")
    b.add_edge("e", library.END)
    app = b.compile()
    yield app.invoke({"aggregate": [], "which": "bc"})
    yield app.invoke({"aggregate": [], "which": "cd"})
    yield list(
        app.stream({"aggregate": [], "which": "cd"}, {"max_concurrency": 1}, stream_mode="debug")
    )


@program
def loop_limit(library):

    class State(TypedDict):
        aggregate: Annotated[list, operator.add]

    b = library.StateGraph(State)
    b.add_node("a", lambda s: {"aggregate": ["A"]})
    b.add_node("b", lambda s: {"aggregate": ["B"]})

    def route(state: State) -> Literal["b", "__end__"]:
        return "b" if len(state["aggregate"]) < 7 else library.END

    b.add_edge(library.START, "a")
    b.add_conditional_edges("a", route)
    b.add_edge("b", "a")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"aggregate": []}, CONFIG)
    try:
        app.invoke({"aggregate": []}, thread(2, recursion_limit=4))
    except library.GraphRecursionError as e:
        yield ("recursion", type(e).__name__)
    yield shown(app.get_state(thread(2)))
    yield app.invoke(None, thread(2))


@program
def remaining_limit(library):

    class State(TypedDict):
        n: int

    b = library.StateGraph(State)
    b.add_node("a", lambda s: {"n": s["n"] + 1})
    b.add_edge(library.START, "a")
    b.add_conditional_edges("a", lambda s: "a")
    app = b.compile()
    try:
        app.invoke({"n": 0}, {"recursion_limit": 5})
    except RecursionError as e:
        yield type(e).__name__
    yield app.invoke({"n": 0}, {"recursion_limit": 0})


@program
def map_reduce(library):

    class Overall(TypedDict):
        topic: str
        subjects: list
        jokes: Annotated[list, operator.add]
        best: str

    class One(TypedDict):
        subject: str

    def subjects(s):
        return {"subjects": ["lions", "elephants", "penguins"]}

    def joke(s: One):
        return {"jokes": [f"joke {s['subject']}"]}

    def cont(s):
        return [library.Send("joke", {"subject": x}) for x in s["subjects"]]

    def best(s):
        return {"best": s["jokes"][-1]}

    b = library.StateGraph(Overall)
    b.add_node("subjects", subjects)
    b.add_node("joke", joke)
    b.add_node("best", best)
    b.add_edge(library.START, "subjects")
    b.add_conditional_edges("subjects", cont, ["joke"])
    b.add_edge("joke", "best")
    b.add_edge("best", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield list(app.stream({"topic": "animals"}, thread(1, max_concurrency=1)))
    yield history(app)
    yield list(app.stream({"topic": "animals"}, thread(2, max_concurrency=1), stream_mode="tasks"))


@program
def send_command(library):

    class State(TypedDict):
        items: list
        out: Annotated[list, operator.add]

    def plan(s):
        return library.Command(
            update={"items": [1, 2]}, goto=[library.Send("work", {"x": i}) for i in [1, 2]]
        )

    def work(s):
        return {"out": [s["x"] * 10]}

    b = library.StateGraph(State)
    b.add_node("plan", plan, destinations=("work",))
    b.add_node("work", work)
    b.add_edge(library.START, "plan")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"items": []}, CONFIG)
    yield history(app)


@program
def command_goto(library):

    class State(TypedDict):
        foo: str

    def a(state: State) -> library.Command[Literal["b", "c"]]:
        return library.Command(update={"foo": "a"}, goto="c")

    def bb(state):
        return {"foo": state["foo"] + "b"}

    def cc(state):
        return {"foo": state["foo"] + "c"}

    a.__annotations__ = {"return": library.Command[Literal["b", "c"]]}
    b = library.StateGraph(State)
    b.add_edge(library.START, "a")
    b.add_node("a", a)
    b.add_node("b", bb)
    b.add_node("c", cc)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"foo": ""}, CONFIG)
    yield history(app)
    yield list(app.stream({"foo": ""}, thread(2), stream_mode=["updates", "values"]))


@program
def retry(library):

    class S(TypedDict):
        out: str

    calls = []

    def flaky(s):
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("x")
        return {"out": "ok"}

    b = library.StateGraph(S)
    b.add_node("n", flaky, retry_policy=library.RetryPolicy(initial_interval=0.01, jitter=False))
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield (app.invoke({"out": ""}, CONFIG), len(calls))
    yield history(app)


@program
def retry_exhausted(library):

    class S(TypedDict):
        out: str

    calls = []

    def flaky(s):
        calls.append(1)
        raise RuntimeError("x")

    b = library.StateGraph(S)
    b.add_node(
        "n",
        flaky,
        retry_policy=library.RetryPolicy(
            initial_interval=0.01, jitter=False, max_attempts=2, retry_on=RuntimeError
        ),
    )
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    try:
        app.invoke({"out": ""}, CONFIG)
    except RuntimeError as e:
        yield (str(e), len(calls))
    yield shown(app.get_state(CONFIG))
    yield history(app)


@program
def failure_resume(library):

    class S(TypedDict):
        out: Annotated[list, operator.add]

    flag = [True]

    def ok(s):
        return {"out": ["ok"]}

    def bad(s):
        if flag[0]:
            time.sleep(0.1)  # the other one has written by then
            raise ValueError("bad")
        return {"out": ["bad"]}

    b = library.StateGraph(S)
    b.add_node("first", lambda s: {"out": ["first"]})
    b.add_node("ok", ok)
    b.add_node("bad", bad)
    b.add_node("end", lambda s: {"out": ["end"]})
    b.add_edge(library.START, "first")
    b.add_edge("first", "ok")
    b.add_edge("first", "bad")
    b.add_edge(["ok", "bad"], "end")
    app = b.compile(checkpointer=library.InMemorySaver())
    try:
        app.invoke({"out": []}, CONFIG)
    except ValueError as e:
        yield str(e)
    s = app.get_state(CONFIG)
    yield (s.values, s.next, [(t.name, t.error is not None) for t in s.tasks])
    flag[0] = False
    yield app.invoke(None, CONFIG)
    yield history(app)


@program
def invalid_update_parallel(library):

    class S(TypedDict):
        v: int

    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"v": 1})
    b.add_node("b", lambda s: {"v": 2})
    b.add_edge(library.START, "a")
    b.add_edge(library.START, "b")
    app = b.compile(checkpointer=library.InMemorySaver())
    try:
        app.invoke({"v": 0}, CONFIG)
    except library.InvalidUpdateError as e:
        yield "InvalidUpdateError"


@program
def bad_return(library):

    class S(TypedDict):
        v: int

    b = library.StateGraph(S)
    b.add_node("a", lambda s: "nonsense")
    b.add_edge(library.START, "a")
    app = b.compile()
    yield app.invoke({"v": 0})


@program
def compile_errors(library):

    class S(TypedDict):
        v: int

    def attempt(f):
        try:
            f()
            return "no error"
        except Exception as e:
            return isinstance(e, ValueError)

    b = library.StateGraph(S)
    b.add_node("a", lambda s: {})
    yield attempt(b.compile)
    yield attempt(lambda: b.add_node("a", lambda s: {}))
    yield attempt(lambda: b.add_edge("a", "zz").compile())
    yield attempt(lambda: b.add_edge(library.END, "a"))
    yield attempt(lambda: b.add_edge("a", library.START))
    yield attempt(lambda: b.add_node(library.END, lambda s: {}))
    b2 = library.StateGraph(S)
    b2.add_node("a", lambda s: {})
    b2.add_edge(library.START, "a")
    b2.add_conditional_edges("a", lambda s: "x", {"x": "nowhere"})
    yield attempt(b2.compile)


@program
def node_none(library):

    class S(TypedDict):
        v: int

    b = library.StateGraph(S)
    b.add_node("a", lambda s: None)
    b.add_node("b", lambda s: {})
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield list(app.stream({"v": 1}, CONFIG))
    yield list(app.stream({"v": 1}, thread(2), stream_mode="values"))
    yield history(app)


@program
def sequence(library):

    class S(TypedDict):
        v: str

    def s1(s):
        return {"v": s["v"] + "1"}

    def s2(s):
        return {"v": s["v"] + "2"}

    b = library.StateGraph(S).add_sequence([s1, s2]).add_edge(library.START, "s1")
    app = b.compile()
    yield (app.invoke({"v": ""}), sorted(app.get_graph().nodes))
    yield app.get_graph().draw_mermaid()


@program
def entry_points(library):

    class S(TypedDict):
        a: str

    b = library.StateGraph(S)
    b.add_node("x", lambda s: {"a": "x"})
    b.add_node("y", lambda s: {"a": "y"})
    b.set_conditional_entry_point(lambda s: s["a"], {"go": "x", "no": "y"})
    b.set_finish_point("x")
    b.set_finish_point("y")
    app = b.compile()
    yield (app.invoke({"a": "go"}), app.invoke({"a": "no"}))
    yield app.invoke({"a": "else"})


@program
def condition_true_false(library):

    class S(TypedDict):
        n: int

    b = library.StateGraph(S)
    b.add_node("inc", lambda s: {"n": s["n"] + 1})
    b.add_edge(library.START, "inc")
    b.add_conditional_edges("inc", lambda s: s["n"] < 3, {True: "inc", False: library.END})
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"n": 0}, CONFIG)
    yield [s.metadata["step"] for s in app.get_state_history(CONFIG)]


@program
def multi_return_list(library):

    class S(TypedDict):
        l: Annotated[list, operator.add]

    def n(s):
        return [{"l": [1]}, library.Command(update={"l": [2]}, goto="z")]

    b = library.StateGraph(S)
    b.add_node("n", n)
    b.add_node("z", lambda s: {"l": ["z"]})
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"l": []}, CONFIG)
    yield list(app.stream({"l": []}, thread(2)))


@program
def command_as_input(library):

    class S(TypedDict):
        l: Annotated[list, operator.add]

    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"l": ["a"]})
    b.add_node("b", lambda s: {"l": ["b"]})
    b.add_edge(library.START, "a")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"l": ["0"]}, CONFIG)
    yield app.invoke(library.Command(update={"l": ["u"]}, goto="b"), CONFIG)
    yield app.invoke(library.Command(goto="a"), CONFIG)
    yield app.invoke(library.Command(update={"l": ["only"]}), CONFIG)


@program
def runnable_nodes(library):

    class S(TypedDict):
        a: str

    chain = RunnableLambda(lambda s: s["a"] + "!") | RunnableLambda(lambda t: {"a": t.upper()})
    b = library.StateGraph(S)
    b.add_node("c", chain)
    b.add_edge(library.START, "c")
    yield b.compile().invoke({"a": "x"})


@program
def orchestrator_worker(library):

    class Section(TypedDict):
        name: str

    class S(TypedDict):
        topic: str
        sections: list[Section]
        done: Annotated[list, operator.add]
        report: str

    class W(TypedDict):
        section: Section
        done: Annotated[list, operator.add]

    def orch(s):
        return {"sections": [Section(name="a"), Section(name="b")]}

    def work(s: W):
        return {"done": [s["section"]["name"].upper()]}

    def assign(s):
        return [library.Send("work", {"section": x}) for x in s["sections"]]

    b = library.StateGraph(S)
    b.add_node("orch", orch)
    b.add_node("work", work)
    b.add_node("synth", lambda s: {"report": "-".join(s["done"])})
    b.add_edge(library.START, "orch")
    b.add_conditional_edges("orch", assign, ["work"])
    b.add_edge("work", "synth")
    b.add_edge("synth", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"topic": "t"}, CONFIG)["report"]
    yield history(app)


@program
def evaluator_optimizer(library):

    class S(TypedDict):
        joke: str
        n: int
        grade: str

    def gen(s):
        return {"joke": f"joke{s.get('n', 0)}", "n": s.get("n", 0) + 1}

    def ev(s):
        return {"grade": "funny" if s["n"] > 2 else "not"}

    def route(s):
        return "Accepted" if s["grade"] == "funny" else "Rejected"

    b = library.StateGraph(S)
    b.add_node("gen", gen)
    b.add_node("ev", ev)
    b.add_edge(library.START, "gen")
    b.add_edge("gen", "ev")
    b.add_conditional_edges("ev", route, {"Accepted": library.END, "Rejected": "gen"})
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"joke": ""}, CONFIG)
    yield list(app.stream({"joke": ""}, thread(2), stream_mode="updates"))
    yield app.get_graph().draw_mermaid()


@program
def batch(library):

    class S(TypedDict):
        l: int

    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"l": s["l"] + 1})
    b.add_edge(library.START, "a")
    app = b.compile()
    yield app.batch([{"l": 1}, {"l": 2}])


@program
def async_failure(library):

    class S(TypedDict):
        l: Annotated[list, operator.add]

    events = []

    async def slow(s):
        try:
            await asyncio.sleep(0.2)
            events.append("slow done")
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        return {"l": ["slow"]}

    async def bad(s):
        raise ValueError("bad")

    b = library.StateGraph(S)
    b.add_node("slow", slow)
    b.add_node("bad", bad)
    b.add_edge(library.START, "slow")
    b.add_edge(library.START, "bad")
    app = b.compile(checkpointer=library.InMemorySaver())

    async def go():
        try:
            await app.ainvoke({"l": []}, CONFIG)
        except ValueError as e:
            return str(e)

    yield asyncio.run(go())
    yield ("bad" in app.get_state(CONFIG).next)


@program
def node_timeout(library):

    class S(TypedDict):
        l: str

    async def n(s):
        await asyncio.sleep(1)
        return {"l": "x"}

    b = library.StateGraph(S)
    b.add_node("n", n, timeout=0.05)
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())

    async def go():
        try:
            await app.ainvoke({"l": ""}, CONFIG)
        except Exception as e:
            return type(e).__name__

    yield asyncio.run(go())


@program
def step_timeout(library):

    class S(TypedDict):
        l: str

    async def n(s):
        await asyncio.sleep(1)
        return {"l": "x"}

    b = library.StateGraph(S)
    b.add_node("n", n)
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.step_timeout = 0.05

    async def go():
        try:
            return await app.ainvoke({"l": ""}, CONFIG)
        except Exception as e:
            return isinstance(e, TimeoutError)

    yield asyncio.run(go())


@program
def node_defaults(library):
    class S(TypedDict):
        out: Annotated[list, operator.add]

    calls = []

    async def flaky(s):
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("x")
        return {"out": ["flaky"]}

    async def own(s):
        calls.append(1)
        raise ConnectionError("y")

    async def slow(s):
        await asyncio.sleep(5)

    b = library.StateGraph(S)
    b.add_node("flaky", flaky)
    b.set_node_defaults(
        retry_policy=library.RetryPolicy(initial_interval=0.01, jitter=False), timeout=0.2
    )
    b.add_node("own", own, retry_policy=library.RetryPolicy(max_attempts=1))
    b.add_edge(library.START, "flaky")
    b.add_edge("flaky", "own")
    app = b.compile(checkpointer=library.InMemorySaver())

    async def go():
        try:
            await app.ainvoke({"out": []}, CONFIG)
        except ConnectionError as e:
            return str(e), len(calls)

    yield asyncio.run(go())
    c = library.StateGraph(S).set_node_defaults(timeout=0.05)
    c.add_node("slow", slow)
    c.add_edge(library.START, "slow")
    yield asyncio.run(c.compile().ainvoke({"out": []}))
