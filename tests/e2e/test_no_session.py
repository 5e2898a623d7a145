"""A phone that gets no session: no answer, another version, refusals and hints, true or forged."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from coralmux.e2e.errors import Failure
from coralmux.e2e.events import Established, Event, Hint, Ignored, PairingRefused, Send
from coralmux.e2e.noise import SymmetricState
from coralmux.e2e.session import Identity, prologue
from coralmux.protocol import base64url
from coralmux.protocol.envelope import Envelope
from tests.e2e.machines import (
    AGENT,
    LINK_SECRET,
    TOKEN,
    Side,
    Wire,
    changed,
    dropping,
    envelope,
    established,
    honest,
    payload_of,
    step_of,
    steps,
)


def refusals(side: Side) -> list[Failure]:
    return [event.failure for event in side.all(PairingRefused)]


def error(code: str, ref: str = "", **more: Any) -> Envelope:
    return envelope("chat.error", "e", {"code": code, "message": "words", "ref": ref, **more})


def step_1_id(wire: Wire) -> str:
    return [m.id for _, m in wire.seen if step_of(m) == 1][-1]


# No answer


def test_after_three_time_outs_it_says_so_and_goes_on_trying_each_minute() -> None:
    wire = Wire()
    wire.relay = dropping(lambda sender, _: sender == "agent")
    wire.meet()
    names = [payload_of(m)["hs"] for _, m in wire.seen if step_of(m) == 1]
    wire.wait(29.5)
    assert refusals(wire.phone) == []
    wire.wait(0.5)
    assert refusals(wire.phone) == [Failure.NO_ANSWER]
    assert steps(wire.phone) == [1, 1, 1]
    names = [payload_of(m)["hs"] for _, m in wire.seen if step_of(m) == 1]
    assert len(set(names)) == 3
    wire.wait(59.5)
    assert steps(wire.phone) == [1, 1, 1]
    wire.relay = honest
    wire.wait(0.5)
    assert wire.talking
    wire.exchange()


def test_a_phone_that_is_told_the_agent_left_stops_asking() -> None:
    wire = Wire()
    wire.relay = dropping(lambda sender, _: sender == "agent")
    wire.meet()
    wire.disconnect("agent")
    wire.wait(200)
    assert steps(wire.phone) == [1]
    assert refusals(wire.phone) == []


def test_an_agent_that_answers_nonsense_counts_as_not_answering() -> None:
    wire = Wire()
    wire.agent.machine._identity = Identity(5, "2.0")  # type: ignore[arg-type]
    wire.meet()
    step_2 = next(m for _, m in wire.seen if step_of(m) == 2)
    wire.deliver("phone", step_2)  # the handshake that it belongs to is spent
    wire.wait(31)
    assert refusals(wire.phone) == [Failure.NO_ANSWER]
    assert not wire.phone.all(Established)
    wire.agent.machine._identity = AGENT
    wire.wait(90)
    wire.exchange()


def test_a_public_key_that_makes_no_secret_changes_nothing() -> None:
    # Whoever holds the link can write this: all is right but the Diffie-Hellman result.
    point, hs = bytes(32), bytes(16)
    state = SymmetricState()
    state.mix_hash(prologue(TOKEN, hs))
    state.mix_key_and_hash(LINK_SECRET)
    state.mix_hash(point)
    state.mix_key(point)
    noise = base64.b64encode(point + state.encrypt_and_hash(b"")).decode()
    step_1 = {"v": 2, "step": 1, "hs": base64url.encode(hs), "noise": noise}
    wire = Wire()
    wire.connect("agent")
    wire.deliver("agent", envelope("key_exchange", "1", step_1))
    assert [type(event) for event in wire.agent.take()] == [Ignored]
    wire.connect("phone")
    wire.run()
    wire.exchange()


# Asked to begin again


def test_a_request_to_begin_is_honoured_once_in_five_seconds() -> None:
    wire = Wire().meet()
    ask = envelope("key_exchange", "0", {"v": 2, "step": 0})
    wire.wait(6)
    for _ in range(5):
        wire.deliver("phone", ask)
        wire.run()
    assert established(wire.phone) == 2
    wire.exchange()  # the other four wait their turn, and are one
    wire.wait(4)
    assert established(wire.phone) == 2
    wire.wait(1)
    assert established(wire.phone) == 3
    wire.wait(100)
    assert established(wire.phone) == 3
    wire.exchange()


def test_a_request_to_begin_does_not_disturb_a_handshake_that_runs() -> None:
    wire = Wire()
    held: list[Envelope] = []

    def relay(sender: str, message: Envelope) -> list[Envelope]:
        held.extend([message] if step_of(message) == 2 else [])
        return [] if step_of(message) == 2 else [message]

    wire.relay = relay
    wire.meet()
    wire.wait(7)
    wire.deliver("phone", envelope("key_exchange", "0", {"v": 2, "step": 0}))
    wire.relay = honest
    wire.deliver("phone", held[0])
    wire.run()
    assert wire.talking
    assert steps(wire.phone) == [1, None]


def test_a_request_to_begin_from_nobody_is_not_honoured() -> None:
    wire = Wire()
    wire.connect("phone")
    wire.deliver("phone", envelope("key_exchange", "0", {"v": 2, "step": 0}))
    assert wire.phone.events == []


# Version 1


PUBKEY = {"pubkey": base64.b64encode(bytes(range(32))).decode()}


def test_a_key_of_version_1_and_no_answer_make_a_phone_say_that_the_agent_is_too_old() -> None:
    wire = Wire()
    wire.relay = dropping(lambda sender, _: sender == "agent")
    wire.meet()
    for _ in range(3):
        wire.deliver("phone", envelope("key_exchange", "k", PUBKEY))
    wire.wait(9.5)
    assert refusals(wire.phone) == []
    wire.wait(0.5)
    assert refusals(wire.phone) == [Failure.NO_VERSION_2]
    assert not wire.phone.machine.ready
    assert steps(wire.phone) == [1]
    # An agent that has been updated is there at the next attempt.
    wire.relay = honest
    wire.wait(60)
    wire.exchange()


def test_a_forged_key_of_version_1_is_believed_by_no_phone_that_gets_an_answer() -> None:
    wire = Wire()
    wire.connect("agent")
    wire.connect("phone")
    wire.deliver("phone", envelope("key_exchange", "k", PUBKEY))
    wire.wait(0)
    wire.exchange()
    wire.deliver("phone", envelope("key_exchange", "k", PUBKEY))
    wire.wait(100)
    wire.exchange()
    assert refusals(wire.phone) == []


def test_a_key_of_version_1_says_nothing_of_the_agent_that_comes_next() -> None:
    wire = Wire()
    wire.relay = dropping(lambda sender, _: sender == "agent")
    wire.meet()
    wire.deliver("phone", envelope("key_exchange", "k", PUBKEY))
    wire.disconnect("agent")
    wire.connect("agent")
    wire.wait(29)
    assert refusals(wire.phone) == []


@pytest.mark.parametrize("failure", [Failure.NO_VERSION_2, Failure.SECRET_REFUSED])
def test_what_is_told_in_the_clear_is_called_doubtful_and_advises_no_downgrade(
    failure: Failure,
) -> None:
    assert "It looks as if" in failure.value
    assert "may be lying" in failure.value
    assert "version 1" not in failure.value
    assert "token" not in failure.value


def test_a_key_of_version_1_is_answered_once_for_each_connection() -> None:
    wire = Wire()
    wire.connect("agent")
    wire.connect("phone")
    wire.queue.clear()
    for _ in range(3):
        wire.deliver("agent", envelope("key_exchange", "k", PUBKEY))
    answers = [e for e in wire.agent.all(Send) if e.type == "chat.error"]
    assert len(answers) == 1
    payload = payload_of(envelope("chat.error", "", answers[0].payload))
    assert payload["code"] == "E2E_REQUIRED"
    assert payload["ref"] == "k"
    assert "Pair by its link" in payload["message"]
    assert refusals(wire.agent) == [Failure.NO_VERSION_1]
    assert not wire.agent.machine.ready
    for times, role in enumerate(("agent", "phone"), 2):
        wire.connect(role)
        wire.queue.clear()
        wire.deliver("agent", envelope("key_exchange", "k", PUBKEY))
        assert refusals(wire.agent) == [Failure.NO_VERSION_1] * times


def test_a_phone_of_version_1_is_asked_for_no_handshake() -> None:
    wire = Wire()
    wire.connect("agent")
    wire.agent.machine.peer_online(wire.now)
    wire.deliver("agent", envelope("key_exchange", "k", PUBKEY))
    wire.deliver("agent", envelope("chat.send", "1", {"text": "hello"}))
    wire.wait(200)
    assert steps(wire.agent) == []


@pytest.mark.parametrize("step", [1, 2])
def test_without_its_version_a_step_counts_for_nothing(step: int) -> None:
    wire = Wire()
    wire.relay = lambda _, m: [changed(m, v=None)] if step_of(m) == step else [m]
    wire.meet()
    wire.wait(31)
    assert refusals(wire.phone) == [Failure.NO_ANSWER]
    assert not wire.agent.machine.ready
    assert wire.phone.opened == wire.agent.opened == []
    wire.relay = honest
    wire.wait(60)
    wire.exchange()


def test_nothing_in_the_clear_is_taken_for_a_message_and_the_sender_hears_of_it() -> None:
    wire = Wire().meet()
    for role in ("phone", "agent"):
        side, other = wire.side(role), wire.other(role)
        clear = [
            envelope("chat.send", "c1", {"text": "forged"}),
            envelope("chat.done", "c2", {"full_text": "forged"}),
            envelope("chat.send", "c3", {"enc": True, "ciphertext": "AAAA", "nonce": "AAAA"}),
            envelope("chat.send", "c4", {"enc": True, "v": 1, "hs": "x", "n": 0}),
            envelope("file.begin", "c" * 100, {"file_id": "f"}),
            envelope("chat.error", "c6", {"code": "E2E_GAP", "message": "", "from": 0, "to": 9}),
            envelope("chat.error", "c7", {"code": "E2E_FAILED", "message": ""}),
            envelope("chat.error", "c8", {"code": "BACKEND_ERROR", "message": ""}),
            envelope("key_exchange", "c9", {"step": 3, "name": "x", "version": "x"}),
            envelope("key_exchange", "c10", {"v": 2, "step": 3, "name": "x", "version": "x"}),
        ]
        for message in clear:
            wire.deliver(role, message)
        wire.run()
        assert side.opened == []
        assert len(side.all(Ignored)) == len(clear)
        told = [payload for type, _, payload in other.opened if type == "chat.error"]
        assert [p["code"] for p in told] == ["E2E_REQUIRED"] * 5
        assert [p["ref"] for p in told] == ["c1", "c2", "c3", "c4", "c" * 64]
        other.take()
        side.take()
        assert wire.talking


def test_forgeries_in_the_clear_do_not_spend_the_quota() -> None:
    wire = Wire().meet()
    before = len(wire.seen)
    for number in range(500):
        wire.deliver("agent", envelope("chat.send", f"c{number}", {"text": "forged"}))
    wire.run()
    assert len(wire.seen) - before == 10
    wire.exchange()


# Hints


def test_an_agent_that_is_away_is_asked_again_without_a_word_of_age() -> None:
    wire = Wire()
    wire.relay = lambda sender, m: []
    wire.meet()
    for _ in range(6):
        wire.deliver("phone", error("PEER_OFFLINE", step_1_id(wire)))
        wire.wait(10)
    assert refusals(wire.phone) == []
    assert len(wire.phone.all(Hint)) == 6
    assert steps(wire.phone) == [1] * 7
    wire.relay = honest
    wire.wait(10)
    wire.exchange()


@pytest.mark.parametrize(
    ("retry_after_ms", "seconds"),
    [(8_000, 8), (1_000, 5), (0, 5), (-(10**400), 5), (60_000, 60), (3_600_000, 60), (10**400, 60)],
    ids=["true", "short", "none", "huge negative", "a minute", "an hour", "huge"],
)
def test_a_refused_step_1_goes_out_again_when_the_relay_takes_it(
    retry_after_ms: int, seconds: int
) -> None:
    wire = Wire()
    wire.relay = lambda sender, m: []
    wire.meet()
    wire.deliver("phone", error("RATE_LIMITED", step_1_id(wire), retry_after_ms=retry_after_ms))
    assert wire.phone.all(Hint)[-1].retry_after_ms == min(max(retry_after_ms, 0), 2**53)
    wire.wait(seconds - 0.5)
    assert steps(wire.phone) == [1]
    wire.relay = honest
    wire.wait(0.5)
    assert steps(wire.phone) == [1, 1, None]
    wire.exchange()


def test_hints_about_other_messages_change_no_handshake() -> None:
    wire = Wire()
    wire.relay = lambda sender, m: []
    wire.meet()
    for code in ("PEER_OFFLINE", "RATE_LIMITED", "E2E_REFUSED"):
        wire.deliver("phone", error(code, "another", retry_after_ms=60_000))
    wire.wait(30)
    assert refusals(wire.phone) == [Failure.NO_ANSWER]


@pytest.mark.parametrize("again", ["wait", "step 0", "status"])
def test_a_forged_refusal_is_told_and_tried_again(again: str) -> None:
    wire = Wire()
    wire.relay = lambda sender, m: []
    wire.meet()
    before = wire.phone.stored
    wire.deliver("phone", error("E2E_REFUSED", step_1_id(wire)))
    assert refusals(wire.phone) == [Failure.SECRET_REFUSED]
    wire.deliver("phone", error("E2E_REFUSED", step_1_id(wire)))
    assert len(refusals(wire.phone)) == 1
    assert wire.phone.stored == before
    wire.relay = honest
    if again == "wait":
        wire.wait(59.5)
        assert not wire.talking
        wire.wait(0.5)
    elif again == "step 0":
        wire.deliver("phone", envelope("key_exchange", "0", {"v": 2, "step": 0}))
        wire.wait(5)
    else:
        wire.carry_out(wire.phone, wire.phone.machine.peer_online(wire.now))
        wire.run()
    wire.exchange()


@pytest.mark.parametrize("role", ["phone", "agent"])
def test_no_forged_error_changes_a_session_or_a_secret(role: str) -> None:
    wire = Wire().meet()
    side = wire.side(role)
    stored, keys = side.stored, side.machine._records
    side.take()
    codes = ["UNAUTHORIZED", "PEER_OFFLINE", "RATE_LIMITED", "DAILY_QUOTA_EXCEEDED"]
    codes += ["MONTHLY_QUOTA_EXCEEDED", "MESSAGE_TOO_LARGE", "INVALID_MESSAGE"]
    others = ["BACKEND_ERROR", "E2E_REFUSED", "E2E_REQUIRED", "E2E_FAILED", "E2E_GAP", "NEW"]
    for code in [*codes, *others]:
        for ref in ("", "x", step_1_id(wire)):
            wire.deliver(role, error(code, ref))
    wire.deliver(role, envelope("chat.error", "e", {"code": 7}))
    wire.run()
    hints = [event for event in side.events if isinstance(event, Hint)]
    assert [hint.code for hint in hints] == [code for code in codes for _ in range(3)]
    assert {type(event) for event in side.events} == {Hint, Ignored}
    assert side.stored == stored
    assert side.machine._records is keys
    wire.exchange()


# Refusals


def test_an_agent_refuses_thirty_strangers_a_minute_and_ignores_the_others() -> None:
    wire = Wire()
    wire.connect("agent")
    wire.connect("phone")
    wire.run()
    first = wire.agent.machine
    wire.agent.take()

    def strangers(count: int, label: str) -> list[Event]:
        events: list[Event] = []
        for n in range(count):
            hs = base64url.encode(hashlib.sha256(f"{label} {n}".encode()).digest()[:16])
            noise = base64.b64encode(bytes(48)).decode()
            payload = {"v": 2, "step": 1, "hs": hs, "noise": noise}
            events += first.receive(envelope("key_exchange", f"{label}{n}", payload), wire.now)
        return events

    flood = strangers(1000, "a")
    assert [type(event) for event in flood[:60]] == [Send, PairingRefused] * 30
    assert {type(event) for event in flood[60:]} == {Ignored}
    assert len(flood) == 60 + 970
    wire.now += 59.9
    assert {type(event) for event in strangers(10, "b")} == {Ignored}
    # Whoever holds the secret is answered all the while.
    wire.disconnect("phone")
    wire.meet()
    assert established(wire.agent)
    wire.now += 0.1
    assert [type(event) for event in strangers(1, "c")] == [Send, PairingRefused]
