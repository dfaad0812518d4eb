"""A saver that stores what tasks write behind the checkpoint that it leads to."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

from eventstore import EventStore
from graph.langgraph import EventStoreSaver


class LateSaver(EventStoreSaver):
    """What a task writes is stored behind the checkpoint that it leads to.

    That happens to LangGraph, which stores both from threads of their own.
    """

    def __init__(self, store: EventStore) -> None:
        super().__init__(store)
        self._held: SimpleQueue[Any] = SimpleQueue()
        self._parents: set[str] = set()

    def put(self, config: Any, *given: Any) -> Any:
        found = super().put(config, *given)
        self._parents.add(config["configurable"].get("checkpoint_id"))
        self._store_held()
        return found

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        self._held.put((config, writes, task_id, task_path))
        self._store_held()

    def get_tuple(self, config: Any) -> Any:
        self._store_held(all_of_them=True)
        return super().get_tuple(config)

    def _store_held(self, *, all_of_them: bool = False) -> None:
        for _ in range(self._held.qsize()):
            each = self._held.get()
            if all_of_them or each[0]["configurable"]["checkpoint_id"] in self._parents:
                super().put_writes(*each)
            else:
                self._held.put(each)
