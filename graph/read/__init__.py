"""Shows what happened: history, streams, replay checks, time travel, subgraphs.

Reads logs and never runs a node, except to rehearse a replay.
"""
