"""``StateGraph``: declare a graph, and compile it to one that runs.

Joins the two halves: the declaration (``build``) knows nothing of running, and the compiled graph
(``app``) nothing of how it was declared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from graph.app import CompiledGraph
from graph.build.builder import GraphBuilder
from graph.build.topology import Topology, check_known

Interrupts = Literal["*"] | str | Sequence[str] | None


class StateGraph(GraphBuilder):
    """A graph whose nodes read a shared state and return updates to it.

    Example::

        class State(TypedDict):
            total: Annotated[int, operator.add]


        graph = StateGraph(State)
        graph.add_node("count", lambda state: {"total": 1})
        graph.add_edge(START, "count")
        app = graph.compile()
        app.invoke({"total": 1})  # {"total": 2}
    """

    def compile(
        self,
        checkpointer: Any = None,
        *,
        interrupt_before: Interrupts = None,
        interrupt_after: Interrupts = None,
        name: str | None = None,
        version: str | None = None,
        debug: bool = False,
        snapshot_each_run: bool = False,
    ) -> CompiledGraph:
        """Check the graph and make it runnable.

        Args:
            checkpointer: keeps the threads; without one a run leaves nothing behind. Of a graph
                inside another one: ``None`` begins afresh at each call and can stop and go on
                within it, ``True`` remembers from call to call within the thread, ``False``
                keeps no log of its own.
            interrupt_before: nodes (or ``"*"``) before which a run stops for a person.
            interrupt_after: nodes (or ``"*"``) after which it stops.
            name: names the graph in drawings and where it is a node of another.
            version: part of what snapshots are checked against: after a change they are folded
                afresh.
            debug: accepted for compatibility; ``stream_mode="debug"`` shows the same.
            snapshot_each_run: a run that comes to its end stores a snapshot with its last event, so
                that history can be trimmed up to there. It costs what the state takes, compressed,
                for each run; of lists that only grow only what was added.
        """
        topology = self.topology()
        return CompiledGraph(
            topology,
            checkpointer=checkpointer,
            interrupt_before=_interrupts(topology, "interrupt_before", interrupt_before),
            interrupt_after=_interrupts(topology, "interrupt_after", interrupt_after),
            name=name,
            version=version,
            snapshot_each_run=snapshot_each_run,
        )


def _interrupts(topology: Topology, argument: str, names: Interrupts) -> tuple[str, ...]:
    wanted = (names,) if isinstance(names, str) else tuple(names or ())
    if "*" in wanted:
        return tuple(topology.nodes)
    for name in wanted:
        check_known(topology, name, f"{argument} names")
    return wanted
