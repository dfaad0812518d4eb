"""More of what tutorials show: chains, routing, parallel work, evaluators, email agents."""

import asyncio
import json
import operator
from typing import Annotated, Any, Literal, NotRequired

from langchain_core.messages import (
    AIMessage,
    HumanMessage,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, history, program, talk, thread
from tests.graph.compat.programs.agents import calling, said, scripted


@program
def prompt_chaining_with_gate(library):
    class State(TypedDict):
        topic: str
        joke: str
        improved_joke: str
        final_joke: str

    def check(state):
        return "Pass" if "!" in state["joke"] else "Fail"

    b = library.StateGraph(State)
    b.add_node("generate_joke", lambda s: {"joke": s["topic"] + "!"})
    b.add_node("improve_joke", lambda s: {"improved_joke": s["joke"] + "?"})
    b.add_node("polish_joke", lambda s: {"final_joke": s["improved_joke"] + "."})
    b.add_edge(library.START, "generate_joke")
    b.add_conditional_edges("generate_joke", check, {"Fail": "improve_joke", "Pass": library.END})
    b.add_edge("improve_joke", "polish_joke")
    b.add_edge("polish_joke", library.END)
    chain = b.compile()
    yield chain.invoke({"topic": "cats"})
    yield chain.get_graph().draw_mermaid()


@program
def parallel_then_aggregate(library):
    class State(TypedDict):
        topic: str
        joke: str
        story: str
        combined: str

    b = library.StateGraph(State)
    b.add_node("joke_", lambda s: {"joke": "j " + s["topic"]})
    b.add_node("story_", lambda s: {"story": "s " + s["topic"]})
    b.add_node("aggregator", lambda s: {"combined": s["joke"] + s["story"]})
    b.add_edge(library.START, "joke_")
    b.add_edge(library.START, "story_")
    b.add_edge("joke_", "aggregator")
    b.add_edge("story_", "aggregator")
    b.add_edge("aggregator", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"topic": "t"}, CONFIG)
    yield history(app)


@program
def email_agent(library):
    class Classification(TypedDict):
        intent: Literal["question", "bug"]
        urgency: str

    class State(TypedDict):
        email: str
        classification: Classification | None
        draft: str | None
        messages: Annotated[list, library.add_messages]

    def read(state: State) -> dict:
        return {"messages": [HumanMessage(content=f"Processing: {state['email']}")]}

    def classify(state: State) -> library.Command[Literal["search", "bug"]]:
        intent = "bug" if "crash" in state["email"] else "question"
        return library.Command(
            update={"classification": {"intent": intent, "urgency": "high"}},
            goto="bug" if intent == "bug" else "search",
        )

    def search(state: State) -> library.Command[Literal["respond"]]:
        return library.Command(goto="respond")

    def bug(state: State) -> library.Command[Literal["respond"]]:
        return library.Command(goto="respond", update={"draft": "ticket 1"})

    def respond(state: State) -> library.Command[Literal["human", "send"]]:
        goto = "human" if state["classification"]["urgency"] == "high" else "send"
        return library.Command(update={"draft": f"re: {state.get('draft')}"}, goto=goto)

    def human(state: State) -> library.Command[Literal["send", "__end__"]]:
        decision = library.interrupt({"draft": state["draft"], "action": "approve?"})
        if decision.get("approved"):
            text = decision.get("edited", state["draft"])
            return library.Command(update={"draft": text}, goto="send")
        return library.Command(update={}, goto=library.END)

    b = library.StateGraph(State)
    for node in (read, classify, search, bug, respond, human):
        b.add_node(node)
    b.add_node("send", lambda s: {})
    b.add_edge(library.START, "read")
    b.add_edge("read", "classify")
    b.add_edge("send", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    r = app.invoke({"email": "it does crash", "messages": []}, CONFIG)
    yield r["__interrupt__"][0].value
    yield app.invoke(library.Command(resume={"approved": True, "edited": "mine"}), CONFIG)["draft"]
    r = app.invoke({"email": "how?"}, thread(2))
    yield app.invoke(library.Command(resume={"approved": False}), thread(2))["draft"]
    yield app.get_state(thread(2)).next
    yield app.get_graph().draw_mermaid()


@program
def routing_with_literal_field(library):
    class Route(BaseModel):
        step: Literal["poem", "story"] = Field(None)

    class State(TypedDict):
        input: str
        decision: str
        output: str

    b = library.StateGraph(State)
    b.add_node("router", lambda s: {"decision": Route(step=s["input"]).step})
    b.add_node("poem", lambda s: {"output": "a poem"})
    b.add_node("story", lambda s: {"output": "a story"})
    b.add_edge(library.START, "router")
    b.add_conditional_edges("router", lambda s: s["decision"], {"story": "story", "poem": "poem"})
    b.add_edge("story", library.END)
    b.add_edge("poem", library.END)
    app = b.compile()
    yield app.invoke({"input": "poem"}), app.invoke({"input": "story"})
    app.invoke({"input": "song"})


@program
def orchestrator_sections(library):
    class Section(BaseModel):
        name: str
        description: str = ""

    class State(TypedDict):
        topic: str
        sections: list[Section]
        completed: Annotated[list, operator.add]
        report: str

    class Worker(TypedDict):
        section: Section
        completed: Annotated[list, operator.add]

    def plan(state: State):
        return {"sections": [Section(name=f"{state['topic']} {i}") for i in range(3)]}

    def write(state: Worker):
        return {"completed": [state["section"].name.upper()]}

    def synth(state: State):
        return {"report": "\n".join(sorted(state["completed"]))}

    def assign(state: State):
        return [library.Send("write", {"section": s}) for s in state["sections"]]

    b = library.StateGraph(State)
    b.add_node("plan", plan)
    b.add_node("write", write)
    b.add_node("synth", synth)
    b.add_edge(library.START, "plan")
    b.add_conditional_edges("plan", assign, ["write"])
    b.add_edge("write", "synth")
    app = b.compile(checkpointer=library.InMemorySaver())
    r = app.invoke({"topic": "t"}, CONFIG)
    yield r["report"], r["completed"], [type(s).__name__ for s in r["sections"]]
    yield [s.next for s in app.get_state_history(CONFIG)]


@program
def human_feedback_node_with_stream(library):
    class State(TypedDict):
        input: str
        user_feedback: str

    def human(state):
        feedback = library.interrupt("Please provide feedback:")
        return {"user_feedback": feedback}

    b = library.StateGraph(State)
    b.add_node("step_1", lambda s: None)
    b.add_node("human_feedback", human)
    b.add_node("step_3", lambda s: None)
    b.add_edge(library.START, "step_1")
    b.add_edge("step_1", "human_feedback")
    b.add_edge("human_feedback", "step_3")
    b.add_edge("step_3", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    yield list(app.stream({"input": "hello world"}, CONFIG, stream_mode="updates"))
    yield app.get_state(CONFIG).next
    yield list(app.stream(library.Command(resume="go!"), CONFIG, stream_mode="updates"))
    yield app.get_state(CONFIG).values


@program
def ask_human_tool(library):
    @tool
    def ask_human(question: str) -> str:
        """Ask."""
        return "unused"

    llm = scripted(calling("ask_human", {"question": "where?"}), "it is sunny in sf")

    def route(state):
        calls = state["messages"][-1].tool_calls
        if not calls:
            return library.END
        return "ask_human" if calls[0]["name"] == "ask_human" else "action"

    def ask(state):
        call = state["messages"][-1].tool_calls[0]
        location = library.interrupt("Please provide your location:")
        return {"messages": [{"tool_call_id": call["id"], "type": "tool", "content": location}]}

    b = library.StateGraph(library.MessagesState)
    b.add_node("agent", lambda s: {"messages": [llm.invoke(s["messages"])]})
    b.add_node("action", library.ToolNode([ask_human]))
    b.add_node("ask_human", ask)
    b.add_edge(library.START, "agent")
    b.add_conditional_edges("agent", route, path_map=["ask_human", "action", library.END])
    b.add_edge("action", "agent")
    b.add_edge("ask_human", "agent")
    app = b.compile(checkpointer=library.InMemorySaver())
    for event in app.stream({"messages": [("user", "weather?")]}, CONFIG, stream_mode="values"):
        if "messages" in event:
            yield event["messages"][-1].type
    yield app.get_state(CONFIG).next
    for event in app.stream(library.Command(resume="sf"), CONFIG, stream_mode="values"):
        yield event["messages"][-1].type, event["messages"][-1].content


@program
def time_travel_joke(library):
    class State(TypedDict):
        topic: NotRequired[str]
        joke: NotRequired[str]

    b = library.StateGraph(State)
    b.add_node("generate_topic", lambda s: {"topic": "socks"})
    b.add_node("write_joke", lambda s: {"joke": "joke about " + s["topic"]})
    b.add_edge(library.START, "generate_topic")
    b.add_edge("generate_topic", "write_joke")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({}, CONFIG)
    states = list(app.get_state_history(CONFIG))
    yield [s.next for s in states]
    selected = states[1]
    new = app.update_state(selected.config, values={"topic": "chickens"})
    yield app.invoke(None, new)
    yield history(app)
    yield app.get_state(selected.config).values, app.get_state(new).values


@program
def empty_dict_input_to_optional_state(library):
    class State(TypedDict):
        a: NotRequired[str]

    b = library.StateGraph(State)
    b.add_node("n", lambda s: {"a": "set"})
    b.add_edge(library.START, "n")
    yield b.compile().invoke({})


@program
def cross_thread_with_closure_store(library):
    memory: dict[str, list] = {}

    def node(state, config: RunnableConfig):
        user = config["configurable"]["user_id"]
        memory.setdefault(user, []).append(state["messages"][-1].content)
        return {"messages": [AIMessage(f"I know {len(memory[user])}")]}

    b = library.StateGraph(library.MessagesState)
    b.add_node("n", node)
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    for t, user in [("1", "u"), ("2", "u"), ("3", "v")]:
        config: Any = {"configurable": {"thread_id": t, "user_id": user}}
        yield said(app.invoke({"messages": [HumanMessage("x")]}, config))[-1]


@program
def evaluator_loop_with_feedback(library):
    class Feedback(BaseModel):
        grade: Literal["funny", "not funny"]
        feedback: str

    grades = iter(
        [Feedback(grade="not funny", feedback="more"), Feedback(grade="funny", feedback="")]
    )

    class State(TypedDict):
        joke: str
        topic: str
        feedback: str
        funny: str

    def gen(s):
        return {"joke": f"{s['topic']} {s.get('feedback')}"}

    def evaluate(s):
        g = next(grades)
        return {"funny": g.grade, "feedback": g.feedback}

    b = library.StateGraph(State)
    b.add_node("gen", gen)
    b.add_node("eval", evaluate)
    b.add_edge(library.START, "gen")
    b.add_edge("gen", "eval")
    b.add_conditional_edges(
        "eval",
        lambda s: "Accepted" if s["funny"] == "funny" else "Rejected",
        {"Accepted": library.END, "Rejected": "gen"},
    )
    yield list(b.compile().stream({"topic": "cats"}))


@program
def subgraph_node_transform(library):
    class Parent(TypedDict):
        foo: str

    class Child(TypedDict):
        bar: str
        baz: str

    class Grand(TypedDict):
        qux: str

    g = library.StateGraph(Grand)
    g.add_node("g", lambda s: {"qux": s["qux"] + " g"})
    g.add_edge(library.START, "g")
    grand = g.compile()

    def call_grand(s: Child):
        return {"bar": grand.invoke({"qux": s["bar"]})["qux"]}

    c = library.StateGraph(Child)
    c.add_node("call_grand", call_grand)
    c.add_edge(library.START, "call_grand")
    child = c.compile()

    def call_child(s: Parent):
        return {"foo": child.invoke({"bar": s["foo"]})["bar"]}

    p = library.StateGraph(Parent)
    p.add_node("p1", lambda s: {"foo": "hi " + s["foo"]})
    p.add_node("call_child", call_child)
    p.add_edge(library.START, "p1")
    p.add_edge("p1", "call_child")
    app = p.compile()
    for ns, chunk in app.stream({"foo": "Bob"}, subgraphs=True):
        yield [n.split(":")[0] for n in ns], chunk
    for part in app.stream({"foo": "Bob"}, subgraphs=True, stream_mode="updates", version="v2"):
        yield part["type"], [n.split(":")[0] for n in part["ns"]], part["data"]


@program
def invoke_v2(library):
    class State(TypedDict):
        a: str

    b = library.StateGraph(State)
    b.add_node("n", lambda s: {"a": library.interrupt("q")})
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    r = app.invoke({"a": ""}, CONFIG, version="v2")
    yield r.value, [i.value for i in r.interrupts]
    r = app.invoke(library.Command(resume="x"), CONFIG, version="v2")
    yield r.value, r.interrupts


@program
def long_running_retries_state(library):
    class State(TypedDict):
        attempts: Annotated[int, operator.add]
        done: bool

    def work(s):
        return {"attempts": 1, "done": s["attempts"] >= 2}

    b = library.StateGraph(State)
    b.add_node("work", work)
    b.add_edge(library.START, "work")
    b.add_conditional_edges("work", lambda s: s["done"], {True: library.END, False: "work"})
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"attempts": 0}, CONFIG)
    yield app.invoke({"attempts": 0}, CONFIG)
    yield app.get_graph().draw_mermaid()


@program
def json_and_bool_routers(library):
    class State(TypedDict):
        data: dict
        log: Annotated[list, operator.add]

    b = library.StateGraph(State)
    b.add_node("parse", lambda s: {"data": json.loads('{"ok": true, "items": [1, 2]}')})
    b.add_node("yes", lambda s: {"log": [s["data"]["items"]]})
    b.add_node("no", lambda s: {"log": ["no"]})
    b.add_edge(library.START, "parse")
    b.add_conditional_edges("parse", lambda s: s["data"]["ok"], {True: "yes", False: "no"})
    yield b.compile().invoke({"log": []})


@program
def compile_subgraph_with_interrupt_after(library):
    class State(TypedDict):
        log: Annotated[list, operator.add]

    inner = library.StateGraph(State)
    inner.add_node("a", lambda s: {"log": ["a"]})
    inner.add_node("b", lambda s: {"log": ["b"]})
    inner.add_edge(library.START, "a")
    inner.add_edge("a", "b")
    outer = library.StateGraph(State)
    outer.add_node("sub", inner.compile(interrupt_after=["a"]))
    outer.add_node("end", lambda s: {"log": ["end"]})
    outer.add_edge(library.START, "sub")
    outer.add_edge("sub", "end")
    app = outer.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"log": []}, CONFIG), app.get_state(CONFIG).next
    yield app.get_state(CONFIG, subgraphs=True).tasks[0].state.next
    yield app.invoke(None, CONFIG), app.get_state(CONFIG).next


@program
def state_of_running_node(library):
    class State(TypedDict):
        log: Annotated[list, operator.add]

    found = []

    def node(s, config):
        state = app.get_state({"configurable": {"thread_id": "1"}})
        found.append((state.values, state.next))
        return {"log": ["n"]}

    b = library.StateGraph(State)
    b.add_node("a", lambda s: {"log": ["a"]})
    b.add_node("n", node)
    b.add_edge(library.START, "a")
    b.add_edge("a", "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    app.invoke({"log": []}, CONFIG, durability="sync")
    yield found


@program
async def concurrent_threads_async(library):
    async def node(state):
        await asyncio.sleep(0.001)
        return {"messages": [AIMessage(state["messages"][-1].content * 2)]}

    b = library.StateGraph(library.MessagesState)
    b.add_node("n", node)
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    found = await asyncio.gather(
        *(app.ainvoke({"messages": [("user", str(i))]}, thread(i)) for i in range(5))
    )
    yield [said(f)[-1] for f in found]


@program
async def astream_modes_and_subgraphs(library):
    class State(TypedDict):
        log: Annotated[list, operator.add]

    async def inner_node(s):
        library.get_stream_writer()({"inner": 1})
        return {"log": ["i"]}

    inner = library.StateGraph(State)
    inner.add_node("inner_node", inner_node)
    inner.add_edge(library.START, "inner_node")
    outer = library.StateGraph(State)
    outer.add_node("sub", inner.compile())
    outer.add_edge(library.START, "sub")
    app = outer.compile()
    async for ns, mode, chunk in app.astream(
        {"log": []}, stream_mode=["updates", "custom", "values"], subgraphs=True
    ):
        yield [n.split(":")[0] for n in ns], mode, chunk


@program
def react_agent_with_version_and_hooks(library):
    @tool
    def ping() -> str:
        """Ping."""
        return "pong"

    seen = []

    def pre(state):
        seen.append(len(state["messages"]))
        return {"llm_input_messages": state["messages"][-2:]}

    llm = scripted(calling("ping", {}), "done")
    for version in ("v1", "v2"):
        llm = scripted(calling("ping", {}), "done")
        agent = library.create_react_agent(llm, [ping], pre_model_hook=pre, version=version)
        yield said(agent.invoke({"messages": [("user", "x")]}))
    yield seen


@program
def agent_that_runs_out_of_steps(library):
    @tool
    def ping() -> str:
        """Ping."""
        return "pong"

    llm = scripted(*[calling("ping", {}, str(i)) for i in range(10)])
    agent = library.create_react_agent(llm, [ping])
    r = agent.invoke({"messages": [("user", "x")]}, {"recursion_limit": 6})
    yield said(r)


@program
def agent_with_invalid_history(library):
    agent = library.create_react_agent(scripted("x"), [])
    agent.invoke({"messages": [calling("ping", {})]})


@program
def supervisor_of_react_agents(library):
    @tool
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    math = library.create_react_agent(
        scripted(calling("add", {"a": 1, "b": 2}), "3"), [add], name="math", prompt="math"
    )
    writer = library.create_react_agent(scripted("text"), [], name="writer")
    plan = iter(["math", "writer", "__end__"])

    def supervisor(state) -> library.Command[Literal["math", "writer", "__end__"]]:
        return library.Command(goto=next(plan))

    b = library.StateGraph(library.MessagesState)
    b.add_node("supervisor", supervisor)
    b.add_node("math", math)
    b.add_node("writer", writer)
    b.add_edge(library.START, "supervisor")
    b.add_edge("math", "supervisor")
    b.add_edge("writer", "supervisor")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield said(app.invoke({"messages": "go"}, CONFIG))
    yield [s["next"] for s in talk(app)]
    nodes = app.get_graph(xray=True).nodes
    yield sorted(n for n in nodes if not n.endswith(("__start__", "__end__")))


@program
def guardrail_before_model(library):
    def guard(state) -> Literal["model", "block"]:
        return "block" if "bad" in state["messages"][-1].content else "model"

    b = library.StateGraph(library.MessagesState)
    b.add_node("model", lambda s: {"messages": [AIMessage("ok")]})
    b.add_node("block", lambda s: {"messages": [AIMessage("blocked")]})
    b.add_conditional_edges(library.START, guard)
    app = b.compile()
    yield said(app.invoke({"messages": "bad"})), said(app.invoke({"messages": "good"}))
    yield app.get_graph().draw_mermaid()


@program
def optional_fields_of_pydantic_nodes(library):
    class State(BaseModel):
        query: str
        answer: str | None = None
        steps: Annotated[list[str], operator.add] = []

    def a(state: State) -> dict:
        return {"answer": state.query.upper(), "steps": ["a"]}

    def b_(state: State):
        return State(query=state.query, answer=state.answer + "!", steps=["b"])

    b = library.StateGraph(State)
    b.add_node("a", a)
    b.add_node("b", b_)
    b.add_edge(library.START, "a")
    b.add_edge("a", "b")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"query": "q"}, CONFIG)
    yield list(app.stream({"query": "q"}, thread(2)))
    yield app.get_state(CONFIG).values
