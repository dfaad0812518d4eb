"""Conversations that remember: trimming, removing, summaries, several users, reading the saver."""

import uuid
from typing import Annotated, Any

from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    SystemMessage,
    trim_messages,
)
from typing_extensions import TypedDict

from tests.graph.compat.programs import CONFIG, history, program, shown, talk, thread


def echo(state):
    return {"messages": [AIMessage("you said " + state["messages"][-1].content)]}


def chat(library, node=echo, **options):
    b = library.StateGraph(library.MessagesState)
    b.add_node("chatbot", node)
    b.add_edge(library.START, "chatbot")
    b.add_edge("chatbot", library.END)
    return b.compile(checkpointer=library.InMemorySaver(), **options)


def said(values):
    return [(m.type, m.content) for m in values["messages"]]


@program
def two_users_do_not_mix(library):
    app = chat(library)
    for user, text in [("ann", "hi, I am Ann"), ("bob", "yo"), ("ann", "who am I?")]:
        yield said(app.invoke({"messages": [("user", text)]}, thread(user)))
    yield said(app.get_state(thread("ann")).values)
    yield said(app.get_state(thread("bob")).values)
    yield shown(app.get_state(thread("nobody")))


@program
def trim_before_model(library):
    def node(state):
        kept = trim_messages(
            state["messages"], strategy="last", token_counter=len, max_tokens=3, start_on="human"
        )
        return {"messages": AIMessage(f"saw {len(kept)}: {kept[0].content}")}

    app = chat(library, node)
    for i in range(4):
        yield said(app.invoke({"messages": HumanMessage(f"q{i}")}, CONFIG))[-1]
    yield len(app.get_state(CONFIG).values["messages"])


@program
def summarise_and_remove(library):
    class State(library.MessagesState):
        summary: str

    def call(state):
        head = [SystemMessage(f"Summary: {state['summary']}")] if state.get("summary") else []
        return {"messages": [AIMessage(f"answer to {len(head + state['messages'])}")]}

    def summarize(state):
        old = state["messages"][:-2]
        return {
            "summary": state.get("summary", "") + f"+{len(old)}",
            "messages": [library.RemoveMessage(id=m.id) for m in old],
        }

    def should(state):
        return "summarize" if len(state["messages"]) > 4 else library.END

    b = library.StateGraph(State)
    b.add_node("call", call)
    b.add_node("summarize", summarize)
    b.add_edge(library.START, "call")
    b.add_conditional_edges("call", should)
    b.add_edge("summarize", library.END)
    app = b.compile(checkpointer=library.InMemorySaver())
    for i in range(5):
        r = app.invoke({"messages": [HumanMessage(f"q{i}")]}, CONFIG)
        yield (said(r), r.get("summary"))
    yield [(len(s["values"].get("messages", [])), s["next"]) for s in history(app)]


@program
def remove_all_messages(library):
    def node(state):
        kept = state["messages"][-1:]
        return {"messages": [library.RemoveMessage(id=library.REMOVE_ALL_MESSAGES), *kept]}

    app = chat(library, node)
    app.invoke({"messages": [("user", "a"), ("ai", "b"), ("user", "c")]}, CONFIG)
    yield said(app.get_state(CONFIG).values)
    app.update_state(CONFIG, {"messages": [library.RemoveMessage(library.REMOVE_ALL_MESSAGES)]})
    yield app.get_state(CONFIG).values


@program
def remove_unknown_message(library):
    app = chat(library)
    app.invoke({"messages": "hi"}, CONFIG)
    yield said(app.get_state(CONFIG).values)
    app.update_state(CONFIG, {"messages": library.RemoveMessage(id="no such id")})


@program
def replace_a_message_by_id(library):
    app = chat(library)
    app.invoke({"messages": [HumanMessage("teh", id="h1")]}, CONFIG)
    app.update_state(CONFIG, {"messages": [HumanMessage("the", id="h1")]})
    state = app.get_state(CONFIG)
    yield said(state.values), state.next, state.values["messages"][0].id
    last = state.values["messages"][-1]
    app.update_state(CONFIG, {"messages": [AIMessage("edited", id=last.id)]}, as_node="chatbot")
    yield said(app.get_state(CONFIG).values)
    yield talk(app)


@program
def streaming_chat(library):
    app = chat(library)
    for event in app.stream({"messages": [{"role": "user", "content": "hi"}]}, CONFIG):
        for node, update in event.items():
            yield (
                node,
                [type(m).__name__ for m in update["messages"]],
                update["messages"][-1].content,
            )
    for event in app.stream({"messages": [("user", "again")]}, CONFIG, stream_mode="values"):
        yield event["messages"][-1].type, event["messages"][-1].content


@program
def dict_replies_are_messages_everywhere(library):
    def node(state):
        return {"messages": [{"role": "assistant", "content": "ok"}]}

    app = chat(library, node)
    for mode in ("values", "updates", "tasks", "debug"):
        for chunk in app.stream({"messages": "x"}, thread(mode), stream_mode=mode):
            yield mode, str(sorted(chunk)) if isinstance(chunk, dict) else chunk
            found = chunk.get("payload", chunk)
            found = found.get("result", found.get("values", found))
            for each in found.values() if isinstance(found, dict) else ():
                each = each.get("messages", []) if isinstance(each, dict) else each
                if isinstance(each, list):
                    yield [type(m).__name__ for m in each]
    state = app.get_state(thread("values"))
    yield [type(m).__name__ for m in state.values["messages"]]


@program
def saver_get_tuple(library):
    saver = library.InMemorySaver()
    b = library.StateGraph(library.MessagesState)
    b.add_node("chatbot", echo)
    b.add_edge(library.START, "chatbot")
    app = b.compile(checkpointer=saver)
    yield saver.get_tuple(CONFIG) is None, saver.get(CONFIG)
    app.invoke({"messages": [("user", "hi")]}, CONFIG)
    found = saver.get_tuple(CONFIG)
    yield said(found.checkpoint["channel_values"])
    yield sorted(found.config["configurable"]), found.metadata["source"], found.metadata["step"]
    yield found.config["configurable"]["checkpoint_id"] == found.checkpoint["id"]
    yield said(saver.get(CONFIG)["channel_values"])
    yield found.parent_config is not None, isinstance(found.checkpoint["ts"], str)


@program
def saver_list(library):
    saver = library.InMemorySaver()
    b = library.StateGraph(library.MessagesState)
    b.add_node("chatbot", echo)
    b.add_edge(library.START, "chatbot")
    app = b.compile(checkpointer=saver)
    for text in ("a", "b"):
        app.invoke({"messages": [("user", text)]}, CONFIG)
    app.invoke({"messages": [("user", "c")]}, thread(2))
    found = list(saver.list(CONFIG))
    yield [(t.metadata["source"], t.metadata["step"]) for t in found]
    yield [len(t.checkpoint["channel_values"].get("messages", [])) for t in found]
    yield len(list(saver.list(CONFIG, limit=2)))
    yield [t.metadata["step"] for t in saver.list(CONFIG, filter={"source": "input"})]
    yield [t.metadata["step"] for t in saver.list(CONFIG, before=found[2].config)]
    yield sorted({t.config["configurable"]["thread_id"] for t in saver.list(None)})
    at = saver.get_tuple(found[1].config)
    yield at.metadata["step"], len(at.checkpoint["channel_values"]["messages"])


@program
async def saver_async_reads(library):
    saver = library.InMemorySaver()
    b = library.StateGraph(library.MessagesState)
    b.add_node("chatbot", echo)
    b.add_edge(library.START, "chatbot")
    app = b.compile(checkpointer=saver)
    await app.ainvoke({"messages": [("user", "hi")]}, CONFIG)
    found = await saver.aget_tuple(CONFIG)
    yield said(found.checkpoint["channel_values"])
    yield said((await saver.aget(CONFIG))["channel_values"])
    yield [t.metadata["step"] async for t in saver.alist(CONFIG)]


@program
def delete_thread_then_start_again(library):
    saver = library.InMemorySaver()
    b = library.StateGraph(library.MessagesState)
    b.add_node("chatbot", echo)
    b.add_edge(library.START, "chatbot")
    app = b.compile(checkpointer=saver)
    app.invoke({"messages": "a"}, CONFIG)
    saver.delete_thread("1")
    yield app.get_state(CONFIG).values, list(app.get_state_history(CONFIG))
    yield said(app.invoke({"messages": "b"}, CONFIG))
    saver.delete_thread("unknown")


@program
def memory_in_a_subgraph_agent(library):
    inner = library.StateGraph(library.MessagesState)
    inner.add_node("model", echo)
    inner.add_edge(library.START, "model")
    b = library.StateGraph(library.MessagesState)
    b.add_node("agent", inner.compile())
    b.add_edge(library.START, "agent")
    app = b.compile(checkpointer=library.InMemorySaver())
    for text in ("a", "b"):
        yield list(app.stream({"messages": [("user", text)]}, CONFIG, stream_mode="updates"))
        yield list(
            app.stream({"messages": text}, CONFIG, stream_mode=["updates", "tasks"], subgraphs=True)
        )
    yield said(app.get_state(CONFIG).values)


@program
def user_profile_in_config(library):
    class State(TypedDict):
        messages: Annotated[list, library.add_messages]

    def node(state, config):
        conf = config["configurable"]
        return {"messages": [("ai", f"{conf.get('user_name', '?')}/{conf.get('lang', 'en')}")]}

    b = library.StateGraph(State)
    b.add_node("n", node)
    b.add_edge(library.START, "n")
    app = b.compile(checkpointer=library.InMemorySaver())
    config: Any = {"configurable": {"thread_id": "p", "user_name": "Ann"}}
    yield said(app.invoke({"messages": ["hi"]}, config))
    config["configurable"]["lang"] = "de"
    yield said(app.invoke({"messages": ["hi"]}, config))
    yield [s.metadata.get("user_name") for s in app.get_state_history(config)]
    yield len(list(app.get_state_history(config, filter={"lang": "de"})))
    yield said(app.invoke({"messages": ["hi"]}, {"configurable": {"thread_id": uuid.uuid4()}}))


@program
def message_content_blocks(library):
    def node(state):
        last = state["messages"][-1]
        return {
            "messages": [
                AIMessage(
                    content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                    additional_kwargs={"k": [1]},
                    response_metadata={"model": "m"},
                    usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
                    name=last.name,
                )
            ]
        }

    app = chat(library, node)
    content = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "u"}}]
    yield app.invoke({"messages": [HumanMessage(content, name="ann")]}, CONFIG)
    yield app.get_state(CONFIG).values
    yield app.get_state(CONFIG).values["messages"][-1].text


@program
def add_messages_by_hand(library):
    yield library.add_messages([HumanMessage("a", id="1")], [HumanMessage("b", id="1")])
    yield library.add_messages([HumanMessage("a", id="1")], AIMessage("b", id="2"))
    yield library.add_messages(
        [HumanMessage("a", id="1"), AIMessage("b", id="2")], [library.RemoveMessage(id="1")]
    )
    yield library.add_messages([], "x")[0].type
    yield library.add_messages([HumanMessage("a", id="1")], [library.RemoveMessage(id="9")])


@program
def messages_with_other_reducer_keys(library):
    class State(TypedDict):
        messages: Annotated[list, library.add_messages]
        turns: Annotated[int, lambda a, b: a + b]
        topic: str

    def node(state):
        return {"messages": [("ai", "ok")], "turns": 1, "topic": state["messages"][-1].content}

    b = library.StateGraph(State)
    b.add_node("n", node)
    b.set_entry_point("n")
    b.set_finish_point("n")
    app = b.compile(checkpointer=library.InMemorySaver())
    for t in "ab":
        r = app.invoke({"messages": [("user", t)]}, CONFIG)
        yield r["turns"], r["topic"], len(r["messages"])
    yield [(s.values.get("turns"), s.values.get("topic")) for s in app.get_state_history(CONFIG)]
