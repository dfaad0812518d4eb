"""A graph as it is declared and checked: nodes, edges, channels, types, drawings.

Never runs a node and never reads or writes a log.
"""
