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
    """This library beside LangGraph, its async API beside its sync API, LangGraph on it, and nodes
    that promise not to change what they are given.
    """
    ours, theirs = find_peer("ours"), find_peer("langgraph")
    return (
        Pair(ours, theirs),
        Pair(find_peer("ours-async"), ours, ", async", gain=False),
        Pair(find_peer("langgraph-here"), theirs, ", LangGraph with our saver"),
        Pair(find_peer("ours-reusing"), theirs, ", reuse_state", only_turns=True),
    )


def postgres_pairs() -> tuple[Pair, ...]:
    """Each with a pool of its own; both async; on a pool of the caller's; and LangGraph on it."""
    ours, theirs = find_peer("ours-postgres"), find_peer("langgraph-postgres")
    ours_async = find_peer("ours-postgres-async")
    return (
        Pair(ours, theirs),
        Pair(ours_async, find_peer("langgraph-postgres-async"), ", async"),
        Pair(ours_async, ours, ", async", gain=False),
        Pair(find_peer("ours-postgres-pool"), theirs, ", caller's pool"),
        Pair(find_peer("langgraph-postgres-here"), theirs, ", LangGraph with our saver"),
    )
