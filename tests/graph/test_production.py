"""Checkpointers and workflows made from a configuration: blocking, and from an event loop."""

from __future__ import annotations

import asyncio
import logging
import operator
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

import pytest
from sqlalchemy import Engine

from eventstore import (
    AsyncEventStore,
    ConcurrencyError,
    ConfigurationError,
    EventStore,
    StoreClosedError,
    StoreUnavailableError,
)
from graph import (
    AsyncSqliteSaver,
    CompiledGraph,
    EmptyInputError,
    GraphError,
    InvalidConfigError,
    InvalidGraphError,
    MemorySaver,
    SqliteSaver,
    StateGraph,
    StateSnapshot,
    interrupt,
)
from graph.production import (
    PersistenceConfig,
    ProductionWorkflow,
    WorkflowError,
    create_async_production_checkpointer,
    create_production_checkpointer,
)
from retention import sweep
from tests.graph.kit import on

PRIVATE: Final = "my mother's maiden name"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PersistenceConfig.model_fields:
        monkeypatch.delenv(f"GRAPH_EVENTSTORE_{name.upper()}", raising=False)


class Order(TypedDict, total=False):
    item: str
    price: int
    log: Annotated[list[str], operator.add]


class Shop:
    """A graph that looks a price up and charges it, which fails for what is in `broken`."""

    def __init__(self) -> None:
        self.broken: dict[str, Exception] = {}
        self.graph = StateGraph(Order)
        self.graph.add_sequence([("look_up", self.look_up), ("charge", self.charge)])
        self.graph.set_entry_point("look_up")

    def look_up(self, state: Order) -> Order:
        return {"price": 42, "log": ["looked up"]}

    def charge(self, state: Order) -> Order:
        if state["item"] in self.broken:
            raise self.broken[state["item"]]
        return {"log": ["charged"]}


@pytest.fixture
def shop() -> Shop:
    return Shop()


# --- over every backend, both ways ------------------------------------------------------


class Calls:
    """The three calls of a workflow, whichever way they are made."""

    def __init__(self, workflow: ProductionWorkflow, loop: asyncio.Runner | None) -> None:
        self.workflow, self.loop = workflow, loop

    def execute(self, *args: Any) -> dict[str, Any]:
        if self.loop is None:
            return self.workflow.execute(*args)
        return self.loop.run(self.workflow.aexecute(*args))

    def resume(self, *args: Any, **options: Any) -> dict[str, Any]:
        if self.loop is None:
            return self.workflow.resume(*args, **options)
        return self.loop.run(self.workflow.aresume(*args, **options))

    def get_status(self, thread_id: str) -> dict[str, Any]:
        if self.loop is None:
            return dict(self.workflow.get_status(thread_id))
        return dict(self.loop.run(self.workflow.aget_status(thread_id)))


Opener = Callable[..., Calls]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> PersistenceConfig:
    """A configuration for each backend, with a tenant of its own."""
    text = str(tmp_path / "runs.db")
    if request.param == "postgres":
        text = request.getfixturevalue("postgresql_url")
    return PersistenceConfig(backend=request.param, connection_string=text, tenant="shop")


@pytest.fixture(params=["blocking", "awaited", "awaited, on a blocking checkpointer"])
def opened(request: pytest.FixtureRequest, config: PersistenceConfig) -> Iterator[Opener]:
    """Opens a workflow, of a class or around a graph, and closes it in the end."""
    with ExitStack() as stack:

        def open_workflow(
            graph: StateGraph | None = None, cls: type[ProductionWorkflow] = ProductionWorkflow
        ) -> Calls:
            if request.param == "blocking":
                return Calls(stack.enter_context(cls(config, graph)), None)
            loop = stack.enter_context(asyncio.Runner())
            if request.param == "awaited":
                workflow = loop.run(cls.acreate(config, graph))
                stack.callback(lambda: loop.run(workflow.aclose()))
                return Calls(workflow, loop)
            return Calls(stack.enter_context(cls(config, graph)), loop)

        yield open_workflow


def test_a_question_and_its_answer(opened: Opener, shop: Shop) -> None:
    shop.graph.add_node("ask", lambda state: {"log": [interrupt(f"{state['item']}?")]})
    shop.graph.add_edge("charge", "ask")
    workflow = opened(shop.graph)
    workflow.execute("order-9", {"item": "a lamp"})
    status = workflow.get_status("order-9")
    assert (status["status"], status["next_nodes"]) == ("waiting", ("ask",))
    assert [asked.value for asked in status["interrupts"]] == ["a lamp?"]
    result = workflow.resume("order-9", {"log": ["noted"]}, answer="yes")
    assert result["log"] == ["looked up", "charged", "noted", "yes"]
    with pytest.raises(WorkflowError, match="no interrupt"):
        workflow.resume("order-9", answer="again")


def test_a_run_to_the_end(opened: Opener, shop: Shop) -> None:
    workflow = opened(shop.graph)
    nothing = workflow.get_status("order-1")
    assert nothing == {
        "thread_id": "order-1",
        "values": {},
        "next_nodes": (),
        "created_at": None,
        "status": None,
        "updated_at": None,
        "interrupts": (),
        "error": None,
    }
    result = workflow.execute("order-1", {"item": "a table"})
    assert result == {"item": "a table", "price": 42, "log": ["looked up", "charged"]}
    status = workflow.get_status("order-1")
    assert status["values"] == result
    assert (status["next_nodes"], status["status"], status["error"]) == ((), "idle", None)
    assert status["created_at"] == status["updated_at"] != None  # noqa: E711 (both, and said)
    assert workflow.resume("order-1") == result


def test_a_failure_then_a_resumption_with_updates(opened: Opener, shop: Shop) -> None:
    shop.broken["a lamp"] = ConnectionError("the bank does not answer")
    workflow = opened(shop.graph)
    with pytest.raises(WorkflowError) as caught:
        workflow.execute("order-2", {"item": "a lamp"})
    error = caught.value
    assert isinstance(error, GraphError)
    assert error.thread_id == "order-2"
    assert error.original_error is error.__cause__ is shop.broken["a lamp"]
    assert isinstance(error.state, StateSnapshot)
    assert error.state.next == ("charge",)
    assert error.state.values["price"] == 42
    assert str(error) == (
        "thread 'order-2' failed before 'charge': ConnectionError: the bank does not answer"
    )
    status = workflow.get_status("order-2")
    assert (status["status"], status["next_nodes"]) == ("failed", ("charge",))
    assert status["error"] == "ConnectionError: the bank does not answer"

    with pytest.raises(WorkflowError, match="'order-2' failed before 'charge'"):
        workflow.resume("order-2")
    result = workflow.resume("order-2", {"item": "a chair"})
    assert result == {"item": "a chair", "price": 42, "log": ["looked up", "charged"]}
    assert workflow.get_status("order-2")["status"] == "idle"
    assert workflow.get_status("order-2")["error"] is None


def test_updates_skip_no_node_that_has_yet_to_run(opened: Opener) -> None:
    def charge(state: Order) -> Order:
        if state["item"] == "a lamp":
            raise ConnectionError("the bank does not answer")
        return {"log": ["charged"]}

    alone, first = StateGraph(Order), StateGraph(Order)
    for graph in (alone, first):
        graph.add_node("charge", charge)
        graph.set_entry_point("charge")
    first.add_node("ship", lambda state: {"log": ["shipped"]})
    first.add_edge("charge", "ship")
    for graph, expected in ((alone, ["charged"]), (first, ["charged", "shipped"])):
        workflow = opened(graph)
        thread_id = f"order of {len(expected)}"
        with pytest.raises(WorkflowError, match="before 'charge'"):
            workflow.execute(thread_id, {"item": "a lamp"})
        with pytest.raises(WorkflowError, match="before 'charge'"):
            workflow.resume(thread_id, {"price": 3})  # does not help
        result = workflow.resume(thread_id, {"item": "a chair"})
        assert result == {"item": "a chair", "price": 3, "log": expected}
        # What is complete stays so.
        assert workflow.resume(thread_id, {"price": 4})["log"] == expected


def test_a_stop_for_a_person(opened: Opener, shop: Shop) -> None:
    class Careful(ProductionWorkflow):
        def _build_graph(self) -> CompiledGraph:
            return shop.graph.compile(checkpointer=self.checkpointer, interrupt_before=["charge"])

    workflow = opened(cls=Careful)
    workflow.execute("order-3", {"item": "a bed"})
    status = workflow.get_status("order-3")
    assert (status["status"], status["next_nodes"]) == ("waiting", ("charge",))
    assert workflow.resume("order-3", {"price": 40})["price"] == 40
    assert workflow.get_status("order-3")["status"] == "idle"


def test_nothing_to_resume(opened: Opener, shop: Shop) -> None:
    workflow = opened(shop.graph)
    with pytest.raises(WorkflowError) as caught:
        workflow.resume("nobody")
    assert isinstance(caught.value.original_error, EmptyInputError)
    assert caught.value.state is not None and caught.value.state.values == {}
    assert workflow.get_status("nobody")["status"] is None


@pytest.mark.parametrize("values", [{"no such key": 1}, {"item": object()}])
def test_an_input_or_an_update_that_does_not_fit(
    opened: Opener, shop: Shop, values: dict[str, Any]
) -> None:
    workflow = opened(shop.graph)
    with pytest.raises(WorkflowError):
        workflow.execute("order-4", values)
    assert workflow.get_status("order-4")["status"] is None  # refused before anything was stored
    workflow.execute("order-4", {"item": "a table"})
    before = workflow.get_status("order-4")
    with pytest.raises(WorkflowError) as caught:
        workflow.resume("order-4", values)
    assert caught.value.state is not None
    assert caught.value.state.values == before["values"]
    assert workflow.get_status("order-4") == before


def another_store(workflow: ProductionWorkflow) -> EventStore:
    """A store of the same threads, as another process would open one."""
    if workflow.config.backend == "memory":
        engine = workflow._store.database.engine
        assert isinstance(engine, Engine)
        return EventStore(engine, tenant=workflow.config.tenant)
    return create_production_checkpointer(workflow.config).store


def test_a_lost_race_is_told(opened: Opener, shop: Shop) -> None:
    def interfere(state: Order) -> Order:
        with another_store(workflow.workflow) as store:
            other = shop.graph.compile(checkpointer=store)
            other.update_state(on("order-5"), {"price": 1}, as_node="look_up")
        return {}

    shop.graph.add_node("interfere", interfere)
    shop.graph.add_edge("charge", "interfere")
    workflow = opened(shop.graph)
    with pytest.raises(WorkflowError) as caught:
        workflow.execute("order-5", {"item": "a table"})
    assert isinstance(caught.value.original_error, ConcurrencyError)
    assert caught.value.state is not None
    assert caught.value.state.values["price"] == 1  # as it stands: what the other one made of it


def test_a_database_that_has_gone(opened: Opener, shop: Shop) -> None:
    workflow = opened(shop.graph)
    workflow.execute("order-6", {"item": "a table"})
    closing = workflow.workflow
    if isinstance(closing._store, AsyncEventStore):
        assert workflow.loop is not None
        workflow.loop.run(closing.aclose())
    else:
        closing.close()
    with pytest.raises(WorkflowError, match=r"and the state could not be read\)$") as caught:
        workflow.execute("order-6", {"item": "a table"})
    assert caught.value.state is None
    assert isinstance(caught.value.original_error, StoreClosedError)
    with pytest.raises(StoreClosedError):
        workflow.get_status("order-6")


def test_what_is_logged(opened: Opener, shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.broken[PRIVATE] = ValueError(PRIVATE)
    caplog.set_level(logging.DEBUG)
    workflow = opened(shop.graph)
    workflow.execute("order-7", {"item": "a table"})
    with pytest.raises(WorkflowError):
        workflow.execute("order-8", {"item": PRIVATE})
    ours = [record for record in caplog.records if record.name == "graph.production"]
    assert [(r.levelname, getattr(r, "thread_id", None)) for r in ours] == [
        ("INFO", None),
        ("INFO", "order-7"),
        ("ERROR", "order-8"),
    ]
    assert (vars(ours[0])["tenant"], vars(ours[0])["backend"]) == (
        "shop",
        workflow.workflow.config.backend,
    )
    assert ours[1].getMessage() == "thread 'order-7': run ended"
    assert ours[2].getMessage() == "thread 'order-8': run failed: ValueError"
    assert vars(ours[2])["error"] == "ValueError"
    for record in caplog.records:
        assert PRIVATE not in repr(vars(record))
        assert workflow.workflow.config.connection_string not in repr(vars(record))


# --- errors -----------------------------------------------------------------------------


def test_the_text_of_an_error_holds_no_state(tmp_path: Path, shop: Shop) -> None:
    shop.broken[PRIVATE] = ConnectionError("the bank does not answer " * 50)
    with (
        ProductionWorkflow(PersistenceConfig(backend="memory"), shop.graph) as workflow,
        pytest.raises(WorkflowError) as caught,
    ):
        workflow.execute("order", {"item": PRIVATE})
    assert caught.value.state is not None
    assert caught.value.state.values["item"] == PRIVATE
    assert PRIVATE not in str(caught.value) + repr(caught.value)
    assert len(str(caught.value)) < 600


class Awkward(Exception):
    """Cannot be unpickled: its arguments are not what it hands on."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ConnectionError("gone"), ConnectionError, "gone"),
        (Awkward(3, "gone"), RuntimeError, "Awkward: 3: gone"),
    ],
)
def test_an_error_travels_between_processes(error: Exception, kind: type, text: str) -> None:
    state = StateSnapshot({"item": "a lamp"}, ("charge",), on("order"), None, None, None)
    before = WorkflowError("order", state, error)
    after = pickle.loads(pickle.dumps(before))
    assert type(after) is WorkflowError
    assert (after.thread_id, after.state) == ("order", state)
    assert after.original_error is after.__cause__
    assert type(after.original_error) is kind
    assert str(after.original_error) == text
    assert "'order' failed before 'charge'" in str(after)
    assert before.__cause__ is error


# --- checkpointers ----------------------------------------------------------------------


def test_a_checkpointer_is_set_up_and_as_configured(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    sqlite = PersistenceConfig(
        backend="sqlite",
        connection_string=f"sqlite:///{path}",
        enable_compression=False,
        tenant="shop",
        durability="normal",
    )
    with create_production_checkpointer(sqlite) as saver:
        assert type(saver) is SqliteSaver
        assert path.stat().st_size > 0  # tables
        assert (saver.store.tenant, saver.store.codec.compress) == ("shop", False)
        with saver.store.engine.connect() as conn:
            assert conn.exec_driver_sql("PRAGMA synchronous").scalar() == 1
    with create_production_checkpointer(PersistenceConfig(backend="memory")) as memory:
        assert type(memory) is MemorySaver
        assert memory.store.codec.compress


def test_a_checkpointer_for_event_loops(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    sqlite = PersistenceConfig(
        backend="sqlite", connection_string=str(path), enable_compression=False, tenant="shop"
    )

    async def open_both() -> None:
        saver = await create_async_production_checkpointer(sqlite)
        assert isinstance(saver, AsyncSqliteSaver)
        assert path.stat().st_size > 0
        assert (saver.store.tenant, saver.store.codec.compress) == ("shop", False)
        await saver.close()
        memory = await create_async_production_checkpointer(PersistenceConfig(backend="memory"))
        assert isinstance(memory, MemorySaver)
        memory.close()

    asyncio.run(open_both())


def test_compression_may_be_switched_at_any_time(tmp_path: Path, shop: Shop) -> None:
    item = {"item": "a table " * 200}
    for compress in (True, False):
        config = PersistenceConfig(
            backend="sqlite",
            connection_string=str(tmp_path / "runs.db"),
            enable_compression=compress,
        )
        with ProductionWorkflow(config, shop.graph) as workflow:
            workflow.execute(f"compress={compress}", item)
            compressed = workflow.get_status("compress=True")  # read whatever the setting
    with ProductionWorkflow(
        PersistenceConfig(backend="sqlite", connection_string=str(tmp_path / "runs.db")), shop.graph
    ) as workflow:
        plain = workflow.get_status("compress=False")
        store = another_store(workflow)
        with store:
            small, large = store.stats("compress=True"), store.stats("compress=False")
    assert compressed["values"] == plain["values"] != {}
    assert small.raw_bytes == large.raw_bytes
    assert small.stored_bytes < large.raw_bytes / 2 < large.stored_bytes


def test_what_cannot_be_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    missing = PersistenceConfig(
        backend="sqlite", connection_string=str(tmp_path / "no such folder" / "runs.db")
    )
    with pytest.raises(ConfigurationError, match="does not exist"):
        create_production_checkpointer(missing)
    with pytest.raises(ConfigurationError, match="does not exist"):
        asyncio.run(create_async_production_checkpointer(missing))
    (tmp_path / "no.db").write_bytes(b"this is no database, but a letter to somebody" * 100)
    broken = PersistenceConfig(backend="sqlite", connection_string=str(tmp_path / "no.db"))
    with pytest.raises(StoreUnavailableError):
        create_production_checkpointer(broken)
    with pytest.raises(StoreUnavailableError):
        asyncio.run(create_async_production_checkpointer(broken))  # no thread of it lives on


def test_the_policy_of_a_configuration_sweeps_its_threads(tmp_path: Path, shop: Shop) -> None:
    config = PersistenceConfig(
        backend="sqlite", connection_string=str(tmp_path / "runs.db"), checkpoint_ttl_days=1
    )
    with (
        create_production_checkpointer(config) as saver,
        ProductionWorkflow(config, shop.graph, checkpointer=saver) as workflow,
    ):
        for name in ("old", "new"):
            workflow.execute(name, {"item": "a table"})
        saver.store.set_thread("old", ttl=0)
        assert sweep(saver.store, config.retention_policies()).pruned == 1
        assert workflow.get_status("old")["values"] == {}
        assert workflow.get_status("new")["values"]["price"] == 42


# --- whose is what ----------------------------------------------------------------------


def test_what_the_caller_made_stays_open(tmp_path: Path, shop: Shop) -> None:
    config = PersistenceConfig(backend="memory")
    with MemorySaver() as saver:
        for given in (saver, saver.store):
            with ProductionWorkflow(config, shop.graph, checkpointer=given) as workflow:
                assert workflow.checkpointer is given
                workflow.execute("order", {"item": "a table"})
            assert workflow.get_status("order")["status"] == "idle"
        with pytest.raises(InvalidGraphError, match="ProductionWorkflow has no graph"):
            ProductionWorkflow(config, checkpointer=saver)
        saver.store.setup()  # still open


def test_what_was_made_is_closed(tmp_path: Path, shop: Shop) -> None:
    config = PersistenceConfig(backend="sqlite", connection_string=str(tmp_path / "runs.db"))
    workflow = ProductionWorkflow(config, shop.graph)
    workflow.close()
    workflow.close()
    with pytest.raises(StoreClosedError):
        workflow.get_status("order")

    made: list[ProductionWorkflow] = []

    class Broken(ProductionWorkflow):
        def _build_graph(self) -> CompiledGraph:
            made.append(self)
            raise RuntimeError("no graph today")

    with pytest.raises(RuntimeError, match="no graph today"):
        Broken(config)
    with pytest.raises(RuntimeError, match="no graph today"):
        asyncio.run(Broken.acreate(config))
    for each in made:
        assert each._store.database._closed


def test_a_workflow_for_event_loops_is_closed_there(tmp_path: Path, shop: Shop) -> None:
    config = PersistenceConfig(backend="sqlite", connection_string=str(tmp_path / "runs.db"))

    async def use() -> None:
        async with await ProductionWorkflow.acreate(config, shop.graph) as workflow:
            await workflow.aexecute("order", {"item": "a table"})
            with pytest.raises(InvalidConfigError, match=r"await aclose\(\)"):
                workflow.close()
            assert (await workflow.aget_status("order"))["status"] == "idle"
        with pytest.raises(StoreClosedError):
            await workflow.aget_status("order")
        async with ProductionWorkflow(config, shop.graph) as blocking:
            assert (await blocking.aget_status("order"))["status"] == "idle"
        with pytest.raises(StoreClosedError):
            blocking.get_status("order")

    asyncio.run(use())


def test_a_blocking_call_on_a_checkpointer_for_event_loops_says_so(
    tmp_path: Path, shop: Shop
) -> None:
    config = PersistenceConfig(backend="memory")

    async def use() -> None:
        async with AsyncEventStore(":memory:") as store:
            workflow = ProductionWorkflow(config, shop.graph, checkpointer=store)
            await workflow.aexecute("order", {"item": "a table"})
            assert (await workflow.aget_status("order"))["status"] == "idle"

    asyncio.run(use())


def test_a_cancelled_run_is_no_failure(tmp_path: Path) -> None:
    began = asyncio.Event()

    async def wait(state: Order) -> Order:
        began.set()
        await asyncio.sleep(60)
        return {}

    graph = StateGraph(Order)
    graph.add_node("wait", wait)
    graph.set_entry_point("wait")
    config = PersistenceConfig(backend="sqlite", connection_string=str(tmp_path / "runs.db"))

    async def use() -> None:
        async with await ProductionWorkflow.acreate(config, graph) as workflow:
            task = asyncio.create_task(workflow.aexecute("order", {"item": "a table"}))
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            status = await workflow.aget_status("order")
            assert (status["next_nodes"], status["error"]) == (("wait",), None)

    asyncio.run(use())
