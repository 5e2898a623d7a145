"""One question: the answer goes to standard output, and nothing else does."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coralmux.client.answer import Answer
from coralmux.client.attachments import Attachment
from coralmux.client.channel import AnyEvent
from coralmux.client.errors import ClientError
from coralmux.client.phone import SILENCE_SECONDS, Phone
from coralmux.client.store import Store
from coralmux.e2e.link import PairingLink
from coralmux.terminal.interrupts import interrupts
from coralmux.terminal.output import Notes, Output, Tools, show_warnings
from coralmux.terminal.pictures import Upload, save_all, told
from coralmux.terminal.reach import Reach
from coralmux.terminal.shown import JsonLines, Shown, Text
from coralmux.terminal.words import (
    DONE,
    FAILED,
    INTERRUPTED,
    TERMINATED,
    Reports,
    exit_status,
    of_error,
)

# Seconds for the agent to say that it has stopped.
CANCEL_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask. `timeout`: the longest silence in seconds."""

    text: str = field(repr=False)
    pictures: Sequence[Attachment] = ()
    agent_id: str = ""
    timeout: float = SILENCE_SECONDS
    save: str = ""
    as_json: bool = False
    quiet: bool = False


async def ask(link: PairingLink, store: Store, question: Question) -> int:
    """Ask, print the answer as it comes, and leave; the exit status."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("ask() has to run in a task")
    asking = _Asking(link, question, task)
    with interrupts(asking.interrupt, asking.terminate):
        try:
            return await asking.run(store)
        except asyncio.CancelledError:
            if asking.status == DONE:
                raise
            task.uncancel()
            await asking.break_off()
            return asking.status


class _Asking:
    def __init__(self, link: PairingLink, question: Question, task: asyncio.Task[Any]) -> None:
        self.status = DONE
        self._link = link
        self._question = question
        self._task = task
        output = Output()
        self._notes = Notes(lambda: sys.stderr, output, quiet=question.quiet)
        show_warnings(self._notes)
        tools = Tools(self._notes)
        self._shown: Shown = JsonLines(output) if question.as_json else Text(output, tools)
        self._upload = Upload(self._notes, question.pictures)
        self._reports = Reports(link, interactive=False)
        self._reach = Reach()
        self._phone: Phone | None = None
        self._answer: Answer | None = None
        self._ended = False

    async def run(self, store: Store) -> int:
        """The exit status. Raises CancelledError where an interrupt left nothing to wait for."""
        try:
            async with Phone.from_link(self._link, store=store, on_event=self._event) as phone:
                self._phone = phone
                await self._converse(phone)
        except BrokenPipeError:
            return FAILED  # whoever read the answer has enough of it, as `head` has
        except (ClientError, OSError) as error:
            self._upload.close()
            with contextlib.suppress(OSError):
                await self._shown.failed(error)
            self._notes.insist(f"coralmux-phone: {of_error(error)}")
            return self.status or exit_status(error)
        return self.status

    def interrupt(self) -> None:
        """Ctrl-C: cancel the answer; the second time, do not wait for the agent either."""
        first = self.status == DONE
        self.status = INTERRUPTED
        if first and self._cancel():
            asyncio.get_running_loop().call_later(CANCEL_SECONDS, self._give_up)
        else:
            self._task.cancel()

    def terminate(self) -> None:
        self.status = TERMINATED
        self._task.cancel()

    def _give_up(self) -> None:
        if not self._ended:
            self._task.cancel()

    def _cancel(self) -> bool:
        """Whether the agent has been asked to stop, and will say when it has."""
        if self._answer is None or self._phone is None:
            return False
        self._answer.cancel()
        peer = self._phone.agent
        # Version 1 knows no cancelling.
        return self._answer.cancelled and peer is not None and peer.protocol >= 2

    async def _converse(self, phone: Phone) -> None:
        question = self._question
        await self._reach.wait(phone, question.timeout)
        self._answer = answer = phone.ask(
            question.text,
            images=question.pictures,
            agent_id=question.agent_id,
            timeout=question.timeout,
            on_tool=self._shown.tool,
            on_progress=self._upload.show,
        )
        async with answer:
            async for delta in answer:
                self._upload.close()
                await self._shown.delta(delta)
        self._ended = True
        saved = {}
        if question.save:
            saved = save_all(answer.attachments, question.save, self._notes)
        await self._shown.done(answer, saved)
        if answer.attachments and not question.save:
            keep = "Ask with --save DIR to keep files."
            self._notes.say(f"{told(answer.attachments)} {keep}")
        if answer.cancelled:
            self._notes.say("Cancelled.")

    async def break_off(self) -> None:
        """It was interrupted, and the agent has not said that it stopped."""
        self._upload.close()
        with contextlib.suppress(OSError):
            await self._shown.broken_off()
        self._notes.say("Cancelled.")

    def _event(self, event: AnyEvent) -> None:
        self._reach.note(event)
        for line in self._reports.of(event):
            self._notes.say(line)
