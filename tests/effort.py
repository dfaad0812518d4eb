"""How hard the tests look: the usual effort, or that of `make thorough`.

Searches (Hypothesis examples, moments of a race, rounds of kill -9) take a number for each. The
usual one is enough to see every behaviour fail; the thorough one is for hours in which a machine
has nothing else to do.
"""

from __future__ import annotations

import os
from typing import Final, TypeVar

T = TypeVar("T")

PROFILE: Final = os.environ.get("HYPOTHESIS_PROFILE", "usual")
THOROUGH: Final = PROFILE == "thorough"


def effort(usual: T, thorough: T) -> T:
    """The first value in `make test`, the second in `make thorough`."""
    return thorough if THOROUGH else usual
