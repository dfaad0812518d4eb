"""The persistence chapter that LangGraph's users learn from runs with only its imports changed.

The same calls are written here in functions of our own. Where the chapter's text lies beside
the checkout, its very blocks are executed too.
"""

from __future__ import annotations

import operator
import re
import sqlite3
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final, TypedDict

import pytest

from graph import END, START, CompiledGraph, InvalidGraphError, MemorySaver, SqliteSaver, StateGraph

Config = dict[str, dict[str, str]]

CHAPTER: Final = (
    Path(__file__).resolve().parents[3] / "shared/reference/langgraph-persistence-chapter.txt"
)


class Workflow(TypedDict):
    messages: Annotated[list[str], operator.add]
    step: int
    data: dict[str, Any]


EMPTY: Final[Workflow] = {"messages": [], "step": 0, "data": {}}
ALL: Final = ["Step 1 complete", "Step 2 complete", "Step 3 complete"]


def add_steps(graph: StateGraph) -> None:
    def step_one(state: Workflow) -> dict[str, Any]:
        return {"step": 1, "messages": ["Step 1 complete"]}

    def step_two(state: Workflow) -> dict[str, Any]:
        return {"step": 2, "messages": ["Step 2 complete"]}

    def step_three(state: Workflow) -> dict[str, Any]:
        return {"step": 3, "messages": ["Step 3 complete"]}

    graph.add_node("step1", step_one)
    graph.add_node("step2", step_two)
    graph.add_node("step3", step_three)
    graph.add_edge(START, "step1")
    graph.add_edge("step1", "step2")
    graph.add_edge("step2", "step3")
    graph.add_edge("step3", END)


@pytest.fixture(params=["memory", "sqlite connection", "sqlite path"])
def app(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The chapter's graph, on each checkpointer as the chapter makes it."""
    monkeypatch.chdir(tmp_path)
    graph = StateGraph(Workflow)
    add_steps(graph)
    if request.param == "memory":
        with MemorySaver() as checkpointer:
            yield graph.compile(checkpointer=checkpointer)
    elif request.param == "sqlite connection":
        conn = sqlite3.connect("checkpoints.db", check_same_thread=False)
        saver = SqliteSaver(conn)
        yield graph.compile(checkpointer=saver)
        saver.close()
        conn.execute("SELECT 1")  # the connection stays the caller's, open
        conn.close()
    else:
        with SqliteSaver("checkpoints.db") as saver:
            yield graph.compile(checkpointer=saver)


def test_basics(app: CompiledGraph) -> None:
    config: Any = {"configurable": {"thread_id": "workflow-123"}}
    result = app.invoke({"messages": [], "step": 0, "data": {"user": "alice"}}, config)
    assert result == {"messages": ALL, "step": 3, "data": {"user": "alice"}}
    state = app.get_state(config)
    assert state.values == result
    assert state.next == ()
    assert state.config["configurable"]["thread_id"] == "workflow-123"
    assert state.config["configurable"]["checkpoint_id"]


def test_threads_are_separate(app: CompiledGraph) -> None:
    config_a: Any = {"configurable": {"thread_id": "thread-a"}}
    config_b: Any = {"configurable": {"thread_id": "thread-b"}}
    app.invoke({"messages": [], "step": 0, "data": {"user": "alice"}}, config_a)
    app.invoke({"messages": [], "step": 0, "data": {"user": "bob"}}, config_b)
    assert app.get_state(config_a).values["data"]["user"] == "alice"
    assert app.get_state(config_b).values["data"]["user"] == "bob"


def test_resuming_a_finished_thread_gives_its_result_again(app: CompiledGraph) -> None:
    config: Any = {"configurable": {"thread_id": "resumable-workflow"}}
    first = app.invoke(EMPTY, config)
    assert app.invoke(None, config) == first
    assert len(list(app.get_state_history(config))) == 4  # resuming added nothing


def test_history(app: CompiledGraph) -> None:
    config: Any = {"configurable": {"thread_id": "history-demo"}}
    app.invoke(EMPTY, config)
    history = list(app.get_state_history(config))
    assert [snapshot.values.get("step") for snapshot in history] == [3, 2, 1, 0]
    assert [len(snapshot.values["messages"]) for snapshot in history] == [3, 2, 1, 0]
    assert [snapshot.parent_config for snapshot in history] == [
        *(snapshot.config for snapshot in history[1:]),
        None,
    ]
    created = [snapshot.created_at for snapshot in history]
    assert all(created) and created == sorted(created, key=str, reverse=True)


def test_time_travel(app: CompiledGraph) -> None:
    config: Any = {"configurable": {"thread_id": "time-travel"}}
    app.invoke(EMPTY, config)
    history = list(app.get_state_history(config))
    step1_checkpoint = None
    for snapshot in history:
        if snapshot.values.get("step") == 1:
            step1_checkpoint = snapshot
            break
    assert step1_checkpoint
    result = app.invoke(None, step1_checkpoint.config)
    assert result == {"messages": ALL, "step": 3, "data": {}}


def test_branch_from_checkpoint(app: CompiledGraph) -> None:
    config: Any = {"configurable": {"thread_id": "main-branch"}}
    app.invoke({"messages": [], "step": 0, "data": {"branch": "main"}}, config)
    main_before = list(app.get_state_history(config))
    step1_checkpoint = next((s for s in main_before if s.values.get("step") == 1), None)
    assert step1_checkpoint
    new_config: Any = {
        "configurable": {
            "thread_id": "feature-branch",
            "checkpoint_id": step1_checkpoint.config["configurable"]["checkpoint_id"],
        }
    }
    app.update_state(new_config, {"data": {"branch": "feature"}})
    result = app.invoke(None, new_config)
    assert result == {"messages": ALL, "step": 3, "data": {"branch": "feature"}}
    assert app.get_state(new_config).values == result
    branch: Any = {"configurable": {"thread_id": "feature-branch"}}
    assert app.get_state(branch).values == result
    assert list(app.get_state_history(config)) == main_before
    assert app.verify(branch).ok and app.verify(config).ok


def test_sqlite_persists_across_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    graph = StateGraph(Workflow)
    add_steps(graph)
    config: Any = {"configurable": {"thread_id": "kept"}}
    results: list[dict[str, Any]] = []
    for _ in range(2):
        conn = sqlite3.connect("checkpoints.db", check_same_thread=False)
        checkpointer = SqliteSaver(conn)
        app = graph.compile(checkpointer=checkpointer)
        results.append(app.invoke(None if results else EMPTY, config))
        checkpointer.close()
        conn.close()
    assert results[0] == results[1]


# --- the chapter's own text -------------------------------------------------------------

_IMPORT = re.compile(r"from langgraph\.[\w.]+ import")
_FILL = "# ... add nodes and edges ..."


def chapter_blocks() -> list[str]:
    """Its Python blocks without line numbers, their imports rewritten; none if it is not there."""
    if not CHAPTER.exists():
        return []
    blocks: list[list[str]] = []
    number = 0
    for line in CHAPTER.read_text(encoding="utf-8").splitlines():
        if line.endswith("python") and not line[0].isdigit():
            blocks.append([])
            number = 1
        elif number and line.startswith(str(number)):
            blocks[-1].append(line.removeprefix(str(number)))
            number += 1
        else:
            number = 0
    return [_IMPORT.sub("from graph import", "\n".join(block)) for block in blocks]


def wanted_blocks() -> list[tuple[str, str]]:
    """What of it can run here: (name of a function or class, source of its block)."""
    return [
        (name, block)
        for block in chapter_blocks()
        if "psycopg_pool" not in block or "class ProductionWorkflow" in block
        for name in re.findall(r"^(?:def|class) (\w+)", block, re.MULTILINE)
        if name not in ("WorkflowState", "build_checkpointed_graph", "WorkflowError")
        and name not in ("PersistenceConfig", "create_production_checkpointer")
    ]


@pytest.mark.parametrize(
    ("name", "block"), [pytest.param(*case, id=case[0]) for case in wanted_blocks()]
)
def test_the_chapters_own_blocks(
    name: str,
    block: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    first = chapter_blocks()[0]
    module = ModuleType("chapter")
    monkeypatch.setitem(sys.modules, "chapter", module)
    scope = vars(module)
    run_in(scope, first)
    run_in(scope, block)
    if _FILL not in block:
        scope[name]()
        shown = capsys.readouterr().out
        if name == "branch_from_checkpoint":
            assert "Feature branch result:" in shown and "'branch': 'feature'" in shown
        elif name not in ("manage_threads", "explore_state_history"):  # they print literals
            assert "Step 3 complete" in shown
        return
    # As printed these build a graph of no nodes, which no library compiles; what the comment
    # stands for is put in its place.
    if name != "ProductionWorkflow":
        with pytest.raises(InvalidGraphError, match="begin"):
            scope[name]()
    scope["add_steps"] = add_steps
    run_in(scope, block.replace(_FILL, "add_steps(graph)"))
    config: Any = {"configurable": {"thread_id": "filled"}}
    if name == "ProductionWorkflow":
        settings = scope["PersistenceConfig"](backend="sqlite", connection_string="prod.db")
        workflow = scope[name](settings)
        assert workflow.execute("filled", dict(EMPTY))["messages"] == ALL
        assert workflow.get_status("filled")["next_nodes"] == ()
        assert workflow.resume("filled", {"data": {"seen": True}})["data"] == {"seen": True}
        close(workflow.app)
    else:
        filled = scope[name]()
        assert filled.invoke(EMPTY, config)["messages"] == ALL
        close(filled)


def run_in(scope: dict[str, Any], source: str) -> None:
    # dont_inherit: the chapter's annotations are no strings.
    exec(compile(source, "chapter", "exec", dont_inherit=True), scope)


def close(app: CompiledGraph) -> None:
    assert app.checkpointer is not None
    app.checkpointer.close()  # type: ignore[union-attr]
