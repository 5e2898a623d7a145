"""What a process of the bench may use: cores, open files, the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

_CPU_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def raise_open_files() -> None:
    """Lift the limit of open files to the hard one: each connection costs one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS calls its hard limit infinite and then refuses it.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where it is installed, as the relay itself takes it; else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def cores() -> tuple[int | None, int | None]:
    """The core of the servers and that of the load generator.

    The first two that this process may use; both the same where there is but
    one, and None where the system cannot pin.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[min(1, len(allowed) - 1)]


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Processes started inside run on this core: a child inherits its parent's affinity.

    The parent moves there for as long as the start takes, and back.
    """
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float | None:
    """Seconds of CPU, user's and kernel's, that a process has used with all its threads.

    None where /proc does not tell. Counted in clock ticks, usually of 10 ms.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in parentheses and may hold spaces.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CPU_TICKS_PER_SECOND
