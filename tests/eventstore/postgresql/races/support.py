"""Two calls at the same time on PostgreSQL, where many write at once.

Each pair of calls is run again and again: before the first statement of the one, before the
second, and so on up to its commits, the other is started beside it, and either finishes there
or waits for a lock that the first one holds. Whatever the moment, both end with an answer in
our words, and what they leave is whole. SQLite lets one writer in at a time; there, moments
between transactions are all there are (`test_deletion`, `test_forks`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import psycopg
from sqlalchemy import event

from eventstore import EventStore, EventStoreError
from tests.effort import THOROUGH

END_S_MAX: Final = 30.0
MOMENTS_MAX: Final = 200
WAITS: Final = """
    SELECT EXISTS (SELECT FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock')
"""

Call = Callable[[], Any]


class Race:
    """Runs a call, with another one beside it from a certain moment on."""

    def __init__(self, store: EventStore, watcher: psycopg.Connection[Any]) -> None:
        self._watcher = watcher
        self._moment = 0
        self.seen = 0
        self._other: Call | None = None
        self._thread: threading.Thread | None = None
        self._mine: int | None = None
        self.waited = 0
        self.answers: list[Any] = []
        event.listen(store.engine, "before_cursor_execute", self._at)
        event.listen(store.engine, "commit", self._at)

    def _at(self, *_: Any) -> None:
        if threading.get_ident() != self._mine:
            return
        self.seen += 1
        if self.seen == self._moment:
            self._thread = threading.Thread(target=self._run)
            self._thread.start()
            give_up_at = time.monotonic() + END_S_MAX
            while self._thread.is_alive() and time.monotonic() < give_up_at:
                if self._watcher.execute(WAITS).fetchone() == (True,):
                    self.waited += 1
                    return
                self._thread.join(0.002)

    def _run(self) -> None:
        assert self._other is not None
        self.answers[1] = _answer(self._other)

    def at(self, moment: int, one: Call, other: Call) -> bool:
        """Run both; false when the one was over before the moment came."""
        self._moment, self.seen, self._other, self._thread = moment, 0, other, None
        self.answers = [None, None]
        self._mine = threading.get_ident()
        self.answers[0] = _answer(one)
        self._mine = None
        if self._thread is None:
            return False
        self._thread.join(END_S_MAX)
        assert not self._thread.is_alive(), "the two wait for each other"
        return True


def _answer(call: Call) -> Any:
    try:
        return call()
    except EventStoreError as error:
        return error


def beside(
    race: Race, prepare: Callable[[], tuple[Call, Call]], check: Call, moments: int = 3
) -> int:
    """Run the race at moments of the first call, each time with new threads.

    Usually at so many, evenly spread from the first to the last; in `make thorough` at every one.
    Returns how many moments the call has.
    """
    race.at(0, *prepare())
    count = race.seen
    assert 0 < count < MOMENTS_MAX
    if THOROUGH or count <= moments:
        chosen: Sequence[int] = range(
            1, MOMENTS_MAX
        )  # up to its end: what it meets may make it take longer
    else:
        chosen = [1 + round(step * (count - 1) / (moments - 1)) for step in range(moments)]
    for moment in chosen:
        if not race.at(moment, *prepare()):
            return count
        check()
    return count


def only(answer: Any, *errors: type[EventStoreError]) -> None:
    """The answer is one of these errors, or none."""
    assert not isinstance(answer, EventStoreError) or isinstance(answer, errors), repr(answer)
