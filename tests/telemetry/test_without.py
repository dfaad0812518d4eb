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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["trace", "metrics"])
def test_a_provider_may_be_set_after_the_first_append(kind: str) -> None:
    """Until then nothing is made."""
    set_one = {
        "trace": "trace.set_tracer_provider(provider)",
        "metrics": "metrics.set_meter_provider(MeterProvider([reader]))",
    }
    assert (
        in_a_process(f"""
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from eventstore import Event, EventStore, telemetry

spans, reader, provider = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
with EventStore() as store:
    store.append("t", [Event(1)], 0)
    print(telemetry.is_reporting())
    {set_one[kind]}
    store.append("t", [Event(1)], 1)
    print(telemetry.is_reporting())
print([span.name for span in spans.get_finished_spans()])
found = reader.get_metrics_data().resource_metrics if "{kind}" == "metrics" else ()
for metric in [metric for each in found for metric in each.scope_metrics[0].metrics]:
    if metric.name == "eventstore.appended.events":
        print(metric.data.data_points[0].value)
""")
        == {
            "trace": "False\nTrue\n['eventstore.append']\n",
            "metrics": "False\nTrue\n[]\n1\n",
        }[kind]
    )
