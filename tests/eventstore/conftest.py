"""Fixtures that the tests of the store share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from eventstore import (
    EventStore,
)


@pytest.fixture
def clock(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Moves the time of the store; it stands still otherwise."""
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def move(by: timedelta) -> None:
        nonlocal now
        now += by

    monkeypatch.setattr(store.core, "_clock", lambda: now)
    return move
