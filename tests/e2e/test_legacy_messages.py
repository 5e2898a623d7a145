"""What the machine of version 1 takes from its peer, what it refuses, and whose an error is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from coralmux.e2e.errors import Failure
from coralmux.e2e.events import Hint, Ignored, Opened, PairingRefused
from coralmux.e2e.legacy import UNREADABLE, UNSEALED, LegacySession
from coralmux.protocol.envelope import Envelope
from coralmux.protocol.limits import MAX_SAFE_INTEGER
from coralmux.protocol.types import Role
from tests.e2e.legacy_peer import (
    CHAT,
    INCOMING,
    OUTGOING,
    Raw,
    say,
    second_seal,
    sends,
    talking,
    told,
)

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
