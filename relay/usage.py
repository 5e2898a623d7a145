"""Quota counters: constant work for each message, written to the database in batches.

A token's used bytes are read once, when its first connection logs in, and kept
in memory from then on. What is new since the last flush waits as pending
numbers, so a message costs some additions and never a query, however many rows
the database holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from coralmux.protocol.errors import ErrorCode
from coralmux.protocol.types import Role
from pairing.services import UsageRow


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A quota is used up: which one, and the seconds until it starts anew."""

    code: ErrorCode
    seconds: float


class Usage:
    """The bytes of one token, in UTC days and months. `wall` is Unix time in seconds.

    `used_today` and `used_this_month` are those of `day`.
    """

    __slots__ = (
        "_book",
        "_day",
        "_day_ends",
        "_pending",
        "announced",
        "daily_quota",
        "monthly_quota",
        "token_id",
        "used_this_month",
        "used_today",
    )

    def __init__(
        self,
        book: UsageBook,
        token_id: int,
        *,
        daily_quota: int,
        monthly_quota: int,
        used_today: int,
        used_this_month: int,
        day: date,
    ) -> None:
        self._book = book
        self.token_id = token_id
        self.daily_quota = daily_quota
        self.monthly_quota = monthly_quota
        self.used_today = used_today
        self.used_this_month = used_this_month
        # Whether both sides have heard that the quota is used up.
        self.announced = False
        self._pending = _Pending()
        self._start_day(day)

    def _start_day(self, day: date) -> None:
        self._day = day
        self._day_ends = _midnight_after(day)

    def advance(self, wall: float) -> None:
        """Begin a new day if it has come."""
        if wall >= self._day_ends:
            self._turn(wall)

    def count(self, sender: Role, size: int, wall: float) -> None:
        """Add one forwarded message of `size` payload bytes."""
        self.advance(wall)
        self.used_today += size
        self.used_this_month += size
        pending = self._pending
        if not pending.messages_from_phone and not pending.messages_from_agent:
            self._book.dirty[self.token_id] = self
        if sender is Role.PHONE:
            pending.bytes_from_phone += size
            pending.messages_from_phone += 1
        else:
            pending.bytes_from_agent += size
            pending.messages_from_agent += 1

    def exhausted(self, wall: float) -> Exhausted | None:
        """The quota that refuses the next message, the longer lasting one if both do."""
        self.advance(wall)
        if self.monthly_quota and self.used_this_month >= self.monthly_quota:
            seconds = _month_end_after(self._day) - wall
            return Exhausted(ErrorCode.MONTHLY_QUOTA_EXCEEDED, seconds)
        if self.daily_quota and self.used_today >= self.daily_quota:
            return Exhausted(ErrorCode.DAILY_QUOTA_EXCEEDED, self._day_ends - wall)
        self.announced = False
        return None

    def _turn(self, wall: float) -> None:
        """Begin a new UTC day: what is pending belongs to the old one."""
        self._book.close_day(self)
        month = (self._day.year, self._day.month)
        self._start_day(datetime.fromtimestamp(wall, UTC).date())
        self.used_today = 0
        if (self._day.year, self._day.month) != month:
            self.used_this_month = 0

    def take_pending(self) -> UsageRow | None:
        """What came since the last call, or None."""
        pending, self._pending = self._pending, _Pending()
        if not pending.messages_from_phone and not pending.messages_from_agent:
            return None
        return UsageRow(
            token_id=self.token_id,
            day=self._day,
            bytes_from_phone=pending.bytes_from_phone,
            bytes_from_agent=pending.bytes_from_agent,
            messages_from_phone=pending.messages_from_phone,
            messages_from_agent=pending.messages_from_agent,
        )


class _Pending:
    __slots__ = (
        "bytes_from_agent",
        "bytes_from_phone",
        "messages_from_agent",
        "messages_from_phone",
    )

    def __init__(self) -> None:
        self.bytes_from_phone = 0
        self.bytes_from_agent = 0
        self.messages_from_phone = 0
        self.messages_from_agent = 0


class UsageBook:
    """What is yet to be written, over all tokens."""

    def __init__(self) -> None:
        self.dirty: dict[int, Usage] = {}
        self._rows: list[UsageRow] = []
        # Tokens with a row in `_rows`, or in one that was taken and is not written yet.
        self._with_rows: set[int] = set()

    def close_day(self, usage: Usage) -> None:
        if row := usage.take_pending():
            self._rows.append(row)
            self._with_rows.add(row.token_id)
        self.dirty.pop(usage.token_id, None)

    def take(self) -> list[UsageRow]:
        """Every row that is due, until the caller says `written` or gives them back."""
        for usage in self.dirty.values():
            if row := usage.take_pending():
                self._rows.append(row)
        self.dirty.clear()
        rows, self._rows = self._rows, []
        self._with_rows = {row.token_id for row in rows}
        return rows

    def written(self) -> None:
        """What was taken is in the database."""
        self._with_rows = {row.token_id for row in self._rows}

    def give_back(self, rows: list[UsageRow]) -> None:
        """Keep rows that could not be written, one for each token and day."""
        merged: dict[tuple[int, date], UsageRow] = {}
        for row in [*rows, *self._rows]:
            key = (row.token_id, row.day)
            merged[key] = _sum(merged[key], row) if key in merged else row
        self._rows = list(merged.values())

    def pending(self, token_id: int) -> bool:
        """Whether the database is yet to learn of bytes of this token."""
        return token_id in self.dirty or token_id in self._with_rows


def _sum(one: UsageRow, other: UsageRow) -> UsageRow:
    return UsageRow(
        token_id=one.token_id,
        day=one.day,
        bytes_from_phone=one.bytes_from_phone + other.bytes_from_phone,
        bytes_from_agent=one.bytes_from_agent + other.bytes_from_agent,
        messages_from_phone=one.messages_from_phone + other.messages_from_phone,
        messages_from_agent=one.messages_from_agent + other.messages_from_agent,
    )


def _midnight_after(day: date) -> float:
    following = day + timedelta(days=1)
    return datetime(following.year, following.month, following.day, tzinfo=UTC).timestamp()


def _month_end_after(day: date) -> float:
    following = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return datetime(following.year, following.month, 1, tzinfo=UTC).timestamp()
