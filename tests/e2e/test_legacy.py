"""Version 1: its cryptography beside a second reading of the text, and the machine's order."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from coralmux.e2e.errors import E2EError, Failure, NotReady
from coralmux.e2e.events import (
    Ended,
    Established,
    Event,
    Hint,
    Ignored,
    Opened,
    PairingRefused,
    PeerInfo,
    Send,
)
from coralmux.e2e.legacy import (
    SEALED_TYPES,
    UNREADABLE,
    UNSEALED,
    LegacySession,
    derive_key,
    open_payload,
    seal_payload,
)
from coralmux.protocol.envelope import Envelope, decode, encode
from coralmux.protocol.limits import MAX_SAFE_INTEGER
from coralmux.protocol.types import Role
from tests.e2e.test_noise import LOW_ORDER

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "legacy.json").read_text()
)["vectors"]

V1 = PeerInfo(name="", version="", caps=(), protocol=1, verified=False)
CHAT = {"text": "hello"}


# A second implementation, from the text alone


def second_key(private: bytes, peer_public: bytes) -> bytes:
    shared = X25519PrivateKey.from_private_bytes(private).exchange(
        X25519PublicKey.from_public_bytes(peer_public)
    )
    # RFC 5869: extract, then the first block of expand.
    extracted = hmac.digest(b"openclaw-relay-e2e-v1", shared, hashlib.sha256)
    return hmac.digest(extracted, b"chat-encryption" + b"\x01", hashlib.sha256)


def second_seal(key: bytes, plaintext: bytes, nonce: bytes) -> dict[str, Any]:
    ciphertext = AESGCM(key).encrypt(nonce, plaintext, None)
    return {
        "enc": True,
        "ciphertext": base64.b64encode(ciphertext).decode(),
        "nonce": base64.b64encode(nonce).decode(),
    }


def second_open(key: bytes, payload: dict[str, Any]) -> bytes:
    nonce, ciphertext = (base64.b64decode(payload[name]) for name in ("nonce", "ciphertext"))
    return AESGCM(key).decrypt(nonce, ciphertext, None)


def public_of(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


KEYS = st.binary(min_size=32, max_size=32)


@given(ours=KEYS, theirs=KEYS, plaintext=st.binary(max_size=300), nonce=st.binary(min_size=12))
def test_both_readings_of_the_text_agree(
    ours: bytes, theirs: bytes, plaintext: bytes, nonce: bytes
) -> None:
    key = derive_key(X25519PrivateKey.from_private_bytes(ours), public_of(theirs))
    assert key == second_key(theirs, public_of(ours))
    assert second_open(key, json.loads(seal_payload(key, plaintext))) == plaintext
    assert open_payload([key], second_seal(key, plaintext, nonce[:12])) == plaintext


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_vectors_are_what_both_readings_say(case: dict[str, Any]) -> None:
    phone, agent = bytes.fromhex(case["phone_private"]), bytes.fromhex(case["agent_private"])
    key = bytes.fromhex(case["key"])
    plaintext = case["plaintext"].encode()
    assert public_of(phone).hex() == case["phone_public"]
    assert public_of(agent).hex() == case["agent_public"]
    for private, public in ((phone, public_of(agent)), (agent, public_of(phone))):
        assert derive_key(X25519PrivateKey.from_private_bytes(private), public) == key
        assert second_key(private, public) == key
    nonce = base64.b64decode(case["payload"]["nonce"])
    assert second_seal(key, plaintext, nonce) == case["payload"]
    assert open_payload([key], case["payload"]) == plaintext


def test_each_nonce_is_new() -> None:
    nonces = {json.loads(seal_payload(bytes(32), b"{}"))["nonce"] for _ in range(50)}
    assert len(nonces) == 50


def test_a_sealed_payload_has_three_members_and_base64_with_padding() -> None:
    payload = json.loads(seal_payload(bytes(32), b"{}"))
    assert list(payload) == ["enc", "ciphertext", "nonce"]
    assert len(base64.b64decode(payload["ciphertext"], validate=True)) == 2 + 16
    assert len(payload["ciphertext"]) % 4 == 0


@pytest.mark.parametrize("point", [*LOW_ORDER, b"", bytes(31), bytes(33)])
def test_a_public_key_that_makes_no_secret_is_refused(point: bytes) -> None:
    with pytest.raises(E2EError) as refused:
        derive_key(X25519PrivateKey.generate(), point)
    assert refused.value.failure is Failure.TAMPERED
    assert refused.value.__suppress_context__


def test_any_changed_byte_and_any_malformed_member_is_refused() -> None:
    key = bytes(range(32))
    payload = second_seal(key, b'{"text":"hi"}', bytes(12))
    broken: list[dict[str, Any]] = []
    for name in ("ciphertext", "nonce"):
        raw = base64.b64decode(payload[name])
        for position in range(len(raw)):
            changed = bytearray(raw)
            changed[position] ^= 1
            broken.append(payload | {name: base64.b64encode(changed).decode()})
        for value in ("", "!", "AAA", "é", "AAAA", base64.b64encode(raw[:-1]).decode(), None, 7):
            broken.append(payload | {name: value})
        broken.append({k: v for k, v in payload.items() if k != name})
    for forged in broken:
        with pytest.raises(E2EError) as refused:
            open_payload([key], forged)
        assert refused.value.failure is Failure.TAMPERED
    for keys in ([], [bytes(32)]):
        with pytest.raises(E2EError):
            open_payload(keys, payload)


def test_base64_broken_into_lines_is_read() -> None:
    key = bytes(32)
    payload = second_seal(key, bytes(200), bytes(12))
    text = payload["ciphertext"]
    lines = "\r\n".join(text[n : n + 76] for n in range(0, len(text), 76)) + "\n"
    assert open_payload([key], payload | {"ciphertext": lines}) == bytes(200)


# The machine


class Raw:
    """A peer of the field, held in the hand: its key pair, and what it can open."""

    def __init__(self) -> None:
        self.new_pair()

    def new_pair(self) -> None:
        self.private = X25519PrivateKey.generate().private_bytes_raw()

    @property
    def pubkey(self) -> dict[str, Any]:
        return {"pubkey": base64.b64encode(public_of(self.private)).decode()}

    def learn(self, send: Send) -> None:
        assert send.type == "key_exchange"
        payload = json.loads(send.payload)
        assert list(payload) == ["pubkey"]
        self.key = second_key(self.private, base64.b64decode(payload["pubkey"], validate=True))

    def sealed(self, payload: object = CHAT) -> dict[str, Any]:
        nonce = hashlib.sha256(repr(payload).encode()).digest()[:12]
        return second_seal(self.key, json.dumps(payload).encode(), nonce)

    def opens(self, payload: bytes) -> Any:
        return json.loads(second_open(self.key, json.loads(payload)))


def envelope(type: str, payload: dict[str, Any], id: str = "m1") -> Envelope:
    return decode(encode(type, payload, ts=1, id=id))


def say(machine: LegacySession, type: str, payload: dict[str, Any], id: str = "m1") -> list[Event]:
    return machine.receive(envelope(type, payload, id), 1.0)


def sends(events: list[Event]) -> list[Send]:
    return [event for event in events if isinstance(event, Send)]


def told(event: Event) -> dict[str, Any]:
    """The payload of an error that was sent, without its text for people."""
    assert isinstance(event, Send)
    assert event.type == "chat.error"
    payload = json.loads(event.payload)
    assert len(payload.pop("message")) > 30
    return dict(payload)


def talking(role: Role) -> tuple[LegacySession, Raw]:
    """A machine that is ready, and the peer whose key it has."""
    machine, peer = LegacySession(role), Raw()
    peer.learn(sends(machine.connected(0.0, paired=True))[0])
    say(machine, "key_exchange", peer.pubkey)
    assert machine.ready
    return machine, peer


@pytest.fixture(params=list(Role))
def role(request: pytest.FixtureRequest) -> Role:
    return Role(request.param)


INCOMING = {Role.AGENT: "chat.send", Role.PHONE: "chat.done"}
OUTGOING = {Role.AGENT: "chat.stream", Role.PHONE: "chat.send"}


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


# What is not taken


@pytest.mark.parametrize("payload", [CHAT, {"enc": False, **CHAT}, {"enc": "true"}, {"enc": 1}, {}])
def test_an_agent_refuses_a_clear_chat_and_says_so(payload: dict[str, Any]) -> None:
    machine, _ = talking(Role.AGENT)
    error, ignored = say(machine, "chat.send", payload, id="c7")
    assert told(error) == {"code": "E2E_REQUIRED", "ref": "c7"}
    assert ignored == Ignored(UNSEALED, "c7")


def test_an_agent_refuses_a_clear_chat_before_any_key_too() -> None:
    machine = LegacySession(Role.AGENT)
    machine.connected(0.0, paired=True)
    error, ignored = say(machine, "chat.send", CHAT)
    assert told(error)["code"] == "E2E_REQUIRED"
    assert ignored == Ignored(UNSEALED, "m1")


@pytest.mark.parametrize("type", ["chat.stream", "chat.done"])
def test_a_phone_takes_no_answer_in_the_clear(type: str) -> None:
    machine, _ = talking(Role.PHONE)
    assert say(machine, type, {"full_text": "forged"}) == [Ignored(UNSEALED, "m1")]


def unreadable(peer: Raw) -> Iterator[dict[str, Any]]:
    stranger = Raw()
    stranger.key = bytes(32)
    yield stranger.sealed()
    yield {"enc": True}
    yield {"enc": True, "ciphertext": "é", "nonce": 1}
    yield {"enc": True, "v": 2, "hs": "A" * 22, "n": 0, "ciphertext": "AAAA"}
    yield peer.sealed([1, 2])
    yield second_seal(peer.key, b"not JSON", bytes(12))
    yield second_seal(peer.key, b'{"text":"\xff"}', bytes(12))


def test_what_does_not_open_is_told_to_the_sender(role: Role) -> None:
    for index in range(len(list(unreadable(talking(role)[1])))):
        machine, peer = talking(role)
        payload = list(unreadable(peer))[index]
        error, ignored = say(machine, INCOMING[role], payload, id="c8")
        assert told(error) == {"code": "E2E_FAILED", "ref": "c8"}
        assert ignored == Ignored(UNREADABLE, "c8")
        # One bad message does not end the session.
        assert say(machine, INCOMING[role], peer.sealed()) == [
            Opened(INCOMING[role], "m1", CHAT, sealed=True)
        ]


def test_a_phone_tells_once_of_a_reply_that_does_not_open_and_an_agent_each_time() -> None:
    for role, complaints in ((Role.PHONE, 1), (Role.AGENT, 3)):
        machine, peer = talking(role)
        events = [e for _ in range(3) for e in say(machine, INCOMING[role], {"enc": True})]
        assert len(sends(events)) == complaints
        assert len(events) == complaints + 3
        say(machine, INCOMING[role], peer.sealed())
        assert len(sends(say(machine, INCOMING[role], {"enc": True}))) == 1
        say(machine, "key_exchange", peer.pubkey)  # not new: it mends nothing
        assert len(sends(say(machine, INCOMING[role], {"enc": True}))) == complaints // 3
        for begin_again in (peer.new_pair, lambda m=machine: m.peer_online(2.0)):
            begin_again()
            say(machine, "key_exchange", peer.pubkey)
            assert len(sends(say(machine, INCOMING[role], {"enc": True}))) == 1


def test_ids_that_are_too_long_or_missing_are_not_repeated() -> None:
    machine, _ = talking(Role.AGENT)
    for id in ("", "é" * 65):
        assert "ref" not in told(say(machine, "chat.send", CHAT, id=id)[0])
    assert told(say(machine, "chat.send", CHAT, id="é" * 64)[0])["ref"] == "é" * 64


def test_our_own_message_handed_back_is_not_taken(role: Role) -> None:
    machine, _ = talking(role)
    wire = machine.seal(OUTGOING[role], "m1", b'{"text":"mine"}')
    assert machine.receive(Envelope(OUTGOING[role], "m1", msgspec.Raw(wire)), 1.0) == [
        Ignored("a type that the other end does not send", "m1")
    ]


@pytest.mark.parametrize("type", ["auth", "auth.ok", "status", "ping", "pong", "other.thing", ""])
def test_types_that_nobody_forwards_are_dropped(role: Role, type: str) -> None:
    machine, _ = talking(role)
    [event] = say(machine, type, {})
    assert isinstance(event, Ignored)


@pytest.mark.parametrize("type", ["agent.list", "file.begin", "memory.search", "chat.of_tomorrow"])
def test_the_rest_comes_in_the_clear_with_or_without_a_key(role: Role, type: str) -> None:
    ready = talking(role)[0]
    fresh = LegacySession(role)
    fresh.connected(0.0, paired=True)
    for machine in (ready, fresh):
        assert say(machine, type, {"a": 1}) == [Opened(type, "m1", {"a": 1}, sealed=False)]


def test_a_payload_that_cannot_be_read_is_dropped(role: Role) -> None:
    machine, _ = talking(role)
    for type in ("agent.list", "chat.error", "key_exchange", INCOMING[role]):
        event = machine.receive(Envelope(type, "m1", msgspec.Raw(b'{"a":tru}')), 1.0)
        assert event == [Ignored("a payload that cannot be read", "m1")]


def test_sealed_payloads_of_clear_types_are_refused_and_errors_never_answered(role: Role) -> None:
    machine, peer = talking(role)
    error, ignored = say(machine, "agent.list", peer.sealed())
    assert told(error) == {"code": "E2E_FAILED", "ref": "m1"}
    assert isinstance(ignored, Ignored)
    [ignored] = say(machine, "chat.error", peer.sealed())
    assert isinstance(ignored, Ignored)


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


# Errors


RELAYS = ["PEER_OFFLINE", "RATE_LIMITED", "DAILY_QUOTA_EXCEEDED", "MESSAGE_TOO_LARGE"]


@pytest.mark.parametrize("code", RELAYS)
def test_an_error_with_a_code_of_the_relay_is_a_hint(role: Role, code: str) -> None:
    machine, _ = talking(role)
    payload = {"code": code, "message": "wait", "ref": "m9", "retry_after_ms": 40}
    assert say(machine, "chat.error", payload) == [Hint(code, "wait", "m9", 40)]
    odd = {"code": code, "message": 1, "ref": None, "retry_after_ms": 1.5}
    assert say(machine, "chat.error", odd) == [Hint(code, "", "", None)]
    assert say(machine, "chat.error", {"code": code, "retry_after_ms": -1}) == [Hint(code, "")]
    huge = {"code": code, "retry_after_ms": 10**400}
    assert say(machine, "chat.error", huge) == [Hint(code, "", "", MAX_SAFE_INTEGER)]


def test_a_message_knows_how_many_bytes_it_came_in(role: Role) -> None:
    machine, peer = talking(role)
    for type, payload, size in [
        (INCOMING[role], peer.sealed({"text": "four"}), len('{"text": "four"}')),
        ("chat.error", {"code": "ODD"}, len('{"code":"ODD"}')),
    ]:
        [opened] = say(machine, type, payload)
        assert isinstance(opened, Opened)
        assert opened.size == size


@pytest.mark.parametrize("code", ["BACKEND_ERROR", "E2E_FAILED", "E2E_REQUIRED", "ODD", None, []])
def test_any_other_error_is_the_peers_and_came_in_the_clear(role: Role, code: object) -> None:
    machine, _ = talking(role)
    payload = {"code": code, "message": "no model"}
    assert say(machine, "chat.error", payload) == [
        Opened("chat.error", "m1", payload, sealed=False)
    ]


def test_an_agent_that_wants_its_secret_refuses_the_pairing() -> None:
    machine = LegacySession(Role.PHONE)
    machine.connected(0.0, paired=True)
    error = {"code": "E2E_REQUIRED", "message": "pair by link"}
    assert say(machine, "chat.error", error) == [PairingRefused(Failure.NO_VERSION_1)]
    agent = LegacySession(Role.AGENT)
    agent.connected(0.0, paired=True)
    assert say(agent, "chat.error", error) == [Opened("chat.error", "m1", error, sealed=False)]


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
