"""Less usual things: questions of parallel tools, sends of models, edits while a question waits."""

import operator
from dataclasses import dataclass
from typing import Annotated, Any

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel
from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, history, program, shown, talk, thread
from tests.graph.compat.programs.agents import calling, said, scripted


class S(TypedDict, total=False):
    xs: Annotated[list, operator.add]
    n: int


@program
def agent_with_two_tools_that_ask(library):
    @tool
    def ask(what: str) -> str:
        """Ask."""
        return f"{what}: {library.interrupt(what)}"

    calls = [{"name": "ask", "args": {"what": w}, "id": w, "type": "tool_call"} for w in ("a", "b")]
    llm = scripted(AIMessage("", tool_calls=calls, id="x"), "done")
    agent = library.create_react_agent(llm, [ask], checkpointer=library.InMemorySaver())
    r = agent.invoke({"messages": "go"}, CONFIG)
    yield sorted(i.value for i in r["__interrupt__"])
    state = agent.get_state(CONFIG)
    answers = {i.id: i.value.upper() for i in state.interrupts}
    yield said(agent.invoke(library.Command(resume=answers), CONFIG))


@program
def send_of_models_and_dataclasses(library):
    class Job(BaseModel):
        n: int

    @dataclass
    class Part:
        n: int

    def job(j: Job):
        return {"xs": [("job", j.n)]}

    def part(p: Part):
        return {"xs": [("part", p.n)]}

    b = library.StateGraph(S)
    b.add_node("job", job)
    b.add_node("part", part)
    b.add_conditional_edges(
        library.START,
        lambda s: [library.Send("job", Job(n=1)), library.Send("part", Part(2))],
        ["job", "part"],
    )
    yield b.compile().invoke({"xs": []})


@program
def deferred_with_sends(library):
    b = library.StateGraph(S)
    b.add_node("w", lambda s: {"xs": [s["i"]]})
    b.add_node("slow", lambda s: {"xs": ["slow"]})
    b.add_node("slow2", lambda s: {"xs": ["slow2"]})
    b.add_node("end", lambda s: {"xs": [len(s["xs"])]}, defer=True)
    b.add_conditional_edges(
        library.START,
        lambda s: [library.Send("w", {"i": i}) for i in range(3)] + ["slow"],
        ["w", "slow"],
    )
    b.add_edge("slow", "slow2")
    b.add_edge("slow2", "end")
    b.add_edge("w", "end")
    app = b.compile()
    yield app.invoke({"n": 1})


@program
def edit_while_a_question_waits(library):
    b = library.StateGraph(S)
    b.add_node("ask", lambda s: {"xs": [library.interrupt(s["n"])]})
    b.add_node("end", lambda s: {"xs": ["end"]})
    b.add_edge(library.START, "ask")
    b.add_edge("ask", "end")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"n": 1}, CONFIG)
    app.update_state(CONFIG, {"n": 2})
    state = app.get_state(CONFIG)
    yield state.next, state.values
    r = app.invoke(None, CONFIG)
    yield [i.value for i in r["__interrupt__"]]
    yield app.invoke(library.Command(resume="ok"), CONFIG)
    app.invoke({"n": 5}, thread(2))
    app.update_state(thread(2), {"xs": ["skipped"]}, as_node="ask")
    yield app.get_state(thread(2)).next, app.invoke(None, thread(2))


@program
def tool_messages_in_token_stream(library):
    @tool
    def t(x: int) -> str:
        """T."""
        return f"got {x}"

    llm = scripted("hello there")
    b = library.StateGraph(library.MessagesState)
    b.add_node("tools", library.ToolNode([t]))
    b.add_node("agent", lambda s: {"messages": [llm.invoke(s["messages"])]})
    b.add_edge(library.START, "tools")
    b.add_edge("tools", "agent")
    app = b.compile()
    given = {"messages": [HumanMessage("q"), calling("t", {"x": 1})]}
    for message, meta in app.stream(given, stream_mode="messages"):
        yield message.type, message.content, meta["langgraph_node"]


@program
async def root_events(library):
    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"xs": ["a"]})
    b.add_node("b", lambda s: {"xs": ["b"]})
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile()
    async for e in app.astream_events({"xs": []}, version="v2"):
        if not e["name"].startswith(("_", "Channel", "Runnable")):
            yield e["event"], e["name"], e["data"].get("output"), e["data"].get("chunk")


@program
def swallowing_exceptions_around_interrupt(library):
    def node(s):
        try:
            return {"xs": [1 / 0]}
        except ZeroDivisionError:
            answer = library.interrupt("division failed, what now?")
            return {"xs": [answer]}

    b = library.StateGraph(S)
    b.add_node("n", node)
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield [i.value for i in app.invoke({"xs": []}, CONFIG)["__interrupt__"]]
    yield app.invoke(library.Command(resume=7), CONFIG)


@program
def conditional_edges_from_sends(library):
    b = library.StateGraph(S)
    b.add_node("w", lambda s: {"xs": [s["i"]]})
    b.add_node("even", lambda s: {"xs": ["even"]})
    b.add_node("odd", lambda s: {"xs": ["odd"]})
    b.add_conditional_edges(
        library.START, lambda s: [library.Send("w", {"i": i}) for i in (1, 2)], ["w"]
    )
    b.add_conditional_edges(
        "w", lambda s: "even" if s["xs"][-1] % 2 == 0 else "odd", ["even", "odd"]
    )
    yield b.compile().invoke({"n": 0})


@program
def several_finish_points_and_lists(library):
    b = library.StateGraph(S)
    for n in "abcd":
        b.add_node(n, lambda s, n=n: {"xs": [n]})
    b.add_edge(library.START, "a")
    b.add_edge(library.START, "b")
    b.add_edge(["a", "b"], "c")
    b.add_edge(["a", "c"], "d")
    b.set_finish_point("d")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"xs": []}, CONFIG)
    yield app.invoke({"xs": []}, CONFIG)
    yield app.get_graph().draw_mermaid()


@program
def input_and_output_of_pydantic(library):
    class In(BaseModel):
        q: str

    class Out(BaseModel):
        a: str

    class All(BaseModel):
        q: str
        a: str = ""
        hidden: int = 0

    def n(s: In) -> dict:
        return {"a": s.q + "!", "hidden": 3}

    b = library.StateGraph(All, input_schema=In, output_schema=Out)
    b.add_node("n", n)
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"q": "x"}, CONFIG), app.invoke(In(q="y"), CONFIG)
    yield app.get_state(CONFIG).values


@program
def checkpoint_during_and_exit(library):
    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"xs": ["a"]})
    b.add_node("b", lambda s: {"xs": ["b"]})
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile(checkpointer=library.InMemorySaver())
    for d in ("sync", "async"):
        app.invoke({"xs": []}, thread(d), durability=d)
        yield [(s.next, s.values) for s in app.get_state_history(thread(d))]
    yield app.invoke({"xs": []}, thread("e"), durability="exit")
    yield app.get_state(thread("e")).values


@program
def fork_twice_from_one_place(library):
    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"xs": ["a"]})
    b.add_node("b", lambda s: {"xs": [f"b{s.get('n')}"]})
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"n": 0}, CONFIG)
    at = next(s for s in app.get_state_history(CONFIG) if s.next == ("b",))
    for n in (1, 2):
        new = app.update_state(at.config, {"n": n})
        yield app.invoke(None, new)
    yield history(app)
    yield [s.values.get("n") for s in app.get_state_history(CONFIG, filter={"source": "update"})]


@program
def subgraph_state_read_from_config_ns(library):
    inner = library.StateGraph(S)
    inner.add_node("i", lambda s: {"xs": [library.interrupt("i?")]})
    inner.add_edge(library.START, "i")
    b = library.StateGraph(S)
    b.add_node("sub", inner.compile())
    b.add_edge(library.START, "sub")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"n": 1}, CONFIG)
    task = app.get_state(CONFIG, subgraphs=True).tasks[0]
    yield task.state.values, task.state.next, [i.value for i in task.state.interrupts]
    app.update_state(task.state.config, {"n": 9})
    yield app.get_state(CONFIG, subgraphs=True).tasks[0].state.values
    yield app.invoke(library.Command(resume="yes"), CONFIG)


@program
def remove_tool_messages_between_turns(library):
    def clean(state):
        return {
            "messages": [
                library.RemoveMessage(m.id) for m in state["messages"] if isinstance(m, ToolMessage)
            ]
        }

    def work(state):
        return {
            "messages": [calling("x", {}), ToolMessage("r", tool_call_id="c1"), AIMessage("ok")]
        }

    b = library.StateGraph(library.MessagesState)
    b.add_node("clean", clean)
    b.add_node("work", work)
    b.add_edge(library.START, "clean")
    b.add_edge("clean", "work")
    app = b.compile(checkpointer=library.InMemorySaver())
    for t in "ab":
        yield said(app.invoke({"messages": t}, CONFIG))
    yield talk(app)[0]["next"]


@program
def context_defaults_and_runtime_override(library):
    @dataclass
    class Ctx:
        lang: str = "en"

    def node(s, runtime: library.Runtime[Ctx]):
        lang = runtime.context.lang if runtime.context else "none"
        return {"xs": [lang, runtime.store]}

    b = library.StateGraph(S, context_schema=Ctx)
    b.add_node("n", node)
    b.add_edge(library.START, "n")
    app = b.compile()
    yield app.invoke({"xs": []}, context=Ctx()), app.invoke({"xs": []})
    yield app.invoke({"xs": []}, context={"lang": "de"})
    app.invoke({"xs": []}, context={"nope": 1})


@program
def writer_and_tokens_together(library):
    llm = GenericFakeChatModel(messages=iter([AIMessage("one two")]))

    def node(s):
        writer = library.get_stream_writer()
        writer({"status": "start"})
        text = "".join(c.content for c in llm.stream("x"))
        writer({"status": "end"})
        return {"xs": [text]}

    b = library.StateGraph(S)
    b.add_node("n", node)
    b.add_edge(library.START, "n")
    app = b.compile()
    for mode, chunk in app.stream({"xs": []}, stream_mode=["custom", "messages", "updates"]):
        yield mode, chunk[0].content if mode == "messages" else chunk


@program
def interrupt_values_of_many_kinds(library):
    values: list[Any] = [None, 1, "s", [1, {"a": 2}], {"k": (1, 2)}]
    for i, value in enumerate(values):
        b = library.StateGraph(S)
        b.add_node("n", lambda s, value=value: {"xs": [library.interrupt(value)]})
        b.add_edge(library.START, "n")
        app = b.compile(checkpointer=library.InMemorySaver())
        r = app.invoke({"n": 1}, thread(i))
        yield r["__interrupt__"][0].value
    yield shown(app.get_state(thread(0)))


@program
def answers_that_come_before_their_question(library):
    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"xs": ["a"]})
    b.add_node("ask", lambda s: {"xs": [library.interrupt(s.get("n"))]})
    b.add_node("end", lambda s: {"xs": [library.interrupt("end?")]})
    b.add_edge(library.START, "a")
    b.add_edge("a", "ask")
    b.add_edge("ask", "end")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"n": 1}, CONFIG)
    app.update_state(CONFIG, {"n": 2})
    r = app.invoke(library.Command(resume="ok"), CONFIG)
    yield r["xs"], [i.value for i in r["__interrupt__"]]
    yield shown(app.get_state(CONFIG))
    app.invoke({"n": 1}, thread(2), interrupt_before=["ask"])
    yield list(app.stream(library.Command(resume="early"), thread(2), stream_mode="values"))[-1][
        "xs"
    ]
    yield app.get_state(thread(2)).next
