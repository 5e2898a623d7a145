"""A phone's machine and an agent's, back to back, and between them a relay that obeys a script.

Time stands still unless a test moves it. Everything that a machine puts out is carried
out in its order: `Store` goes to what counts as the disk, `Send` to the relay, which
hands it on once `run` is called. A machine can be made to die in front of any of these
effects, and comes back from what is on its disk.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from coralmux.e2e.events import Ended, Established, Event, Lost, Opened, Secrets, Send, Store
from coralmux.e2e.initiator import PhoneSession
from coralmux.e2e.responder import AgentSession
from coralmux.e2e.session import Identity
from coralmux.protocol.envelope import Envelope

TOKEN = "oc_pair_000102030405060708090a0b0c0d0e0f"
LINK_SECRET = bytes(range(64, 96))
PHONE = Identity("a phone", "2.0", ("files",))
AGENT = Identity("an agent", "2.1", ("files", "cancel"))

Machine = PhoneSession | AgentSession
Relay = Callable[[str, Envelope], Iterable[Envelope]]
_Event = TypeVar("_Event", bound=Event)


class CountedBytes:
    """Bytes that look random and are the same in each run.

    Call number k, from 0, for n bytes gives the first n of SHA-256("<label> <k>").
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.calls = 0

    def __call__(self, length: int) -> bytes:
        block = hashlib.sha256(f"{self.label} {self.calls}".encode()).digest()
        self.calls += 1
        if length > len(block):
            raise ValueError("one block is all there is")
        return block[:length]


class Died(Exception):
    """The process of one side ended in front of an effect."""


class Side:
    """One end: its machine, its disk, and what the machine has put out."""

    def __init__(self, role: str, secrets: Secrets, *, rotate: bool, label: str) -> None:
        self.role = role
        self.stored = secrets
        self.events: list[Event] = []
        self.connected = False
        self.said: dict[str, int] = {}  # id -> number of the message
        self.forgotten: set[str] = set()  # ids that only a process knew that has ended
        self.effects_left: int | None = None
        self._rotate = rotate
        self._entropy = CountedBytes(label)
        self.machine = self._build()

    def _build(self) -> Machine:
        if self.role == "phone":
            return PhoneSession(TOKEN, self.stored, PHONE, entropy=self._entropy)
        return AgentSession(TOKEN, self.stored, AGENT, rotate=self._rotate, entropy=self._entropy)

    def rebuild(self) -> None:
        self.machine = self._build()
        self.effects_left = None
        self.forgotten = set(self.said)

    def all(self, kind: type[_Event]) -> list[_Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def take(self) -> list[Event]:
        """What has come since the last call."""
        events, self.events = self.events, []
        return events

    @property
    def opened(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [(event.type, event.id, event.payload) for event in self.all(Opened)]

    @property
    def told(self) -> set[str]:
        """Ids of its messages that this side knows it may not count on."""
        known = set(self.forgotten)
        so_far: list[str] = []
        for event in self.events:
            if isinstance(event, Said):
                so_far.append(event.id)
            elif isinstance(event, Ended):
                known.update(so_far)
            elif isinstance(event, Lost):
                known.update(event.ids)
        return known


class Said(msgspec.Struct, frozen=True):
    """Not an event of the machine: here it sealed this message for its owner."""

    id: str


class Wire:
    """Both sides, what is on its way between them, and the clock.

    `relay` takes the sender's role and an envelope and gives the envelopes that arrive.
    """

    def __init__(
        self,
        *,
        rotate: bool = True,
        phone: Secrets | None = None,
        agent: Secrets | None = None,
        label: str = "test",
    ) -> None:
        self.now = 1000.0
        self.phone = Side(
            "phone", phone or Secrets(LINK_SECRET), rotate=rotate, label=f"{label} phone"
        )
        self.agent = Side(
            "agent", agent or Secrets(LINK_SECRET), rotate=rotate, label=f"{label} agent"
        )
        self.relay: Relay = honest
        self.queue: deque[tuple[str, Envelope]] = deque()  # receiver's role, message
        self.seen: list[tuple[str, Envelope]] = []  # sender's role, message
        self._numbers = 0

    def side(self, role: str) -> Side:
        return self.phone if role == "phone" else self.agent

    def other(self, role: str) -> Side:
        return self.agent if role == "phone" else self.phone

    # What a relay does besides forwarding.

    def connect(self, role: str) -> None:
        """A connection of `role`, in the place of the one that it has, if any."""
        side, other = self.side(role), self.other(role)
        if side.connected:
            self.disconnect(role, told=False)
        side.connected = True
        self.carry_out(side, side.machine.connected(self.now, paired=other.connected))
        if other.connected:
            self.carry_out(other, other.machine.peer_online(self.now))

    def disconnect(self, role: str, *, told: bool = True) -> None:
        side, other = self.side(role), self.other(role)
        side.connected = False
        self.queue = deque(item for item in self.queue if item[0] != role)
        self.carry_out(side, side.machine.disconnected(self.now))
        if told and other.connected:
            self.carry_out(other, other.machine.peer_offline(self.now))

    def restart(self, role: str) -> None:
        """The process ends, and a new one connects with what is on the disk."""
        side = self.side(role)
        side.connected = False
        self.queue = deque(item for item in self.queue if item[0] != role)
        side.rebuild()
        self.connect(role)

    def come(self, device: Side) -> None:
        """A phone connects, and takes the place of the one that is there."""
        if device is not self.phone:
            if self.phone.connected:
                self.disconnect("phone", told=False)
            self.phone = device
        self.connect("phone")

    # The clock and the wire.

    def carry_out(self, side: Side, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Send | Store):
                if side.effects_left == 0:
                    raise Died(side.role)
                if side.effects_left is not None:
                    side.effects_left -= 1
            side.events.append(event)
            if isinstance(event, Store):
                side.stored = event.secrets
            elif isinstance(event, Send) and side.connected:
                self._put(side.role, envelope(event.type, event.id, event.payload))

    def _put(self, sender: str, message: Envelope) -> None:
        self.seen.append((sender, message))
        receiver = self.other(sender)
        if receiver.connected:
            self.queue.extend((receiver.role, m) for m in self.relay(sender, message))

    def deliver(self, role: str, message: Envelope) -> None:
        """Hand one message to a machine, whoever wrote it."""
        side = self.side(role)
        self.carry_out(side, side.machine.receive(message, self.now))

    def run(self) -> None:
        """Hand over all that is on its way, and what is said to that."""
        for _ in range(10_000):
            if not self.queue:
                return
            self.deliver(*self.queue.popleft())
        raise AssertionError("the machines do not stop answering each other")

    def wait(self, seconds: float) -> None:
        """Let time pass in steps of half a second, with a tick where one is due."""
        end = self.now + seconds
        while True:
            for side in (self.phone, self.agent):
                deadline = side.machine.deadline
                if side.connected and deadline is not None and deadline <= self.now:
                    self.carry_out(side, side.machine.tick(self.now))
            self.run()
            if self.now >= end:
                return
            self.now = min(self.now + 0.5, end)

    # What the owners of the machines do.

    def say(self, role: str, type: str = "", payload: dict[str, Any] | None = None) -> str:
        """Seal a message and put it on the wire; its id. Raises NotReady."""
        side = self.side(role)
        self._numbers += 1
        id = f"{role}-{self._numbers}"
        type = type or ("chat.send" if role == "phone" else "chat.stream")
        self.send(role, type, id, {"text": f"secret {id}"} if payload is None else payload)
        side.said[id] = self._numbers
        return id

    def send(self, role: str, type: str, id: str, payload: dict[str, Any]) -> None:
        side = self.side(role)
        sealed = side.machine.seal(type, id, json.dumps(payload).encode())
        side.events.append(Said(id))  # type: ignore[arg-type]
        if side.connected:
            self._put(role, envelope(type, id, sealed))

    # Shorthands.

    def meet(self) -> Wire:
        """Both connect, the agent first, and shake hands."""
        self.connect("agent")
        self.connect("phone")
        self.run()
        return self

    @property
    def talking(self) -> bool:
        """Whether both are ready in one session."""
        return (
            self.phone.machine.ready
            and self.agent.machine.ready
            and self.phone.machine._records.hs == self.agent.machine._records.hs
        )

    def exchange(self) -> None:
        """A message each way must arrive, as it was sent."""
        for role in ("phone", "agent"):
            id = self.say(role)
            self.run()
            assert [m[1] for m in self.other(role).opened][-1:] == [id]
            assert self.other(role).opened[-1][2] == {"text": f"secret {id}"}


def honest(sender: str, message: Envelope) -> list[Envelope]:
    return [message]


def envelope(type: str, id: str, payload: bytes | dict[str, Any]) -> Envelope:
    raw = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    return Envelope(type, id, msgspec.Raw(raw))


def payload_of(message: Envelope) -> dict[str, Any]:
    value = msgspec.json.decode(message.payload)
    assert isinstance(value, dict)
    return value


def changed(message: Envelope, **members: Any) -> Envelope:
    """The same message with members of its payload replaced; None takes one out."""
    payload = payload_of(message) | members
    return envelope(message.type, message.id, {k: v for k, v in payload.items() if v is not None})


def step_of(message: Envelope) -> int | None:
    """The step of a clear key exchange; a sealed one is None."""
    if message.type != "key_exchange":
        return None
    step = payload_of(message).get("step")
    return step if isinstance(step, int) else None


def is_record(message: Envelope) -> bool:
    return payload_of(message).get("enc") is True


def dropping(matching: Callable[[str, Envelope], bool]) -> Relay:
    """A relay that drops what matches."""
    return lambda sender, message: [] if matching(sender, message) else [message]


def dropping_first(matching: Callable[[str, Envelope], bool]) -> Relay:
    """A relay that drops the first message that matches."""
    dropped = False

    def relay(sender: str, message: Envelope) -> list[Envelope]:
        nonlocal dropped
        if dropped or not matching(sender, message):
            return [message]
        dropped = True
        return []

    return relay


def flipped(message: Envelope, position: int, bit: int = 1) -> Envelope:
    """A record with one byte of its ciphertext changed."""
    data = bytearray(base64.b64decode(payload_of(message)["ciphertext"]))
    data[position] ^= bit
    return changed(message, ciphertext=base64.b64encode(data).decode())


def established(side: Side) -> int:
    return len(side.all(Established))


def steps(side: Side) -> list[int | None]:
    """The key exchanges that a side has sent: their steps, None for a sealed one."""
    return [
        step_of(envelope(event.type, event.id, event.payload))
        for event in side.all(Send)
        if event.type == "key_exchange"
    ]


def talking(seconds: float = 6) -> Wire:
    """Both ends have exchanged a message, and may shake hands again at once."""
    wire = Wire().meet()
    wire.exchange()
    wire.wait(seconds)
    for side in (wire.phone, wire.agent):
        side.take()
    return wire


def next_record(wire: Wire, sender: str) -> Envelope:
    """The next message of this sender, which is on its way no more."""
    wire.say(sender)
    receiver, message = wire.queue.pop()
    assert receiver != sender
    return message
