"""What may be forgotten, when, and doing it safely beside live writers.

A :class:`RetentionPolicy` says what may go, :func:`plan` what that would be now, :func:`sweep`
does it; ``aplan`` and ``asweep`` are the same for event loops. Policies may come from a file or
the environment. The daemon and its metrics are edges: :mod:`retention.daemon`,
:mod:`retention.metrics`, or ``python -m retention``.
"""

import logging

from retention.config import policies_from_env, policies_from_file, policies_from_toml
from retention.plan import Decision, Plan, aplan, plan
from retention.policies import Match, RetentionPolicy, Verdict, judge
from retention.sweep import Pace, SweepReport, asweep, sweep

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

# Whoever uses the library decides where its log goes; nothing is printed unasked.
logging.getLogger(__name__).addHandler(logging.NullHandler())
