"""What a process remembers of threads changes no answer, whatever another process did to them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eventstore import EventStore, EventStoreError
from graph import CompiledGraph
from graph.errors import GraphError
from tests.conftest import BACKENDS
from tests.graph.kit import id_of, on
from tests.graph.test_recent import add, noting

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
