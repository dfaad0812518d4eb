"""``StateGraph``: declare a graph, and compile it to one that runs.

Joins the two halves: ``build`` declares graphs and does not run them; ``app`` runs them and does
not know how they were declared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from graph.app import CompiledGraph
from graph.build.builder import GraphBuilder
from graph.build.options import refuse
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
        reuse_state: bool = False,
        cancel_siblings: bool = False,
        **others: Any,
    ) -> CompiledGraph:
        """Check the graph and make it runnable.

        Args:
            checkpointer: stores the threads; without one a run leaves nothing behind. For a
                subgraph: ``None`` gives each call a state of its own, in which it can be
                interrupted and resumed; ``True`` keeps the state from call to call within the
                thread; ``False`` writes no log.
            interrupt_before: nodes (or ``"*"``) before which a run pauses.
            interrupt_after: nodes (or ``"*"``) after which it pauses.
            name: names the graph in drawings and where it is a node of another.
            version: part of the fingerprint of snapshots; after a change they are folded again.
            debug: accepted for compatibility; ``stream_mode="debug"`` shows the same.
            snapshot_each_run: store a snapshot with the last event of a run, so that history can
                be trimmed up to there. It costs the compressed size of the state for each run; for
                append-only lists only the new items.
            reuse_state: a promise that nodes, edges, reducers and the callers of ``invoke`` and
                ``stream`` never change in place what they are given. Then a process that runs a
                thread again goes on with the objects of its last run, and a run costs what is new,
                not the length of the state. A promise that is broken is found now and then, with a
                warning; the log never has the change.
            cancel_siblings: when a node fails, cancel the async nodes that run beside it, as
                LangGraph does. By default they finish and are recorded, so that nothing is lost.
            others: options of LangGraph that are left out (``store``, ``cache``, …); only ``None``
                is accepted.
        """
        refuse("compile()", others)
        topology = self.topology()
        compiled = CompiledGraph(
            topology,
            checkpointer=checkpointer,
            interrupt_before=_interrupts(topology, "interrupt_before", interrupt_before),
            interrupt_after=_interrupts(topology, "interrupt_after", interrupt_after),
            name=name,
            version=version,
            snapshot_each_run=snapshot_each_run,
            reuse_state=reuse_state,
            cancel_siblings=cancel_siblings,
        )
        compiled.builder = self
        return compiled


def _interrupts(topology: Topology, argument: str, names: Interrupts) -> tuple[str, ...]:
    wanted = (names,) if isinstance(names, str) else tuple(names or ())
    if "*" in wanted:
        return tuple(topology.nodes)
    for name in wanted:
        check_known(topology, name, f"{argument} names")
    return wanted
