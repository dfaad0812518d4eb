"""Every parameter of every operation of a store refuses what it cannot use, by an error of ours.

What it takes does no harm either: a thread beside it stays as it was.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from eventstore import Event, EventStore, EventStoreError, NewSnapshot
from eventstore.models import Addition
from tests.eventstore.support import fill, numbers

WRONG: Final[tuple[Any, ...]] = (
    None,
    True,
    1.5,
    -1,
    2**63,
    10**400,
    float("nan"),
    "",
    b"x",
    "a\x00b",
    "\ud800",
    "x" * 5000,
    [],
    {},
    (),
    object(),
    datetime(2020, 1, 1),
    datetime.max.replace(tzinfo=UTC),
    timedelta.max,
    timedelta(-1),
    int,
    Decimal(1),
    [1],
    ["x"],
    {"a": 1},
    {1: 2},
    (1, 2),
    uuid.UUID(int=1),
    Event(1, "x"),
)
NOT_TRIED: Final = {"close", "upgrade", "create", "from_url"}
"""They end the store, or make another one."""


def operations(store: EventStore) -> Iterator[tuple[str, list[inspect.Parameter]]]:
    for name in sorted(dir(EventStore)):
        method = getattr(EventStore, name)
        if name.startswith("_") or name in NOT_TRIED or not callable(method):
            continue
        _, *found = inspect.signature(method).parameters.values()
        yield name, [each for each in found if each.kind != each.VAR_KEYWORD]


@pytest.mark.slow
def test_each_parameter_refuses_what_it_cannot_use(store: EventStore) -> None:
    fill(store, "kept", 3)
    fill(store, "t", 2)
    head = store.head("t")
    usable: dict[str, Any] = {
        "thread_id": "t",
        "source_thread_id": "t",
        "events": [Event(1, "c")],
        "expected_seq": 0,
        "source_seq": 1,
        "head": head,
        "after": head.position,
        "at": head.position,
        "position": head.position,
        "snapshot": NewSnapshot("f", b"state", b""),
        "additions": [Addition(head, [Event(1, "z")])],
        "source": b"no archive",
        "thread_key": head.thread_key,
    }
    tried = 0
    for name, parameters in operations(store):
        for chosen in parameters:
            for wrong in WRONG:
                given = {
                    each.name: usable.get(each.name)
                    for each in parameters
                    if each.default is each.empty
                }
                given[chosen.name] = wrong
                tried += 1
                try:
                    result = getattr(store, name)(**given)
                    if isinstance(result, Iterator):
                        list(result)
                except (EventStoreError, ValueError):
                    continue
                except TypeError:
                    if chosen.name in ("should_stop", "on_damage"):  # functions are called
                        continue
                    pytest.fail(f"{name}({chosen.name}={wrong!r:.60}) raises a bare TypeError")
                except OSError:
                    assert (name, chosen.name) == ("load", "source"), (name, chosen.name)
    assert tried > 1000
    assert numbers(store.read("kept")) == [1, 2, 3]
    assert store.verify("kept").ok
