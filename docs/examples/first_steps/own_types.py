"""Types of your own in the state: registered by name, with a version, and upcast when read.

A payload never names a module or a class to import. It says ``customer/1``, and the reader has
registered what that is.
"""

import tempfile
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from eventstore import Codec, Event, EventStore, SerializationError, UnregisteredTypeError

codec = Codec()


@codec.register(name="customer")
@dataclass(frozen=True)
class CustomerV1:
    name: str
    credit: Decimal


class Temperature:
    """No dataclass: registered with functions that take it apart and put it together."""

    def __init__(self, celsius: float) -> None:
        self.celsius = celsius


codec.register(
    Temperature,
    name="temperature",
    pack=lambda value: value.celsius,
    unpack=lambda stored: Temperature(stored),
)

# A later release: the class has changed. The upcaster turns fields of version 1 into those of 2.
later = Codec()


def split_name(fields: dict[str, Any]) -> dict[str, Any]:
    first, _, last = fields.pop("name").partition(" ")
    return {**fields, "first": first, "last": last}


@later.register(name="customer", version=2, upcasters={1: split_name})
@dataclass(frozen=True)
class Customer:
    first: str
    last: str
    credit: Decimal


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "customers.db"
    with EventStore(path, codec=codec) as store:
        facts = {"who": CustomerV1("Ada Lovelace", Decimal("19.90")), "room": Temperature(21.5)}
        store.append("ada", [Event(1, {"who": facts["who"]}), Event(2, facts)], expected_seq=0)
        try:
            store.append("ada", [Event(1, {"files": [open]})], expected_seq=2)
        except SerializationError as error:
            print(f"refused, nothing written: {error.path} is a {error.type_name}")

    with EventStore(path, codec=later) as store:
        first, *_ = store.read("ada", upto=1)
        print(f"read by the later release: {first.data['who']}")
        try:
            list(store.read("ada"))
        except UnregisteredTypeError as missing:
            print(f"seq {missing.seq} needs the type {missing.type_name!r}, version 1")
