"""The state of a thread that was used last is kept in memory, and is always what the log says.

Whether it is found there or not must change no answer, whatever nodes, callers and other threads
change in place in what they were given.
"""

from __future__ import annotations

import logging
import operator
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from sqlalchemy import event

import graph.read.history
import graph.run.recent
import graph.run.snapshots
from eventstore import EventStore, StoreUnavailableError, queries
from graph import START, CompiledGraph, StateGraph, add_messages
from graph.run.address import Address
from graph.state.fold import Fold
from tests.graph.kit import on, replayed

Node = Callable[[Any], dict[str, Any]]


class Notes(TypedDict, total=False):
    items: Annotated[list[dict[str, Any]], operator.add]
    last: dict[str, Any]
    text: str


@pytest.fixture(params=["usual", "hit", "miss"])
def caching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the state of a thread is found in memory: as it comes, always, or never."""
    monkeypatch.setattr(graph.run.recent, "PART", 200)
    if request.param == "hit":
        monkeypatch.setattr(graph.run.recent, "is_due", lambda _: True)
    elif request.param == "miss":
        monkeypatch.setattr("eventstore.cache.LogCache.get", lambda *_: None)
    return str(request.param)


def noting(store: Any, *nodes: Node, **options: Any) -> CompiledGraph:
    declared = StateGraph(Notes)
    before = START
    for number, node in enumerate(nodes):
        declared.add_node(f"n{number}", node)
        declared.add_edge(before, f"n{number}")
        before = f"n{number}"
    return declared.compile(store, **options)


def add(state: Notes) -> dict[str, Any]:
    count = len(state["items"])
    return {"items": [{"n": count, "deep": {"list": [count]}}], "last": {"n": count}}


def spoil(value: Any) -> None:
    """Change everything inside a value in place."""
    if isinstance(value, dict):
        for each in list(value.values()):
            spoil(each)
        value["spoiled"] = True
    elif isinstance(value, list):
        for each in value:
            spoil(each)
        value.append("spoiled")


def as_logged(app: CompiledGraph, thread_id: str = "t") -> Any:
    """The values that the log alone leads to."""
    return replayed(app, thread_id, snapshots=False).values


def run(app: CompiledGraph, runs: int, thread_id: str = "t") -> None:
    for number in range(runs):
        app.invoke({"items": [{"in": number}]}, on(thread_id))


def test_callers_may_change_what_they_were_given(store: EventStore, caching: str) -> None:
    app = noting(store, add)
    for number in range(6):
        spoil(app.invoke({"items": [{"in": number}]}, on("t")))
        spoil(app.get_state(on("t")).values)
        state = app.get_state(on("t"))
        assert state.values == as_logged(app)
        assert len(state.values["items"]) == 2 * (number + 1)
        assert "spoiled" not in str(state.values)


def test_a_caller_may_change_the_input_that_it_gave(store: EventStore, caching: str) -> None:
    seen: list[str] = []

    def look(state: Notes) -> dict[str, Any]:
        given["items"][0]["in"] = "changed"
        return {}

    def note(state: Notes) -> dict[str, Any]:
        seen.append(str(state["items"]))
        return {}

    app = noting(store, look, note)
    given: dict[str, Any] = {"items": [{"in": 1}]}
    app.invoke(given, on("t"))
    assert app.get_state(on("t")).values["items"] == [{"in": 1}]
    assert seen == ["[{'in': 1}]"], "nor do the nodes of the run see it"


def test_a_node_may_change_what_it_returned(store: EventStore, caching: str) -> None:
    kept: list[dict[str, Any]] = []

    def give(state: Notes) -> dict[str, Any]:
        kept.append({"n": len(state["items"]), "deep": [1]})
        return {"items": [kept[-1]], "last": kept[-1]}

    def look(state: Notes) -> dict[str, Any]:
        spoil(kept)
        assert "spoiled" not in str(state)
        return {"text": str(state["items"][-1])}

    app = noting(store, give, look)
    for _ in range(4):
        kept.clear()
        app.invoke({"items": []}, on("t"))
    values = app.get_state(on("t")).values
    assert values == as_logged(app)
    assert values["items"] == [{"n": n, "deep": [1]} for n in range(4)]


@pytest.mark.parametrize("each_run", [True, False])
def test_what_a_node_changes_inside_is_not_in_the_next_run(
    store: EventStore, caching: str, each_run: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def vandal(state: Notes) -> dict[str, Any]:
        spoil(state["items"])
        spoil(state["last"])
        return {"text": "done"}

    app = noting(store, add, vandal, snapshot_each_run=each_run)
    for number in range(4):
        with caplog.at_level(logging.WARNING, "graph.run.snapshots"):
            app.invoke({"items": [{"in": number}]}, on("t"))
        values = app.get_state(on("t")).values
        assert values == as_logged(app)
        assert "spoiled" not in str(values)
    store.delete_snapshots("t")
    assert app.get_state(on("t")).values == values
    warned = [record for record in caplog.records if "changed in place" in record.message]
    assert [(record.thread_id, record.key) for record in warned] == (  # type: ignore[attr-defined]
        [("t", "items")] if each_run else []
    ), "the snapshot shows it, and says so once: `last` is only copied, and not changed"


def test_another_thread_changes_results_while_the_thread_runs(
    store: EventStore, caching: str
) -> None:
    app = noting(store, add, lambda state: {"text": str(state["items"])})
    run(app, 3)
    held = [app.get_state(on("t")).values, app.invoke({"items": []}, on("t"))]
    over = threading.Event()

    def change() -> None:
        while not over.wait(0.0005):
            for each in held:
                each["items"][0]["in"] = each["items"][-1]["n"] = "spoiled"

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(20):
            app.invoke({"items": [{"in": 9}]}, on("t"))
            assert "spoiled" not in str(app.get_state(on("t")).values)
    finally:
        over.set()
        changing.join()
    assert app.get_state(on("t")).values == as_logged(app)


class Name(str):
    """A text that is stored as plain text."""


def test_later_nodes_see_the_types_that_every_replay_sees(store: EventStore, caching: str) -> None:
    seen: list[list[type]] = []

    def give(state: Notes) -> dict[str, Any]:
        return {"text": Name("x"), "last": OrderedDict(a=Name("y")), "items": [OrderedDict(b=1)]}

    def look(state: Notes) -> dict[str, Any]:
        found = [state["text"], state["last"], state["last"]["a"], state["items"][-1]]
        seen.append([type(each) for each in found])
        return {}

    app = noting(store, give, look, interrupt_before=["n1"])
    app.invoke({"items": []}, on("t"))
    app.invoke(None, on("t"))
    whole = noting(store, give, look)
    whole.invoke({"items": []}, on("u"))
    assert seen == [[type(each) for each in seen_as(app)]] * 2


def seen_as(app: CompiledGraph) -> list[Any]:
    values = as_logged(app)
    return [values["text"], values["last"], values["last"]["a"], values["items"][-1]]


def keep_five(left: list[Any], right: list[Any]) -> list[Any]:
    return (left + right)[-5:]


def newest_first(left: list[Any], right: list[Any]) -> list[Any]:
    return right + left


@pytest.mark.pairwise
@pytest.mark.usefixtures("without_langchain")
@pytest.mark.parametrize("reducer", [operator.add, keep_five, newest_first, add_messages])
def test_lists_that_grow_shrink_and_are_replaced(
    store: EventStore, caching: str, reducer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph.run.snapshots, "FLOOR", 900)

    class Talk(TypedDict, total=False):
        told: Annotated[list[Any], reducer]
        other: list[Any]

    Talk.__annotations__["told"] = Annotated[list, reducer]

    def answer(state: Talk) -> dict[str, Any]:
        count = len(state["told"])
        other = [0] * (count % 4) if count % 3 else [*state.get("other", []), count]
        said = {"role": "ai", "content": f"{count} " + "word " * 20, "id": f"{count % 7}"}
        return {"told": [said], "other": other}

    declared = StateGraph(Talk)
    declared.add_node("answer", answer)
    declared.add_edge(START, "answer")
    app = declared.compile(store)
    for number in range(14):
        app.invoke(
            {"told": [{"role": "user", "content": str(number), "id": f"u{number}"}]}, on("t")
        )
        assert app.get_state(on("t")).values == as_logged(app)
    assert app.verify(on("t")).ok
    store.delete_snapshots("t")
    assert app.get_state(on("t")).values == as_logged(app)


class Merged(TypedDict, total=False):
    added: Annotated[list[Any], operator.add]
    kept: Annotated[list[Any], keep_five]
    first: Annotated[list[Any], newest_first]
    told: Annotated[list[Any], add_messages]
    named: Annotated[dict[str, Any], operator.or_]
    total: Annotated[int, operator.add]
    last: dict[str, Any]
    whole: list[Any]


@pytest.mark.pairwise
@pytest.mark.usefixtures("without_langchain")
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("key", Merged.__annotations__)
def test_what_a_run_keeps_of_its_end_is_what_it_recorded(
    store: EventStore, key: str, durability: Any
) -> None:
    """Nodes change in place what they are given and what they gave; reducers merge it."""

    def written(number: int) -> dict[str, Any]:
        found = {"id": f"m{number % 6}", "role": "user", "content": {"n": number, "of": [number]}}
        if key == "total":
            return {"total": number}
        return {key: {f"k{number % 3}": found} if key in ("named", "last") else [found]}

    given: list[Any] = []

    def change(values: Iterable[Any]) -> None:
        for value in values:
            for each in list(value.values() if isinstance(value, dict) else value):
                each["id"] = "another"
                spoil(each)

    def node(state: Merged) -> dict[str, Any]:
        found = [each for update in [*given, state] for each in update.values()]
        change(each for each in found if isinstance(each, dict | list))
        given.append(written(len(given)))
        return dict(given[-1])

    declared = StateGraph(Merged)
    declared.add_sequence([("one", node), ("two", node)])
    declared.add_edge(START, "one")
    app = declared.compile(store)
    for number in range(12):
        spoil(app.invoke(written(100 + number), on("t"), durability=durability))
        if number % 3 == 2:
            values = app.get_state(on("t")).values
            assert values == as_logged(app)
            assert "spoiled" not in str(values)
    assert app.verify(on("t")).ok


def test_interrupted_and_failed_supersteps_are_loaded_again(
    store: EventStore, caching: str
) -> None:
    broken = [True]

    def fail(state: Notes) -> dict[str, Any]:
        if broken[0]:
            raise RuntimeError("not yet")
        return {"text": "now"}

    app = noting(store, add, fail, add)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            app.invoke({"items": [{"in": 1}]}, on("t"))
        assert app.get_state(on("t")).next == ("n1",)
        assert app.get_state(on("t")).values == as_logged(app)
    broken[0] = False
    app.invoke(None, on("t"))
    assert app.get_state(on("t")).next == ()
    assert app.get_state(on("t")).values == as_logged(app)
    app.update_state(on("t"), {"items": [{"edited": True}]})
    fork = next(iter(app.get_state_history(on("t"))))
    app.invoke({"items": []}, fork.config)
    assert app.get_state(on("t")).values == as_logged(app)


@pytest.fixture
def reads(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The statements that read payloads.

    That which finds a thread may read some: what counts is whether it did.
    """
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        is_read = ".payload" in statement and statement.lstrip().startswith(("SELECT", "WITH"))
        if is_read and " AS what" not in statement:
            seen.append(statement)

    def load(*args: Any) -> queries.loading.Loaded:
        found = loads(*args)
        if found.page or found.chain:
            seen.append("load")
        return found

    loads = queries.loading.load
    monkeypatch.setattr(queries.loading, "load", load)
    event.listen(store.engine, "before_cursor_execute", note)
    yield seen
    event.remove(store.engine, "before_cursor_execute", note)


def test_no_payload_is_read_or_folded_twice(
    store: EventStore, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = noting(store, add)
    run(app, 4)
    app.get_state(on("t"))
    reads.clear()
    folded: list[int] = []
    feed = Fold.feed

    def counted(*given: Any) -> bool:
        folded.append(1)
        return feed(*given)

    monkeypatch.setattr(Fold, "feed", counted)
    app.get_state(on("t"))
    assert (reads, folded) == ([], [])
    app.invoke({"items": [{"in": 5}]}, on("t"))
    assert (len(reads), len(folded)) == (0, 2), "only its own two events"
    folded.clear()
    app.get_state(on("t"))
    app.get_state(on("t"))
    assert (len(reads), len(folded)) == (0, 0), "the run has kept what it recorded"


def test_a_snapshot_rests_on_the_one_before_though_the_state_came_from_memory(
    store: EventStore, caching: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph.run.snapshots, "FLOOR", 1500)
    app = noting(store, add)
    run(app, 40)
    stats = store.stats("t")
    assert stats.snapshots >= 4
    assert stats.snapshot_bytes <= 2 * stats.stored_bytes
    whole = store.replay("t", fingerprint=app._log.fingerprint)  # type: ignore[union-attr]
    assert whole.snapshot is not None
    assert len(whole.snapshot.items) >= 4, "each holds only what was new"
    assert app.get_state(on("t")).values == as_logged(app)


def test_a_database_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    """A backup is put back, and the thread goes on in another way, under a process that knew it."""
    path, backup = tmp_path / "a.db", tmp_path / "b.db"
    with EventStore(path) as store:
        run(noting(store, add), 3)
    shutil.copy(path, backup)
    with EventStore(path) as store:
        app = noting(store, add)
        run(app, 2)
        app.get_state(on("t"))
        app.get_state(on("t"))
        cache = dict(store.core.cache._logs)
    shutil.copy(backup, path)
    with EventStore(path) as store:
        app = noting(store, add)
        run(app, 4)
        store.core.cache._logs.update(cache)
        assert app.get_state(on("t")).values == as_logged(app)
        run(app, 1)
        assert app.get_state(on("t")).values == as_logged(app)


@pytest.mark.slow
def test_what_is_kept_is_bounded() -> None:
    with EventStore(cache_bytes=60_000) as store:
        app = noting(store, add)
        for number in range(60):
            run(app, 3, f"t{number}")
            app.get_state(on(f"t{number}"))
        cache = store.core.cache
        sizes = [each.size for each in cache._logs.values()]
        assert sum(sizes) == cache._size <= 60_000
        assert 5 < len(sizes) < 60
        assert any(each.notes for each in cache._logs.values())
        app.invoke({"items": [{"large": "x" * 20_000}]}, on("t59"))
        for _ in range(4):
            assert len(app.get_state(on("t59")).values["items"]) == 8
        assert sum(each.size for each in cache._logs.values()) == cache._size <= 60_000
        assert all(each.size <= 15_000 for each in cache._logs.values())


class Kinds(TypedDict, total=False):
    plain: Annotated[list[Any], operator.add]
    typed: Annotated[list[Any], operator.add]
    mixed: list[Any]


@pytest.mark.slow
@pytest.mark.pairwise
@pytest.mark.parametrize("lists", [("plain",), ("typed",), ("plain", "typed", "mixed")])
def test_old_checkpoints_are_the_same_however_often_they_are_read(
    store: EventStore, caching: str, lists: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph.run.snapshots, "FLOOR", 900)

    def grow(state: Kinds) -> dict[str, Any]:
        n = len(state.get("plain", ())) + len(state.get("typed", ()))
        found: dict[str, Any] = {
            "plain": [{"n": n, "deep": [{"text": "word " * 20}], "\ud800": 2.5}],
            "typed": [(n, {n, "a"}, datetime(2026, 1, 1, tzinfo=UTC), 2**70, bytearray(b"x"))],
            "mixed": [*state.get("mixed", [])[-3:], n],
        }
        return {key: found[key] for key in lists}

    declared = StateGraph(Kinds)
    declared.add_node("grow", grow)
    declared.add_edge(START, "grow")
    app = declared.compile(store)
    for _ in range(20):
        app.invoke({}, on("t"))
    assert store.stats("t").snapshots >= 2
    store.core.cache.renew()
    store.core.bodies.renew()
    places = [each.config for each in app.get_state_history(on("t"))][::7]
    expected = [
        repr(replayed(app, "t", snapshots=False, at=Address.of(place).position).values)
        for place in places
    ]
    for _ in range(2):
        spoil(app.get_state(on("t")).values)
        for place, values in zip(places, expected, strict=True):
            found = app.get_state(place).values
            assert repr(found) == values
            spoil(found)
        for state in app.get_state_history(on("t")):
            if state.config in places:
                assert repr(state.values) == expected[places.index(state.config)]
        assert repr(app.get_state(on("t")).values) == expected[0]
    app.invoke({}, on("t"))
    assert app.get_state(on("t")).values == as_logged(app)
    assert app.verify(on("t")).ok


@pytest.mark.slow
def test_snapshots_that_were_decoded_are_kept_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graph.run.snapshots, "FLOOR", 900)
    with EventStore(cache_bytes=60_000) as store:
        app = noting(store, add)
        for number in range(8):
            run(app, 20, f"t{number}")
        store.core.cache.renew()
        for number in [*range(8), 7]:
            states = list(app.get_state_history(on(f"t{number}")))
            assert states[0].values == as_logged(app, f"t{number}")
            assert app.get_state(states[9].config).values == states[9].values
            bodies = store.core.bodies
            assert 0 < bodies._size <= 15_000
            assert bodies._size == sum(200 + len(k) + len(v) for k, v in bodies._bodies.items())
    with EventStore(cache_bytes=0) as store:
        app = noting(store, add)
        run(app, 20)
        assert app.get_state(on("t")).values == as_logged(app)
        assert not store.core.bodies._bodies


def test_no_names_of_threads_are_kept(store: EventStore) -> None:
    app = noting(store, add)
    for number in range(8):
        run(app, 1, f"t{number}")
        state = app.get_state(on(f"t{number}"))
        assert state.config["configurable"]["thread_id"] == f"t{number}"
        assert app.reader_on(store.core) is not app.reader_on(store.core)
    branch = app.update_state(app.get_state(on("t0")).config, {"text": "x"})
    assert app.get_state(branch).config == branch


@pytest.fixture
def elsewhere(store_url: str, store: EventStore) -> Iterator[EventStore]:
    """Another store on the same database, as another process has it."""
    if store_url == "sqlite://":
        pytest.skip("a database in memory belongs to one store")
    with EventStore(store_url, tenant="test") as other:
        yield other


@pytest.mark.every_backend
def test_a_run_notices_that_its_thread_has_moved_elsewhere(
    store: EventStore, elsewhere: EventStore
) -> None:
    """It begins where this process saw the thread end; its first event shows that it has moved."""
    seen: list[int] = []
    routed: list[int] = []

    def look(state: Notes) -> dict[str, Any]:
        seen.append(len(state["items"]))
        return add(state)

    def route(state: Notes) -> str:
        routed.append(len(state["items"]))
        if "only elsewhere" in str(state) and len(state["items"]) < 9:
            raise RuntimeError("an older state")
        return "look"

    def compiled(at: EventStore) -> CompiledGraph:
        declared = StateGraph(Notes)
        declared.add_node("look", look)
        declared.add_conditional_edges(START, route, ["look"])
        return declared.compile(at)

    app, other = compiled(store), compiled(elsewhere)
    run(app, 3)
    run(other, 1)
    run(app, 1)
    assert seen == [1, 3, 5, 7, 9]
    assert routed[-2:] == [7, 9], "asked again of the state that there is"
    routed.clear()
    run(app, 1)
    assert routed == [11]
    other.update_state(on("t"), {"items": [{"in": 0}]})
    app.invoke({"items": [{"in": "only elsewhere"}]}, on("t"))
    assert app.get_state(on("t")).values == as_logged(app)
    elsewhere.delete_thread("t")
    run(app, 1)
    assert seen[-1] == 1, "a new thread of that name"
    run(app, 2)
    elsewhere.delete_thread("t")
    run(other, 4)
    run(app, 1)
    assert seen[-1] == 9
    assert app.verify(on("t")).ok


def test_an_input_whose_commit_stays_in_doubt_is_not_stored_twice(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event that a run finds at the end of its thread may be its own."""
    core = store.core
    declared = StateGraph(Notes)
    declared.add_node("add", add)
    declared.add_edge(START, "add")
    app = declared.compile(store)
    run(app, 3)
    append = core.append_together
    answers: list[bool] = []

    async def lost(*given: Any, **named: Any) -> Any:
        await append(*given, **named)
        answers.append(False)
        raise StoreUnavailableError("the answer was lost")

    monkeypatch.setattr(core, "append_together", lost)
    with pytest.raises(StoreUnavailableError, match="was lost"):
        run(app, 1)
    monkeypatch.undo()
    assert answers == [False]
    assert len(app.get_state(on("t")).values["items"]) == 7
    app.invoke(None, on("t"))
    assert len(app.get_state(on("t")).values["items"]) == 8
    assert app.verify(on("t")).ok


def test_an_error_before_the_first_event_is_raised_at_once(store: EventStore) -> None:
    asked: list[int] = []

    def route(state: Notes) -> str:
        asked.append(1)
        if len(asked) == 4:
            raise RuntimeError("of the application")
        return "add"

    declared = StateGraph(Notes)
    declared.add_node("add", add)
    declared.add_conditional_edges(START, route, ["add"])
    app = declared.compile(store)
    run(app, 3)
    with pytest.raises(RuntimeError, match="of the application"):
        run(app, 1)
    assert len(asked) == 4
    assert app.get_state(on("t")).next == ()
    run(app, 1)
    assert len(app.get_state(on("t")).values["items"]) == 8
