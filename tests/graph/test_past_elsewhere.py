"""What a process remembers of threads changes no answer, whatever another process did to them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graph.read.history
import graph.run.snapshots
from eventstore import EventStore, EventStoreError
from graph import CompiledGraph
from graph.errors import GraphError
from retention.archives.archive import Archive
from retention.archives.moving import archive_and_prune, restore
from retention.erasing import erase
from tests.conftest import BACKENDS
from tests.effort import effort
from tests.eventstore.support import seal_now
from tests.graph.kit import id_of, on
from tests.graph.test_recent import add, noting

NAMES: Final = ("a", "b", "c")
STEPS: Final = (
    *["read"] * 6,
    *["run", "run", "run", "back", "edit", "fork"],
    *["trim", "trim", "seal", "forget", "rebuild", "delete", "erase", "archive", "restore"],
)
_tenants = itertools.count()


@pytest.fixture(scope="module", params=["sqlite-file", "postgresql"])
def shared_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A database that several stores open, each as another process would."""
    with BACKENDS[request.param](tmp_path_factory.mktemp("shared")) as url:
        yield url


@pytest.fixture
def stores(shared_url: str) -> Iterator[list[EventStore]]:
    tenant = f"of test {next(_tenants)}"
    with EventStore(shared_url, tenant=tenant) as one, EventStore(shared_url, tenant=tenant) as two:
        yield [one, two]


def told(read: Callable[[], Any]) -> Any:
    """What is answered, or which error it is."""
    try:
        return read()
    except (GraphError, EventStoreError) as error:
        return type(error)


def state(app: CompiledGraph, thread_id: str, checkpoint: str | None) -> Any:
    return told(lambda: app.get_state(on(thread_id, checkpoint)))


def history(app: CompiledGraph, thread_id: str, every: bool = True) -> Any:
    return told(lambda: list(app.get_state_history(on(thread_id), every=every)))


def without_memory(store: EventStore) -> CompiledGraph:
    """The graph in a store that remembers nothing."""
    core = store.core
    for each in (core.cache, core.past, core.ends, core.bodies):
        each.renew()
    core.generations.clear()
    return noting(store, add)


def test_the_end_of_a_thread_that_was_trimmed_to_it_has_no_parent(stores: list[EventStore]) -> None:
    app, other = [noting(each, add, snapshot_each_run=True) for each in stores]
    app.invoke({"items": [{"in": 1}]}, on("t"))
    before = app.get_state(on("t"))
    assert before.parent_config is not None
    assert stores[1].trim("t", stores[1].trim_points("t")[-1].seq).base == 2
    for _ in range(2):
        assert app.get_state(on("t")) == before._replace(parent_config=None)
    app.invoke({"items": [{"in": 2}]}, on("t"))
    assert app.get_state(on("t")) == other.get_state(on("t"))


def test_the_first_checkpoint_that_a_fork_was_given_has_no_parent(
    stores: list[EventStore],
) -> None:
    app = noting(stores[0], add, snapshot_each_run=True)
    for number in range(2):
        app.invoke({"items": [{"in": number}]}, on("t"))
    app.invoke({"items": [{"in": 2}]}, on("fork", id_of(app.get_state(on("t")))))
    stores[0].trim("t", 2)
    stores[0].delete_thread("t")
    found = history(app, "fork")
    assert found[-1].parent_config is None
    for newer, older in itertools.pairwise(found):
        assert newer.parent_config == older.config
        assert app.get_state(newer.parent_config).values == older.values


def test_a_thread_that_is_gone_is_not_named(stores: list[EventStore]) -> None:
    app = noting(stores[0], add, snapshot_each_run=True)
    app.invoke({"items": [{"in": 1}]}, on("t"))
    there = app.get_state(on("t"))
    app.invoke(None, on("fork", id_of(there)))
    app.rebuild(on("fork"))
    assert stores[0].trim("fork", 1).base == 1
    assert app.get_state(on("fork")).parent_config == there.config
    stores[1].delete_thread("t")
    expected = without_memory(stores[1]).get_state(on("fork"))
    assert "'t'" not in str(expected)
    assert app.get_state(on("fork")) == expected
    assert history(app, "fork") == [expected]


@pytest.mark.slow
@settings(max_examples=effort(3, 1_000))
@given(data=st.data())
def test_memory_changes_no_answer_whatever_becomes_of_threads(
    shared_url: str, data: st.DataObject
) -> None:
    """Two stores remember what they did and read; a third, without memory, says what is right."""
    tenant, archive = f"of test {next(_tenants)}", Archive("memory:///")
    with (
        EventStore(shared_url, tenant=tenant) as one,
        EventStore(shared_url, tenant=tenant) as other,
        EventStore(shared_url, tenant=tenant) as fresh,
        patch.multiple(graph.run.snapshots, FLOOR=300, EVENT_WEIGHT=60),
        patch.object(graph.read.history, "BLOCK", 5),
    ):
        both = [
            (each, noting(each, add, snapshot_each_run=often, reuse_state=each is other))
            for each in (one, other)
            for often in [data.draw(st.booleans())]
        ]
        seen: list[str] = []
        for step in range(data.draw(st.integers(6, effort(25, 60)))):
            store, app = data.draw(st.sampled_from(both))
            name, what = data.draw(st.sampled_from(NAMES)), data.draw(st.sampled_from(STEPS))
            place = on(name, data.draw(st.sampled_from(seen)) if seen else None)
            with suppress(GraphError, EventStoreError):
                match what:
                    case "run":
                        app.invoke({"items": [{"in": step}]}, on(name))
                    case "back":
                        app.invoke({"items": [{"back": step}]}, place)
                    case "fork":
                        app.invoke(None, place)
                    case "edit":
                        app.update_state(place, {"last": {"edited": step}}, as_node="n0")
                    case "trim":
                        points = store.trim_points(name)
                        if points:
                            store.trim(name, data.draw(st.sampled_from(points)).seq)
                    case "seal":
                        seal_now(store, name)
                    case "forget":
                        store.delete_snapshots(name)
                    case "rebuild":
                        app.rebuild(on(name))
                    case "delete":
                        store.delete_thread(name)
                    case "erase":
                        erase(store, "asked", "him", thread_id=name, forks="keep", vacuum=False)
                    case "archive":
                        archive_and_prune(store, archive, name, "old")
                    case "restore":
                        restore(store, archive, name)
            if what == "read":
                every, at = data.draw(st.booleans()), place["configurable"].get("checkpoint_id")
                assert history(app, name, every) == history(without_memory(fresh), name, every)
                for _ in range(2):
                    assert state(app, name, at) == state(without_memory(fresh), name, at)
            assert state(app, name, None) == state(without_memory(fresh), name, None)
            recorded = history(without_memory(fresh), name)
            if isinstance(recorded, list):
                seen += [each for each in map(id_of, recorded) if each not in seen]
        for name, checkpoint in itertools.product(NAMES, [None, *seen]):
            right = state(without_memory(fresh), name, checkpoint)
            assert [state(app, name, checkpoint) for _, app in both] == [right, right]
