"""What a process remembers of threads changes no answer, whatever another process did to them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from eventstore import EventStore
from tests.conftest import BACKENDS
from tests.graph.kit import on
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
