"""What a thread waits for: the interrupts that nobody has resumed yet."""

from __future__ import annotations

from typing import Any, Final

from eventstore import CorruptEventError, ThreadInfo
from eventstore.core.core import Core
from eventstore.explain import describe, langgraph
from eventstore.explain.values import document

LAST: Final = 256
"""Events at the end of a log in which interrupts are searched."""


async def pending(core: Core, info: ThreadInfo) -> list[dict[str, Any]]:
    """The interrupts that a thread waits for: those not resumed since the last ``interrupt``.

    Each has its ``node``, ``id`` and ``value``.
    """
    if langgraph.is_langgraph(info):
        return await langgraph.pending_now(core, info.thread_id)
    head = await core.head(info.thread_id)
    after = head.position._replace(seq=max(0, head.seq - LAST))
    found: dict[str, dict[str, Any]] = {}  # by id, which need not be text
    try:
        async for page in await core.read_span(info.thread_id, after, head.seq):
            for event in page:
                kind = describe.kind_of(event)
                if kind == "interrupt":
                    found = {
                        document(each["id"]): dict(each) for each in describe.interrupts(event.data)
                    }
                elif kind == "resume":
                    for resumed in describe.mappings(event.data["answers"]):
                        found.pop(document(resumed.get("id")), None)
    except CorruptEventError:
        return []  # `verify` reports the damage; the rest of the thread can still be shown
    return list(found.values())
