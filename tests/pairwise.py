"""Which of a test's parameters run together: `@pytest.mark.pairwise`, by the rule in README.md.

The product of three or more axes is long, and a fault that needs three certain values at once is
rare. So of a test that is marked, the usual run takes as few combinations as give each two values
of two axes once together; `make thorough` takes all. An axis is one `parametrize`, a parameter of
a fixture, or the pair of API and backend.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import Final

import pytest

_TOGETHER: Final = ("store", "store_url")


def pairwise(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The items without those of marked tests that the rule leaves out; the order stays."""
    tests: dict[tuple[pytest.Item | pytest.Collector | None, str], list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("pairwise"):
            tests.setdefault((item.parent, getattr(item, "originalname", item.name)), []).append(
                item
            )
    left_out = {item for each in tests.values() for item in _superfluous(each)}
    return [item for item in items if item not in left_out]


def _superfluous(items: list[pytest.Item]) -> set[pytest.Item]:
    kept = covering([_values(item) for item in items])
    return {item for number, item in enumerate(items) if number not in kept}


def covering(rows: Sequence[Sequence[Hashable]]) -> set[int]:
    """The numbers of a few rows in which every two values stand together that do so in any row.

    One after the other, each is the first of those that add most pairs. A value stands in one
    column only.
    """
    pairs = {number: set(itertools.combinations(row, 2)) for number, row in enumerate(rows)}
    missing = set().union(*pairs.values())
    kept = set[int]()
    while missing:
        best = max(pairs, key=lambda number: len(pairs[number] & missing))
        missing -= pairs.pop(best)
        kept.add(best)
    return kept


def _values(item: pytest.Item) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """The value on each axis. Those that one `parametrize` lists are told apart by identity."""
    params: dict[str, object] = item.callspec.params  # type: ignore[attr-defined]
    axes = [_names(mark) for mark in item.iter_markers("parametrize")]
    axes.append(tuple(name for name in _TOGETHER if name in params))
    alone = params.keys() - set(itertools.chain(*axes))
    axes += [(name,) for name in sorted(alone)]
    return [(axis, tuple(id(params[name]) for name in axis)) for axis in axes if axis]


def _names(mark: pytest.Mark) -> tuple[str, ...]:
    names: str | Sequence[str] = mark.args[0]
    return (
        tuple(each.strip() for each in names.split(",")) if isinstance(names, str) else tuple(names)
    )
