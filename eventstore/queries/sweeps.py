"""Retention leases and records: sweepers claim slices of the key space, and record their sweeps.

Times come from the sweepers. If their clocks disagree, two may sweep one slice at once, which costs
time and does no harm: the deletion of each thread is decided under its lock. A time further in the
future than clocks differ counts for nothing: else one wrong clock would stop all sweeps until then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, or_, select, update

from eventstore.db.schema import insert_if_new, slices, sweeps
from eventstore.models import SqlRow
from eventstore.retention_models import SLICES

_ALL_SLICES = [
    {"slice": number, "holder": "", "lease_until": 0, "swept_at": 0} for number in range(SLICES)
]
_in_scope = slices.c.scope == bindparam("which")
_COUNT = select(func.count()).select_from(slices).where(_in_scope)
_FREE = (
    select(slices.c.slice, slices.c.lease_until, slices.c.swept_at)
    .where(
        _in_scope,
        or_(slices.c.lease_until < bindparam("now"), slices.c.lease_until > bindparam("lease_max")),
        or_(slices.c.swept_at < bindparam("due"), slices.c.swept_at > bindparam("now_max")),
    )
    .order_by(slices.c.swept_at, slices.c.slice)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    update(slices)
    .where(_in_scope, slices.c.slice == bindparam("number"))
    .values(holder=bindparam("who"), lease_until=bindparam("until"))
)
_is_held = (
    _in_scope,
    slices.c.slice == bindparam("number"),
    slices.c.holder == bindparam("who"),
)
_RENEW = update(slices).where(*_is_held).values(lease_until=bindparam("until"))
_RELEASE = (
    update(slices)
    .where(*_is_held)
    .values(
        holder="",
        lease_until=0,
        swept_at=func.coalesce(bindparam("at", type_=slices.c.swept_at.type), slices.c.swept_at),
    )
)


def claim(
    conn: Connection,
    scope: str,
    holder: str,
    *,
    now_us: int,
    until_us: int,
    due_us: int,
    skew_us: int,
) -> SqlRow | None:
    """Claim the slice that has waited longest, if one is free and due.

    Args:
        skew_us: how far clocks may differ.

    Returns:
        The slice, and its lease and last sweep until now.
    """
    given = {
        "which": scope,
        "now": now_us,
        "lease_max": until_us + skew_us,
        "due": due_us,
        "now_max": now_us + skew_us,
    }
    found = conn.execute(_FREE, given).first()
    if found is None and conn.execute(_COUNT, {"which": scope}).scalar() != SLICES:
        # This scope was never swept.
        made = [{"scope": scope, **each} for each in _ALL_SLICES]
        conn.execute(insert_if_new(conn, slices), made)
        found = conn.execute(_FREE, given).first()
    if found is not None:
        claimed = {"which": scope, "number": found.slice, "who": holder, "until": until_us}
        conn.execute(_CLAIM, claimed)
    return found


def renew(conn: Connection, scope: str, number: int, holder: str, until_us: int) -> bool:
    """Extend the lease of a slice; false if another sweeper has claimed it."""
    given = {"which": scope, "number": number, "who": holder, "until": until_us}
    return conn.execute(_RENEW, given).rowcount > 0


def release(conn: Connection, scope: str, number: int, holder: str, swept_us: int | None) -> None:
    """Release a slice, if the holder still has it."""
    given = {"which": scope, "number": number, "who": holder, "at": swept_us}
    conn.execute(_RELEASE, given)


_END_SWEEP = (
    update(sweeps)
    .where(sweeps.c.sweep_id == bindparam("which"))
    .values(finished_at=bindparam("at"), counts=bindparam("result"))
)
_DELETE_OLD_SWEEPS = delete(sweeps).where(
    sweeps.c.started_at < bindparam("before"), sweeps.c.sweep_id != bindparam("which")
)
_SWEEPS = (
    select(sweeps).order_by(sweeps.c.started_at.desc(), sweeps.c.sweep_id).limit(bindparam("page"))
)


def begin_sweep(conn: Connection, row: Mapping[str, Any]) -> None:
    """Record that a sweep begins; recording it again changes nothing."""
    conn.execute(insert_if_new(conn, sweeps), row)


def end_sweep(
    conn: Connection, sweep_id: str, at_us: int, counts: str, forget_before_us: int
) -> bool:
    """Record what a sweep did, and delete old records; false if no sweep has this id."""
    given = {"which": sweep_id, "at": at_us, "result": counts}
    conn.execute(_DELETE_OLD_SWEEPS, {"before": forget_before_us, "which": sweep_id})
    return conn.execute(_END_SWEEP, given).rowcount > 0


def list_sweeps(conn: Connection, limit: int) -> Sequence[SqlRow]:
    """The recorded sweeps, latest first."""
    return conn.execute(_SWEEPS, {"page": limit}).fetchall()
