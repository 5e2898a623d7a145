"""Daphne with our protocols, our timers, and an end that loses nothing."""

from __future__ import annotations

# Installs the asyncio reactor, so it comes before everything of Twisted.
from daphne.server import Server  # isort: skip

import asyncio
import contextlib
import errno
import os
import resource
import socket
import sys
import time
from typing import Any

import structlog
from django.conf import settings
from twisted.internet import defer, reactor
from twisted.internet.error import ReactorNotRunning
from twisted.logger import globalLogBeginner
from twisted.web import http

from coralmux.protocol.close_codes import CloseCode
from coralmux_site.flow import FlowSocket, FlowTimers
from coralmux_site.websocket import (
    RelayHttpFactory,
    RelayRequest,
    RelayTransport,
    RelayWebSocket,
    RelayWebSocketFactory,
)
from relay.runtime import Runtime

log = structlog.get_logger("relay.server")

# Connections waiting to be accepted. A thousand clients come back at once after a restart.
_BACKLOG = 1024

# File descriptors that are not connections: database, log, listening socket.
_SPARE_FILES = 100

# Bytes in the kernel that are not yet on their way to a client. Without it Linux
# takes megabytes, hears from a slow reader only when a third of them is gone, and
# a reader of 40 kB/s looks like one that takes nothing.
_UNSENT_BYTES = 128 * 1024


class CannotListen(Exception):
    """The address cannot be listened on; the text is for the operator."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. An empty host is every address, IPv6 and IPv4.

    Raises CannotListen.
    """
    try:
        if not host and socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
            )
        found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(found[4][:2], family=found[0], backlog=_BACKLOG)
    except OSError as error:
        where = f"{host or '*'}:{port}"
        reason = {
            errno.EADDRINUSE: "another program listens there. Stop it, or choose another -addr.",
            errno.EACCES: "ports below 1024 need root, or CAP_NET_BIND_SERVICE.",
            errno.EADDRNOTAVAIL: "this machine has no such address.",
        }.get(error.errno or 0, f"{error.strerror or error}.")
        raise CannotListen(f"Cannot listen on {where}: {reason}") from None


class RelayServer(Server):  # type: ignore[misc]
    """Serves an ASGI application on one listening socket until SIGTERM or SIGINT."""

    def __init__(self, application: Any, listener: socket.socket, runtime: Runtime) -> None:
        # Daphne wants an endpoint description; ours is a socket that listens already.
        super().__init__(
            application,
            endpoints=["adopted"],
            server_name="coralmux-relay",
            websocket_timeout=-1,
            websocket_connect_timeout=5,
        )
        values = settings.CORALMUX
        self.flow_timers = FlowTimers(
            ping=values["PING_INTERVAL_SECONDS"],
            silence=values["SILENCE_TIMEOUT_SECONDS"],
            stall=values["STALL_TIMEOUT_SECONDS"],
            hold=values["HOLD_SECONDS"],
            close=values["CLOSE_TIMEOUT_SECONDS"],
            drain=values["DRAIN_TIMEOUT_SECONDS"],
        )
        self.flows: set[FlowSocket] = set()
        self._listener = listener
        self._runtime = runtime
        self._port: Any = None
        self._sweeper: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Serve until a signal comes; returns when all is drained."""
        # Twisted's own log repeats what ours says, with paths in it.
        globalLogBeginner.beginLoggingTo([_twisted_errors], redirectStandardIO=False)
        self.connections: dict[Any, dict[str, Any]] = {}
        values = settings.CORALMUX
        self.http_factory = RelayHttpFactory(
            self,
            request_timeout=values["REQUEST_TIMEOUT_SECONDS"],
            stall_timeout=values["STALL_TIMEOUT_SECONDS"],
            files=max(_file_limit() - _SPARE_FILES, _file_limit() // 2),
            connections=values["MAX_CONNECTIONS"],
            connections_per_address=values["MAX_CONNECTIONS_PER_ADDRESS"],
        )
        self.ws_factory = RelayWebSocketFactory(self, server=self.server_name)
        self.ws_factory.setProtocolOptions(
            allowNullOrigin=True, openHandshakeTimeout=5, autoPingInterval=0, versions=[13]
        )
        loop = reactor._asyncioEventloop
        asyncio.set_event_loop(loop)
        self._listener.setblocking(False)
        with contextlib.suppress(OSError):
            # Every accepted connection inherits it.
            self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        self._port = reactor.adoptStreamPort(
            self._listener.fileno(), self._listener.family, self.http_factory
        )
        self._port.transport = RelayTransport
        self._listener.close()
        reactor.callLater(1, self.application_checker)
        reactor.callLater(2, self.timeout_checker)
        reactor.callLater(0, self._started)
        reactor.addSystemEventTrigger("before", "shutdown", self.kill_all_applications)
        reactor.run(installSignalHandlers=self.signal_handlers)

    def _started(self) -> None:
        self._runtime.start()
        self._sweeper = asyncio.ensure_future(self._sweep_for_ever())

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        if not isinstance(protocol, RelayWebSocket):
            return super().create_application(protocol, scope)
        scope["extensions"] = {"coralmux.socket": protocol.flow}
        super().create_application(protocol, scope)
        return _NoEvents()

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        """Daphne's `send` of an application, which here waits for a slow client."""
        if isinstance(protocol, RelayRequest):
            await protocol.room()
            # By it `coralmux-agent check` finds a clock that is wrong.
            protocol.setHeader(b"date", http.datetimeToString())
        await super().handle_reply(protocol, message)

    # Timers

    async def _sweep_for_ever(self) -> None:
        timers = self.flow_timers
        shortest = min(
            timers.ping, timers.silence, timers.stall, timers.hold, timers.close, timers.drain
        )
        period = max(0.02, min(0.5, shortest / 10))
        while True:
            await asyncio.sleep(period)
            now = time.monotonic()
            for flow in tuple(self.flows):
                try:
                    flow.tick(now)
                except Exception:
                    # The fault of one must not stop the clock of all.
                    log.exception("timers failed")
                    flow.cut_off()

    # The end

    def kill_all_applications(self) -> defer.Deferred[None]:
        """Daphne's hook before the reactor stops: drain instead of killing."""
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._drain()))

    async def _drain(self) -> None:
        """Stop accepting, finish what was read, close with 1012, write the usage."""
        self._runtime.draining = True
        log.info("draining", connections=len(self.flows))
        # Meanwhile, for a database that is locked may take as long as a reader that is stuck.
        writing = asyncio.ensure_future(self._runtime.stop_flushing())
        await defer.maybeDeferred(self._port.stopListening).asFuture(asyncio.get_running_loop())
        seconds = self.flow_timers.drain
        ends_at = time.monotonic() + seconds
        for flow in tuple(self.flows):
            flow.stop_reading()
        await self._until(lambda: all(flow.idle for flow in self.flows), seconds / 2)
        for flow in tuple(self.flows):
            flow.close(CloseCode.RESTARTING)
        await self._until(
            lambda: not (self.flows or self.http_factory.answering), ends_at - time.monotonic()
        )
        for flow in tuple(self.flows):
            flow.cut_off()
        await self._until(lambda: not self._runtime.sockets, 1.0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        await writing
        await self._runtime.stop()
        log.info("stopped")

    @staticmethod
    async def _until(condition: Any, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.02)


class _NoEvents:
    """Daphne's application queue; our consumer takes its messages from the FlowSocket."""

    def put_nowait(self, event: dict[str, Any]) -> None:
        pass


def _twisted_errors(event: dict[str, Any]) -> None:
    failure = event.get("log_failure")
    # A second SIGTERM while the first is at work is no news.
    if failure is not None and not failure.check(ReactorNotRunning):
        log.error("twisted", error=failure.type.__name__, detail=str(failure.value))


def _file_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def raise_file_limit(connections: int) -> None:
    """Allow as many open files as the system lets us, and say so if that is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if _file_limit() < connections + _SPARE_FILES:
        log.warning(
            "the limit on open files is below the limit on connections; raise `ulimit -n`",
            open_files=soft,
            max_connections=connections,
            pid=os.getpid(),
        )
