"""``python -m retention``: prune a database once, keep pruning it, or say what would go.

Exit codes: 0 done, or stopped by SIGTERM or SIGINT after the thread under way; 1 some threads
could not be pruned; 2 wrong arguments, or not confirmed; 3 the database cannot be used.
Results go to standard output, the log to standard error.
"""

from __future__ import annotations

import argparse
import json
import logging
import queue
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Final

from eventstore import ConfigurationError, EventStore, EventStoreError
from retention.daemon import BackgroundRetention
from retention.plan import Plan, plan
from retention.policy import RetentionPolicy
from retention.sweep import SweepReport, sweep

UNITS: Final = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run with these arguments; returns the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    try:
        with EventStore(args.db, tenant=args.tenant) as store:
            url = store.engine.url
            # It would be created, and a mistyped name would look like an empty database.
            if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
                raise ConfigurationError(f"there is no database file {url.database!r}")
            store.setup()
            return _run(store, RetentionPolicy(args.ttl), args)
    except EventStoreError as error:
        print(f"retention: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:  # nothing has been touched yet: later it is only noted
        return 0


def _run(store: EventStore, policy: RetentionPolicy, args: argparse.Namespace) -> int:
    agreed: Plan | RetentionPolicy = policy
    if args.dry_run or not args.yes:
        agreed = found = plan(store, policy)
        print(_json(found) if args.json else _table(found))
        if args.dry_run:
            return 0
        print("Prune these? [y/N] ", end="", file=sys.stderr, flush=True)
        if not sys.stdin.isatty() or sys.stdin.readline().strip().lower() != "y":
            print("nothing was pruned; confirm, or give --yes", file=sys.stderr)
            return 2
    # An Event takes a lock that the interrupted code may hold; SimpleQueue.put may be re-entered.
    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: arrived.put(number))

    def tell(report: SweepReport) -> None:
        said = ", ".join(f"{value} {name}" for name, value in asdict(report).items())
        print(_json(report) if args.json else said, flush=True)

    if args.every:
        with BackgroundRetention(store, policy, args.every, tell):
            arrived.get()
        return 0
    report = sweep(store, agreed, should_stop=lambda: not arrived.empty())
    tell(report)
    return 1 if report.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m retention", description=__doc__)
    say = parser.add_argument
    say("--db", required=True, metavar="URL", help="a SQLite file or a SQLAlchemy URL")
    say("--tenant", default="default", help="whose threads (default: %(default)s)")
    say("--ttl", type=_duration, help="such as 30d; without it only threads with their own go")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--once", action="store_true", help="sweep once (the default)")
    mode.add_argument("--every", type=_duration, help="keep sweeping, such as 1h")
    say("--dry-run", action="store_true", help="only say what would be pruned now, once")
    say("--json", action="store_true", help="print JSON, one line for each result")
    say("--yes", action="store_true", help="do not ask")
    return parser


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9][0-9]{0,5})([wdhms])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 30d, 12h or 90s")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def _json(result: Plan | SweepReport) -> str:
    return json.dumps(asdict(result), default=str)


def _table(found: Plan) -> str:
    rows = [("THREAD", "STATUS", "LAST ACTIVE (UTC)", "REASON")]
    for each in found.decisions:
        # A name may hold anything, an escape sequence for the terminal too.
        name = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in each.thread_id)
        rows.append((name, each.status, f"{each.active_at:%Y-%m-%d %H:%M}", each.reason))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, ", ".join(f"{n} {why}" for why, n in found.counts.items())])


if __name__ == "__main__":
    sys.exit(main())
