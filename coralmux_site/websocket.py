"""Daphne's WebSocket and HTTP protocols, with our flow control put in.

autobahn does the opening handshake. From then on the bytes go to a FlowSocket,
and autobahn only hears of the connection's end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from twisted.internet.interfaces import IPullProducer
from twisted.web import http
from zope.interface import implementer

from coralmux_site.flow import FlowSocket

if TYPE_CHECKING:
    from coralmux_site.server import RelayServer

# Bytes that a client may send behind its handshake before it is answered.
_EARLY_BYTES = 64 * 1024

# HTTP bodies: the largest is an admin form. Twisted spools any size to disk.
MAX_BODY_BYTES = 64 * 1024


@implementer(IPullProducer)
class RelayWebSocket(WebSocketProtocol):  # type: ignore[misc]
    """One connection; also the Transport of its FlowSocket."""

    def __init__(self) -> None:
        super().__init__()
        # Made when autobahn has read the handshake, which is before anything uses it.
        self.flow: FlowSocket | Any = None
        self.data = b""
        self._open = False
        self._early: list[bytes] = []
        self._early_bytes = 0

    # Twisted and autobahn call these

    def onConnect(self, request: Any) -> Any:  # noqa: N802
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

    def resumeProducing(self) -> None:  # noqa: N802
        if self.flow is not None and self._open:
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
        if not transport.connected or transport.disconnecting:
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
            self._refuse(411, b"Length Required", "Send the body with a Content-Length.")
        elif length > MAX_BODY_BYTES:
            self._refuse(413, b"Content Too Large", "The body may have at most 65536 bytes.")
        else:
            super().gotLength(length)

    def _refuse(self, status: int, phrase: bytes, message: str) -> None:
        code = "TOO_LARGE" if status == 413 else "LENGTH_REQUIRED"
        body = b'{"error":{"code":"%s","message":"%s"}}' % (code.encode(), message.encode())
        self.channel.transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%s" % (status, phrase, len(body), body)
        )
        self.channel.loseConnection()
        super().gotLength(0)


class RelayHttpFactory(HTTPFactory):  # type: ignore[misc]
    """Refuses TCP connections beyond what the relay's own caps could ever use."""

    def __init__(self, server: RelayServer, *, header_timeout: float) -> None:
        super().__init__(server)
        # Seconds without a byte until an HTTP connection is dropped.
        self.timeOut = header_timeout

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = RelayRequest
        return protocol

    def log(self, request: http.Request) -> None:
        """No access log: paths hold tokens."""
