"""``python -m retention``: the commands of ``eventstore retention``, without their first word.

Without a command, as it was before there were any: ``--every`` means ``run``, and everything
else ``sweep``. Exit codes are those of :mod:`eventstore.cli.exits`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from eventstore.cli import main as command

HELP = ("-h", "--help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run with these arguments; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0].startswith("-") and given[0] not in HELP:
        given = _with_command(given)
    return command(given, prog="retention", only_retention=True)


def _with_command(given: list[str]) -> list[str]:
    """Arguments that name no command, with the one that is meant."""
    every = any(each == "--every" or each.startswith("--every=") for each in given)
    once = "--once" in given or "--dry-run" in given
    if every and not once:
        return ["run", *given]
    return ["sweep", *(each for each in given if each != "--once")]


if __name__ == "__main__":
    sys.exit(main())
