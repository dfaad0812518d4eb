"""Folds logs again from their first event, whatever snapshots there are.

What comes of it is the truth: snapshots are compared with it, and made anew from it.
"""

from __future__ import annotations

from dataclasses import replace

from eventstore import VerifyReport
from eventstore.core.core import Core
from eventstore.format.digests import is_prefix
from graph.errors import InvalidConfigError, ReducerError, SchemaChangedError
from graph.read import subgraphs
from graph.read.history import ReadableGraph, Reader
from graph.run.address import Address
from graph.run.snapshots import stored_form
from graph.run.thread_log import ThreadLog
from graph.state.state import COMMAND, State
from graph.types import StateSnapshot


async def replayed(reader: Reader, address: Address, seq: int | None = None) -> StateSnapshot:
    """The state at an address, or at an event of its log, folded from the first event."""
    log, thread_id, ns = reader.log, address.thread_id, address.ns
    if seq is None:
        at = await log.resolve(thread_id, address.position)
    else:
        at = (await log.core.head(thread_id, ns)).position._replace(seq=seq)
    replay, state, _ = await log.load(thread_id, at, ns, snapshots=False)
    current = replay.position == replay.head.position
    return await reader.snapshot(thread_id, state, ns, current=current)


async def rebuild(graph: ReadableGraph, core: Core, thread_id: str) -> int:
    """Delete every snapshot, and store new ones at the ends of logs where one is due.

    Returns:
        The number of snapshots deleted.
    """
    dropped = await core.delete_snapshots(thread_id)
    for ns in await core.namespaces(thread_id):
        log = _log_of(graph, core, ns)
        if log is not None:
            replay, state, taker = await log.load(thread_id, None, ns, False)
            snapshot = taker.take(state) if state.settled else None
            if snapshot is not None:
                await core.put_snapshot(replay.head, snapshot)
    return dropped


async def verify(graph: ReadableGraph, core: Core, thread_id: str) -> VerifyReport:
    """Check the digests as the store does, and that every usable snapshot equals its replay."""
    report = await core.verify(thread_id)
    if not report.ok:
        return report
    problems: list[str] = []
    for ns in report.namespaces:
        log = _log_of(graph, core, ns)
        if log is not None:
            problems += await _differing(log, thread_id, ns)
    return replace(report, problems=tuple(problems))


def _log_of(graph: ReadableGraph, core: Core, ns: str) -> ThreadLog | None:
    """Folds the logs of a namespace; ``None`` if the graph has no such subgraph."""
    if is_prefix(ns):
        return None
    try:
        inner: ReadableGraph = subgraphs.graph_of(graph, ns)
    except InvalidConfigError:
        return None
    return inner.log_on(core)


async def _differing(log: ThreadLog, thread_id: str, ns: str) -> list[str]:
    where = f" of {ns}" if ns else ""
    problems = []
    for at in await log.core.snapshot_positions(thread_id, log.fingerprint, ns):
        try:
            quick, whole = [
                (await log.load(thread_id, at, ns, snapshots))[1] for snapshots in (True, False)
            ]
        except (ReducerError, SchemaChangedError) as error:
            problems.append(str(error))
            continue
        # Compare stored bytes: some values have no reliable equality (NaN, arrays).
        forms = {stored_form(log.core.codec, _as_before(state)) for state in (quick, whole)}
        if len(forms) > 1:
            problems.append(
                f"the snapshot at seq {at.seq}{where} differs from the fold of its events"
            )
    return problems


def _as_before(state: State) -> State:
    """A state as snapshots of every version hold it: some call a command an input."""
    source = "input" if state.source == COMMAND else state.source
    return state._replace(parent=None, stands_on=None, source=source)
