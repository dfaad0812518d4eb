"""People in the loop: several interrupts, breakpoints, edits, going back to a question."""

import operator
from typing import Annotated, Literal

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, history, program, shown, thread


class Draft(TypedDict, total=False):
    topic: str
    draft: str
    status: str
    log: Annotated[list[str], operator.add]


@program
def review_and_edit(library):
    def review(state) -> library.Command[Literal["publish", "write"]]:
        answer = library.interrupt({"task": "Review", "draft": state["draft"]})
        if answer["action"] == "edit":
            return library.Command(goto="publish", update={"draft": answer["text"]})
        if answer["action"] == "reject":
            return library.Command(goto="write", update={"log": ["rejected"]})
        return library.Command(goto="publish")

    b = library.StateGraph(Draft)
    b.add_node("write", lambda s: {"draft": f"{s['topic']} v{len(s.get('log', []))}"})
    b.add_node("review", review)
    b.add_node("publish", lambda s: {"status": "published " + s["draft"]})
    b.add_edge(library.START, "write")
    b.add_edge("write", "review")
    b.add_edge("publish", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    for i, answers in enumerate(
        [[{"action": "ok"}], [{"action": "reject"}, {"action": "edit", "text": "mine"}]]
    ):
        config = thread(i)
        r = app.invoke({"topic": "cats"}, config)
        yield r["__interrupt__"][0].value, r["draft"]
        for a in answers:
            r = app.invoke(library.Command(resume=a), config)
            yield r.get("status"), r["draft"], [x.value for x in r.get("__interrupt__", [])]
        yield history(app, config)


@program
def while_interrupt_in_state(library):
    class Form(TypedDict, total=False):
        name: str
        age: int
        errors: Annotated[list, operator.add]

    def ask_name(s):
        return {"name": library.interrupt("name?")}

    def ask_age(s):
        value = library.interrupt(f"{s['name']}, age?")
        try:
            return library.Command(update={"age": int(value)}, goto="done")
        except ValueError:
            return library.Command(update={"errors": [f"bad {value}"]}, goto="ask_age")

    b = library.StateGraph(Form)
    b.add_node(ask_name)
    b.add_node("ask_age", ask_age, destinations=("ask_age", "done"))
    b.add_node("done", lambda s: {})
    b.add_edge(library.START, "ask_name")
    b.add_edge("ask_name", "ask_age")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"errors": []}, CONFIG)
    for a in ["Ann", "x", "y", "7"]:
        state = app.get_state(CONFIG)
        yield state.next, [i.value for t in state.tasks for i in t.interrupts]
        yield app.invoke(library.Command(resume=a), CONFIG)
    yield shown(app.get_state(CONFIG))


@program
def resume_by_interrupt_ids(library):
    class S(TypedDict):
        answers: Annotated[list, operator.add]

    b = library.StateGraph(S)
    for n in "abc":
        b.add_node(n, lambda s, n=n: {"answers": [f"{n}={library.interrupt(n + '?')}"]})
        b.add_edge(library.START, n)
    app = b.compile(checkpointer=library.InMemorySaver())
    r = app.invoke({"answers": []}, CONFIG)
    yield sorted(i.value for i in r["__interrupt__"])
    state = app.get_state(CONFIG)
    yield len({i.id for i in state.interrupts})
    answers = {i.id: i.value.upper() for i in state.interrupts}
    yield app.invoke(library.Command(resume=answers), CONFIG)
    yield shown(app.get_state(CONFIG))


@program
def resume_some_by_id(library):
    class S(TypedDict):
        answers: Annotated[list, operator.add]

    b = library.StateGraph(S)
    for n in "ab":
        b.add_node(n, lambda s, n=n: {"answers": [f"{n}={library.interrupt(n + '?')}"]})
        b.add_edge(library.START, n)
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"answers": []}, CONFIG)
    first = next(i for i in app.get_state(CONFIG).interrupts if i.value == "a?")
    r = app.invoke(library.Command(resume={first.id: "1"}), CONFIG)
    yield r["answers"], [i.value for i in r["__interrupt__"]]
    state = app.get_state(CONFIG)
    yield [i.value for i in state.interrupts], state.next
    second = next(i for i in state.interrupts if i.value == "b?")
    yield app.invoke(library.Command(resume={second.id: "2"}), CONFIG)


@program
def resume_two_questions_without_ids(library):
    class S(TypedDict):
        answers: Annotated[list, operator.add]

    b = library.StateGraph(S)
    for n in "ab":
        b.add_node(n, lambda s, n=n: {"answers": [library.interrupt(n)]})
        b.add_edge(library.START, n)
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"answers": []}, CONFIG)
    app.invoke(library.Command(resume="x"), CONFIG)


@program
def resume_with_update_and_goto(library):
    def ask(s):
        return {"log": ["asked " + library.interrupt("go?")]}

    b = library.StateGraph(Draft)
    b.add_node("ask", ask)
    b.add_node("after", lambda s: {"log": ["after " + s.get("status", "")]})
    b.add_edge(library.START, "ask")
    b.add_edge("ask", "after")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"log": []}, CONFIG)
    yield app.invoke(library.Command(resume="yes", update={"status": "st", "log": ["u"]}), CONFIG)
    yield shown(app.get_state(CONFIG))


@program
def falsy_resume_values(library):
    class S(TypedDict):
        got: str

    b = library.StateGraph(S)
    b.add_node("ask", lambda s: {"got": repr(library.interrupt("?"))})
    b.add_edge(library.START, "ask")
    app = b.compile(checkpointer=library.InMemorySaver())
    for i, value in enumerate([False, 0, "", [], "text", {"a": 1}, [1]]):
        app.invoke({"got": ""}, thread(i))
        yield value, app.invoke(library.Command(resume=value), thread(i)).get("got")


@program
def breakpoint_edit_then_continue(library):
    b = library.StateGraph(Draft)
    b.add_node("one", lambda s: {"log": ["one"]})
    b.add_node("two", lambda s: {"log": ["two " + s["topic"]]})
    b.add_node("three", lambda s: {"log": ["three"]})
    b.add_edge(library.START, "one")
    b.add_edge("one", "two")
    b.add_edge("two", "three")
    app = b.compile(checkpointer=library.InMemorySaver(), interrupt_before=["two", "three"])
    for event in app.stream({"topic": "t"}, CONFIG, stream_mode="values"):
        yield event
    yield app.get_state(CONFIG).next
    app.update_state(CONFIG, {"topic": "new"})
    for event in app.stream(None, CONFIG, stream_mode="values"):
        yield event
    yield app.get_state(CONFIG).next
    for event in app.stream(None, CONFIG):
        yield event
    yield history(app)


@program
def dynamic_breakpoints(library):
    b = library.StateGraph(Draft)
    b.add_sequence([("a", lambda s: {"log": ["a"]}), ("b", lambda s: {"log": ["b"]})])
    b.add_edge(library.START, "a")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"log": []}, CONFIG, interrupt_before=["b"])
    yield app.get_state(CONFIG).next
    yield app.invoke(None, CONFIG, interrupt_after="*")
    yield app.get_state(CONFIG).next
    yield list(app.stream({"log": []}, thread(2), interrupt_before="*"))
    yield list(app.stream(None, thread(2), interrupt_before="*"))
    yield shown(app.get_state(thread(2)))


@program
def wait_for_user_as_node(library):
    def human(s):
        pass

    b = library.StateGraph(Draft)
    b.add_node("step", lambda s: {"log": ["step"]})
    b.add_node("human", human)
    b.add_node("use", lambda s: {"log": ["use " + s["status"]]})
    b.add_edge(library.START, "step")
    b.add_edge("step", "human")
    b.add_edge("human", "use")
    app = b.compile(checkpointer=library.InMemorySaver(), interrupt_before=["human"])
    list(app.stream({"log": []}, CONFIG))
    app.update_state(CONFIG, {"status": "hello"}, as_node="human")
    yield app.get_state(CONFIG).next
    yield list(app.stream(None, CONFIG, stream_mode="updates"))
    yield history(app)


@program
def tool_review_with_edit(library):
    call = {"name": "weather", "args": {"city": "x"}, "id": "c1"}

    def model(state):
        if isinstance(state["messages"][-1], ToolMessage):
            return {"messages": [AIMessage("done: " + state["messages"][-1].content)]}
        return {"messages": [AIMessage("", tool_calls=[call], id="ai1")]}

    def route(state) -> Literal["review", "__end__"]:
        return "review" if state["messages"][-1].tool_calls else library.END

    def review(state) -> library.Command[Literal["model", "tools"]]:
        last = state["messages"][-1]
        got = library.interrupt({"question": "ok?", "call": last.tool_calls[-1]})
        if got["action"] == "continue":
            return library.Command(goto="tools")
        if got["action"] == "update":
            new = AIMessage(
                "", tool_calls=[{**last.tool_calls[0], "args": got["data"]}], id=last.id
            )
            return library.Command(goto="tools", update={"messages": [new]})
        message = ToolMessage(got["data"], name="weather", tool_call_id="c1")
        return library.Command(goto="model", update={"messages": [message]})

    def tools(state):
        return {
            "messages": [
                ToolMessage("sunny in " + c["args"]["city"], name=c["name"], tool_call_id=c["id"])
                for c in state["messages"][-1].tool_calls
            ]
        }

    b = library.StateGraph(library.MessagesState)
    b.add_node(model)
    b.add_node(review)
    b.add_node(tools)
    b.add_edge(library.START, "model")
    b.add_conditional_edges("model", route)
    b.add_edge("tools", "model")
    app = b.compile(checkpointer=library.InMemorySaver())
    for i, answer in enumerate(
        [
            {"action": "continue"},
            {"action": "update", "data": {"city": "sf"}},
            {"action": "feedback", "data": "no"},
        ]
    ):
        yield list(app.stream({"messages": [("user", "w?")]}, thread(i)))
        yield app.get_state(thread(i)).next
        yield list(app.stream(library.Command(resume=answer), thread(i)))
    yield app.get_graph().draw_mermaid()


@program
def interrupt_inside_a_tool(library):
    from langchain_core.tools import tool

    @tool
    def book(hotel: str) -> str:
        """Book a hotel."""
        answer = library.interrupt(f"book {hotel}?")
        return f"{answer['type']}: {answer.get('hotel', hotel)}"

    def model(state):
        if isinstance(state["messages"][-1], HumanMessage):
            call = {"name": "book", "args": {"hotel": "Ritz"}, "id": "1", "type": "tool_call"}
            return {"messages": [AIMessage("", tool_calls=[call])]}
        return {"messages": [AIMessage("ok")]}

    b = library.StateGraph(library.MessagesState)
    b.add_node("model", model)
    b.add_node("tools", library.ToolNode([book]))
    b.add_edge(library.START, "model")
    b.add_conditional_edges("model", library.tools_condition)
    b.add_edge("tools", "model")
    app = b.compile(checkpointer=library.InMemorySaver())
    r = app.invoke({"messages": "go"}, CONFIG)
    yield [i.value for i in r["__interrupt__"]]
    yield shown(app.get_state(CONFIG))
    yield app.invoke(library.Command(resume={"type": "edit", "hotel": "Hilton"}), CONFIG)


@program
def interrupt_stream_modes_together(library):
    def ask(s):
        library.get_stream_writer()("asking")
        return {"status": library.interrupt({"q": 1})}

    b = library.StateGraph(Draft)
    b.add_node("ask", ask)
    b.add_edge(library.START, "ask")
    app = b.compile(checkpointer=library.InMemorySaver())
    modes = ["values", "updates", "custom"]
    yield list(app.stream({"topic": "t"}, CONFIG, stream_mode=modes))
    yield list(app.stream(library.Command(resume="r"), CONFIG, stream_mode=modes))
    yield list(app.stream({"topic": "t2"}, CONFIG, stream_mode=modes))
    yield history(app)


@program
async def interrupts_async(library):
    async def ask(s):
        first = library.interrupt("one")
        second = library.interrupt(f"two after {first}")
        return {"log": [first, second]}

    b = library.StateGraph(Draft)
    b.add_node("ask", ask)
    b.add_edge(library.START, "ask")
    app = b.compile(checkpointer=library.InMemorySaver())
    async for chunk in app.astream({"log": []}, CONFIG, stream_mode="updates"):
        yield chunk
    for a in "xy":
        async for chunk in app.astream(library.Command(resume=a), CONFIG, stream_mode="updates"):
            yield chunk
    yield shown(await app.aget_state(CONFIG))
    yield [shown(s) async for s in app.aget_state_history(CONFIG)]


@program
def interrupts_in_map(library):
    class S(TypedDict):
        items: list
        out: Annotated[list, operator.add]

    def one(s):
        return {"out": [f"{s['item']}:{library.interrupt(s['item'])}"]}

    b = library.StateGraph(S)
    b.add_node("one", one)
    b.add_conditional_edges(
        library.START, lambda s: [library.Send("one", {"item": i}) for i in s["items"]], ["one"]
    )
    app = b.compile(checkpointer=library.InMemorySaver())
    r = app.invoke({"items": ["a", "b", "c"], "out": []}, CONFIG)
    yield sorted(i.value for i in r["__interrupt__"])
    state = app.get_state(CONFIG)
    yield state.next, [t.path[0] for t in state.tasks]
    yield app.invoke(library.Command(resume={i.id: i.value * 2 for i in state.interrupts}), CONFIG)


@program
def interrupt_two_levels_down(library):
    def sub(node, name):
        b = library.StateGraph(Draft)
        b.add_node(name, node)
        b.add_edge(library.START, name)
        return b.compile()

    deep = sub(lambda s: {"status": library.interrupt("deep?")}, "ask")
    middle = sub(deep, "middle")
    b = library.StateGraph(Draft)
    b.add_node("top", middle)
    b.add_node("end", lambda s: {"topic": "end " + s["status"]})
    b.add_edge(library.START, "top")
    b.add_edge("top", "end")
    app = b.compile(checkpointer=library.InMemorySaver())
    r = app.invoke({"topic": "t", "log": []}, CONFIG)
    yield [i.value for i in r["__interrupt__"]]
    state = app.get_state(CONFIG, subgraphs=True)
    yield state.next, state.tasks[0].state.next, state.tasks[0].state.tasks[0].state.next
    yield list(app.stream(library.Command(resume="yes"), CONFIG, subgraphs=True))
    yield shown(app.get_state(CONFIG))


@program
def subgraph_called_in_node_interrupts(library):
    calls = []

    class Inner(TypedDict):
        x: str

    b = library.StateGraph(Inner)
    b.add_node("inner", lambda s: {"x": library.interrupt("inner?")})
    b.add_edge(library.START, "inner")
    inner = b.compile()

    def outer(s):
        calls.append(1)
        return {"status": inner.invoke({"x": s["topic"]})["x"]}

    b = library.StateGraph(Draft)
    b.add_node("outer", outer)
    b.add_edge(library.START, "outer")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"topic": "t", "log": []}, CONFIG)
    yield app.invoke(library.Command(resume="a"), CONFIG), len(calls)


@program
def go_back_to_a_question(library):
    b = library.StateGraph(Draft)
    b.add_node("ask", lambda s: {"log": ["got " + library.interrupt("?")]})
    b.add_node("after", lambda s: {"log": ["after"]})
    b.add_edge(library.START, "ask")
    b.add_edge("ask", "after")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"log": []}, CONFIG)
    app.invoke(library.Command(resume="one"), CONFIG)
    before = next(s for s in app.get_state_history(CONFIG) if s.next == ("ask",))
    r = app.invoke(None, before.config)
    yield [i.value for i in r.get("__interrupt__", [])], r["log"]
    yield app.invoke(library.Command(resume="two"), CONFIG)
    yield app.get_state(CONFIG).values


@program
def command_resume_without_waiting(library):
    b = library.StateGraph(Draft)
    b.add_node("a", lambda s: {"log": ["a"]})
    b.add_edge(library.START, "a")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"log": []}, CONFIG)
    yield app.invoke({"log": ["again"]}, CONFIG)
    app.update_state(CONFIG, {"log": ["u"]}, as_node=library.START)
    yield app.get_state(CONFIG).next
    yield app.invoke(None, CONFIG)


@program
def interrupt_after_and_new_input(library):
    b = library.StateGraph(Draft)
    b.add_node("a", lambda s: {"log": ["a"]})
    b.add_node("b", lambda s: {"log": ["b"]})
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile(checkpointer=library.InMemorySaver(), interrupt_after=["a"])
    yield app.invoke({"log": ["1"]}, CONFIG)
    yield app.invoke({"log": ["2"]}, CONFIG)
    yield app.invoke(None, CONFIG)
    yield history(app)


@program
def approve_in_two_places(library):
    def gate(name):
        def run(s):
            if library.interrupt(f"{name}?") != "y":
                return library.Command(goto=library.END, update={"log": [f"{name} denied"]})
            return {"log": [f"{name} ok"]}

        return run

    b = library.StateGraph(Draft)
    b.add_node("first", gate("first"))
    b.add_node("second", gate("second"))
    b.add_edge(library.START, "first")
    b.add_edge("first", "second")
    app = b.compile(checkpointer=library.InMemorySaver())
    for i, answers in enumerate(["yy", "yn"]):
        app.invoke({"log": []}, thread(i))
        for a in answers:
            yield app.invoke(library.Command(resume=a), thread(i))["log"]
        yield app.get_state(thread(i)).next


@program
def older_node_interrupt(library):
    def check(s):
        if len(s["topic"]) > 3:
            raise library.NodeInterrupt(f"too long: {s['topic']}")
        return {"log": [s["topic"]]}

    b = library.StateGraph(Draft)
    b.add_node("first", lambda s: {"log": ["first"]})
    b.add_node("check", check)
    b.add_edge(library.START, "first")
    b.add_edge("first", "check")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield [list(chunk) for chunk in app.stream({"topic": "hello"}, CONFIG)]
    state = app.get_state(CONFIG)
    yield state.next, [i.value for t in state.tasks for i in t.interrupts]
    yield [list(chunk) for chunk in app.stream(None, CONFIG)]
    app.update_state(CONFIG, {"topic": "hi"})
    yield app.invoke(None, CONFIG), app.get_state(CONFIG).next
    app.invoke({"topic": "again"}, CONFIG)
    app.update_state(CONFIG, None, as_node="check")
    yield app.get_state(CONFIG).next


@program
def annotated_with_names_of_savers(library):
    def build(checkpointer: library.BaseCheckpointSaver | None = None):
        b = library.StateGraph(Draft)
        b.add_node("a", lambda s: {"log": ["a"]})
        b.add_edge(library.START, "a")
        return b.compile(checkpointer=checkpointer)

    saver = library.InMemorySaver()
    yield isinstance(saver, library.BaseCheckpointSaver)
    yield build(saver).invoke({"topic": "t"}, CONFIG), build().invoke({"topic": "t"})
