"""Small promises of the machines that hold when nothing is wrong, or not very."""

from __future__ import annotations

import base64

import pytest

from coralmux.e2e.errors import NotReady
from coralmux.e2e.events import Ended, PairingRefused
from coralmux.e2e.session import Identity
from coralmux.protocol.envelope import Envelope
from tests.e2e.machines import Wire, dropping, envelope, honest, is_record, steps

PUBKEY = {"pubkey": base64.b64encode(bytes(range(32))).decode()}


def test_names_do_nothing_to_a_terminal() -> None:
    wire = Wire()
    wire.phone.machine._identity = Identity("a\x1b[2J\u202eb\n" + "c" * 100, "1\x07", ("x",) * 99)
    wire.meet()
    peer = wire.agent.machine.peer
    assert peer is not None
    assert peer.name == ("a[2Jb" + "c" * 100)[:64]
    assert peer.version == "1"
    assert len(peer.caps) == 32


def test_a_phone_says_nothing_in_the_old_session_while_it_shakes_hands() -> None:
    wire = Wire().meet()
    wire.relay = dropping(lambda sender, m: sender == "agent")
    wire.carry_out(wire.phone, wire.phone.machine.peer_online(wire.now))
    assert not wire.phone.machine.ready
    with pytest.raises(NotReady):
        wire.phone.machine.seal("chat.send", "1", b"{}")
    assert wire.phone.all(Ended) == []
    wire.relay = honest
    wire.wait(10)
    wire.exchange()


def test_each_session_answers_ten_messages_in_the_clear_anew() -> None:
    wire = Wire().meet()
    for _ in range(2):
        before = len(wire.seen)
        for number in range(20):
            wire.deliver("agent", envelope("chat.send", f"c{number}", {"text": "forged"}))
        assert len(wire.seen) - before == 10
        wire.connect("phone")
        wire.run()


def test_a_key_of_version_1_in_the_middle_of_a_session_is_no_news() -> None:
    wire = Wire().meet()
    wire.deliver("phone", envelope("key_exchange", "k", PUBKEY))
    assert wire.phone.all(PairingRefused) == []
    wire.exchange()


def test_a_first_record_that_says_another_step_makes_no_session() -> None:
    wire = Wire(rotate=False)
    wire.relay = dropping(lambda sender, m: sender == "phone" and is_record(m))
    wire.meet()
    keys = wire.phone.machine._records
    assert keys is not None
    keys.sending.set_nonce(0)  # in place of step 3, under the counter that was its own
    payload = b'{"step":4,"name":"a phone","version":"2.0","caps":[]}'
    sealed = keys.seal_payload("key_exchange", "other", payload)
    wire.deliver("agent", envelope("key_exchange", "other", sealed))
    assert not wire.agent.machine.ready
    assert wire.agent.machine.peer is None


def test_a_handshake_ends_with_the_phone_s_connection() -> None:
    wire = Wire()
    held: list[Envelope] = []

    def relay(sender: str, message: Envelope) -> list[Envelope]:
        if sender == "phone" and is_record(message):
            held.append(message)
            return []
        return [message]

    wire.relay = relay
    wire.meet()
    wire.disconnect("phone")
    wire.deliver("agent", held[0])
    assert not wire.agent.machine.ready


def test_an_agent_asks_less_and_less_often_for_a_session_that_does_not_come() -> None:
    wire = Wire()
    wire.relay = lambda sender, m: [] if sender == "phone" and is_record(m) else [m]
    wire.meet()
    wire.relay = lambda sender, m: []
    asked = []
    for second in range(300):
        before = len(steps(wire.agent))
        wire.wait(1)
        if len(steps(wire.agent)) > before:
            asked.append(second + 1)
    assert asked == [10, 20, 40, 80, 140, 200, 260]
    wire.relay = honest
    wire.wait(61)
    wire.exchange()
