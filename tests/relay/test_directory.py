"""Who is where, and what outlives a connection, without sockets."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from coralmux.protocol.types import RateClass, Role
from pairing.services import Grant, TokenState
from relay.directory import Directory, Meeting
from relay.limits import Rates
from relay.sockets import Socket
from relay.usage import UsageBook

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
LIMITS = {
    "phone_messages_per_minute": 30,
    "agent_messages_per_minute": 120,
    "stream_frames_per_second": 1000,
    "daily_quota_bytes": 1000,
    "monthly_quota_bytes": 5000,
    "max_message_bytes": 5000,
}


class Guest:
    socket: Socket

    def __init__(self, role: Role) -> None:
        self.role = role


def grant(token_id: int = 1, **more: Any) -> Grant:
    usage = {"used_today": 10, "used_this_month": 20, "day": date(2026, 3, 1)}
    return Grant(**{**LIMITS, "token_id": token_id, "expires_at": None, **usage, **more})


def enter(directory: Directory, token_id: int = 1) -> Meeting:
    return directory.meeting(grant(token_id), Rates(), 0.0, NOON)


def test_the_newest_of_a_role_has_its_place_and_the_old_ones_end_changes_nothing() -> None:
    directory = Directory(UsageBook())
    meeting = enter(directory)
    old, new, agent = Guest(Role.PHONE), Guest(Role.PHONE), Guest(Role.AGENT)
    assert directory.join(meeting, old) is None
    assert directory.join(meeting, agent) is None
    assert directory.join(meeting, new) is old
    assert not directory.leave(meeting, old)
    assert meeting.members == {Role.PHONE: new, Role.AGENT: agent}
    assert (directory.connections, directory.pairs) == ({Role.PHONE: 1, Role.AGENT: 1}, 1)
    assert directory.online_roles(1) == {"phone", "agent"}
    assert directory.leave(meeting, new)
    assert (directory.connections, directory.pairs) == ({Role.PHONE: 0, Role.AGENT: 1}, 0)


def test_allowances_and_usage_outlive_connections_until_they_hold_nothing() -> None:
    book = UsageBook()
    directory = Directory(book)
    meeting = enter(directory)
    meeting.allowances[Role.PHONE].take(RateClass.MESSAGE, 0.0)
    meeting.usage.count(Role.PHONE, 5, NOON)
    assert directory.forget_idle(1.0) == 0
    assert enter(directory) is meeting
    assert directory.forget_idle(100.0) == 0, "its usage is not written yet"
    rows = book.take()
    assert directory.forget_idle(100.0) == 0, "it is being written"
    book.give_back(rows)
    assert directory.forget_idle(100.0) == 0, "writing it failed"
    book.take()
    book.written()
    assert directory.forget_idle(100.0) == 1
    assert enter(directory) is not meeting


def test_who_logged_in_before_midnight_and_joins_after_it_begins_the_new_day_with_nothing() -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
    usage = Directory(UsageBook()).meeting(grant(), Rates(), 0.0, midnight).usage
    assert (usage.used_today, usage.used_this_month) == (0, 20)


def test_a_later_login_does_not_take_back_what_was_counted_since() -> None:
    directory = Directory(UsageBook())
    meeting = enter(directory)
    meeting.usage.count(Role.PHONE, 100, NOON)
    assert enter(directory).usage.used_today == 110


def test_changed_limits_and_expiry_are_in_force_for_whoever_is_connected() -> None:
    directory = Directory(UsageBook())
    meeting = enter(directory)
    directory.join(meeting, Guest(Role.PHONE))
    ends = datetime(2026, 3, 1, 13, tzinfo=UTC)
    state = TokenState(
        **{**LIMITS, "daily_quota_bytes": 5},
        token_id=1,
        active=True,
        expires_at=ends,
        changed_at=ends,
    )
    directory.change(state, Rates(phone_messages=1), 0.0)
    assert meeting.usage.exhausted(NOON) is not None
    allowance = meeting.allowances[Role.PHONE]
    assert allowance.take(RateClass.MESSAGE, 0.0) == 0.0
    assert allowance.take(RateClass.MESSAGE, 0.0) > 0
    assert directory.expired(ends.timestamp() - 1) == []
    assert directory.expired(ends.timestamp()) == [1]
