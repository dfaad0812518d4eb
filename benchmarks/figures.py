"""What a figure is: one quantity of ours beside another's, a value per round, and its aim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from statistics import median
from typing import Final, Literal

Unit = Literal["ms", "KiB", "MiB", "us/event", ""]

AIMS: Final[dict[str, tuple[tuple[str, str, str, float], ...]]] = {
    "sqlite": (
        ("chat, 200 turns", "wall time per turn", "LangGraph", 3),
        ("chat, 1,000 turns", "wall time per turn", "LangGraph", 5),
        ("chat, 200 turns", "bytes on disk per turn", "LangGraph", 300),
        ("chat, 1,000 turns", "bytes on disk per turn", "LangGraph", 1_500),
        ("chat, *", "load of the latest state*", "LangGraph", 2),
        ("chat, 200 turns", "full history", "LangGraph", 50),
        ("chat, 200 turns", "full history: *", "LangGraph", 5),
        ("chat, *", "replay: read, verify, decode, fold", "bare zstd + msgpack", 2),
        ("chat, 200 turns", "delete the thread", "LangGraph", 100),
        ("chat, 1,000 turns", "delete the thread", "LangGraph", 100),
        ("pipeline, *", "wall time per superstep", "LangGraph", 4),
        ("pipeline, *", "wall time per superstep", "bare sqlite3", 2.5),
        ("pipeline, *", "bytes on disk per superstep", "LangGraph", 6),
        ("document, *", "wall time per step", "LangGraph", 5),
        ("document, *", "wall time per step", "bare sqlite3", 2.5),
        ("document, *", "bytes on disk per step", "LangGraph", 50),
        ("fan-out *", "wall time per run", "LangGraph", 5),
        ("fan-out *", "wall time per run", "bare sqlite3", 2.5),
        ("log alone", "append of one event", "bare sqlite3", 2.5),
        ("*", "wall time per *, async", "this library", 2),
    ),
    "postgres": (
        ("chat, 200 turns*", "wall time per turn", "LangGraph", 5),
        ("chat, 1,000 turns*", "wall time per turn", "LangGraph", 8),
        ("chat, 200 turns*", "bytes on disk per turn", "LangGraph", 90),
        ("chat, 200 turns*", "bytes of WAL per turn", "LangGraph", 80),
        ("chat, 200 turns*", "full history", "LangGraph", 30),
        ("pipeline, *", "wall time per superstep", "LangGraph", 5),
    ),
}
"""What was promised, per backend: workload and measure (as patterns), against whom, the ratio."""


def aim(backend: str, workload: str, measure: str, against: str) -> float | None:
    """What the ratio should reach, or stay below; ``None`` where nothing was promised."""
    for its_workload, its_measure, its_against, ratio in AIMS[backend]:
        if (
            its_against == against
            and fnmatchcase(workload, its_workload)
            and fnmatchcase(measure, its_measure)
        ):
            return ratio
    return None


@dataclass
class Figure:
    """One quantity of ours beside another's, a value per round.

    Attributes:
        workload: e.g. ``chat, 200 turns``.
        measure: what was measured.
        against: ``LangGraph``, or the name of a limit.
        aim: what the ratio should reach (``less``) or stay below; ``None`` where nothing was
            promised.
        less: whether the ratio says how much less ours is (other / ours), as beside LangGraph,
            or how much more (ours / other), as beside a limit.
        note: what a reader must know to judge it.
    """

    workload: str
    measure: str
    unit: Unit
    against: str
    aim: float | None = None
    less: bool = True
    note: str = ""
    ours: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """The ratio of each round."""
        pairs = zip(self.other, self.ours, strict=True) if self.other else ()
        return [(a / b) if self.less else (b / a) for a, b in pairs if a and b]

    def ratio(self) -> float | None:
        """The median ratio."""
        ratios = self.ratios()
        return median(ratios) if ratios else None

    def met(self) -> bool | None:
        """Whether the aim is met; ``None`` when there is none or it was not measured."""
        ratio = self.ratio()
        if self.aim is None or ratio is None:
            return None
        return ratio >= self.aim if self.less else ratio <= self.aim


class Figures:
    """All figures of a run on one backend, in the order in which they first appeared."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._figures: dict[tuple[str, str, str], Figure] = {}

    def __iter__(self) -> Iterator[Figure]:
        return iter(self._figures.values())

    def add(
        self,
        workload: str,
        measure: str,
        unit: Unit,
        ours: float,
        other: float | None,
        against: str,
        *,
        less: bool = True,
        note: str = "",
    ) -> None:
        """One round's values of a figure."""
        figure = self._figures.get((workload, measure, against))
        if figure is None:
            promised = aim(self.backend, workload, measure, against)
            figure = Figure(workload, measure, unit, against, promised, less, note)
            self._figures[workload, measure, against] = figure
        figure.ours.append(ours)
        if other is not None:
            figure.other.append(other)
