"""What the operator is told: once each, with names, and never what was said."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import coralmux
from coralmux import PeerInfo, events
from coralmux.bridge.logs import Log
from coralmux.bridge.reports import Reports
from tests.bridge.bridges import Heard

TOKEN = "oc_pair_0123456789abcdef0123456789abcdef"
LINK = coralmux.PairingLink.new("wss://relay.example.com", TOKEN)
OTHER = coralmux.PairingLink.new("wss://relay.example.com", "another-token")
GREETING: Any = SimpleNamespace(paired=False)
AWAY = events.Disconnected(1006, "", (), 4.2, "The relay cannot be reached: it refuses.")


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def reports(heard: Heard) -> Reports:
    return Reports(heard, lambda link: "My phone" if link.token == TOKEN else "Hers")


def test_a_life_reads_like_one(heard: Heard, reports: Reports) -> None:
    peer = PeerInfo("Phone", "1", (), 2, True)
    for event in (
        events.Connecting(1),
        events.Connected(GREETING),
        events.Established(peer),
        events.PeerStatus(online=False),
        events.Stopped(4003, "This pairing was revoked."),
    ):
        reports.event(LINK, event)
    assert heard.lines == [
        "My phone: connecting to relay.example.com …",
        "My phone: connected to relay.example.com. The phone is not there yet.",
        "My phone: the phone is here, verified.",
        "My phone: the phone has left.",
        "My phone: This pairing was revoked.",
    ]
    assert heard.of("connected") == [
        {"phone": "My phone", "relay": "relay.example.com", "phone_there": False}
    ]


def test_a_pairing_by_token_alone_is_called_not_verified(heard: Heard, reports: Reports) -> None:
    reports.event(LINK, events.Established(PeerInfo("Phone", "", (), 1, False)))
    assert "not verified (a pairing by token alone)" in heard.lines[0]


def test_a_reason_to_be_away_is_told_once_until_it_is_over(heard: Heard, reports: Reports) -> None:
    for event in (AWAY, events.Connecting(2), AWAY, events.Connecting(3), AWAY):
        reports.event(LINK, event)
    once = ["My phone: The relay cannot be reached: it refuses. Trying again in 4 s."]
    assert heard.lines == once
    reports.event(OTHER, AWAY)
    assert len(heard.lines) == 2  # another phone's affair
    reports.event(LINK, events.Connected(GREETING))
    reports.event(LINK, AWAY)
    assert heard.lines[-1:] == once


def test_strange_messages_are_told_kind_by_kind_and_not_without_end(
    heard: Heard, reports: Reports
) -> None:
    for n in range(3000):
        reports.event(LINK, events.Ignored("a message that was not sealed", f"{n}"))
        reports.event(LINK, events.Ignored(f"a kind of its own {n}"))
    assert heard.lines[0] == (
        "My phone: from the phone's side a message that was not sealed; it was ignored."
    )
    assert len(heard.lines) == 20


def test_a_question_is_told_by_its_size_and_its_end(heard: Heard, reports: Reports) -> None:
    asked = reports.asked(LINK, "id1", "what nobody may read", [])
    asked.said("half ")
    asked.said("answer")
    asked.ended("failed", "ValueError")
    assert heard.lines[0] == "My phone: a question (20 characters)."
    assert heard.lines[1].startswith("My phone: failed (ValueError) after 0.")
    assert heard.lines[1].endswith(" s, 11 characters in 2 deltas.")
    (failed,) = heard.of("failed")
    assert (failed["id"], failed["error"], failed["characters"]) == ("id1", "ValueError", 11)
    assert "nobody" not in repr(heard.events)


# Where it goes.


def logged(capsys: pytest.CaptureFixture[str], use: Callable[[Log], None], **options: bool) -> str:
    log = Log(**options)
    with log.library():
        use(log)
    return capsys.readouterr().err


@pytest.mark.parametrize("as_json", [False, True])
def test_tokens_secrets_and_controls_never_get_into_it(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    def use(log: Log) -> None:
        log.tell("x", f"a \x1b[31mlink\n{LINK.web()}", field=f"{TOKEN}\x07")
        logging.getLogger("coralmux").warning("about %s", LINK.uri())

    output = logged(capsys, use, as_json=as_json)
    assert output.count("\n") == 2
    assert TOKEN not in output
    assert LINK.web().partition("psk=")[2] not in output
    assert not set(output) & {"\x1b", "\x07"}
    assert "token=…" in output


def test_quiet_leaves_warnings_to_people_and_everything_to_programs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def use(log: Log) -> None:
        log.tell("a", "said.")
        log.tell("b", "warned.", warning=True)

    assert logged(capsys, use, quiet=True)[8:] == " warned.\n"
    lines = [
        json.loads(line) for line in logged(capsys, use, quiet=True, as_json=True).split("\n")[:-1]
    ]
    assert [(line["event"], line["level"]) for line in lines] == [("a", "info"), ("b", "warning")]


@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_is_logged_without_its_text_and_others_logs_by_place_alone(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    def use(log: Log) -> None:
        try:
            raise ValueError("what nobody may read")
        except ValueError:
            logging.getLogger("coralmux").exception("a handler failed")
            logging.getLogger("a.framework").exception("with what nobody may read")
        logging.getLogger("a.framework").info("no warning")

    output = logged(capsys, use, as_json=as_json)
    assert "a handler failed (ValueError)" in output
    assert "a.framework logged a warning (test_reports, line " in output
    assert "nobody" not in output
    assert "Traceback" not in output
    assert "no warning" not in output


def test_what_is_told_by_an_event_is_not_told_to_people_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def use(log: Log) -> None:
        ours = logging.getLogger("coralmux")
        ours.warning("%s: %s (code %d); again in %.1f s", "wss://relay.example.com", "why", 1, 1.0)
        ours.warning("%s: stopped: %s", "wss://relay.example.com", "why")
        ours.error("the pairing at %s ended: %s", "wss://relay.example.com", "why")

    assert logged(capsys, use) == ""
    assert logged(capsys, use, as_json=True).count('"event": "log"') == 3


def test_who_reads_along_may_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    for as_json in (False, True):
        Log(as_json=as_json).tell("x", "nobody hears this")


async def test_a_task_s_unheard_failure_is_logged_without_its_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = Log()

    async def fail() -> None:
        raise ValueError("what nobody may read")

    with log.library():
        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        del task
    output = capsys.readouterr().err
    assert "asyncio logged a warning" in output
    assert "nobody" not in output
