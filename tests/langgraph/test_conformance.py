"""LangGraph's own conformance suite, over both savers: every capability, every test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver

from graph.langgraph import AsyncEventStoreSaver, EventStoreSaver

conformance = pytest.importorskip("langgraph.checkpoint.conformance")

pytestmark = pytest.mark.every_backend


@pytest.mark.slow
def test_savers_conform(store: str, store_url: str) -> None:
    if store == "async" and store_url == "sqlite://":
        url = "sqlite:///:memory:"
    else:
        url = store_url

    @conformance.checkpointer_test(name="event store")  # type: ignore[untyped-decorator]
    async def opened() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        if store == "async":
            async with AsyncEventStoreSaver(url) as saver:
                yield saver
        else:
            with EventStoreSaver(url) as saver:
                yield saver

    report = asyncio.run(conformance.validate(opened))

    assert {name for name, each in report.results.items() if not each.detected} == set()
    failures = {name: each.failures for name, each in report.results.items() if each.failures}
    assert failures == {}
    assert sum(each.tests_passed for each in report.results.values()) >= 81
