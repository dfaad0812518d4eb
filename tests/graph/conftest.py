"""Fixtures that the tests of graphs share."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from graph import (
    MemorySaver,
)


@pytest.fixture
def without_langchain(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program that has not imported langchain-core: messages are shown as dicts."""
    monkeypatch.delitem(sys.modules, "langchain_core.messages", raising=False)


@pytest.fixture(params=["without a checkpointer", "with one"])
def kept(request: pytest.FixtureRequest) -> bool:
    """What a run does must not depend on whether it is recorded."""
    return bool(request.param == "with one")


@pytest.fixture(params=["without a checkpointer", "with one"])
def checkpointer(request: pytest.FixtureRequest) -> Any:
    """What a run does must not depend on whether it is recorded."""
    if request.param == "with one":
        with MemorySaver() as saver:
            yield saver
    else:
        yield None
