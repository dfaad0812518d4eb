"""Measurements of this library beside LangGraph and beside the limits that the machine sets."""
