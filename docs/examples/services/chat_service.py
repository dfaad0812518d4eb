"""A chat service: FastAPI, a thread for each conversation, answers streamed to the browser (SSE).

    EVENTSTORE_DB=chats.db uvicorn chat_service:api          (or a postgresql:// URL)

An answer is finished although its reader hangs up, and one that a crash cut short is finished by
the next process. A second message gets 409 while the first is answered, or waits for its turn.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from eventstore import AsyncEventStore, ThreadNotFoundError
from graph import (
    CompiledGraph,
    RunnableConfig,
    StateGraph,
    ThreadBusyError,
    add_messages,
    get_stream_writer,
)


class Chat(TypedDict):
    messages: Annotated[list[dict[str, Any]], add_messages]  # dicts, which FastAPI sends as JSON


async def answer(state: Chat) -> dict[str, Any]:
    send = get_stream_writer()
    said = state["messages"][-1]["content"]
    words = f"You said {said!r} and that is message {len(state['messages'])}".split()
    for word in words:  # put your model here, and pass on its tokens
        send(word)
        await asyncio.sleep(float(os.environ.get("SECONDS_PER_TOKEN", "0.05")))
    return {"messages": [{"role": "assistant", "content": " ".join(words)}]}


graph = StateGraph(Chat).add_node("answer", answer).set_entry_point("answer")
running: set[asyncio.Task[None]] = set()  # asyncio itself keeps no reference to a task


def thread(chat: str) -> RunnableConfig:
    return {"configurable": {"thread_id": chat}}


@asynccontextmanager
async def lifespan(api: FastAPI) -> AsyncIterator[None]:
    lease_s = float(os.environ.get("RUN_LEASE_S", "10"))
    async with AsyncEventStore(os.environ["EVENTSTORE_DB"], run_lease_s=lease_s) as store:
        api.state.store, api.state.app = store, graph.compile(checkpointer=store)
        for status in ("running", "cancelled"):  # a crash, or a restart, cut these short
            for info in await store.threads(status=status):
                start(api.state.app, None, info.thread_id, wait_s=3_600)
        yield
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


api = FastAPI(title="chat", lifespan=lifespan)


def start(app: CompiledGraph, given: Any, chat: str, wait_s: float) -> asyncio.Queue[Any]:
    """Start a run of its own, which no reader can stop; its chunks, and how it ended."""
    chunks: asyncio.Queue[Any] = asyncio.Queue()

    async def run() -> None:
        try:
            async for chunk in app.astream(
                given,
                thread(chat),
                stream_mode=["values", "custom"],
                on_conflict="wait",
                conflict_timeout_s=wait_s,
            ):
                chunks.put_nowait(chunk)
            chunks.put_nowait(None)
        except Exception as error:
            chunks.put_nowait(error)

    task = asyncio.create_task(run())
    running.add(task)
    task.add_done_callback(running.discard)
    return chunks


class Message(BaseModel):
    text: str


@api.post("/chats/{chat}/messages")
async def send(chat: str, message: Message, wait_s: float = 0) -> StreamingResponse:
    given = {"messages": [{"role": "user", "content": message.text}]}
    chunks = start(api.state.app, given, chat, wait_s)
    first = await chunks.get()  # the message is in the log; only now the response begins
    if isinstance(first, ThreadBusyError):
        raise HTTPException(409, "the last message is still being answered")
    if isinstance(first, Exception):
        raise first

    async def events() -> AsyncIterator[str]:
        while (chunk := await chunks.get()) is not None:
            if isinstance(chunk, Exception):
                yield "event: failed\ndata: {}\n\n"
                return
            mode, data = chunk
            if mode == "custom":
                yield f"event: token\ndata: {json.dumps(data)}\n\n"
        yield "event: done\ndata: {}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@api.get("/chats/{chat}")
async def show(chat: str) -> dict[str, Any]:
    try:
        status = (await api.state.store.thread(chat)).status
    except ThreadNotFoundError:
        raise HTTPException(404, "no such chat") from None
    messages = (await api.state.app.aget_state(thread(chat))).values["messages"]
    return {"status": status, "messages": messages}


@api.get("/healthz")
async def healthz() -> dict[str, str]:
    await api.state.store.threads(limit=1)
    return {"status": "ok"}
