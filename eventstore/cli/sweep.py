"""``retention plan``, ``sweep`` and ``run``: what policies let go, now or from now on."""

from __future__ import annotations

import queue
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from eventstore import ConfigurationError, EventStore
from eventstore.cli.exits import DATABASE, FOUND, USAGE, Failed
from eventstore.cli.options import (
    All,
    Db,
    Json,
    Schema,
    Target,
    Tenant,
    Yes,
    confirm,
    parse_duration,
    reading,
    writing,
)
from eventstore.cli.output import Output, iso, moment, size
from eventstore.cli.values import safe
from retention import (
    Decision,
    Plan,
    RetentionPolicy,
    SweepReport,
    policies_from_env,
    policies_from_file,
)
from retention import plan as make_plan
from retention import sweep as carry_out
from retention.daemon import BackgroundRetention
from retention.metrics import PORT, Endpoint, Metrics

SHOWN: Final = 50
"""Decisions that are printed, unless all are wanted."""

PoliciesFile = Annotated[
    Path | None,
    typer.Option(
        "--policies",
        metavar="FILE",
        help="The policies, in TOML. Without this and --ttl: what RETENTION_… variables say, "
        "and without those too only threads with a ttl of their own go.",
    ),
]
Ttl = Annotated[
    str | None, typer.Option("--ttl", metavar="DURATION", help="One policy for all, such as 30d.")
]
AllTenants = Annotated[bool, typer.Option("--all-tenants", help="Threads of every tenant.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("plan")(plan)
    app.command("sweep")(sweep)
    app.command("run")(keep_sweeping)


def policies_of(path: Path | None, ttl: str | None) -> Sequence[RetentionPolicy]:
    """The policies that were meant.

    Raises:
        Failed: they make no sense.
    """
    if path is not None and ttl is not None:
        raise Failed("--policies says all there is to say: leave --ttl out", USAGE)
    try:
        if path is not None:
            return policies_from_file(path)
        if ttl is not None:
            return (RetentionPolicy(parse_duration(ttl)),)
        return policies_from_env() or (RetentionPolicy(timedelta.max, name="own ttl"),)
    except ValueError as error:
        raise Failed(str(error), USAGE) from error


# --- plan -------------------------------------------------------------------------------


def plan(
    db: Db,
    policies: PoliciesFile = None,
    ttl: Ttl = None,
    tenant: Tenant = "default",
    all_tenants: AllTenants = False,
    schema: Schema = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Judge as of this moment, past or to come: ISO 8601."),
    ] = None,
    sizes: Annotated[bool, typer.Option("--sizes", help="Count what would be pruned.")] = False,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Say what would be done to which threads, and why. Touches nothing. JSON: one document."""
    asked = policies_of(policies, ttl)
    now = None if at is None else _moment(at)
    with reading(Target(db, tenant, schema)) as store:
        found = make_plan(store, asked, now, all_tenants=all_tenants, sizes=sizes)
    show_plan(Output(as_json), found, everything)


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no time such as 2026-01-31T12:00") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def show_plan(out: Output, found: Plan, everything: bool) -> None:
    """Print a plan."""
    if out.as_json:
        out.json(
            {
                "tenant": found.tenant,
                "now": iso(found.now),
                "policies": [policy.described() for policy in found.policies],
                "counts": found.counts,
                "events": found.events,
                "bytes": found.bytes,
                "decisions": [
                    {**asdict(each), "thread_key": f"{each.thread_key:016x}"}
                    for each in found.decisions
                ],
            }
        )
        return
    shown = found.decisions if everything else found.decisions[:SHOWN]
    if shown:
        names = ("THREAD", "STATUS", "ACTIVE (UTC)", "DO", "POLICY", "EVENTS", "SIZE", "WHY")
        out.table(names, [_row(each, found) for each in shown], right="EVENTS SIZE")
    if len(shown) < len(found.decisions):
        out.note(f"only the first {SHOWN} of {len(found.decisions)}: --all")
    out.say(", ".join(f"{number} {safe(why)}" for why, number in found.counts.items()))


def _row(each: Decision, found: Plan) -> tuple[Any, ...]:
    tenant = f"{each.tenant}/" if found.tenant is None else ""
    what = f"archive, {each.action}" if each.archive else each.action
    return (
        tenant + each.thread_id,
        each.status,
        moment(each.active_at),
        what,
        each.policy,
        "" if each.events is None else each.events,
        "" if each.bytes is None else size(each.bytes),
        each.reason,
    )


# --- sweep ------------------------------------------------------------------------------


def sweep(
    db: Db,
    policies: PoliciesFile = None,
    ttl: Ttl = None,
    tenant: Tenant = "default",
    all_tenants: AllTenants = False,
    schema: Schema = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    yes: Yes = False,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Prune, trim and seal what the policies let go; once. Asks first.

    JSON: a line for the plan, unless --yes, and a line for what was done. SIGTERM and Ctrl-C let
    what is under way come to its end, and then it says what was done so far.
    """
    if dry_run:
        plan(db, policies, ttl, tenant, all_tenants, schema, everything=everything, as_json=as_json)
        return
    asked, out = policies_of(policies, ttl), Output(as_json)
    with writing(Target(db, tenant, schema)) as store:
        agreed = _agreed(out, store, asked, all_tenants, yes, everything)
        total = len(agreed.decisions) if isinstance(agreed, Plan) else None
        everybody = all_tenants and not isinstance(agreed, Plan)
        with _signals() as arrived, out.progress("sweeping", total) as advance:
            report = carry_out(
                store,
                agreed,
                on_progress=lambda decision, outcome: advance(1),
                should_stop=lambda: not arrived.empty(),
                all_tenants=everybody,
            )
    show_report(out, report)
    if report.failed:
        raise typer.Exit(FOUND)


def _agreed(
    out: Output,
    store: EventStore,
    asked: Sequence[RetentionPolicy],
    all_tenants: bool,
    yes: bool,
    everything: bool,
) -> Plan | Sequence[RetentionPolicy]:
    """What somebody has said yes to: a plan, unless nobody is asked."""
    if yes:
        return asked
    found = make_plan(store, asked, all_tenants=all_tenants)
    show_plan(out, found, everything)
    confirm("Do this?", yes)
    return found


@contextmanager
def _signals() -> Iterator[queue.SimpleQueue[int]]:
    """What SIGTERM and SIGINT are put into, while this lasts."""
    # An Event takes a lock that the interrupted code may hold; SimpleQueue.put may be re-entered.
    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(each, lambda number, _frame: arrived.put(number)) for each in numbers]
    try:
        yield arrived
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def show_report(out: Output, report: SweepReport) -> None:
    """Print what a sweep did."""
    if out.as_json:
        out.json(asdict(report))
    else:
        parts = {**asdict(report), "reclaimed": size(report.reclaimed)}
        took, stopped = parts.pop("seconds"), parts.pop("stopped")
        del parts["now"]
        said = ", ".join(f"{value} {name}" for name, value in parts.items())
        out.say(f"{said}, in {took:.1f} s{', stopped before it was through' if stopped else ''}")
    sys.stdout.flush()


# --- run --------------------------------------------------------------------------------


def keep_sweeping(
    db: Db,
    policies: PoliciesFile = None,
    ttl: Ttl = None,
    every: Annotated[
        str | None, typer.Option(metavar="DURATION", help="From sweep to sweep; such as 1h.")
    ] = None,
    cron: Annotated[
        str | None, typer.Option(metavar="TIMES", help='Instead: as a crontab, "0 3 * * *"; UTC.')
    ] = None,
    jitter: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Up to so much later, at random.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help=f"Serve /metrics and /healthz there; {PORT} is usual, loopback unless said.",
        ),
    ] = None,
    tenant: Tenant = "default",
    all_tenants: AllTenants = False,
    schema: Schema = None,
    yes: Yes = False,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Sweep now and from now on, until SIGTERM or Ctrl-C; several share the work. Asks first.

    JSON: a line for the plan, unless --yes, and a line for each sweep.
    """
    asked, out = policies_of(policies, ttl), Output(as_json)
    if (every is None) == (cron is None):
        raise typer.BadParameter("give either --every or --cron")
    interval = None if every is None else parse_duration(every)
    later = None if jitter is None else parse_duration(jitter)
    place = None if metrics is None else _address(metrics)
    with writing(Target(db, tenant, schema)) as store:
        if not yes:
            _agreed(out, store, asked, all_tenants, yes, everything)
        quiet = None if interval is None else 3 * interval
        counts = None if place is None else Metrics(unhealthy_after=quiet)
        try:
            daemon = BackgroundRetention(
                store,
                asked,
                interval,
                on_report=lambda report: show_report(out, report),
                cron=cron,
                jitter=later,
                all_tenants=all_tenants,
                metrics=counts,
            )
        except ConfigurationError:
            raise
        except ValueError as error:
            raise Failed(str(error), USAGE) from error
        with _signals() as arrived, _served(counts, place), daemon:
            arrived.get()


def _served(
    counts: Metrics | None, place: tuple[str, int] | None
) -> AbstractContextManager[object]:
    if counts is None or place is None:
        return nullcontext()
    try:
        return Endpoint(counts, *place)
    except OSError as error:
        host, port = place
        raise Failed(f"cannot serve metrics on {host}:{port}: {error}", DATABASE) from error


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise typer.BadParameter(f"{text!r} is no address such as {PORT} or 0.0.0.0:{PORT}")
    return host.strip("[]") or "127.0.0.1", int(port)
