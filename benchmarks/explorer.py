"""What the explorer's pages cost on a large store, and what writers beside it notice.

    python -m benchmarks.explorer [--backend postgres] [--json] [--db URL]

The store has many small threads, and one whose state grows to 5 MB over 10,000 checkpoints; with
``--db`` it is filled if it is new, and kept. A view is asked for over ASGI, as a page and without
an application; its time is that of the server. The aims: the first page of threads within 200 ms,
any page within 500 ms, memory that does not grow with the number of pages, and appends beside it
whose median does not double. Exits with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import operator
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final, TypedDict

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.sweeps.writer import took_ms, writing
from eventstore import Event, EventStore
from eventstore.ui import create_app
from graph import START, StateGraph

FIRST_MS: Final = 200.0
ANY_MS: Final = 500.0
SLOWER: Final = 2.0
GROWN_MIB: Final = 16.0
WARMING: Final = 2
WRITES_S: Final = 6.0
TOKEN: Final = "benchmark-token"
LARGE: Final = "large"
WORDS: Final = [f"{word}{end}" for word in "act bear cart draw each form gain".split() for end in
                ("", "s", "ed", "ing", "er", "ers", "able", "ly")]  # fmt: skip
"""Texts of these compress about as well as prose."""


class Grown(TypedDict):
    rows: Annotated[list[str], operator.add]
    last: int


STATUSES: Final = ("waiting", "failed", "idle", "running")
WRITERS: Final = 8


def fill(url: str, threads: int, checkpoints: int) -> None:
    """Append the small threads, then run the large one, unless it is there."""
    with EventStore(url, durability="normal") as store:
        if store.head(LARGE).exists:
            return

        def add(number: int) -> None:
            name = f"thread-{number:06}"
            data = {"writes": {"topic": f"topic {number}"}, "to": ["reply"]}
            store.append(name, [Event(1, data)], 0)
            if number % 50 == 2:
                store.set_thread(name, status=STATUSES[number // 50 % 4])

        with ThreadPoolExecutor(WRITERS) as pool:
            for _ in pool.map(add, range(threads)):
                pass
        builder = StateGraph(Grown)
        chance = random.Random(1)

        def grow(state: Grown) -> Any:
            row = " ".join(chance.choices(WORDS, k=85))
            return {"rows": [f"{state['last']:08} {row}"], "last": state["last"] + 1}

        builder.add_node("grow", grow)
        builder.add_edge(START, "grow")
        builder.add_conditional_edges(
            "grow", lambda state: "grow" if state["last"] < checkpoints else "__end__"
        )
        runs = builder.compile(checkpointer=store)
        place: Any = {"configurable": {"thread_id": LARGE}, "recursion_limit": checkpoints + 10}
        runs.invoke({"rows": [], "last": 0}, place)


def views(checkpoints: int) -> list[tuple[str, str]]:
    """The pages to ask for: names and addresses."""
    middle = checkpoints // 2
    return [
        ("threads, first page", "/threads"),
        ("threads, counted by status", "/counts"),
        ("threads, by id", "/threads?prefix=thread-05"),
        ("threads, by status", "/threads?status=failed"),
        ("threads, by metadata that none has", "/threads?metadata=a%3Db"),
        ("threads, in the middle", "/threads?after=1-1"),
        ("waiting", "/waiting"),
        ("thread", f"/thread?id={LARGE}"),
        ("thread, in the middle", f"/thread?id={LARGE}&before={middle}"),
        ("transcript", f"/transcript?id={LARGE}"),
        ("checkpoint, last", f"/checkpoint?id={LARGE}"),
        ("checkpoint, in the middle", f"/checkpoint?id={LARGE}&seq={middle}"),
        ("state, a list of all rows", f"/state?id={LARGE}&path=0"),
        ("difference to the one before", f"/diff?id={LARGE}"),
        ("difference to the middle", f"/diff?id={LARGE}&to={middle}"),
        ("blame, of a key written last", f"/blame?id={LARGE}&key=last"),
        ("blame, of a key never written", f"/blame?id={LARGE}&key=none"),
        ("branches", f"/branches?id={LARGE}"),
        ("graph", f"/graph?id={LARGE}"),
        ("event", f"/event?id={LARGE}&seq={middle}"),
        ("retention", "/retention"),
        ("plan", "/plan"),
        ("storage", "/storage"),
    ]


Times = dict[str, list[tuple[float, float]]]
"""By address: milliseconds of each request, and those that this process computed in it."""


async def asked(app: Any, addresses: Sequence[str], rounds: int) -> Times:
    """Ask for each page, in several rounds."""
    found: Times = {each: [] for each in addresses}
    transport = httpx.ASGITransport(app=app)
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers
    ) as client:
        for _ in range(rounds):
            for each in addresses:
                begun, computed = time.perf_counter(), time.process_time()
                response = await client.get(each)
                took = time.perf_counter() - begun, time.process_time() - computed
                found[each].append((took[0] * 1e3, took[1] * 1e3))
                response.raise_for_status()
    return found


def measure(url: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a database, after filling it."""
    fill(url, options.threads, options.checkpoints)
    named = views(options.checkpoints)
    addresses = [address for _, address in named]
    with EventStore(url, read_only=True) as store:
        app = create_app(store, token=TOKEN)
        asyncio.run(asked(app, addresses, WARMING))
        process = psutil.Process()
        before = process.memory_info().rss
        found = asyncio.run(asked(app, addresses, options.rounds))
        grown = (process.memory_info().rss - before) / 2**20
        appends = folder / "times"
        with writing("ours", url, appends):
            time.sleep(WRITES_S)
            since = time.time()
            alone = median(took_ms(appends, 0, since))
            while time.time() < since + WRITES_S:
                asyncio.run(asked(app, addresses[:1] + addresses[7:12], 1))
            beside = median(took_ms(appends, since, time.time()))
    rows: list[dict[str, Any]] = []
    for name, address in named:
        times = [took for took, _ in found[address]]
        computed = median(took for _, took in found[address])
        aim = FIRST_MS if address == addresses[0] else ANY_MS
        figures = (median(times), max(times), computed, aim)
        rows.append({"view": name, **dict(zip(COLUMNS, figures, strict=True))})
    return {
        "backend": options.backend,
        "threads": options.threads,
        "checkpoints": options.checkpoints,
        "views": rows,
        "memory_grew_mib": grown,
        "rounds": options.rounds,
        "append_ms_alone": alone,
        "append_ms_beside": beside,
        "met": all(each["median_ms"] <= each["aim_ms"] for each in rows)
        and grown <= GROWN_MIB
        and beside <= SLOWER * alone,
    }


COLUMNS: Final = ("median_ms", "worst_ms", "computing_ms", "aim_ms")


def show(found: dict[str, Any], out: Console) -> None:
    """Print what was measured as a table."""
    table = Table("view", *(each.replace("_", " ") for each in COLUMNS), title=found["backend"])
    for each in found["views"]:
        table.add_row(each["view"], *(f"{each[name]:.0f}" for name in COLUMNS))
    out.print(table)
    out.print(
        f"memory grew by {found['memory_grew_mib']:.1f} MiB in {found['rounds']} rounds "
        f"(aim: {GROWN_MIB:.0f})"
    )
    out.print(
        f"median append beside it {found['append_ms_beside']:.2f} ms, alone "
        f"{found['append_ms_alone']:.2f} ms (aim: {SLOWER}x)"
    )
    out.print("every aim is met" if found["met"] else "an aim is missed")


@contextmanager
def database(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The URL of the database to measure."""
    if options.db is not None:
        yield options.db
        return
    if options.backend == "sqlite":
        yield str(folder / "store.db")
        return
    from tests import postgres

    with postgres.database() as url:
        yield url


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when every aim is met, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=100_000)
    parser.add_argument("--checkpoints", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--db", help="a database to fill if it is new, and to keep")
    parser.add_argument("--json", action="store_true", help="print a line of JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, database(options, Path(folder)) as url:
        found = measure(url, Path(folder), options)
    if options.json:
        print(json.dumps(found))
    else:
        show(found, Console())
    return 0 if found["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
