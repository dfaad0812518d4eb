"""Copying, pruning and deleting threads and runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

from eventstore import ConfigurationError, Event, NewSnapshot, ThreadNotFoundError
from graph.langgraph.appending import Appending
from graph.langgraph.finding import History, Ref
from graph.langgraph.logs import Plan, Tip, flat
from graph.langgraph.reading import Reading, pasts
from graph.langgraph.state import snapshots
from graph.langgraph.state.drafts import Draft
from graph.langgraph.state.fold import Fold
from graph.langgraph.state.records import RESET, Past, key_of
from graph.langgraph.wire import Wire
from graph.langgraph.writing import checkpoint_draft

Strategy = Literal["keep_latest", "delete"]


class Upkeep:
    """Removes and copies what one saver stored."""

    def __init__(self, appending: Appending, reading: Reading) -> None:
        self._appending = appending
        self.logs = appending.logs
        self._reading = reading

    async def delete_thread(self, thread_id: str) -> None:
        """Delete a thread as a whole; nothing happens if there is none."""
        self.logs.forget(thread_id)
        self._reading.seen.forget(thread_id)
        try:
            await self.logs.core.delete_thread(thread_id)
        except ThreadNotFoundError:
            return

    async def copy_thread(self, source: str, target: str) -> None:
        """Let a new thread go on from the end of another, without copying anything.

        Raises:
            ThreadExistsError: the target exists.
        """
        core = self.logs.core
        head = await core.head(source)
        if head.exists:
            metadata = (await core.thread(source)).metadata
            await core.fork(source, head.seq, target, metadata=metadata)

    async def prune(self, wire: Wire, thread_ids: Sequence[str], strategy: str) -> None:
        """Keep only the latest checkpoint of each namespace of these threads, or nothing."""
        if strategy not in get_args(Strategy):
            known = ", ".join(get_args(Strategy))
            raise ConfigurationError(f"strategy must be one of {known}, not {strategy!r:.80}")
        for thread_id in map(str, thread_ids):
            if strategy == "delete":
                await self.delete_thread(thread_id)
            else:
                await self._keep_latest(wire, thread_id)

    async def _keep_latest(self, wire: Wire, thread_id: str) -> None:
        async def choose(history: History) -> list[Ref]:
            latest: dict[str, str | None] = {}
            refs = await history.all(None)
            for ns in {ref.ns for ref in refs}:
                saved = await history.find(ns, None)
                latest[ns] = saved.id if saved is not None else None
            return [ref for ref in refs if latest[ref.ns] == ref.id]

        await self._rewrite(wire, thread_id, choose)

    async def delete_for_runs(self, wire: Wire, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of these runs, in all threads, with their writes."""
        unwanted = set(map(str, run_ids))
        if not unwanted:
            return
        threads = [info.thread_id async for info in self._reading.threads()]
        for thread_id in threads:

            async def choose(history: History) -> list[Ref]:
                refs = await history.all(None)
                loaded = await history.load(refs)
                return [
                    ref
                    for ref in refs
                    if (saved := loaded.get(ref.name)) is not None
                    and str(wire.metadata(saved).get("run_id")) not in unwanted
                ]

            await self._rewrite(wire, thread_id, choose)

    async def _rewrite(
        self,
        wire: Wire,
        thread_id: str,
        choose: Callable[[History], Awaitable[list[Ref]]],
    ) -> None:
        """Begin the history of a thread anew, with some of its checkpoints.

        They are appended again, in one transaction with the event that ends the history before;
        then that is trimmed. A process that is killed in between leaves a thread that reads the
        same, and bytes that the next call trims.
        """
        is_empty = False

        async def plan(tip: Tip) -> Plan | None:
            nonlocal is_empty
            history = History(self.logs, tip)
            if not tip.head.exists:
                return None
            all_refs, kept = await history.all(None), await choose(history)
            is_empty = not kept
            if is_empty or len(kept) == len(all_refs):
                return None
            return await self._plan(wire, history, kept)

        after = await self._appending.write(thread_id, wire.seal, plan)
        if is_empty and after.head.exists:
            await self.delete_thread(thread_id)
        elif after.fold.since and (await self.logs.history(after))[1] is None:
            await self._trim(thread_id, after)

    async def _plan(self, wire: Wire, history: History, kept: Sequence[Ref]) -> Plan:
        loaded = await history.load(kept)
        names = set(loaded)
        seq = history.tip.seq + 1
        fold = Fold(wire.seal, history.tip.head.thread_id)
        events: list[Draft] = [Event(RESET, {})]
        fold.reset(seq)
        for ref in sorted(kept, key=lambda ref: ref.order):
            saved = loaded.get(ref.name)
            if saved is None:
                continue
            if saved.parent is not None and (ref.ns, saved.parent) not in names:
                bare = [name for name, each in saved.channels.items() if each.value is None]
                past = await pasts(history, ref.ns, saved, bare)
                past = {name: each for name, each in past.items() if each != Past(None, ())}
                saved = replace(saved, parent=None, past=past)
            key = key_of(ref.ns, saved.id, seq + len(events))
            events.append(checkpoint_draft(fold, ref.ns, saved, key, carry=True))
            fold.add(ref.ns, saved)
        return Plan(events, fold)

    async def _trim(self, thread_id: str, tip: Tip) -> None:
        """Remove what is before the event that began the history anew."""
        core, seq = self.logs.core, tip.fold.since
        pages = await core.read_span(thread_id, tip.position._replace(seq=seq - 1), seq)
        async for event in flat(pages):
            head = replace(tip.head, seq=seq, digest=event.digest)
            fold = Fold(tip.fold.seal, thread_id)
            fold.apply(event)
            items = snapshots.encoded(fold, None, core.codec)
            empty = NewSnapshot(snapshots.FINGERPRINT, core.codec.encode(None), items, step=0)
            await core.put_snapshot(head, empty)
        await core.trim(thread_id, seq, "pruned")
        self.logs.forget(thread_id)
