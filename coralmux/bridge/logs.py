"""What the bridge says while it runs, on standard error: for people, or for programs.

For people a sentence with the time before it; with `as_json` an object a line, which has an
event's name and its fields. Neither holds a token, a secret, or what a message says.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import structlog
from rich.console import Console
from rich.text import Text

from coralmux.text import discreet, one_line

# Of the library: told as events of their own, with the phone's name.
_TOLD_OTHERWISE = ("stopped:", "again in", "ended:")


class Log:
    """Says things. With `quiet`, people get warnings alone; programs choose themselves."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self._quiet = quiet and not as_json
        self._console = _Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._json: Any = None
        if as_json:
            self._json = structlog.wrap_logger(
                structlog.PrintLogger(sys.stderr),
                processors=[
                    structlog.processors.TimeStamper(fmt="iso", utc=True),
                    structlog.processors.add_log_level,
                    structlog.processors.JSONRenderer(ensure_ascii=False),
                ],
                wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            )

    def tell(self, event: str, text: str, *, warning: bool = False, **fields: Any) -> None:
        """`text` is for people; `event` and the fields are for programs."""
        text = _fit(text)
        # Whoever reads along may have left; the bridge goes on.
        with contextlib.suppress(OSError, ValueError):
            if self._json is not None:
                fields = {k: _fit(v) if isinstance(v, str) else v for k, v in fields.items()}
                write = self._json.warning if warning else self._json.info
                write(event, text=text, **fields)
            elif warning or not self._quiet:
                line = Text.assemble((time.strftime("%H:%M:%S "), "dim"), text)
                self._console.print(line, style="yellow" if warning else None, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Something that the operator should know, and that has no event of its own."""
        self.tell("note", text, warning=True)

    @contextlib.contextmanager
    def library(self) -> Iterator[None]:
        """Meanwhile, what is logged is said here too: our warnings, or all for programs; and
        that others have logged a warning."""
        root, ours = logging.getLogger(), logging.getLogger("coralmux")
        handler, before = _Records(self, everything=self._json is not None), ours.level
        root.addHandler(handler)
        ours.setLevel(logging.INFO if self._json is not None else logging.WARNING)
        try:
            yield
        finally:
            root.removeHandler(handler)
            ours.setLevel(before)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Where rich would end the program."""
        self.quiet = True


class _Records(logging.Handler):
    def __init__(self, log: Log, *, everything: bool) -> None:
        super().__init__(logging.INFO if everything else logging.WARNING)
        self._log = log
        self._everything = everything

    def emit(self, record: logging.LogRecord) -> None:
        warning = record.levelno >= logging.WARNING
        if record.name.split(".")[0] != "coralmux":
            if not warning:
                return
            # Frameworks, and asyncio, put into a log what is nobody's business.
            text = f"{record.name} logged a warning ({record.module}, line {record.lineno})."
        elif not self._everything and any(told in str(record.msg) for told in _TOLD_OTHERWISE):
            return
        else:
            text = record.getMessage()
        # Neither its text nor its traceback, which may hold what was in a message.
        if record.exc_info and record.exc_info[0] is not None:
            text += f" ({record.exc_info[0].__name__})"
        self._log.tell("log", text, warning=warning, logger=record.name)


def _fit(text: str) -> str:
    return discreet(one_line(text))
