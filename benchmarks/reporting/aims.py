"""The promised ratios, per backend. They change by decision, never to suit a result."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

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
        ("chat, 200 turns, recorded calls", "bytes on disk per turn", "LangGraph", 300),
        ("chat, 200 turns, recorded calls", "wall time per call", "LangGraph", 3),
        ("chat, * turns, runtime", "wall time per turn", "LangGraph", 1),
        ("chat, 200 turns, *", "full history", "LangGraph", 5),
        ("log alone", "append of one event", "bare sqlite3", 2.5),
        ("*", "wall time per *, async", "this library", 2),
    ),
    "postgres": (
        ("chat, 200 turns, recorded calls*", "bytes on disk per turn", "LangGraph", 90),
        ("chat, 200 turns, recorded calls*", "bytes of WAL per turn", "LangGraph", 80),
        ("chat, 200 turns, recorded calls*", "wall time per call", "LangGraph", 8),
        ("chat, * turns, runtime*", "wall time per turn", "LangGraph", 1),
        ("chat, 200 turns, r*", "full history", "LangGraph", 5),
        ("chat, 200 turns*", "wall time per turn", "LangGraph", 5),
        ("chat, 1,000 turns*", "wall time per turn", "LangGraph", 8),
        ("chat, 200 turns*", "bytes on disk per turn", "LangGraph", 90),
        ("chat, 200 turns*", "bytes of WAL per turn", "LangGraph", 80),
        ("chat, 200 turns*", "full history", "LangGraph", 30),
        ("pipeline, *", "wall time per superstep", "LangGraph", 5),
    ),
}
"""By backend: patterns of a workload and a measure, the opponent, and the promised ratio."""


def find_aim(backend: str, workload: str, measure: str, against: str) -> float | None:
    """The promised ratio of a figure; ``None`` where nothing was promised."""
    for workloads, measures, opponent, ratio in AIMS[backend]:
        if (
            opponent == against
            and fnmatchcase(workload, workloads)
            and fnmatchcase(measure, measures)
        ):
            return ratio
    return None
