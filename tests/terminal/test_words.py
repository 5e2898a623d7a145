"""Sentences about what happened, and what of others' texts stands in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralmux.client import connection as wire
from coralmux.client.errors import (
    AgentError,
    ConnectionLost,
    NotConnected,
    PairingRefused,
    PeerOffline,
    Stopped,
)
from coralmux.e2e import events as e2e
from coralmux.e2e.errors import Failure
from coralmux.e2e.events import PeerInfo
from coralmux.e2e.link import LinkError, PairingLink
from coralmux.terminal.words import (
    Reports,
    exit_status,
    of_error,
)
from coralmux.text import discreet, one_line, without_controls

TOKEN = "oc_pair_0123456789abcdef0123456789abcdef"
LINK = PairingLink.new("wss://relay.example.com/ws", TOKEN)
PEER = PeerInfo("Agent", "1.0", (), 2, verified=True)


@given(st.text(st.characters()))
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    kept = without_controls(text)
    assert all(c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160) for c in kept)
    assert [c for c in text if c.isprintable()] == [c for c in kept if c.isprintable()]


@given(st.text(st.characters()))
def test_a_text_of_others_stays_on_its_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert len(one_line(text)) <= 2000


@pytest.mark.parametrize("link", [LINK.web(), LINK.uri(), LINK.with_secret(None).field_uri()])
def test_neither_token_nor_secret_of_a_link_is_repeated(link: str) -> None:
    secret = LINK.web().rpartition("=")[2]
    for text in (link, f"'{link}'", f"({link})", f"x {TOKEN}.", f"psk={secret}"):
        shown = discreet(f"Cannot take {text} here.")
        assert TOKEN[8:] not in shown
        assert secret not in shown
        assert shown.startswith("Cannot take ")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PairingRefused("no", failure=Failure.SECRET_REFUSED), 2),
        (LinkError("psk", "no"), 2),
        (Stopped("no", code=4001), 2),
        (Stopped("no", code=4003), 2),
        (Stopped("no", code=4002), 1),
        (AgentError("no", code="BACKEND_ERROR"), 1),
        (PeerOffline("no"), 1),
        (NotConnected("no"), 1),
        (ConnectionLost("no"), 1),
    ],
)
def test_only_what_another_link_would_help_is_a_refusal(error: Exception, status: int) -> None:
    assert exit_status(error) == status


def test_an_error_of_a_file_names_it() -> None:
    error = FileNotFoundError(2, "No such file or directory", "a\x1b[2Jb.png")
    assert of_error(error) == "a [2Jb.png: No such file or directory."


def test_the_same_trouble_is_told_once_and_each_pause_is() -> None:
    reports = Reports(LINK, interactive=True)
    lost = [wire.Disconnected(1006, "", (), seconds, "It broke.") for seconds in (1.0, 7.0)]
    assert reports.of(lost[0]) == ["It broke. Trying again in 1 s …"]
    assert reports.of(lost[1]) == ["Trying again in 7 s …"]
    assert reports.of(wire.Connected(wire.Greeting(paired=True))) == []
    assert reports.of(lost[0]) == ["It broke. Trying again in 1 s …"]


def test_who_answers_is_told_again_only_if_it_is_somebody_else() -> None:
    reports = Reports(LINK, interactive=True)
    first = reports.of(e2e.Established(PEER))
    assert first[0] == "Agent 1.0 answers, through the relay relay.example.com."
    assert first[1].startswith("Verified: ")
    assert reports.of(e2e.Established(PEER)) == ["Connected again, verified."]
    other = PeerInfo("", "", (), 1, verified=False)
    assert reports.of(e2e.Established(other))[1].startswith("Not verified: ")


@pytest.mark.parametrize("failure", [Failure.TAMPERED, Failure.REPLAYED, Failure.PEER_ENDED])
def test_a_session_that_somebody_meddled_with_is_told(failure: Failure) -> None:
    (line,) = Reports(LINK, interactive=True).of(e2e.Ended(failure))
    assert failure.value in line


def test_whom_only_the_relay_quotes_is_not_repeated_with_a_token() -> None:
    cause = f"Gone. The relay says: “token={TOKEN}\x1b[2J”"
    (line,) = Reports(LINK, interactive=True).of(wire.Stopped(4003, cause))
    assert TOKEN not in line
    assert "\x1b" not in line
