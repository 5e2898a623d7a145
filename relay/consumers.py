"""The consumer at /ws: accept, authenticate, then frame by frame through the session.

It is a Channels consumer with a receive loop of its own: Channels' dispatch
makes tasks for every message and hops to a thread to close database
connections, which costs more than everything else on a message's way.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import structlog
from channels.consumer import AsyncConsumer

from coralmux import __version__, protocol
from coralmux.protocol.close_codes import REASONS, CloseCode
from coralmux.protocol.errors import ErrorCode
from coralmux.protocol.types import Role
from pairing import addresses, services
from relay import session
from relay.directory import Meeting
from relay.runtime import DatabaseAway, Runtime, runtime
from relay.session import Session
from relay.sockets import (
    AsgiSocket,
    Data,
    Disconnected,
    Receive,
    Send,
    Socket,
    TooLarge,
    wait_for_change,
)

log = structlog.get_logger("relay")

PROTOCOL_VERSION = 2


class RelayConsumer(AsyncConsumer):  # type: ignore[misc]
    """One WebSocket of a phone or an agent."""

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        runtime.start()
        address = addresses.of_scope(scope)
        own = scope.get("extensions", {}).get("coralmux.socket")
        if own is not None:
            await Connection(own, address, runtime).run()
            return
        timers = runtime.timers
        socket = AsgiSocket(
            receive,
            send,
            hold_seconds=timers.hold,
            stall_timeout=timers.stall,
            close_timeout=timers.close,
        )
        try:
            await Connection(socket, address, runtime).run()
            await socket.closed()
        except TimeoutError:
            pass
        finally:
            socket.abandon()


class Connection:
    """A socket, its session and its place in a meeting."""

    __slots__ = (
        "_address",
        "_bytes_in",
        "_bytes_out",
        "_gave_up",
        "_meeting",
        "_opened_at",
        "_runtime",
        "_session",
        "_traffic",
        "role",
        "socket",
    )

    role: Role

    def __init__(self, socket: Socket, address: str, runtime: Runtime) -> None:
        self.socket = socket
        self._address = address
        self._runtime = runtime
        self._session = Session(max_bytes=runtime.max_message_bytes)
        self._meeting: Meeting | None = None
        self._opened_at = time.monotonic()
        self._bytes_in = 0
        self._bytes_out = 0
        self._gave_up = False

    async def run(self) -> None:
        """From the handshake to the end, whoever ends it."""
        admitted = self._runtime.admit_socket(self._address)
        try:
            await self.socket.accept()
            if not admitted or self._runtime.draining:
                self.socket.close(CloseCode.TRY_LATER if not admitted else CloseCode.RESTARTING)
                return
            if await self._log_in():
                await self._serve_in_group()
        except Disconnected:
            pass
        except Exception:
            # A fault of ours ends this connection and no other.
            log.exception("connection failed")
            self.socket.close(CloseCode.RELAY_ERROR, discard=True)
        finally:
            if admitted:
                self._runtime.release_socket(self._address)
            self._leave()

    # Logging in

    async def _log_in(self) -> bool:
        try:
            async with asyncio.timeout(self._runtime.timers.auth):
                data = await self.socket.receive()
        except TimeoutError:
            self._runtime.metrics.auth["timeout"] += 1
            self.socket.close(CloseCode.AUTH_TIMEOUT)
            return False
        if isinstance(data, TooLarge):
            self._close(self._session.too_large(data.head))
            return False
        action = self._session.receive(data, time.monotonic(), time.time())
        if not isinstance(action, session.Authenticate):
            self._runtime.metrics.auth["malformed"] += 1
            assert isinstance(action, session.Close)
            self._close(action)
            return False
        return await self._authenticate(action)

    async def _authenticate(self, action: session.Authenticate) -> bool:
        auth = self._runtime.metrics.auth
        try:
            grant = await self._runtime.log_in(action.token, action.role, self._address)
        except services.TooManyFailures as error:
            auth["too_many_failures"] += 1
            # auth.fail would make v1 clients give up for good on what may be a good token.
            text = "Too many failed attempts from this address."
            wait_ms = error.retry_after_seconds * 1000
            refusal = session.Refuse(ErrorCode.RATE_LIMITED, text, action.ref, wait_ms)
            self._close(session.Close(CloseCode.TOO_MANY_FAILURES, refusal))
            return False
        except (services.TokenRevoked, services.TokenExpired):
            auth["revoked"] += 1
            text = "This token was revoked or has expired. Pair again."
            self._close(self._session.auth_failed(text, action.ref, CloseCode.REVOKED))
            return False
        except services.AuthFailed:
            auth["unknown"] += 1
            text = "Unknown token. Check it, or pair again."
            self._close(self._session.auth_failed(text, action.ref))
            return False
        except DatabaseAway as error:
            auth["unavailable"] += 1
            log.error("login not possible", error=str(error))
            self.socket.close(CloseCode.TRY_LATER)
            return False
        if self.socket.close_code:
            return False
        auth["ok"] += 1
        return self._join(action.role, grant)

    def _join(self, role: Role, grant: services.Grant) -> bool:
        """Take the place in the meeting. Nothing in here waits, so nobody sees half of it."""
        runtime, now = self._runtime, time.monotonic()
        meeting = runtime.directory.meeting(grant, runtime.rates(grant), now, time.time())
        allowance = meeting.allowances[role]
        if role in meeting.members and allowance.replacements.take(now):
            runtime.metrics.refused["TOO_MANY_REPLACEMENTS"] += 1
            self.socket.close(CloseCode.TRY_LATER)
            return False
        self.role = role
        self._meeting = meeting
        self._traffic = runtime.metrics.forwarded[role]
        self._session.opened(allowance, meeting.usage, max_bytes=grant.max_message_bytes)
        self.socket.max_message_bytes = grant.max_message_bytes
        before = runtime.directory.join(meeting, self)
        if before is not None:
            # A phone that changes networks reconnects before anybody notices that its
            # old socket died. The newest connection wins.
            before.socket.close(CloseCode.REPLACED, discard=True)
        peer = self._peer()
        self._send("auth.ok", self._greeting(meeting, grant, paired=peer is not None))
        if peer is not None:
            peer._send("status", {"peer": "online"})
        return True

    def _greeting(self, meeting: Meeting, grant: services.Grant, *, paired: bool) -> dict[str, Any]:
        per_minute = (
            grant.phone_messages_per_minute
            if self.role is Role.PHONE
            else grant.agent_messages_per_minute
        )
        return {
            "paired": paired,
            "daily_quota_bytes": meeting.usage.daily_quota,
            "daily_used_bytes": meeting.usage.used_today,
            "monthly_quota_bytes": meeting.usage.monthly_quota,
            "monthly_used_bytes": meeting.usage.used_this_month,
            "limits": {
                "max_message_bytes": grant.max_message_bytes,
                "messages_per_minute": per_minute,
                "stream_frames_per_second": grant.stream_frames_per_second,
            },
            "connection_id": secrets.token_hex(8),
            "server": {
                "name": "coralmux-relay",
                "version": __version__,
                "protocol": PROTOCOL_VERSION,
            },
        }

    # Serving

    async def _serve_in_group(self) -> None:
        assert self._meeting is not None
        groups, token_id = self._runtime.groups, self._meeting.token_id
        await groups.join(token_id)
        try:
            await self._serve()
        finally:
            await groups.leave(token_id)

    async def _serve(self) -> None:
        receive, decide = self.socket.receive, self._session.receive
        while True:
            data = await receive()
            if isinstance(data, TooLarge):
                self._close(self._session.too_large(data.head))
                return
            self._bytes_in += len(data)
            action = decide(data, time.monotonic(), time.time())
            if isinstance(action, session.Hold):
                action = await self._hold(action)
            if isinstance(action, session.Forward):
                peer = self._peer()
                if peer is None or peer.socket.full or not self._hand_over(peer, data, action):
                    await self._forward_slowly(peer, data, action)
                    await asyncio.sleep(0)
            elif isinstance(action, session.Close):
                self._close(action)
                return
            elif isinstance(action, session.Answer):
                self._send("pong", {}, id=action.ref or None)
            else:
                assert isinstance(action, session.Refuse)
                self._refuse(action)
                # One at a time, and others between: refusing takes longer than
                # forwarding, and who is refused is in no hurry.
                await asyncio.sleep(0)
            if self.socket.full:
                # Its own answers pile up: nothing more is read until it takes them.
                await self._until_own_socket_drains()

    async def _hold(self, action: session.Hold) -> session.Action:
        """Slow the sender: wait for its allowance as long as its client can bear."""
        self._runtime.metrics.buffer_stalls["allowance"] += 1
        next_action: session.Action = action
        while isinstance(next_action, session.Hold):
            if self.socket.overdue:
                return self._session.give_up(time.monotonic(), time.time())
            await wait_for_change(self.socket, seconds=self._patience(next_action.seconds))
            self._raise_if_ended()
            next_action = self._session.retry(time.monotonic(), time.time())
        return next_action

    async def _forward_slowly(
        self, peer: Connection | None, data: Data, action: session.Forward
    ) -> None:
        """Wait for a peer that reads slowly, or refuse the message."""
        stalled = False
        while peer is not None and peer is self._peer() and not peer.socket.close_code:
            if not peer.socket.full:
                if self._hand_over(peer, data, action):
                    return
                break
            if not stalled:
                stalled = True
                self._runtime.metrics.buffer_stalls["slow_reader"] += 1
            if self.socket.overdue or self._gave_up:
                # From now on none waits until one passes: another wait for each mebibyte
                # that the client has sent already would keep its pings unread for minutes.
                self._gave_up = True
                text = "The other side reads too slowly. Not known to be delivered; send it again."
                self._refuse(session.Refuse(ErrorCode.PEER_OFFLINE, text, action.ref))
                return
            await wait_for_change(self.socket, peer.socket, seconds=self._patience())
            self._raise_if_ended()
        self._refuse(_peer_offline(self.role, action.ref))

    async def _until_own_socket_drains(self) -> None:
        while self.socket.full:
            await wait_for_change(self.socket)
            self._raise_if_ended()

    def _patience(self, seconds: float = 1.0) -> float:
        # An ASGI server other than ours tells nobody when a sender is overdue, so
        # whoever waits looks again every now and then.
        return min(seconds, self._runtime.timers.hold / 4)

    def _raise_if_ended(self) -> None:
        if self.socket.close_code:
            raise Disconnected(self.socket.close_code)

    def _peer(self) -> Connection | None:
        assert self._meeting is not None
        peer = self._meeting.members.get(self.role.peer)
        assert peer is None or isinstance(peer, Connection)
        return peer

    def _hand_over(self, peer: Connection, data: Data, action: session.Forward) -> bool:
        """Give the frame to the peer's socket, and count it."""
        if not peer.socket.write(data, self, action.ref):
            return False
        self._gave_up = False
        size = len(data)
        traffic = self._traffic[action.kind]
        traffic.messages += 1
        traffic.bytes += size
        peer._bytes_out += size
        assert self._meeting is not None
        self._meeting.usage.count(self.role, size, time.time())
        return True

    def undelivered(self, ref: str) -> None:
        """A frame of ours was taken, but its receiver's connection ended before it was written."""
        self._runtime.metrics.undelivered += 1
        self._refuse(_peer_offline(self.role, ref))

    # Speaking to this client

    def _send(self, type: str, payload: dict[str, Any], id: str | None = None) -> None:
        self.socket.write(protocol.encode(type, payload, ts=int(time.time() * 1000), id=id))

    def _refuse(self, action: session.Refuse) -> None:
        self._runtime.metrics.refused[action.code.value] += 1
        self._send_error(action)
        if action.code in (ErrorCode.DAILY_QUOTA_EXCEEDED, ErrorCode.MONTHLY_QUOTA_EXCEEDED):
            self._tell_peer_of_quota(action)

    def _tell_peer_of_quota(self, action: session.Refuse) -> None:
        """The other side waits for what will not come, so it hears of it too, once."""
        assert self._meeting is not None
        if self._meeting.usage.announced:
            return
        if peer := self._peer():
            self._meeting.usage.announced = True
            peer._send_error(session.Refuse(action.code, action.message, "", action.retry_after_ms))

    def _send_error(self, action: session.Refuse, type: str = "chat.error") -> None:
        self._send(
            type,
            protocol.error_payload(
                action.code,
                action.message,
                ref=action.ref,
                retry_after_ms=action.retry_after_ms,
            ),
        )

    def _close(self, action: session.Close) -> None:
        if action.error is not None:
            self._runtime.metrics.refused[action.error.code.value] += 1
            self._send_error(action.error, "auth.fail" if action.failed_auth else "chat.error")
        self.socket.close(action.code)

    # The end

    def _leave(self) -> None:
        self._session.close()
        meeting = self._meeting
        if meeting is not None and self._runtime.directory.leave(meeting, self):
            peer = self._peer()
            if peer is not None:
                peer._send("status", {"peer": "offline"})
        code, ended_by = self.socket.close_code, self.socket.ended_by
        if ended_by == "relay":
            reason = REASONS[CloseCode(code)]
            self._runtime.metrics.closed[str(int(code))] += 1
        else:
            # A client's code may be any number, and no label of ours.
            reason = "closed by the client" if ended_by == "client" else "the connection broke"
            self._runtime.metrics.closed[ended_by] += 1
        log.info(
            "connection ended",
            token_id=None if meeting is None else meeting.token_id,
            role=None if meeting is None else self.role.value,
            seconds=round(time.monotonic() - self._opened_at, 3),
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            code=int(code),
            reason=reason,
        )


def _peer_offline(role: Role, ref: str) -> session.Refuse:
    who = "agent" if role is Role.PHONE else "phone"
    text = f"The {who} is not connected. Not known to be delivered; send it again when it is back."
    return session.Refuse(ErrorCode.PEER_OFFLINE, text, ref)
