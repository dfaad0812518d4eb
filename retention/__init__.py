"""Retention: what may be forgotten, when, and doing it safely beside live writers.

A :class:`RetentionPolicy` says what to keep and for how long, :func:`plan` what a sweep would do
now, :func:`sweep` does it; :func:`aplan` and :func:`asweep` are for async code. Policies may come
from a file or the environment. Works on stored bytes: it never imports ``graph``. The daemon and
its metrics are edges: :mod:`retention.daemon`, :mod:`retention.metrics`.
"""

import logging

from retention.config import policies_from_env, policies_from_file, policies_from_toml
from retention.decisions import Decision
from retention.plan import Plan, aplan, plan
from retention.policies import Match, RetentionPolicy
from retention.sweep import Pace, SweepReport, asweep, sweep
from retention.verdict import Verdict, judge

__all__ = [
    "Decision",
    "Match",
    "Pace",
    "Plan",
    "RetentionPolicy",
    "SweepReport",
    "Verdict",
    "aplan",
    "asweep",
    "judge",
    "plan",
    "policies_from_env",
    "policies_from_file",
    "policies_from_toml",
    "sweep",
]

# The application decides where logs go; a library prints nothing by itself.
logging.getLogger(__name__).addHandler(logging.NullHandler())
