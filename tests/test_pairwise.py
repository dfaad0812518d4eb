"""The few combinations of `pairwise` leave no pair of values out."""

from __future__ import annotations

import itertools

import pytest

from tests.pairwise import covering


@pytest.mark.parametrize(
    ("sizes", "most"),
    [((2, 2, 2), 5), ((5, 2, 5), 25), ((18, 3, 2), 58), ((3, 3, 3, 4), 18), ((4, 3), 12)],
)
def test_every_pair_is_covered(sizes: tuple[int, ...], most: int) -> None:
    axes = [[(axis, value) for value in range(size)] for axis, size in enumerate(sizes)]
    rows = list(itertools.product(*axes))
    kept = covering(rows)
    assert len(kept) <= most
    together = {pair for number in kept for pair in itertools.combinations(rows[number], 2)}
    assert together == {pair for row in rows for pair in itertools.combinations(row, 2)}
    assert covering(rows) == kept, "another worker chooses the same"
