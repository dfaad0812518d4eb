"""The log alone: appending, reading, encoding and decoding, beside the bare limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import LogOf, in_rounds
from benchmarks.measuring.timing import THREAD
from benchmarks.peers.limits import BareSqlite, bare_decoder
from benchmarks.peers.ours import stored_rows
from benchmarks.workloads.chat import chat_turns
from eventstore import Codec, Event, EventStore

ROUNDS = 200


def _answer() -> dict[str, Any]:
    answer = chat_turns(1)[0].answer
    return {"step": 1, "task": 0, "node": "chat", "writes": {"messages": [answer]}, "to": []}


@pytest.mark.benchmark(group="append one event, durably")
def test_append_bare_sqlite3(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    limit = BareSqlite(str(tmp_path / "bare.db"))
    payload = Codec().encode(_answer())
    rows = iter(range(1, 10**9))

    def insert() -> None:
        limit.write([[(1, "", next(rows), 2, None, 1_700_000_000_000_000, b"d" * 16, payload)]])

    in_rounds(benchmark, insert, rounds=ROUNDS, warmup_rounds=5)
    limit.close()


@pytest.mark.benchmark(group="append one event, durably")
def test_append_named_by_seq(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    with EventStore(tmp_path / "log.db") as store:
        event, seqs = Event(2, _answer()), iter(range(10**9))
        in_rounds(
            benchmark,
            lambda: store.append(THREAD, [event], expected_seq=next(seqs)),
            rounds=ROUNDS,
            warmup_rounds=5,
        )


@pytest.mark.benchmark(group="append one event, durably")
def test_append_after_a_known_head(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    with EventStore(tmp_path / "log.db") as store:
        event = Event(2, _answer())
        head = store.head(THREAD)

        def append() -> None:
            nonlocal head
            head = store.append_after(head, [event])

        in_rounds(benchmark, append, rounds=ROUNDS, warmup_rounds=5)
        assert head.seq >= 1


@pytest.mark.parametrize("count", [200, 1_000])
def test_read_log(benchmark: BenchmarkFixture, log_of: LogOf, count: int) -> None:
    session, _ = log_of(count)
    store = session.saver.store
    benchmark.group = f"read a log of {count:,} turns"
    events = in_rounds(benchmark, lambda: list(store.read(THREAD)), rounds=10)
    assert len(events) == 2 * count


@pytest.mark.parametrize("count", [200, 1_000])
def test_read_log_bare_decoding(benchmark: BenchmarkFixture, log_of: LogOf, count: int) -> None:
    session, _ = log_of(count)
    benchmark.group = f"read a log of {count:,} turns"
    loop = bare_decoder([row[-1] for row in stored_rows(session.saver.store, THREAD)])
    values = in_rounds(benchmark, loop, rounds=10)
    assert len(values) == 2 * count


@pytest.mark.benchmark(group="encode one event")
def test_encode(benchmark: BenchmarkFixture) -> None:
    benchmark(Codec().encode, _answer())


@pytest.mark.benchmark(group="encode one event")
def test_encode_msgpack_and_plain_zstd(benchmark: BenchmarkFixture) -> None:
    compress, value = zstandard.ZstdCompressor(level=3).compress, _answer()
    benchmark(lambda: compress(msgpack.packb(value)))


@pytest.mark.benchmark(group="decode one event")
def test_decode(benchmark: BenchmarkFixture) -> None:
    codec = Codec()
    payload = codec.encode(_answer())
    assert benchmark(codec.decode, payload) == _answer()


@pytest.mark.benchmark(group="decode one event")
def test_decode_bare(benchmark: BenchmarkFixture) -> None:
    loop = bare_decoder([Codec().encode(_answer())])
    assert benchmark(loop) == [_answer()]
