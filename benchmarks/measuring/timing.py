"""How time is taken: in turns, with the garbage collected before each turn."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from benchmarks.peers.peer import Peer

THREAD: Final = "conversation"
WARM_UP: Final = "warm-up"
BLOCK: Final = 10
"""The most turns or runs of one peer before the next peer's."""

Config = dict[str, Any]


def config_of(thread_id: str) -> Config:
    """A new config on each call, because a peer may keep the one that it is given."""
    return {"configurable": {"thread_id": thread_id}, "recursion_limit": 1_000}


def in_turns(each: list[Peer], count: int, run: Callable[[Peer, range], None]) -> None:
    """Give the peers blocks of the work in turn, in an order that changes.

    Blocks are small, so that a slow moment of the machine meets all peers.
    """
    size = min(BLOCK, max(1, count // BLOCK))
    for number, start in enumerate(range(0, count, size)):
        block = range(start, min(start + size, count))
        first = number % len(each)
        for peer in each[first:] + each[:first]:
            gc.collect()
            run(peer, block)


def timed(run: Callable[[], Any]) -> float:
    """The milliseconds that a call takes."""
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1e3


def require_same(what: str, results: Mapping[Peer, Any]) -> None:
    """Stop when results differ, because figures of unequal work mean nothing."""
    (one, expected), *others = results.items()
    for peer, found in others:
        if found != expected:
            raise AssertionError(f"{what}: the results of {one.name} and {peer.name} differ")


def read_history(app: Any, thread_id: str) -> tuple[int, int]:
    """Read the whole history into memory, with every state; returns the states and messages."""
    history = list(app.get_state_history(config_of(thread_id)))
    return len(history), sum(len(state.values.get("messages", ())) for state in history)
