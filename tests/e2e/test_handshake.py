"""The handshake: honest, damaged, replayed, unanswered, and with a peer that cannot do it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from coralmux.e2e.errors import Failure, NotReady
from coralmux.e2e.events import (
    Ended,
    Established,
    Hint,
    Ignored,
    Opened,
    PairingRefused,
    PeerInfo,
)
from coralmux.e2e.noise import HandshakeState
from coralmux.e2e.session import Identity, prologue
from coralmux.protocol import base64url
from coralmux.protocol.envelope import Envelope
from tests.e2e.machines import (
    PHONE,
    TOKEN,
    Side,
    Wire,
    changed,
    dropping,
    dropping_first,
    envelope,
    established,
    honest,
    is_record,
    payload_of,
    step_of,
    steps,
)

OTHER_SECRET = bytes(range(100, 132))


def refusals(side: Side) -> list[Failure]:
    return [event.failure for event in side.all(PairingRefused)]


# Honest


@pytest.mark.parametrize("rotate", [True, False])
@pytest.mark.parametrize("first", ["phone", "agent"])
def test_both_ends_come_to_one_session_whoever_connects_first(first: str, rotate: bool) -> None:
    wire = Wire(rotate=rotate)
    wire.connect(first)
    wire.connect("agent" if first == "phone" else "phone")
    wire.run()
    assert wire.talking
    assert wire.phone.all(Established) == [
        Established(PeerInfo("an agent", "2.1", ("files", "cancel"), 2, True))
    ]
    assert wire.agent.all(Established) == [
        Established(PeerInfo("a phone", "2.0", ("files",), 2, True))
    ]
    assert wire.phone.machine.peer == wire.phone.all(Established)[0].peer
    assert steps(wire.phone) == [1, None]
    assert steps(wire.agent) == ([2, None] if rotate else [2])
    assert wire.phone.machine.deadline is None
    assert wire.agent.machine.deadline is None
    wire.exchange()


def test_messages_of_every_kind_pass_both_ways_in_order() -> None:
    wire = Wire().meet()
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("phone", "chat.send", {"text": "héllo \U0001f9ea", "conversation": [{"role": "user"}]}),
        ("agent", "chat.stream", {"delta": " ", "seq": 1, "ref": "x"}),
        ("agent", "chat.tool_status", {"tool": "search", "status": "running"}),
        ("agent", "chat.error", {"code": "BACKEND_ERROR", "message": "The model is away."}),
        ("agent", "chat.error", {"code": "RATE_LIMITED", "message": "The agent's own limit."}),
        ("agent", "chat.done", {"full_text": "x" * 100_000}),
        ("phone", "file.chunk", {"file_id": "f", "index": 0, "data_b64": "AAAA"}),
        ("agent", "file.ack", {"file_id": "f", "index": 0}),
        ("phone", "agent.list", {}),
        ("agent", "anything.else", {"nested": [[{"a": None}], 1.5, True]}),
    ]
    for number, (role, type, payload) in enumerate(kinds):
        wire.send(role, type, str(number), payload)
    wire.run()
    for role in ("phone", "agent"):
        expected = [
            Opened(kind[1], str(n), kind[2], sealed=True)
            for n, kind in enumerate(kinds)
            if kind[0] != role
        ]
        assert wire.side(role).all(Opened) == expected
        assert not wire.side(role).all(Ended)
        assert not wire.side(role).all(Hint)


def test_nobody_seals_before_the_other_end_has_proved_itself() -> None:
    wire = Wire()
    for side in (wire.phone, wire.agent):
        assert not side.machine.ready
        with pytest.raises(NotReady):
            side.machine.seal("chat.send", "1", b"{}")
    wire.relay = dropping(lambda _, m: is_record(m))
    wire.meet()
    assert wire.phone.machine.ready
    assert not wire.agent.machine.ready
    with pytest.raises(NotReady):
        wire.agent.machine.seal("chat.stream", "1", b"{}")


@pytest.mark.parametrize("role", ["phone", "agent"])
def test_each_connection_gets_fresh_keys(role: str) -> None:
    wire = Wire().meet()
    names = {wire.phone.machine._records.hs}  # type: ignore[union-attr]
    for times in range(1, 4):
        wire.connect(role)
        wire.run()
        assert wire.talking
        assert established(wire.phone) == established(wire.agent) == 1 + times
        names.add(wire.phone.machine._records.hs)  # type: ignore[union-attr]
        wire.exchange()
    assert len(names) == 4


def test_a_session_ends_with_its_connection() -> None:
    wire = Wire().meet()
    wire.disconnect("agent")
    for side in (wire.phone, wire.agent):
        assert side.all(Ended) == [Ended(Failure.CONNECTION_ENDED)]
        assert not side.machine.ready
        assert side.machine.deadline is None
    wire.connect("agent")
    wire.run()
    wire.exchange()


# Damaged, replayed, too late


def test_a_forged_step_2_does_not_spoil_the_honest_one() -> None:
    wire = Wire()
    held: list[Envelope] = []

    def relay(sender: str, message: Envelope) -> list[Envelope]:
        if step_of(message) != 2:
            return [message]
        held.append(message)
        noise = bytearray(base64.b64decode(payload_of(message)["noise"]))
        forged = []
        for position in range(len(noise)):
            copy = bytearray(noise)
            copy[position] ^= 1
            forged.append(changed(message, noise=base64.b64encode(copy).decode()))
        hs = payload_of(message)["hs"]
        own = HandshakeState(
            initiator=False, prologue=prologue(TOKEN, base64url.decode(hs, 16)), psk=bytes(32)
        )
        stranger = HandshakeState(
            initiator=True, prologue=prologue(TOKEN, base64url.decode(hs, 16)), psk=bytes(32)
        )
        own.read_message(stranger.write_message())
        forged.append(changed(message, noise=base64.b64encode(own.write_message(b"{}")).decode()))
        forged += [changed(message, noise=text) for text in ("", "AAAA", "no base64", None)]
        forged.append(changed(message, noise=7))
        return [*forged, message]

    wire.relay = relay
    wire.meet()
    assert held
    assert len(wire.phone.all(Ignored)) > 100
    assert refusals(wire.phone) == []
    wire.exchange()


def test_an_answer_to_another_handshake_is_ignored() -> None:
    wire = Wire(rotate=False)
    held: list[Envelope] = []

    def relay(sender: str, message: Envelope) -> list[Envelope]:
        if step_of(message) == 2:
            held.append(message)
            return []
        return [message]

    wire.relay = relay
    wire.meet()
    wire.wait(11)
    assert len(held) == 2
    wire.deliver("phone", held[0])
    wire.deliver("phone", changed(held[0], hs=payload_of(held[1])["hs"]))
    wire.deliver("phone", changed(held[1], hs=""))
    assert not wire.phone.machine.ready
    assert not wire.phone.all(Established)
    wire.relay = honest
    wire.deliver("phone", held[1])
    wire.run()
    assert wire.talking
    for message in held:
        wire.deliver("phone", message)
    wire.exchange()


def test_a_replayed_step_1_changes_nothing() -> None:
    wire = Wire().meet()
    step_1 = next(m for sender, m in wire.seen if step_of(m) == 1)
    wire.agent.take()
    for _ in range(3):
        wire.deliver("agent", step_1)
    assert wire.agent.take() == [Ignored("a step 1 that came before", step_1.id)] * 3
    wire.exchange()


@pytest.mark.parametrize("rotate", [True, False])
def test_a_step_1_replayed_to_a_new_process_keeps_its_session(rotate: bool) -> None:
    wire = Wire(rotate=rotate).meet()
    step_1 = next(m for sender, m in wire.seen if step_of(m) == 1)
    wire.restart("agent")
    wire.run()
    wire.exchange()
    stored = wire.agent.stored
    for _ in range(2):
        wire.deliver("agent", step_1)
        wire.run()
        wire.exchange()
        wire.wait(120)
    assert wire.agent.stored == stored
    assert established(wire.agent) == 2
    wire.exchange()


def test_the_old_session_goes_on_until_step_3_opens() -> None:
    wire = Wire().meet()
    old = wire.agent.machine._records
    held: list[Envelope] = []

    def relay(sender: str, message: Envelope) -> list[Envelope]:
        if sender == "phone" and message.type == "key_exchange" and is_record(message):
            held.append(message)
            return []
        return [message]

    wire.relay = relay
    wire.carry_out(wire.phone, wire.phone.machine.peer_online(wire.now))
    first = wire.say("agent")
    wire.deliver(*wire.queue.pop())
    assert wire.phone.opened[-1][1] == first  # the handshake is under way, the old session heard
    wire.run()
    assert wire.agent.machine._records is old
    assert wire.agent.machine.ready
    assert not wire.agent.all(Ended)
    wire.deliver("agent", held[0])
    assert wire.agent.all(Ended) == [Ended(Failure.SUPERSEDED)]
    assert wire.phone.all(Ended) == [Ended(Failure.SUPERSEDED)]
    wire.relay = honest
    wire.exchange()


def test_only_the_latest_handshake_is_pending() -> None:
    wire = Wire(rotate=False)
    held: list[Envelope] = []

    def relay(sender: str, message: Envelope) -> list[Envelope]:
        if sender == "phone" and is_record(message):
            held.append(message)
            return []
        return [message]

    wire.relay = relay
    wire.meet()
    wire.now += 6
    wire.carry_out(wire.phone, wire.phone.machine.peer_online(wire.now))
    wire.run()
    assert len(held) == 2
    wire.agent.take()
    wire.deliver("agent", held[0])
    assert not wire.agent.machine.ready
    assert wire.agent.all(Established) == []
    wire.deliver("agent", held[1])
    assert wire.agent.machine.ready


@pytest.mark.parametrize("change", ["ciphertext", "counter", "type", "contents"])
def test_a_step_3_that_is_none_leaves_the_old_session_and_tells_the_phone(change: str) -> None:
    wire = Wire().meet()
    wire.wait(6)
    old, stored = wire.agent.machine._records, wire.agent.stored

    def relay(sender: str, message: Envelope) -> list[Envelope]:
        if sender == "agent" or not is_record(message):
            return [message]
        if change == "ciphertext":
            return [changed(message, ciphertext="AAAA" * 40)]
        if change == "counter":
            return [changed(message, n=1)]
        if change == "type":
            return [envelope("chat.send", message.id, bytes(message.payload))]
        return [message]

    wire.relay = relay
    if change == "contents":
        wire.phone.machine._identity = Identity(5, "2.0")  # type: ignore[arg-type]
    wire.carry_out(wire.phone, wire.phone.machine.peer_online(wire.now))
    wire.run()
    assert wire.agent.machine._records is old
    assert wire.agent.all(Ignored)[-1].why == "a step 3 that does not open"
    assert wire.phone.all(Ended) == [Ended(Failure.SUPERSEDED), Ended(Failure.PEER_ENDED)]
    assert wire.agent.all(Ended) == []
    assert wire.agent.stored == stored
    wire.phone.machine._identity = PHONE
    wire.relay = honest
    wire.wait(10)
    wire.exchange()


def test_a_phone_whose_step_3_is_lost_hears_of_it_when_it_speaks() -> None:
    wire = Wire()
    wire.relay = dropping_first(lambda sender, m: sender == "phone" and is_record(m))
    wire.meet()
    lost = wire.say("phone")
    wire.run()
    assert lost in wire.phone.told
    assert wire.agent.opened == []
    wire.wait(6)
    wire.exchange()


def test_an_agent_without_a_session_asks_for_one_when_step_3_is_lost() -> None:
    wire = Wire()
    wire.relay = dropping_first(lambda sender, m: sender == "phone" and is_record(m))
    wire.meet()
    assert not wire.agent.machine.ready
    wire.wait(16)
    assert steps(wire.agent).count(0) == 1
    wire.exchange()


def test_an_agent_that_goes_on_in_its_old_session_gets_a_new_one() -> None:
    wire = Wire().meet()
    wire.exchange()
    wire.relay = dropping_first(lambda sender, m: sender == "phone" and is_record(m))
    wire.wait(6)
    wire.carry_out(wire.phone, wire.phone.machine.peer_online(wire.now))
    wire.run()
    assert wire.phone.machine.ready
    assert wire.agent.machine.ready
    assert not wire.talking
    wire.wait(6)
    lost = wire.say("agent")
    wire.run()
    assert lost in wire.agent.told
    assert wire.talking
    wire.exchange()


def test_late_records_of_the_old_session_start_nothing() -> None:
    wire = Wire().meet()
    wire.exchange()
    late = wire.seen[-1][1]
    wire.wait(6)
    wire.carry_out(wire.phone, wire.phone.machine.peer_online(wire.now))
    wire.run()
    wire.deliver("phone", late)
    wire.exchange()
    wire.wait(6)
    wire.deliver("phone", late)
    wire.wait(20)
    assert established(wire.agent) == 2
    early = next(m for sender, m in wire.seen if sender == "phone" and m.type == "chat.send")
    wire.deliver("agent", early)
    wire.wait(20)
    assert established(wire.agent) == 2


def test_a_new_agent_asks_a_phone_that_still_believes_in_the_old_one() -> None:
    wire = Wire().meet()
    wire.wait(6)
    wire.agent.rebuild()  # and nobody tells the phone
    wire.carry_out(wire.agent, wire.agent.machine.connected(wire.now, paired=True))
    lost = wire.say("phone")
    wire.run()
    assert steps(wire.agent)[-2:] == [0, 2]
    assert lost in wire.phone.told
    wire.exchange()
