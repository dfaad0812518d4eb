"""Measures the peak memory of reading a thread's whole history, in a process of its own.

    python -m benchmarks.measuring.memory PEER TARGET THREAD

Prints JSON in MiB: ``resident``, by how much the peak of the process grew, and ``traced``, the
peak of what Python allocated. The second is taken on a second reading, because tracing every
allocation takes memory itself.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import tracemalloc
from pathlib import Path

from benchmarks.measuring.timing import WARM_UP, config_of, read_history
from benchmarks.peers.registry import find_peer
from benchmarks.workloads.chat import chat_graph


def _peak_rss() -> float:
    # On Linux a child's ru_maxrss starts at its parent's value; VmHWM starts at exec.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main() -> None:
    """Measure and print."""
    key, target, thread_id = sys.argv[1:]
    peer = find_peer(key)
    with peer.session(target) as session:
        app = session.compile(chat_graph(peer, []))
        app.get_state(config_of(WARM_UP))
        gc.collect()
        before = _peak_rss()
        read_history(app, thread_id)
        resident = _peak_rss() - before
        gc.collect()
        tracemalloc.start()
        read_history(app, thread_id)
        traced = tracemalloc.get_traced_memory()[1] / 2**20
    print(json.dumps({"resident": resident, "traced": traced}))


if __name__ == "__main__":
    main()
