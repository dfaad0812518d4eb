"""The pure meaning of a LangGraph thread's events: checkpoints, deltas and folds, as bytes.

Needs neither LangGraph nor the application; never reads a store, a clock or a config.
"""
