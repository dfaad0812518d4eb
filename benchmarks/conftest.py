"""Fixtures of the pytest benchmarks: logs of 200 and 1,000 turns, written once per session.

These benchmarks are small and quick, and each measures one operation. The files are in pytest's
temporary folder and are written durably (``synchronous=FULL``), as in ``compare``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measuring.timing import THREAD, config_of
from benchmarks.peers.peer import Peer, Session
from benchmarks.peers.registry import find_peer
from benchmarks.workloads.chat import chat_graph, chat_turns

LogOf = Callable[[int], tuple[Session, Any]]
T = TypeVar("T")


def in_rounds(
    benchmark: BenchmarkFixture, run: Callable[[], T], rounds: int, warmup_rounds: int = 1
) -> T:
    """Time each of that many calls of ``run``; returns the result of the last one."""
    pedantic: Callable[..., T] = benchmark.pedantic
    return pedantic(run, rounds=rounds, warmup_rounds=warmup_rounds)


@pytest.fixture(scope="session")
def ours() -> Peer:
    """This library."""
    return find_peer("ours")


@pytest.fixture(scope="session")
def theirs() -> Peer:
    """LangGraph, where it is installed."""
    pytest.importorskip("langgraph.checkpoint.sqlite")
    return find_peer("langgraph")


@pytest.fixture(scope="session")
def log_of(ours: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogOf]:
    """A function that gives a session and an app with a conversation of so many turns."""
    made: dict[int, tuple[Session, Any]] = {}
    with ExitStack() as stack:

        def give(count: int) -> tuple[Session, Any]:
            if count not in made:
                path = tmp_path_factory.mktemp(f"chat{count}") / "state.db"
                session = stack.enter_context(ours.session(str(path)))
                turns = chat_turns(count)
                app = session.compile(chat_graph(ours, turns))
                for turn in turns:
                    app.invoke({"messages": [turn.question]}, config_of(THREAD))
                made[count] = session, app
            return made[count]

        yield give
