"""Schemas, reducers, configs, contexts, messages."""

import dataclasses
import operator
from typing import Annotated, Literal

from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ValidationError, field_validator
from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, history, program, shown, thread


@program
def io_schemas(library):

    class In(TypedDict):
        question: str

    class Out(TypedDict):
        answer: str

    class Overall(In, Out):
        pass

    class Private(TypedDict):
        secret: str

    def n1(state: In) -> Private:
        return {"secret": state["question"] + "!"}

    def n2(state: Private) -> Out:
        return {"answer": state["secret"]}

    n1.__annotations__ = {"state": In}
    n2.__annotations__ = {"state": Private}
    b = library.StateGraph(Overall, input_schema=In, output_schema=Out)
    b.add_node("n1", n1)
    b.add_node("n2", n2)
    b.add_edge(library.START, "n1")
    b.add_edge("n1", "n2")
    b.add_edge("n2", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"question": "hi"}, CONFIG)
    yield shown(app.get_state(CONFIG))
    yield list(app.stream({"question": "hi"}, thread(2), stream_mode="values"))
    yield list(app.stream({"question": "hi"}, thread(2), stream_mode="updates"))


@program
def pydantic_state(library):

    class S(BaseModel):
        a: str
        n: int = 3

    b = library.StateGraph(S)

    def node(state):
        return {"a": "goodbye " + type(state).__name__ + str(state.n)}

    b.add_node("node", node)
    b.add_edge(library.START, "node")
    b.add_edge("node", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"a": "hello"}, CONFIG)
    yield app.invoke(S(a="x", n=4), thread(2))
    yield shown(app.get_state(CONFIG))
    try:
        app.invoke({"a": 123}, thread(3))
    except ValidationError:
        yield "ValidationError"


@program
def pydantic_nested(library):

    class Inner(BaseModel):
        v: int

    class S(BaseModel):
        text: str
        inner: Inner
        log: Annotated[list[str], operator.add] = []

        @field_validator("text")
        @classmethod
        def check(cls, v):
            if not v:
                raise ValueError("empty")
            return v

    b = library.StateGraph(S)
    b.add_node("p", lambda s: {"text": s.text + "!", "inner": Inner(v=s.inner.v + 1), "log": ["p"]})
    b.add_edge(library.START, "p")
    app = b.compile()
    yield app.invoke({"text": "t", "inner": {"v": 1}})
    yield app.invoke(S(text="t", inner=Inner(v=1)))


@program
def dataclass_state(library):

    @dataclasses.dataclass
    class S:
        name: str
        items: Annotated[list, operator.add] = dataclasses.field(default_factory=list)
        n: int = 0

    b = library.StateGraph(S)
    b.add_node("x", lambda s: {"items": [s.name], "n": s.n + 1})
    b.add_node("y", lambda s: {"items": [len(s.items)]})
    b.add_edge(library.START, "x")
    b.add_edge("x", "y")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"name": "n"}, CONFIG)
    yield app.invoke(S(name="m"), thread(2))
    yield history(app)


@program
def config_access(library):

    class S(TypedDict):
        out: str

    def node(state, config: RunnableConfig):
        return {
            "out": config["configurable"].get("model", "none") + str(config["metadata"].get("x"))
        }

    node.__annotations__ = {"config": RunnableConfig}
    b = library.StateGraph(S)
    b.add_node("n", node)
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke(
        {"out": ""},
        {"configurable": {"thread_id": "1", "model": "gpt"}, "metadata": {"x": 1}, "tags": ["a"]},
    )
    yield shown(app.get_state(CONFIG))
    bound = app.with_config({"configurable": {"model": "claude"}})
    yield bound.invoke({"out": ""}, thread(2))


@program
def runtime_context(library):

    @dataclasses.dataclass
    class Ctx:
        provider: str = "anthropic"
        user: str | None = None

    class S(TypedDict):
        out: str

    def node(state, runtime):
        return {"out": f"{runtime.context.provider} {runtime.context.user}"}

    node.__annotations__ = {"runtime": library.Runtime[Ctx]}
    b = library.StateGraph(S, context_schema=Ctx)
    b.add_node("n", node)
    b.add_edge(library.START, "n")
    app = b.compile()
    yield app.invoke({"out": ""}, context={"provider": "openai"})
    yield app.invoke({"out": ""}, context=Ctx(user="u"))
    yield app.invoke({"out": ""}, context={"nope": 1})


@program
def runtime_default(library):

    class Ctx(TypedDict, total=False):
        k: str

    class S(TypedDict):
        out: str

    def node(state, runtime):
        return {"out": str(runtime.context)}

    node.__annotations__ = {"runtime": library.Runtime[Ctx]}
    b = library.StateGraph(S, context_schema=Ctx)
    b.add_node("n", node)
    b.add_edge(library.START, "n")
    app = b.compile()
    yield app.invoke({"out": ""}, context={"k": "openai"})
    yield app.invoke({"out": ""})


@program
def overwrite(library):

    class S(TypedDict):
        l: Annotated[list, operator.add]

    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"l": ["a"]})
    b.add_node("b", lambda s: {"l": library.Overwrite(["reset"])})
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"l": ["0"]}, CONFIG)
    yield list(app.stream({"l": ["0"]}, thread(2)))
    yield history(app)


@program
def unknown_keys(library):

    class S(TypedDict):
        a: str

    b = library.StateGraph(S)
    b.add_node("n", lambda s: {"a": "1"})
    b.add_edge(library.START, "n")
    app = b.compile()
    yield app.invoke({"a": "0"})


@program
def custom_reducer(library):

    def merge(old, new):
        return {**(old or {}), **new}

    class S(TypedDict):
        d: Annotated[dict, merge]
        m: Annotated[int, lambda a, b: max(a, b)]
        s: Annotated[set, lambda a, b: a | b]

    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"d": {"a": 1}, "m": 5, "s": {"x"}})
    b.add_node("b", lambda s: {"d": {"b": 2}, "m": 3, "s": {"y"}})
    b.add_edge(library.START, "a")
    b.add_edge(library.START, "b")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"d": {"z": 0}}, CONFIG)
    yield history(app)


@program
def reads_default_missing(library):

    class S(TypedDict, total=False):
        a: str
        l: Annotated[list, operator.add]
        n: Annotated[int, operator.add]

    b = library.StateGraph(S)
    b.add_node("n1", lambda s: {"a": str(sorted(s.items()))})
    b.add_edge(library.START, "n1")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"n": 1}, CONFIG)
    yield history(app)
    yield app.invoke({"l": [1]}, thread(2))


@program
def bare_list(library):
    b = library.StateGraph(Annotated[list, operator.add])
    b.add_node("a", lambda s: ["a"])
    b.add_node("b", lambda s: [len(s)])
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke(["x"], CONFIG)
    yield list(app.stream(["x"], thread(2)))
    yield history(app)


@program
def get_config_inside(library):

    class S(TypedDict):
        l: str

    def n(s):
        c = library.get_config()
        return {
            "l": str(c["configurable"]["thread_id"])
            + c["metadata"]["langgraph_node"]
            + str(c["metadata"]["langgraph_step"])
        }

    b = library.StateGraph(S)
    b.add_node("n", n)
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"l": ""}, CONFIG)


@program
def execution_info(library):

    class S(TypedDict):
        l: str

    def n(s, runtime):
        return {"l": f"{runtime.execution_info.thread_id} {runtime.execution_info.node_attempt}"}

    n.__annotations__ = {"runtime": library.Runtime}
    b = library.StateGraph(S)
    b.add_node("n", n)
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"l": ""}, CONFIG)


@program
def names_describe(library):

    class S(TypedDict):
        a: str

    b = library.StateGraph(S)
    b.add_node("n", lambda s: {"a": "1"})
    b.add_edge(library.START, "n")
    app = b.compile(name="mine")
    yield (app.name, app.get_name())
    yield (app.get_input_jsonschema(), app.get_output_jsonschema())
    yield (
        list(app.get_graph().nodes),
        [(e.source, e.target, e.conditional) for e in app.get_graph().edges],
    )


@program
def chatbot_tutorial(library):

    class State(TypedDict):
        messages: Annotated[list, library.add_messages]

    def chatbot(state):
        return {"messages": [AIMessage(f"echo {state['messages'][-1].content}")]}

    b = library.StateGraph(State)
    b.add_node("chatbot", chatbot)
    b.add_edge(library.START, "chatbot")
    b.add_edge("chatbot", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    for text in ["Hi there! My name is Will.", "Remember my name?"]:
        for event in app.stream({"messages": [{"role": "user", "content": text}]}, CONFIG):
            for value in event.values():
                yield value["messages"][-1].content
        for event in app.stream(
            {"messages": [{"role": "user", "content": text}]}, CONFIG, stream_mode="values"
        ):
            yield (event["messages"][-1].content, event["messages"][-1].type)
    s = app.get_state(CONFIG)
    yield (len(s.values["messages"]), s.next)
    yield [(len(x.values["messages"]), x.next) for x in app.get_state_history(CONFIG)]


@program
def delete_messages(library):
    b = library.StateGraph(library.MessagesState)
    b.add_node("bot", lambda s: {"messages": [AIMessage("ok")]})

    def prune(s):
        return (
            {"messages": [RemoveMessage(id=m.id) for m in s["messages"][:-2]]}
            if len(s["messages"]) > 2
            else {}
        )

    b.add_node("prune", prune)
    b.add_edge(library.START, "bot")
    b.add_edge("bot", "prune")
    app = b.compile(checkpointer=library.InMemorySaver())
    for t in "abc":
        r = app.invoke({"messages": [("user", t)]}, CONFIG)
        yield [m.content for m in r["messages"]]
    m = app.get_state(CONFIG).values["messages"]
    app.update_state(CONFIG, {"messages": RemoveMessage(id=m[0].id)})
    yield [m.content for m in app.get_state(CONFIG).values["messages"]]
    app.update_state(CONFIG, {"messages": [RemoveMessage(id=library.REMOVE_ALL_MESSAGES)]})
    yield app.get_state(CONFIG).values
    app.update_state(CONFIG, {"messages": [RemoveMessage(id="nope")]})


@program
def summary_memory(library):

    class State(library.MessagesState):
        summary: str

    def bot(s):
        pre = [SystemMessage("Summary: " + s["summary"])] if s.get("summary") else []
        return {"messages": [AIMessage(f"{len(pre + s['messages'])}")]}

    def summarize(s):
        return {
            "summary": f"{len(s['messages'])} msgs",
            "messages": [RemoveMessage(id=m.id) for m in s["messages"][:-2]],
        }

    def should(s):
        return "summarize" if len(s["messages"]) > 4 else library.END

    b = library.StateGraph(State)
    b.add_node("bot", bot)
    b.add_node("summarize", summarize)
    b.add_edge(library.START, "bot")
    b.add_conditional_edges("bot", should)
    b.add_edge("summarize", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    for t in "abcd":
        r = app.invoke({"messages": [HumanMessage(t)]}, CONFIG)
        yield ([m.content for m in r["messages"]], r.get("summary"))


@program
def react_agent(library):

    def model(s):
        last = s["messages"][-1]
        if last.type == "human":
            return {
                "messages": [
                    AIMessage(
                        "",
                        tool_calls=[
                            {"name": "mul", "args": {"a": 2, "b": 3}, "id": "1"},
                            {"name": "add", "args": {"a": 2, "b": 3}, "id": "2"},
                        ],
                    )
                ]
            }
        return {
            "messages": [
                AIMessage(
                    "result " + ",".join(m.content for m in s["messages"] if m.type == "tool")
                )
            ]
        }

    fns = {"mul": lambda a, b: a * b, "add": lambda a, b: a + b}

    def tools(s):
        return {
            "messages": [
                ToolMessage(str(fns[c["name"]](**c["args"])), tool_call_id=c["id"], name=c["name"])
                for c in s["messages"][-1].tool_calls
            ]
        }

    def cont(s) -> Literal["tools", "__end__"]:
        return "tools" if s["messages"][-1].tool_calls else library.END

    b = library.StateGraph(library.MessagesState)
    b.add_node("model", model)
    b.add_node("tools", tools)
    b.add_edge(library.START, "model")
    b.add_conditional_edges("model", cont)
    b.add_edge("tools", "model")
    app = b.compile(checkpointer=library.InMemorySaver())
    r = app.invoke({"messages": [{"role": "user", "content": "2*3"}]}, CONFIG)
    yield [(m.type, m.content) for m in r["messages"]]
    yield [
        (list(c), [m.content for v in c.values() for m in v["messages"]])
        for c in app.stream({"messages": [("user", "x")]}, thread(2))
    ]
    yield [
        (s.next, [t.name for t in s.tasks], s.metadata["source"])
        for s in app.get_state_history(CONFIG)
    ]
