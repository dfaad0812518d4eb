"""Fixtures of the pytest benchmarks: logs of 200 and 1,000 turns, made once per session.

The files live in pytest's temporary folder. Everything is durable (``synchronous=FULL``), as
in ``compare``; these benchmarks are small and quick, for watching one operation at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import workloads
from benchmarks.measure import THREAD, config_of
from benchmarks.peers import PEERS, Peer, Session

LogOf = Callable[[int], tuple[Session, Any]]
T = TypeVar("T")


def in_rounds(
    benchmark: BenchmarkFixture, run: Callable[[], T], rounds: int, warmup_rounds: int = 1
) -> T:
    """Time ``run`` so many times, each alone, and return its last result."""
    pedantic: Callable[..., T] = benchmark.pedantic
    return pedantic(run, rounds=rounds, warmup_rounds=warmup_rounds)


@pytest.fixture(scope="session")
def us() -> Peer:
    """This library."""
    return PEERS["ours"]()


@pytest.fixture(scope="session")
def them() -> Peer:
    """LangGraph, where it is installed."""
    pytest.importorskip("langgraph.checkpoint.sqlite")
    return PEERS["langgraph"]()


@pytest.fixture(scope="session")
def log_of(us: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogOf]:
    """Gives a session and an app over a conversation of so many turns."""
    made: dict[int, tuple[Session, Any]] = {}
    with ExitStack() as stack:

        def give(count: int) -> tuple[Session, Any]:
            if count not in made:
                path = tmp_path_factory.mktemp(f"chat{count}") / "state.db"
                session = stack.enter_context(us.session(str(path)))
                turns = workloads.chat_turns(count)
                app = session.compile(workloads.chat_graph(us, turns))
                for turn in turns:
                    app.invoke({"messages": [turn.question]}, config_of(THREAD))
                made[count] = session, app
            return made[count]

        yield give
