"""All peers by key, and the pairs that are compared on each backend."""

from __future__ import annotations

from benchmarks.peers.peer import Pair, Peer


def find_peer(key: str) -> Peer:
    """The peer of that key; imports that peer's library only, so that memory can be measured."""
    if key.startswith("langgraph"):
        from benchmarks.peers.langgraph import PEERS
    else:
        from benchmarks.peers.ours import PEERS
    return next(peer for peer in PEERS if peer.key == key)


def sqlite_pairs() -> tuple[Pair, ...]:
    """This library beside LangGraph, and its async API beside its sync API."""
    ours = find_peer("ours")
    return (
        Pair(ours, find_peer("langgraph")),
        Pair(find_peer("ours-async"), ours, ", async", gain=False),
    )


def postgres_pairs() -> tuple[Pair, ...]:
    """Each with a pool of its own; both async; and ours on a pool that the caller made."""
    ours, theirs = find_peer("ours-postgres"), find_peer("langgraph-postgres")
    ours_async = find_peer("ours-postgres-async")
    return (
        Pair(ours, theirs),
        Pair(ours_async, find_peer("langgraph-postgres-async"), ", async"),
        Pair(ours_async, ours, ", async", gain=False),
        Pair(find_peer("ours-postgres-pool"), theirs, ", caller's pool"),
    )
