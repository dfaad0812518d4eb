"""Draws the pictures of the README: ``python docs/pictures.py`` (``--demo`` runs the demo, too).

``images/costs.svg`` shows the table of results in benchmarks/README.md; a test draws it again and
compares. ``images/demo.svg`` is the terminal of a real run of the demo, whose times and names
differ from run to run.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
IMAGES: Final = ROOT / "docs" / "images"
TURNS: Final = ("50", "200", "1,000")
WIDTH: Final = 760
BAR_MAX: Final = 430
LEFT: Final = 170
OURS: Final = "#009485"
THEIRS: Final = "#9aa5b1"
DEMO_LINES_MAX: Final = 22
DEMO_COLUMNS: Final = 84


def main() -> None:
    """Write the pictures."""
    (IMAGES / "costs.svg").write_text(costs(), encoding="utf-8")
    if "--demo" in sys.argv:
        (IMAGES / "demo.svg").write_text(demo(), encoding="utf-8")


def costs() -> str:
    """Bytes and time of a turn of a chat, here and in LangGraph, from the benchmarks' page."""
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    parts = []
    y = 10
    for measure, title in (
        ("bytes on disk per turn", "Bytes on disk, a turn"),
        ("wall time per turn", "Time of a turn"),
    ):
        parts.append(text(0, y + 16, f"{title}, every step synced to SQLite", "bold"))
        y += 28
        rows = [(turns, *result(page, f"chat, {turns} turns", measure)) for turns in TURNS]
        longest = max(number(value) for _, *values in rows for value in values)
        for turns, ours, theirs in rows:
            parts.append(text(0, y + 22, f"chat of {turns} turns"))
            for value, name, color in ((theirs, "LangGraph", THEIRS), (ours, "here", OURS)):
                length = max(2, BAR_MAX * number(value) / longest)
                parts.append(
                    f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="14" fill="{color}"/>'
                )
                parts.append(text(LEFT + length + 6, y + 12, f"{name}: {value}"))
                y += 17
            y += 8
        y += 10
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" '
        f'viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" font-size="13" role="img" '
        'aria-label="Bytes and time of a turn of a chat, here and in LangGraph">'
    )
    ground = f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>'
    return "\n".join([head, ground, *parts, "</svg>"]) + "\n"


def result(page: str, workload: str, measure: str) -> tuple[str, str]:
    """Our value and LangGraph's, as the first table (SQLite) has them."""
    row = rf"^\| {re.escape(workload)} \| {measure} \| LangGraph \| ([^|]+) \| ([^|]+) \|"
    found = re.search(row, page, re.MULTILINE)
    if found is None:
        raise LookupError(f"benchmarks/README.md has no row {workload!r}, {measure!r}")
    return found[1].strip(), found[2].strip()


def number(value: str) -> float:
    """``2,555 KiB`` as a number; one measure has one unit."""
    return float(value.split()[0].replace(",", ""))


def text(x: float, y: float, content: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y}" font-weight="{weight}" fill="#222222">{content}</text>'


def demo() -> str:
    """The beginning of the demo's output, without the report that it publishes."""
    from rich.console import Console
    from rich.text import Text

    command = [sys.executable, "docs/examples/operations/demo.py", "--quick", "README.md"]
    environment = {**os.environ, "COLUMNS": str(DEMO_COLUMNS)}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=True
    )
    lines = done.stdout.splitlines()
    shown = [line for line in lines if not line.startswith(("╭", "│", "╰"))][:DEMO_LINES_MAX]
    console = Console(record=True, width=DEMO_COLUMNS, file=io.StringIO(), force_terminal=True)
    printed = Text("\n".join(["$ make demo ARGS='--quick README.md'", *shown, "…", lines[-1]]))
    printed.highlight_regex("✓", "bold green")
    printed.highlight_regex(r"(?m)^\d\. .*$|^\$ .*$|^All promises.*$", "bold")
    console.print(printed, highlight=False)
    picture = console.export_svg(title="make demo")
    # Nothing is loaded from elsewhere: the reader's own monospaced font will do.
    picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"


if __name__ == "__main__":
    main()
