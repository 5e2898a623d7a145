"""Quota counters: bytes by day and month, in memory, with the clock in the test's hand."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from coralmux.protocol.errors import ErrorCode
from coralmux.protocol.types import Role
from relay.usage import Usage, UsageBook


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def usage_of(book: UsageBook, wall: float, **more: int) -> Usage:
    numbers = {
        "daily_quota": 1000,
        "monthly_quota": 5000,
        "used_today": 0,
        "used_this_month": 0,
        **more,
    }
    return Usage(book, 7, day=datetime.fromtimestamp(wall, UTC).date(), **numbers)


def test_what_is_counted_is_taken_once() -> None:
    book, noon = UsageBook(), at("2026-03-01T12:00")
    usage = usage_of(book, noon)
    usage.count(Role.PHONE, 10, noon)
    usage.count(Role.AGENT, 300, noon)
    usage.count(Role.AGENT, 0, noon)
    (row,) = book.take()
    assert (row.token_id, row.day) == (7, date(2026, 3, 1))
    assert (row.bytes_from_phone, row.messages_from_phone) == (10, 1)
    assert (row.bytes_from_agent, row.messages_from_agent) == (300, 2)
    assert book.take() == []


def test_rows_given_back_are_kept_and_merged_by_day() -> None:
    book, noon = UsageBook(), at("2026-03-01T12:00")
    usage = usage_of(book, noon)
    usage.count(Role.PHONE, 10, noon)
    rows = book.take()
    usage.count(Role.PHONE, 5, noon)
    book.give_back(rows)
    book.give_back(book.take())
    (row,) = book.take()
    assert (row.bytes_from_phone, row.messages_from_phone) == (15, 2)


def test_what_is_pending_is_known_until_it_is_written() -> None:
    book, before, after = UsageBook(), at("2026-03-01T23:59"), at("2026-03-02T00:00")
    usage = usage_of(book, before)
    assert not book.pending(7)
    usage.count(Role.PHONE, 10, before)
    assert book.pending(7)
    rows = book.take()
    assert book.pending(7)
    book.give_back(rows)
    assert book.pending(7)
    book.take()
    usage.count(Role.PHONE, 10, before)
    usage.advance(after)
    book.written()
    assert book.pending(7), "yesterday's row came while the others were written"
    book.take()
    book.written()
    assert not book.pending(7)


def test_the_quota_refuses_when_used_reaches_it_and_says_until_when() -> None:
    wall = at("2026-03-01T23:00")
    usage = usage_of(UsageBook(), wall, used_today=990)
    assert usage.exhausted(wall) is None
    usage.count(Role.PHONE, 10, wall)
    exhausted = usage.exhausted(wall)
    assert exhausted is not None
    assert exhausted.code is ErrorCode.DAILY_QUOTA_EXCEEDED
    assert exhausted.seconds == 3600
    assert usage.exhausted(wall + 3600) is None


def test_the_month_outlasts_the_day() -> None:
    wall = at("2026-02-27T12:00")
    usage = usage_of(UsageBook(), wall, used_today=1000, used_this_month=5000)
    exhausted = usage.exhausted(wall)
    assert exhausted is not None
    assert exhausted.code is ErrorCode.MONTHLY_QUOTA_EXCEEDED
    assert wall + exhausted.seconds == at("2026-03-01T00:00")
    assert usage.exhausted(at("2026-02-28T12:00")) is not None
    assert usage.exhausted(at("2026-03-01T00:00")) is None


def test_december_ends_in_the_next_year() -> None:
    wall = at("2026-12-31T12:00")
    exhausted = usage_of(UsageBook(), wall, used_this_month=5000).exhausted(wall)
    assert exhausted is not None
    assert wall + exhausted.seconds == at("2027-01-01T00:00")


def test_midnight_parts_the_rows_of_two_days() -> None:
    book, before, after = UsageBook(), at("2026-03-31T23:59:59"), at("2026-04-01T00:00")
    usage = usage_of(book, before)
    usage.count(Role.PHONE, 1, before)
    usage.count(Role.PHONE, 2, after)
    rows = {row.day: row.bytes_from_phone for row in book.take()}
    assert rows == {date(2026, 3, 31): 1, date(2026, 4, 1): 2}
    assert (usage.used_today, usage.used_this_month) == (2, 2)


@pytest.mark.parametrize("quota", ["daily_quota", "monthly_quota"])
def test_a_quota_of_zero_is_no_limit(quota: str) -> None:
    wall = at("2026-03-01T12:00")
    numbers = {"daily_quota": 0, "monthly_quota": 0, "used_today": 10**12}
    assert usage_of(UsageBook(), wall, **numbers).exhausted(wall) is None
