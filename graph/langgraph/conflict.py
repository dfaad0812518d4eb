"""Two runs on one thread: noticing that a checkpoint continues one that is no longer the latest.

Going back on purpose looks the same in the log. What tells them apart is what the saver was asked
for: a run that goes back asked for the checkpoint by its id, one that was overtaken got it as the
latest.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, Literal, get_args

from eventstore import ConcurrencyError, ConfigurationError

OnConflict = Literal["last", "error", "branch"]

_PLACES: Final = 10_000
_IDS: Final = 64


class RunConflictError(ConcurrencyError):
    """Another run continued the checkpoint first, and ``on_conflict="error"``. Nothing was stored.

    Attributes:
        checkpoint_id: the checkpoint that both runs continue.
        latest_id: the latest one now.
    """

    def __init__(
        self, thread_id: str, ns: str, checkpoint_id: str | None, latest_id: str, actual: int
    ) -> None:
        super().__init__(thread_id, ns, actual, actual)
        self.checkpoint_id = checkpoint_id
        self.latest_id = latest_id
        self.args = (
            f"thread {thread_id!r}, namespace {ns!r}: another run continued checkpoint "
            f"{checkpoint_id} first, the latest is now {latest_id}; nothing was stored; run again "
            "from the latest checkpoint, or open the saver with on_conflict='last' or 'branch'",
        )


def checked(policy: str) -> OnConflict:
    """A conflict policy by its name."""
    for known in get_args(OnConflict):
        if policy == known:
            found: OnConflict = known
            return found
    raise ConfigurationError(
        f"on_conflict must be one of {', '.join(get_args(OnConflict))}, not {policy!r:.80}"
    )


class Seen:
    """Which checkpoints were handed out as the latest of their place; bounded."""

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[str, str], OrderedDict[str | None, bool]] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, thread_id: str, ns: str, checkpoint_id: str | None, *, as_latest: bool) -> None:
        """A checkpoint was handed out; ``None``: there was none yet."""
        with self._lock:
            place = self._places.setdefault((thread_id, ns), OrderedDict())
            self._places.move_to_end((thread_id, ns))
            place[checkpoint_id] = as_latest
            place.move_to_end(checkpoint_id)
            if len(place) > _IDS:
                place.popitem(last=False)
            if len(self._places) > _PLACES:
                self._places.popitem(last=False)

    def was_latest(self, thread_id: str, ns: str, checkpoint_id: str | None) -> bool:
        """Whether a checkpoint was last handed out as the latest."""
        with self._lock:
            place = self._places.get((thread_id, ns))
            return place is not None and place.get(checkpoint_id, False)

    def forget(self, thread_id: str) -> None:
        """Forget a thread."""
        with self._lock:
            for place in [place for place in self._places if place[0] == thread_id]:
                del self._places[place]
