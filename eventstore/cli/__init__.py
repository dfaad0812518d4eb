"""The command ``eventstore``: inspects and maintains a database of threads.

An edge: it may import anything, and nothing imports it. There is one module per group of commands.
They need ``typer`` and ``rich`` (the extra ``cli``); this module does not, so that it can report
that they are missing.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from eventstore.cli import exits

GARBAGE_AFTER_OBJECTS: Final = 100_000
"""A process of ours looks for cyclic garbage when so many new objects may be some."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (see :mod:`eventstore.cli.exits`).

    Args:
        arguments: without the program's name; ``None`` takes those of the process.
    """
    if arguments is None:
        # The modules that a command imports stay: looking for garbage among them is of no use.
        gc.set_threshold(GARBAGE_AFTER_OBJECTS)
    if hiding := _file_that_hides_graph():
        print(
            f"eventstore: the file {hiding} hides the package graph of this library; rename it, "
            "or run the command from another directory",
            file=sys.stderr,
        )
        return exits.USAGE
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        print(
            "eventstore: the command line needs typer and rich; run "
            f"pip install 'graph-eventstore[cli]' ({error})",
            file=sys.stderr,
        )
        return exits.USAGE
    from eventstore.cli.commands import run

    given = sys.argv[1:] if arguments is None else list(arguments)
    return run(given)


def _file_that_hides_graph() -> str | None:
    """A module ``graph.py`` that Python would import instead of the package."""
    spec = find_spec("graph")
    return spec.origin if spec is not None and spec.submodule_search_locations is None else None
