"""Commands that explain what is there: ``tenants``, ``waiting``, ``branches``, ``blame``, ``ui``.

Owns starting the explorer: binding its address, making its token, and stopping it.
"""

from __future__ import annotations

import getpass
import logging
import socket
import sys
from typing import Annotated, Any

import typer

from eventstore import ConfigurationError
from eventstore.cli.application import codec_of, load_app, load_object
from eventstore.cli.exits import MISSING, USAGE, Failed
from eventstore.cli.options import (
    App,
    Db,
    Json,
    Limit,
    Ns,
    Schema,
    Target,
    Tenant,
    ThreadId,
    database_name,
    reading,
    writing,
)
from eventstore.cli.output import Output, ago, iso, moment
from eventstore.cli.sweep import PoliciesFile, policies_of
from eventstore.cli.threads import no_such_log
from eventstore.concurrency import run_sync
from eventstore.explain import langgraph, questions
from eventstore.explain.blame import Write, blame
from eventstore.explain.values import line, safe, text_of
from eventstore.models import from_micros
from graph.app import CompiledGraph
from graph.build.channels import MISSING as NOTHING


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("tenants")(tenants)
    app.command("waiting")(waiting)
    app.command("branches")(branches)
    app.command("blame")(who_wrote)
    app.command("ui")(ui)


# --- tenants ----------------------------------------------------------------------------


def tenants(db: Db, schema: Schema = None, as_json: Json = False) -> None:
    """List the tenants that have threads, with the number of their threads by status.

    JSON: a line for each tenant.
    """
    out = Output(as_json)
    rows = []
    with reading(Target(db, "default", schema)) as store:
        for name in run_sync(store.core.tenants()):
            counts = store.with_tenant(name).thread_counts()
            if as_json:
                out.json({"tenant": name, "threads": sum(counts.values()), "by_status": counts})
                continue
            words = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
            rows.append((name, sum(counts.values()), words))
    if not as_json:
        if rows:
            out.table(("TENANT", "THREADS", "BY STATUS"), rows, right="THREADS")
        else:
            out.note("no threads")


# --- waiting ----------------------------------------------------------------------------


def waiting(
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List threads that wait for a person, with what they ask. JSON: a line for each thread."""
    out = Output(as_json)
    rows = []
    with reading(Target(db, tenant, schema)) as store:
        for info in store.threads(status="waiting", limit=limit):
            asked = run_sync(questions.pending(store.core, info))
            since = from_micros(run_sync(store.core.last_recorded_us(info.thread_id)))
            if as_json:
                found = {"thread_id": info.thread_id, "since": iso(since), "questions": asked}
                out.json(found)
                continue
            what = "; ".join(
                f"{safe(text_of(each['node']))}: {line(each['value'], chars=80)}" for each in asked
            )
            rows.append((info.thread_id, ago(since), what or "(paused at a node)"))
    if not as_json:
        if rows:
            out.table(("THREAD", "SINCE", "QUESTIONS"), rows)
        else:
            out.note("no thread waits")


# --- branches ---------------------------------------------------------------------------


def branches(
    thread_id: ThreadId,
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """List where the history of a thread went apart: inside it, and into threads forked from it.

    JSON: a line for each branch.
    """
    out = Output(as_json)
    with reading(Target(db, tenant, schema)) as store:
        found = store.branches(thread_id)
        if langgraph.is_langgraph(store.thread(thread_id)):
            out.note(
                "for a thread of LangGraph only copies are listed; to see where it branched, look "
                "at the parent of each checkpoint in `eventstore history --json`"
            )
    if as_json:
        for each in found:
            out.json(
                {
                    "thread_id": each.thread_id,
                    "seq": each.at.seq,
                    "source": {
                        "thread_id": each.source_thread_id,
                        "ns": each.source.ns,
                        "seq": each.source.seq,
                    },
                }
            )
        return
    if not found:
        out.note("no branches")
        return
    rows = [
        (each.thread_id, each.at.seq, each.source_thread_id or "(deleted)", each.source.seq)
        for each in found
    ]
    out.table(("THREAD", "FORK AT SEQ", "GOES ON FROM", "SEQ"), rows, right="SEQ")


# --- blame ------------------------------------------------------------------------------


def who_wrote(
    thread_id: ThreadId,
    db: Db,
    key: Annotated[str, typer.Argument(metavar="KEY", help="A key of the state.")],
    at: Annotated[
        int | None, typer.Option("--at", min=1, help="In the state at this seq; else the last.")
    ] = None,
    tenant: Tenant = "default",
    schema: Schema = None,
    ns: Ns = "",
    limit: Limit = 10,
    as_json: Json = False,
) -> None:
    """Show who wrote a key of the state: the events, newest first, and what their nodes had read.

    JSON: a line for each write.
    """
    out = Output(as_json)
    with reading(Target(db, tenant, schema)) as store:
        info = store.thread(thread_id)
        if langgraph.is_langgraph(info):
            raise Failed(
                f"thread {thread_id!r} was written by LangGraph; `eventstore history` shows which "
                "checkpoint changed a key",
                USAGE,
            )
        head = store.head(thread_id, ns)
        if not head.seq:
            raise no_such_log(thread_id, ns)
        here = head.position._replace(seq=min(at or head.seq, head.seq))
        found = run_sync(blame(store.core, thread_id, here, [key]))
        writes = found.writes.get(key, [])[: -limit - 1 : -1]
        names: dict[int, str] = {}
        for each in writes:
            if each.at.thread_key not in names:
                owner = store.thread_at(each.at.thread_key)
                names[each.at.thread_key] = owner.thread_id if owner else "(deleted)"
    if not writes:
        raise Failed(
            f"the key {key!r} was not written in the last {found.searched} events up to seq "
            f"{here.seq} of thread {thread_id!r}",
            MISSING,
        )
    if as_json:
        for each in writes:
            out.json(_write_json(each, names))
        return
    rows = [
        (
            each.at.seq,
            moment(from_micros(each.recorded_us)),
            each.kind,
            each.node,
            each.read.seq if each.read else "",
            line(each.value, chars=100),
            names[each.at.thread_key],
        )
        for each in writes
    ]
    out.table(
        ("SEQ", "RECORDED (UTC)", "KIND", "NODE", "READ", "VALUE", "THREAD"), rows, "SEQ READ"
    )


def _write_json(write: Write, names: dict[int, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "thread_id": names[write.at.thread_key],
        "ns": write.at.ns,
        "seq": write.at.seq,
        "kind": write.kind,
        "node": write.node or None,
        "recorded_at": from_micros(write.recorded_us).isoformat(),
        "read_seq": write.read.seq if write.read else None,
        "value": write.value,
    }
    return found if write.argument is NOTHING else {**found, "argument": write.argument}


# --- the explorer -----------------------------------------------------------------------


def ui(
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    app: App = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8321,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Also answer requests for this host name (behind a proxy). Repeatable."),
    ] = None,
    base_path: Annotated[
        str, typer.Option(help="Where a proxy shows the explorer, such as /explorer.")
    ] = "",
    redact: Annotated[
        list[str] | None,
        typer.Option(help="Hide what is at this path, such as messages[*].content. Repeatable."),
    ] = None,
    redact_hook: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Called with each value before it is shown."),
    ] = None,
    allow_edits: Annotated[
        bool, typer.Option("--allow-edits", help="Add forms that change threads.")
    ] = False,
    user: Annotated[
        str | None,
        typer.Option(help="Who is recorded for changes; by default the user of this computer."),
    ] = None,
    user_header: Annotated[
        str | None, typer.Option(help="A header in which a trusted proxy says who asks.")
    ] = None,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="Show the threads of every tenant.")
    ] = False,
    policies: PoliciesFile = None,
    archive: Annotated[
        str | None, typer.Option(help="URL of the archive of pruned threads, to list it.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="EVENTSTORE_UI_TOKEN", help="What browsers must show; by default a new one."
        ),
    ] = None,
) -> None:
    """Show threads in the browser: what happened, when, and why. Runs until it is interrupted.

    Prints the address to open, with a token. Changes nothing without --allow-edits.
    """
    try:
        import uvicorn

        from eventstore.ui import create_app
        from eventstore.ui.edits import log as changes_log
        from eventstore.ui.security import LOOPBACK
    except ImportError as error:
        raise Failed(
            f"the explorer needs more packages; run pip install 'graph-eventstore[ui]' ({error})",
            USAGE,
        ) from error
    graph: CompiledGraph | None = load_app(app) if app else None
    hook = None
    if redact_hook is not None:
        name, _, path = redact_hook.partition(":")
        try:
            hook = load_object(name, path)
        except Exception as error:  # the operator's own code
            raise Failed(
                f"--redact-hook {redact_hook!r} cannot be loaded: {error}", USAGE
            ) from error
    target = Target(db, tenant, schema)
    with writing(target) if allow_edits else reading(target, codec_of(graph)) as store:
        explorer = create_app(
            store,
            graph=graph,
            token=token,
            hosts=(*LOOPBACK, host, *(allow_host or ())),
            base_path=base_path,
            redact=redact or (),
            redact_hook=hook,
            allow_edits=allow_edits,
            user=user or getpass.getuser(),
            user_header=user_header,
            policies=policies_of(policies, None) if policies else (),
            archive=archive,
            db=database_name(store),
            options={
                name: str(value)
                for name, value in (("schema", schema), ("app", app), ("policies", policies))
                if value is not None
            },
            all_tenants=all_tenants,
        )
        if allow_edits:  # so that each change is told where the explorer runs
            logging.basicConfig(level=logging.WARNING)
            changes_log.setLevel(logging.INFO)
        listening = _bound(host, port)
        with listening:
            name = f"[{host}]" if ":" in host else host
            at = f"http://{name}:{listening.getsockname()[1]}{base_path}"
            print(f"{at}/?token={explorer.state.token}", flush=True)
            print("press Ctrl+C to stop", file=sys.stderr, flush=True)
            config = uvicorn.Config(
                explorer, log_level="warning", server_header=False, timeout_graceful_shutdown=2
            )
            uvicorn.Server(config).run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Raises:
        ConfigurationError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)  # who reads the address may connect at once
    except OSError as error:
        found.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port"
        ) from error
    return found
