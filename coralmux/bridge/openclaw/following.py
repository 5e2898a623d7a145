"""One answer, made of the events of a session: which run gives it, and what it says.

A question becomes a run of its own, unless the session is busy: then the gateway hands it to
the run that is under way, and ends the new one without a word. What the busy run says from
there on is the answer to both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from coralmux import ToolStatus
from coralmux.bridge.openclaw.frames import part
from coralmux.bridge.openclaw.text import RunText, of_message
from coralmux.bridge.openclaw.trouble import ASK_AGAIN, Trouble, words
from coralmux.text import one_line

# Characters of a tool's name that a phone is shown.
_TOOL_CHARACTERS = 60

# Seconds between two reports that the same tool is still at work.
_TOOL_PAUSE = 5.0

_TOOL_STATES = {"start": "running", "update": "running", "result": "done"}

_ERRORS = {
    "context_length": (
        "The conversation is longer than the agent's model takes.",
        "Send /new to begin another one.",
    ),
    "rate_limit": ("The agent's model takes no more questions just now.", "Try again later."),
    "refusal": ("The agent's model refuses to answer this.", "Ask in another way."),
    "timeout": ("The agent's model did not answer in time.", ASK_AGAIN),
}


class Runs:
    """The runs of a session that are under way, each with its text so far."""

    def __init__(self, texts: Mapping[str, RunText] | None = None) -> None:
        self._texts = dict(texts or {})

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, run: str) -> bool:
        return run in self._texts

    def copy(self) -> Runs:
        return Runs({run: RunText(text.whole) for run, text in self._texts.items()})

    def take(self, payload: Mapping[str, Any]) -> None:
        """A `chat` event."""
        run, state = str(payload.get("runId")), payload.get("state")
        if state in ("status", "delta"):
            self._texts.setdefault(run, RunText()).delta(payload)
        elif state in ("final", "aborted", "error"):
            self._texts.pop(run, None)

    def text(self, run: str) -> str:
        found = self._texts.get(run)
        return found.whole if found else ""

    def newest(self, *, but: str) -> str:
        """The run that was begun last; "" where there is none but this one."""
        return next((run for run in reversed(self._texts) if run != but), "")


class Following:
    """Follows `run`. `over` says that it has ended well, `lacking` that the phone does not
    have its text for all that, `spoke` whether the phone has got any text, and `heard` whether
    anything at all has come of the run."""

    def __init__(self, run: str, runs: Runs) -> None:
        self.run = run
        self.runs = runs
        self.text = RunText()
        self.usage: dict[str, Any] = {}
        self.over = False
        self.spoke = False
        self.heard = False
        self._tools: dict[str, tuple[str, float]] = {}

    def turn_to(self, run: str, text: str) -> None:
        """Follow another run from here on; `text` is what it had said before."""
        self.run = run
        self.text = RunText(text)
        self.over = False

    @property
    def lacking(self) -> bool:
        return self.over and not (self.spoke and self.text.sure)

    def take(self, event: str, payload: Mapping[str, Any]) -> Iterator[str | ToolStatus]:
        """What an event brings for the phone. Raises Trouble behind it, where the run failed."""
        if event == "chat":
            self.runs.take(payload)
        if payload.get("runId") != self.run or self.over:
            return
        self.heard = True
        if event == "chat":
            yield from self._chat(payload)
        elif event == "agent" and payload.get("stream") == "tool":
            yield from self._tool(part(payload, "data"))

    def lost(self) -> None:
        """Events were lost: the end of a run may have been among them."""
        self.text.sure = False
        self.runs = Runs()

    def is_now(self, whole: str, *, final: bool = False) -> Iterator[str]:
        """The whole text is this."""
        yield from self._said(self.text.is_now(whole, final=final))

    def _said(self, piece: str) -> Iterator[str]:
        if piece:
            self.spoke = True
            yield piece

    def _chat(self, payload: Mapping[str, Any]) -> Iterator[str]:
        state = payload.get("state")
        if state == "delta":
            yield from self._said(self.text.delta(payload))
        if state not in ("final", "aborted", "error"):
            return
        self.usage.update(part(payload, "usage"))
        whole = of_message(payload.get("message"))
        if whole and whole.strip():
            yield from self.is_now(whole, final=state == "final")
        if state != "final":
            raise _failure(state, payload)
        self.over = True

    def _tool(self, data: Mapping[str, Any]) -> Iterator[ToolStatus]:
        state = _TOOL_STATES.get(str(data.get("phase")))
        if state is None:
            return
        if state == "done" and data.get("isError") is True:
            state = "error"
        name = one_line(str(data.get("name") or ""))[:_TOOL_CHARACTERS] or "tool"
        call, now = str(data.get("toolCallId") or name), time.monotonic()
        before, at = self._tools.get(call, ("", 0.0))
        if state == before and now - at < _TOOL_PAUSE:
            return
        self._tools[call] = (state, now)
        yield ToolStatus(name, state)  # type: ignore[arg-type]


def _failure(state: object, payload: Mapping[str, Any]) -> Trouble:
    said = words(payload.get("errorMessage")).rstrip(".")
    if state == "aborted":
        return Trouble("The agent was stopped before it was done.", ASK_AGAIN)
    what, remedy = _ERRORS.get(
        str(payload.get("errorKind")), ("The agent could not answer.", ASK_AGAIN)
    )
    return Trouble(what, f"It says: “{said}”. {remedy}" if said else remedy)
