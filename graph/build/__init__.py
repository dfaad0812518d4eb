"""Declares and checks graphs: nodes, edges, channels, types, drawings.

Never runs a node, and never reads or writes a log.
"""
