"""Random use of LangGraph's runtime, on our saver and on its own in memory, side by side.

Each seed chooses a graph and a sequence of calls: inputs, resume values, edits, going back to any
checkpoint and on from there, in any durability. After every call the state and the whole history
are equal. In between our store is closed and opened, its snapshots are deleted, events are sealed.
"""

from __future__ import annotations

import random
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.types import Command

from tests.effort import effort
from tests.langgraph.graphs import approval, chat, deltas, fan_out, nested
from tests.langgraph.kit import CONFIG, Driver
from tests.langgraph.test_runtime import _Memory, plain, seen

GRAPHS = {
    "chat": chat,
    "fan-out": fan_out,
    # Asked once: of a batch with resume values and others, LangGraph's saver in memory keeps other
    # values than its savers on databases, and ours keeps what those do.
    "approval": lambda: approval(twice=False),
    "subgraph": nested,
    "subgraph that remembers": lambda: nested(keeps=True),
    "delta channel": deltas,
}


class Calls:
    """The same random calls to two applications."""

    def __init__(self, driver: Driver, name: str, chance: random.Random) -> None:
        self.driver, self.name, self.chance = driver, name, chance
        self.ours = driver.app(GRAPHS[name]())
        self.theirs = _Memory(driver).app(GRAPHS[name]())
        self.count = 0

    def both(self, call: Any) -> None:
        """Make a call on both; they return or raise the same."""
        results = []
        for app in (self.ours, self.theirs):
            try:
                results.append(plain(call(app)))
            except Exception as error:
                results.append(type(error).__name__)
        assert results[0] == results[1]

    def given(self) -> Any:
        self.count += 1
        if self.name == "chat":
            return {"messages": [HumanMessage(f"in {self.count}", id=f"in {self.count}")]}
        if self.name == "delta channel":
            return {"log": [f"in {self.count}"]}
        return {"items": [f"in {self.count}"], "text": "x" * self.chance.randint(0, 300)}

    def node(self) -> str:
        names = {"chat": "answer", "delta channel": "one", "fan-out": "split", "approval": "other"}
        return names.get(self.name, "first")

    def step(self) -> None:
        chance = self.chance
        durability = chance.choice(["sync", "async", "exit"])
        config: Any = CONFIG
        count = len(self.theirs.history())
        place = chance.randrange(count) if count and chance.random() < 0.3 else None

        def at(app: Any) -> Any:
            return config if place is None else app.history()[place].config

        what = chance.choice(["input", "input", "input", "resume", "resume", "go on", "edit"])
        if what == "input":
            given = self.given()
            self.both(lambda app: app.invoke(deepcopy(given), at(app), durability=durability))
        elif what == "resume":
            value: Any = Command(resume=f"answer {self.count}")
            self.both(lambda app: app.invoke(value, at(app), durability=durability))
        elif what == "go on":
            self.both(lambda app: app.invoke(None, at(app), durability=durability))
        else:
            given = self.given()
            self.both(lambda app: bool(app.update(at(app), deepcopy(given), as_node=self.node())))

    def disturb(self) -> None:
        what = self.chance.random()
        if what < 0.3:
            self.driver.reopen()
        elif what < 0.4 and self.driver.get() is not None:
            self.driver.store("delete_snapshots", "t")
            self.driver.reopen()
        elif what < 0.5 and self.driver.get() is not None:
            self.driver.store("seal", "t", datetime.now(UTC) + timedelta(days=1))
            self.driver.reopen()

    def compare(self) -> None:
        for one, other in zip(self.ours.history(), self.theirs.history(), strict=True):
            assert seen(one) == seen(other)
        assert seen(self.ours.state(subgraphs=True)) == seen(self.theirs.state(subgraphs=True))


@pytest.mark.slow
@pytest.mark.pairwise
@pytest.mark.parametrize("name", list(GRAPHS))
@pytest.mark.parametrize("seed", range(effort(3, 200)))
def test_random_calls_do_what_they_do_in_memory(driver: Driver, name: str, seed: int) -> None:
    calls = Calls(driver, name, random.Random(seed))
    for _ in range(effort(12, 60)):
        calls.step()
        calls.disturb()
        calls.compare()
