"""Going back, and other ways from there: in the same thread, in a new one, in one of that.

What a fork refers to may be deleted; the fork does not notice (rule 5).
"""

from __future__ import annotations

from typing import Any

import pytest

import graph.read.history
import graph.run.snapshots
from eventstore import EventStore, PositionNotFoundError, ThreadNotFoundError
from graph import CompiledGraph, InvalidConfigError, StateSnapshot
from tests.graph.kit import Calls, id_of, on, shape, steps


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def app(store: EventStore, calls: Calls) -> CompiledGraph:
    """a → b → c, run once on thread ``main``."""
    app = steps("abc", store, calls)
    app.invoke({"log": ["x"]}, on("main"))
    return app


def history(app: CompiledGraph, thread_id: str) -> list[StateSnapshot]:
    return list(app.get_state_history(on(thread_id), every=True))


def after(app: CompiledGraph, node: str, thread_id: str = "main") -> StateSnapshot:
    """The oldest checkpoint whose log ends with a node's name."""
    return next(s for s in history(app, thread_id)[::-1] if s.values["log"][-1] == node)


def sources(app: CompiledGraph, thread_id: str) -> list[str]:
    return [s.metadata["source"] for s in history(app, thread_id) if s.metadata]


# --- within a thread --------------------------------------------------------------------


def test_going_back_runs_only_what_comes_after(app: CompiledGraph, calls: Calls) -> None:
    before = history(app, "main")
    assert app.invoke(None, after(app, "a").config)["log"] == ["x", "a", "b", "c"]
    assert calls.counts == {"a": 1, "b": 2, "c": 2}
    now = history(app, "main")
    assert now[3:] == before, "what was left behind is kept as it was"
    assert sources(app, "main") == ["loop", "loop", "fork", "loop", "loop", "loop", "input"]
    fork = now[2]
    assert fork.parent_config == after(app, "a").config
    assert shape([fork]) == shape([after(app, "a")])
    assert [entry.kind for entry in app.events(on("main"))][-3:] == ["fork", "output", "output"]


def test_the_head_is_where_going_back_led(app: CompiledGraph) -> None:
    edited = app.update_state(after(app, "a").config, {"log": ["edit"]})
    assert app.get_state(on("main")).values["log"] == ["x", "a", "edit"]
    assert app.get_state(on("main")).config == edited
    assert app.get_state(on("main")).next == ("b",)
    assert app.invoke(None, on("main"))["log"] == ["x", "a", "edit", "b", "c"]


def test_going_back_to_the_head_is_going_on(app: CompiledGraph) -> None:
    before = history(app, "main")
    assert app.invoke(None, before[0].config)["log"] == ["x", "a", "b", "c"]
    assert history(app, "main") == before


def test_a_new_input_at_an_old_checkpoint(app: CompiledGraph) -> None:
    result = app.invoke({"log": ["y"]}, after(app, "a").config)
    assert result["log"] == ["x", "a", "y", "a", "b", "c"]


def test_going_back_again_and_again(app: CompiledGraph) -> None:
    for _ in range(5):
        for node in "ab":
            assert app.invoke(None, after(app, node).config)["log"] == ["x", "a", "b", "c"]
    oldest = history(app, "main")[-1]
    assert app.invoke(None, oldest.config)["total"] == 3
    assert app.verify(on("main")).ok


def test_going_back_to_a_finished_checkpoint(app: CompiledGraph) -> None:
    """There is nothing to run, and still the thread goes on from there."""
    finished = app.get_state(on("main"))
    app.invoke({"log": ["wrong turn"]}, on("main"))
    assert app.invoke(None, finished.config) == finished.values
    assert app.get_state(on("main")).values == finished.values
    assert app.invoke({"log": ["y"]}, on("main"))["log"] == ["x", *"abc", "y", *"abc"]


def test_an_id_that_is_no_checkpoint(app: CompiledGraph) -> None:
    with pytest.raises(InvalidConfigError, match="not a checkpoint_id"):
        app.get_state(on("main", "1f0e5d9c-4f1a-6b8e-8000-5d1c6b6e4f1a"))
    beyond = id_of(history(app, "main")[0])[:-4] + "0fff"
    with pytest.raises(PositionNotFoundError):
        app.get_state(on("main", beyond))
    with pytest.raises(PositionNotFoundError):
        app.invoke(None, on("main", beyond))


# --- into a new thread ------------------------------------------------------------------


def test_a_fork_by_invoke(app: CompiledGraph, calls: Calls, store: EventStore) -> None:
    main = history(app, "main")
    branch = on("branch", id_of(after(app, "a")))
    assert app.invoke(None, branch)["log"] == ["x", "a", "b", "c"]
    assert calls.counts == {"a": 1, "b": 2, "c": 2}
    assert history(app, "main") == main
    assert shape(history(app, "branch")) == shape([main[0], main[1], main[2], main[2], main[3]])
    assert sources(app, "branch") == ["loop", "loop", "fork", "loop", "input"]
    # Inherited entries are read in their own thread's name.
    owners = [s.config["configurable"]["thread_id"] for s in history(app, "branch")]
    assert owners == ["branch"] * 3 + ["main"] * 2
    assert store.stats("branch").events == 3


def test_a_fork_by_update_then_the_same_config(app: CompiledGraph) -> None:
    branch = on("branch", id_of(after(app, "a")))
    app.update_state(branch, {"note": "branched"})
    assert app.get_state(branch).values["note"] == "branched"
    assert app.get_state(branch).next == ("b",)
    result = app.invoke(None, branch)
    assert (result["log"], result["note"]) == (["x", "a", "b", "c"], "branched")
    # The config goes on meaning the branch where it stands: nothing is left to run.
    count = len(history(app, "branch"))
    assert app.invoke(None, branch) == result
    assert app.get_state(branch).values == result
    assert len(history(app, "branch")) == count
    assert app.invoke({"log": ["more"]}, branch)["log"] == ["x", "a", "b", "c", "more", *"abc"]
    assert "note" not in app.get_state(on("main")).values


def test_a_fork_by_a_new_input(app: CompiledGraph) -> None:
    branch = on("branch", id_of(after(app, "b")))
    assert app.invoke({"log": ["y"]}, branch)["log"] == ["x", "a", "b", "y", "a", "b", "c"]


def test_reading_a_foreign_checkpoint_makes_no_thread(
    app: CompiledGraph, store: EventStore
) -> None:
    branch = on("branch", id_of(after(app, "a")))
    assert app.get_state(branch).values["log"] == ["x", "a"]
    assert [thread.thread_id for thread in store.threads()] == ["main"]


def test_forking_a_finished_run(app: CompiledGraph) -> None:
    """There is nothing to run, and still the thread is a fork from then on."""
    branch = on("branch", id_of(app.get_state(on("main")).config))
    assert app.invoke(None, branch)["log"] == ["x", "a", "b", "c"]
    assert app.get_state(on("branch")).values["log"] == ["x", "a", "b", "c"]
    assert app.invoke({"log": ["y"]}, on("branch"))["log"] == ["x", *"abc", "y", *"abc"]


def test_a_foreign_checkpoint_on_a_thread_of_another_origin(app: CompiledGraph) -> None:
    app.invoke({}, on("other"))
    before = history(app, "other")
    foreign = on("other", id_of(after(app, "a")))
    for act in (
        lambda: app.get_state(foreign),
        lambda: app.invoke(None, foreign),
        lambda: app.invoke({"log": ["y"]}, foreign),
        lambda: app.update_state(foreign, {"note": "n"}),
    ):
        with pytest.raises(InvalidConfigError, match=r"(?s)'main'.*'other'"):
            act()
    assert history(app, "other") == before


def test_other_checkpoints_of_the_origins_thread(app: CompiledGraph) -> None:
    """Those the branch inherits can be gone back to; those behind the fork are not its own."""
    app.update_state(on("branch", id_of(after(app, "b"))), {"log": ["edit"]})
    inherited = on("branch", id_of(after(app, "a")))
    assert app.get_state(inherited).values["log"] == ["x", "a"]
    with pytest.raises(InvalidConfigError, match="was not forked from it"):
        app.invoke(None, on("branch", id_of(after(app, "c"))))
    assert app.invoke(None, inherited)["log"] == ["x", "a", "b", "c"]
    assert app.get_state(on("branch")).values["log"] == ["x", "a", "b", "c"]


def test_two_forks_of_one_checkpoint(app: CompiledGraph) -> None:
    origin = id_of(after(app, "a"))
    for name in ("one", "two"):
        app.update_state(on(name, origin), {"note": name})
    for name in ("one", "two"):
        assert app.invoke(None, on(name, origin))["note"] == name


def test_a_branch_of_a_branch_of_a_branch(app: CompiledGraph) -> None:
    parent, log = "main", ["x", "a"]
    for generation in range(6):
        name = f"branch {generation}"
        app.update_state(on(name, id_of(app.get_state(on(parent)))), {"log": [name]}, as_node="a")
        log = [*app.get_state(on(parent)).values["log"], name]
        assert app.get_state(on(name)).values["log"] == log
        parent = name
    found = history(app, parent)
    assert len(found) == 4 + 2 * 6
    ids = [snapshot.config["configurable"]["thread_id"] for snapshot in found]
    assert ids[0] == parent and ids[-4:] == ["main"] * 4
    for entry in found:
        assert app.get_state(entry.config).values == entry.values
    assert app.invoke(None, on(parent))["log"] == [*log, "b", "c"]


def test_a_fork_of_an_unfinished_run(store: EventStore, calls: Calls) -> None:
    app = steps("abc", store, calls, interrupt_before=["c"])
    app.invoke({}, on("main"))
    branch = on("branch", id_of(app.get_state(on("main")).config))
    assert app.invoke(None, branch)["log"] == ["a", "b", "c"]
    assert app.get_state(on("main")).next == ("c",)
    assert app.get_state(branch).next == ()


def test_a_fork_costs_the_same_however_long_the_history(store: EventStore) -> None:
    app = steps("abc", store)
    for i in range(30):
        app.invoke({"log": [f"{i} " + "x" * 500]}, on("main"))
    app.update_state(on("branch", id_of(app.get_state(on("main")).config)), {"note": "n"})
    assert store.stats("branch").stored_bytes < 500
    assert len(app.get_state(on("branch")).values["log"]) == 120


# --- what a fork refers to is deleted ---------------------------------------------------


@pytest.fixture(params=["no snapshots", "many snapshots"])
def weights(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "many snapshots":
        monkeypatch.setattr(graph.run.snapshots, "FLOOR", 1)
        monkeypatch.setattr(graph.run.snapshots, "EVENT_WEIGHT", 1000)
        monkeypatch.setattr(graph.read.history, "BLOCK", 3)


@pytest.mark.pairwise
@pytest.mark.slow
@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("node", ["x", "a", "b", "c"])
@pytest.mark.parametrize("runs", [1, 3])
def test_fork_survives_deletion_of_its_parent(store: EventStore, node: str, runs: int) -> None:
    app = steps("abc", store)
    for _ in range(runs):
        app.invoke({"log": ["x"]}, on("main"))
    at = next(s for s in history(app, "main") if s.values["log"][-1] == node)
    branch = on("branch", id_of(at))
    app.update_state(branch, {"note": "n"}, as_node="a")
    result = app.invoke(None, branch)
    before = history(app, "branch")
    store.delete_thread("main")
    assert app.get_state(on("main")).values == {}
    assert app.get_state(on("branch")).values == result
    now = history(app, "branch")
    assert shape(now) == shape(before)[: len(now)] and len(now) >= 4
    assert [s.config for s in now[:4]] == [s.config for s in before[:4]]
    for entry in now:
        assert app.get_state(entry.config).values == entry.values
        if entry.parent_config and entry != now[-1]:
            assert app.get_state(entry.parent_config).config == entry.parent_config
    report = app.verify(on("branch"))
    assert report.ok, report.problems
    # The origin's id goes on meaning the branch, and its past can still be gone back to.
    assert app.invoke(None, branch) == result
    assert app.invoke(None, now[3].config)["log"] == [*now[3].values["log"], *then(now[3])]


def then(snapshot: StateSnapshot) -> list[str]:
    """What a → b → c goes on to log after a checkpoint."""
    return list("abc"["abc".index(snapshot.next[0]) :]) if snapshot.next else []


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
def test_a_chain_of_branches_survives_deletions_in_any_order(store: EventStore) -> None:
    app = steps("abc", store)
    app.invoke({"log": ["x"]}, on("t0"))
    for i in range(1, 5):
        app.update_state(
            on(f"t{i}", id_of(app.get_state(on(f"t{i - 1}")).config)), {"log": [f"u{i}"]}, "a"
        )
        app.invoke(None, on(f"t{i}"))
    expected = app.get_state(on("t4")).values
    for gone in ("t2", "t0", "t3", "t1"):
        store.delete_thread(gone)
        assert app.get_state(on("t4")).values == expected
        assert app.verify(on("t4")).ok
        assert history(app, "t4")[0].values == expected
    assert [thread.thread_id for thread in store.threads()] == ["t4"]
    assert app.invoke({"log": ["y"]}, on("t4"))["log"][-4:] == ["y", "a", "b", "c"]


@pytest.mark.slow
@pytest.mark.parametrize("edited", [False, True])
def test_steps_are_counted_alike_when_the_forks_before_are_gone(
    store: EventStore, edited: bool
) -> None:
    """A branch that was forked at a fork itself keeps its source's events in a copy."""
    app = steps("abc", store)
    app.invoke({"log": ["x"]}, on("t0"))
    for number in (1, 2, 3):
        older = history(app, f"t{number - 1}")
        at = next((s for s in older if s.metadata and s.metadata["source"] == "fork"), older[2])
        if edited:
            app.update_state(on(f"t{number}", id_of(at)), {"log": ["u"]}, "a")
        app.invoke(None, on(f"t{number}", id_of(at)))
    before = [s.metadata for s in history(app, "t3")]
    assert sources(app, "t3").count("fork") == 3
    for gone in ("t1", "t0", "t2"):
        store.delete_thread(gone)
        store.delete_snapshots("t3")
        assert [s.metadata for s in history(app, "t3")] == before


def test_forking_from_a_deleted_thread(app: CompiledGraph, store: EventStore) -> None:
    origin = id_of(after(app, "a"))
    store.delete_thread("main")
    with pytest.raises((PositionNotFoundError, InvalidConfigError)):
        app.invoke(None, on("branch", origin))
    assert store.threads() == []


def test_deleting_while_a_run_is_under_way(store: EventStore) -> None:
    app = steps("abc", store)
    stream = app.stream({"log": ["x"]}, on("t"), stream_mode="updates")
    next(stream)
    store.delete_thread("t")
    with pytest.raises(ThreadNotFoundError):
        list(stream)
    assert store.threads() == []
    assert app.invoke({"log": ["new"]}, on("t"))["log"] == ["new", "a", "b", "c"]


def test_a_thread_of_another_tenant_is_not_there(store: EventStore) -> None:
    app = steps("a", store)
    app.invoke({}, on("t"))
    with EventStore(store.engine, tenant="other") as other_store:
        other: Any = steps("a", other_store)
        assert other.get_state(on("t")).values == {}
        with pytest.raises((PositionNotFoundError, InvalidConfigError)):
            other.invoke({}, on("branch", id_of(app.get_state(on("t")).config)))
        assert other_store.threads() == []


# --- snapshots beside forks -------------------------------------------------------------


@pytest.mark.parametrize("within", [True, False])
def test_a_snapshot_exactly_at_the_fork_point(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, within: bool
) -> None:
    app = steps("abc", store)
    monkeypatch.setattr(graph.run.snapshots, "FLOOR", 1)
    monkeypatch.setattr(graph.run.snapshots, "EVENT_WEIGHT", 100_000)
    app.invoke({"log": ["x"]}, on("main"))
    snapshots = store.stats("main").snapshots
    assert snapshots >= 2, "every checkpoint has one"
    monkeypatch.setattr(graph.run.snapshots, "FLOOR", 10**9)
    name = "main" if within else "branch"
    for node in "abc":
        at = after(app, node)
        config = app.update_state(on(name if within else f"{name} {node}", id_of(at)), None, "a")
        assert app.get_state(config).values == at.values
        thread_id = config["configurable"]["thread_id"]
        assert app.get_state(on(thread_id)).values == at.values
        assert app.verify(on(thread_id)).ok


def test_a_snapshot_of_a_bare_fork(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parent is in another thread; a snapshot of it must not go on saying so."""
    app = steps("abc", store)
    app.invoke({"log": ["x"]}, on("main"))
    monkeypatch.setattr(graph.run.snapshots, "FLOOR", 1)
    monkeypatch.setattr(graph.run.snapshots, "EVENT_WEIGHT", 100_000)
    app.invoke(None, on("branch", id_of(app.get_state(on("main")))))
    store.delete_thread("main")
    assert app.verify(on("branch")).problems == ()
    fork, origin = history(app, "branch")[:2]
    assert fork.parent_config == app.get_state(on("branch")).parent_config == origin.config
    assert app.get_state(origin.config).values == fork.values


def test_going_back_and_failing_at_once_with_a_snapshot_due(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fork and the first task's error are one append; no snapshot may hide the error."""
    calls = Calls()
    app = steps("ab", store, calls)
    app.invoke({"log": ["x"]}, on("main"))
    broken = steps("a", store)  # the same channels, and no node that could run next
    monkeypatch.setattr(graph.run.snapshots, "FLOOR", 1)
    monkeypatch.setattr(graph.run.snapshots, "EVENT_WEIGHT", 100_000)
    at = after(app, "a")

    def fail(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(calls, "add", fail)
    with pytest.raises(ValueError, match="b"):
        app.invoke(None, at.config)
    state = app.get_state(on("main"))
    assert [task.error for task in state.tasks] == ["ValueError('b')"]
    assert state.metadata and state.metadata["source"] == "fork"
    assert app.get_state(state.config).config == state.config
    assert app.verify(on("main")).ok
    assert broken.get_state(on("main")).next == ("b",)
