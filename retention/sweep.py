"""Prunes what a policy or a plan lets go, one thread after the other.

Promises: the moment that decides is frozen when the sweep starts; each thread is judged again
right before it goes, and its last event is looked at under the lock that condemns it. A sweep
may be killed anywhere: the next one first ends what was cut short. What goes wrong with one
thread is logged and counted, and does not stop the others.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from eventstore import EventStore, StoreClosedError, ThreadNotFoundError
from retention.plan import Plan, decide, moment
from retention.policy import Decision, RetentionPolicy

log = logging.getLogger(__name__)

Outcome = Literal["pruned", "spared", "gone", "failed"]


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep did.

    Attributes:
        now: the moment that decided.
        finished: deletions, cut short earlier, that it ended first.
        pruned: threads removed.
        spared: had become active, pinned or waiting, or were given another ttl.
        gone: someone else removed them first.
        failed: errors, all of them in the log.
        stopped: it was asked to stop before it was through.
    """

    now: datetime
    finished: int = 0
    pruned: int = 0
    spared: int = 0
    gone: int = 0
    failed: int = 0
    stopped: bool = False


def sweep(
    store: EventStore,
    plan_or_policy: Plan | RetentionPolicy,
    now: datetime | None = None,
    on_progress: Callable[[Decision, Outcome], None] | None = None,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> SweepReport:
    """Prune what may go.

    Args:
        plan_or_policy: a plan prunes no thread that it does not name.
        now: the moment to judge at; ``None``: now. A plan has its own.
        on_progress: called after each thread; what it raises ends the sweep.
        should_stop: asked between threads.

    Raises:
        ValueError: the plan is of another tenant, or the moment in the future, where live
            threads look idle.
        EventStoreError: the threads cannot be listed.
    """
    planned = plan_or_policy if isinstance(plan_or_policy, Plan) else None
    policy = plan_or_policy.policy if isinstance(plan_or_policy, Plan) else plan_or_policy
    if planned and (planned.tenant != store.tenant or now is not None):
        raise ValueError(f"a plan has its own moment, and a tenant: {planned.tenant!r}")
    at = planned.now if planned else moment(store, now)
    if at > moment(store, None):
        raise ValueError(f"cannot sweep as of {at.isoformat()}, which is in the future")
    counts: dict[str, Any] = defaultdict(int)
    if not should_stop():
        try:
            counts["finished"] = store.finish_deletions("retention: cut short, ended later")
        except StoreClosedError:
            raise
        except Exception:
            log.exception(
                "cannot end the deletions that were cut short", extra={"tenant": store.tenant}
            )
            counts["failed"] += 1
    for each in planned.decisions if planned else decide(store, policy, at):
        if should_stop():
            counts["stopped"] = True
            break
        if each.idle_since is not None:
            outcome = _prune(store, policy, each, each.idle_since, at)
            counts[outcome] += 1
            if on_progress is not None:
                on_progress(each, outcome)
    return SweepReport(at, **counts)


def _prune(
    store: EventStore, policy: RetentionPolicy, each: Decision, idle_since: datetime, at: datetime
) -> Outcome:
    try:
        today = policy.judge(store.thread(each.thread_id), at)
        if today.idle_since is None:
            return "spared"
        # The earlier one: a ttl that was shortened since must not reach what came since.
        cut_off = min(idle_since, today.idle_since)
        reason = f"retention: {today.reason}"
        removed = store.delete_thread(
            each.thread_id,
            reason,
            idle_since=cut_off,
            # Asked once more under the lock: a pin set a moment ago is heeded.
            keep_if=lambda thread: policy.judge(thread, at).idle_since is None,
        )
    except StoreClosedError:
        raise
    except ThreadNotFoundError:
        return "gone"
    except Exception:
        log.exception(
            "cannot prune thread %r",
            each.thread_id,
            extra={"tenant": store.tenant, "thread_id": each.thread_id, "reason": each.reason},
        )
        return "failed"
    return "pruned" if removed else "spared"
