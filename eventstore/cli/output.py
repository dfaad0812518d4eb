"""Prints what commands produce: results to standard output, everything else to standard error.

At a terminal, tables are folded to its width; in a pipe or a file nothing is cut or folded.
Text read from a database passes :func:`~eventstore.explain.values.safe` before it is printed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from eventstore.explain import values

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

STYLES: Final = {
    "failed": "red",
    "error": "red",
    "waiting": "yellow",
    "interrupt": "yellow",
    "resume": "yellow",
    "running": "green",
    "input": "green",
    "fork": "magenta",
    "update": "magenta",
    "prune": "red",
    "removed": "red",
    "added": "green",
    "appended": "green",
    "changed": "yellow",
}
"""Styles for cells that consist of one of these words."""


class Output:
    """The output of one command.

    Args:
        as_json: the command prints JSON; progress stays off the terminal.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    @cached_property
    def _console(self) -> Console:
        from rich.console import Console  # a tenth of a second, needed at terminals only

        return Console(markup=False, highlight=False, emoji=False)

    @property
    def is_terminal(self) -> bool:
        """Whether standard output is a terminal."""
        return sys.stdout.isatty()

    @property
    def width(self) -> int | None:
        """The terminal's width in columns; ``None`` without a terminal."""
        return self._console.width if self.is_terminal else None

    def json(self, value: Any) -> None:
        """Print one result as a line of JSON."""
        print(values.document(value))

    def say(self, text: str = "", style: str | None = None) -> None:
        """Print a line that belongs to the results. Escape text that was read from a database."""
        if self.is_terminal:
            from rich.text import Text

            self._console.print(Text(text, style=style or ""), soft_wrap=True)
        else:
            print(text)

    def note(self, text: str) -> None:
        """Print a line about the work, not of its results, to standard error, if that can be."""
        with suppress(OSError):
            print(text, file=sys.stderr)

    @staticmethod
    def drop() -> None:
        """Drop what is still to be printed: Python would try to at exit, and fail."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def table(self, names: Sequence[str], rows: Sequence[Sequence[Any]], right: str = "") -> None:
        """Print rows under a header.

        Args:
            right: names of the columns to align right, separated by spaces.
        """
        cells = [[values.safe(values.text_of(cell)) for cell in row] for row in rows]
        numbers = right.split()
        if not self.is_terminal:
            lines = [list(names), *cells]
            widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
            for each in lines:
                padded = [
                    cell.rjust(width) if name in numbers else cell.ljust(width)
                    for name, cell, width in zip(names, each, widths, strict=True)
                ]
                print("  ".join(padded).rstrip())
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for name in names:
            justify: Any = "right" if name in numbers else "left"
            table.add_column(name, justify=justify, overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
        self._console.print(table)

    def facts(self, pairs: Sequence[tuple[str, Any]]) -> None:
        """Print names and values, one pair a line; pairs whose value is ``None`` are left out."""
        shown = [
            (name, values.safe(values.text_of(value))) for name, value in pairs if value is not None
        ]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self.say(f"{name.ljust(width)}  {value}")

    @contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show a progress bar on standard error if that is a terminal; yields how to advance it.

        Args:
            total: the number of steps; ``None`` if unknown.
        """
        if not sys.stderr.isatty() or (self.as_json and self.is_terminal):
            yield lambda count: None
            return
        with _bar() as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)


def _bar() -> Progress:
    """A bar on standard error that vanishes at its end."""
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class Rate(progress.ProgressColumn):
        """Steps per second."""

        def render(self, task: progress.Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        Rate(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def moment(at: datetime | None) -> str:
    """A time as tables show it: UTC, in whole seconds."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def ago(at: datetime | None) -> str:
    """A time as people say it: ``3 min ago``; what is older than two weeks by its date."""
    if at is None:
        return ""
    seconds = (datetime.now(UTC) - at).total_seconds()
    if seconds < -60 or seconds >= 14 * 86_400:
        return f"{at.astimezone(UTC):%Y-%m-%d}"
    for unit, length in (("day", 86_400), ("h", 3_600), ("min", 60)):
        count = int(seconds // length)
        if count > 0:
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''} ago"
    return "just now"


def iso(at: datetime | None) -> str | None:
    """A time as JSON shows it: ISO 8601, UTC."""
    return None if at is None else at.astimezone(UTC).isoformat()


def size(count: float) -> str:
    """A number of bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def duration(seconds: float) -> str:
    """A length of time in the form that options take: ``30d``, ``1d12h``, ``90s``."""
    left, parts = int(seconds), []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
