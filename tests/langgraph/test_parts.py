"""The pure parts: values in parts, deltas, snapshots, keys."""

from __future__ import annotations

import random
import zlib
from dataclasses import replace
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from eventstore import Codec, CorruptEventError, Position, Snapshot
from graph.langgraph.conflict import Seen
from graph.langgraph.state import patches, snapshots
from graph.langgraph.state.coding import decode, encode
from graph.langgraph.state.fold import Fold
from graph.langgraph.state.records import (
    Batch,
    Channel,
    Past,
    PastWrite,
    Saved,
    Write,
    enclosing,
    key_of,
    parsed,
    span,
)
from graph.langgraph.state.sealing import Seal
from graph.langgraph.state.values import ARRAY, MAP, WHOLE, cut, overlap, splice, whole

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=40,
)


@pytest.mark.slow
@given(plain, plain)
def test_parts_join_to_the_same_bytes_whatever_they_are_cut_against(one: Any, other: Any) -> None:
    base = cut("msgpack", msgpack.packb(one))
    data = msgpack.packb(other)
    assert cut("msgpack", data).data == cut("msgpack", data, base).data == data


@given(st.binary())
def test_any_bytes_can_be_cut(data: bytes) -> None:
    assert cut("msgpack", data).data == data
    assert cut("json", data).shape == WHOLE


def test_lists_and_maps_are_cut_at_their_elements() -> None:
    assert cut("msgpack", msgpack.packb([1, "two", [3]])).parts == tuple(
        map(msgpack.packb, (1, "two", [3]))
    )
    assert cut("msgpack", msgpack.packb({"a": 1})).shape == MAP
    long = cut("msgpack", msgpack.packb(["x" * 100] * 70_000))
    assert (long.shape, len(long.parts)) == (ARRAY, 70_000)
    assert (
        cut("msgpack", msgpack.packb(list(range(1000)))).shape == WHOLE
    )  # too small to be worth it
    assert cut("msgpack", b"\xdc\x00\x01\x01").shape == WHOLE  # a header longer than need be


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_a_list_is_spliced_out_of_another(one: list[int], other: list[int]) -> None:
    old, new = (
        cut("msgpack", msgpack.packb([str(each) for each in found])) for found in (one, other)
    )
    head, tail = overlap(old, new)
    parts = new.parts[head : len(new.parts) - tail]
    if old.shape == new.shape:
        assert splice(old, *new[:2], head, tail, parts) == new


def test_a_splice_of_parts_that_are_not_there_is_refused() -> None:
    old = cut("msgpack", msgpack.packb(["a", "b"]))
    for head, tail in ((2, 1), (-1, 0), (0, 3), (0, -1)):
        with pytest.raises(ValueError, match="parts"):
            splice(old, "msgpack", ARRAY, head, tail, ())
    with pytest.raises(ValueError, match="value"):
        splice(None, "msgpack", WHOLE, 0, 0, (b"a", b"b"))


@given(st.binary(), st.binary(max_size=500))
def test_a_patch_gives_back_what_was_packed(body: bytes, known: bytes) -> None:
    assert patches.unpack(patches.pack(body, known), known) == body


def test_a_patch_that_declares_too_much_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = patches.pack(b"a" * 5000, b"")
    monkeypatch.setattr(patches, "BYTES_MAX", 4999)
    with pytest.raises(CorruptEventError, match="declares 5000 bytes"):
        patches.unpack(packed, b"")
    with pytest.raises(CorruptEventError, match="unknown encoding"):
        patches.unpack(b"\x07abc", b"")


@pytest.mark.parametrize("size", [0, 7, 100, 7_000, 20_000, 31_000, 32_000, 100_000])
@pytest.mark.parametrize("length", [0, 1, 300, 4_096, 4_097])
def test_a_patch_of_what_is_known_is_small_whatever_the_sizes(size: int, length: int) -> None:
    known = random.Random(size).randbytes(size)
    body = known[size - length :] if size >= length else random.Random(length).randbytes(length)
    packed = patches.pack(body, known)
    assert patches.unpack(packed, known) == body
    assert len(packed) <= (60 if size >= length > 1 else length + 1)


@pytest.mark.parametrize("size", [0, 8, 70, 1_000, 20_000])
def test_a_body_that_repeats_itself_is_small_beside_little_that_is_known(size: int) -> None:
    chance = random.Random(size)
    known, text = chance.randbytes(size), chance.randbytes(200_000)
    body = text + b"one" + text + b"two" + text
    packed = patches.pack(body, known)
    assert len(packed) < len(text) + 1_000
    assert patches.unpack(packed, known) == body


def test_a_small_patch_that_is_damaged_or_holds_too_much_is_not_read() -> None:
    known, body = b"what is known already" * 9, b"and what is new" * 20
    packed = patches.pack(body, known)
    assert packed[:1] == patches.DEFLATED
    for damaged in (packed[:-1], packed + b"x", packed[:1] + b"\xff" + packed[2:], packed[:1]):
        with pytest.raises(CorruptEventError, match="the delta"):
            patches.unpack(damaged, known)
    deflate = zlib.compressobj(wbits=-15)
    bomb = patches.DEFLATED + deflate.compress(bytes(10_000_000)) + deflate.flush()
    with pytest.raises(CorruptEventError, match="more than 4096 bytes"):
        patches.unpack(bomb, b"")


def test_a_small_patch_of_an_earlier_version_is_read() -> None:
    known, body = b"what is known already" * 9, b"what is known already, and what is new"
    prefix = zstandard.ZstdCompressionDict(known, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    frame = zstandard.ZstdCompressor(dict_data=prefix).compress(body)
    assert patches.unpack(patches.ZSTD + frame, known) == body


channels = st.dictionaries(
    st.sampled_from("abcdé"),
    st.builds(
        Channel,
        st.integers(0, 5) | st.text(max_size=5) | st.floats(0, 1),
        st.none() | plain.map(lambda value: cut("msgpack", msgpack.packb(value))),
    ),
)
task = st.text(max_size=3) | st.uuids().map(str)
write = st.builds(Write, st.text(max_size=3), st.text(max_size=3), st.just("bytes"), st.binary())
saved = st.builds(
    Saved,
    st.text(min_size=1),
    st.none() | st.text(),
    st.just(("msgpack", msgpack.packb({"v": 4, "id": "x"}))),
    st.just(("json", b"{}")),
    channels,
    st.dictionaries(
        st.tuples(st.text(max_size=3), st.integers(-4, 3)),
        write,
        max_size=3,
    ),
    st.dictionaries(
        st.text(max_size=3),
        st.builds(
            Past,
            st.none() | st.binary().map(lambda data: whole("own", data)),
            st.lists(
                st.builds(PastWrite, st.text(max_size=3), st.just("null"), st.binary()), max_size=3
            ).map(tuple),
        ),
        max_size=2,
    ),
    st.just(False),
)


def batch_of(task_id: str, path: str, writes: list[Write], replaces: bool) -> Batch:
    found = [((task_id, index), each._replace(path=path)) for index, each in enumerate(writes)]
    return Batch(task_id, path, found, replaces)


batch = st.builds(batch_of, task, task, st.lists(write, max_size=3), st.booleans())


@pytest.mark.slow
@given(saved, st.none() | saved, st.booleans(), st.booleans())
def test_a_delta_to_any_checkpoint_gives_back_the_checkpoint(
    new: Saved, prior: Saved | None, inherits: bool, thorough: bool
) -> None:
    delta = encode(new, prior, inherits=inherits, carry=True, thorough=thorough)
    found = decode(*delta, prior, place=(new.id, new.parent), inherits=inherits)
    assert found == (new, True, ())


@given(saved, saved, st.lists(batch, min_size=1, max_size=3))
def test_writes_that_are_stored_with_a_checkpoint_are_given_back(
    new: Saved, prior: Saved, batches: list[Batch]
) -> None:
    new = replace(new, writes={}, past={})
    delta = encode(new, prior, inherits=True, carry=False, written=batches)
    place = new.id, new.parent
    found = decode(*delta, prior, place=place, inherits=True, has_written=True)
    assert found == (new, False, batches)


@pytest.mark.parametrize(
    "name",
    [
        "1ef4f797-8335-6428-8001-8a1503f9b875",
        "00000012-0000-0000-0000-000000000000",
        "1",
        "=x",
        "é",
    ],
)
def test_keys_are_parsed_as_they_were_made(name: str) -> None:
    for ns in ("", "a:1|b"):
        for key in (key_of(ns, name), key_of(ns, name, 17)):
            assert parsed(key) == (ns, name)
            for low, high in (span(ns), span(ns, name)):
                assert low <= key < high
    assert not span("a")[0] <= key_of("a:1", name) < span("a")[1]


def test_namespaces_around_another() -> None:
    assert enclosing("a:1|b:2|c") == ["a:1|b:2", "a:1", ""]
    assert enclosing("") == []


def test_what_was_handed_out_is_remembered_in_bounds() -> None:
    seen = Seen()
    for number in range(200):
        seen.note("t", "", str(number), as_latest=True)
    assert seen.was_latest("t", "", "199")
    assert not seen.was_latest("t", "", "0")
    seen.note("t", "", "199", as_latest=False)
    assert not seen.was_latest("t", "", "199")
    seen.forget("t")
    assert not seen.was_latest("t", "", "150")


def test_which_channels_got_late_writes_is_kept_in_snapshots() -> None:
    fold, codec = Fold(Seal()), Codec()
    for name in ("1", "2"):
        fold.add("", Saved(name, None, ("json", b"{}"), ("json", b"{}"), {}))
    late = Batch("task", "", [(("task", 0), Write("log", "", "bytes", b"x"))])
    fold.add_writes("", "0", late, early=False)
    fold.late["of an earlier version"] = None
    payload = snapshots.encoded(fold, None, codec)
    found = Snapshot(Position(1, "", 2), "langgraph/1", False, codec.encode(None), (payload,))
    _, read = snapshots.decoded(found, codec, Seal())
    for each in (fold, read):
        assert each.is_late("", "log") and not each.is_late("", "other")
        assert each.is_late("of an earlier version", "any") and not each.is_late("x", "log")
