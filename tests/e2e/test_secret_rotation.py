"""A link is good once: whatever gets lost or dies on the way, one phone ends with the secret."""

from __future__ import annotations

import base64
from itertools import product
from typing import Any

import msgspec
import pytest

from coralmux.e2e.errors import Failure
from coralmux.e2e.events import Ended, Established, PairingRefused, Secrets, Send, Store
from coralmux.e2e.noise import HandshakeState
from coralmux.e2e.session import prologue
from coralmux.protocol import base64url
from coralmux.protocol.envelope import Envelope
from tests.e2e.machines import (
    AGENT,
    LINK_SECRET,
    TOKEN,
    Died,
    Side,
    Wire,
    dropping_first,
    envelope,
    honest,
    is_record,
    payload_of,
    step_of,
    steps,
)


def device(label: str, secrets: Secrets | None = None) -> Side:
    return Side("phone", secrets or Secrets(LINK_SECRET), rotate=True, label=label)


def refusals(side: Side) -> list[Failure]:
    return [event.failure for event in side.all(PairingRefused)]


def assert_rotated(wire: Wire) -> None:
    """Both have the same new secret and nothing else, and it works."""
    wire.exchange()
    assert wire.phone.stored == wire.agent.stored
    assert wire.phone.stored.next is None
    assert not wire.phone.stored.link
    assert wire.phone.stored.current != LINK_SECRET
    wire.connect("phone")
    wire.run()
    wire.exchange()


def works(wire: Wire, phone: Side) -> bool:
    """Whether this phone, coming back, gets to talk to the agent; if not, it is told why."""
    phone.rebuild()
    phone.take()
    wire.come(phone)
    wire.wait(20)
    if wire.talking:
        wire.exchange()
        return True
    assert refusals(phone) == [Failure.SECRET_REFUSED]
    assert not phone.machine.ready
    return False


# The order of things


def kinds(side: Side) -> list[str]:
    return [
        "store" if isinstance(event, Store) else "send"
        for event in side.events
        if isinstance(event, Store | Send)
    ]


def test_each_secret_is_on_disk_before_the_message_that_relies_on_it() -> None:
    wire = Wire().meet()
    assert kinds(wire.phone) == ["send", "store", "send", "store"]
    assert kinds(wire.agent) == ["store", "send", "store", "send"]
    offer, commit = (event.secrets for event in wire.agent.all(Store))
    taken, confirmed = (event.secrets for event in wire.phone.all(Store))
    new = offer.next
    assert new is not None
    assert new != LINK_SECRET
    assert offer == Secrets(LINK_SECRET, new, link=True)
    assert taken == Secrets(new, LINK_SECRET, link=False)
    assert commit == confirmed == Secrets(new, None, link=False)
    assert_rotated(wire)


def test_a_rotated_secret_is_not_rotated_again() -> None:
    wire = Wire().meet()
    stored = wire.agent.stored
    for role in ("phone", "agent", "phone"):
        wire.restart(role)
        wire.run()
        wire.exchange()
    assert wire.agent.stored == wire.phone.stored == stored


def test_without_rotation_a_link_stays_good_for_whoever_has_it() -> None:
    wire = Wire(rotate=False).meet()
    assert not wire.phone.all(Store)
    assert not wire.agent.all(Store)
    assert works(wire, device("another"))


def test_a_used_link_is_refused_in_words_and_the_first_phone_is_not_disturbed() -> None:
    wire = Wire().meet()
    wire.exchange()
    first, second = wire.phone, device("another")
    stored = wire.agent.stored
    wire.come(second)
    wire.run()
    assert refusals(second) == [Failure.SECRET_REFUSED]
    assert refusals(wire.agent) == [Failure.SECRET_REFUSED]
    clear = next(m for sender, m in reversed(wire.seen) if sender == "agent")
    assert payload_of(clear)["code"] == "E2E_REFUSED"
    assert "Make a new link" in payload_of(clear)["message"]
    assert not second.machine.ready
    assert second.stored == Secrets(LINK_SECRET)
    assert wire.agent.stored == stored
    wire.come(first)
    wire.run()
    wire.exchange()


def test_a_handshake_soon_after_the_first_uses_the_new_secret() -> None:
    wire = Wire().meet()
    wire.deliver("phone", envelope("key_exchange", "0", {"v": 2, "step": 0}))
    wire.wait(5)
    assert len(wire.phone.all(Established)) == 2
    assert refusals(wire.phone) == refusals(wire.agent) == []
    wire.exchange()


def test_once_confirmed_nobody_brings_a_phone_back_to_the_link_s_secret() -> None:
    wire = Wire().meet()
    wire.relay = lambda sender, m: []
    wire.connect("phone")
    wire.phone.take()
    step_1 = wire.seen[-1][1]
    refusal = {"code": "E2E_REFUSED", "message": "", "ref": step_1.id}
    wire.deliver("phone", envelope("chat.error", "e", refusal))
    assert steps(wire.phone) == []
    assert refusals(wire.phone) == [Failure.SECRET_REFUSED]
    wire.relay = honest
    wire.wait(60)
    wire.exchange()


def test_forged_refusals_before_the_confirmation_lose_no_secret() -> None:
    wire = Wire()
    wire.relay = lambda sender, m: [] if sender == "agent" and is_record(m) else [m]
    wire.meet()
    assert wire.agent.stored.next is None
    both = wire.phone.stored
    assert both.next == LINK_SECRET
    wire.relay = lambda sender, m: []
    wire.connect("phone")
    for _ in range(2):
        step_1 = wire.seen[-1][1]
        refusal = {"code": "E2E_REFUSED", "message": "", "ref": step_1.id}
        wire.deliver("phone", envelope("chat.error", "e", refusal))
    assert refusals(wire.phone) == [Failure.SECRET_REFUSED]
    assert wire.phone.stored == both
    wire.relay = honest
    wire.wait(60)
    assert_rotated(wire)


@pytest.mark.parametrize(
    "offered",
    [7, "", "AAAA", "!" * 43, "A" * 44, [], {}, True, base64.b64encode(bytes(32)).decode()],
)
def test_an_offer_that_is_no_secret_is_not_stored(offered: Any) -> None:
    wire = Wire()
    wire.connect("agent")
    wire.relay = lambda sender, m: []
    wire.connect("phone")
    step_1 = payload_of(wire.seen[-1][1])
    hs = base64url.decode(step_1["hs"], 16)
    agent = HandshakeState(initiator=False, prologue=prologue(TOKEN, hs), psk=LINK_SECRET)
    agent.read_message(base64.b64decode(step_1["noise"]))
    payload = {**msgspec.to_builtins(AGENT), "next_psk": offered}
    noise = base64.b64encode(agent.write_message(msgspec.json.encode(payload))).decode()
    step_2 = {"v": 2, "step": 2, "hs": step_1["hs"], "noise": noise}
    wire.deliver("phone", envelope("key_exchange", "2", step_2))
    assert not wire.phone.all(Store)
    assert not wire.phone.machine.ready
    wire.relay = honest
    wire.wait(11)
    assert_rotated(wire)


# What is lost on the way


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("again", ["wait", "phone", "agent"])
def test_each_message_of_the_first_handshake_may_get_lost(number: int, again: str) -> None:
    wire = Wire()
    count = 0

    def relay(sender: str, message: Envelope) -> list[Envelope]:
        nonlocal count
        count += 1
        return [] if count == number + 1 else [message]

    wire.relay = relay
    wire.meet()
    wire.relay = honest
    if again == "wait":
        wire.wait(30)
    else:
        wire.restart(again)
        wire.run()
    assert refusals(wire.phone) == []
    assert_rotated(wire)
    assert not works(wire, device("another"))


def test_a_replay_between_the_offer_and_its_confirmation_locks_nobody_out() -> None:
    wire = Wire()
    wire.relay = dropping_first(lambda sender, m: sender == "phone" and is_record(m))
    wire.meet()
    step_1 = next(m for _, m in wire.seen if step_of(m) == 1)
    first_offer = wire.phone.stored.current
    wire.restart("agent")  # which has forgotten the names of handshakes
    wire.queue.clear()
    wire.deliver("agent", step_1)
    assert wire.agent.stored.next not in (None, first_offer)
    wire.wait(30)
    assert_rotated(wire)


# What dies on the way: each side has four effects in the first handshake, and dies in
# front of one of them. The other side's messages to it are lost with it.


def run_and_die(wire: Wire, role: str, effects: int) -> None:
    wire.side(role).effects_left = effects
    try:
        if not wire.agent.connected:
            wire.connect("agent")
        wire.connect("phone")
        wire.run()
    except Died:
        pass
    assert wire.side(role).effects_left == 0
    wire.restart(role)


POINTS = list(product(["phone", "agent"], range(4)))


@pytest.mark.parametrize(("role", "effects"), POINTS)
def test_either_process_may_die_at_each_point_of_the_first_handshake(
    role: str, effects: int
) -> None:
    wire = Wire()
    run_and_die(wire, role, effects)
    wire.run()
    wire.wait(30)
    assert refusals(wire.phone) == []
    assert_rotated(wire)
    assert not works(wire, device("another"))


@pytest.mark.parametrize(("first", "second"), list(product(POINTS, POINTS)))
def test_it_may_die_again_while_it_recovers(
    first: tuple[str, int], second: tuple[str, int]
) -> None:
    wire = Wire()
    run_and_die(wire, *first)
    wire.queue.clear()
    role, effects = second
    wire.side(role).effects_left = effects
    try:
        wire.wait(30)
    except Died:
        wire.restart(role)
    wire.side(role).effects_left = None
    wire.wait(120)
    assert refusals(wire.phone) == []
    assert_rotated(wire)
    assert not works(wire, device("another"))


# Two devices, one link


@pytest.mark.parametrize(("of_first", "of_second"), list(product(range(5), range(8))))
def test_of_two_devices_with_one_link_exactly_one_gets_in(of_first: int, of_second: int) -> None:
    """The first gets so many messages far, then the second; then both try in turn."""
    wire = Wire()
    wire.connect("agent")
    first, second = wire.phone, device("another")
    for phone, messages in ((first, of_first), (second, of_second)):
        wire.come(phone)
        for _ in range(messages):
            if wire.queue:
                wire.deliver(*wire.queue.popleft())
    own = [
        {event.secrets.current for event in side.all(Store)} - {LINK_SECRET}
        for side in (first, second)
    ]
    assert not own[0] & own[1]
    results = [works(wire, phone) for phone in (first, second, first, second)]
    assert sorted(results[:2]) == [False, True]
    assert results[2:] == results[:2]
    assert first.stored.current != second.stored.current


def test_the_first_device_s_step_3_behind_the_second_s_step_1_commits_nothing() -> None:
    wire = Wire()
    held: list[Envelope] = []

    def relay(sender: str, message: Envelope) -> list[Envelope]:
        if sender == "phone" and is_record(message):
            held.append(message)
            return []
        return [message]

    wire.relay = relay
    wire.meet()
    first, second = wire.phone, device("another")
    wire.come(second)
    wire.run()
    assert len(held) == 2
    wire.deliver("agent", held[0])
    assert wire.agent.stored.link
    assert not wire.agent.machine.ready
    wire.deliver("agent", held[1])
    wire.relay = honest
    wire.deliver("agent", held[0])
    wire.run()
    assert wire.agent.stored.current == second.stored.current
    assert works(wire, second)
    assert not works(wire, first)


def test_an_old_secret_is_gone_from_both_machines_once_confirmed() -> None:
    wire = Wire().meet()
    wire.connect("phone")
    wire.run()
    assert Ended(Failure.CONNECTION_ENDED) in wire.phone.events
    for side in (wire.phone, wire.agent):
        kept = [x for x in vars(side.machine).values() if x == LINK_SECRET]
        kept += [x for x in vars(side.machine).values() if isinstance(x, list) and LINK_SECRET in x]
        assert kept == []
