"""Runs a graph: calls nodes, records their results, takes snapshots.

The meaning of events is in ``state``.
"""
