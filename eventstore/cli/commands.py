"""Assembles the commands of ``eventstore``, and turns every error into a message and an exit code.

Owns the entry point, and the log on standard error while a command runs. An unexpected exception
prints its traceback.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from eventstore.cli import exits
from eventstore.cli.output import Output
from eventstore.explain.values import safe

HELP = """Inspect and maintain a database of threads.

Name the database with --db or EVENTSTORE_DB. Read-only commands change nothing in it. Results go to
standard output (as JSON with --json), notes and errors to standard error.

Exit codes: 0 done; 1 problems were found, or some of the work failed; 2 wrong arguments, or not
confirmed; 3 unusable database; 4 no such thread or checkpoint; 5 the results cannot be written; 130
interrupted.
"""


COMMANDS: Final = {
    "threads": ("threads", "List threads, the most recently active first."),
    "show": ("threads", "Show a thread: its status, its logs, and what it waits for."),
    "events": ("threads", "List the events of a log, oldest first."),
    "transcript": ("transcript", "Show a conversation: who said, called and answered what."),
    "history": ("history", "Show the history of a thread, oldest first."),
    "diff": ("history", "Compare the states at two checkpoints."),
    "tenants": ("explore", "List the tenants that have threads."),
    "waiting": ("explore", "List threads that wait for a person, and what they ask."),
    "branches": ("explore", "List where the history of a thread went apart."),
    "blame": ("explore", "Show who wrote a key of the state."),
    "ui": ("explore", "Show threads in the browser: what happened, and why."),
    "stats": ("stats", "Count threads, events, snapshots and bytes."),
    "verify": ("stats", "Check threads: digests, payloads, links and snapshots."),
    "migrate": ("stats", "Create the tables, or migrate those of an older version."),
    "export": ("transfer", "Write threads to files, each complete and verified."),
    "import": ("transfer", "Load threads from files."),
    "import langgraph": ("transfer", "Copy threads of LangGraph's own savers, verified."),
    "export langgraph": ("transfer", "Copy threads that LangGraph wrote here into its savers."),
    "retention": ("retention", "Decide what to keep and for how long, and apply it."),
    "archive": ("archive", "Inspect an archive of threads."),
}
"""By command: the module that adds it, and its help in the list of commands."""


class Commands(TyperGroup):
    """The root group: an error of any command becomes a message and an exit code.

    A command is imported when it is used: the help, and a mistyped command, need none of them.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name; ``None``: there is none."""
        return _of_module(COMMANDS[cmd_name][0])[cmd_name] if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that arguments begin with, by one word or by two."""
        if " ".join(args[:2]) in COMMANDS:
            args = [" ".join(args[:2]), *args[2:]]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: Any) -> Any:
        """Run the command named by the arguments."""
        with _logging_to_stderr(), _errors_to_exit_codes():
            result = super().invoke(ctx)
            sys.stdout.flush()  # what cannot be written must show up here, where it is handled
            return result


@cache
def _of_module(name: str) -> Mapping[str, Any]:
    """The commands that a module adds."""
    part = typer.Typer(rich_markup_mode=None)
    import_module(f"eventstore.cli.{name}").register(part)
    return typer.main.get_group(part).commands


@contextmanager
def _errors_to_exit_codes() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        _complain("interrupted")
        raise typer.Exit(exits.INTERRUPTED) from error
    except Exception as error:
        from eventstore import EventStoreError
        from eventstore.cli import failures
        from graph.errors import GraphError

        if isinstance(error, EventStoreError | GraphError | exits.Failed):
            _complain(failures.message_of(error))
            raise typer.Exit(failures.code_of(error)) from error
        if isinstance(error, OSError):
            raise typer.Exit(_output_failed(error)) from error
        raise


def _complain(message: str) -> None:
    """Print an error to standard error, if that can be written."""
    with suppress(OSError):
        print(f"eventstore: {_printable(message)}", file=sys.stderr, flush=True)


def _output_failed(error: OSError) -> int:
    """Report that standard output cannot be written; the exit code.

    Raises:
        OSError: it was something else that failed.
    """
    if error.errno not in exits.WRITE_ERRORS or error.filename is not None:
        raise error
    Output.drop()
    if isinstance(error, BrokenPipeError):
        return exits.PIPE
    _complain(f"cannot write the output: {error.strerror}")
    return exits.OUTPUT


def _printable(text: str) -> str:
    return "\n".join(map(safe, text.split("\n")))


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _printable(super().format(record))


class _Stderr(logging.Handler):
    """Writes to the standard error of the moment: tests and users may redirect it."""

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


app = typer.Typer(
    name="eventstore",
    cls=Commands,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they show local variables, and with them a password
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"graph-eventstore {version('graph-eventstore')}")
        raise typer.Exit()


@app.callback()
def root(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Takes the options before the command; its help is ``HELP``."""


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the caller has closed it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        if hasattr(stream := getattr(sys, name), "reconfigure"):
            # Names may contain what the terminal cannot encode.
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(arguments)
        except OSError as error:  # outside of commands: the help
            return _output_failed(error)
    except Exception:  # a bug: show the traceback, with a code of its own
        traceback.print_exc()
        return 70


def _run(arguments: Sequence[str]) -> int:
    try:
        app(args=list(arguments), prog_name="eventstore")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exits.FOUND
    return exits.OK
