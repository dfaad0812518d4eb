"""A disk whose commits take longer: a library that sleeps before each ``fsync`` of a process.

Loaded into processes that are started while it is in use (``LD_PRELOAD``), so every peer and
PostgreSQL itself wait where they sync. Linux, with a C compiler.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_SOURCE: Final = """
#define _GNU_SOURCE
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
static void wait_a_little(void) {
    struct timespec delay = {0, DELAY_US * 1000L};
    nanosleep(&delay, 0);
}
int fsync(int file) { wait_a_little(); return syscall(SYS_fsync, file); }
int fdatasync(int file) { wait_a_little(); return syscall(SYS_fdatasync, file); }
"""


@contextmanager
def slow_disk(delay_ms: float) -> Iterator[None]:
    """Let each sync of processes started meanwhile take so many milliseconds longer.

    Raises:
        ValueError: the delay is a second or more.
    """
    if not 0 <= delay_ms < 1_000:
        raise ValueError(f"a sync may be delayed by 0 to 999 ms, not by {delay_ms}")
    if not delay_ms:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="slow-disk-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user
        library = Path(folder) / "slow.so"
        options = ["-shared", "-fPIC", "-O1", f"-DDELAY_US={round(delay_ms * 1_000)}", "-x", "c"]
        subprocess.run(["cc", *options, "-o", library, "-"], input=_SOURCE, text=True, check=True)
        before = os.environ.get("LD_PRELOAD")
        os.environ["LD_PRELOAD"] = f"{before} {library}" if before else str(library)
        try:
            yield
        finally:
            del os.environ["LD_PRELOAD"]
            if before:
                os.environ["LD_PRELOAD"] = before
