"""Files of version 2 under a hostile relay arrive whole, or the caller gets an error."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

import coralmux
from coralmux.e2e.events import Ended, Gap, Lost
from coralmux.protocol import Role
from tests.client.pair import Outcome, Pair, hurry, talking, whole
from tests.support import interference as how
from tests.support.hostile_relay import HostileRelay
from tests.support.waiting import eventually

# Some hundred sessions are made here and broken, each with its timeouts.
pytestmark = pytest.mark.slow

PHONE, AGENT = Role.PHONE, Role.AGENT

QUESTION = "what is in it?"

# Eight chunks: twice what may be on its way unacknowledged.
PICTURE = coralmux.Attachment.from_bytes(
    b"\x89PNG\r\n\x1a\n" + os.urandom(8 * 64 * 1024 - 8), name="reef.png"
)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    # What is lost at the end of a file shows only in that nothing comes any more.
    monkeypatch.setattr("coralmux.client.files.ACK_SECONDS", 0.5)


# What the sender of a file says, and what its receiver does. `n` is one of eight.
STEPS = [
    pytest.param("file.begin", 1, True, id="begin"),
    pytest.param("file.chunk", 1, True, id="first chunk"),
    pytest.param("file.chunk", 5, True, id="chunk"),
    pytest.param("file.chunk", 8, True, id="last chunk"),
    pytest.param("file.end", 1, True, id="end"),
    pytest.param("file.ack", 1, False, id="first ack"),
    pytest.param("file.ack", 5, False, id="ack"),
    pytest.param("file.ack", 9, False, id="last ack"),
    pytest.param("file.result", 1, False, id="result"),
]
step = pytest.mark.parametrize(("type", "nth", "by_sender"), STEPS)

ENDING: dict[str, Callable[..., how.On]] = {
    "flip": how.Flip,
    "cut": how.Truncate,
    "replay": how.Replay,
    "relabel": lambda *a, **o: how.Relabel(*a, to="file.cancel", **o),
    "renumber": how.Renumber,
    "instead": how.AnswerForOther,
}


async def send(relay: HostileRelay, both: Pair, sender: Role, tamper: how.On) -> Outcome:
    """Ask with a picture, or for one."""
    relay.tamper = tamper
    if sender is PHONE:
        return await both.ask(QUESTION, images=[PICTURE], timeout=5)
    both.sends = [PICTURE]
    try:
        return await both.ask(QUESTION, timeout=3)
    finally:
        both.sends = []


def arrived(both: Pair, sender: Role, outcome: Outcome) -> None:
    """The picture is there, whole, once."""
    assert outcome.error is None
    assert outcome.handed_out == whole(QUESTION)
    files = both.files if sender is PHONE else outcome.attachments
    assert [file.sha256 for file in files] == [PICTURE.sha256]
    assert [file.name for file in files] == ["reef.png"]


@pytest.mark.parametrize("sender", list(Role))
@step
async def test_a_lost_message_is_made_good(
    sender: Role, type: str, nth: int, by_sender: bool
) -> None:
    async with talking() as (relay, both):
        speaker = sender if by_sender else sender.peer
        tamper = how.Drop(type, sender=speaker, nth=nth)
        outcome = await send(relay, both, sender, tamper)
        arrived(both, sender, outcome)
        (struck,) = tamper.struck
        n = struck.payload["n"]
        await both.reported(speaker.peer, Gap(n, n))
        await both.reported(speaker, Lost((struck.id,)))


@pytest.mark.parametrize("kind", ENDING)
@step
async def test_a_file_of_the_phone_goes_on_in_the_next_session(
    type: str, nth: int, by_sender: bool, kind: str
) -> None:
    async with talking() as (relay, both):
        speaker = PHONE if by_sender else AGENT
        tamper = ENDING[kind](type, sender=speaker, nth=nth)
        outcome = await send(relay, both, PHONE, tamper)
        assert len(tamper.struck) == 1
        if outcome.error is None:
            arrived(both, PHONE, outcome)
        else:
            # The file was complete, and the question behind it in the session that ended.
            assert type in ("file.end", "file.result")
            assert isinstance(outcome.error, coralmux.ConnectionLost)
            assert outcome.error.ids == (outcome.id,)
        await eventually(lambda: both.failures(PHONE) and both.failures(AGENT))


@pytest.mark.parametrize("kind", ENDING)
@step
async def test_a_file_of_the_agent_is_whole_or_its_question_has_an_error(
    type: str, nth: int, by_sender: bool, kind: str
) -> None:
    async with talking() as (relay, both):
        speaker = AGENT if by_sender else PHONE
        tamper = ENDING[kind](type, sender=speaker, nth=nth)
        outcome = await send(relay, both, AGENT, tamper)
        assert len(tamper.struck) == 1
        if outcome.error is None:
            arrived(both, AGENT, outcome)
        else:
            assert isinstance(outcome.error, coralmux.ConnectionLost)
            assert outcome.error.ids == (outcome.id,)
            assert outcome.attachments == []
        await eventually(lambda: both.failures(PHONE) and both.failures(AGENT))


@pytest.mark.parametrize(
    ("kind", "type"),
    [
        (how.Drop, "file.chunk"),
        (how.Drop, "file.ack"),
        (how.Drop, "file.begin"),
        (how.Flip, "file.chunk"),
        (how.Flip, "file.begin"),
        (how.Flip, "file.ack"),
    ],
)
async def test_a_file_that_never_gets_through_ends_in_an_error(
    kind: Callable[..., how.On], type: str
) -> None:
    async with talking() as (relay, both):
        relay.tamper = kind(type, nth=None)
        outcome = await both.ask(QUESTION, images=[PICTURE])
        assert isinstance(outcome.error, coralmux.FileError)
        assert outcome.error.ids == (outcome.id,)
        assert both.heard == ["hello there"]
        relay.tamper = None
        await both.works("is anybody there?")  # what was said last shows with what follows
        for role in Role:
            await eventually(lambda role=role: both.of(role, (Gap, Lost, Ended)))


@pytest.mark.parametrize("after", [61_000, 86_400_000, 2**52])
async def test_a_forged_refusal_does_not_keep_a_file_waiting_for_hours(after: int) -> None:
    async with talking() as (relay, both):
        relay.tamper = how.ForgeError(
            "file.chunk", code="RATE_LIMITED", to=PHONE, more={"retry_after_ms": after}
        )
        outcome = await both.ask(QUESTION, images=[PICTURE])
        assert isinstance(outcome.error, coralmux.RelayRefused)
        assert outcome.error.ids
        assert both.heard == ["hello there"]


async def test_a_short_forged_refusal_only_costs_time() -> None:
    async with talking() as (relay, both):
        tamper = how.ForgeError(
            "file.chunk", code="RATE_LIMITED", to=PHONE, more={"retry_after_ms": 100}
        )
        outcome = await send(relay, both, PHONE, tamper)
        arrived(both, PHONE, outcome)
        assert both.hints(PHONE) == ["RATE_LIMITED"]
