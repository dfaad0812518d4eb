"""`kill -9` of processes that run graphs, beside others on the same threads."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.effort import effort
from tests.graph import torture

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here"),
    pytest.mark.slow,
    pytest.mark.every_backend,
]


def test_many_kills(store_url: str, tmp_path: Path) -> None:
    if store_url == "sqlite://":
        pytest.skip("no other process can use a database in memory")
    kills = int(os.environ.get("TORTURE_KILLS", effort("10", "100")))
    urls: Iterator[str] = iter([store_url])
    if not store_url.startswith("postgresql"):
        urls = (f"sqlite:///{tmp_path / f'{number}.db'}" for number in range(kills))
    kills = min(kills, torture.KILLS_PER_STORE) if store_url.startswith("postgresql") else kills
    seed = int(os.environ.get("TORTURE_SEED", "1"))
    summary = torture.torture(urls, tmp_path, kills, seed)
    assert summary.kills == kills
    assert summary.acknowledged > kills
    assert summary.finished > 0
