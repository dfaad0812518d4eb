"""Agents and teams of them: tools, supervisors, swarms, planners, graders, reflection, SQL."""

import asyncio
import operator
import sqlite3
from itertools import pairwise
from typing import Annotated, Literal

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel
from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, history, program, talk


class Scripted(GenericFakeChatModel):
    """A chat model that accepts tools and says what it was told to."""

    def bind_tools(self, tools, **kwargs):
        return self


def scripted(*messages):
    return Scripted(
        messages=iter(
            [AIMessage(m, id=f"ai{i}") if isinstance(m, str) else m for i, m in enumerate(messages)]
        )
    )


def calling(name, args, id="c1", text=""):
    return AIMessage(
        text,
        tool_calls=[{"name": name, "args": args, "id": id, "type": "tool_call"}],
        id="call" + id,
    )


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


@tool
def fails(x: str) -> str:
    """Always fails."""
    raise ValueError("bad " + x)


def said(values):
    return [(m.type, m.content, m.name) for m in values["messages"]]


@program
def react_from_scratch(library):
    llm = scripted(calling("multiply", {"a": 3, "b": 4}), "It is 12")
    tools = {t.name: t for t in [multiply]}

    def call_model(state, config):
        return {
            "messages": [llm.bind_tools(list(tools.values())).invoke(state["messages"], config)]
        }

    def tool_node(state):
        out = []
        for c in state["messages"][-1].tool_calls:
            result = tools[c["name"]].invoke(c["args"])
            out.append(ToolMessage(content=str(result), name=c["name"], tool_call_id=c["id"]))
        return {"messages": out}

    def should_continue(state) -> Literal["tools", "__end__"]:
        return "tools" if state["messages"][-1].tool_calls else "__end__"

    b = library.StateGraph(library.MessagesState)
    b.add_node("agent", call_model)
    b.add_node("tools", tool_node)
    b.set_entry_point("agent")
    b.add_conditional_edges("agent", should_continue)
    b.add_edge("tools", "agent")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield list(app.stream({"messages": [("user", "3*4?")]}, CONFIG, stream_mode="updates"))
    yield talk(app)
    yield app.get_graph().draw_mermaid()


@program
def toolnode_and_condition(library):
    llm = scripted(
        AIMessage(
            "",
            id="x",
            tool_calls=[
                {"name": "multiply", "args": {"a": 2, "b": 2}, "id": "1", "type": "tool_call"},
                {"name": "multiply", "args": {"a": 5, "b": 5}, "id": "2", "type": "tool_call"},
            ],
        ),
        "done",
    )
    b = library.StateGraph(library.MessagesState)
    b.add_node("agent", lambda s: {"messages": [llm.invoke(s["messages"])]})
    b.add_node("tools", library.ToolNode([multiply]))
    b.add_edge(library.START, "agent")
    b.add_conditional_edges(
        "agent", library.tools_condition, {"tools": "tools", "__end__": library.END}
    )
    b.add_edge("tools", "agent")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield said(app.invoke({"messages": "go"}, CONFIG))
    yield talk(app)


@program
def toolnode_errors(library):
    node = library.ToolNode([fails, multiply], handle_tool_errors=True)
    b = library.StateGraph(library.MessagesState)
    b.add_node("tools", node)
    b.add_edge(library.START, "tools")
    app = b.compile()
    for call in (
        calling("fails", {"x": "y"}),
        calling("unknown", {}),
        calling("multiply", {"a": "x"}),
    ):
        last = app.invoke({"messages": [call]})["messages"][-1]
        yield last.status, last.name, last.tool_call_id, str(last.content)[:40]


@program
def toolnode_default_raises(library):
    b = library.StateGraph(library.MessagesState)
    b.add_node("tools", library.ToolNode([fails]))
    b.add_edge(library.START, "tools")
    app = b.compile()
    app.invoke({"messages": [calling("fails", {"x": "y"})]})


@program
def tool_with_injected_state_and_command(library):
    class State(library.MessagesState):
        user: str

    @tool
    def whoami(state: Annotated[dict, library.InjectedState]) -> str:
        """Who."""
        return state["user"]

    from langchain_core.tools import InjectedToolCallId

    @tool
    def rename(name: str, tool_call_id: Annotated[str, InjectedToolCallId]):
        """Rename."""
        return library.Command(
            update={"user": name, "messages": [ToolMessage("renamed", tool_call_id=tool_call_id)]}
        )

    llm = scripted(
        calling("whoami", {}),
        calling("rename", {"name": "Bob"}, "c2"),
        calling("whoami", {}, "c3"),
        "bye",
    )
    b = library.StateGraph(State)
    b.add_node("agent", lambda s: {"messages": [llm.invoke(s["messages"])]})
    b.add_node("tools", library.ToolNode([whoami, rename]))
    b.add_edge(library.START, "agent")
    b.add_conditional_edges("agent", library.tools_condition)
    b.add_edge("tools", "agent")
    app = b.compile(checkpointer=library.InMemorySaver())
    r = app.invoke({"messages": "hi", "user": "Ann"}, CONFIG)
    yield said(r), r["user"]


@program
def prebuilt_react_agent(library):
    llm = scripted(calling("multiply", {"a": 3, "b": 4}), "12", "again")
    agent = library.create_react_agent(
        llm, [multiply], prompt="You are a calculator", checkpointer=library.InMemorySaver()
    )
    r = agent.invoke({"messages": [{"role": "user", "content": "3*4"}]}, CONFIG)
    yield said(r)
    yield said(agent.invoke({"messages": [("user", "more")]}, CONFIG))
    yield agent.get_state(CONFIG).next
    yield sorted(agent.get_graph().nodes)
    yield agent.get_graph().draw_mermaid()


@program
def prebuilt_agent_stream(library):
    llm = scripted(calling("multiply", {"a": 3, "b": 4}), "12")
    agent = library.create_react_agent(llm, [multiply])
    yield list(agent.stream({"messages": [("user", "x")]}, stream_mode="updates"))


@program
def prebuilt_agent_breakpoint(library):
    llm = scripted(calling("multiply", {"a": 3, "b": 4}), "12")
    agent = library.create_react_agent(
        llm,
        [multiply],
        checkpointer=library.InMemorySaver(),
        interrupt_before=["tools"],
        name="calc",
    )
    agent.invoke({"messages": [("user", "x")]}, CONFIG)
    state = agent.get_state(CONFIG)
    yield state.next, state.values["messages"][-1].tool_calls
    yield said(agent.invoke(None, CONFIG)), agent.name


@program
def prebuilt_agent_options(library):
    class Answer(BaseModel):
        n: int

    class State(library.MessagesState):
        remaining_steps: library.RemainingSteps
        user: str

    def prompt(state, config):
        return [SystemMessage("for " + state["user"]), *state["messages"]]

    def pre(state):
        return {"llm_input_messages": state["messages"][-1:]}

    def post(state):
        return {"user": "post"}

    llm = scripted("one")
    agent = library.create_react_agent(
        llm, [], prompt=prompt, state_schema=State, post_model_hook=post
    )
    r = agent.invoke({"messages": "x", "user": "u"})
    yield said(r), r["user"]
    agent = library.create_react_agent(scripted("two"), [], pre_model_hook=pre)
    yield said(agent.invoke({"messages": [("user", "a"), ("user", "b")]}))


@program
def supervisor_with_commands(library):
    script = iter(["researcher", "coder", "FINISH"])

    class State(library.MessagesState):
        next: str

    def supervisor(state) -> library.Command[Literal["researcher", "coder", "__end__"]]:
        goto = next(script)
        return library.Command(
            goto=library.END if goto == "FINISH" else goto, update={"next": goto}
        )

    def worker(name):
        def run(state) -> library.Command[Literal["supervisor"]]:
            return library.Command(
                update={"messages": [HumanMessage(content=f"{name} did it", name=name)]},
                goto="supervisor",
            )

        return run

    b = library.StateGraph(State)
    b.add_node("supervisor", supervisor)
    b.add_node("researcher", worker("researcher"))
    b.add_node("coder", worker("coder"))
    b.add_edge(library.START, "supervisor")
    app = b.compile(checkpointer=library.InMemorySaver())
    for ns, chunk in app.stream({"messages": [("user", "do")]}, CONFIG, subgraphs=True):
        yield ns, list(chunk)
    yield talk(app)
    yield app.get_graph().draw_mermaid()


def handoff(library, agent_name):
    from langchain_core.tools import InjectedToolCallId

    @tool(f"transfer_to_{agent_name}", description=f"Ask {agent_name}")
    def handoff_tool(
        state: Annotated[dict, library.InjectedState],
        tool_call_id: Annotated[str, InjectedToolCallId],
    ):
        message = ToolMessage("ok", name=f"transfer_to_{agent_name}", tool_call_id=tool_call_id)
        return library.Command(
            goto=agent_name,
            update={"messages": [*state["messages"], message], "active": agent_name},
            graph=library.Command.PARENT,
        )

    return handoff_tool


@program
def swarm_of_agents(library):
    class State(library.MessagesState):
        active: str

    class AgentStateWithActive(library.MessagesState):
        active: str
        remaining_steps: library.RemainingSteps

    flights = library.create_react_agent(
        scripted(calling("transfer_to_hotel", {}), "flight again"),
        [handoff(library, "hotel")],
        name="flight",
        state_schema=AgentStateWithActive,
    )
    hotels = library.create_react_agent(
        scripted("hotel booked", "more hotels"),
        [handoff(library, "flight")],
        name="hotel",
        state_schema=AgentStateWithActive,
    )
    b = library.StateGraph(State)
    b.add_node("flight", flights, destinations=("hotel",))
    b.add_node("hotel", hotels, destinations=("flight",))
    b.add_conditional_edges(
        library.START, lambda s: s.get("active") or "flight", ["flight", "hotel"]
    )
    app = b.compile(checkpointer=library.InMemorySaver())
    r = app.invoke({"messages": [("user", "book")]}, CONFIG)
    yield said(r), r["active"]
    r = app.invoke({"messages": [("user", "more")]}, CONFIG)
    yield said(r), r["active"]
    yield [n.split(":")[0] for s in history(app) for n in s["next"]]


@program
def hierarchical_teams(library):
    def team(*names):
        b = library.StateGraph(library.MessagesState)
        for n in names:
            b.add_node(n, lambda s, n=n: {"messages": [AIMessage(n, name=n)]})
        b.add_edge(library.START, names[0])
        for x, y in pairwise(names):
            b.add_edge(x, y)
        return b.compile()

    research, writing = team("search", "scrape"), team("write", "chart")

    def call_research(state) -> library.Command[Literal["boss"]]:
        r = research.invoke({"messages": state["messages"][-1:]})
        return library.Command(update={"messages": [r["messages"][-1]]}, goto="boss")

    def call_writing(state) -> library.Command[Literal["boss"]]:
        r = writing.invoke({"messages": state["messages"][-1:]})
        return library.Command(update={"messages": [r["messages"][-1]]}, goto="boss")

    plan = iter(["research_team", "writing_team", "__end__"])

    def boss(state) -> library.Command[Literal["research_team", "writing_team", "__end__"]]:
        return library.Command(goto=next(plan))

    b = library.StateGraph(library.MessagesState)
    b.add_node("boss", boss)
    b.add_node("research_team", call_research)
    b.add_node("writing_team", call_writing)
    b.add_edge(library.START, "boss")
    app = b.compile(checkpointer=library.InMemorySaver())
    for ns, chunk in app.stream({"messages": "x"}, CONFIG, subgraphs=True):
        yield [n.split(":")[0] for n in ns], list(chunk)
    yield said(app.get_state(CONFIG).values)


class PlanExecute(TypedDict, total=False):
    input: str
    plan: list[str]
    past_steps: Annotated[list[tuple], operator.add]
    response: str


@program
async def plan_and_execute(library):
    async def plan_step(state):
        return {"plan": ["find", "compute"]}

    async def execute_step(state):
        task = state["plan"][0]
        await asyncio.sleep(0)
        return {"past_steps": [(task, task + " done")]}

    async def replan_step(state):
        rest = state["plan"][1:]
        return {"plan": rest} if rest else {"response": f"{len(state['past_steps'])} steps"}

    def should_end(state):
        return library.END if state.get("response") else "agent"

    b = library.StateGraph(PlanExecute)
    b.add_node("planner", plan_step)
    b.add_node("agent", execute_step)
    b.add_node("replan", replan_step)
    b.add_edge(library.START, "planner")
    b.add_edge("planner", "agent")
    b.add_edge("agent", "replan")
    b.add_conditional_edges("replan", should_end, ["agent", library.END])
    app = b.compile(checkpointer=library.InMemorySaver())
    async for event in app.astream({"input": "q"}, {"recursion_limit": 50, **CONFIG}):
        for k, v in event.items():
            if k != "__end__":
                yield k, v
    yield [(s.next, s.metadata["step"]) async for s in app.aget_state_history(CONFIG)]


@program
def reflection_loop(library):
    writer = scripted("draft 1", "draft 2", "draft 3")
    critic = scripted("more", "better")

    def generate(state):
        return {"messages": [writer.invoke(state["messages"])]}

    def reflect(state):
        swap = {"ai": HumanMessage, "human": AIMessage}
        translated = [state["messages"][0]] + [
            swap[m.type](content=m.content) for m in state["messages"][1:]
        ]
        return {"messages": [HumanMessage(critic.invoke(translated).content)]}

    def again(state):
        return library.END if len(state["messages"]) > 5 else "reflect"

    class State(TypedDict):
        messages: Annotated[list, library.add_messages]

    b = library.StateGraph(State)
    b.add_node("generate", generate)
    b.add_node("reflect", reflect)
    b.add_edge(library.START, "generate")
    b.add_conditional_edges("generate", again)
    b.add_edge("reflect", "generate")
    app = b.compile(checkpointer=library.InMemorySaver())
    for event in app.stream({"messages": [HumanMessage("essay")]}, CONFIG):
        yield {k: [(m.type, m.content) for m in v["messages"]] for k, v in event.items()}
    yield said(app.get_state(CONFIG).values)


@program
def sql_agent(library):
    db = sqlite3.connect(":memory:", check_same_thread=False)
    db.execute("create table artist (id integer, name text)")
    db.executemany("insert into artist values (?, ?)", [(1, "AC/DC"), (2, "Accept")])

    @tool
    def list_tables() -> str:
        """List tables."""
        return ", ".join(r[0] for r in db.execute("select name from sqlite_master"))

    @tool
    def run_query(query: str) -> str:
        """Run a query."""
        try:
            return str(db.execute(query).fetchall())
        except sqlite3.Error as e:
            return f"Error: {e}"

    llm = scripted(
        calling("run_query", {"query": "select nme from artist"}, "q1"),
        calling("run_query", {"query": "select name from artist"}, "q2"),
        "AC/DC and Accept",
    )

    def list_step(state):
        call = {"name": "list_tables", "args": {}, "id": "abc", "type": "tool_call"}
        message = AIMessage("", tool_calls=[call])
        return {"messages": [message, list_tables.invoke(call), AIMessage("Available")]}

    def generate(state):
        return {"messages": [llm.bind_tools([run_query]).invoke(state["messages"])]}

    def should_continue(state) -> Literal["__end__", "check_query"]:
        return "check_query" if state["messages"][-1].tool_calls else library.END

    def check_query(state):
        last = state["messages"][-1]
        response = AIMessage("", tool_calls=last.tool_calls)
        response.id = last.id
        return {"messages": [response]}

    b = library.StateGraph(library.MessagesState)
    b.add_node(list_step)
    b.add_node("generate", generate)
    b.add_node(check_query)
    b.add_node(
        library.ToolNode([run_query], name="run_query"), "run_query"
    ) if False else b.add_node("run_query", library.ToolNode([run_query], name="run_query"))
    b.add_edge(library.START, "list_step")
    b.add_edge("list_step", "generate")
    b.add_conditional_edges("generate", should_continue)
    b.add_edge("check_query", "run_query")
    b.add_edge("run_query", "generate")
    app = b.compile()
    for step in app.stream({"messages": [("user", "artists?")]}, stream_mode="values"):
        m = step["messages"][-1]
        yield m.type, m.content, getattr(m, "tool_calls", None)


@program
def toolnode_as_node_without_name(library):
    b = library.StateGraph(library.MessagesState)
    b.add_node(library.ToolNode([multiply], name="calc"))
    b.add_edge(library.START, "calc")
    yield said(b.compile().invoke({"messages": [calling("multiply", {"a": 1, "b": 2})]}))


class Rag(TypedDict, total=False):
    question: str
    generation: str
    documents: list[str]
    tries: int


@program
def corrective_rag(library):
    def retrieve(state):
        return {"documents": ["good about agents", "bad"], "question": state["question"]}

    def grade(state):
        return {"documents": [d for d in state["documents"] if state["question"] in d]}

    def transform(state):
        return {"question": "agents", "tries": state.get("tries", 0) + 1}

    def generate(state):
        return {"generation": "; ".join(state["documents"])}

    def decide(state):
        return "generate" if state["documents"] else "transform_query"

    def check(state):
        return "useful" if "agents" in state["generation"] else "not useful"

    b = library.StateGraph(Rag)
    b.add_node("retrieve", retrieve)
    b.add_node("grade_documents", grade)
    b.add_node("transform_query", transform)
    b.add_node("generate", generate)
    b.add_edge(library.START, "retrieve")
    b.add_edge("retrieve", "grade_documents")
    b.add_conditional_edges(
        "grade_documents", decide, {"transform_query": "transform_query", "generate": "generate"}
    )
    b.add_edge("transform_query", "retrieve")
    b.add_conditional_edges(
        "generate", check, {"useful": library.END, "not useful": "transform_query"}
    )
    app = b.compile(checkpointer=library.InMemorySaver())
    yield from app.stream({"question": "dogs"}, CONFIG)
    yield app.get_graph().draw_mermaid()
    yield history(app)


@program
def multi_agent_network(library):
    class State(library.MessagesState):
        hops: Annotated[int, operator.add]

    def agent(name, other):
        def run(state) -> library.Command[Literal["alice", "bob", "__end__"]]:
            if state.get("hops", 0) >= 3:
                return library.Command(goto="__end__")
            return library.Command(
                goto=other, update={"messages": [AIMessage(name, name=name)], "hops": 1}
            )

        return run

    b = library.StateGraph(State)
    b.add_node("alice", agent("alice", "bob"))
    b.add_node("bob", agent("bob", "alice"))
    b.add_edge(library.START, "alice")
    app = b.compile(checkpointer=library.InMemorySaver())
    yield said(app.invoke({"messages": "hi"}, CONFIG))
    yield talk(app)


@program
def customer_support_stack(library):
    def update_stack(left, right):
        if right is None:
            return left
        return left[:-1] if right == "pop" else [*left, right]

    class State(TypedDict):
        messages: Annotated[list, library.add_messages]
        user_info: str
        dialog_state: Annotated[list, update_stack]

    def user_info(state):
        return {"user_info": "passenger 3442"}

    def enter(state):
        return {"dialog_state": "book_hotel", "messages": [AIMessage("hotel desk")]}

    def leave(state):
        return {"dialog_state": "pop", "messages": [AIMessage("back")]}

    def route(state):
        stack = state.get("dialog_state")
        return stack[-1] if stack else "primary"

    b = library.StateGraph(State)
    b.add_node("fetch", user_info)
    b.add_node("primary", enter)
    b.add_node("book_hotel", leave)
    b.add_edge(library.START, "fetch")
    b.add_conditional_edges("fetch", route, ["primary", "book_hotel"])
    app = b.compile(checkpointer=library.InMemorySaver(), interrupt_before=["book_hotel"])
    for text in "abc":
        r = app.invoke({"messages": ("user", text)}, CONFIG)
        yield r["dialog_state"], r["user_info"], app.get_state(CONFIG).next
    r = app.invoke(None, CONFIG)
    yield r["dialog_state"]


@program
async def agent_async_stream(library):
    llm = scripted(calling("multiply", {"a": 3, "b": 4}), "it is 12")

    async def agent(state):
        return {"messages": [await llm.ainvoke(state["messages"])]}

    b = library.StateGraph(library.MessagesState)
    b.add_node("agent", agent)
    b.add_node("tools", library.ToolNode([multiply]))
    b.add_edge(library.START, "agent")
    b.add_conditional_edges("agent", library.tools_condition)
    b.add_edge("tools", "agent")
    app = b.compile(checkpointer=library.InMemorySaver())
    async for message, meta in app.astream({"messages": "x"}, CONFIG, stream_mode="messages"):
        if message.content and meta["langgraph_node"] == "agent":
            yield message.content
    yield said((await app.aget_state(CONFIG)).values)


@program
def structured_extraction_with_retries(library):
    class Person(BaseModel):
        name: str
        age: int

    class State(TypedDict):
        text: str
        person: Person | None
        errors: Annotated[list, operator.add]

    answers = iter(['{"name": "Ann"}', '{"name": "Ann", "age": 3}'])

    def extract(state) -> library.Command[Literal["extract", "__end__"]]:
        try:
            return library.Command(
                update={"person": Person.model_validate_json(next(answers))}, goto=library.END
            )
        except ValueError as e:
            return library.Command(update={"errors": [type(e).__name__]}, goto="extract")

    b = library.StateGraph(State)
    b.add_node("extract", extract)
    b.add_edge(library.START, "extract")
    app = b.compile()
    r = app.invoke({"text": "x", "errors": []})
    yield r["person"], r["errors"]


@program
def lats_like_tree_in_state(library):
    class State(TypedDict):
        tree: dict
        depth: int

    def expand(state):
        tree = {
            **state["tree"],
            str(state["depth"]): {"children": [1, 2], "score": state["depth"] / 2},
        }
        return {"tree": tree, "depth": state["depth"] + 1}

    b = library.StateGraph(State)
    b.add_node("expand", expand)
    b.add_edge(library.START, "expand")
    b.add_conditional_edges(
        "expand", lambda s: library.END if s["depth"] > 2 else "expand", ["expand", library.END]
    )
    app = b.compile(checkpointer=library.InMemorySaver())
    yield app.invoke({"tree": {}, "depth": 0}, CONFIG)
    yield history(app)
