"""What every measurement needs: a backend, its databases, where figures go, and the scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from benchmarks.backends.backend import Backend, Database, Workspace
from benchmarks.peers.peer import Pair, Peer
from benchmarks.reporting.figures import Figures, Unit
from benchmarks.workloads.document import DOCUMENT_RUNS, DOCUMENT_STEPS
from benchmarks.workloads.fanout import FANOUT_RUNS
from benchmarks.workloads.pipeline import PIPELINE_THREADS


@dataclass(frozen=True)
class Scale:
    """How much is done for one figure; smaller in a test of the benchmarks."""

    warm_up_turns: int = 40
    loads: int = 15
    forks: int = 5
    memory: bool = True
    threads: int = PIPELINE_THREADS
    documents: int = DOCUMENT_RUNS
    steps: int = DOCUMENT_STEPS
    fanouts: int = FANOUT_RUNS
    appends: int = 200


@dataclass(frozen=True)
class Bench:
    """What every measurement needs.

    Attributes:
        workspace: the databases of this measurement, one per peer.
        progress: called with a line of text about the current work.
    """

    backend: Backend
    workspace: Workspace
    figures: Figures
    progress: Callable[[str], None]
    scale: Scale = Scale()

    @property
    def ours(self) -> Peer:
        """This library, in the first pair."""
        return self.backend.pairs[0].ours

    @property
    def both(self) -> tuple[Peer, Peer]:
        """The first pair, which is compared in every measure."""
        return self.ours, self.backend.pairs[0].other

    @property
    def peers(self) -> list[Peer]:
        """The peers that are compared in every workload, each once."""
        return _each_once(pair for pair in self.backend.pairs if not pair.only_turns)

    @property
    def talking(self) -> list[Peer]:
        """The peers whose turns of a chat are compared, each once."""
        return _each_once(self.backend.pairs)

    def workload_name(self, workload: str) -> str:
        """A workload's name in figures, with the variant of the backend."""
        return workload + self.backend.variant

    def database(self, peer: Peer) -> Database:
        """The database of a peer."""
        return self.workspace.database(peer.key)

    def compare(
        self,
        workload: str,
        measure: str,
        unit: Unit,
        values: Mapping[Peer, float],
        *,
        gain: bool = True,
        note: str = "",
    ) -> None:
        """Add one round's values to the figure of each pair that has some."""
        first = self.backend.pairs[0]
        for pair in self.backend.pairs:
            if pair.ours in values and (pair.other in values or pair is first):
                self.figures.add(
                    workload,
                    measure + pair.suffix,
                    unit,
                    values[pair.ours],
                    values.get(pair.other),
                    pair.other.name,
                    gain=gain and pair.gain,
                    note=note,
                )


def _each_once(pairs: Iterable[Pair]) -> list[Peer]:
    return list(dict.fromkeys(peer for pair in pairs for peer in (pair.ours, pair.other)))
