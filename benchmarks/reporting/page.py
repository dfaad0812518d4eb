"""The table of figures in a Markdown page, between the markers of a backend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.reporting.figures import Figure, by_workload, digits

BEGIN: Final = "<!-- results: {} -->"
END: Final = "<!-- end of results -->"


def put_into(page: Path, key: str, figures: Sequence[Figure], facts: dict[str, Any]) -> None:
    """Write the table between the markers of a backend.

    Raises:
        ValueError: the page does not have these markers.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN.format(key))
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page.name} needs a line {BEGIN.format(key)} followed by a line {END}")
    lines = "\n".join([*_markdown(by_workload(figures)), "", _summary(figures, facts)])
    page.write_text(f"{before}{begin}\n{lines}\n{end}{after}")


def _markdown(figures: Iterable[Figure]) -> list[str]:
    lines = [
        "| workload | measure | against | ours | theirs | ratio | min–max | aim | met |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for figure in figures:
        ratios = figure.ratios()
        ratio = spread = aim = ""
        if ratios:
            which = "theirs / ours" if figure.gain else "ours / theirs"
            ratio = f"{digits(median(ratios))} ({which})"
            one = len(ratios) == 1
            spread = "one run" if one else f"{digits(min(ratios))}–{digits(max(ratios))}"
        if figure.aim is not None:
            aim = f"{'≥' if figure.gain else '≤'} {digits(figure.aim)}"
        cells = (
            figure.workload,
            figure.measure,
            figure.against,
            _amount(figure.ours, figure.unit),
            _amount(figure.other, figure.unit) if figure.other else "–",
            ratio,
            spread,
            aim,
            {True: "yes", False: "no", None: ""}[figure.met()],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _amount(values: Sequence[float], unit: str) -> str:
    return f"{digits(median(values))} {unit}".rstrip()


def _summary(figures: Sequence[Figure], facts: dict[str, Any]) -> str:
    met = [figure.met() for figure in figures]
    listed = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
    return f"{met.count(True)} aims met, {met.count(False)} missed. Measured with {listed}."
