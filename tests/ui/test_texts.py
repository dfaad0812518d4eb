"""The difference of two texts: what changed, with little around it, however long they are."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from eventstore.explain.texts import text_changes


def test_a_line_among_many() -> None:
    before = [f"line {number}" for number in range(100_000)]
    after = [*before[:50_000], "another", *before[50_001:]]
    assert text_changes("\n".join(before), "\n".join(after)) == [
        "@@ after line 49998 @@",
        " line 49998",
        " line 49999",
        "-line 50000",
        "+another",
        " line 50001",
        " line 50002",
    ]


def test_a_word_of_a_long_line() -> None:
    words = [f"word{number}" for number in range(5_000)]
    before, after = " ".join(words), " ".join([*words[:2_500], "other", *words[2_501:]])
    _, removed, added = text_changes(before, after)
    assert removed.startswith("-…") and "word2500 word2501" in removed and len(removed) < 200
    assert added.endswith("…") and "word2499 other word2501" in added


def test_two_clauses_of_a_long_line() -> None:
    clauses = [f"the clause with number {number}," for number in range(50)]
    after = list(clauses)
    after[10], after[40] = "first,", "second,"
    found = text_changes(" ".join(clauses), " ".join(after))
    changed = [each for each in found if each[0] in "+-"]
    assert changed == [
        "-the clause with number 10,",
        "+first,",
        "-the clause with number 40,",
        "+second,",
    ]


def test_texts_that_have_nothing_in_common_are_cut() -> None:
    before, after = ("\n".join(f"{name} {n}" for n in range(50_000)) for name in "ab")
    began = time.process_time()
    found = text_changes(before, after)
    assert len(found) == 201 and found[-1] == "…" and time.process_time() - began < 5


def test_the_ends_of_lines_are_no_difference() -> None:
    assert text_changes("a\nb\n", "a\r\nb\r\n") == []


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_texts(before: str, after: str) -> None:
    assert text_changes(before, before) == []
    assert bool(text_changes(before, after)) >= (before.splitlines() != after.splitlines())
