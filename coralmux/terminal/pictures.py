"""Files that go with a question, with a bar that shows how far, and files of an answer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from coralmux.client.attachments import (
    Attachment,
    AttachmentError,
    RemoteAttachment,
    megabytes,
    safe_name,
)
from coralmux.protocol.limits import MAX_FILE_BYTES
from coralmux.terminal.output import Notes
from coralmux.text import one_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Percent between two lines, where a bar cannot be drawn.
_STEP = 20


def load(path: str) -> Attachment:
    """Read a file to send. Raises OSError or AttachmentError."""
    file = Path(path).expanduser()
    if file.stat().st_size > MAX_FILE_BYTES:
        raise AttachmentError(
            f"{file.name} is too large: at most {megabytes(MAX_FILE_BYTES)} can be sent. "
            "Scale it down."
        )
    # A pipe or device has no size and no end that could be relied on.
    if not file.is_file():
        raise AttachmentError(f"{file.name} is not a file. Give the path of a picture.")
    return Attachment.from_path(file)


class Upload:
    """How far the files of a question have got: a bar on a terminal, else a few lines."""

    def __init__(self, notes: Notes, pictures: Sequence[Attachment]) -> None:
        self._notes = notes
        self._count = len(pictures)
        self._bar: Progress | None = None
        self._tasks: dict[int, TaskID] = {}
        self._told: dict[int, int] = {}

    def show(self, picture: Attachment, sent: int, total: int) -> None:
        """What `ask` takes as `on_progress`."""
        if self._notes.quiet:
            return
        if self._notes.is_terminal:
            self._draw(picture, sent, total)
        else:
            self._tell(picture, 100 * sent // max(total, 1))

    def close(self) -> None:
        """Leave the terminal to others; what is drawn stays. Idempotent."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, picture: Attachment, sent: int, total: int) -> None:
        if id(picture) not in self._tasks:
            if self._bar is None:
                self._bar = _new_bar()
                self._bar.start()
            name = one_line(picture.name)
            self._tasks[id(picture)] = self._bar.add_task(name, total=total)
        if self._bar is None:
            return
        self._bar.update(self._tasks[id(picture)], completed=sent)
        if sent == total and len(self._tasks) == self._count:
            self.close()

    def _tell(self, picture: Attachment, percent: int) -> None:
        step = percent // _STEP
        if step > self._told.get(id(picture), 0):
            self._told[id(picture)] = step
            self._notes.say(f"{one_line(picture.name)}: {percent} %")


def _new_bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True, highlight=False),
    )


# What came with an answer


def described(attachments: Sequence[Attachment | RemoteAttachment]) -> str:
    """What came, for the end of a sentence."""
    return ", ".join(
        f"{one_line(item.name)} ({megabytes(len(item.data))})"
        if isinstance(item, Attachment)
        else f"a {one_line(item.mime_type)} at {one_line(item.url)}"
        for item in attachments
    )


def told(attachments: Sequence[Attachment | RemoteAttachment]) -> str:
    """The same as a sentence."""
    count = len(attachments)
    plural = "" if count == 1 else "s"
    return f"{count} attachment{plural} came with the answer: {described(attachments)}."


def save(attachment: Attachment, directory: str) -> Path:
    """Write it under its own name, or the next that is free; where. Raises OSError."""
    folder = Path(directory).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    name = Path(safe_name(attachment.name))
    for number in count(1):
        path = folder / (name if number == 1 else f"{name.stem} ({number}){name.suffix}")
        # Never over another file, whatever the agent calls its own.
        with contextlib.suppress(FileExistsError), path.open("xb") as file:
            file.write(attachment.data)
            return path
    raise AssertionError("count() has no end")


def save_all(
    attachments: Sequence[Attachment | RemoteAttachment], directory: str, notes: Notes
) -> dict[int, Path]:
    """Save what is here, and say so; paths by position. Raises OSError.

    What is only named by a URL is not fetched: that would tell its owner who we are.
    """
    saved = {}
    for position, item in enumerate(attachments):
        if isinstance(item, Attachment):
            saved[position] = save(item, directory)
            notes.say(f"Saved {one_line(str(saved[position]))}")
        else:
            notes.say(f"Not fetched: {described([item])}")
    return saved
