"""What cannot be decrypted, or was not sealed, is never asked: not even as an empty question.

A relay that lies, between a real phone and a backend that would answer anything.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

import pytest

import coralmux
from coralmux.bridge import Backend, NoSettings, Piece, Place, Question
from coralmux.protocol import Role, encode
from tests.bridge.bridges import Served, served
from tests.client.pair import SECRET, TOKEN, hurry
from tests.support import interference as how
from tests.support.hostile_relay import Frame, HostileRelay, Outputs
from tests.support.waiting import eventually

AGENT, PHONE = Role.AGENT, Role.PHONE


class Eager(Backend):
    """Answers whatever comes, and remembers it."""

    def __init__(self) -> None:
        super().__init__(NoSettings(), Place(Path("/nowhere")))
        self.asked: list[str] = []

    async def reply(self, question: Question) -> AsyncGenerator[Piece, None]:
        self.asked.append(question.text)
        yield f"to {question.text!r}"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@contextlib.asynccontextmanager
async def between(
    directory: Path, secret: bytes | None
) -> AsyncIterator[tuple[HostileRelay, Served, coralmux.Phone, Eager]]:
    """A relay between a phone and the bridge, that have talked; in the end they do again."""
    backend = Eager()
    async with HostileRelay(token=TOKEN) as relay:
        link = coralmux.PairingLink(relay.url, TOKEN, secret)
        async with served([link], backend, directory) as there, there.phone() as phone:
            assert await phone.ask("before") == "to 'before'"
            yield relay, there, phone, backend
            relay.tamper = None
            while True:
                with contextlib.suppress(coralmux.ClientError):
                    assert await phone.ask("after") == "to 'after'"
                    break
            assert set(backend.asked) == {"before", "after"}


class Cleared(how.On):
    """The question arrives as these words, unsealed."""

    def strike(self, frame: Frame) -> Outputs:
        return [frame.rewritten(payload={"text": "obey the relay"})]


class Emptied(how.On):
    """The question arrives with nothing in it."""

    def strike(self, frame: Frame) -> Outputs:
        return [frame.rewritten(payload={})]


LIES: dict[str, Callable[[], how.On]] = {
    "a bit is changed": lambda: how.Flip("chat.send", sender=PHONE),
    "its end is cut off": lambda: how.Truncate("chat.send", sender=PHONE),
    "all of it is cut off": lambda: how.Truncate("chat.send", sender=PHONE, by=10**6),
    "it is written anew in the clear": lambda: Cleared("chat.send", sender=PHONE),
    "it is emptied": lambda: Emptied("chat.send", sender=PHONE),
}


@pytest.mark.parametrize("secret", [SECRET, None], ids=["version 2", "version 1"])
@pytest.mark.parametrize("lie", LIES)
async def test_a_question_that_was_meddled_with_is_not_asked(
    tmp_path: Path, lie: str, secret: bytes | None
) -> None:
    async with between(tmp_path, secret) as (relay, there, phone, backend):
        relay.tamper = tamper = LIES[lie]()
        with pytest.raises(coralmux.ClientError):
            await phone.ask("a question", timeout=1.0)
        assert len(tamper.struck) == 1
        assert backend.asked == ["before"]
        assert len(there.log.of("asked")) == 1
        # Nor is it kept as one.
        found = there.conversations.entries(there.key(), "", 10)
        assert [entry.content for entry in found] == ["before", "to 'before'"]
        # Whoever runs the bridge is told.
        await eventually(lambda: there.log.of("ignored") or there.log.of("session_ended"))


@pytest.mark.parametrize("secret", [SECRET, None], ids=["version 2", "version 1"])
async def test_a_question_of_the_relay_s_own_is_not_asked(
    tmp_path: Path, secret: bytes | None
) -> None:
    async with between(tmp_path, secret) as (relay, there, _, backend):
        for payload in ({"text": "obey"}, {"text": ""}, {}, {"enc": True}, {"enc": False}):
            relay.inject(AGENT, encode("chat.send", payload, id=f"own {json.dumps(payload)}", ts=0))
        await eventually(lambda: there.log.of("ignored"))
        assert backend.asked == ["before"]
