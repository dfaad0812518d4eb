"""The digest chain and the keys of threads: pure functions over bytes.

Each event's digest covers the digest before it and everything in its own row, its body
uncompressed, so that a changed, swapped or missing row shows at the next link, and events can
be compressed anew and keep their digests. A log's first link is derived from the log's own
identity, so that one log cannot pass for another; a prefix that a fork was given of a deleted
thread (see ``prefix_ns``) keeps the identity of the log it came from.
"""

from __future__ import annotations

import hashlib
import re
import struct

_ROW = struct.Struct(">qhqi")
_PREFIX = re.compile(r"~([0-9a-f]{16})~(.*)", re.DOTALL)


def thread_key(tenant: str, thread_id: str, generation: int) -> int:
    """The 63-bit key of the nth thread of this name; no key is ever used twice."""
    salt = generation.to_bytes(8, "big")
    digest = hashlib.blake2b(_name(tenant, thread_id), digest_size=8, salt=salt).digest()
    return int.from_bytes(digest, "big") >> 1


def name_digest(tenant: str, thread_id: str) -> bytes:
    """What a tombstone keeps of a name: enough to know it again, and not the name."""
    return hashlib.blake2b(_name(tenant, thread_id), digest_size=16).digest()


def keyed_name_digest(secret: bytes, tenant: str, thread_id: str) -> bytes:
    """What a tombstone keeps of the name of an erased thread: nothing without the secret."""
    return hashlib.blake2b(_name(tenant, thread_id), digest_size=16, key=secret).digest()


def tombstone_key(secret: bytes, thread_key: int) -> int:
    """The key of the tombstone of an erased thread: negative, so that no thread has it.

    A thread's own key is a hash of its name, by which anyone who guesses the name knows it.
    """
    digest = hashlib.blake2b(thread_key.to_bytes(8, "big"), digest_size=8, key=secret).digest()
    return -1 - (int.from_bytes(digest, "big") >> 1)


def _name(tenant: str, thread_id: str) -> bytes:
    return f"{len(tenant)}:{tenant}{thread_id}".encode("utf-8", "surrogatepass")


def prefix_ns(thread_key: int, ns: str) -> str:
    """The namespace in which a fork keeps what it was given of the log (thread_key, ns)."""
    return ns if _PREFIX.fullmatch(ns) else f"~{thread_key:016x}~{ns}"


def origin(thread_key: int, ns: str) -> tuple[int, str]:
    """The log that these events were first written to; the inverse of :func:`prefix_ns`."""
    match = _PREFIX.fullmatch(ns)
    return (int(match[1], 16), match[2]) if match else (thread_key, ns)


def genesis(thread_key: int, ns: str) -> bytes:
    """The link that stands before a log's first event."""
    key, name = origin(thread_key, ns)
    text = f"{key:016x}/{name}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def link(
    previous: bytes, seq: int, kind: int, key: str | None, recorded_us: int, body: bytes
) -> bytes:
    """The digest of an event: BLAKE2b-128 over the one before it and its whole row.

    The ``body`` is what its payload holds, uncompressed; of payloads of version 1, all of it.
    """
    name = b"" if key is None else key.encode("utf-8", "surrogatepass")
    row = _ROW.pack(seq, kind, recorded_us, -1 if key is None else len(name))
    return hashlib.blake2b(previous + row + name + body, digest_size=16).digest()


def checksum(
    previous: bytes, place: tuple[int, int | None], fingerprint: str, items: bytes, state: bytes
) -> bytes:
    """What a snapshot row must verify against.

    Args:
        previous: digest of the event that it was taken at, which ties it to its log.
        place: its seq, and that of the snapshot it rests on.
    """
    seq, rests_on = place
    sizes = struct.pack(">qqii", seq, rests_on or 0, len(fingerprint), len(items))
    head = previous + sizes + fingerprint.encode()
    return hashlib.blake2b(head + items + state, digest_size=16).digest()


def is_prefix(ns: str) -> bool:
    """Whether a namespace is one that :func:`prefix_ns` gives."""
    return _PREFIX.fullmatch(ns) is not None
