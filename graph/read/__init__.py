"""Shows what happened: history, streams, replay checks, time travel, subgraphs.

Reads logs, and runs nodes only to check a replay.
"""
