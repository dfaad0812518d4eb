"""The digest chain and the keys of threads: pure functions over bytes.

Each event's digest covers the digest before it and everything in its own row, with its body
uncompressed. So a changed, swapped or missing row breaks the chain at the next link, and events
can be compressed anew and keep their digests. A log's first link is derived from the log's own
identity, so that one log cannot pass for another; a prefix (see ``prefix_ns``) keeps the identity
of the log that it was copied from.
"""

from __future__ import annotations

import hashlib
import re
import struct

_ROW = struct.Struct(">qhqi")
_PREFIX = re.compile(r"~([0-9a-f]{16})~(.*)", re.DOTALL)


def thread_key(tenant: str, thread_id: str, generation: int) -> int:
    """The 63-bit key of a generation of this name; no key is ever used twice."""
    salt = generation.to_bytes(8, "big")
    digest = hashlib.blake2b(_name(tenant, thread_id), digest_size=8, salt=salt).digest()
    return int.from_bytes(digest, "big") >> 1


def belongs(key: object, tenant: object, thread_id: object, generation: object) -> bool:
    """Whether a key is that of a generation of this name, whatever the values are."""
    if type(tenant) is not str or type(thread_id) is not str or type(generation) is not int:
        return False
    return 0 <= generation < 2**63 and thread_key(tenant, thread_id, generation) == key


def generation_of(key: int, tenant: str, thread_id: str) -> int | None:
    """The generation whose key this is; ``None`` if it is none of the first thousand."""
    found = (n for n in range(1000) if thread_key(tenant, thread_id, n) == key)
    return next(found, None)


def name_digest(tenant: str, thread_id: str) -> bytes:
    """What a tombstone keeps of a name: enough to recognize the name, not to read it."""
    return hashlib.blake2b(_name(tenant, thread_id), digest_size=16).digest()


def keyed_name_digest(secret: bytes, tenant: str, thread_id: str) -> bytes:
    """What a tombstone keeps of an erased thread's name: useless without the secret."""
    return hashlib.blake2b(_name(tenant, thread_id), digest_size=16, key=secret).digest()


def tombstone_key(secret: bytes, thread_key: int) -> int:
    """The key of the tombstone of an erased thread: negative, so that no thread has it.

    The thread's own key is a hash of its name, and would confirm a guessed name.
    """
    digest = hashlib.blake2b(thread_key.to_bytes(8, "big"), digest_size=8, key=secret).digest()
    return -1 - (int.from_bytes(digest, "big") >> 1)


def _name(tenant: str, thread_id: str) -> bytes:
    return f"{len(tenant)}:{tenant}{thread_id}".encode("utf-8", "surrogatepass")


def prefix_ns(thread_key: int, ns: str) -> str:
    """The prefix of a log: the namespace in which a detached fork keeps its copy of that log."""
    return ns if _PREFIX.fullmatch(ns) else f"~{thread_key:016x}~{ns}"


def origin(thread_key: int, ns: str) -> tuple[int, str]:
    """The log that the events here were first written to; the inverse of :func:`prefix_ns`."""
    match = _PREFIX.fullmatch(ns)
    return (int(match[1], 16), match[2]) if match else (thread_key, ns)


def genesis(thread_key: int, ns: str) -> bytes:
    """The link before a log's first event."""
    key, name = origin(thread_key, ns)
    text = f"{key:016x}/{name}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def link(
    previous: bytes, seq: int, kind: int, key: str | None, recorded_us: int, body: bytes
) -> bytes:
    """The digest of an event: BLAKE2b-128 over the digest before it and its whole row.

    Args:
        body: of its payload; for payloads of format 1 the payload itself.
    """
    name = b"" if key is None else key.encode("utf-8", "surrogatepass")
    row = _ROW.pack(seq, kind, recorded_us, -1 if key is None else len(name))
    return hashlib.blake2b(previous + row + name + body, digest_size=16).digest()


def checksum(
    previous: bytes, place: tuple[int, int | None], fingerprint: str, items: bytes, state: bytes
) -> bytes:
    """The checksum of a snapshot's row.

    Args:
        previous: the digest of the event that it was taken at, which ties it to its log.
        place: its seq, and the seq of the snapshot that it rests on.
    """
    seq, rests_on = place
    sizes = struct.pack(">qqii", seq, rests_on or 0, len(fingerprint), len(items))
    head = previous + sizes + fingerprint.encode()
    return hashlib.blake2b(head + items + state, digest_size=16).digest()


def row_checksum(
    created_at: int, ttl: int | None, pinned: bool, metadata: str, pin: str | None
) -> bytes:
    """The checksum of a thread's row: of what appends never change, and its key does not cover."""
    text = f"{created_at}/{ttl}/{pinned}/{len(metadata)}:{metadata}{pin}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def is_prefix(ns: str) -> bool:
    """Whether a namespace is a prefix, made by :func:`prefix_ns`."""
    return _PREFIX.fullmatch(ns) is not None
