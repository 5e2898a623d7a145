"""Lost records and what is said about them; lengths; and that nothing printed tells a secret."""

from __future__ import annotations

import logging

import pytest

from coralmux.e2e.errors import E2EError, Failure, NotReady
from coralmux.e2e.events import Ended, Event, Gap, Ignored, Lost, Secrets, Send
from tests.e2e.machines import (
    LINK_SECRET,
    Wire,
    dropping_first,
    envelope,
    flipped,
    is_record,
    next_record,
    payload_of,
    talking,
)

ROLES = ["phone", "agent"]


# Gaps


@pytest.mark.parametrize("sender", ROLES)
def test_lost_messages_are_named_to_their_sender(sender: str) -> None:
    wire = talking()
    side, receiver = wire.side(sender), wire.other(sender)
    lost = [next_record(wire, sender).id for _ in range(3)]
    arrived = wire.say(sender)
    wire.run()
    assert [m[1] for m in receiver.opened] == [arrived]
    assert len(receiver.all(Gap)) == 1
    assert receiver.all(Gap)[0].last - receiver.all(Gap)[0].first == 2
    assert side.all(Lost) == [Lost(tuple(lost))]
    assert side.opened == []  # the report is the machine's, not a message
    assert not side.all(Ended)
    wire.exchange()


@pytest.mark.parametrize("sender", ROLES)
def test_a_refused_message_is_not_lost_until_its_second_try_is(sender: str) -> None:
    wire = talking()
    side = wire.side(sender)
    wire.send(sender, "chat.send", "again", {})
    wire.queue.clear()
    side.machine.refused("again")
    wire.exchange()
    assert side.all(Lost) == []
    wire.send(sender, "chat.send", "again", {})
    wire.queue.clear()
    wire.exchange()
    assert side.all(Lost) == [Lost(("again",))]


@pytest.mark.parametrize("fate", ["dropped", "refused"])
@pytest.mark.parametrize("sender", ROLES)
def test_a_report_of_a_gap_that_is_lost_is_said_again(sender: str, fate: str) -> None:
    wire = talking()
    side, receiver = wire.side(sender), wire.other(sender)
    lost = next_record(wire, sender).id
    wire.relay = dropping_first(lambda role, m: role == receiver.role)
    wire.say(sender)
    wire.run()
    assert side.all(Lost) == []
    if fate == "refused":
        receiver.machine.refused(receiver.all(Send)[-1].id)
    wire.say(receiver.role)
    wire.run()
    assert side.all(Lost) == [Lost((lost,))]
    assert receiver.all(Lost) == []
    before = len(wire.seen)
    wire.exchange()
    assert len(wire.seen) == before + 2


def test_only_so_many_reports_are_kept() -> None:
    wire = talking()
    for _ in range(300):
        next_record(wire, "phone")
        message = next_record(wire, "phone")
        wire.deliver("agent", message)
    assert len(wire.agent.machine._reports) == 256
    wire.connect("phone")
    wire.run()
    assert wire.talking
    assert wire.agent.machine._reports == {}


HUGE = 2**53
REPORTS = [
    (None, None),
    ("0", "9"),
    (0.0, 1.0),
    (True, True),
    (-5, 3),
    (0, -1),
    (0, HUGE),
    (HUGE, HUGE),
    (10**300, 10**300),
    (9, 2),
    (7, HUGE - 1),
    ([], {}),
]


@pytest.mark.parametrize("bounds", REPORTS, ids=repr)
@pytest.mark.parametrize("reporter", ROLES)
def test_a_senseless_report_of_a_gap_names_nothing(
    reporter: str, bounds: tuple[object, object]
) -> None:
    wire = talking()
    other = wire.other(reporter)
    report = {"code": "E2E_GAP", "message": "", "from": bounds[0], "to": bounds[1]}
    wire.send(reporter, "chat.error", "gap", report)
    wire.run()
    assert other.all(Lost) == []
    assert other.opened == []
    wire.exchange()


def test_a_report_of_everything_names_what_was_sent() -> None:
    wire = talking()
    ids = [wire.say("phone") for _ in range(3)]
    wire.run()
    wire.send("agent", "chat.error", "gap", {"code": "E2E_GAP", "from": 0, "to": HUGE - 1})
    wire.run()
    assert wire.phone.all(Lost)[0].ids[-3:] == tuple(ids)
    wire.exchange()


@pytest.mark.parametrize("sender", ROLES)
@pytest.mark.parametrize("text", [b"[]", b"7", b"", b"{", b"\xff", b"[" * 60_000])
def test_a_sealed_payload_that_is_no_object_is_answered_and_the_session_goes_on(
    sender: str, text: bytes
) -> None:
    wire = talking()
    side, receiver = wire.side(sender), wire.other(sender)
    sealed = side.machine.seal("chat.send", "odd", text)
    wire.deliver(receiver.role, envelope("chat.send", "odd", sealed))
    wire.run()
    assert receiver.opened == []
    assert [type(e) for e in receiver.all(Ignored)] == [Ignored]
    assert side.opened[0][2]["code"] == "INVALID_MESSAGE"
    assert side.opened[0][2]["ref"] == "odd"
    wire.exchange()


# Secrecy


def test_nothing_that_can_be_printed_tells_a_key_a_secret_or_a_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    wire = Wire(phone=Secrets(LINK_SECRET), agent=Secrets(LINK_SECRET))
    wire.meet()
    wire.exchange()
    message = next_record(wire, "agent")
    objects: list[object] = [wire.phone.machine, wire.agent.machine]
    for machine in (wire.phone.machine, wire.agent.machine):
        # What a debugger's list of members shows, bare secrets and lists of them aside.
        objects += [x for x in vars(machine).values() if not isinstance(x, bytes | list | str)]
    wire.deliver("phone", flipped(message, 3))
    events: list[Event] = [*wire.phone.events, *wire.agent.events]
    objects += [*events, *Failure, *(E2EError(failure) for failure in Failure)]
    with pytest.raises(NotReady) as not_ready:
        wire.phone.machine.seal("chat.send", "1", b'{"text":"secret"}')
    objects.append(not_ready.value)
    secrets = {LINK_SECRET, wire.phone.stored.current, wire.agent.stored.current}
    assert len(secrets) == 2
    told = "\n".join(f"{x!r} {x!s}" for x in objects) + caplog.text
    for secret in secrets:
        assert repr(secret)[2:12] not in told
        assert secret.hex()[:12] not in told
    assert "secret phone-" not in told
    assert "secret agent-" not in told
    assert "oc_pair_" not in "\n".join(
        repr(x) for x in (wire.phone.machine, wire.agent.machine, *events)
    )
    assert repr(wire.phone.machine) == "<PhoneSession not ready>"
    assert all(is_record(m) for _, m in wire.seen if m.type.startswith("chat"))


def test_every_sealed_length_on_the_wire_is_a_multiple_of_128() -> None:
    wire = talking()
    for length in range(0, 300, 7):
        wire.send("phone", "chat.send", f"p{length}", {"text": "x" * length})
        wire.send("agent", "chat.stream", f"a{length}", {"delta": "x" * length})
    next_record(wire, "phone")
    wire.run()
    sealed = [payload_of(m)["ciphertext"] for _, m in wire.seen if is_record(m)]
    assert len(sealed) > 80
    for ciphertext in sealed:
        padding = ciphertext.count("=")
        assert (len(ciphertext) // 4 * 3 - padding - 16) % 128 == 0
