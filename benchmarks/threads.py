"""Prints how the memory of a process grows with the number of threads that it has used.

Each thread is run, read twice, and read at an older checkpoint; what is kept of a thread must stay
within the bounds of the caches, however many there are.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring.timing import config_of
from benchmarks.peers.ours import PEERS
from benchmarks.workloads.chat import chat_graph, chat_turns

TURNS = 3


def peak_mib() -> float:
    """The peak resident size of this process, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main() -> None:
    """Use so many threads, and print the peak of memory after each tenth of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=20_000)
    parser.add_argument("--dir", type=Path, help="where the database goes; default: temporary")
    given = parser.parse_args()
    turns = chat_turns(TURNS)
    with (
        tempfile.TemporaryDirectory(dir=given.dir) as folder,
        PEERS[0].session(str(Path(folder) / "threads.db")) as session,
    ):
        app = session.compile(chat_graph(PEERS[0], turns))
        began = peak_mib()
        for number in range(given.threads):
            config = config_of(f"thread {number}")
            for turn in turns:
                app.invoke({"messages": [turn.question]}, config)
            app.get_state(config)
            *_, oldest = app.get_state_history(config)
            app.get_state(oldest.config)
            if (number + 1) % max(1, given.threads // 10) == 0:
                gc.collect()
                grown = peak_mib() - began
                print(f"{number + 1:>8,} threads: {grown:6.1f} MiB more", flush=True)


if __name__ == "__main__":
    main()
