"""What a sweep did: counts for programs, one line for people.

The fields of :class:`SweepReport` are also the keys of ``--json``, of ``store.sweeps()`` and of
log records: they keep their names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from retention.decisions import Decision

SweepOutcome = Literal["pruned", "trimmed", "sealed", "spared", "gone", "failed"]
"""What became of a decision; see :class:`SweepReport`."""

Progress = Callable[[Decision, SweepOutcome], object]


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep did.

    Attributes:
        now: the moment at which threads were judged.
        finished: interrupted deletions of earlier sweeps that this one finished.
        pruned, trimmed, sealed: threads, by what was done to them.
        archived: threads written to an archive first.
        spared: threads that became active, pinned or waiting meanwhile, or whose ttl or policy
            changed.
        gone: threads that someone else removed meanwhile.
        failed: errors; the log has each of them.
        left: threads known to be due that are still there: they failed, or the sweep was
            stopped before it reached them.
        reclaimed: bytes by which the database's file shrank.
        stopped: whether the sweep was asked to stop before its end.
        seconds: how long it took.
    """

    now: datetime
    finished: int = 0
    pruned: int = 0
    trimmed: int = 0
    sealed: int = 0
    archived: int = 0
    spared: int = 0
    gone: int = 0
    failed: int = 0
    left: int = 0
    reclaimed: int = field(default=0, compare=False)
    stopped: bool = False
    seconds: float = field(default=0.0, compare=False)

    @property
    def summary(self) -> str:
        """The report as one line, such as ``pruned 3 threads, kept 2 that changed, in 0.4 s``."""
        parts = [f"pruned {_threads(self.pruned)}"]
        for number, text in (
            (self.trimmed, f"trimmed {_threads(self.trimmed)}"),
            (self.sealed, f"sealed {_threads(self.sealed)}"),
            (self.archived, f"archived {_threads(self.archived)} first"),
            (self.finished, f"finished {self.finished} interrupted {_deletions(self.finished)}"),
            (self.spared, f"kept {self.spared} that changed meanwhile"),
            (self.gone, f"found {self.gone} already removed"),
            (self.failed, f"failed on {self.failed}"),
            (self.left, f"left {self.left} for the next sweep"),
            (self.reclaimed, f"freed {self.reclaimed / 2**20:,.1f} MiB"),
        ):
            if number:
                parts.append(text)
        parts.append(f"in {self.seconds:.1f} s")
        if self.stopped:
            parts.append("stopped before the end")
        return ", ".join(parts)


def _threads(number: int) -> str:
    return f"{number:,} thread" + ("" if number == 1 else "s")


def _deletions(number: int) -> str:
    return "deletion" if number == 1 else "deletions"
