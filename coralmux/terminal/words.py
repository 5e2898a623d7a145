"""What happened, in sentences for people, and what of a stranger's text may reach a terminal.

Pure functions. Names, errors and answers come from the other end, and the relay's words
from anybody; a terminal obeys what it is sent, so none of it goes there unfiltered.
"""

from __future__ import annotations

import urllib.parse

from coralmux.client import connection as wire
from coralmux.client.channel import AnyEvent
from coralmux.client.errors import AgentError, PairingRefused, Stopped
from coralmux.e2e import events as e2e
from coralmux.e2e.errors import Failure
from coralmux.e2e.events import PeerInfo
from coralmux.e2e.legacy import UNREADABLE, UNSEALED
from coralmux.e2e.link import LinkError, PairingLink
from coralmux.protocol.close_codes import CloseCode
from coralmux.text import discreet, duration, one_line

DONE, FAILED, REFUSED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

# Ends of a session that are told otherwise, or that concern nobody.
_QUIET_ENDS = frozenset({Failure.CONNECTION_ENDED, Failure.SUPERSEDED})


def host(link: PairingLink) -> str:
    """Where the relay is, as people know it."""
    return urllib.parse.urlsplit(link.relay).netloc.rpartition("@")[2]


def exit_status(error: BaseException) -> int:
    """REFUSED where only another link helps, else FAILED."""
    if isinstance(error, LinkError | PairingRefused):
        return REFUSED
    if isinstance(error, Stopped) and error.code in (CloseCode.UNAUTHORIZED, CloseCode.REVOKED):
        return REFUSED
    return FAILED


def of_error(error: BaseException) -> str:
    """What went wrong, in one line, and what to do."""
    text = discreet(one_line(str(error)))
    if isinstance(error, AgentError):
        return f"The agent says: {text} ({one_line(error.code)})"
    if isinstance(error, Stopped):
        if error.code == CloseCode.UNAUTHORIZED:
            return f"{text} A new link comes from the agent's side."
        if error.code == CloseCode.REPLACED:
            return f"{text} Ask again to take it back."
    if isinstance(error, OSError):
        what = one_line(error.strerror or type(error).__name__)
        return f"{one_line(str(error.filename))}: {what}." if error.filename else f"{what}."
    return text


def of_agent(peer: PeerInfo, link: PairingLink) -> str:
    """Whom one talks to, and through whom."""
    name = one_line(peer.name) or "The agent"
    version = f" {one_line(peer.version)}" if peer.version else ""
    return f"{name}{version} answers, through the relay {host(link)}."


def of_proof(peer: PeerInfo) -> str:
    """Whether it is proven who answers, and what that means."""
    if peer.verified:
        return (
            "Verified: the other end holds this pairing's secret. "
            "The relay can neither read along nor take its place."
        )
    return (
        "Not verified: this pairing has no secret (version 1). Whoever runs the relay could "
        "read along or pose as the agent. Pair by a link with a secret to rule that out."
    )


class Reports:
    """Turns what happens to a connection into lines, and leaves out what would only repeat.

    `interactive`: there is somebody who can type /connect. Otherwise there is one question,
    and what ends the whole thing is told as the reason why it has no answer.
    """

    def __init__(self, link: PairingLink, *, interactive: bool) -> None:
        self._link = link
        self._interactive = interactive
        self._peer: PeerInfo | None = None
        self._cause = ""
        self._complained = False

    def of(self, event: AnyEvent) -> list[str]:
        """What to say about it, if anything."""
        match event:
            case wire.Connecting(attempt=1) if self._peer is None and not self._cause:
                return [f"Connecting to {host(self._link)} …"]
            case wire.Connected(greeting):
                self._cause = ""
                if not greeting.paired:
                    return ["The relay is there, the agent is not. Waiting for it …"]
            case wire.PeerStatus(online=False):
                return ["The agent has left the relay. It may come back by itself."]
            case wire.Disconnected():
                return [self._disconnected(event)]
            case wire.Stopped(final=final) if self._interactive or not final:
                return [self._stopped(event)]
            case e2e.Established(peer):
                return self._established(peer)
            case e2e.Ended(failure) if failure not in _QUIET_ENDS:
                return [f"The encrypted session ended. {failure.value} Making a new one …"]
            case e2e.Gap():
                return ["Something that the agent sent was lost on the way; it has been told."]
            case e2e.PairingRefused(failure) if self._interactive:
                return [failure.value]
            case e2e.Ignored(why) if why in (UNREADABLE, UNSEALED) and not self._complained:
                self._complained = True
                return [f"From the agent's side {why}. If answers are missing, pair by a new link."]
        return []

    def _disconnected(self, event: wire.Disconnected) -> str:
        again = f"Trying again in {duration(event.retry_in)} …"
        if event.cause == self._cause:
            return again
        self._cause = event.cause
        return f"{discreet(one_line(event.cause))} {again}"

    def _stopped(self, event: wire.Stopped) -> str:
        cause = discreet(one_line(event.cause))
        if not self._interactive:
            return cause
        if event.final:
            return f"{cause} Nothing can be sent here any more; /quit leaves."
        return f"{cause} Type /connect to take it back."

    def _established(self, peer: PeerInfo) -> list[str]:
        known, self._peer = self._peer, peer
        if known is not None and (known.name, known.verified) == (peer.name, peer.verified):
            return [f"Connected again, {'verified' if peer.verified else 'not verified'}."]
        return [of_agent(peer, self._link), of_proof(peer)]
