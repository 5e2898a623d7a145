"""The work beside forwarding goes on whatever happens, with the database in the test's hand."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError

from coralmux.protocol.close_codes import CloseCode
from coralmux.protocol.types import Role
from pairing import services
from pairing.services import Grant, TokenState
from relay import runtime as module
from relay.directory import Meeting
from relay.limits import Rates
from relay.runtime import DatabaseAway, Runtime
from tests.support.waiting import eventually

LIMITS = {
    "phone_messages_per_minute": 30,
    "agent_messages_per_minute": 120,
    "stream_frames_per_second": 1000,
    "daily_quota_bytes": 1000,
    "monthly_quota_bytes": 5000,
    "max_message_bytes": 5000,
}
GRANT = Grant(
    **LIMITS, token_id=1, expires_at=None, used_today=0, used_this_month=0, day=date(2026, 3, 1)
)
REVOKED = TokenState(
    **LIMITS, token_id=1, active=False, expires_at=None, changed_at=datetime(2026, 3, 1, tzinfo=UTC)
)

away = pytest.mark.parametrize("error", [OperationalError, InterfaceError])
any_error = pytest.mark.parametrize("error", [OperationalError, InterfaceError, RuntimeError])


class FakeSocket:
    def __init__(self) -> None:
        self.codes: list[CloseCode] = []

    def close(self, code: CloseCode, *, discard: bool = False) -> None:
        self.codes.append(code)


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In place of Django's: counts how often it was dropped."""
    fake = SimpleNamespace(vendor="fake", dropped=0)

    def close() -> None:
        fake.dropped += 1

    fake.close = close
    monkeypatch.setattr(module, "connection", fake)
    return fake


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, connection: object) -> list[services.UsageRow]:
    """The rows that reached the database."""
    rows: list[services.UsageRow] = []
    monkeypatch.setattr(module, "_write", lambda new, seen: rows.extend(new))
    monkeypatch.setattr(services, "changed_since", lambda when: [])
    return rows


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Runtime]:
    runtime = Runtime()
    runtime.timers = dataclasses.replace(runtime.timers, flush=0.02, watch=0.02)
    runtime.start()
    try:
        yield runtime
    finally:
        await runtime.stop()


def enter(runtime: Runtime) -> tuple[Meeting, FakeSocket]:
    """A phone of token 1."""
    meeting = runtime.directory.meeting(GRANT, Rates(), time.monotonic(), time.time())
    socket = FakeSocket()
    runtime.directory.join(meeting, SimpleNamespace(role=Role.PHONE, socket=socket))  # type: ignore[arg-type]
    return meeting, socket


def failing(error: type[Exception], work: Callable[..., Any]) -> Callable[..., Any]:
    """The work, which fails the first time."""
    times: Iterator[bool] = iter([True])

    def run(*args: Any, **kwargs: Any) -> Any:
        if next(times, False):
            raise error("once")
        return work(*args, **kwargs)

    return run


@any_error
async def test_what_a_failed_flush_took_is_written_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
    connection: SimpleNamespace,
    written: list[services.UsageRow],
    error: type[Exception],
) -> None:
    monkeypatch.setattr(module, "_write", failing(error, module._write))
    async with running() as runtime:
        meeting, _ = enter(runtime)
        meeting.usage.count(Role.PHONE, 5, time.time())
        await eventually(lambda: written)
        meeting.usage.count(Role.PHONE, 7, time.time())
        await eventually(lambda: len(written) == 2)
        await eventually(lambda: not runtime.book.pending(1))
    assert [row.bytes_from_phone for row in written] == [5, 7]
    assert connection.dropped == (error is not RuntimeError)


@any_error
async def test_revocations_are_learned_of_after_a_look_that_failed(
    monkeypatch: pytest.MonkeyPatch,
    written: list[services.UsageRow],
    error: type[Exception],
) -> None:
    monkeypatch.setattr(services, "changed_since", failing(error, lambda when: [REVOKED]))
    async with running() as runtime:
        _, socket = enter(runtime)
        await eventually(lambda: CloseCode.REVOKED in socket.codes)


@any_error
async def test_housekeeping_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
    written: list[services.UsageRow],
    error: type[Exception],
) -> None:
    monkeypatch.setattr(module, "_HOUSEKEEPING_SECONDS", 0.02)
    done: list[datetime] = []
    monkeypatch.setattr(services, "prune", failing(error, lambda *, before: done.append(before)))
    async with running():
        await eventually(lambda: done)


@away
async def test_a_login_without_a_database_has_one_exception_and_leaves_no_broken_connection(
    monkeypatch: pytest.MonkeyPatch, connection: SimpleNamespace, error: type[Exception]
) -> None:
    monkeypatch.setattr(services, "authenticate", failing(error, lambda **_: GRANT))
    runtime = Runtime()
    with pytest.raises(DatabaseAway, match=error.__name__):
        await runtime.log_in("token", Role.PHONE, "192.0.2.1")
    assert connection.dropped == 1
    assert await runtime.log_in("token", Role.PHONE, "192.0.2.1") == GRANT


@pytest.mark.parametrize("slow", ["_write", "prune"])
async def test_a_revocation_waits_for_neither_a_flush_nor_housekeeping(
    monkeypatch: pytest.MonkeyPatch, written: list[services.UsageRow], slow: str
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(*_: Any, **__: Any) -> None:
        begun.set()
        go_on.wait(10)

    monkeypatch.setattr(module, "_HOUSEKEEPING_SECONDS", 0.02)
    monkeypatch.setattr(services, "prune", lambda *, before: None)
    monkeypatch.setattr(module if slow == "_write" else services, slow, wait)
    async with running() as runtime:
        meeting, socket = enter(runtime)
        meeting.usage.count(Role.PHONE, 5, time.time())
        await asyncio.to_thread(begun.wait, 10)
        monkeypatch.setattr(services, "changed_since", lambda when: [REVOKED])
        try:
            await eventually(lambda: CloseCode.REVOKED in socket.codes, within=1)
        finally:
            go_on.set()
