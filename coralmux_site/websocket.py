"""Daphne's WebSocket and HTTP protocols, with our flow control put in.

autobahn does the opening handshake. From then on the bytes go to a FlowSocket,
and autobahn only hears of the connection's end.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from autobahn.websocket.types import ConnectionDeny
from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from twisted.internet import main, tcp
from twisted.internet.interfaces import IPullProducer
from twisted.web import http
from zope.interface import implementer

from coralmux.protocol.limits import DISCARD_BYTES
from coralmux_site.flow import FlowSocket
from pairing import addresses

if TYPE_CHECKING:
    from coralmux_site.server import RelayServer

# Bytes that a client may send behind its handshake before it is answered.
_EARLY_BYTES = 64 * 1024

# HTTP bodies: the largest is an admin form. Twisted spools any size to disk.
MAX_BODY_BYTES = 64 * 1024

# TCP connections beside the WebSockets: HTTP requests, handshakes and refusals.
_SPARE_CONNECTIONS = 1_000
_SPARE_CONNECTIONS_PER_ADDRESS = 100

# Answers that may wait for their clients at one time, each with a file and its thread.
_MOST_WAITING = 256

# Seconds in which a refused client may read the answer before TCP is cut.
_LINGER_SECONDS = 2.0


class RelayTransport(tcp.Server):  # type: ignore[misc]
    """A TCP connection that notices a reset which came together with data.

    uvloop tells of a reset once, as something to read. If there was data to read,
    nobody hears of the socket again, and Twisted would wait for ever.
    """

    # When the kernel last took something that was written.
    written_at = 0.0

    def writeSomeData(self, data: bytes) -> Any:  # noqa: N802
        written = super().writeSomeData(data)
        if isinstance(written, int) and written > 0:
            self.written_at = time.monotonic()
        return written

    def doRead(self) -> Any:  # noqa: N802
        lost = super().doRead()
        if lost is None and self.connected:
            reset = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return main.CONNECTION_LOST if reset else None
        return lost


@implementer(IPullProducer)
class RelayWebSocket(WebSocketProtocol):  # type: ignore[misc]
    """One connection; also the Transport of its FlowSocket."""

    def __init__(self) -> None:
        super().__init__()
        # Made when autobahn has read the handshake, which is before anything uses it.
        self.flow: FlowSocket | Any = None
        self.data = b""
        self._open = False
        # Whether the handshake's answer is on its way, which Twisted writes in its own time.
        self._answered = False
        self._early: list[bytes] = []
        self._early_bytes = 0

    # Twisted and autobahn call these

    def onConnect(self, request: Any) -> Any:  # noqa: N802
        if not request.headers.get("sec-websocket-protocol", "").isascii():
            # Daphne would print a traceback for it.
            raise ConnectionDeny(ConnectionDeny.BAD_REQUEST, "Bad Request")
        self.flow = FlowSocket(self, self.factory.server_class.flow_timers)
        return super().onConnect(request)

    def onOpen(self) -> None:  # noqa: N802
        # The HTTP channel is still registered as producer; its place is ours now.
        self.transport.unregisterProducer()
        # As a pull producer we are called whenever Twisted's buffer has become empty.
        self.transport.registerProducer(self, False)
        self.factory.server_class.http_factory.took(self.transport)
        self._open = True
        if self._early_bytes > _EARLY_BYTES:
            self.resume()
        early = [self.data, *self._early]
        self.data, self._early = b"", []
        for data in filter(None, early):
            self.flow.received(data)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        if self._open:
            self.flow.received(data)
        elif self.flow is None:
            super().dataReceived(data)
        else:
            self._early.append(data)
            self._early_bytes += len(data)
            if self._early_bytes > _EARLY_BYTES:
                self.pause()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N802, N803
        if self.flow is not None:
            server = self.factory.server_class
            server.protocol_disconnected(self)
            server.flows.discard(self.flow)
            self.flow.lost()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        self.factory.server_class.http_factory.gone(self.transport)
        super().connectionLost(reason)

    def resumeProducing(self) -> None:  # noqa: N802
        if self.flow is not None and self._open:
            self._answered = True
            self.flow.written()

    def stopProducing(self) -> None:  # noqa: N802
        """The connection is lost; onClose follows."""

    def check_timeouts(self) -> None:
        """Daphne's sweep: here only handshakes that nobody completes."""
        if self.state == self.STATE_CONNECTING:
            super().check_timeouts()

    # Transport

    def accept(self) -> None:
        self.server.flows.add(self.flow)
        self.serverAccept()

    def send_now(self, pieces: list[bytes | bytearray | memoryview]) -> int:
        transport = self.transport
        if not transport.connected or transport.disconnecting or not self._answered:
            return 0
        try:
            if len(pieces) == 1:
                return int(transport.socket.send(pieces[0]))
            return int(transport.socket.sendmsg(pieces))
        except OSError:
            # "Not now", or broken: Twisted finds out which at the next piece.
            return 0

    def send_later(self, data: bytes) -> None:
        self.transport.write(data)

    def pause(self) -> None:
        self.transport.pauseProducing()

    def resume(self) -> None:
        self.transport.resumeProducing()

    def end_output(self) -> None:
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()

    def finish(self) -> None:
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        self.transport.abortConnection()


class RelayWebSocketFactory(WebSocketFactory):  # type: ignore[misc]
    protocol = RelayWebSocket


class RelayRequest(WebRequest):  # type: ignore[misc]
    """An HTTP request whose body has a known and small size."""

    async def room(self) -> None:
        """Wait until the client has taken what is written, or is gone."""
        if self.channel is not None and not self.finished:
            await self.channel.room.wait()

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        # None means chunked, which has no size to be refused by.
        if length is None:
            self.channel.refuse(411, "LENGTH_REQUIRED", "Send the body with a Content-Length.")
        elif length > MAX_BODY_BYTES:
            self.channel.refuse(413, "TOO_LARGE", f"A body may have {MAX_BODY_BYTES} bytes.")
        super().gotLength(length if length is not None and length <= MAX_BODY_BYTES else 0)


class RelayChannel(http.HTTPChannel):  # type: ignore[misc]
    """One HTTP connection. Each request has so long to arrive, however its bytes drip.

    While the client takes nothing, nothing is read from it and no answer goes on;
    after so long of that it is cut off.
    """

    # Twisted's own way to cut off, however much the client takes.
    abortTimeout = None  # noqa: N815

    _refused = False
    _discard_left = DISCARD_BYTES
    _stall: Any = None

    def connectionMade(self) -> None:  # noqa: N802
        self.factory.come(self.transport)
        # Set while the transport takes more of an answer.
        self.room = asyncio.Event()
        self.room.set()
        super().connectionMade()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        self.factory.gone(self.transport)
        self._stop_watching()
        self.room.set()
        super().connectionLost(reason)

    def pauseProducing(self) -> None:  # noqa: N802
        """The transport's buffer is full."""
        super().pauseProducing()
        # Twisted reads on, without a bound, where the request is still at work.
        self._networkProducer.pauseProducing()
        if self.room.is_set():
            self.room.clear()
            self._watch()
            self.factory.waits(self.transport)

    def resumeProducing(self) -> None:  # noqa: N802
        """The transport's buffer is empty."""
        self._stop_watching()
        self.factory.took(self.transport)
        self.room.set()
        super().resumeProducing()

    def loseConnection(self) -> None:  # noqa: N802
        """Close when the client has taken what is written."""
        super().loseConnection()
        self._watch()

    def _watch(self) -> None:
        if self._stall is None:
            self.transport.written_at = time.monotonic()
            self._stall = self.callLater(self.factory.stall_timeout, self._check)

    def _stop_watching(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _check(self) -> None:
        self._stall = None
        if self.transport.protocol is not self:
            # It became a WebSocket, which has timers of its own.
            return
        left = self.transport.written_at + self.factory.stall_timeout - time.monotonic()
        if left > 0:
            self._stall = self.callLater(left, self._check)
        else:
            self.transport.abortConnection()

    def resetTimeout(self) -> None:  # noqa: N802
        """Twisted calls this at every byte; the time is for the whole request."""

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error. What the client still sends is read and thrown away
        for a while, so that it sees the answer instead of a reset."""
        if self._refused:
            return
        self._refused = True
        body = b'{"error":{"code":"%s","message":"%s"}}' % (code.encode(), message.encode())
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%s"
            % (status, HTTPStatus(status).phrase.encode(), len(body), body)
        )
        self.dataReceived = self.lineReceived = self.rawDataReceived = self._discard
        self._networkProducer.unregisterProducer()
        self.transport.loseWriteConnection()
        self.setTimeout(_LINGER_SECONDS)

    def _discard(self, data: bytes) -> None:
        self._discard_left -= len(data)
        if self._discard_left < 0:
            self.transport.abortConnection()

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802
        self.refuse(431, "TOO_LARGE", "The request's head is too large.")

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802
        if self._receivedHeaderSize > self.totalHeadersSize:
            self.lineLengthExceeded(b"")
        else:
            self.refuse(400, "INVALID_REQUEST", "Not a valid HTTP request.")

    def _send100Continue(self) -> None:  # noqa: N802
        if not self._refused:
            super()._send100Continue()


class RelayHttpFactory(HTTPFactory):  # type: ignore[misc]
    """Refuses TCP connections beyond what the relay's own caps could ever use.

    The caps on WebSockets answer with a close code, so they come first; this one
    is against those who never get as far as to be a WebSocket. It stays below the
    limit on open files (`files`), so that the database and the log keep theirs.
    """

    protocol = RelayChannel

    def __init__(
        self,
        server: RelayServer,
        *,
        request_timeout: float,
        stall_timeout: float,
        files: int,
        connections: int,
        connections_per_address: int,
    ) -> None:
        super().__init__(server)
        # Seconds for a whole request to arrive, and between two of them.
        self.timeOut = request_timeout
        # Seconds in which a client must take something of its answer.
        self.stall_timeout = stall_timeout
        self._most_waiting = min(_MOST_WAITING, files // 4)
        self._most = min(connections + _SPARE_CONNECTIONS, files - self._most_waiting)
        self._most_per_address = connections_per_address + _SPARE_CONNECTIONS_PER_ADDRESS
        self._transports: dict[Any, str] = {}
        self._by_address: Counter[str] = Counter()
        # Those whose client takes nothing, the longest first.
        self._waiting: dict[Any, None] = {}

    @property
    def answering(self) -> bool:
        """Whether a request is at work whose answer is not written."""
        return any(
            isinstance(protocol, RelayRequest)
            and "application_instance" in details
            and "disconnected" not in details
            for protocol, details in self.server.connections.items()
        )

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        """None, which closes the connection, where there are too many."""
        if len(self._transports) >= self._most:
            return None
        if self._by_address[
            addresses.limit_key(addr.host)
        ] >= self._most_per_address and not addresses.is_trusted_proxy(addr.host):
            return None
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = RelayRequest
        return protocol

    def come(self, transport: Any) -> None:
        key = self._transports[transport] = addresses.limit_key(transport.getPeer().host)
        self._by_address[key] += 1

    def waits(self, transport: Any) -> None:
        """Its answer waits for the client. Where too many do, the longest wait ends."""
        self._waiting[transport] = None
        if len(self._waiting) > self._most_waiting:
            longest = next(iter(self._waiting))
            self.took(longest)
            longest.abortConnection()

    def took(self, transport: Any) -> None:
        self._waiting.pop(transport, None)

    def gone(self, transport: Any) -> None:
        self.took(transport)
        key = self._transports.pop(transport)
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]

    def log(self, request: http.Request) -> None:
        """No access log: paths hold tokens."""
