"""Many threads to sweep, and writers that go on meanwhile.

Fills databases and runs writers; :mod:`benchmarks.retention` measures. Knows both LangGraph's
tables and ours.
"""
