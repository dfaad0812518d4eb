"""Figures as plain data, for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.reporting.figures import Figure


def as_data(figures: Sequence[Figure], facts: dict[str, Any]) -> dict[str, Any]:
    """All figures with their environment."""
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
                "ratio_is": "other / ours" if figure.gain else "ours / other",
                "aim": figure.aim,
                "met": figure.met(),
                "note": figure.note,
            }
            for figure in figures
        ],
    }
