"""The meaning of events: state is their fold, and the planner says what comes next.

Pure: no I/O, no clock, no chance; calls reducers and nothing else of the user's.
"""
