"""The event store alone, without graphs: an account whose balance is the fold of its events.

An append names the seq that the writer expects, so of two writers one wins. A key makes it
harmless to repeat an append.
"""

import tempfile
from pathlib import Path

from eventstore import ConcurrencyError, Event, EventStore

OPENED, PAID_IN, PAID_OUT = 1, 2, 3


def balance(store: EventStore, account: str, upto: int | None = None) -> int:
    total = 0
    for event in store.read(account, upto=upto):
        if event.kind == PAID_IN:
            total += event.data["amount"]
        elif event.kind == PAID_OUT:
            total -= event.data["amount"]
    return total


with tempfile.TemporaryDirectory() as folder, EventStore(Path(folder) / "bank.db") as store:
    seq = store.append("ann", [Event(OPENED, {"owner": "Ann"})], expected_seq=0)
    seq = store.append("ann", [Event(PAID_IN, {"amount": 100})], expected_seq=seq)

    # Two writers have read up to the same seq. The second one is refused.
    store.append("ann", [Event(PAID_OUT, {"amount": 80})], expected_seq=seq)
    try:
        store.append("ann", [Event(PAID_OUT, {"amount": 50})], expected_seq=seq)
    except ConcurrencyError as error:
        print(f"refused: expected seq {error.expected}, the log is at {error.actual}")

    # Sent twice, for instance because the reply was lost: recorded once.
    transfer = [Event(PAID_IN, {"amount": 25}, key="transfer-8842")]
    first = store.append("ann", transfer, expected_seq=3)
    again = store.append("ann", transfer, expected_seq=3)
    print(f"the transfer is at seq {first}, and after the second try at seq {again}")

    for event in store.read("ann"):
        print(f"  {event.seq}  kind {event.kind}  {event.data}")
    print(f"balance {balance(store, 'ann')}; before the last event {balance(store, 'ann', 3)}")

    # What if she had not paid out? A fork continues from seq 2, without copying anything.
    store.fork("ann", 2, "what if")
    seq = store.append("what if", [Event(PAID_OUT, {"amount": 5})], expected_seq=1)
    lineage = store.replay("what if").events
    print("the fork's lineage:", [(event.kind, event.data) for event in lineage])

    report = store.verify("ann")
    print(f"verified: {report.events} events, ok={report.ok}")
    stats = store.stats()
    print(f"{stats.threads} threads, {stats.events} events, {stats.stored_bytes} bytes")
