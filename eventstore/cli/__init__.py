"""The command ``eventstore``: looking into a database of threads, and looking after it.

An edge: it may import anything, and nothing imports it. The commands are in modules of their
own and need ``typer`` and ``rich`` (the extra ``cli``); this one does not, so that it can say so.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from eventstore.cli import exits


def main(
    arguments: Sequence[str] | None = None,
    prog: str = "eventstore",
    only_retention: bool = False,
) -> int:
    """Run one command; returns the exit code (see :mod:`eventstore.cli.exits`).

    Args:
        arguments: without the name of the program; ``None``: those of the process.
        prog: how the program is called in messages.
        only_retention: the commands are those of ``eventstore retention``.
    """
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        print(
            f"{prog}: the command line needs typer and rich: "
            f"pip install 'graph-eventstore[cli]' ({error})",
            file=sys.stderr,
        )
        return exits.USAGE
    from eventstore.cli.commands import run

    given = sys.argv[1:] if arguments is None else list(arguments)
    return run(given, prog, only_retention)
