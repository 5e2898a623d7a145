"""What becomes of phones and their questions, told to the operator; never what they say."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any

from coralmux import Attachment, PairingLink, PeerInfo, RemoteAttachment, events
from coralmux.bridge.logs import Log
from coralmux.text import duration

# Ends of a session that are told otherwise, or that concern nobody.
_QUIET_ENDS = frozenset({"CONNECTION_ENDED", "SUPERSEDED"})

# One phone's strange messages are told so often, kind by kind.
_MOST_KINDS = 20


class Reports:
    """`name` finds the name of a pairing's phone in the config."""

    def __init__(self, log: Log, name: Callable[[PairingLink], str]) -> None:
        self._log = log
        self._name = name
        self._pairings: dict[str, _Pairing] = {}

    def event(self, link: PairingLink, event: object) -> None:
        """Something that became of a pairing."""
        name, relay = self._name(link), host(link)
        about = self._pairings.setdefault(link.token, _Pairing())
        match event:
            case events.Connecting(attempt=1) if not about.cause:
                self._tell("connecting", name, f"connecting to {relay} …", relay=relay)
            case events.Connected(greeting):
                about.cause = ""
                text = f"connected to {relay}."
                if not greeting.paired:
                    text += " The phone is not there yet."
                self._tell("connected", name, text, relay=relay, phone_there=greeting.paired)
            case events.PeerStatus(online=False):
                self._tell("phone_left", name, "the phone has left.")
            case events.Established(peer):
                self._established(name, peer)
            case events.Disconnected(cause=cause, retry_in=seconds) if cause != about.cause:
                about.cause = cause
                text = f"{cause} Trying again in {duration(seconds)}."
                self._tell("disconnected", name, text, warning=True, retry_in=round(seconds, 1))
            case events.Stopped(cause=cause, final=final, code=code):
                text = cause if final else f"{cause} Trying again later."
                self._tell("stopped", name, text, warning=True, code=code, final=final)
            case events.Ended(failure) if failure.name not in _QUIET_ENDS:
                text = f"the encrypted session ended. {failure.value}"
                self._tell("session_ended", name, text, warning=True, failure=failure.name)
            case events.PairingRefused(failure):
                self._tell("refused", name, failure.value, warning=True, failure=failure.name)
            case events.Gap():
                self._tell("gap", name, "something that the phone sent was lost; it was told.")
            case events.Ignored(why) if why not in about.ignored:
                if len(about.ignored) < _MOST_KINDS:
                    about.ignored.add(why)
                    self._tell("ignored", name, f"from the phone's side {why}; it was ignored.")

    def forget(self, link: PairingLink) -> None:
        self._pairings.pop(link.token, None)

    def asked(
        self,
        link: PairingLink,
        id: str,
        text: str,
        attachments: Iterable[Attachment | RemoteAttachment],
    ) -> Asked:
        """A question came; what is returned is told how it goes."""
        return Asked(self._log, self._name(link), id, len(text), len(list(attachments)))

    def _established(self, name: str, peer: PeerInfo) -> None:
        proof = "verified" if peer.verified else "not verified (a pairing by token alone)"
        self._tell(
            "phone_here",
            name,
            f"the phone is here, {proof}.",
            verified=peer.verified,
            protocol=peer.protocol,
        )

    def _tell(self, event: str, name: str, text: str, **fields: Any) -> None:
        self._log.tell(event, f"{name}: {text}", phone=name, **fields)


class Asked:
    """One question, from its coming to its end."""

    def __init__(self, log: Log, name: str, id: str, characters: int, files: int) -> None:
        self._log = log
        self._name = name
        self._id = id
        self._began = time.monotonic()
        self.characters = 0
        self.deltas = 0
        with_files = f", {_count(files, 'file')}" if files else ""
        log.tell(
            "asked",
            f"{name}: a question ({_count(characters, 'character')}{with_files}).",
            phone=name,
            id=id,
            characters=characters,
            files=files,
        )

    def said(self, text: str) -> None:
        self.characters += len(text)
        self.deltas += 1

    def ended(self, how: str, error: str = "") -> None:
        """`how`: "answered", "broken_off" or "failed"; `error` is what may be logged of why."""
        seconds = time.monotonic() - self._began
        why = f" ({error.rstrip('.')})" if error else ""
        self._log.tell(
            how,
            f"{self._name}: {how.replace('_', ' ')}{why} after {seconds:.1f} s, "
            f"{_count(self.characters, 'character')} in {_count(self.deltas, 'delta')}.",
            warning=how == "failed",
            phone=self._name,
            id=self._id,
            seconds=round(seconds, 2),
            characters=self.characters,
            deltas=self.deltas,
            error=error,
        )


class _Pairing:
    """What was told already."""

    def __init__(self) -> None:
        self.cause = ""
        self.ignored: set[str] = set()


def host(link: PairingLink) -> str:
    """Where the relay is, as people know it."""
    return urllib.parse.urlsplit(link.relay).netloc.rpartition("@")[2]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
