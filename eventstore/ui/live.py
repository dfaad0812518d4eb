"""A thread that grows while somebody looks: server-sent events, fed by polling the end of its log.

Bounded: so many viewers at once, so many events at a time, and an end after a while, when the
browser asks again. When nobody looks, nothing is polled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from eventstore.explain.transcript import transcript
from eventstore.ui import events
from eventstore.ui.pages import KNOWN, Document, Pages, Query

VIEWERS_MAX: Final = 50
EVENTS_MAX: Final = 100
SECONDS_MAX: Final = 600.0

QUICK_S: Final = 0.4
"""Between looks at a log that has just grown."""

SLOW_S: Final = 2.0
"""Between looks at a log that has not grown for a while."""


class Live:
    """Answers those who watch threads."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self.viewers = 0

    async def watch(self, request: Request) -> Response:
        """The events of a log behind ``after``, as they are appended."""
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if self.viewers >= VIEWERS_MAX:
            return PlainTextResponse("too many viewers; reload the page to see more\n", 503)
        try:
            query = self._pages.query(request)
            query.needed("id")
            last = request.headers.get("last-event-id", "")
            after = int(last) if last.isascii() and last.isdigit() else query.number("after", 0)
        except KNOWN as error:
            return PlainTextResponse(f"{error}\n", 400)
        return EventSourceResponse(self._sent(request, query, after or 0), ping=15)

    async def _sent(
        self, request: Request, query: Query, after: int
    ) -> AsyncGenerator[ServerSentEvent, None]:
        self.viewers += 1
        wait, status = QUICK_S, ""
        ends = asyncio.get_running_loop().time() + SECONDS_MAX
        try:
            while asyncio.get_running_loop().time() < ends:
                try:
                    found = await run_in_threadpool(_news, query, after)
                except KNOWN as error:
                    text = self._pages.html(request, self._pages.problem(error), "news_error.html")
                    yield ServerSentEvent(text, event="problem")
                    return
                if found["status"] != status:
                    status = found["status"]
                    yield ServerSentEvent(
                        self._pages.html(request, found, "news_status.html"), event="status"
                    )
                if found["timeline"]:
                    after, wait = found["last"], QUICK_S
                    for name in ("events", "lines"):
                        text = self._pages.html(request, found, f"news_{name}.html")
                        yield ServerSentEvent(text, event=name, id=str(after))
                else:
                    wait = min(wait * 1.3, SLOW_S)
                await asyncio.sleep(wait)
        finally:
            self.viewers -= 1


def _news(query: Query, after: int) -> Document:
    """The events of a log after a seq, as the thread's page shows them."""
    source, thread_id, ns = query.source, query.needed("id"), query.text("ns")
    info = source.run(source.core.thread(thread_id))
    head = source.run(source.core.head(thread_id, ns))
    found: Document = {"thread_id": thread_id, "ns": ns, "status": info.status, "timeline": []}
    if head.seq <= after:
        return found
    upto = min(head.seq, after + EVENTS_MAX)
    page = events.read(source, info, head.position._replace(seq=max(0, after - 1)), upto)
    before = next((each for each in page if each.seq == after), None)
    new = [each for each in page if each.seq > after]
    groups = events.timeline(new, before.recorded_us if before is not None else None)
    for group in groups:
        for each in group["events"]:
            each["is_on_path"] = True
            each.pop("source", None)
    lines: list[Any] = [
        {
            **line.as_json(),
            **dict(line.extra),
            "where": {"thread_id": thread_id, "ns": ns, "seq": line.at.seq},
        }
        for line in transcript(new)
    ]
    return {**found, "timeline": groups, "lines": lines, "last": upto}
