"""What stored bytes mean: digests, records, segments, namespaces, archive files.

Pure functions over bytes and rows; nothing here opens a connection or runs a statement.
"""
