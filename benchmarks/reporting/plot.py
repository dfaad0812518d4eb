"""The plot of a chat's cost per turn over its length."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.reporting.figures import Figure

CHAT: Final = re.compile(r"chat, ([\d,]+) turns(?:, (\w+))?")


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
            suffix = variant and f", {variant}"
            for name, values, marker in (
                (f"this library{suffix}", [median(f.ours) for f in chosen], "o"),
                (f"{title}{suffix}", [median(f.other) for f in chosen], "s"),
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
    """The number of turns, and the variant of the backend."""
    found = CHAT.fullmatch(figure.workload)
    if found is None:
        raise ValueError(f"workload {figure.workload!r} is not a chat")
    return int(found[1].replace(",", "")), found[2] or ""
