"""The tool log: tool results of which a few come again and again, with an answer to each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from benchmarks.workloads.text import SEED, Writer

RESULTS: Final = 12
"""How many different results the tools give."""


def tool_messages(turns: int, seed: int = SEED + 5) -> Iterator[dict[str, Any]]:
    """A tool result and an assistant's answer per turn."""
    writer = Writer(seed)
    pick = writer.random
    results = [
        json.dumps(
            [
                {"id": pick.randrange(10**6), "owner": writer.word("name"), "note": writer.text(90)}
                for _ in range(8)
            ]
        )
        for _ in range(RESULTS)
    ]
    for _ in range(turns):
        yield {"role": "tool", "id": writer.uuid(), "content": pick.choice(results)}
        yield {"role": "assistant", "id": writer.uuid(), "content": writer.text(300)}
