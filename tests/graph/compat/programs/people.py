"""Interrupts: approval, editing, validation, several questions."""

import operator
from typing import Annotated

from langchain_core.messages import AIMessage, ToolMessage
from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, history, program, shown, thread


@program
def approval(library):

    class S(TypedDict):
        llm_output: str
        decision: str

    def gen(s):
        return {"llm_output": "This is the generated output."}

    def approve(s):
        d = library.interrupt({"question": "Do you approve?", "llm_output": s["llm_output"]})
        if d == "approve":
            return library.Command(goto="yes", update={"decision": "approved"})
        return library.Command(goto="no", update={"decision": "rejected"})

    b = library.StateGraph(S)
    b.add_node("gen", gen)
    b.add_node("approve", approve, destinations=("yes", "no"))
    b.add_node("yes", lambda s: {})
    b.add_node("no", lambda s: {})
    b.add_edge(library.START, "gen")
    b.add_edge("gen", "approve")
    app = b.compile(checkpointer=library.InMemorySaver())
    r = app.invoke({"decision": ""}, CONFIG)
    yield (
        [i.value for i in r["__interrupt__"]],
        {k: v for k, v in r.items() if k != "__interrupt__"},
    )
    yield shown(app.get_state(CONFIG))
    yield app.invoke(library.Command(resume="approve"), CONFIG)
    yield shown(app.get_state(CONFIG))
    yield history(app)


@program
def approval_stream(library):

    class S(TypedDict):
        x: str

    b = library.StateGraph(S)
    b.add_node("ask", lambda s: {"x": library.interrupt("q?")})
    b.add_edge(library.START, "ask")
    app = b.compile(checkpointer=library.InMemorySaver())
    for m in ["updates", "values", "tasks", "debug", "checkpoints"]:
        c = thread(m)
        yield (m, list(app.stream({"x": "0"}, c, stream_mode=m)))
        yield (m, list(app.stream(library.Command(resume="a"), c, stream_mode=m)))


@program
def validation_loop(library):

    class S(TypedDict):
        age: int

    def ask(s):
        q = "age?"
        while True:
            a = library.interrupt(q)
            if not isinstance(a, int) or a < 0:
                q = f"'{a}' is not valid"
                continue
            break
        return {"age": a}

    b = library.StateGraph(S)
    b.add_node("ask", ask)
    b.add_node("report", lambda s: {})
    b.add_edge(library.START, "ask")
    b.add_edge("ask", "report")
    app = b.compile(checkpointer=library.InMemorySaver())
    for given in [
        {"age": None},
        library.Command(resume="-"),
        library.Command(resume=-3),
        library.Command(resume=25),
    ]:
        r = app.invoke(given, CONFIG)
        yield (r.get("age"), [i.value for i in r.get("__interrupt__", [])])
        yield shown(app.get_state(CONFIG))
    yield history(app)


@program
def edit_state_hitl(library):

    class S(TypedDict):
        draft: str
        final: str

    b = library.StateGraph(S)
    b.add_node("write", lambda s: {"draft": "d1"})
    b.add_node("send", lambda s: {"final": "sent " + s["draft"]})
    b.add_edge(library.START, "write")
    b.add_edge("write", "send")
    app = b.compile(checkpointer=library.InMemorySaver(), interrupt_before=["send"])
    yield app.invoke({"draft": ""}, CONFIG)
    yield shown(app.get_state(CONFIG))
    r = app.update_state(CONFIG, {"draft": "edited"})
    yield sorted(r["configurable"])
    yield shown(app.get_state(CONFIG))
    yield app.invoke(None, CONFIG)
    yield history(app)


@program
def static_after(library):

    class S(TypedDict):
        v: Annotated[list, operator.add]

    b = library.StateGraph(S)
    for n in "abc":
        b.add_node(n, (lambda n: lambda s: {"v": [n]})(n))
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    b.add_edge("b", "c")
    app = b.compile(checkpointer=library.InMemorySaver(), interrupt_after=["a", "b"])
    for g in [{"v": []}, None, None]:
        yield (list(app.stream(g, CONFIG)), shown(app.get_state(CONFIG)))
    app2 = b.compile(checkpointer=library.InMemorySaver())
    yield (
        list(app2.stream({"v": []}, thread(2), interrupt_before="*")),
        app2.get_state(thread(2)).next,
    )
    yield (list(app2.stream(None, thread(2), interrupt_before="*")), app2.get_state(thread(2)).next)
    yield app2.invoke(library.Command(resume=True), thread(2))


@program
def multi_interrupts_parallel(library):

    class S(TypedDict):
        vals: Annotated[list, operator.add]

    b = library.StateGraph(S)
    b.add_node("a", lambda s: {"vals": [f"a:{library.interrupt('question_a')}"]})
    b.add_node("b", lambda s: {"vals": [f"b:{library.interrupt('question_b')}"]})
    b.add_edge(library.START, "a")
    b.add_edge(library.START, "b")
    app = b.compile(checkpointer=library.InMemorySaver())
    r = app.invoke({"vals": []}, CONFIG)
    yield sorted(i.value for i in r["__interrupt__"])
    yield shown(app.get_state(CONFIG))
    resume = {i.id: f"answer for {i.value}" for i in r["__interrupt__"]}
    yield app.invoke(library.Command(resume=resume), CONFIG)
    yield history(app)


@program
def two_interrupts_one_node(library):

    class S(TypedDict):
        name: str
        age: str

    def ask(s):
        return {"name": library.interrupt("name?"), "age": library.interrupt("age?")}

    b = library.StateGraph(S)
    b.add_node("ask", ask)
    b.add_edge(library.START, "ask")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield [i.value for i in app.invoke({"name": ""}, CONFIG)["__interrupt__"]]
    yield [i.value for i in app.invoke(library.Command(resume="Bob"), CONFIG)["__interrupt__"]]
    yield app.invoke(library.Command(resume="42"), CONFIG)
    yield history(app)


@program
def tool_approval(library):

    class S(TypedDict):
        messages: Annotated[list, library.add_messages]

    def llm(s):
        last = s["messages"][-1]
        if last.type == "tool":
            return {"messages": [AIMessage("done: " + last.content)]}
        return {
            "messages": [
                AIMessage("", tool_calls=[{"name": "send", "args": {"to": "x"}, "id": "c1"}])
            ]
        }

    def review(s):
        call = s["messages"][-1].tool_calls[-1]
        d = library.interrupt({"tool": call["name"], "args": call["args"]})
        if d["action"] == "continue":
            return library.Command(goto="tool")
        if d["action"] == "update":
            last = s["messages"][-1]
            upd = AIMessage(last.content, tool_calls=[{**call, "args": d["data"]}], id=last.id)
            return library.Command(goto="tool", update={"messages": [upd]})
        return library.Command(
            goto="llm", update={"messages": [ToolMessage(d["data"], tool_call_id=call["id"])]}
        )

    def tool(s):
        c = s["messages"][-1].tool_calls[0]
        return {"messages": [ToolMessage(f"sent {c['args']['to']}", tool_call_id=c["id"])]}

    def route(s):
        return "review" if getattr(s["messages"][-1], "tool_calls", None) else library.END

    b = library.StateGraph(S)
    b.add_node("llm", llm)
    b.add_node("review", review, destinations=("tool", "llm"))
    b.add_node("tool", tool)
    b.add_edge(library.START, "llm")
    b.add_conditional_edges("llm", route, ["review", library.END])
    b.add_edge("tool", "llm")
    app = b.compile(checkpointer=library.InMemorySaver())

    def show(r):
        return [(m.type, m.content, getattr(m, "tool_calls", None)) for m in r["messages"]]

    for i, d in enumerate(
        [
            {"action": "continue"},
            {"action": "update", "data": {"to": "y"}},
            {"action": "feedback", "data": "no"},
        ]
    ):
        c = thread(i)
        r = app.invoke({"messages": [{"role": "user", "content": "hi"}]}, c)
        yield (show(r), [x.value for x in r["__interrupt__"]])
        yield show(app.invoke(library.Command(resume=d), c))
        yield [(h.next, len(h.values.get("messages", []))) for h in app.get_state_history(c)]


@program
def interrupt_in_subgraph(library):

    class S(TypedDict):
        x: str

    sub = library.StateGraph(S)
    sub.add_node("s1", lambda s: {"x": s["x"] + library.interrupt("sub?")})
    sub.add_edge(library.START, "s1")
    b = library.StateGraph(S)
    b.add_node("pre", lambda s: {"x": "p"})
    b.add_node("sub", sub.compile())
    b.add_node("post", lambda s: {"x": s["x"] + "!"})
    b.add_edge(library.START, "pre")
    b.add_edge("pre", "sub")
    b.add_edge("sub", "post")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield list(app.stream({"x": ""}, CONFIG, subgraphs=True))
    s = app.get_state(CONFIG, subgraphs=True)
    yield (s.next, s.tasks[0].state.values, s.tasks[0].state.next, [i.value for i in s.interrupts])
    yield list(app.stream(library.Command(resume="R"), CONFIG, subgraphs=True))
    yield history(app)


@program
def subgraph_update_inside(library):

    class S(TypedDict):
        x: str

    sub = library.StateGraph(S)
    sub.add_node("s1", lambda s: {"x": s["x"] + "1"})
    sub.add_node("s2", lambda s: {"x": s["x"] + "2"})
    sub.add_edge(library.START, "s1")
    sub.add_edge("s1", "s2")
    b = library.StateGraph(S)
    b.add_node("sub", sub.compile(interrupt_before=["s2"]))
    b.add_edge(library.START, "sub")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"x": "0"}, CONFIG)
    s = app.get_state(CONFIG, subgraphs=True)
    yield (s.values, s.next, s.tasks[0].state.values, s.tasks[0].state.next)
    app.update_state(s.tasks[0].state.config, {"x": "edited"})
    yield app.get_state(CONFIG, subgraphs=True).tasks[0].state.values
    yield app.invoke(None, CONFIG)


@program
def interrupt_resume_same_thread_new_input(library):

    class S(TypedDict):
        x: str

    b = library.StateGraph(S)
    b.add_node("ask", lambda s: {"x": library.interrupt("q")})
    b.add_edge(library.START, "ask")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"x": "1"}, CONFIG)
    r = app.invoke({"x": "2"}, CONFIG)
    yield (r["x"], [i.value for i in r["__interrupt__"]])
    yield app.invoke(library.Command(resume="a"), CONFIG)
    yield history(app)


@program
def invoke_none_on_interrupt(library):

    class S(TypedDict):
        x: str

    b = library.StateGraph(S)
    b.add_node("ask", lambda s: {"x": library.interrupt("q")})
    b.add_edge(library.START, "ask")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"x": "1"}, CONFIG)
    r = app.invoke(None, CONFIG)
    yield (r["x"], [i.value for i in r["__interrupt__"]])
    yield app.invoke(library.Command(resume="a", update={"x": "u"}), CONFIG)


@program
def no_checkpointer_interrupt(library):

    class S(TypedDict):
        x: str

    b = library.StateGraph(S)
    b.add_node("ask", lambda s: {"x": library.interrupt("q")})
    b.add_edge(library.START, "ask")
    app = b.compile()
    r = app.invoke({"x": "1"})
    yield (r["x"], [i.value for i in r["__interrupt__"]])
