"""The persistence chapter that LangGraph's users learn from runs with only its imports changed.

The same calls are written here in functions of our own. Where the chapter's text lies beside
the checkout, its very blocks are executed too; of what they say only the address of the
PostgreSQL server is changed.
"""

from __future__ import annotations

import asyncio
import gc
import operator
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final, TypedDict

import psycopg_pool
import pytest

from graph import (
    END,
    START,
    CompiledGraph,
    InvalidGraphError,
    InvalidUpdateError,
    MemorySaver,
    SqliteSaver,
    StateGraph,
    production,
)

# psycopg_pool would rather be told when to open a pool; the chapter makes them like this.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the default for the Pool 'open':DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:opening the async pool:RuntimeWarning"),
    # From Python 3.13 on: the chapter leaves connections of its own to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What the chapter's code leaves behind is collected before another test's warnings count."""
    yield
    gc.collect()


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
    assert len(list(app.get_state_history(config))) == 5  # resuming added nothing


def test_history(app: CompiledGraph) -> None:
    config: Any = {"configurable": {"thread_id": "history-demo"}}
    app.invoke(EMPTY, config)
    history = list(app.get_state_history(config))
    assert [snapshot.values.get("step") for snapshot in history] == [3, 2, 1, 0, None]
    assert [len(snapshot.values["messages"]) for snapshot in history] == [3, 2, 1, 0, 0]
    assert [snapshot.parent_config for snapshot in history] == [
        *(snapshot.config for snapshot in history[1:]),
        None,
    ]
    *created, before_input = [snapshot.created_at for snapshot in history]
    assert before_input == created[-1]
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
_ADDRESS = "postgresql://user:pass@localhost:5432/langgraph"

FIRST: Final = ("WorkflowState", "build_checkpointed_graph")
PRODUCTION: Final = (
    "PersistenceConfig",
    "create_production_checkpointer",
    "ProductionWorkflow",
    "WorkflowError",
)
FILLED: Final = (
    "memory_backend",
    "sqlite_backend",
    "async_sqlite_backend",
    "postgres_backend",
    "async_postgres_backend",
)
"""As printed these build a graph of no nodes, which no library compiles; what the comment stands
for is put in its place."""


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


BLOCKS: Final = {
    name: block
    for block in chapter_blocks()
    for name in re.findall(r"^(?:async def|def|class) (\w+)", block, re.MULTILINE)
}
"""The name of each function and class → the block that it is in."""


def test_every_function_of_the_chapter_is_run_here() -> None:
    if BLOCKS:
        assert set(BLOCKS) == {*FIRST, *demonstrations(), *FILLED, *PRODUCTION}


def demonstrations() -> list[str]:
    return [name for name in BLOCKS if name not in (*FIRST, *FILLED, *PRODUCTION)]


@pytest.fixture
def scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of a module in which the chapter's first block has run, in an empty folder."""
    if not BLOCKS:
        pytest.skip("the chapter's text does not lie beside this checkout")
    monkeypatch.chdir(tmp_path)
    module = ModuleType("chapter")
    monkeypatch.setitem(sys.modules, "chapter", module)
    scope = vars(module)
    scope["add_steps"] = add_steps
    run_in(scope, BLOCKS[FIRST[0]])
    return scope


@pytest.mark.parametrize("name", demonstrations())
def test_the_chapters_demonstrations(
    name: str, scope: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run_in(scope, BLOCKS[name])
    scope[name]()
    shown = capsys.readouterr().out
    if name == "branch_from_checkpoint":
        assert "Feature branch result:" in shown and "'branch': 'feature'" in shown
    elif name not in ("manage_threads", "explore_state_history"):  # they print literals
        assert "Step 3 complete" in shown


@pytest.mark.parametrize("name", ["memory_backend", "sqlite_backend"])
def test_the_chapters_backends(name: str, scope: dict[str, Any]) -> None:
    run_in(scope, BLOCKS[name])
    with pytest.raises(InvalidGraphError, match="entry point"):
        scope[name]()
    run_in(scope, filled(BLOCKS[name]))
    app = scope[name]()
    assert app.invoke(EMPTY, {"configurable": {"thread_id": "filled"}})["messages"] == ALL
    close(app)


def test_the_chapters_asynchronous_sqlite(scope: dict[str, Any]) -> None:
    async def use(app: CompiledGraph) -> Any:
        config: Any = {"configurable": {"thread_id": "filled"}}
        result = await app.ainvoke(EMPTY, config)
        assert (await app.aget_state(config)).values == result
        await app.checkpointer.close()
        return result

    # As printed, the connection is closed before a caller has the graph: it is used in there.
    block = BLOCKS["async_sqlite_backend"]
    before, name, function = block.partition("async def async_sqlite_backend")
    scope["use"] = use
    run_in(scope, before + name + filled(function).replace("return app", "return await use(app)"))
    for runs in (1, 2):
        result = asyncio.run(scope["async_sqlite_backend"]())
        assert result["messages"] == ALL * runs


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The pools that the chapter's functions open, and leave open; closed in the end."""
    opened: list[Any] = []

    class Pool(psycopg_pool.ConnectionPool[Any]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            opened.append(self)

    class AsyncPool(psycopg_pool.AsyncConnectionPool[Any]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            opened.append(self)

    monkeypatch.setattr(psycopg_pool, "ConnectionPool", Pool)
    monkeypatch.setattr(psycopg_pool, "AsyncConnectionPool", AsyncPool)
    yield opened
    for pool in opened:
        if isinstance(pool, Pool):
            pool.close()


def test_the_chapters_postgres(
    scope: dict[str, Any], pools: list[Any], postgresql_url: str
) -> None:
    run_in(scope, filled(BLOCKS["postgres_backend"]).replace(_ADDRESS, postgresql_url))
    app = scope["postgres_backend"]()
    assert app.invoke(EMPTY, {"configurable": {"thread_id": "filled"}})["messages"] == ALL
    close(app)
    (pool,) = pools
    with pool.connection() as conn:  # it stays the caller's, and open
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_the_chapters_asynchronous_postgres(
    scope: dict[str, Any], pools: list[Any], postgresql_url: str
) -> None:
    run_in(scope, filled(BLOCKS["async_postgres_backend"]).replace(_ADDRESS, postgresql_url))

    async def use() -> None:
        app = await scope["async_postgres_backend"]()
        config: Any = {"configurable": {"thread_id": "filled"}}
        assert (await app.ainvoke(EMPTY, config))["messages"] == ALL
        assert (await app.aget_state(config)).values["messages"] == ALL
        await app.checkpointer.close()
        (pool,) = pools
        async with pool.connection() as conn:
            assert await (await conn.execute("SELECT 1")).fetchone() == (1,)
        await pool.close()

    asyncio.run(use())


# --- the chapter's last section ---------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """What a configuration of each backend is made of."""
    text = str(tmp_path / "prod.db")
    if request.param == "postgres":
        text = request.getfixturevalue("postgresql_url")
    return {"backend": request.param, "connection_string": text}


@pytest.mark.parametrize(
    "ours",
    [
        (),
        ("PersistenceConfig",),
        ("PersistenceConfig", "create_production_checkpointer"),
        ("PersistenceConfig", "create_production_checkpointer", "WorkflowError"),
    ],
    ids=lambda ours: " ".join(ours) or "as printed",
)
def test_the_chapters_workflow(
    ours: tuple[str, ...], scope: dict[str, Any], pools: list[Any], deployment: dict[str, str]
) -> None:
    run_in(scope, filled(BLOCKS["ProductionWorkflow"]))
    # Its functions look names up when they are called, so these take the place of its own.
    scope |= {name: getattr(production, name) for name in ours}
    workflow = scope["ProductionWorkflow"](scope["PersistenceConfig"](**deployment))
    use_in_production(scope, workflow)
    close(workflow.app)


def test_the_chapters_graph_in_our_workflow(
    scope: dict[str, Any], deployment: dict[str, str]
) -> None:
    """`_build_graph`, which is what a reader fills in, overrides ours as it stands there."""
    run_in(scope, filled(BLOCKS["ProductionWorkflow"]))
    build_graph = scope["ProductionWorkflow"]._build_graph

    class Workflow(production.ProductionWorkflow):
        _build_graph = build_graph

    with Workflow(production.PersistenceConfig(**deployment)) as workflow:  # type: ignore[arg-type]
        scope["WorkflowError"] = production.WorkflowError
        use_in_production(scope, workflow)


def use_in_production(scope: dict[str, Any], workflow: Any) -> None:
    assert workflow.execute("filled", dict(EMPTY))["messages"] == ALL
    status = workflow.get_status("filled")
    assert status["thread_id"] == "filled"
    assert status["values"]["messages"] == ALL
    assert status["next_nodes"] == ()
    assert status["created_at"]
    assert workflow.resume("filled", {"data": {"seen": True}})["data"] == {"seen": True}
    with pytest.raises(scope["WorkflowError"]) as caught:
        workflow.execute("filled", {"no such key": 1})
    assert caught.value.thread_id == "filled"
    assert caught.value.state.values["data"] == {"seen": True}
    assert isinstance(caught.value.original_error, InvalidUpdateError)


def filled(block: str) -> str:
    """What the comment stands for, in its place."""
    return block.replace(_FILL, "add_steps(graph)")


def run_in(scope: dict[str, Any], source: str) -> None:
    # dont_inherit: the chapter's annotations are no strings.
    exec(compile(source, "chapter", "exec", dont_inherit=True), scope)


def close(app: CompiledGraph) -> None:
    assert app.checkpointer is not None
    app.checkpointer.close()
