"""Everything that an event store can do: its parts in one class.

Each part is in a module of its own, named by its subject; the docstring of a method there is
that of the same method of :class:`~eventstore.EventStore` and
:class:`~eventstore.AsyncEventStore`. ``graph`` and ``retention`` call this class directly, to
compose operations.
"""

from __future__ import annotations

from eventstore.core.append import Appending
from eventstore.core.archive import Archiving
from eventstore.core.erase import Erasing
from eventstore.core.prune import Pruning
from eventstore.core.replay import Replaying
from eventstore.core.seal import Sealing
from eventstore.core.sweeps import Sweeps
from eventstore.core.trim import Trimming
from eventstore.core.verify import Verifying


class Core(Appending, Erasing, Pruning, Sweeps, Sealing, Trimming, Archiving, Replaying, Verifying):
    """The operations of an event store, each written once as a coroutine."""
