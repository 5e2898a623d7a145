"""What end-to-end encryption costs beside the bare cipher, on one core.

Each figure is of both directions: a record that one end seals and the other opens, with
its padding, associated data and counter. The yardstick is `AESGCM.encrypt` and `decrypt`
of the same plaintext under one nonce. The two take turns, and a ratio is the median of
the rounds' own ratios, since both of a round meet the same disturbances.
"""

from __future__ import annotations

import os
import statistics
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coralmux.client.channel import new_id
from coralmux.e2e import records
from coralmux.e2e.events import Established, Event, Secrets, Send
from coralmux.e2e.initiator import PhoneSession
from coralmux.e2e.noise import CipherState
from coralmux.e2e.records import Records
from coralmux.e2e.responder import AgentSession
from coralmux.e2e.session import Identity
from coralmux.protocol import decode, encode
from coralmux.protocol.limits import FILE_CHUNK_BYTES

ROUNDS = 15
ROUND_SECONDS = 0.1


@dataclass(frozen=True)
class Workload:
    """A plaintext to seal; `goal` is the highest ratio to the bare cipher."""

    name: str
    type: str
    plaintext: bytes
    goal: float


@dataclass(frozen=True)
class Cost:
    """Medians in microseconds; `wire_us` has JSON and base64 with it, as a client does it."""

    name: str
    bare_us: float
    record_us: float
    wire_us: float
    ratio: float
    goal: float


def workloads() -> list[Workload]:
    delta = {"delta": "", "seq": 1234, "ref": new_id()}
    delta["delta"] = "x" * (200 - len(msgspec.json.encode(delta)))
    chunk = {
        "file_id": "f" * 32,
        "index": 7,
        "data_b64": b64encode(os.urandom(FILE_CHUNK_BYTES)).decode(),
    }
    return [
        Workload("record of 200 bytes", "chat.stream", msgspec.json.encode(delta), 2.5),
        Workload("chunk of 64 KiB", "file.chunk", msgspec.json.encode(chunk), 1.3),
    ]


def measure(rounds: int = ROUNDS, seconds: float = ROUND_SECONDS) -> list[Cost]:
    return [_cost(workload, rounds, seconds) for workload in workloads()]


def _cost(workload: Workload, rounds: int, seconds: float) -> Cost:
    bare, record, wire = _bare(workload), _record(workload), _wire(workload)
    times: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        times.append((_time(bare, seconds), _time(record, seconds), _time(wire, seconds)))
    return Cost(
        name=workload.name,
        bare_us=statistics.median(row[0] for row in times),
        record_us=statistics.median(row[1] for row in times),
        wire_us=statistics.median(row[2] for row in times),
        ratio=statistics.median(row[1] / row[0] for row in times),
        goal=workload.goal,
    )


def _bare(workload: Workload) -> Callable[[], object]:
    cipher, nonce, plaintext = AESGCM(os.urandom(32)), os.urandom(12), workload.plaintext
    data = f"{workload.type}\n{new_id()}".encode()
    return lambda: cipher.decrypt(nonce, cipher.encrypt(nonce, plaintext, data), data)


def _ends() -> tuple[Records, Records]:
    key, hs = os.urandom(32), new_id()
    states = [CipherState() for _ in range(4)]
    for state in states:
        state.initialize_key(key)
    return Records(hs, states[0], states[1]), Records(hs, states[2], states[3])


def _record(workload: Workload) -> Callable[[], object]:
    here, there = _ends()
    type, id, plaintext = workload.type, new_id(), workload.plaintext

    def once() -> bytes:
        n = here.sending.n
        return there.open(type, id, n, here.seal(type, id, plaintext))

    return once


def _wire(workload: Workload) -> Callable[[], object]:
    here, there = _ends()
    type, id, plaintext = workload.type, new_id(), workload.plaintext

    def once() -> object:
        payload = msgspec.Raw(here.seal_payload(type, id, plaintext))
        envelope = decode(encode(type, payload, ts=0, id=id))
        record = records.read(envelope.payload)
        if record is None:
            raise RuntimeError("what was sealed is no record")
        return msgspec.json.decode(there.open(type, id, record.n, record.ciphertext))

    return once


def _time(work: Callable[[], object], seconds: float) -> float:
    """Microseconds of one call, over so many seconds of them."""
    clock = time.perf_counter
    count, batch = 0, 10
    start = clock()
    end = start + seconds
    while (now := clock()) < end:
        for _ in range(batch):
            work()
        count += batch
    return (now - start) / count * 1e6


def handshakes_per_second(seconds: float = 1.0) -> float:
    """Whole handshakes, steps 1 to 4 with a new secret handed over, both ends on this core."""
    count = 0
    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        _shake_hands()
        count += 1
    return count / (time.perf_counter() - start)


def _shake_hands() -> None:
    token, secret = new_id(), os.urandom(32)
    phone = PhoneSession(token, Secrets(secret), Identity("phone", "1"))
    agent = AgentSession(token, Secrets(secret), Identity("agent", "1"), rotate=True)
    to_agent: list[Event] = phone.connected(0.0, paired=True)
    established = 0
    while to_agent:
        to_phone = _handed_to(agent, to_agent)
        established += _count(to_phone)
        to_agent = _handed_to(phone, to_phone)
        established += _count(to_agent)
    if established != 2:
        raise RuntimeError("the handshake did not come to its end")


def _handed_to(end: PhoneSession | AgentSession, events: list[Event]) -> list[Event]:
    answers: list[Event] = []
    for event in events:
        if isinstance(event, Send):
            payload = msgspec.Raw(event.payload)
            answers += end.receive(decode(encode(event.type, payload, ts=0, id=event.id)), 0.0)
    return answers


def _count(events: list[Event]) -> int:
    return sum(isinstance(event, Established) for event in events)
