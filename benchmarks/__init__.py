"""Measures this library beside LangGraph and beside the limits that the machine sets.

Command lines are here (``compare``, ``sealing``, ``retention``); the folders below go from
``workloads`` (what is run) over ``peers``, ``backends`` and ``measuring`` to ``reporting``.
``dictionary`` makes the library's compression dictionary and measures nothing.
"""
