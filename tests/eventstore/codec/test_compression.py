"""Compression: the smallest form is written, every form is read, and dictionaries."""

from __future__ import annotations

import os
import typing
from typing import Any

import pytest
import zstandard

from eventstore.codec.codec import Codec
from eventstore.codec.compression import FORMAT_VERSION
from eventstore.errors import (
    ConfigurationError,
    CorruptEventError,
)
from tests.eventstore.codec.support import chat


@pytest.mark.parametrize(
    ("value", "kind"), [(1, 0), (chat(2), 2), (chat(2000), 1), (os.urandom(2000), 0)]
)
def test_the_smallest_form_is_written_and_every_form_is_read(value: Any, kind: int) -> None:
    codec, plain = Codec(), Codec(compress=False)
    payload, uncompressed = codec.encode(value), plain.encode(value)
    assert payload[:2] == bytes((FORMAT_VERSION, kind))
    assert uncompressed[:2] == bytes((FORMAT_VERSION, 0))
    assert plain.decode(payload) == codec.decode(uncompressed) == value
    assert codec.raw_size(payload) == codec.raw_size(uncompressed) == len(uncompressed) - 2


def test_a_small_event_compresses_well_with_the_built_in_dictionary() -> None:
    event = {
        "step": 3,
        "task": 0,
        "node": "review",
        "writes": {"messages": [{"role": "assistant", "content": "The draft looks good to me."}]},
        "to": ["publish"],
    }
    assert len(Codec().encode(event)) < 0.6 * len(Codec(compress=False).encode(event))


def test_the_level_of_large_bodies_can_be_chosen() -> None:
    codec, value = Codec(), chat(2000)
    sizes = {level: len(codec.encode(value, level=level)) for level in (-5, 19)}
    assert sizes[19] < sizes[-5]
    with pytest.raises(ValueError, match="level"):
        codec.encode(value, level=99)


@pytest.mark.parametrize("messages", [150, 300, 400])  # of 39, 78 and 104 KB
def test_a_body_that_is_worth_a_level_may_be_larger_and_still_gain_by_the_dictionary(
    messages: int,
) -> None:
    codec, value = Codec(), chat(messages)
    usual, chosen = codec.encode(value), codec.encode(value, level=9)
    assert usual[1] == 1
    assert chosen[1] == (2 if codec.raw_size(chosen) <= 96 * 1024 else 1)
    assert len(chosen) < len(usual)
    assert codec.decode(chosen) == codec.decode(usual) == value


def test_a_level_of_its_own_uses_the_dictionary_of_the_application() -> None:
    data = trained(40_000)
    codec = Codec(dictionaries={40_000: data})
    value = ["order 12345 of customer 54321 is ready", 5]
    payload = codec.encode(value, level=9)
    assert zstandard.get_frame_parameters(payload[2:]).dict_id == 40_000
    assert codec.decode(payload) == value


def trained(dict_id: int) -> bytes:
    samples: list[Any] = [f"order {i} of customer {i * 7} is ready".encode() for i in range(3000)]
    return zstandard.train_dictionary(2048, samples, dict_id=dict_id).as_bytes()


def test_further_dictionaries() -> None:
    data = trained(40_000)
    codec = Codec(dictionaries={40_000: data})
    value = "order 12345 of customer 54321 is ready"
    payload = codec.encode(value)
    assert codec.decode(payload) == value
    with pytest.raises(CorruptEventError, match="dictionary 40000"):
        Codec().decode(payload)
    reader = Codec()
    reader.add_dictionary(40_000, data, write=False)
    assert reader.decode(payload) == value
    assert reader.encode(value) == Codec().encode(value)


def test_wrong_dictionaries_are_refused() -> None:
    codec = Codec(dictionaries={40_000: trained(40_000)})
    codec.add_dictionary(40_000, trained(40_000))
    with pytest.raises(ConfigurationError, match="reserved"):
        codec.add_dictionary(7, trained(7))
    with pytest.raises(ConfigurationError, match="has the id 40002 inside"):
        codec.add_dictionary(40_001, trained(40_002))
    with pytest.raises(ConfigurationError, match="not a zstd dictionary"):
        codec.add_dictionary(40_001, b"nonsense")
    for wrong in ({"level": 23}, {"max_decoded_bytes": 0}):
        with pytest.raises(ConfigurationError):
            Codec(**typing.cast(Any, wrong))


@pytest.mark.slow
def test_the_shipped_dictionary_is_what_the_script_writes() -> None:
    from benchmarks.dictionary import train as train_dictionary
    from eventstore.codec import dictionaries

    assert zstandard.ZstdCompressionDict(dictionaries.builtin(1)).dict_id() == 1
    assert train_dictionary.train(seed=1) == train_dictionary.train(seed=1)
    if zstandard.ZSTD_VERSION == (1, 5, 7):
        assert train_dictionary.train(seed=1) == dictionaries.builtin(1)
