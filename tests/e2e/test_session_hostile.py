"""A relay that meddles with the records of a session: nothing wrong is ever opened.

Each kind of meddling ends the session with one declared failure, both ends hear of it,
and they come back to a new session by themselves.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from coralmux.e2e.errors import Failure, NotReady
from coralmux.e2e.events import Ended, Gap, Ignored, Lost
from coralmux.protocol.envelope import Envelope
from coralmux.protocol.limits import MAX_SAFE_INTEGER
from tests.e2e.machines import (
    Wire,
    changed,
    envelope,
    flipped,
    honest,
    next_record,
    payload_of,
    step_of,
    talking,
)

ROLES = ["phone", "agent"]


def assert_failed_and_recovered(wire: Wire, victim: str, failure: Failure) -> None:
    """`victim` saw the failure; the other end was told; both are back with nothing opened."""
    side, other = wire.side(victim), wire.other(victim)
    wire.run()
    assert side.all(Ended)[0] == Ended(failure)
    assert other.all(Ended)[0] == Ended(Failure.PEER_ENDED)
    assert side.opened == other.opened == []
    wire.wait(10)
    assert wire.talking
    assert len(side.all(Ended)) == len(other.all(Ended)) == 1
    wire.exchange()


# One failure each


@pytest.mark.parametrize("sender", ROLES)
def test_a_change_of_any_byte_ends_the_session(sender: str) -> None:
    length = 128 + 16
    for position in range(length):
        wire = talking()
        receiver = wire.other(sender)
        message = next_record(wire, sender)
        assert len(base64.b64decode(payload_of(message)["ciphertext"])) == length
        wire.deliver(receiver.role, flipped(message, position, 1 << position % 8))
        assert receiver.opened == []
        assert receiver.all(Ended) == [Ended(Failure.TAMPERED)]
    assert_failed_and_recovered(wire, receiver.role, Failure.TAMPERED)


def cut(message: Envelope) -> Envelope:
    return changed(message, ciphertext=payload_of(message)["ciphertext"][:-4])


MEDDLING: dict[str, Callable[[Envelope], Envelope]] = {
    "cut short": cut,
    "emptied": lambda m: changed(m, ciphertext=""),
    "another type": lambda m: envelope("memory.search", m.id, bytes(m.payload)),
    "type of step 3": lambda m: envelope("key_exchange", m.id, bytes(m.payload)),
    "another id": lambda m: envelope(m.type, "another", bytes(m.payload)),
    "no id": lambda m: envelope(m.type, "", bytes(m.payload)),
    "type moved into the id": lambda m: envelope("chat", "x\n" + m.id, bytes(m.payload)),
    "a later counter": lambda m: changed(m, n=payload_of(m)["n"] + 1),
    "a much later counter": lambda m: changed(m, n=MAX_SAFE_INTEGER - 1),
}


@pytest.mark.parametrize("sender", ROLES)
@pytest.mark.parametrize("kind", MEDDLING)
def test_a_meddled_record_ends_the_session(kind: str, sender: str) -> None:
    wire = talking()
    receiver = wire.other(sender)
    wire.deliver(receiver.role, MEDDLING[kind](next_record(wire, sender)))
    assert_failed_and_recovered(wire, receiver.role, Failure.TAMPERED)


@pytest.mark.parametrize("sender", ROLES)
@pytest.mark.parametrize("n", [MAX_SAFE_INTEGER, 2**64, 10**300])
def test_a_counter_beyond_the_last_ends_the_session(sender: str, n: int) -> None:
    wire = talking()
    message = next_record(wire, sender)
    raw = bytes(message.payload).replace(
        b'"n":%d' % payload_of(message)["n"], b'"n":' + str(n).encode()
    )
    receiver = wire.other(sender)
    wire.deliver(receiver.role, envelope(message.type, message.id, raw))
    assert_failed_and_recovered(wire, receiver.role, Failure.EXHAUSTED)


@pytest.mark.parametrize("sender", ROLES)
def test_a_record_that_comes_twice_ends_the_session(sender: str) -> None:
    wire = talking()
    receiver = wire.other(sender)
    message = next_record(wire, sender)
    wire.deliver(receiver.role, message)
    assert len(receiver.opened) == 1
    receiver.take()
    wire.deliver(receiver.role, message)
    assert_failed_and_recovered(wire, receiver.role, Failure.REPLAYED)


@pytest.mark.parametrize("sender", ROLES)
def test_records_in_another_order_end_the_session_and_none_is_late(sender: str) -> None:
    wire = talking()
    receiver = wire.other(sender)
    first, second = next_record(wire, sender), next_record(wire, sender)
    wire.deliver(receiver.role, second)
    assert [m[1] for m in receiver.opened] == [second.id]
    assert len(receiver.all(Gap)) == 1
    receiver.take()
    wire.deliver(receiver.role, first)
    wire.run()
    assert wire.other(receiver.role).all(Lost) == [Lost((first.id,))]
    assert_failed_and_recovered(wire, receiver.role, Failure.REPLAYED)


@pytest.mark.parametrize("sender", ROLES)
def test_a_record_sent_back_to_its_sender_ends_the_session(sender: str) -> None:
    wire = talking()
    for _ in range(3):  # the counters of both directions differ
        next_record(wire, sender)
    message = next_record(wire, sender)
    wire.deliver(sender, message)
    assert_failed_and_recovered(wire, sender, Failure.TAMPERED)


@pytest.mark.parametrize("sender", ROLES)
def test_a_record_under_another_session_s_name_is_not_opened(sender: str) -> None:
    wire = talking()
    old = next(m for role, m in wire.seen if role == sender and m.type.startswith("chat"))
    receiver = wire.other(sender)
    wire.connect("phone")
    wire.run()
    wire.exchange()
    wire.wait(6)
    receiver.take()
    wire.deliver(receiver.role, old)
    assert [type(event) for event in receiver.events] == [Ignored]
    wire.exchange()
    for side in (wire.phone, wire.agent):
        side.take()
    now = wire.phone.machine._records
    assert now is not None
    wire.deliver(receiver.role, changed(old, hs=now.hs, n=5))
    assert_failed_and_recovered(wire, receiver.role, Failure.TAMPERED)


@pytest.mark.parametrize("sender", ROLES)
def test_a_record_without_its_version_is_not_opened_and_both_ends_hear_of_it(sender: str) -> None:
    wire = talking()
    side, receiver = wire.side(sender), wire.other(sender)
    for member in ("v", "enc", "hs", "n", "ciphertext"):
        message = next_record(wire, sender)
        wire.deliver(receiver.role, changed(message, **{member: None}))
        wire.run()
        assert receiver.opened == []
        assert side.opened[-1][2]["code"] == "E2E_REQUIRED"
        assert side.opened[-1][2]["ref"] == message.id
    wire.exchange()
    assert len(side.told) == 5


@pytest.mark.parametrize("sender", ROLES)
def test_used_up_keys_make_a_new_session(sender: str) -> None:
    wire = talking()
    side = wire.side(sender)
    sending, receiving = side.machine._records, wire.other(sender).machine._records
    assert sending is not None
    assert receiving is not None
    for cipher in (sending.sending, receiving.receiving):
        cipher.set_nonce(MAX_SAFE_INTEGER - 1)
    last = wire.say(sender)
    wire.run()
    assert wire.other(sender).opened[-1][1] == last
    with pytest.raises(NotReady):
        side.machine.seal("chat.send", "2", b"{}")
    wire.wait(1)
    assert side.all(Ended) == [Ended(Failure.EXHAUSTED)]
    assert wire.other(sender).all(Ended) == [Ended(Failure.SUPERSEDED)]
    assert wire.talking
    wire.exchange()


@pytest.mark.parametrize("sender", ROLES)
def test_an_end_without_keys_to_complain_with_still_begins_again(sender: str) -> None:
    wire = talking()
    receiver = wire.other(sender)
    keys = receiver.machine._records
    assert keys is not None
    keys.sending.set_nonce(MAX_SAFE_INTEGER)
    wire.deliver(receiver.role, flipped(next_record(wire, sender), 0))
    wire.wait(10)
    assert receiver.all(Ended) == [Ended(Failure.TAMPERED)]
    assert wire.side(sender).all(Ended) == [Ended(Failure.SUPERSEDED)]
    wire.exchange()


@pytest.mark.parametrize("victim", ROLES)
def test_a_lost_report_of_the_end_does_not_part_them(victim: str) -> None:
    wire = talking(0)
    message = next_record(wire, "agent" if victim == "phone" else "phone")
    wire.relay = lambda _, m: []
    wire.deliver(victim, flipped(message, 0))
    wire.wait(3)
    wire.relay = honest
    wire.wait(12)
    wire.exchange()


def test_a_forgery_every_second_leaves_the_handshakes_five_seconds_apart() -> None:
    wire = Wire().meet()
    for _ in range(60):
        keys = wire.phone.machine._records
        if keys is not None:
            forged = {"enc": True, "v": 2, "hs": keys.hs, "n": 1, "ciphertext": "AAAA"}
            for role in ROLES:
                wire.deliver(role, envelope("chat.send", "f", forged))
        wire.wait(1)
    assert sum(step_of(m) == 1 for _, m in wire.seen) <= 60 / 5 + 1
    assert sum(step_of(m) == 0 for _, m in wire.seen) <= 60 / 5 + 1
    assert wire.phone.opened == wire.agent.opened == []
    wire.wait(10)
    wire.exchange()
