"""When to come back after a connection ended: a pure table, without clock or socket.

Theory of operation. Every end of a connection, or of an attempt at one, has a
close code (PROTOCOL.md, "Close codes"; 1006 where none came). The code has one
of five rules:

    AGAIN     a pause of random length, whose ceiling grows with every failure
    SOON      a short pause once, then as AGAIN: the relay said that it restarts
    LATER     as AGAIN on top of at least some seconds: the relay asked for it
    REPLACED  another device took the place: a phone waits to be asked, an agent
              tries again after a minute, then two, four, ... a quarter of an hour
    STOP      never: the token is wrong, revoked or expired

What grew shrinks again only when a connection was logged in and stayed for a
while, so that a relay which takes everybody in and drops them is not hammered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from random import Random

from coralmux.protocol.close_codes import CloseCode
from coralmux.protocol.types import Role


@dataclass(frozen=True, slots=True)
class Timers:
    """Every number of a connection, in seconds (`growth` is a factor)."""

    # From the first packet to the WebSocket's answer, and from `auth` to `auth.ok`.
    open: float = 10.0
    auth: float = 10.0
    # A ping every so often; given up when nothing at all came for so long after one.
    # The relay may stop reading for 8 s to slow us, and answers only then.
    ping: float = 20.0
    ping_patience: float = 10.0
    # For what is posted to be written, then for the closing handshake.
    close: float = 2.0
    # Full jitter: a pause is anywhere between 0 and a ceiling that grows so.
    first_pause: float = 1.0
    growth: float = 1.5
    longest_pause: float = 60.0
    # A connection that stayed so long was a good one.
    stable: float = 10.0
    # After 1012, and at least after 1013 and 4029 without `retry_after_ms`.
    restart_pause: float = 1.0
    later_pause: float = 5.0
    # An agent that was replaced: two of them must not take turns for ever.
    replaced_pause: float = 60.0
    longest_replaced_pause: float = 15 * 60.0
    replaced_stable: float = 15 * 60.0
    # Believed of a relay's `retry_after_ms`, which may be nonsense.
    longest_retry_after: float = 24 * 3600.0


DEFAULT_TIMERS = Timers()


class Rule(Enum):
    AGAIN = "again"
    SOON = "soon"
    LATER = "later"
    REPLACED = "replaced"
    STOP = "stop"


# A relay under plain Daphne can send no code below 3000 but 1000: it adds 3000.
_DAPHNE = 3000

RULES: dict[int, Rule] = {
    CloseCode.RESTARTING: Rule.SOON,
    CloseCode.RESTARTING + _DAPHNE: Rule.SOON,
    CloseCode.TRY_LATER: Rule.LATER,
    CloseCode.TRY_LATER + _DAPHNE: Rule.LATER,
    CloseCode.TOO_MANY_FAILURES: Rule.LATER,
    CloseCode.REPLACED: Rule.REPLACED,
    CloseCode.UNAUTHORIZED: Rule.STOP,
    CloseCode.REVOKED: Rule.STOP,
}


def rule_of(code: int) -> Rule:
    """The rule of a close code; codes that nobody knows mean "connect again"."""
    return RULES.get(code, Rule.AGAIN)


@dataclass(frozen=True, slots=True)
class Again:
    """Come back in `seconds`; not before `not_before` seconds even if the user asks to."""

    seconds: float
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Stop:
    """Do not come back; unless `final`, the user may ask for it."""

    final: bool


class Backoff:
    """One role's record of failures. `now` is monotonic, in seconds."""

    __slots__ = (
        "_ceiling",
        "_failing_since",
        "_opened_at",
        "_random",
        "_replaced_pause",
        "_restarting",
        "_role",
        "_timers",
    )

    def __init__(
        self, role: Role, *, timers: Timers = DEFAULT_TIMERS, random: Random | None = None
    ) -> None:
        self._role = role
        self._timers = timers
        self._random = Random() if random is None else random
        self._opened_at: float | None = None
        self._replaced_pause = timers.replaced_pause
        self.reset()

    def reset(self) -> None:
        """Forget the failures: the user asked to come back."""
        self._ceiling = self._timers.first_pause
        self._failing_since: float | None = None
        self._restarting = False

    def opened(self, now: float) -> None:
        """A connection was logged in."""
        self._opened_at = now

    def failed(self, now: float, code: int, retry_after: float | None = None) -> Again | Stop:
        """The verdict on an end with this close code, or on an attempt that failed (1006).

        `retry_after` is in seconds, where the relay named a time.
        """
        self._judge_stay(now)
        rule = rule_of(code)
        if rule is Rule.STOP:
            return Stop(final=True)
        told = 0.0 if retry_after is None else min(retry_after, self._timers.longest_retry_after)
        if rule is Rule.REPLACED:
            if self._role is Role.PHONE:
                return Stop(final=False)
            return Again(max(told, self._next_replaced_pause()), told)
        at_least = self._timers.later_pause if rule is Rule.LATER and retry_after is None else told
        return Again(at_least + self._jitter(now, rule), told)

    def _judge_stay(self, now: float) -> None:
        if self._opened_at is None:
            return
        stayed = now - self._opened_at
        self._opened_at = None
        if stayed >= self._timers.stable:
            self.reset()
        if stayed >= self._timers.replaced_stable:
            self._replaced_pause = self._timers.replaced_pause

    def _next_replaced_pause(self) -> float:
        pause = self._replaced_pause
        self._replaced_pause = min(pause * 2, self._timers.longest_replaced_pause)
        return pause

    def _jitter(self, now: float, rule: Rule) -> float:
        if self._failing_since is None:
            self._failing_since = now
        if rule is Rule.SOON and not self._restarting:
            self._restarting = True
            return self._random.uniform(0.0, self._timers.restart_pause)
        # Where the dice fell low several times the ceiling has outgrown the outage.
        # No pause is longer than the outage so far (and a second), so that one of
        # four seconds, a restart, never costs more than five seconds after it.
        ceiling = min(self._ceiling, self._timers.first_pause + (now - self._failing_since))
        self._ceiling = min(self._ceiling * self._timers.growth, self._timers.longest_pause)
        return self._random.uniform(0.0, ceiling)
