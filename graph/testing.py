"""For tests of applications: recorded runs as a safety net for changes of the code.

::

    def test_yesterdays_runs_still_make_sense():
        with SqliteSaver("tests/recorded.db") as saver:
            assert_replays(make_graph().compile(checkpointer=saver))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eventstore import EventStore
from graph.errors import InvalidConfigError

if TYPE_CHECKING:
    from graph.app import CompiledGraph
    from graph.read.replay_check import Same

__all__ = ["assert_replays", "recorded_threads"]

PAGE = 1_000


def recorded_threads(app: CompiledGraph) -> list[str]:
    """The ids of all threads that the graph's checkpointer holds, for parametrizing tests.

    Raises:
        InvalidConfigError: the graph has no checkpointer that can be used by blocking.
    """
    store = getattr(app.checkpointer, "store", app.checkpointer)
    if not isinstance(store, EventStore):
        raise InvalidConfigError(
            "recorded_threads() needs a graph compiled with a synchronous checkpointer"
        )
    found = store.threads(limit=PAGE)
    ids = [info.thread_id for info in found]
    while len(found) == PAGE:
        found = store.threads(limit=PAGE, after=found[-1])
        ids += [info.thread_id for info in found]
    return sorted(ids)


def assert_replays(
    app: CompiledGraph,
    thread_ids: Sequence[str] | None = None,
    *,
    nodes: Sequence[str] | None = None,
    same: Same | None = None,
    context: Any = None,
) -> int:
    """Fail unless the code of today would have written what these threads have recorded.

    See :meth:`CompiledGraph.check_replay`: nothing is written, and the nodes are called.

    Args:
        thread_ids: by default all that the checkpointer holds.

    Returns:
        How many recorded events were compared.

    Raises:
        AssertionError: names each thread's first event that differs.
        InvalidConfigError: there is no thread to replay.
    """
    wanted = recorded_threads(app) if thread_ids is None else list(thread_ids)
    if not wanted:
        raise InvalidConfigError("there is no recorded thread to replay: nothing was compared")
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
