"""Without OpenTelemetry, everything works; with it, its SDK is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]


def in_a_process(code: str, *options: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


EVERYTHING: Final = """
import asyncio, sys
from typing import TypedDict
import retention
from eventstore import AsyncEventStore, ConcurrencyError, Event, EventStore, NewSnapshot, telemetry
from graph import START, StateGraph

class State(TypedDict, total=False):
    n: int

def make(store):
    drawn = StateGraph(State)
    drawn.add_node("one", lambda state: {"n": state["n"] + 1})
    drawn.add_edge(START, "one")
    return drawn.compile(checkpointer=store)

config = {"configurable": {"thread_id": "t"}}
with EventStore() as store:
    assert make(store).invoke({"n": 1}, config) == {"n": 2}
    assert list(make(store).stream({"n": 2}, config)) == [{"one": {"n": 3}}]
    store.put_snapshot(store.head("t"), NewSnapshot("test", b"", b""))
    assert len(list(store.replay("t").events)) == 4
    try:
        store.append("t", [Event(1)], 1)
    except ConcurrencyError:
        print("refused")

async def main():
    async with AsyncEventStore() as store:
        assert await make(store).ainvoke({"n": 1}, config) == {"n": 2}
        assert [each async for each in make(store).astream({"n": 2}, config)] == [{"one": {"n": 3}}]

asyncio.run(main())
"""

BLOCK: Final = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""


@pytest.mark.slow
def test_without_opentelemetry_everything_works() -> None:
    said = in_a_process(
        f"{BLOCK}{EVERYTHING}\n"
        "print(telemetry.on, [name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert said.split("\n") == ["refused", "False []", ""]


@pytest.mark.slow
def test_the_library_leaves_the_sdk_alone() -> None:
    said = in_a_process(
        f"{EVERYTHING}\n"
        "print(telemetry.on, [name for name in sys.modules if 'opentelemetry.sdk' in name])"
    )
    assert said.split("\n") == ["refused", "True []", ""]


@pytest.mark.slow
def test_without_it_an_append_is_not_even_wrapped() -> None:
    assert (
        in_a_process(
            f"{BLOCK}\n"
            "from eventstore import telemetry\n"
            "from eventstore.core.append import Appending\n"
            "print(hasattr(Appending.append_together, '__wrapped__'),\n"
            "      telemetry.Operation('a', '').begin() is telemetry.NOTHING)"
        )
        == "False True\n"
    )
