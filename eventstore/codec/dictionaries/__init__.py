"""The zstd dictionaries that come with the library, by id.

A dictionary is part of the stored format: once released, its bytes never change and it is
never removed, since payloads refer to it by id. Ids below ``FIRST_CUSTOM_ID`` are reserved
for this package. ``benchmarks/dictionary/train.py`` wrote them.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

FIRST_CUSTOM_ID = 32768

_FILES = {1: "builtin-1.zdict"}
BUILTIN_ID = 1


@cache
def builtin(dict_id: int) -> bytes:
    """The bytes of a built-in dictionary."""
    return files(__name__).joinpath(_FILES[dict_id]).read_bytes()
