"""``retention plan``, ``sweep`` and ``run``: show what policies ask for, do it once or regularly.

``plan`` reads only. ``sweep`` and ``run`` ask for confirmation, and finish the batch under way on
SIGTERM or Ctrl-C. ``run`` announces on standard error what it sweeps, how often and by which
policies; no message shows a password.
"""

from __future__ import annotations

import queue
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
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
    database_name,
    parse_duration,
    parse_moment,
    reading,
    writing,
)
from eventstore.cli.output import Output, duration, iso, moment, size
from eventstore.explain.values import safe
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
from retention.archives.storage import without_password
from retention.daemon import BackgroundRetention
from retention.decisions import ACTIONS
from retention.metrics import PORT, Endpoint, Metrics
from retention.policies import DURATIONS
from retention.schedule import schedule_of

SHOWN: Final = 50
"""Decisions printed without ``--all``."""

LOOK_S: Final = 0.5
"""A daemon that waits for a signal looks this often whether one has come."""

PoliciesFile = Annotated[
    Path | None,
    typer.Option(
        "--policies",
        metavar="FILE",
        help="Policies in TOML. Without it and --ttl, RETENTION_… variables set the policies; "
        "without those, only threads with a ttl of their own are pruned.",
    ),
]
Ttl = Annotated[
    str | None,
    typer.Option(
        "--ttl",
        metavar="DURATION",
        help="One policy for all threads: the time to live, such as 30d.",
    ),
]
AllTenants = Annotated[
    bool, typer.Option("--all-tenants", help="Include the threads of all tenants.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("plan")(plan)
    app.command("sweep")(sweep)
    app.command("run")(keep_sweeping)


def policies_of(path: Path | None, ttl: str | None) -> Sequence[RetentionPolicy]:
    """The policies from a file, from ``--ttl`` or from the environment.

    Raises:
        Failed: they are not valid.
    """
    if path is not None and ttl is not None:
        raise Failed("expected either --policies or --ttl, not both", USAGE)
    try:
        if path is not None:
            return policies_from_file(path)
        if ttl is not None:
            return (RetentionPolicy(parse_duration(ttl)),)
        return policies_from_env() or (RetentionPolicy(timedelta.max, name="own ttl"),)
    except ValueError as error:
        raise Failed(str(error), USAGE) from error


At = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Judge for this moment, past or future, in ISO 8601."),
]

# --- plan -------------------------------------------------------------------------------


def plan(
    db: Db,
    policies: PoliciesFile = None,
    ttl: Ttl = None,
    tenant: Tenant = "default",
    all_tenants: AllTenants = False,
    schema: Schema = None,
    at: At = None,
    sizes: Annotated[
        bool, typer.Option("--sizes", help="Count events and bytes of threads to prune.")
    ] = False,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Show what a sweep would do to which threads, and why. Changes nothing. JSON: one document."""
    chosen = policies_of(policies, ttl)
    now = None if at is None else parse_moment(at)
    with reading(Target(db, tenant, schema)) as store:
        found = make_plan(store, chosen, now, all_tenants=all_tenants, sizes=sizes)
    show_plan(Output(as_json), found, everything)


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
                "decisions": list(map(_decision_json, found.decisions)),
            }
        )
        return
    shown = found.decisions if everything else found.decisions[:SHOWN]
    if shown:
        names = ("THREAD", "STATUS", "ACTIVE (UTC)", "DO", "POLICY", "EVENTS", "SIZE", "WHY")
        out.table(names, [_row(each, found) for each in shown], right="EVENTS SIZE")
    if len(shown) < len(found.decisions):
        out.note(f"showing the first {SHOWN} of {len(found.decisions)}; pass --all to show all")
    out.say(", ".join(f"{number} {_counted_as(why)}" for why, number in found.counts.items()))


def _decision_json(each: Decision) -> dict[str, Any]:
    archive = each.archive and without_password(each.archive)
    return {**asdict(each), "thread_key": f"{each.thread_key:016x}", "archive": archive}


def _counted_as(why: str) -> str:
    return f"to {why}" if why in (*ACTIONS, "archive") else safe(why)


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
    at: At = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    yes: Yes = False,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Prune, trim and seal once what the policies allow. Asks for confirmation.

    JSON: a line for the plan, unless --yes, and a line for the report. On SIGTERM or Ctrl-C it
    finishes the batch under way and reports what was done.
    """
    if dry_run:
        plan(
            db,
            policies,
            ttl,
            tenant,
            all_tenants,
            schema,
            at,
            everything=everything,
            as_json=as_json,
        )
        return
    chosen, out = policies_of(policies, ttl), Output(as_json)
    now = None if at is None else parse_moment(at)
    if now is not None and now > datetime.now(UTC):
        raise typer.BadParameter(
            f"{at!r} is in the future; sweep as of a moment that has been, or see `retention plan`"
        )
    with writing(Target(db, tenant, schema)) as store:
        agreed = None if yes else _confirmed_plan(out, store, chosen, all_tenants, everything, now)
        total = None if agreed is None else len(agreed.decisions)
        with _signals() as arrived, out.progress("sweeping", total) as advance:
            report = carry_out(
                store,
                chosen if agreed is None else agreed,
                now if agreed is None else None,  # a plan has its own moment
                on_progress=lambda decision, outcome: advance(1),
                should_stop=lambda: not arrived.empty(),
                all_tenants=all_tenants and agreed is None,  # a plan names its tenant itself
            )
    if as_json:
        out.json(asdict(report))
    else:
        out.say(report.summary)
    if report.failed:
        raise typer.Exit(FOUND)


def _confirmed_plan(
    out: Output,
    store: EventStore,
    policies: Sequence[RetentionPolicy],
    all_tenants: bool,
    everything: bool,
    now: datetime | None = None,
) -> Plan:
    """Show a plan and ask to confirm it.

    Raises:
        Failed: it was not confirmed.
    """
    found = make_plan(store, policies, now, all_tenants=all_tenants)
    show_plan(out, found, everything)
    confirm("Apply this plan?", yes=False)
    return found


@contextmanager
def _signals() -> Iterator[queue.SimpleQueue[int]]:
    """While open, SIGTERM and SIGINT are put into the queue instead of ending the process."""
    # An Event takes a lock that the interrupted code may hold; SimpleQueue.put may be re-entered.
    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(each, lambda number, _frame: arrived.put(number)) for each in numbers]
    try:
        yield arrived
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _first(arrived: queue.SimpleQueue[int]) -> int:
    """Wait for the first signal.

    A signal that comes just before this thread falls asleep, or that another thread takes, does
    not wake it, so it looks now and then.
    """
    while True:
        with suppress(queue.Empty):
            return arrived.get(timeout=LOOK_S)


# --- run --------------------------------------------------------------------------------


def keep_sweeping(
    db: Db,
    policies: PoliciesFile = None,
    ttl: Ttl = None,
    every: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Time from one sweep to the next, such as 1h."),
    ] = None,
    cron: Annotated[
        str | None,
        typer.Option(metavar="TIMES", help='Instead of --every: a crontab, "0 3 * * *", in UTC.'),
    ] = None,
    jitter: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Start each sweep up to this much later, at random."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help=f"Serve /metrics and /healthz; the usual port is {PORT}, the default host "
            "127.0.0.1.",
        ),
    ] = None,
    check_every: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="Time from one check of the database's tables and indexes to the next, or never.",
        ),
    ] = "7d",
    tenant: Tenant = "default",
    all_tenants: AllTenants = False,
    schema: Schema = None,
    yes: Yes = False,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Sweep now and regularly until SIGTERM or Ctrl-C. Asks for confirmation.

    Several of them share the work. JSON: a line for the plan, unless --yes, and a line for each
    sweep.
    """
    chosen, out = policies_of(policies, ttl), Output(as_json)
    if (every is None) == (cron is None):
        raise typer.BadParameter("expected either --every or --cron")
    interval = None if every is None else parse_duration(every)
    jitter_length = None if jitter is None else parse_duration(jitter)
    check_length = None if check_every == "never" else parse_duration(check_every)
    address = None if metrics is None else _parse_address(metrics)
    with writing(Target(db, tenant, schema)) as store:
        if not yes:
            _confirmed_plan(out, store, chosen, all_tenants, everything)
        counts = None
        try:
            if address is not None:
                patience = schedule_of(interval, cron, jitter_length).patience
                counts = Metrics(unhealthy_after=patience)
            daemon = BackgroundRetention(
                store,
                chosen,
                interval,
                on_report=lambda report: _show_sweep(out, report),
                cron=cron,
                jitter=jitter_length,
                all_tenants=all_tenants,
                metrics=counts,
                check_every=check_length,
            )
        except ConfigurationError:
            raise
        except ValueError as error:
            raise Failed(str(error), USAGE) from error
        with _signals() as arrived, _served(counts, address):
            whose = "all tenants" if all_tenants else f"tenant {tenant!r}"
            when = f"every {every}, starting now" if every else f"at {cron!r} (UTC)"
            later = f", up to {jitter} later" if jitter else ""
            out.note(safe(f"sweeping {whose} of {database_name(store)} {when}{later}"))
            for policy in chosen:
                out.note(safe(f"policy {policy.name!r}: {policy_text(policy)}"))
            if address is not None:
                out.note("metrics at http://{}:{}/metrics, health at /healthz".format(*address))
            with daemon:
                number = _first(arrived)
                out.note(f"{signal.Signals(number).name}: finishing the batch under way")
            out.note("stopped")
            try:
                sys.stdout.flush()
            except OSError:  # each sweep whose report could not be written has said so
                out.drop()


def policy_text(policy: RetentionPolicy) -> str:
    """What a policy says, in one line."""
    if policy.ttl == timedelta.max:
        policy = replace(policy, ttl=None)
        parts = ["prune threads by their own ttl"]
    else:
        parts = [] if policy.limits else ["keep everything"]
    for name, value in policy.described().items():
        if name in DURATIONS:
            parts.append(f"{name} {duration(value)}")
        elif name == "match":
            parts.append("match " + " ".join(f"{key}={each}" for key, each in value.items()))
        elif name != "name":
            parts.append(f"{name} {value}")
    return ", ".join(parts)


def _show_sweep(out: Output, report: SweepReport) -> None:
    """Print a report; sweeping goes on without a reader, and when the disk is full."""
    try:
        if out.as_json:
            out.json(asdict(report))
        else:
            out.say(f"{moment(report.now)} UTC: {report.summary}")
        sys.stdout.flush()
    except OSError as error:
        out.note(f"eventstore: cannot write the report of a sweep: {error.strerror}")


def _served(
    counts: Metrics | None, address: tuple[str, int] | None
) -> AbstractContextManager[object]:
    if counts is None or address is None:
        return nullcontext()
    try:
        return Endpoint(counts, *address)
    except OSError as error:
        host, port = address
        raise Failed(f"cannot serve metrics on {host}:{port}: {error}", DATABASE) from error


def _parse_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise typer.BadParameter(
            f"{text!r} is not an address; expected a form such as {PORT} or 0.0.0.0:{PORT}"
        )
    return host.strip("[]") or "127.0.0.1", int(port)
