"""What a saver can do, each operation once as a coroutine; shared by all copies of a saver."""

from __future__ import annotations

from datetime import timedelta

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from eventstore.concurrency import Concurrency
from eventstore.core.core import Core
from graph.langgraph.appending import Appending
from graph.langgraph.conflict import Seen, checked
from graph.langgraph.logs import Logs
from graph.langgraph.reading import Reading
from graph.langgraph.state.sealing import Cipher, Seal
from graph.langgraph.upkeep import Upkeep
from graph.langgraph.wire import Wire
from graph.langgraph.writing import Writing


class Operations:
    """The operations of a saver on one store, for whatever serializer it has."""

    def __init__(
        self, core: Core, concurrency: Concurrency, on_conflict: str, ttl: timedelta | None
    ) -> None:
        seen = Seen()
        appending = Appending(Logs(core), concurrency)
        self.reading = Reading(appending.logs, seen)
        self.writing = Writing(appending, seen, checked(on_conflict), ttl)
        self.upkeep = Upkeep(appending, self.reading)
        self._plain = Seal()
        self._seals: list[tuple[Cipher, Seal]] = []

    def wire(self, serde: SerializerProtocol) -> Wire:
        """The border to the objects of one serializer.

        Serializers with the same cipher share a seal, and so what was folded under it.
        """
        if not isinstance(serde, EncryptedSerializer):
            return Wire(serde, self._plain)
        for cipher, seal in self._seals:
            if cipher is serde.cipher:
                return Wire(serde, seal)
        seal = Seal(serde.cipher)
        self._seals.append((serde.cipher, seal))
        return Wire(serde, seal)
