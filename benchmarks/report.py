"""What is reported of figures: a table for the terminal, one for a page, plain data, a plot."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.table import Table

from benchmarks.figures import Figure

CHAT: Final = re.compile(r"chat, ([\d,]+) turns(?:, (\w+))?")
BEGIN: Final = "<!-- results: {} -->"
END: Final = "<!-- end of results -->"


def table(figures: Sequence[Figure], title: str) -> Table:
    """Ratios, with the aims beside them."""
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


def by_workload(figures: Sequence[Figure]) -> list[Figure]:
    """Figures of one workload together, in the order in which workloads first appeared."""
    groups: dict[str, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.workload, []).append(figure)
    return [figure for group in groups.values() for figure in group]


def _amount(values: Sequence[float], unit: str) -> str:
    value = median(values)
    if unit == "us/event":
        return f"{1e6 / value:,.0f} events/s"
    return f"{digits(value)} {unit}".rstrip()


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _shown(figure: Figure) -> tuple[list[float], str]:
    """The ratios as people say them, and what to say after the number."""
    ratios, ratio = figure.ratios(), figure.ratio()
    if ratio is None:
        return [], ""
    if figure.unit == "us/event":
        return [1 / each for each in ratios], "× the speed"
    if not figure.less:
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
    if figure.unit == "us/event":  # shown as a speed: as slow at most is as fast at least
        return f"≥ {1 / figure.aim:,g}×"
    return f"{'≥' if figure.less else '≤'} {figure.aim:,g}×"


def as_data(figures: Sequence[Figure], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything measured, as plain data."""
    return {
        "environment": facts,
        "figures": [
            {
                "workload": figure.workload,
                "measure": figure.measure,
                "unit": figure.unit,
                "against": figure.against,
                "ours": figure.ours,
                "other": figure.other,
                "ratios": figure.ratios(),
                "ratio_is": "other / ours" if figure.less else "ours / other",
                "aim": figure.aim,
                "met": figure.met(),
                "note": figure.note,
            }
            for figure in figures
        ],
    }


# --- a page ---------------------------------------------------------------------------------


def put_into(page: Path, key: str, figures: Sequence[Figure], facts: dict[str, Any]) -> None:
    """Write the table between the marks of a backend in a page.

    Raises:
        ValueError: the page has no such marks.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN.format(key))
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page.name} has no {BEGIN.format(key)} followed by {END}")
    made = "\n".join([*_markdown(by_workload(figures)), "", _under(figures, facts)])
    page.write_text(f"{before}{begin}\n{made}\n{end}{after}")


def _markdown(figures: Iterable[Figure]) -> list[str]:
    lines = [
        "| workload | measure | against | ours | theirs | ratio | min–max | aim | met |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for figure in figures:
        ratios = figure.ratios()
        ratio = spread = aim = ""
        if ratios:
            which = "theirs / ours" if figure.less else "ours / theirs"
            ratio = f"{digits(median(ratios))} ({which})"
            one = len(ratios) == 1
            spread = "one run" if one else f"{digits(min(ratios))}–{digits(max(ratios))}"
        if figure.aim is not None:
            aim = f"{'≥' if figure.less else '≤'} {digits(figure.aim)}"
        cells = (
            figure.workload,
            figure.measure,
            figure.against,
            _plain(figure.ours, figure.unit),
            _plain(figure.other, figure.unit) if figure.other else "–",
            ratio,
            spread,
            aim,
            {True: "yes", False: "no", None: ""}[figure.met()],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _plain(values: Sequence[float], unit: str) -> str:
    return f"{digits(median(values))} {unit}".rstrip()


def _under(figures: Sequence[Figure], facts: dict[str, Any]) -> str:
    met = [figure.met() for figure in figures]
    said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
    return f"{met.count(True)} aims met, {met.count(False)} missed. Measured with {said}."


# --- a plot ---------------------------------------------------------------------------------


def plot(figures: Sequence[Figure], path: Path, title: str) -> None:
    """Bytes and time per turn over the length of the conversation, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), constrained_layout=True)
    for axis, wanted, label in (
        (axes[0], "bytes on disk per turn", "KiB per turn"),
        (axes[1], "wall time per turn", "ms per turn"),
    ):
        rows = [f for f in figures if f.measure == wanted and f.against == "LangGraph"]
        lengths: set[int] = set()
        for variant in dict.fromkeys(_chat(figure)[1] for figure in rows):
            chosen = [figure for figure in rows if _chat(figure)[1] == variant]
            turns = [_chat(figure)[0] for figure in chosen]
            lengths.update(turns)
            said = variant and f", {variant}"
            for name, values, marker in (
                (f"this library{said}", [median(f.ours) for f in chosen], "o"),
                (f"{title}{said}", [median(f.other) for f in chosen], "s"),
            ):
                axis.plot(turns, values, marker=marker, label=name)
        axis.set(xscale="log", yscale="log", xlabel="turns in the conversation", ylabel=label)
        axis.set_xticks(sorted(lengths), [f"{n:,}" for n in sorted(lengths)], minor=False)
        axis.minorticks_off()
        axis.yaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
        axis.legend()
    canvas.suptitle("A conversation, every superstep durable")
    pyplot.close(canvas)
    canvas.savefig(path, dpi=120)


def _chat(figure: Figure) -> tuple[int, str]:
    """How many turns, and in which variant of the backend."""
    found = CHAT.fullmatch(figure.workload)
    if found is None:
        raise ValueError(f"{figure.workload!r} is no chat")
    return int(found[1].replace(",", "")), found[2] or ""
