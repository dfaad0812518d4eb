"""Where peers keep their data while they are measured: SQLite files, or PostgreSQL databases.

``backend`` says what a backend offers; ``sqlite`` and ``postgres`` are the two; ``round_trips``
counts how often a client waits for the PostgreSQL server. Nothing here runs a workload.
"""
