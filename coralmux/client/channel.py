"""A channel: the messages of one pairing, end-to-end encrypted, over a connection that returns.

    Connection (bytes to and from the relay)
        │ events                    ▲ post
        ▼                           │
    Channel ── machine (e2e.initiator, e2e.responder or e2e.legacy)
        │ on_message, on_event      ▲ send
        ▼                           │
    Agent or Phone

The channel carries out what the machine says, drops messages that came before, writes
down what must outlive the process, and tells the sender of a message what became of it.
It has no task of its own beside `run`: a message is sealed and queued in one step, so
that counters go out in order, and waiting is left to whoever calls `drain`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from coralmux import __version__
from coralmux.client import connection as wire
from coralmux.client.coalesce import Pacer
from coralmux.client.errors import (
    ClientError,
    ConnectionLost,
    MessageLost,
    MessageTooLarge,
    NotConnected,
    PairingRefused,
    Stopped,
    copied,
)
from coralmux.client.insistence import OFFLINE_SECONDS, Fate, Insistence
from coralmux.client.memory import Memory
from coralmux.client.refusals import refusal
from coralmux.client.store import Store, StoreError
from coralmux.e2e import events as e2e
from coralmux.e2e.errors import NotReady
from coralmux.e2e.events import Event, Opened, PeerInfo
from coralmux.e2e.initiator import PhoneSession
from coralmux.e2e.legacy import LegacySession
from coralmux.e2e.link import PairingLink
from coralmux.e2e.responder import AgentSession
from coralmux.e2e.session import Identity
from coralmux.protocol import Envelope, RateClass, Role, encode, rate_class
from coralmux.protocol.errors import PeerCode
from coralmux.protocol.limits import HIGH_WATER_BYTES, MAX_MESSAGE_BYTES
from coralmux.protocol.types import TYPES, Sender

log = logging.getLogger("coralmux")

# Abilities that both ends tell each other.
CAPS = ("cancel", "files")

# Messages whose fate may still become known: a refusal or a report of loss names one.
_FATES = 8192

# Bytes that a relay must take in one message to be of use: one chunk of a file is a frame
# of 120 KiB. Whoever announces less could otherwise keep us from saying anything at all.
_LEAST_MESSAGE_BYTES = 128 * 1024

# Bytes that wait to be written before nothing more is read: whoever makes us answer, and
# does not take the answers, must not make us grow. It is more than what two honest ends
# have in front of each other, the largest message and a queue that `drain` calls full:
# where both read nothing until they have written, neither ever does.
_HOLD_BYTES = MAX_MESSAGE_BYTES + 3 * HIGH_WATER_BYTES

# Bytes that an envelope has around its ciphertext, generously.
_ENVELOPE_BYTES = 512

_LOST = "The message did not arrive, says the other end. Send it again."
_DUPLICATE = {
    "code": PeerCode.DUPLICATE,
    "message": "This message came before, and is not answered twice. Ask again in a new one.",
}

AnyEvent = Event | wire.ConnectionEvent


class _Machine(Protocol):
    """What the machines of both versions offer; see `e2e.session`."""

    peer: PeerInfo | None
    deadline: float | None

    @property
    def ready(self) -> bool: ...
    def connected(self, now: float, *, paired: bool) -> list[Event]: ...
    def peer_online(self, now: float) -> list[Event]: ...
    def peer_offline(self, now: float) -> list[Event]: ...
    def disconnected(self, now: float) -> list[Event]: ...
    def receive(self, envelope: Envelope, now: float) -> list[Event]: ...
    def seal(self, type: str, id: str, payload: bytes) -> bytes: ...
    def refused(self, id: str) -> None: ...
    def tick(self, now: float) -> list[Event]: ...


class Channel:
    """See the module. `on_message` gets each message of the peer once, `on_event` all else.

    Without a `store` nothing outlives the channel; an agent then leaves the secret of
    its link as it is.
    """

    def __init__(
        self,
        link: PairingLink,
        role: Role,
        *,
        name: str,
        store: Store | None,
        on_message: Callable[[Opened], None],
        on_event: Callable[[AnyEvent], None],
        **options: Any,
    ) -> None:
        self.link = link
        self.role = role
        self.pacer = Pacer.announced(None)
        # A relay of version 1 counts results and keys with the deltas.
        self._all_counts = True
        self.max_message_bytes = MAX_MESSAGE_BYTES
        self.greeting: wire.Greeting | None = None
        self.failure: ClientError | None = None  # why there is no getting through
        self._on_message = on_message
        self._on_event = on_event
        self._memory = Memory(store, link, role)
        self._fates: OrderedDict[str, Fate] = OrderedDict()
        self._over = False  # run() has ended
        self._peer_there = False  # says the relay
        self._insistence = Insistence(self.send)
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._machine = self._make_machine(name)
        self._connection = wire.Connection(
            link.relay, link.token, role, client_name=name, **options
        )

    def _make_machine(self, name: str) -> _Machine:
        secrets = self._memory.secrets
        if secrets is None:
            return LegacySession(self.role)
        identity = Identity(name, __version__, CAPS)
        if self.role is Role.PHONE:
            return PhoneSession(self.link.token, secrets, identity)
        return AgentSession(self.link.token, secrets, identity, rotate=self._memory.lasting)

    def __repr__(self) -> str:
        return f"<Channel of the {self.role} at {self.link.relay}, version {self.version}>"

    @property
    def version(self) -> int:
        """2 with a secret, 1 by token alone."""
        return 1 if self._memory.secrets is None else 2

    @property
    def ready(self) -> bool:
        """Whether a message can be sent now."""
        # A connection may be over before its last messages and its end are worked on.
        return self._machine.ready and self._connection.connected

    @property
    def peer(self) -> PeerInfo | None:
        return self._machine.peer

    async def run(self) -> None:
        """Be connected until `close` or until the relay wants this client no more.

        Raises StoreError when a secret cannot be written down.
        """
        self._over = False
        try:
            async with contextlib.aclosing(self._connection.events()) as events:
                async for event in events:
                    self._connection_event(event)
                    if self._connection.queued_bytes > _HOLD_BYTES:
                        with contextlib.suppress(NotConnected):  # `events` tells of that
                            await self._connection.drain()
        finally:
            self._over = True
            if self._timer is not None:
                self._timer.cancel()
            self._memory.close()
            self._perform(self._machine.disconnected(self._now()))
            self._session_ended()

    async def close(self) -> None:
        await self._connection.close()

    def reconnect(self) -> None:
        """Come back now: after a pause of the network, or where another device took over.

        A phone that was refused by an agent that is there tries again at once. Once `run`
        has ended nothing comes back, and why it ended goes on being told.
        """
        if self._over:
            return
        refused = isinstance(self.failure, PairingRefused)
        self.failure = None
        self._connection.reconnect()
        if refused and self._peer_there:
            self._perform(self._machine.peer_online(self._now()))

    def give_up(self, failure: ClientError) -> None:
        """Tell all that wait, now and later, that there will be no session."""
        self.failure = failure
        self._changed.set()

    async def wait_ready(self) -> None:
        """Return when messages can be sent.

        Raises Stopped or PairingRefused where waiting cannot help.
        """
        while not self.ready:
            if self.failure is not None:
                raise copied(self.failure)
            self._changed.clear()
            await self._changed.wait()

    # Out.

    def send(
        self,
        type: str,
        payload: dict[str, Any],
        *,
        id: str | None = None,
        on_failure: Fate | None = None,
    ) -> str:
        """Seal a message and queue it; its id.

        `on_failure` is told when it is known to be refused or lost; the end of the session
        is told to all by `on_event`. Raises NotConnected, or MessageTooLarge.
        """
        id = new_id() if id is None else id
        plaintext = msgspec.json.encode(payload)
        if len(plaintext) * 4 // 3 + _ENVELOPE_BYTES > self.max_message_bytes:
            raise MessageTooLarge(
                f"A message of {len(plaintext):,} bytes does not pass: the relay takes "
                f"{self.max_message_bytes:,}, and encryption adds a third. Send less at once.",
                ids=(id,),
            )
        try:
            sealed = self._machine.seal(type, id, plaintext)
        except NotReady:
            self._schedule()
            raise NotConnected(
                "There is no session with the other end. Try again when there is.", ids=(id,)
            ) from None
        if on_failure is not None:
            self._fates[id] = on_failure
            if len(self._fates) > _FATES:
                self._fates.popitem(last=False)
        try:
            self._post(type, id, sealed)
        except NotConnected as error:
            error.ids = (id,)
            raise
        return id

    def insist(self, type: str, payload: dict[str, Any], *, on_failure: Fate | None = None) -> None:
        """Send what must arrive: again, under the same id, where it was refused or lost.

        Raises as `send`; `on_failure` is told when trying again does not help, or would
        help in more than a minute only. The end of the session ends it without a word.
        """
        # In version 1 a late end would be taken for another answer's.
        waits = OFFLINE_SECONDS if self.version == 2 else None
        self._insistence.send(type, payload, new_id(), waits, on_failure)

    def _session_ended(self) -> None:
        self._fates.clear()
        self._insistence.end()

    async def drain(self) -> None:
        """Return when the outgoing queue is short enough for more. Raises NotConnected."""
        await self._connection.drain()

    def _post(self, type: str, id: str, payload: bytes) -> None:
        if self._all_counts and rate_class(type, self.role) is not RateClass.STREAM:
            self.pacer.sent(self._now())
        ts = time.time_ns() // 1_000_000
        self._connection.post(encode(type, msgspec.Raw(payload), ts=ts, id=id), id=id)

    # In.

    def _connection_event(self, event: wire.ConnectionEvent) -> None:
        now = self._now()
        match event:
            case wire.Received(envelope):
                self._receive(envelope, now)
                return
            case wire.Connected(greeting):
                self._greet(greeting, now)
                self._peer_there = greeting.paired
                self._on_event(event)
                self._perform(self._machine.connected(now, paired=greeting.paired))
                return
            case wire.PeerStatus(online):
                self._peer_there = online
                if online and isinstance(self.failure, PairingRefused):
                    self.failure = None  # it may be another one that is there now
                self._on_event(event)
                status = self._machine.peer_online if online else self._machine.peer_offline
                self._perform(status(now))
                return
            case wire.Disconnected():
                self._cut(event.cause, event.unsent, now)
            case wire.Stopped():
                self.failure = Stopped(event.cause, code=event.code)
                self._cut(event.cause, event.unsent, now)
        self._on_event(event)
        self._changed.set()

    def _cut(self, cause: str, unsent: tuple[str, ...], now: float) -> None:
        self._peer_there = False
        for id in unsent:
            self._tell(id, ConnectionLost(cause, ids=(id,)))
        self._perform(self._machine.disconnected(now))
        self._session_ended()  # also where the machine never had one: v1 says much without

    def _receive(self, envelope: Envelope, now: float) -> None:
        """Act on one message. Whatever is the matter with it, the next one is read."""
        events: list[Event]
        try:
            events = self._machine.receive(envelope, now)
        except Exception as error:
            events = [_unhandled(error, envelope.id)]
        for event in events:
            try:
                self._carry_out(event)
            except StoreError:
                raise
            except Exception as error:
                self._carry_out(_unhandled(error, envelope.id))
        self._schedule()

    def _greet(self, greeting: wire.Greeting, now: float) -> None:
        self.greeting = greeting
        self.failure = None
        limits = greeting.limits
        self._all_counts = limits is None
        self.pacer.announce(None if limits is None else limits.stream_frames_per_second, now)
        announced = 0 if limits is None else limits.max_message_bytes or 0
        self.max_message_bytes = (
            announced if announced >= _LEAST_MESSAGE_BYTES else MAX_MESSAGE_BYTES
        )

    def _perform(self, events: list[Event]) -> None:
        for event in events:
            self._carry_out(event)
        self._schedule()

    def _carry_out(self, event: Event) -> None:
        match event:
            case Opened():
                self._deliver(event)
                return
            case e2e.Send(type, id, payload):
                with contextlib.suppress(NotConnected):  # then a new session is due anyway
                    self._post(type, id, payload)
                return
            case e2e.Store(secrets):
                self._memory.keep(secrets)
                return
            case e2e.Hint():
                self._machine.refused(event.ref)
                self._tell(event.ref, refusal(event))
            case e2e.Lost(ids):
                for id in ids:
                    self._tell(id, MessageLost(_LOST, ids=(id,)))
            case e2e.Established(peer):
                self.failure = None
                self._memory.peer_name = peer.name
            case e2e.Ended():
                self._session_ended()
            case e2e.PairingRefused(failure):
                # What a stranger tries does not concern an agent's own waiting.
                if self.role is Role.PHONE:
                    self.failure = PairingRefused(failure.value, failure=failure)
            case e2e.Ignored(why):
                log.debug("ignored %s", why)
        self._on_event(event)
        self._changed.set()

    def _deliver(self, message: Opened) -> None:
        if not self._came_before(message):
            self._on_message(message)
            return
        self._on_event(e2e.Ignored("a message that came before", message.id))
        if self.role is Role.AGENT and _is_request(message.type):
            # Whoever sent it again waits for an answer.
            with contextlib.suppress(ClientError):
                self.send("chat.error", _DUPLICATE | {"ref": message.id})

    def _came_before(self, message: Opened) -> bool:
        """Whether this id was delivered already; nobody sends a delta or chunk again."""
        if self.version == 1 or rate_class(message.type, self.role.peer) is RateClass.STREAM:
            return False
        return self._memory.has_seen(message.id)

    def _tell(self, id: str, error: ClientError) -> None:
        fate = self._fates.pop(id, None)
        if fate is not None:
            error.ids = (id,)
            fate(error)

    # Time.

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._machine.deadline is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._machine.deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._perform(self._machine.tick(self._now()))


def new_id() -> str:
    """An id for a message: 16 characters of 96 random bits."""
    return secrets.token_urlsafe(12)


def _is_request(type: str) -> bool:
    known = TYPES.get(type)
    return known is not None and known.sender is Sender.PHONE


def _unhandled(error: Exception, id: str) -> e2e.Ignored:
    # Neither the error's text nor its traceback: both may hold what was in the message.
    log.error("a message could not be handled (%s)", type(error).__name__)
    return e2e.Ignored("a message that could not be handled", id)
