"""What may be forgotten, when, and doing it safely beside live writers.

A :class:`RetentionPolicy` says what may go, :func:`plan` what that would be now, :func:`sweep`
does it. The daemon is an edge: :mod:`retention.daemon`, or ``python -m retention``.
"""

import logging

from retention.plan import Plan, plan
from retention.policy import Decision, RetentionPolicy
from retention.sweep import SweepReport, sweep

__all__ = ["Decision", "Plan", "RetentionPolicy", "SweepReport", "plan", "sweep"]

# Whoever uses the library decides where its log goes; nothing is printed unasked.
logging.getLogger(__name__).addHandler(logging.NullHandler())
