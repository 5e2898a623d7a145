"""What one relay process holds, and the work it does beside forwarding.

Usage is flushed, revocations are looked for and old rows are deleted on threads
of their own, so that none of them waits for another, nor for a slow admin page.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ParamSpec, TypeVar

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, transaction

from coralmux.protocol.close_codes import CloseCode
from coralmux.protocol.types import Role
from pairing import addresses, services
from relay.directory import Directory
from relay.groups import Groups
from relay.limits import Rates
from relay.metrics import Metrics
from relay.usage import UsageBook

log = structlog.get_logger("relay")

P = ParamSpec("P")
T = TypeVar("T")

# Token ids and roles that have logged in since the last flush.
Seen = set[tuple[int, Role]]

# Revocations are looked for a little into the past: a transaction that began
# before the last look may have committed after it. Three times what SQLite waits.
_WATCH_OVERLAP = timedelta(seconds=15)
# How long each of the last two writes waits for another process that holds SQLite's
# write lock. With a flush under way, which waits 5 s, and the time for draining the
# process ends within 10 s.
_LAST_WAIT_MS = 1500

_HOUSEKEEPING_SECONDS = 3600.0
_FORGET_SECONDS = 60.0
_KEEP_REVOKED = timedelta(days=30)


class DatabaseAway(Exception):
    """The database cannot be asked now; the text names the error."""


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds; see docs/settings.md."""

    auth: float
    hold: float
    stall: float
    close: float
    flush: float
    watch: float


class Runtime:
    """One process's directory, counters and background work."""

    def __init__(self) -> None:
        values = settings.CORALMUX
        self.timers = Timers(
            auth=values["AUTH_TIMEOUT_SECONDS"],
            hold=values["HOLD_SECONDS"],
            stall=values["STALL_TIMEOUT_SECONDS"],
            close=values["CLOSE_TIMEOUT_SECONDS"],
            flush=values["FLUSH_INTERVAL_SECONDS"],
            watch=values["WATCH_INTERVAL_SECONDS"],
        )
        self.max_message_bytes: int = values["MAX_MESSAGE_BYTES"]
        self.book = UsageBook()
        self.directory = Directory(self.book)
        self.metrics = Metrics()
        self.groups = Groups(self.end_meeting)
        self.started_at = time.monotonic()
        self.draining = False
        self.sockets = 0
        self._sockets_by_address: Counter[str] = Counter()
        self._seen: Seen = set()
        self._logins = ThreadPoolExecutor(2, "login")
        self._writes = ThreadPoolExecutor(1, "flush")
        self._reads = ThreadPoolExecutor(1, "watch")
        self._chores = ThreadPoolExecutor(1, "housekeeping")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._watched_at = datetime.now(UTC)

    # Life cycle

    def start(self) -> None:
        """Begin the background work, on the first call in the running loop.

        Daphne has no lifespan events, so the first connection calls this too.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        self._loop = loop
        self.groups.start()
        self._watched_at = datetime.now(UTC)
        self._flusher = loop.create_task(self._every(self.timers.flush, self._flush))
        self._tasks = [
            self._flusher,
            loop.create_task(self._every(self.timers.watch, self._watch)),
            loop.create_task(self._every(_FORGET_SECONDS, self._forget_idle)),
            loop.create_task(self._every(_HOUSEKEEPING_SECONDS, self._keep_house)),
        ]
        atexit.register(self.flush)

    async def stop(self) -> None:
        """End the background work and write what is pending."""
        await self.groups.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._loop = None
        await self.stop_flushing()
        atexit.unregister(self.flush)

    async def stop_flushing(self) -> None:
        """Write what is pending, for the last time but the one in `stop`.

        Our server begins with it while connections drain, so that the time which
        a locked database costs does not come on top.
        """
        if self._flusher is not None:
            self._flusher.cancel()
        if self._flushing is not None:
            # Under way when the flushing task ended; if it fails, its rows come back.
            await self._flushing
        await self._write_pending(_write_at_the_end)

    # Connections

    def admit_socket(self, address: str) -> bool:
        """Count a new WebSocket; False, and not counted, if there are too many."""
        values = settings.CORALMUX
        key = addresses.limit_key(address)
        if (
            self.sockets >= values["MAX_CONNECTIONS"]
            or self._sockets_by_address[key] >= values["MAX_CONNECTIONS_PER_ADDRESS"]
        ):
            self.metrics.refused["TOO_MANY_CONNECTIONS"] += 1
            return False
        self.sockets += 1
        self._sockets_by_address[key] += 1
        return True

    def release_socket(self, address: str) -> None:
        key = addresses.limit_key(address)
        self.sockets -= 1
        self._sockets_by_address[key] -= 1
        if not self._sockets_by_address[key]:
            del self._sockets_by_address[key]

    async def log_in(self, token: str, role: Role, address: str) -> services.Grant:
        """Look a token up. Raises as `pairing.services.authenticate` does, and DatabaseAway."""
        grant = await self._in_thread(
            self._logins, services.authenticate, token=token, address=address
        )
        self._seen.add((grant.token_id, role))
        return grant

    def rates(self, limits: services.Grant | services.TokenState) -> Rates:
        values = settings.CORALMUX
        return Rates(
            phone_messages=limits.phone_messages_per_minute,
            agent_messages=limits.agent_messages_per_minute,
            stream_frames=limits.stream_frames_per_second,
            key_exchanges=values["KEY_EXCHANGES_PER_MINUTE"],
            pings=values["PINGS_PER_MINUTE"],
            invalid=values["INVALID_PER_MINUTE"],
        )

    # Revocation

    def on_token_revoked(self, sender: object, token_id: int, **_: object) -> None:
        """Signal handler: the admin and the API run in other threads than the loop."""
        if self._loop is not None and not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self.groups.tell_revoked(token_id), self._loop)

    def end_meeting(self, token_id: int) -> None:
        """Close both ends of a token that is no longer good."""
        for member in self.directory.members(token_id):
            member.socket.close(CloseCode.REVOKED, discard=True)

    # Background work

    def flush(self) -> None:
        """Write what is pending, where a server ends without `stop` (plain Daphne)."""
        rows, seen = self._take()
        try:
            _with_database(_write, rows, seen)
        except Exception as error:
            self._give_back(rows, seen, error)

    async def _flush(self) -> None:
        self._flushing = asyncio.ensure_future(self._write_pending(_write))
        await asyncio.shield(self._flushing)

    async def _write_pending(self, write: Callable[[list[services.UsageRow], Seen], None]) -> None:
        # Taken and given back in the loop's thread, where counting happens.
        rows, seen = self._take()
        if not rows and not seen:
            return
        try:
            await self._in_thread(self._writes, write, rows, seen)
            self.book.written()
        except Exception as error:
            self._give_back(rows, seen, error)

    def _take(self) -> tuple[list[services.UsageRow], Seen]:
        seen, self._seen = self._seen, set()
        return self.book.take(), seen

    def _give_back(self, rows: list[services.UsageRow], seen: Seen, error: Exception) -> None:
        self.book.give_back(rows)
        self._seen |= seen
        _report("usage not written", error, rows=len(rows))

    async def _watch(self) -> None:
        """Learn of revocations and limits changed by other processes (manage.py)."""
        for token_id in self.directory.expired(time.time()):
            self.end_meeting(token_id)
        now = datetime.now(UTC)
        changed = await self._in_thread(
            self._reads, services.changed_since, self._watched_at - _WATCH_OVERLAP
        )
        self._watched_at = now
        for state in changed:
            if state.active:
                self.directory.change(state, self.rates(state), time.monotonic())
            else:
                self.end_meeting(state.token_id)

    async def _every(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception as error:
                # The fault of one round must not be the end of all.
                _report("background work failed", error, work=work.__name__.lstrip("_"))

    async def _forget_idle(self) -> None:
        self.directory.forget_idle(time.monotonic())

    async def _keep_house(self) -> None:
        before = datetime.now(UTC) - _KEEP_REVOKED
        await self._in_thread(self._chores, services.prune, before=before)

    async def _in_thread(
        self, executor: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(executor, partial(_with_database, work, *args, **kwargs))


def _write(rows: list[services.UsageRow], seen: Seen) -> None:
    # All or nothing: what is given back after a failure is written again.
    with transaction.atomic():
        services.record_usage(rows)
        for token_id, role in seen:
            services.seen(token_id=token_id, role=role)


def _write_at_the_end(rows: list[services.UsageRow], seen: Seen) -> None:
    """The same with less patience: whoever stops the process waits for it."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {_LAST_WAIT_MS}")
    _write(rows, seen)


def _with_database(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run work on a thread that keeps its connection, and drop the connection if it broke.

    Raises DatabaseAway.
    """
    try:
        return work(*args, **kwargs)
    # Of a connection that the server has closed PostgreSQL's driver says InterfaceError,
    # which is no DatabaseError.
    except (DatabaseError, InterfaceError) as error:
        with contextlib.suppress(DatabaseError, InterfaceError):
            connection.close()
        raise DatabaseAway(type(error).__name__) from error


def _report(event: str, error: Exception, **more: object) -> None:
    """Log what failed, with a traceback where it is a fault of ours."""
    if isinstance(error, DatabaseAway):
        log.error(event, error=str(error), **more)
    else:
        log.error(event, exc_info=error, **more)


runtime = Runtime()
