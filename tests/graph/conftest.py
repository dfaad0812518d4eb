"""Fixtures that the tests of graphs share."""

from __future__ import annotations

from typing import Any

import pytest

from graph import (
    MemorySaver,
)


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
