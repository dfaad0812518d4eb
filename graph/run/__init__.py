"""Runs a graph: calls nodes, records what they return, takes snapshots.

Decides nothing about the meaning of events: that is in ``state``.
"""
