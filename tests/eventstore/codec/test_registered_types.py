"""Registered types: versions, upcasters, and fields that are missing or unknown."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import subprocess
import sys
import threading
from typing import Any, NamedTuple

import numpy as np
import pydantic
import pytest

from eventstore.codec.codec import Codec
from eventstore.errors import (
    ConfigurationError,
    CorruptEventError,
    SerializationError,
    UnregisteredTypeError,
)
from tests.eventstore.codec.support import Box, Model, Note, Pair, Point, chat


def fields_written_by(cls: type, value: Any, **how: Any) -> bytes:
    writer = Codec()
    writer.register(cls, **how)
    return writer.encode(value)


def test_pack_and_unpack_may_use_the_codec_itself() -> None:
    codec = Codec()
    codec.register(
        Box,
        name="box",
        pack=lambda box: [codec.encode(box.content), box.content],
        unpack=lambda state: Box((codec.decode(state[0]), state[1])),
    )
    assert codec.decode(codec.encode([Box((1,)), (2,)]))[0].content == ((1,), (1,))
    assert codec.is_registered(Box)
    assert not codec.is_registered(Note)


def test_errors_of_application_functions_become_errors_of_the_payload() -> None:
    codec = Codec()
    codec.register(Box, pack=lambda box: 1 / box.content, unpack=lambda state: 1 / 0)
    with pytest.raises(SerializationError, match="ZeroDivisionError") as refused:
        codec.encode({"b": Box(0)})
    assert refused.value.path == "b"
    with pytest.raises(CorruptEventError, match="ZeroDivisionError") as corrupt:
        codec.decode(codec.encode(Box(1)))
    assert isinstance(corrupt.value.__cause__, ZeroDivisionError)


def test_upcasters_run_in_order_from_the_stored_version() -> None:
    @dataclasses.dataclass
    class Old:
        name: str

    @dataclasses.dataclass
    class New:
        first: str
        last: str
        age: int = 3

    first = fields_written_by(Old, Old("Ada Lovelace"), name="user")
    second = fields_written_by(Old, Old("Ada Lovelace"), name="user", version=2)
    reader = Codec()
    reader.register(
        New,
        name="user",
        version=3,
        upcasters={
            1: lambda fields: {"name": fields["name"].upper()},
            2: lambda fields: dict(zip(("first", "last"), fields["name"].split(), strict=True)),
        },
    )
    assert reader.decode(first) == New("ADA", "LOVELACE")
    assert reader.decode(second) == New("Ada", "Lovelace")


def test_upcasters_of_models_keep_track_of_what_was_set() -> None:
    class New(pydantic.BaseModel):
        title: str
        items: list[Any] = []
        rank: int = pydantic.Field(default_factory=lambda: 5)

    payload = fields_written_by(Model, Model(name="a"), name="m")
    reader = Codec()
    reader.register(
        New,
        name="m",
        version=2,
        upcasters={1: lambda f: {"title": f.pop("name"), **f}},
    )
    decoded = reader.decode(payload)
    assert decoded == New(title="a")
    assert decoded.model_fields_set == {"title"}
    assert decoded.rank == 5


def test_versions_that_cannot_be_read_say_why() -> None:
    payload = fields_written_by(Point, Point(1), name="p", version=2)
    with pytest.raises(UnregisteredTypeError, match=r"'p/2'.*not registered") as caught:
        Codec().decode(payload)
    assert (caught.value.type_name, caught.value.version) == ("p", 2)
    older, newer = Codec(), Codec()
    older.register(Point, name="p")
    with pytest.raises(UnregisteredTypeError, match="newer"):
        older.decode(payload)
    newer.register(Point, name="p", version=4, upcasters={3: dict})
    with pytest.raises(UnregisteredTypeError, match="without an upcaster from version 2"):
        newer.decode(payload)


@pytest.mark.parametrize("old", [Point(1, 2), Pair(1, 2)])
def test_unknown_and_missing_fields_are_corrupt(old: Any) -> None:
    @dataclasses.dataclass
    class Needy:
        x: int
        y: int
        z: int

    class Fewer(NamedTuple):
        left: int

    class Strict(pydantic.BaseModel):
        x: int

    payload = fields_written_by(type(old), old, name="p")
    for cls in (Needy, Fewer, Strict):
        reader = Codec()
        reader.register(cls, name="p")
        with pytest.raises(CorruptEventError):
            reader.decode(payload)


def test_an_unset_field_is_refused(codec: Codec) -> None:
    note = Note("a")
    del note.text
    with pytest.raises(SerializationError, match="'text' is not set"):
        codec.encode([note])
    with pytest.raises(SerializationError, match="'name' is not set"):
        codec.encode([Model.model_construct()])


def test_registering() -> None:
    codec = Codec()

    @codec.register(name="user", version=2)
    @dataclasses.dataclass
    class User:
        name: str

    assert codec.register(User, name="user", version=2) is User
    assert codec.decode(codec.encode(User("a"))) == User("a")
    with pytest.raises(ConfigurationError, match="in another way"):
        codec.register(User, name="user")
    with pytest.raises(ConfigurationError, match="already belongs to"):
        codec.register(Point, name="user")
    with pytest.raises(ConfigurationError, match="pack= and unpack="):
        codec.register(Box)
    with pytest.raises(ConfigurationError, match="both"):
        codec.register(Box, pack=str)
    for cls in (int, dict, dt.datetime):
        with pytest.raises(ConfigurationError, match="built-in type of the codec"):
            codec.register(cls)
    with pytest.raises(ConfigurationError, match="version"):
        codec.register(Point, version=0)
    with pytest.raises(ConfigurationError, match="upcasters"):
        codec.register(Point, version=2, upcasters={2: dict})
    with pytest.raises(ConfigurationError, match="rebuilt"):
        codec.register(dataclasses.make_dataclass("D", ["a"], bases=(dict,)))
    assert not codec.is_registered(Point)


@pytest.mark.slow
def test_numpy_is_never_imported_for_values_that_have_none() -> None:
    program = (
        "import sys; from eventstore import Codec; c = Codec();"
        "c.decode(c.encode({'a': (1,)}));"
        "print('numpy' in sys.modules, 'pydantic' in sys.modules);"
        "sys.modules['numpy'] = None;"
        f"c.decode(bytes.fromhex('{Codec().encode(np.zeros(2)).hex()}'))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False False"
    assert "UnregisteredTypeError" in done.stderr
    assert "numpy is not installed" in done.stderr


def test_many_threads_share_one_codec(codec: Codec) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(60):
                value = {"n": number, "chat": chat(i), "point": Point((i, {number}), Note("a" * i))}
                assert codec.decode(codec.encode(value)) == value
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
