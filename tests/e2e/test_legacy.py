"""The machine of version 1: whose key goes out when, and when messages can be sealed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from coralmux.e2e.errors import E2EError, Failure, NotReady
from coralmux.e2e.events import Ended, Established, Ignored, Opened, Send
from coralmux.e2e.legacy import SEALED_TYPES, UNREADABLE, LegacySession, open_payload
from coralmux.protocol.envelope import Envelope
from coralmux.protocol.types import Role
from tests.e2e.legacy_peer import (
    CHAT,
    INCOMING,
    OUTGOING,
    V1,
    Raw,
    public_of,
    say,
    second_seal,
    sends,
    talking,
)
from tests.e2e.test_noise import LOW_ORDER


def test_a_newcomer_sends_its_key_at_once_and_is_ready_when_the_other_comes(role: Role) -> None:
    machine, peer = LegacySession(role), Raw()
    [key] = machine.connected(0.0, paired=True)
    assert isinstance(key, Send)
    peer.learn(key)
    assert not machine.ready
    assert machine.peer is None
    again, established = say(machine, "key_exchange", peer.pubkey)
    assert established == Established(V1)
    assert (machine.ready, machine.peer) == (True, V1)
    assert isinstance(again, Send)
    assert (again.payload, again.id == key.id) == (key.payload, False)
    assert peer.opens(machine.seal(OUTGOING[role], "m1", b'{"x":1}')) == {"x": 1}
    assert say(machine, INCOMING[role], peer.sealed()) == [
        Opened(INCOMING[role], "m1", CHAT, sealed=True)
    ]


def test_the_side_that_was_there_first_sends_its_key_when_the_other_comes(role: Role) -> None:
    machine, peer = LegacySession(role), Raw()
    assert machine.connected(0.0, paired=False) == []
    [key] = machine.peer_online(1.0)
    assert isinstance(key, Send)
    peer.learn(key)
    assert not machine.ready
    assert say(machine, "key_exchange", peer.pubkey)[-1] == Established(V1)


def test_each_connection_has_a_key_pair_of_its_own(role: Role) -> None:
    machine = LegacySession(role)
    [first] = sends(machine.connected(0.0, paired=True))
    [same] = sends(machine.peer_online(1.0))
    machine.disconnected(2.0)
    [second] = sends(machine.connected(3.0, paired=True))
    assert first.payload == same.payload
    assert first.payload != second.payload


def test_our_key_goes_out_once_for_each_peer_key_that_differs_from_the_last(role: Role) -> None:
    machine, peer = LegacySession(role), Raw()
    machine.connected(0.0, paired=True)
    assert len(sends(say(machine, "key_exchange", peer.pubkey))) == 1
    assert say(machine, "key_exchange", peer.pubkey) == []
    peer.new_pair()
    assert len(sends(say(machine, "key_exchange", peer.pubkey))) == 1
    assert say(machine, "key_exchange", peer.pubkey) == []


def test_our_key_goes_out_for_the_first_peer_key_of_each_connection(role: Role) -> None:
    machine, peer = talking(role)
    for end in (lambda: machine.disconnected(2.0), list):
        end()
        machine.connected(3.0, paired=True)
        assert len(sends(say(machine, "key_exchange", peer.pubkey))) == 1


def test_without_a_connection_nothing_is_sent(role: Role) -> None:
    machine = LegacySession(role)
    assert machine.peer_online(0.0) == []
    machine.refused("")
    assert (machine.deadline, machine.tick(60.0)) == (None, [])


def test_two_of_us_stop_exchanging_keys_and_agree() -> None:
    phone, agent = LegacySession(Role.PHONE), LegacySession(Role.AGENT)
    phone.connected(0.0, paired=False)
    flying = [(agent, send) for send in sends(phone.peer_online(1.0))]
    flying += [(phone, send) for send in sends(agent.connected(1.0, paired=True))]
    count = 0
    while flying:
        count += 1
        assert count <= 4
        to, send = flying.pop(0)
        other = agent if to is phone else phone
        answers = to.receive(Envelope(send.type, send.id, msgspec.Raw(send.payload)), 2.0)
        flying += [(other, answer) for answer in sends(answers)]
    assert phone.ready
    assert agent.ready
    wire = phone.seal("chat.send", "c1", b'{"text":"hello"}')
    assert agent.receive(Envelope("chat.send", "c1", msgspec.Raw(wire)), 3.0) == [
        Opened("chat.send", "c1", CHAT, sealed=True)
    ]


def test_nothing_is_sealed_before_a_key_newer_than_the_last_online(role: Role) -> None:
    machine, peer = LegacySession(role), Raw()
    for type in SEALED_TYPES:
        with pytest.raises(NotReady):
            machine.seal(type, "m1", b"{}")
    machine, peer = talking(role)
    ended, key = machine.peer_online(2.0)
    assert ended == Ended(Failure.CONNECTION_ENDED)
    assert isinstance(key, Send)
    assert key.type == "key_exchange"
    assert (machine.ready, machine.peer) == (False, None)
    with pytest.raises(NotReady):
        machine.seal(OUTGOING[role], "m1", b"{}")
    # The same key again is newer, too: not every peer makes itself anew.
    assert say(machine, "key_exchange", peer.pubkey) == [Established(V1)]
    assert peer.opens(machine.seal(OUTGOING[role], "m1", b"{}")) == {}


def test_the_session_ends_when_either_end_goes(role: Role) -> None:
    for end in ("peer_offline", "disconnected"):
        machine, _ = talking(role)
        assert getattr(machine, end)(2.0) == [Ended(Failure.CONNECTION_ENDED)]
        assert (machine.ready, machine.peer) == (False, None)
        assert getattr(machine, end)(3.0) == []
    machine, _ = talking(role)
    ended, key = machine.connected(2.0, paired=True)  # nobody told us of the end
    assert ended == Ended(Failure.CONNECTION_ENDED)
    assert isinstance(key, Send)
    assert not machine.ready


def test_a_key_of_the_connection_before_makes_nobody_ready(role: Role) -> None:
    machine, peer = talking(role)
    machine.disconnected(2.0)
    assert say(machine, "key_exchange", peer.pubkey) == [
        Ignored("a message without a connection", "m1")
    ]
    assert machine.connected(3.0, paired=False) == []
    assert not machine.ready
    assert machine.peer_offline(4.0) == []


def test_a_key_that_comes_before_the_status_is_asked_for_again(role: Role) -> None:
    machine, peer = LegacySession(role), Raw()
    machine.connected(0.0, paired=False)
    say(machine, "key_exchange", peer.pubkey)
    assert machine.ready
    ended, key = machine.peer_online(1.0)
    assert ended == Ended(Failure.CONNECTION_ENDED)
    assert isinstance(key, Send)
    peer.learn(key)
    assert not machine.ready
    assert say(machine, "key_exchange", peer.pubkey) == [Established(V1)]
    assert peer.opens(machine.seal(OUTGOING[role], "m1", b"{}")) == {}


def test_a_peer_may_change_its_key_in_mid_stream(role: Role) -> None:
    machine, peer = talking(role)
    before = peer.sealed({"n": 1})
    peer.new_pair()
    [key] = say(machine, "key_exchange", peer.pubkey)  # and no new Established
    assert isinstance(key, Send)
    peer.learn(key)
    type = INCOMING[role]
    assert say(machine, type, peer.sealed({"n": 2})) == [Opened(type, "m1", {"n": 2}, sealed=True)]
    assert say(machine, type, before) == [Opened(type, "m1", {"n": 1}, sealed=True)]
    assert peer.opens(machine.seal(OUTGOING[role], "m1", b'{"n":3}')) == {"n": 3}


def test_only_the_last_key_before_is_kept(role: Role) -> None:
    machine, peer = talking(role)
    old = peer.sealed()
    for _ in range(2):
        peer.new_pair()
        say(machine, "key_exchange", peer.pubkey)
    assert say(machine, INCOMING[role], old)[-1] == Ignored(UNREADABLE, "m1")


def test_the_same_key_again_does_not_push_out_the_one_before(role: Role) -> None:
    machine, peer = talking(role)
    old = peer.sealed()
    peer.new_pair()
    for _ in range(3):
        say(machine, "key_exchange", peer.pubkey)
    assert say(machine, INCOMING[role], old) == [Opened(INCOMING[role], "m1", CHAT, sealed=True)]


def test_a_peer_may_go_back_to_its_key_before(role: Role) -> None:
    machine, peer = talking(role)
    first, second = peer.private, Raw()
    say(machine, "key_exchange", second.pubkey)
    peer.private = first
    [key] = sends(say(machine, "key_exchange", peer.pubkey))
    assert peer.opens(machine.seal(OUTGOING[role], "m1", b"{}")) == {}
    second.learn(key)
    assert say(machine, INCOMING[role], second.sealed())[0] == Opened(
        INCOMING[role], "m1", CHAT, sealed=True
    )


def test_what_was_sealed_before_our_new_key_arrived_still_opens(role: Role) -> None:
    machine, peer = talking(role)
    on_its_way = peer.sealed()
    machine.disconnected(2.0)
    machine.connected(3.0, paired=True)
    opened = [Opened(INCOMING[role], "m1", CHAT, sealed=True)]
    assert say(machine, INCOMING[role], on_its_way) == opened
    assert not machine.ready
    peer.new_pair()
    say(machine, "key_exchange", peer.pubkey)
    assert say(machine, INCOMING[role], on_its_way) == opened


def test_exactly_three_types_are_sealed(role: Role) -> None:
    machine, peer = talking(role)
    assert {"chat.send", "chat.stream", "chat.done"} == SEALED_TYPES
    for type in SEALED_TYPES:
        assert peer.opens(machine.seal(type, "m1", b'{"x":1}')) == {"x": 1}
    for type in ("chat.error", "chat.tool_status", "agent.list.result", "chat.history"):
        assert machine.seal(type, "m1", b'{"x":1}') == b'{"x":1}'
        # An app asks for the agents before it sends its key.
        assert LegacySession(role).seal(type, "m1", b"{}") == b"{}"


# Keys that are none


def malformed() -> Iterator[dict[str, Any]]:
    good = base64.b64encode(public_of(bytes(range(32)))).decode()
    yield {}
    yield {"pubkey": None}
    yield {"pubkey": 7}
    yield {"pubkey": [good]}
    yield {"pubkey": ""}
    yield {"pubkey": "é" * 44}
    yield {"pubkey": good[:-1]}
    yield {"pubkey": "!" + good}
    yield {"pubkey": base64.b64encode(bytes(31)).decode()}
    yield {"pubkey": base64.b64encode(bytes(33)).decode()}
    yield {"v": 2, "pubkey": good}
    yield {"v": 2, "step": 0}
    yield {"v": 2, "step": 1, "hs": "A" * 22, "noise": "AAAA"}
    yield {"v": "1", "pubkey": good}
    for point in LOW_ORDER:
        yield {"pubkey": base64.b64encode(point).decode()}


@pytest.mark.parametrize("payload", list(malformed()), ids=lambda payload: json.dumps(payload)[:40])
def test_a_malformed_key_changes_nothing(role: Role, payload: dict[str, Any]) -> None:
    machine, peer = talking(role)
    [ignored] = say(machine, "key_exchange", payload)
    assert isinstance(ignored, Ignored)
    assert peer.opens(machine.seal(OUTGOING[role], "m1", b"{}")) == {}
    assert say(machine, "key_exchange", peer.pubkey) == []
    fresh = LegacySession(role)
    fresh.connected(0.0, paired=True)
    [ignored] = say(fresh, "key_exchange", payload)
    assert isinstance(ignored, Ignored)
    assert not fresh.ready


def test_a_key_with_a_line_break_behind_it_is_one(role: Role) -> None:
    machine, peer = LegacySession(role), Raw()
    machine.connected(0.0, paired=True)
    say(machine, "key_exchange", {"v": 1, "pubkey": peer.pubkey["pubkey"] + "\n"})
    assert machine.ready


# A key that the relay refused


def test_a_refused_key_goes_out_again_at_the_relays_pace(role: Role) -> None:
    machine = LegacySession(role)
    [key] = sends(machine.connected(10.0, paired=True))
    assert machine.deadline is None
    for other in ("", "another"):
        machine.refused(other)
        assert machine.deadline is None
    machine.refused(key.id)
    assert machine.deadline == 12.0
    assert machine.tick(11.9) == []
    [again] = sends(machine.tick(12.0))
    assert again.payload == key.payload
    assert machine.deadline is None
    assert machine.tick(20.0) == []
    machine.refused(key.id)  # the latest alone matters
    assert machine.deadline is None
    machine.refused(again.id)
    assert machine.deadline == 14.0


@pytest.mark.parametrize("end", ["peer_offline", "disconnected"])
def test_a_refused_key_is_not_sent_to_nobody(role: Role, end: str) -> None:
    machine = LegacySession(role)
    [key] = sends(machine.connected(0.0, paired=True))
    machine.refused(key.id)
    getattr(machine, end)(1.0)
    assert machine.deadline is None
    assert machine.tick(60.0) == []
    machine.refused(key.id)
    assert machine.deadline is None


# Secrecy


def test_no_repr_and_no_error_holds_a_key_or_a_message(role: Role) -> None:
    machine, peer = talking(role)
    events = say(machine, INCOMING[role], peer.sealed({"text": "top secret"}))
    events += say(machine, INCOMING[role], {"text": "top secret"})
    events += say(machine, INCOMING[role], second_seal(peer.key, b"top secret", bytes(12)))
    shown = [repr(machine), str(machine), repr(events)]
    with pytest.raises(E2EError) as refused:
        open_payload([peer.key], {"enc": True, "ciphertext": "top secret", "nonce": ""})
    shown += [repr(refused.value), str(refused.value)]
    for text in shown:
        assert "secret" not in text
        assert "X25519" not in text
        assert peer.key.hex() not in text
        assert repr(peer.key)[2:12] not in text
    assert repr(machine) == f"<LegacySession {role.value}, ready>"
