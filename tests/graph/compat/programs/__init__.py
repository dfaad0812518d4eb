"""Programs of the kind that people write for LangGraph, for the comparison with it.

Each takes a library and yields what it sees. They are written as their authors write them, without
annotations where LangGraph needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

PROGRAMS: Final[dict[str, Callable[[Any], Any]]] = {}

CONFIG: Final[Any] = {"configurable": {"thread_id": "1"}}

_OWN: Final = {"run_id", "tags"}
"""Metadata that only this library records."""


def program(function: Any) -> Any:
    """Add a program to :data:`PROGRAMS`."""
    PROGRAMS[function.__name__] = function
    return function


def thread(name: Any, **options: Any) -> Any:
    """The config of another thread."""
    return {"configurable": {"thread_id": str(name)}, **options}


def shown(snapshot: Any) -> dict[str, Any]:
    """What a program may look at in a snapshot, without ids and times."""
    metadata = snapshot.metadata or {}
    tasks = [
        (task.name, task.error and str(task.error), [i.value for i in task.interrupts], task.result)
        for task in snapshot.tasks
    ]
    return {
        "values": snapshot.values,
        "next": snapshot.next,
        "tasks": tasks,
        "source": metadata.get("source"),
        "step": metadata.get("step"),
        "has parent": snapshot.parent_config is not None,
        "interrupts": [each.value for each in snapshot.interrupts],
        "metadata": sorted(metadata.keys() - _OWN),
    }


def history(app: Any, config: Any = CONFIG, **options: Any) -> list[dict[str, Any]]:
    """The whole history of a thread."""
    return [shown(each) for each in app.get_state_history(config, **options)]


def talk(app: Any, config: Any = CONFIG) -> list[dict[str, Any]]:
    """The same of a conversation, without results of tasks: messages get their ids before they are
    recorded."""
    found = history(app, config)
    return [{**each, "tasks": [task[:3] for task in each["tasks"]]} for each in found]
