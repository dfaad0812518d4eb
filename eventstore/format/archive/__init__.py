"""One archived thread as a file: versioned, checksummed, self-contained. The format, and no SQL.

    magic, version, length of the header | header (msgpack) | its BLAKE2b-128
    | rows: one zstd frame of msgpack records | BLAKE2b-256 of everything before

The header names the thread and counts its rows; it can be read and verified without the rest.
The rows are those of the database, as stored, together with what the thread needs of threads
that it was forked from, and with the application's dictionaries that its payloads are
compressed with (not those that come with the library).

Nothing of a file is used before its checksum is verified. Even then sizes and types are
checked, the digest chain is walked, and no payload is decoded into objects. Reading and writing
take bounded memory: files larger than ``SPOOL_BYTES`` wait on disk.
"""
