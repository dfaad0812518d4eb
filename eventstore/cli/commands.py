"""The commands of ``eventstore``, and how each of them ends."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from eventstore import EventStoreError
from eventstore.cli import archive, exits, history, retention, stats, threads, transfer
from eventstore.cli.values import safe
from graph.errors import GraphError

HELP = """Look into a database of threads, and look after it.

The database is named by --db or EVENTSTORE_DB. Commands that only read write nothing. Results go to
standard output (with --json as JSON), everything else to standard error.

Exit codes: 0 done; 1 problems were found, or some of it failed; 2 wrong arguments, or not
confirmed; 3 the database cannot be used; 4 no such thread or checkpoint; 130 interrupted.
"""


class Commands(TyperGroup):
    """Ends every command with a message and an exit code of ours."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with _logging_to_stderr(), _ending(ctx.info_name or "eventstore"):
            result = super().invoke(ctx)
            sys.stdout.flush()  # here a reader that has gone can still be told from a fault
            return result


@contextmanager
def _ending(prog: str) -> Iterator[None]:
    try:
        yield
    except (EventStoreError, GraphError, exits.Failed) as error:
        print(f"{prog}: {_printable(exits.message_of(error))}", file=sys.stderr)
        raise typer.Exit(exits.code_of(error)) from error
    except KeyboardInterrupt as error:
        print(f"{prog}: interrupted", file=sys.stderr)
        raise typer.Exit(exits.INTERRUPTED) from error
    except BrokenPipeError as error:
        # What is left in the buffer would be tried again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(exits.PIPE) from error


def _printable(text: str) -> str:
    return "\n".join(map(safe, text.split("\n")))


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _printable(super().format(record))


class _Stderr(logging.Handler):
    """Writes to standard error, whatever that is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr)
        except OSError:
            self.handleError(record)


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    root, handler = logging.getLogger(), _Stderr(logging.WARNING)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


RETENTION_HELP = f"""Say what may be forgotten and what must be kept, and do it.

{HELP.partition(".")[2].strip()}
"""


def _root(name: str, text: str) -> typer.Typer:
    return typer.Typer(
        name=name,
        cls=Commands,
        help=text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,  # they would show a URL, and with it a password
        context_settings={"help_option_names": ["-h", "--help"]},
    )


app = _root("eventstore", HELP)
retention_app = _root("retention", RETENTION_HELP)
retention.fill(retention_app)
for module in (threads, history, stats, transfer, retention, archive):
    module.register(app)


def run(arguments: Sequence[str], prog: str, only_retention: bool = False) -> int:
    """Run one command; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        root = retention_app if only_retention else app
        root(args=list(arguments), prog_name=prog)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exits.FOUND
    except Exception:  # a fault of ours: the whole story, and none of the codes that mean something
        traceback.print_exc()
        return 70
    return exits.OK
