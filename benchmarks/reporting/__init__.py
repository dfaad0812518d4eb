"""Figures, and how they are shown: a table, a Markdown page, JSON, a plot.

``figures`` and ``aims`` say what a figure is and what was promised; ``table``, ``page``, ``data``
and ``plot`` are one output each. Nothing here measures.
"""
