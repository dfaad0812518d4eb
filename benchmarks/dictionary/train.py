"""Makes the built-in zstd dictionary.

    python -m benchmarks.dictionary.train [--out FILE] [--seed 1]

Joins zstd's trained statistics (lengths of literals and matches, and their distances) with the
hand-written content. The same seed and the same version of zstandard write identical bytes. The
released file is part of the stored format: a new dictionary needs a *new* id and never replaces it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import zstandard

from benchmarks.dictionary.content import content
from benchmarks.dictionary.samples import samples
from eventstore.codec import dictionaries

DICT_ID: Final = 1
DICT_BYTES_MAX: Final = 64 * 1024
# The codec's own level: the statistics describe the matches that this level finds.
LEVEL: Final = 5
OUT: Final = Path(dictionaries.__file__).parent / f"builtin-{DICT_ID}.zdict"
# The statistics of a zstd dictionary end with its three recent offsets; the content follows.
_RECENT_OFFSETS: Final = b"\1\0\0\0\4\0\0\0\10\0\0\0"


def train(seed: int) -> bytes:
    """The bytes of the dictionary."""
    # k and d are fixed and one thread is used: searching for them depends on the machine.
    trained = zstandard.train_dictionary(
        DICT_BYTES_MAX, samples(seed), k=256, d=8, dict_id=DICT_ID, level=LEVEL
    ).as_bytes()
    end = trained.index(_RECENT_OFFSETS) + len(_RECENT_OFFSETS)
    return trained[:end] + content()[end - DICT_BYTES_MAX :]


def main() -> None:
    """Write the dictionary and print how well it compresses unseen samples."""
    parser = argparse.ArgumentParser("python -m benchmarks.dictionary.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    data = train(options.seed)
    options.out.write_bytes(data)

    unseen = samples(options.seed + 1, 2000)
    plain = zstandard.ZstdCompressor(level=LEVEL)
    trained = zstandard.ZstdCompressor(level=LEVEL, dict_data=zstandard.ZstdCompressionDict(data))
    raw = sum(map(len, unseen))
    print(f"{options.out.name}: {len(data)} bytes, zstandard {zstandard.__version__}")
    print(f"unseen samples: mean {raw / len(unseen):.0f} bytes")
    print(f"  zstd alone           {raw / sum(len(plain.compress(s)) for s in unseen):.2f} x")
    print(f"  with the dictionary  {raw / sum(len(trained.compress(s)) for s in unseen):.2f} x")


if __name__ == "__main__":
    main()
