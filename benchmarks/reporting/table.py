"""The table of figures in a terminal, with ratios as people say them and aims beside them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.table import Table

from benchmarks.reporting.figures import Figure, by_workload, digits


def table(figures: Sequence[Figure], title: str) -> Table:
    """One row per figure."""
    result = Table(title=f"This library beside {title}, and beside the limits")
    result.add_column("workload and measure")
    result.add_column("against")
    for heading in ("ours", "theirs", "ratio", "spread", "aim"):
        result.add_column(heading, justify="right")
    result.add_column("met")
    last = ""
    for figure in by_workload(figures):
        if figure.workload != last:
            result.add_section()
            result.add_row(f"[bold]{figure.workload}[/bold]")
            last = figure.workload
        result.add_row(
            f"  {figure.measure}",
            figure.against,
            _amount(figure.ours, figure.unit),
            _amount(figure.other, figure.unit) if figure.other else "–",
            _ratio(figure),
            _spread(figure),
            _aim(figure),
            {True: "[green]yes[/green]", False: "[red]no[/red]", None: ""}[figure.met()],
        )
    return result


def _amount(values: Sequence[float], unit: str) -> str:
    value = median(values)
    if unit == "us/event":
        return f"{1e6 / value:,.0f} events/s"
    return f"{digits(value)} {unit}".rstrip()


def _shown(figure: Figure) -> tuple[list[float], str]:
    """The ratios in the direction that reads best, and the words after the number."""
    ratios, ratio = figure.ratios(), figure.ratio()
    if ratio is None:
        return [], ""
    if figure.unit == "us/event":
        return [1 / each for each in ratios], "× the speed"
    if not figure.gain:
        return ratios, "× as much"
    if ratio < 1:
        return [1 / each for each in ratios], "× more"
    return ratios, "× less"


def _ratio(figure: Figure) -> str:
    ratios, unit = _shown(figure)
    return f"{digits(median(ratios))}{unit}" if ratios else ""


def _spread(figure: Figure) -> str:
    ratios, _ = _shown(figure)
    return f"{digits(min(ratios))}–{digits(max(ratios))}" if len(ratios) > 1 else ""


def _aim(figure: Figure) -> str:
    if figure.aim is None:
        return ""
    if figure.unit == "us/event":  # shown as a speed, so the greatest cost is the least speed
        return f"≥ {1 / figure.aim:,g}×"
    return f"{'≥' if figure.gain else '≤'} {figure.aim:,g}×"
