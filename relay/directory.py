"""Who is where: the two ends of each token, and what outlives their connections."""

from __future__ import annotations

from typing import Protocol

from coralmux.protocol.types import Role
from pairing.services import Grant, TokenState
from relay.limits import Allowance, Rates
from relay.sockets import Socket
from relay.usage import Usage, UsageBook


class Member(Protocol):
    """One authenticated connection."""

    @property
    def role(self) -> Role: ...
    @property
    def socket(self) -> Socket: ...


class Meeting:
    """A token's place: at most one live connection of each role, the newest."""

    __slots__ = ("allowances", "expires_at", "members", "token_id", "usage")

    def __init__(self, token_id: int, rates: Rates, usage: Usage) -> None:
        self.token_id = token_id
        self.members: dict[Role, Member] = {}
        self.allowances = {role: Allowance(role, rates) for role in Role}
        self.usage = usage
        # Unix time, or None.
        self.expires_at: float | None = None

    def forgettable(self, now: float) -> bool:
        """Nobody is here, and coming back would find everything as for a new token."""
        return not self.members and all(a.full(now) for a in self.allowances.values())


class Directory:
    """All meetings of this process."""

    def __init__(self, book: UsageBook) -> None:
        self._book = book
        self._meetings: dict[int, Meeting] = {}
        self.connections = dict.fromkeys(Role, 0)
        self.pairs = 0

    def meeting(self, grant: Grant, rates: Rates, now: float, wall: float) -> Meeting:
        """The token's meeting, made when it is the first, with the grant's limits in force."""
        meeting = self._meetings.get(grant.token_id)
        if meeting is None:
            usage = Usage(
                self._book,
                grant.token_id,
                daily_quota=grant.daily_quota_bytes,
                monthly_quota=grant.monthly_quota_bytes,
                used_today=grant.used_today,
                used_this_month=grant.used_this_month,
                day=grant.day,
            )
            meeting = self._meetings[grant.token_id] = Meeting(grant.token_id, rates, usage)
        # The grant may be of yesterday.
        meeting.usage.advance(wall)
        self._apply(meeting, grant, rates, now)
        return meeting

    def change(self, state: TokenState, rates: Rates, now: float) -> None:
        """Put a token's changed limits and expiry in force for whoever is connected."""
        if meeting := self._meetings.get(state.token_id):
            self._apply(meeting, state, rates, now)

    @staticmethod
    def _apply(meeting: Meeting, limits: Grant | TokenState, rates: Rates, now: float) -> None:
        meeting.usage.daily_quota = limits.daily_quota_bytes
        meeting.usage.monthly_quota = limits.monthly_quota_bytes
        meeting.expires_at = limits.expires_at.timestamp() if limits.expires_at else None
        for allowance in meeting.allowances.values():
            allowance.resize(rates, now)

    def join(self, meeting: Meeting, member: Member) -> Member | None:
        """Put the member in its role's place; the one that was there before, if any."""
        before = meeting.members.get(member.role)
        meeting.members[member.role] = member
        if before is None:
            self.connections[member.role] += 1
            self.pairs += len(meeting.members) == len(Role)
        return before

    def leave(self, meeting: Meeting, member: Member) -> bool:
        """Take the member out; False if a newer connection has its place already."""
        if meeting.members.get(member.role) is not member:
            return False
        self.pairs -= len(meeting.members) == len(Role)
        self.connections[member.role] -= 1
        del meeting.members[member.role]
        return True

    def members(self, token_id: int) -> list[Member]:
        meeting = self._meetings.get(token_id)
        return list(meeting.members.values()) if meeting else []

    def online_roles(self, token_id: int) -> frozenset[str]:
        """Read from the admin's threads too; a dictionary's copy is atomic."""
        meeting = self._meetings.get(token_id)
        return frozenset(role.value for role in dict(meeting.members)) if meeting else frozenset()

    def expired(self, wall: float) -> list[int]:
        """Tokens with connections whose time is over."""
        return [
            token_id
            for token_id, meeting in self._meetings.items()
            if meeting.members and meeting.expires_at is not None and meeting.expires_at <= wall
        ]

    def forget_idle(self, now: float) -> int:
        """Drop meetings that hold nothing worth remembering; how many."""
        idle = [
            token_id
            for token_id, meeting in self._meetings.items()
            if meeting.forgettable(now) and not self._book.pending(token_id)
        ]
        for token_id in idle:
            del self._meetings[token_id]
        return len(idle)
