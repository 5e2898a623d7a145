"""The yardstick: the least that a relay on the `websockets` library can do.

It reads the token and role out of the first message and forwards every later
one to the other role under that token. No tokens are checked, nothing is
counted or limited, and compression is off, as it is in ours.

    python -m bench.bare_relay --port 9000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
from http import HTTPStatus

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from bench.process import event_loop_factory, raise_open_files
from coralmux.protocol.limits import MAX_MESSAGE_BYTES

OTHER = {"phone": "agent", "agent": "phone"}


class BareRelay:
    """Who is connected, by token and role. A message with no peer is dropped."""

    def __init__(self) -> None:
        self.sockets: dict[tuple[str, str], ServerConnection] = {}

    async def __call__(self, socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            hello = json.loads(await socket.recv())["payload"]
            token, role = hello["token"], hello["role"]
            peer_key = (token, OTHER[role])
            self.sockets[token, role] = socket
            try:
                paired = json.dumps({"paired": peer_key in self.sockets})
                await socket.send(f'{{"v":1,"type":"auth.ok","payload":{paired}}}')
                async for message in socket:
                    peer = self.sockets.get(peer_key)
                    if peer is not None:
                        await self.forward(message, peer)
            finally:
                del self.sockets[token, role]

    async def forward(self, message: str | bytes, peer: ServerConnection) -> None:
        await peer.send(message)


def _health(socket: ServerConnection, request: Request) -> Response | None:
    if request.path == "/health":
        return socket.respond(HTTPStatus.OK, '{"status":"ok"}')
    return None


async def start(relay: BareRelay, port: int = 0) -> Server:
    """Listen on the loopback address; port 0 takes a free one."""
    return await serve(
        relay,
        "127.0.0.1",
        port,
        compression=None,
        max_size=MAX_MESSAGE_BYTES,
        process_request=_health,
    )


async def run(port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with await start(BareRelay(), port):
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.bare_relay")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--asyncio", action="store_true", help="run on asyncio's own event loop, not on uvloop"
    )
    arguments = parser.parse_args()
    raise_open_files()
    factory = None if arguments.asyncio else event_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run(arguments.port))


if __name__ == "__main__":
    main()
