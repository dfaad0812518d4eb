"""Values to stored bytes and back: msgpack, compression, extension types, registered classes.

Knows nothing of events, rows or databases. Never imports a module or calls a constructor that a
stored byte names.
"""
