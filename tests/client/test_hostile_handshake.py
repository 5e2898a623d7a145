"""What a hostile relay gains by meddling with the handshake of version 2: nothing.

It can keep both ends from getting a session, and whoever waits for one is told so. It
cannot get into the middle, and it cannot make either end speak version 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import coralmux
from coralmux.e2e.errors import Failure
from coralmux.e2e.events import Established, PairingRefused, Store
from coralmux.protocol import Role, encode
from tests.client.pair import SECRET, TOKEN, Pair, check_wire, hurry, pair
from tests.support import interference as how
from tests.support import middle
from tests.support.hostile_relay import Frame, HostileRelay, Outputs, Tamper
from tests.support.interference import sealed, step
from tests.support.waiting import eventually

# Some hundred sessions are made here and broken, each with its timeouts.
pytestmark = pytest.mark.slow

PHONE, AGENT = Role.PHONE, Role.AGENT
OTHER_SECRET = bytes(32)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@contextlib.asynccontextmanager
async def meeting(tamper: Tamper) -> AsyncIterator[tuple[HostileRelay, Pair]]:
    """A pair that meets at a hostile relay; once it is honest, they talk."""
    async with HostileRelay(token=TOKEN) as relay:
        relay.tamper = tamper
        async with pair(relay.url) as both:
            yield relay, both
            relay.tamper = None
            # A refusal that was forged stands until the next attempt.
            await eventually(lambda: both.phone.channel.ready)
            await both.works()
            both.check_truth()
            check_wire(relay, both)


class Third(how.On):
    """The first record of a session: step 3 of the phone, or step 4 of the agent."""

    def __init__(self, sender: Role, then: Callable[[Frame], Outputs]) -> None:
        super().__init__("key_exchange", sender=sender, where=sealed)
        self.then = then

    def strike(self, frame: Frame) -> Outputs:
        return self.then(frame)


def shake(number: int, kind: Callable[..., how.On], **options: Any) -> how.On:
    return kind("key_exchange", where=step(number), **options)


SILENT: dict[str, Callable[[], how.On]] = {
    "step 1 is dropped": lambda: shake(1, how.Drop),
    "step 2 is dropped": lambda: shake(2, how.Drop),
    "step 2 has a bit of the key flipped": lambda: shake(2, how.Flip, field="noise"),
    "step 2 has a bit of the tag flipped": lambda: shake(2, how.Flip, field="noise", byte=-1),
    "step 2 is cut": lambda: shake(2, how.Truncate, field="noise", by=40),
    "step 2 is empty": lambda: shake(2, how.Truncate, field="noise", by=10**6),
    "step 2 has the relay's key": lambda: middle.SwapEphemeral(2),
    "step 2 goes back to the agent": lambda: shake(2, how.AnswerForOther),
    "step 1 goes back to the phone": lambda: shake(1, how.AnswerForOther),
    "step 1 has no version": lambda: shake(1, how.StripVersion, nth=1),
    "step 2 has no version": lambda: shake(2, how.StripVersion, nth=1),
}


@pytest.mark.parametrize("case", SILENT)
async def test_a_handshake_that_comes_to_nothing_is_made_again(case: str) -> None:
    tamper = SILENT[case]()
    async with meeting(tamper) as (_, both):
        outcome = await both.ask("is anybody there?")
        assert outcome.error is None
        assert len(tamper.struck) == 1


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("kind", ["Drop", "StripVersion"])
async def test_who_gets_no_handshake_is_told_so(number: int, kind: str) -> None:
    async with meeting(shake(number, getattr(how, kind), nth=None)) as (relay, both):
        await eventually(lambda: relay.sent(PHONE, "key_exchange"))
        outcome = await both.ask("is anybody there?", timeout=0.1)
        assert type(outcome.error) is coralmux.PeerOffline
        assert outcome.error.ids == (outcome.id,)
        assert "has not exchanged keys" in str(outcome.error)
        with pytest.raises(coralmux.PairingRefused) as caught:
            await both.phone.ready(timeout=5)
        assert caught.value.failure is Failure.NO_ANSWER
        assert PairingRefused(Failure.NO_ANSWER) in both.events[PHONE]
        assert both.of(PHONE, Established) == both.of(AGENT, Established) == []
        assert (await both.ask("is anybody there?", timeout=0.3)).error is not None
        assert relay.sent(PHONE, "chat.send") == []
        assert both.heard == []


REFUSED: dict[str, Callable[[], how.On]] = {
    "step 1 has a bit of the key flipped": lambda: shake(1, how.Flip, field="noise"),
    "step 1 has a bit of the tag flipped": lambda: shake(1, how.Flip, field="noise", byte=-1),
    "step 1 is cut": lambda: shake(1, how.Truncate, field="noise"),
    "step 1 is empty": lambda: shake(1, how.Truncate, field="noise", by=10**6),
    "step 1 has the relay's key": lambda: middle.SwapEphemeral(1),
    "the agent's refusal is forged": lambda: shake(1, how.ForgeError, code="E2E_REFUSED", to=PHONE),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refused_secret_is_told_and_not_given_up(case: str) -> None:
    tamper = REFUSED[case]()
    async with meeting(tamper) as (_, both):
        await both.reported(PHONE, PairingRefused(Failure.SECRET_REFUSED))
        outcome = await both.ask("is anybody there?")
        assert type(outcome.error) is coralmux.PairingRefused
        assert outcome.error.failure is Failure.SECRET_REFUSED


@pytest.mark.parametrize("kind", ["Flip", "Truncate", "Drop", "Recount", "Renumber"])
async def test_a_step_3_that_comes_to_nothing_is_made_again(kind: str) -> None:
    tamper = getattr(how, kind)("key_exchange", sender=PHONE, where=sealed)
    async with meeting(tamper) as (_, both):
        outcome = await both.ask("is anybody there?")
        assert len(tamper.struck) == 1
        if outcome.error is not None:
            assert type(outcome.error) is coralmux.ConnectionLost
            assert outcome.error.ids == (outcome.id,)
        await eventually(lambda: both.failures(PHONE)[:1] == ["PEER_ENDED"])
        assert set(both.ignored(AGENT)) & {
            "a step 3 that does not open",
            "a record of another session",
        }


@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_a_step_that_is_replayed_gives_nobody_another_session(number: int) -> None:
    if number < 3:
        tamper = shake(number, how.Replay)
    else:
        sender = PHONE if number == 3 else AGENT
        tamper = how.Replay("key_exchange", sender=sender, where=sealed)
    async with meeting(tamper) as (_, both):
        await both.phone.ready()
        await eventually(lambda: len(tamper.struck) == 1)
        noticing = AGENT if number in (1, 3) else PHONE
        if number < 3:
            await both.works("is anybody there?")
            assert len(both.ignored(noticing)) == 1
            assert len(both.of(AGENT, Established)) == len(both.of(PHONE, Established)) == 1
        else:
            await eventually(lambda: both.failures(noticing)[:1] == ["REPLAYED"])
            await eventually(lambda: both.failures(noticing.peer)[:1] == ["PEER_ENDED"])


async def test_an_old_step_1_changes_nothing_for_a_session_that_runs() -> None:
    tamper = how.ReplayStep1("chat.stream", sender=AGENT, nth=2)
    async with meeting(tamper) as (_, both):
        await both.works("is anybody there?")
        await both.reported_why(AGENT, "a step 1 that came before")
        assert len(both.of(AGENT, Established)) == 1
        assert both.failures(AGENT) == both.failures(PHONE) == []


async def test_a_step_1_of_an_old_connection_changes_nothing_in_a_new_one() -> None:
    tamper = how.ReplayStep1("chat.stream", sender=AGENT, nth=8)
    async with meeting(tamper) as (relay, both):
        await both.works("who is there?")
        relay.drop_connection(PHONE)
        await eventually(lambda: len(both.of(AGENT, Established)) == 2)
        await both.works("and who now?")
        await both.reported_why(AGENT, "a step 1 that came before")
        assert len(both.of(AGENT, Established)) == 2


async def test_the_agent_is_asked_for_no_more_handshakes_than_the_limit_allows() -> None:
    async with meeting(lambda frame: [frame.data]) as (relay, both):
        await both.works("is anybody there?")
        before = len(relay.sent(PHONE, "key_exchange"))
        for n in range(50):
            relay.inject(PHONE, encode("key_exchange", {"v": 2, "step": 0}, ts=0, id=f"z{n}"))
        await both.ask("and still?")
        # One that was due, and one more behind it: not fifty.
        assert len(relay.sent(PHONE, "key_exchange")) - before <= 4


async def test_a_relay_that_guesses_the_secret_gets_no_session() -> None:
    tamper = middle.SwapNoise(TOKEN, OTHER_SECRET)
    async with meeting(tamper) as (_, both):
        with pytest.raises(coralmux.PairingRefused) as caught:
            await both.phone.ready(timeout=5)
        assert caught.value.failure is Failure.SECRET_REFUSED
        await both.reported(AGENT, PairingRefused(Failure.SECRET_REFUSED))
        assert tamper.refused >= 1
        assert tamper.read == []
        assert both.of(PHONE, Established) == both.of(AGENT, Established) == []


async def test_a_relay_that_answers_for_the_other_end_gets_no_session() -> None:
    tamper = middle.AnswerKeyExchange(TOKEN, OTHER_SECRET)
    async with meeting(tamper) as (_, both):
        with pytest.raises(coralmux.PairingRefused):
            await both.phone.ready(timeout=5)
        assert tamper.answered
        assert tamper.read == []
        assert both.of(PHONE, Established) == both.of(AGENT, Established) == []


async def test_keys_of_version_1_change_nothing() -> None:
    tamper = middle.SwapPublicKeys()
    async with meeting(tamper) as (_, both):
        await both.works("is anybody there?")
        assert tamper.read == []


async def test_nobody_takes_a_key_of_version_1_and_both_say_so() -> None:
    tamper = middle.Downgrade()
    async with meeting(tamper) as (relay, both):
        with pytest.raises(coralmux.PairingRefused) as caught:
            await both.phone.ready(timeout=5)
        assert caught.value.failure is Failure.NO_VERSION_2
        outcome = await both.ask("is anybody there?", timeout=0.3)
        assert type(outcome.error) is coralmux.PairingRefused
        await both.reported(AGENT, PairingRefused(Failure.NO_VERSION_1))
        assert tamper.read == []
        assert relay.sent(PHONE, "chat.send") == []


async def test_a_forged_key_of_version_1_beside_a_true_handshake_refuses_nothing() -> None:
    def with_key(frame: Frame) -> Outputs:
        if frame.type != "key_exchange" or frame.sender is not PHONE:
            return [frame.data]
        key = encode("key_exchange", {"pubkey": middle.Keys().public}, ts=0)
        return [(PHONE, key), frame.data]

    async with meeting(with_key) as (_, both):
        await both.works("is anybody there?")
        assert both.of(PHONE, PairingRefused) == []


async def test_a_key_of_version_1_in_the_middle_of_a_session_ends_nothing() -> None:
    async with meeting(lambda frame: [frame.data]) as (relay, both):
        await both.works("who is there?")
        key = middle.Keys().public
        for role in Role:
            relay.inject(role, encode("key_exchange", {"pubkey": key}, ts=0, id="v1"))
        await both.works("and who now?")
        assert both.failures(PHONE) == both.failures(AGENT) == []
        # The agent says so in the clear, to the stranger that it takes the sender for.
        await both.reported(AGENT, PairingRefused(Failure.NO_VERSION_1))
        await both.reported_why(PHONE, "a key exchange of another version")


async def test_whoever_has_the_unused_link_and_the_relay_reads_everything() -> None:
    """The limit of version 2: the secret is all that it has. PROTOCOL.md says so."""
    tamper = middle.SwapNoise(TOKEN, SECRET)
    async with HostileRelay(token=TOKEN) as relay:
        relay.tamper = tamper
        async with pair(relay.url, store=False) as both:
            await both.works("is anybody there?")
            assert any(b"is anybody there?" in item.plaintext for item in tamper.read)


async def test_whoever_gets_the_link_after_its_first_use_reads_nothing() -> None:
    async with meeting(lambda frame: [frame.data]) as (relay, both):
        await both.works("who is there?")
        assert both.of(AGENT, Store) == []  # carried out, and shown to nobody
        relay.tamper = tamper = middle.SwapNoise(TOKEN, SECRET)
        relay.drop_connection(PHONE)
        await both.reported(PHONE, PairingRefused(Failure.SECRET_REFUSED))
        await both.reported(AGENT, PairingRefused(Failure.SECRET_REFUSED))
        assert [item for item in tamper.read if item.type != "key_exchange"] == []


@pytest.mark.slow
async def test_restarts_wait_five_seconds_in_earnest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    async with meeting(how.Flip("chat.send")) as (_, both):
        await both.phone.ready()
        assert type((await both.ask("is anybody there?")).error) is coralmux.ConnectionLost
        assert not both.phone.channel.ready
        await eventually(lambda: both.phone.channel.ready, within=6)
