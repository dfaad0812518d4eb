"""Sweeps: carry out what policies or a plan ask for, beside live writers.

``run`` chooses the threads and holds the public functions, ``leases`` is where several sweepers
claim their shares, ``actions`` prunes, trims and seals, ``archiving`` writes threads out first,
``pace`` leaves room for others, ``report`` counts. Nothing here decides by the clock when to
sweep: that is :mod:`retention.daemon`.
"""

from retention.sweep.pace import Pace
from retention.sweep.report import SweepReport
from retention.sweep.run import asweep, sweep

__all__ = ["Pace", "SweepReport", "asweep", "sweep"]
