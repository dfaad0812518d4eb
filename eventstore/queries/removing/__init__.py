"""Statements that take threads and events away."""
