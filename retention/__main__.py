"""``python -m retention``: an alias of ``eventstore retention``.

Both take the same arguments and end with the same exit codes (:mod:`eventstore.cli.exits`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from eventstore.cli import main as eventstore


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``eventstore retention`` with these arguments; returns the exit code."""
    return eventstore(["retention", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
