"""Ctrl-C and the wish of the system that we leave, as calls in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Generator
from types import FrameType


@contextlib.contextmanager
def interrupts(
    on_interrupt: Callable[[], None], on_terminate: Callable[[], None]
) -> Generator[None, None, None]:
    """Meanwhile, SIGINT and SIGTERM call these in the running loop, one after the other."""
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        # Not `loop.add_signal_handler`: Windows has none.
        call = on_interrupt if number == signal.SIGINT else on_terminate
        loop.call_soon_threadsafe(call)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def keys_unseen() -> Generator[None, None, None]:
    """Meanwhile, what is typed is not shown; it waits for the next prompt.

    Otherwise it would stand in the middle of the answer, Ctrl-C as "^C".
    """
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield
        return
    import termios

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    unseen = termios.tcgetattr(descriptor)
    unseen[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSANOW, unseen)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
