"""A figure: one quantity of ours beside another's, with a value per round and an aim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from benchmarks.reporting.aims import find_aim

Unit = Literal["ms", "KiB", "MiB", "us/event", ""]


@dataclass
class Figure:
    """One quantity of ours beside another's, with a value per round.

    Attributes:
        workload: e.g. ``chat, 200 turns``.
        measure: e.g. ``wall time per turn``.
        against: ``LangGraph``, or the name of a limit.
        aim: the least ratio that was promised (with ``gain``) or the greatest (without);
            ``None`` where nothing was promised.
        gain: whether the ratio says how much less ours costs (other / ours), as beside
            LangGraph, or how much more (ours / other), as beside a limit.
        note: what a reader must know to judge it.
    """

    workload: str
    measure: str
    unit: Unit
    against: str
    aim: float | None = None
    gain: bool = True
    note: str = ""
    ours: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """The ratio of each round."""
        pairs = zip(self.other, self.ours, strict=True) if self.other else ()
        return [(a / b) if self.gain else (b / a) for a, b in pairs if a and b]

    def ratio(self) -> float | None:
        """The median ratio."""
        ratios = self.ratios()
        return median(ratios) if ratios else None

    def met(self) -> bool | None:
        """Whether the aim is met; ``None`` when there is no aim or no ratio."""
        ratio = self.ratio()
        if self.aim is None or ratio is None:
            return None
        return ratio >= self.aim if self.gain else ratio <= self.aim


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
        gain: bool = True,
        note: str = "",
    ) -> None:
        """Add one round's values to a figure."""
        figure = self._figures.get((workload, measure, against))
        if figure is None:
            aim = find_aim(self.backend, workload, measure, against)
            figure = Figure(workload, measure, unit, against, aim, gain, note)
            self._figures[workload, measure, against] = figure
        figure.ours.append(ours)
        if other is not None:
            figure.other.append(other)


def by_workload(figures: Sequence[Figure]) -> list[Figure]:
    """Put the figures of one workload together; workloads keep their order."""
    groups: dict[str, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.workload, []).append(figure)
    return [figure for group in groups.values() for figure in group]


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
