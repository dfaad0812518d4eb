"""The jobs that are measured: seeded data, and graphs that are declared once for every peer.

Each module owns one job: a chat, a pipeline, a document, a fan-out, a log of tool results. A
graph is declared against ``GraphApi``, so every peer runs the same nodes, reducers and edges over
the same bytes. Nothing here measures or opens a store.
"""
