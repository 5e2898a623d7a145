"""Daphne's WebSocket and HTTP protocols, with our flow control put in.

autobahn does the opening handshake. From then on the bytes go to a FlowSocket,
and autobahn only hears of the connection's end.
"""

from __future__ import annotations

import socket
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

# Seconds in which a refused client may read the answer before TCP is cut.
_LINGER_SECONDS = 2.0


class RelayTransport(tcp.Server):  # type: ignore[misc]
    """A TCP connection that notices a reset which came together with data.

    uvloop tells of a reset once, as something to read. If there was data to read,
    nobody hears of the socket again, and Twisted would wait for ever.
    """

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

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        # None means chunked, which has no size to be refused by.
        if length is None:
            self.channel.refuse(411, "LENGTH_REQUIRED", "Send the body with a Content-Length.")
        elif length > MAX_BODY_BYTES:
            self.channel.refuse(413, "TOO_LARGE", f"A body may have {MAX_BODY_BYTES} bytes.")
        super().gotLength(length if length is not None and length <= MAX_BODY_BYTES else 0)


class RelayChannel(http.HTTPChannel):  # type: ignore[misc]
    """One HTTP connection. Each request has so long to arrive, however its bytes drip."""

    _refused = False
    _discard_left = DISCARD_BYTES

    def connectionMade(self) -> None:  # noqa: N802
        self.factory.come(self.transport)
        super().connectionMade()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        self.factory.gone(self.transport)
        super().connectionLost(reason)

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
        files: int,
        connections: int,
        connections_per_address: int,
    ) -> None:
        super().__init__(server)
        # Seconds for a whole request to arrive, and between two of them.
        self.timeOut = request_timeout
        self._most = min(connections + _SPARE_CONNECTIONS, files)
        self._most_per_address = connections_per_address + _SPARE_CONNECTIONS_PER_ADDRESS
        self._transports: dict[Any, str] = {}
        self._by_address: Counter[str] = Counter()

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

    def gone(self, transport: Any) -> None:
        key = self._transports.pop(transport)
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]

    def log(self, request: http.Request) -> None:
        """No access log: paths hold tokens."""
