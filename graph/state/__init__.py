"""The meaning of events: the state is their fold, and the planner says what comes next.

Pure: no I/O, no clock, no randomness. The only application code it calls are reducers.
"""
