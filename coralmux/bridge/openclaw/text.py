"""The text of a run, as the gateway tells it, and what of it the phone still lacks.

The gateway sends pieces (`deltaText`) or all of the text so far (`message`), and may take
back what it had sent (`replace`). What a phone has, it keeps: a text that goes on from there
is continued, whatever white space it has, and one that does not is said again as a new
paragraph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of_message(message: object) -> str | None:
    """The text of a message: a string, or content of a string or of parts. None for none."""
    if isinstance(message, str):
        return message
    if not isinstance(message, Mapping):
        return None
    content = message.get("content", message.get("text"))
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [
        part["text"]
        for part in content
        if isinstance(part, Mapping)
        and part.get("type") in ("text", "input_text", "output_text")
        and isinstance(part.get("text"), str)
    ]
    return "\n\n".join(parts) if parts else None


class RunText:
    """What the gateway says (`whole`), and what the phone has of it (`said`).

    `spoke` tells whether the phone has anything of this run. `sure` is False from when
    events were lost until the whole text is known again; pieces say nothing until then.
    """

    def __init__(self, whole: str = "") -> None:
        self.whole = self.said = whole
        self.spoke = False
        self.sure = True

    def delta(self, payload: Mapping[str, Any]) -> str:
        """What to send to the phone after a `chat` event of the state delta."""
        whole = of_message(payload.get("message"))
        piece = payload.get("deltaText")
        if whole is None and isinstance(piece, str):
            if payload.get("replace") is True:
                whole = piece
            elif self.sure:
                whole = self.whole + piece
        return "" if whole is None else self.is_now(whole)

    def is_now(self, whole: str, *, final: bool = False) -> str:
        """What to send to the phone now that this is the whole text."""
        self.whole, self.sure = whole, True
        missing = self._missing(whole, final)
        if missing:
            self.spoke = True
        return missing

    def _missing(self, whole: str, final: bool) -> str:
        if whole.startswith(self.said):
            missing = whole[len(self.said) :]
            self.said = whole
            return missing
        # White space comes and goes while a text grows, and where its parts are joined.
        said, now = _solid(self.said), _solid(whole)
        if now.startswith(said):
            missing = whole[_behind(whole, len(said)) :]
            if not missing.strip():
                return ""
            self.said = whole
            return missing
        # The last part alone of what the phone has: nothing is lacking. Less than it has: the
        # rest was taken back, and what comes in its place is said when it is known.
        if said.endswith(now) or (not final and said.startswith(now)):
            return ""
        self.said = whole
        return f"\n\n{whole}"


def _solid(text: str) -> str:
    """A text without its white space."""
    return "".join(text.split())


def _behind(text: str, characters: int) -> int:
    """Where so many characters end, those of white space not counted."""
    end = 0
    while characters:
        characters -= not text[end].isspace()
        end += 1
    return end
