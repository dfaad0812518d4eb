"""Helpers for an application's tests: check changed code against recorded runs.

::

    def test_recorded_runs_replay():
        with SqliteSaver("tests/recorded.db") as saver:
            assert_replays(make_graph().compile(checkpointer=saver))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from eventstore import EventStore
from eventstore.concurrency import run_sync
from graph.app import CompiledGraph
from graph.errors import InvalidConfigError
from graph.read.replay_check import Same

__all__ = ["assert_replays", "recorded_threads"]

PAGE: Final = 1_000


def recorded_threads(app: CompiledGraph) -> list[str]:
    """The ids of all threads in the graph's checkpointer, for parametrized tests.

    Raises:
        InvalidConfigError: the graph has no synchronous checkpointer.
    """
    store = getattr(app.checkpointer, "store", app.checkpointer)
    if not isinstance(store, EventStore):
        raise InvalidConfigError(
            "recorded_threads() requires a graph compiled with a synchronous checkpointer"
        )
    ids: list[str] = []
    after = None
    while page := run_sync(store.core.scan(limit=PAGE, after=after)):
        ids += [info.thread_id for info in page]
        after = page[-1].thread_key
    return sorted(ids)


def assert_replays(
    app: CompiledGraph,
    thread_ids: Sequence[str] | None = None,
    *,
    nodes: Sequence[str] | None = None,
    same: Same | None = None,
    context: Any = None,
) -> int:
    """Check that the current code would write exactly what these threads have recorded.

    See :meth:`CompiledGraph.check_replay`: the nodes are called, and nothing is written.

    Args:
        thread_ids: by default all threads of the checkpointer.

    Returns:
        The number of recorded events compared.

    Raises:
        AssertionError: names the first differing event of each thread.
        InvalidConfigError: there is no thread to replay.
    """
    wanted = recorded_threads(app) if thread_ids is None else list(thread_ids)
    if not wanted:
        raise InvalidConfigError("there is no recorded thread to replay, so nothing was compared")
    reports = [
        app.check_replay(
            {"configurable": {"thread_id": thread_id}}, nodes=nodes, same=same, context=context
        )
        for thread_id in wanted
    ]
    problems = [str(report.mismatch) for report in reports if report.mismatch is not None]
    if problems:
        raise AssertionError("\n".join(problems))
    return sum(report.events for report in reports)
