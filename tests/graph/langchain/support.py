"""What the tests of callbacks and tokens share: a recording handler, and a graph with all parts."""

# Without postponed annotations: the state's reducer is of the library that runs the program.
from typing import Annotated, Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from typing_extensions import TypedDict

from tests.graph.prebuilt.support import ScriptedModel

GIVEN: Any = {"messages": [HumanMessage("hello", id="first")]}

_NOT_COMPARED = frozenset({"langgraph_checkpoint_ns", "checkpoint_ns", "ls_integration"})


class Recorder(BaseCallbackHandler):
    """Records each run with its parent, tags and metadata."""

    run_inline = True

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._names: dict[Any, Any] = {}

    def _begin(self, kind: str, run_id: Any, facts: dict[str, Any]) -> None:
        self._names[run_id] = facts.get("name")
        metadata = facts.get("metadata") or {}
        self.seen.append(
            (
                kind,
                facts.get("name"),
                self._names.get(facts.get("parent_run_id")),
                sorted(facts.get("tags") or ()),
                {name: each for name, each in metadata.items() if name not in _NOT_COMPARED},
            )
        )

    def _end(self, what: str, run_id: Any, value: Any) -> None:
        self.seen.append((what, self._names[run_id], type(value).__name__))

    def on_chain_start(self, *_: Any, run_id: Any, **facts: Any) -> None:
        self._begin("chain", run_id, facts)

    def on_chat_model_start(self, *_: Any, run_id: Any, **facts: Any) -> None:
        self._begin("model", run_id, facts)

    def on_tool_start(self, serialized: Any, *_: Any, run_id: Any, **facts: Any) -> None:
        self._begin("tool", run_id, {**facts, "name": serialized["name"]})

    def on_chain_end(self, outputs: Any, *, run_id: Any, **_: Any) -> None:
        self._end("end", run_id, outputs)

    def on_chain_error(self, error: BaseException, *, run_id: Any, **_: Any) -> None:
        self._end("error", run_id, error)

    def on_llm_end(self, response: Any, *, run_id: Any, **_: Any) -> None:
        self._end("end", run_id, response)

    def on_tool_end(self, output: Any, *, run_id: Any, **_: Any) -> None:
        self._end("end", run_id, output)


def talking(library: Any, model: Any = None, saver: Any = None, is_async: bool = False) -> Any:
    """A model in a node, in a subgraph, and in a graph that a node calls; an edge; a Runnable."""
    model = model or ScriptedModel(answers=["hello there"])

    class State(TypedDict):
        messages: Annotated[list[Any], library.add_messages]

    def talk(state: State) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def talk_async(state: State) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def route(state: State) -> str:
        return "inside"

    inner = library.StateGraph(State)
    inner.add_node("say", talk)
    inner.add_edge(library.START, "say")
    inner = inner.compile(name="inner")

    def calling(state: State) -> Any:
        return {"messages": inner.invoke(state)["messages"][-1:]}

    outer = library.StateGraph(State)
    outer.add_node("talk", talk_async if is_async else talk)
    outer.add_node("inside", inner)
    outer.add_node("calling", calling)
    outer.add_node("runnable", RunnableLambda(lambda state: None).with_config(run_name="nothing"))
    outer.add_edge(library.START, "talk")
    outer.add_conditional_edges("talk", route, ["inside"])
    outer.add_edge("inside", "calling")
    outer.add_edge("calling", "runnable")
    return outer.compile(name="outer", checkpointer=saver)
