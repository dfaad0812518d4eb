"""The calls that LangGraph's runtime makes of a checkpointer, recorded once and made again.

What is measured then is the saver alone: neither the runtime nor the graph.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from langgraph.checkpoint.memory import InMemorySaver

RECORDED: Final = ("put", "put_writes")


class Call(NamedTuple):
    """A call of a method, its arguments pickled: the runtime goes on with them."""

    method: str
    arguments: bytes


class Recorder(InMemorySaver):
    """LangGraph's saver in memory, which also notes what it is asked to store.

    Attributes:
        calls: in the order in which they came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def put(self, config: Any, *arguments: Any) -> Any:
        self._note("put", config, arguments)
        return super().put(config, *arguments)

    def put_writes(self, config: Any, *arguments: Any) -> None:
        self._note("put_writes", config, arguments)
        super().put_writes(config, *arguments)

    def _note(self, method: str, config: Any, arguments: Sequence[Any]) -> None:
        plain = {
            name: value
            for name, value in config["configurable"].items()
            if value is None or isinstance(value, str | int)
        }
        self.calls.append(Call(method, pickle.dumps(({"configurable": plain}, *arguments))))


def recorded(graph: Any, inputs: Sequence[Any], config: Any) -> list[Call]:
    """The calls of as many runs of a graph, all on one thread."""
    saver = Recorder()
    app = graph.compile(checkpointer=saver)
    for values in inputs:
        app.invoke(values, config)
    return saver.calls


def loaded(calls: Sequence[Call]) -> list[tuple[str, tuple[Any, ...]]]:
    """The same calls with their arguments."""
    return [(each.method, pickle.loads(each.arguments)) for each in calls]


def make(saver: Any, calls: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
    """Make calls of a saver, one after the other."""
    for method, arguments in calls:
        getattr(saver, method)(*arguments)
