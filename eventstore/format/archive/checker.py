"""What makes the records of an archive file consistent, one after the other.

The writer and the reader of a file share this check. It walks the digest chain of each log,
verifies snapshots, and matches forks with their links. Promises that what passes can be
inserted into a database as one whole thread. Memory is bounded by one log at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import msgpack

from eventstore.codec.compression import Compression
from eventstore.errors import CorruptEventError
from eventstore.format import checks, digests
from eventstore.format.archive.header import DECODE_ERRORS, Header
from eventstore.format.archive.rows import (
    COLUMNS,
    DICTIONARY,
    END,
    EVENT,
    FIELDS,
    FORK_LINK,
    LOG,
    SEGMENT,
    SNAPSHOT,
    THREAD,
    Row,
    check_types,
)
from eventstore.format.segments import Segment, covered, unseal
from eventstore.models import FORK, Position

_SOURCE_BYTES_MAX: Final = 2**20

DICTIONARIES_MAX: Final = 64
"""Dictionaries in a file; each takes about 1 MB once it is ready for use."""


class _Stub(NamedTuple):
    """What the emptied row of a sealed event repeats."""

    kind: int
    key: str
    recorded_at: int
    digest: bytes


class Checker:
    """Checks the records of one file in order.

    Attributes:
        logs: the logs that were complete so far, each with the seq of its last event.
        counts: how many rows each table had so far.
    """

    def __init__(self, header: Header, compression: Compression) -> None:
        self._header = header
        self._compression = compression
        self._stage = COLUMNS
        self._dictionaries = 0
        self._ended = False
        self.logs: dict[str, int] = {}
        self.counts = dict.fromkeys(FIELDS, 0)
        # Across logs: the seq of each log that forks need, and the last seq that each reaches.
        self._needed: dict[str, int] = {}
        self._tops: dict[str, int] = {}
        # Of the current log.
        self._ns: str | None = None
        self._last_seqs: dict[int, int] = {}  # of each table
        self._bases: dict[int, bytes] = {}
        self._digests: dict[int, bytes] = {}  # at snapshots
        self._links: dict[int, Position] = {}  # forks whose event is still to come
        self._stubs: dict[int, _Stub] = {}  # sealed events whose own row is still to come
        self._seq, self._digest = 0, b""

    def check(self, tag: int, row: Row) -> None:
        """Check the next record.

        Raises:
            CorruptEventError: it is not what was once stored.
        """
        ns, seq = self._ns or "", 0
        try:
            if self._ended:
                raise CorruptEventError("a record follows the end")
            if tag in FIELDS:
                check_types(tag, row)
                self.counts[tag] += 1
            if tag >= SNAPSHOT:
                seq = row[0]
            self._check(tag, row)
        except CorruptEventError as error:
            if error.seq is None:
                error.at(self._header.thread_id, ns, seq)
            raise
        except DECODE_ERRORS as error:
            damage = CorruptEventError(f"a row holds an invalid value: {error}")
            raise damage.at(self._header.thread_id, ns, seq) from error

    def _check(self, tag: int, row: Row) -> None:
        if tag == DICTIONARY:
            self._check_dictionary(*row)
        elif tag == LOG:
            self._begin_log(*row)
        elif tag == END:
            self._end_log()
            self._ended = True
        elif tag in FIELDS:
            stage = min(tag, SEGMENT)  # segments and events are sorted together
            if stage < self._stage or (tag > THREAD) != (self._ns is not None):
                raise CorruptEventError("the tables of the file are out of order")
            if tag > THREAD and not self._last_seqs.get(tag, 0) < row[0]:
                raise CorruptEventError("the rows of a log are out of order")
            self._stage = stage
            self._last_seqs[tag] = row[0]
            _CHECKS[tag](self, dict(zip(FIELDS[tag], row, strict=True)))
        else:
            raise CorruptEventError(f"a record has the unknown tag {tag!r}")

    def _check_dictionary(self, dict_id: Any, data: Any) -> None:
        if type(dict_id) is not int or type(data) is not bytes:
            raise CorruptEventError("a dictionary has an invalid id or content")
        self._dictionaries += 1
        if self._dictionaries > DICTIONARIES_MAX:
            raise CorruptEventError(f"there are more than {DICTIONARIES_MAX} dictionaries")

    def _check_thread(self, row: Mapping[str, Any]) -> None:
        header = self._header
        same = (row["thread_key"], row["tenant"], row["thread_id"], row["generation"]) == (
            header.thread_key,
            header.tenant,
            header.thread_id,
            header.generation,
        )
        if not same or row["deleting_since"] is not None or self.counts[THREAD] > 1:
            raise CorruptEventError("the thread is not the one that the header names")
        _, pin = checks.check_thread(SimpleNamespace(**row))
        times = (row["created_at"], row["active_at"])
        if times != (header.created_us, header.active_us) or row["pinned"] != (
            header.pin is not None
        ):
            raise CorruptEventError("the header says something else of the thread than its row")
        if header.pin and checks.pin_of(header.pin) != pin:
            raise CorruptEventError("the header names another pin than the thread's row")

    def _begin_log(self, ns: str) -> None:
        if type(ns) is not str or (self._ns is not None and ns <= self._ns):
            raise CorruptEventError("the logs are out of order")
        if not self.counts[THREAD]:
            raise CorruptEventError("the thread's row is missing")
        self._end_log()
        self._ns, self._stage, self._last_seqs = ns, LOG, {}
        self._bases, self._digests, self._links = {}, {}, {}
        self._seq, self._digest = 0, digests.genesis(self._header.thread_key, ns)

    def _end_log(self) -> None:
        if self._ns is None:
            return
        if self._stubs:
            raise CorruptEventError("a sealed event that has a key has no row")
        if self._links:
            raise CorruptEventError(f"the fork at seq {min(self._links)} has no event")
        self.logs[self._ns] = self._seq
        self._tops[self._ns] = max([self._seq, *self._bases])

    def _check_snapshot(self, row: Mapping[str, Any]) -> None:
        place = (row["seq"], row["rests_on"])
        checksum = digests.checksum(
            row["digest"], place, row["fingerprint"], row["additions"], row["payload"]
        )
        if checksum != row["checksum"]:
            raise CorruptEventError("the snapshot does not match its checksum")
        if row["rests_on"] is not None and row["rests_on"] not in self._digests:
            raise CorruptEventError("the snapshot that this one rests on is missing")
        self._digests[row["seq"]] = row["digest"]
        if row["is_base"]:
            self._bases[row["seq"]] = row["digest"]

    def _check_fork(self, row: Mapping[str, Any]) -> None:
        if row["source_thread_key"] != self._header.thread_key:
            raise CorruptEventError("the fork goes on from another thread")
        source_ns = row["source_ns"]
        if source_ns == self._ns and not row["source_seq"] < row["seq"]:
            raise CorruptEventError("the fork goes on from a later event")
        self._links[row["seq"]] = Position(
            row["source_thread_key"], row["source_ns"], row["source_seq"]
        )
        self._needed[source_ns] = max(self._needed.get(source_ns, 0), row["source_seq"])

    def _check_segment(self, row: Mapping[str, Any]) -> None:
        self._check_order(row["seq"], row["link"])
        for event in unseal(Segment(**row)):
            self._check_content(event.kind, event.seq, event.recorded_at, event.body)
            if event.key is not None:
                self._stubs[event.seq] = _Stub(
                    event.kind, event.key, event.recorded_at, event.digest
                )
            self._advance(event.seq, event.digest)

    def _check_event(self, row: Mapping[str, Any]) -> None:
        seq = row["seq"]
        if self._is_trimmed_end(row):
            if not self._seq:  # segments that follow it were checked before
                self._advance(seq, row["digest"])
            return
        if seq <= self._seq:
            self._check_stub(row)
            return
        previous = self._check_order(seq, None)
        payload = row["payload"]
        if not payload:
            raise CorruptEventError("the event has no payload")
        body = self._compression.body(payload)
        if previous is not None:
            digest = digests.link(
                previous, seq, row["kind"], row["key"], row["recorded_at"], covered(payload, body)
            )
            if digest != row["digest"]:
                raise CorruptEventError("the stored bytes do not match the digest chain")
        self._check_content(row["kind"], seq, row["recorded_at"], body)
        self._advance(seq, row["digest"])

    def _check_content(self, kind: int, seq: int, recorded_at: int, body: bytes) -> None:
        checks.check_moment("the event's time", recorded_at)
        if kind < 0:
            raise CorruptEventError("the log ends with a deletion mark")
        link = self._links.pop(seq, None)
        if (kind == FORK) != (link is not None):
            raise CorruptEventError("an event is a fork without a link, or has a link and is none")
        unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(body)))
        unpacker.feed(body)
        unpacker.skip()  # builds nothing
        if unpacker.tell() != len(body):
            raise CorruptEventError("the body does not hold exactly one value")
        if link is not None and _claim(*_source_in(body)) != _claim(*link):
            raise CorruptEventError("the fork goes on from elsewhere than its link says")

    def _is_trimmed_end(self, row: Mapping[str, Any]) -> bool:
        """Whether this is the emptied row that trimming leaves of a log's last event."""
        return not row["payload"] and self._bases.get(row["seq"]) == row["digest"]

    def _check_stub(self, row: Mapping[str, Any]) -> None:
        """Check the emptied row that a sealed event keeps for its key."""
        stub = self._stubs.pop(row["seq"], None)
        if row["payload"] or stub != _Stub(*(row[name] for name in _Stub._fields)):
            raise CorruptEventError("the row of a sealed event does not match its segment")

    def _check_order(self, seq: int, link: bytes | None) -> bytes | None:
        """The digest before an event or a segment; ``None`` where it may be unknown."""
        if seq < 1 or seq <= self._seq:
            raise CorruptEventError("the rows of a log are out of order")
        known: bytes | None = self._digest
        if seq != self._seq + 1:  # a log may begin after a base, a prefix with any event
            known = self._bases.get(seq - 1)
            if known is None and not digests.is_prefix(self._ns or ""):
                raise CorruptEventError("the events before this one are missing")
        if link is not None and known not in (None, link):
            raise CorruptEventError("the stored bytes do not match the digest chain")
        return known

    def _advance(self, seq: int, digest: bytes) -> None:
        if self._digests.get(seq, digest) != digest:
            raise CorruptEventError("the snapshot at this event belongs to another history")
        self._seq, self._digest = seq, digest

    def check_links(self) -> None:
        """Check, after the last record, that the file holds all that forks go on from.

        Raises:
            CorruptEventError: it does not.
        """
        for ns, seq in self._needed.items():
            if self._tops.get(ns, 0) < seq:
                damage = CorruptEventError("an event that a fork goes on from is missing")
                raise damage.at(self._header.thread_id, ns, seq)

    def check_complete(self) -> None:
        """Check, after the last record, the links and the numbers in the header.

        Raises:
            CorruptEventError: something is missing.
        """
        self.check_links()
        header = self._header
        counted = [self.counts[tag] for tag in (EVENT, SNAPSHOT, SEGMENT, FORK_LINK)]
        named = [header.events, header.snapshots, header.segments, header.forks]
        if not self._ended or counted != named or self.logs != header.logs:
            raise CorruptEventError("the file lacks rows or logs that its header counts")


def _source_in(body: bytes) -> tuple[int, str, int]:
    """The position in the body of a fork's event, whose other data is not built."""
    unpacker = msgpack.Unpacker(
        max_array_len=3, max_map_len=2, max_ext_len=0, unicode_errors="surrogatepass"
    )
    unpacker.feed(body[:_SOURCE_BYTES_MAX])
    unpacker.read_map_header()
    name, source = unpacker.unpack(), unpacker.unpack()
    if name != "source" or (*map(type, source),) != (int, str, int):
        raise CorruptEventError("the fork does not say where it goes on from")
    key, ns, seq = source
    return key, ns, seq


def _claim(thread_key: int, ns: str, seq: int) -> tuple[int, str, int]:
    return (*digests.origin(thread_key, ns), seq)


_CHECKS: Final[dict[int, Any]] = {
    THREAD: Checker._check_thread,
    SNAPSHOT: Checker._check_snapshot,
    FORK_LINK: Checker._check_fork,
    SEGMENT: Checker._check_segment,
    EVENT: Checker._check_event,
}
