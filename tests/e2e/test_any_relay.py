"""Whatever a relay does for a while: nothing wrong is delivered, and afterwards all is well.

What the machines promise for a message that `seal` took: it arrives once and as it was
sent, in its order within its session; or else its sender hears, by `Lost` with its id or
by the `Ended` of its session, once both have said something more under honest
conditions. (The last record of a session may be dropped without anybody noticing
before that: the request's time-out is the client's.)

Honest conditions mean that a wrong status, too, is put right: who was told that the
other is offline hears that it is online.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from coralmux.e2e.errors import NotReady
from coralmux.e2e.events import Opened
from coralmux.protocol.envelope import Envelope
from tests.e2e.machines import Side, Wire, envelope

ROLES = st.sampled_from(["phone", "agent"])
NUMBERS = st.integers(0, 200)
ACTIONS = st.one_of(
    st.tuples(st.just("say"), ROLES, st.just(0)),
    st.tuples(
        st.sampled_from(["deliver", "drop", "twice", "last first", "reflect"]), ROLES, st.just(0)
    ),
    st.tuples(st.sampled_from(["corrupt", "old", "old to the other"]), ROLES, NUMBERS),
    st.tuples(st.sampled_from(["run", "online", "offline", "connect"]), ROLES, st.just(0)),
    st.tuples(st.just("restart"), ROLES, st.just(0)),
    st.tuples(st.just("refuse"), ROLES, NUMBERS),
    st.tuples(st.just("wait"), ROLES, st.integers(1, 40)),
)
FORGED_CODES = ["E2E_REFUSED", "RATE_LIMITED", "PEER_OFFLINE", "E2E_FAILED"]


class Adversary:
    """A relay that does as it is told, one deed at a time."""

    def __init__(self, *, rotate: bool) -> None:
        self.wire = Wire(rotate=rotate)
        self.believes_offline: set[str] = set()
        self.wire.connect("agent")
        self.wire.connect("phone")

    def do(self, deed: str, role: str, number: int) -> None:
        wire = self.wire
        side = wire.side(role)
        mine = [item for item in wire.queue if item[0] == role]
        match deed:
            case "say":
                try:
                    wire.say(role)
                except NotReady:
                    assert not side.machine.ready
            case "run":
                wire.run()
            case "wait":
                wire.wait(number)
            case "connect":
                wire.connect(role)
                self.believes_offline.clear()
            case "restart":
                wire.restart(role)
                self.believes_offline.clear()
            case "online":
                self.believes_offline.discard(role)
                wire.carry_out(side, side.machine.peer_online(wire.now))
            case "offline":
                self.believes_offline.add(role)
                wire.carry_out(side, side.machine.peer_offline(wire.now))
            case "old" | "old to the other" if wire.seen:
                sender, message = wire.seen[-1 - number % len(wire.seen)]
                there = wire.other(sender).role
                wire.deliver(there if deed == "old" else sender, message)
            case "refuse":
                ids = [m.id for sender, m in wire.seen if sender == role][-1:]
                error = {
                    "code": FORGED_CODES[number % len(FORGED_CODES)],
                    "message": "forged",
                    "ref": ids[0] if ids else "",
                    "retry_after_ms": number * 100_000,
                }
                wire.deliver(role, envelope("chat.error", "forged", error))
            case _ if mine:
                self._do_to(deed, mine[-1] if deed == "last first" else mine[0], number)

    def _do_to(self, deed: str, item: tuple[str, Envelope], number: int) -> None:
        wire = self.wire
        role, message = item
        wire.queue.remove(item)
        match deed:
            case "deliver" | "last first":
                wire.deliver(role, message)
            case "twice":
                wire.deliver(role, message)
                wire.deliver(role, message)
            case "reflect":
                wire.deliver(wire.other(role).role, message)
            case "corrupt":
                payload = bytearray(message.payload)
                payload[-1 - number % len(payload)] ^= 1 + number % 7
                wire.deliver(role, envelope(message.type, message.id, bytes(payload)))

    def become_honest(self) -> None:
        wire = self.wire
        wire.run()
        for role in sorted(self.believes_offline):
            side = wire.side(role)
            wire.carry_out(side, side.machine.peer_online(wire.now))
        wire.run()
        wire.wait(120)


def delivered(receiver: Side) -> list[Opened]:
    """What came through, the sealed answers to forgeries aside."""
    return [event for event in receiver.all(Opened) if event.type != "chat.error"]


def assert_nothing_wrong_came(sender: Side, receiver: Side) -> None:
    ids = [event.id for event in delivered(receiver)]
    assert all(event.sealed for event in delivered(receiver))
    assert set(ids) <= set(sender.said)
    assert len(ids) == len(set(ids))
    assert [sender.said[id] for id in ids] == sorted(sender.said[id] for id in ids)
    for event in delivered(receiver):
        assert event.payload == {"text": f"secret {event.id}"}


def assert_all_is_well(wire: Wire) -> None:
    assert wire.phone.machine.ready
    assert wire.agent.machine.ready
    # The first words after the lies may still be lost, and are told then.
    for _ in range(3):
        for role in ("phone", "agent"):
            with suppress(NotReady):
                wire.say(role)
            wire.run()
        wire.wait(6)
    assert wire.talking
    wire.exchange()
    for sender, receiver in ((wire.phone, wire.agent), (wire.agent, wire.phone)):
        assert_nothing_wrong_came(sender, receiver)
        came = {event.id for event in delivered(receiver)}
        assert set(sender.said) - came - sender.told == set()
    assert wire.phone.stored.next is None
    assert wire.phone.stored == wire.agent.stored


@given(rotate=st.booleans(), deeds=st.lists(ACTIONS, min_size=5, max_size=60))
def test_lies_and_losses_end_with_both_talking_and_nothing_lost_in_silence(
    rotate: bool, deeds: list[tuple[Any, ...]]
) -> None:
    adversary = Adversary(rotate=rotate)
    wire = adversary.wire
    for deed in deeds:
        adversary.do(*deed)
        assert_nothing_wrong_came(wire.phone, wire.agent)
        assert_nothing_wrong_came(wire.agent, wire.phone)
    adversary.become_honest()
    assert_all_is_well(wire)
