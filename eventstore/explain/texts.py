"""What differs between two texts, for people: by lines, and within lines that are long.

Owns leaving out what is alike, so that a small change of a large text is a short answer. Bounded:
what is compared, and what is returned.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Sequence
from itertools import islice
from typing import Final

from eventstore.explain.values import CUT, cut

_DIFF_MAX: Final = 40_000
"""Characters that are compared line by line; what two texts begin and end with does not count."""
_LINES: Final = 200
"""Lines of a difference of texts."""
_CHARS: Final = 600
"""Characters of such a line."""
_CONTEXT: Final = 2
_LONG_LINE: Final = 200
_AROUND: Final = 60
_CLAUSE: Final = re.compile(r"(?<=[.,;:!?])\s+")


def text_changes(before: str, after: str) -> list[str]:
    """What differs between two texts, as lines of a unified diff, without what is alike."""
    old, new = before.splitlines(), after.splitlines()
    first, last = _alike(old, new)
    skipped = max(0, first - _CONTEXT)
    old = old[skipped : len(old) - max(0, last - _CONTEXT)]
    new = new[skipped : len(new) - max(0, last - _CONTEXT)]
    if max(map(len, (*old, *new)), default=0) > _LONG_LINE:
        old, new = _broken("\n".join(old), "\n".join(new))
    if sum(map(len, old)) + sum(map(len, new)) <= _DIFF_MAX:
        found = list(islice(difflib.unified_diff(old, new, lineterm="", n=_CONTEXT), 2, None))
    else:  # too much to compare: what it was, then what it is
        half = _LINES // 2
        found = [f"-{each}" for each in old[:half]] + [f"+{each}" for each in new[:half]]
        found += [CUT] * (len(old) > half or len(new) > half)
    if skipped and found and found[0].startswith("@@"):
        found[0] = f"@@ after line {skipped} @@"
    if len(found) > _LINES + 1:
        found[_LINES:] = [CUT]
    return [cut(each, _CHARS) for each in found]


def _alike(old: Sequence[str], new: Sequence[str]) -> tuple[int, int]:
    """How many lines, or characters, two texts begin and end with alike."""
    common = min(len(old), len(new))
    first = next((n for n in range(common) if old[n] != new[n]), common)
    most = common - first
    return first, next((n for n in range(most) if old[-1 - n] != new[-1 - n]), most)


def _broken(old: str, new: str) -> tuple[list[str], list[str]]:
    """Two texts of long lines in short ones: what differs with a little around it, by clauses."""
    first, last = _alike(old, new)
    begin, end = max(0, first - _AROUND), max(0, last - _AROUND)

    def lines(text: str) -> list[str]:
        changed = cut(text[begin : len(text) - end], _DIFF_MAX)
        shown = CUT * (begin > 0) + changed + CUT * (end > 0)
        clauses = (part for each in shown.splitlines() for part in _CLAUSE.split(each))
        return [part for clause in clauses for part in textwrap.wrap(clause, _LONG_LINE) or [""]]

    return lines(old), lines(new)
