"""Measures this library beside LangGraph and beside the limits that the machine sets.

Command lines are here (``compare``, ``sealing``, ``retention``, ``paths``). The folders build on
each other: ``workloads`` (what runs), ``peers``, ``reporting``, ``backends`` and ``measuring``.
``dictionary`` makes the library's compression dictionary and measures nothing.
"""
