"""A conversation: questions typed at a prompt or read by lines, answers as they come."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence

from coralmux.client.answer import Answer
from coralmux.client.attachments import Attachment, RemoteAttachment
from coralmux.client.channel import AnyEvent
from coralmux.client.errors import ClientError, PairingRefused, Stopped
from coralmux.client.messages import GroupMessage
from coralmux.client.phone import Phone
from coralmux.client.store import Store
from coralmux.e2e.link import PairingLink
from coralmux.protocol.limits import MAX_MESSAGE_BYTES
from coralmux.terminal import slash
from coralmux.terminal.ask import CANCEL_SECONDS
from coralmux.terminal.interrupts import interrupts, keys_unseen
from coralmux.terminal.output import Notes, Output, Tools, show_warnings
from coralmux.terminal.pictures import Upload, save_all, told
from coralmux.terminal.prompt import Leave, Prompt
from coralmux.terminal.reach import Reach
from coralmux.terminal.shown import Text
from coralmux.terminal.standard_input import StandardInput
from coralmux.terminal.words import (
    DONE,
    FAILED,
    REFUSED,
    TERMINATED,
    Reports,
    exit_status,
    of_error,
)
from coralmux.text import one_line


async def chat(
    link: PairingLink,
    store: Store,
    stdin: StandardInput,
    *,
    pictures: Sequence[Attachment] = (),
    agent_id: str = "",
    save: str = "",
    quiet: bool = False,
) -> int:
    """Talk until the person leaves; the exit status. Raises LinkError, StoreError."""
    chatting = Chat(link, stdin, quiet=quiet)
    chatting.pictures, chatting.agent_id, chatting.save = list(pictures), agent_id, save
    with interrupts(chatting.interrupt, chatting.terminate):
        return await chatting.run(store)


class Chat:
    """What the commands of `slash` work on."""

    def __init__(self, link: PairingLink, stdin: StandardInput, *, quiet: bool) -> None:
        self.link = link
        self.phone: Phone
        self.pictures: list[Attachment] = []
        self.received: Sequence[Attachment | RemoteAttachment] = ()
        self.agent_id = ""
        self.save = ""
        self.output = Output()
        self.interactive = stdin.is_terminal and self.output.is_terminal
        self._stdin = stdin
        # At a prompt everything is for the person who sits there; else only answers go
        # where somebody may be collecting them.
        self.notes = Notes(
            (lambda: sys.stdout) if self.interactive else (lambda: sys.stderr),
            self.output,
            quiet=quiet,
        )
        show_warnings(self.notes)
        self._tools = Tools(self.notes)
        self._reports = Reports(link, interactive=self.interactive)
        self._reach = Reach()
        self._task: asyncio.Task[None] | None = None
        self._turn: asyncio.Task[None] | None = None
        self._answer: Answer | None = None
        self._interrupted = False
        self._status = DONE

    async def run(self, store: Store) -> int:
        self._task = asyncio.current_task()
        try:
            async with Phone.from_link(
                self.link,
                store=store,
                on_event=self._event,
                on_group_message=self._group_message,
            ) as self.phone:
                await self._reach.settled(self.phone)
                if self._can_begin():
                    await (self._prompted() if self.interactive else self._by_lines())
        except asyncio.CancelledError:
            if not self._interrupted or self._task is None:
                raise
            self._task.uncancel()
        return self._status or (REFUSED if self._is_refused else DONE)

    @property
    def _is_refused(self) -> bool:
        failure = self.phone.channel.failure
        return failure is not None and exit_status(failure) == REFUSED

    def _can_begin(self) -> bool:
        """Raises what ended the phone without a word of the relay or the agent."""
        failure = self.phone.channel.failure
        if failure is not None and not isinstance(failure, Stopped | PairingRefused):
            raise failure
        if self._is_refused and failure is not None and not self.interactive:
            self._complain(failure)  # others have read it as it happened
        return not self._is_refused

    # What is said.

    async def _prompted(self) -> None:
        prompt = Prompt()
        self.notes.say("Type a question, or /help. Ctrl-C cancels an answer, and leaves here.")
        with contextlib.suppress(Leave), keys_unseen():
            while True:
                await self._take(await prompt.line())

    async def _by_lines(self) -> None:
        with contextlib.suppress(Leave):
            async for data in self._stdin.lines(MAX_MESSAGE_BYTES):
                await self._take(data.decode("utf-8", "replace"))
                if self._status == REFUSED:
                    return

    async def _take(self, line: str) -> None:
        """Answer a line, or carry it out. Raises Leave."""
        # Bytes that are no UTF-8 come from a prompt as halves of characters.
        text = line.strip().encode("utf-8", "replace").decode()
        if not text:
            return
        self._turn = turn = asyncio.create_task(self._reply(text))
        try:
            await asyncio.wait([turn])
        except asyncio.CancelledError:
            turn.cancel()
            await asyncio.wait([turn])
            raise
        finally:
            self._turn = self._answer = None
        if not turn.cancelled():
            turn.result()
            return
        await self._cut()
        self.notes.say("Cancelled.")

    async def _reply(self, text: str) -> None:
        try:
            if slash.is_command(text):
                await slash.run(self, text)
            else:
                await self._ask(slash.unescaped(text))
        except (ClientError, OSError) as error:
            await self._cut()
            self._complain(error)
            if self.pictures:
                self.notes.say("The files stay for the next question; /image alone drops them.")
            self._status = REFUSED if exit_status(error) == REFUSED else FAILED
            if self.interactive:
                self._status = DONE

    async def _ask(self, text: str) -> None:
        if not self.phone.channel.ready and self.phone.channel.failure is None:
            self.notes.say("The question goes out when the agent is there. Ctrl-C takes it back.")
        await self.phone.ready(None)
        shown = Text(self.output, self._tools)
        upload = Upload(self.notes, self.pictures)
        self._answer = answer = self.phone.ask(
            text,
            images=self.pictures,
            agent_id=self.agent_id,
            on_tool=shown.tool,
            on_progress=upload.show,
        )
        try:
            async with answer:
                async for delta in answer:
                    upload.close()
                    self.pictures = []  # have arrived, whatever comes of the answer
                    await shown.delta(delta)
        finally:
            upload.close()
        await shown.done(answer, {})
        self.pictures = []
        self._keep(answer)
        if answer.cancelled:
            self.notes.say("Cancelled.")

    def _keep(self, answer: Answer) -> None:
        self.received = answer.attachments or self.received
        if not answer.attachments:
            return
        if self.save:
            save_all(answer.attachments, self.save, self.notes)
        elif self.interactive:
            self.notes.say(f"{told(answer.attachments)} /save DIR keeps files.")
        else:
            self.notes.say(f"{told(answer.attachments)} Start with --save DIR to keep files.")

    async def _cut(self) -> None:
        """An answer ended before its end."""
        self._tools.settle()
        await self.output.end_line()

    def _complain(self, error: Exception) -> None:
        text = of_error(error)
        self.notes.insist(text if self.interactive else f"coralmux-phone: {text}")

    # What happens meanwhile.

    def interrupt(self) -> None:
        """Ctrl-C: cancel the answer; the second time, or without one, leave."""
        turn, answer = self._turn, self._answer
        if turn is None or turn.done():
            self._leave()
        elif answer is None:
            turn.cancel()
        elif answer.cancelled:
            self._leave()
        else:
            answer.cancel()
            peer = self.phone.agent
            if not answer.cancelled:
                turn.cancel()  # it has ended, and something after it takes its time
            elif peer is not None and peer.protocol >= 2:
                asyncio.get_running_loop().call_later(CANCEL_SECONDS, turn.cancel)
            else:
                self.notes.say("Cancelled. The agent still has to come to its end.")

    def terminate(self) -> None:
        self._status = TERMINATED
        self._leave()

    def _leave(self) -> None:
        self._interrupted = True
        if self._task is not None:
            self._task.cancel()

    def _event(self, event: AnyEvent) -> None:
        self._reach.note(event)
        for line in self._reports.of(event):
            self.notes.say(line)

    def _group_message(self, message: GroupMessage) -> None:
        said = message.message
        sender, text = (one_line(str(said.get(key, ""))) for key in ("sender", "text"))
        self.notes.say(f"[{one_line(message.room_id)}] {sender}: {text}")
