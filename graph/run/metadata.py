"""What callers say about a run: what is recorded with it, and what threads can be searched for.

A value that cannot be stored is left out with a warning, once for each name. It never fails the
run: metadata is for people and tools, and libraries put objects of their own into it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from eventstore import Codec, ConfigurationError, SerializationError
from eventstore.limits import METADATA_BYTES_MAX, check_name

log = logging.getLogger(__name__)


class RunMetadata:
    """Chooses what of the metadata in configs is stored, for one graph on one store."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._reported: set[object] = set()

    def recorded(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What is recorded with a run: what was given, as far as it can be stored."""
        return {name: value for name, value in given.items() if self._can_be_recorded(name, value)}

    def searchable(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the thread can be searched for; stored when the thread is created."""
        found: dict[str, Any] = {}
        left = METADATA_BYTES_MAX - len("{}")
        for name, value in given.items():
            if not isinstance(value, str | int | float | bool):
                continue  # text, numbers, True and False can be searched for
            try:
                check_name("its name", name)
                size = len(json.dumps({name: value}, allow_nan=False))
            except ValueError as error:  # infinity, say
                self._report(name, f"cannot be searched for: {error}")
                continue
            if size > left:
                self._report(
                    name,
                    f"cannot be searched for: metadata may take {METADATA_BYTES_MAX} bytes as JSON",
                )
                continue
            left -= size
            found[name] = value
        return found

    def _can_be_recorded(self, name: object, value: Any) -> bool:
        if type(value) in (str, int, float, bool):
            return True
        try:
            self._codec.pack(value)
        except (SerializationError, ConfigurationError) as error:
            self._report(name, f"is not recorded: {error}")
            return False
        return True

    def _report(self, name: object, what: str) -> None:
        if name not in self._reported:
            self._reported.add(name)
            log.warning(
                "metadata %r of the config %s", name, what, extra={"metadata_name": str(name)}
            )
