"""A TCP proxy on loopback that delays what passes: a network between a client and a server.

    python -m benchmarks.backends.slow_network SOCKET ROUND_TRIP_MS

Prints its port. Every piece of data waits half the round-trip time in either direction; pieces
that follow each other do not wait for each other, as on a network.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
from contextlib import suppress

CHUNK = 1 << 16


async def serve(target: str, delay_s: float) -> None:
    """Accept connections and forward them to a Unix socket until cancelled."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(target)
        with suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.gather(
                forward(reader, back, delay_s / 2), forward(there, writer, delay_s / 2)
            )

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


async def forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_s: float) -> None:
    """Send what arrives, each piece so much later, in order, and then the end."""
    loop = asyncio.get_running_loop()
    try:
        while data := await source.read(CHUNK):
            if delay_s:
                loop.call_later(delay_s, sink.write, data)
            else:
                sink.write(data)
    finally:
        loop.call_later(delay_s, sink.close)


def main(target: str, delay_ms: str) -> None:
    """Run the proxy."""
    # select() waits to the microsecond, epoll to the millisecond.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(serve(target, float(delay_ms) / 1_000))


if __name__ == "__main__":
    main(*sys.argv[1:])
