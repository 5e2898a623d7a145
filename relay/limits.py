"""How much a role may send and how often it may come, with the clock passed in."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from coralmux.protocol import limits
from coralmux.protocol.types import RateClass, Role

# Sums of floats fall short of a whole token by less than this; without it a wait
# could be too small to move the clock.
_EPSILON = 1e-9


class TokenBucket:
    """Holds up to `burst` tokens and gains `rate` of them a second; a rate of 0 is no limit.

    Starts full. `now` is in seconds of any clock that never goes back.
    """

    __slots__ = ("_level", "_stamp", "burst", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._stamp = -math.inf

    def take(self, now: float) -> float:
        """Take one token: 0.0 if there was one, else the seconds until there will be.

        What is not there is not taken: asking again changes nothing.
        """
        if not self.rate:
            return 0.0
        level = self._level_at(now)
        self._stamp = now
        if level >= 1.0 - _EPSILON:
            self._level = level - 1.0
            return 0.0
        self._level = level
        return (1.0 - level) / self.rate

    def resize(self, rate: float, burst: float, now: float) -> None:
        """Change the limit; what was used stays used."""
        if (rate, burst) == (self.rate, self.burst):
            return
        used = self.burst - self._level_at(now)
        self.rate, self.burst = rate, burst
        self._level = max(0.0, burst - used)
        self._stamp = now

    def full(self, now: float) -> bool:
        """Whether the bucket remembers nothing, so that it may be forgotten."""
        return not self.rate or self._level_at(now) >= self.burst

    def _level_at(self, now: float) -> float:
        return min(self.burst, self._level + max(0.0, now - self._stamp) * self.rate)


class Window:
    """Lets `count` pass within any `seconds`; a bucket with that burst lets twice as many."""

    __slots__ = ("_seconds", "_stamps")

    def __init__(self, count: int, seconds: float) -> None:
        self._seconds = seconds
        self._stamps: deque[float] = deque([-math.inf] * count, count)

    def take(self, now: float) -> float:
        """As TokenBucket.take."""
        free_at = self._stamps[0] + self._seconds
        if now < free_at:
            return free_at - now
        self._stamps.append(now)
        return 0.0

    def full(self, now: float) -> bool:
        return now >= self._stamps[-1] + self._seconds


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates in force for a token. Messages, key exchanges, pings and invalid
    messages are per minute, stream frames per second; 0 is no limit."""

    phone_messages: int = limits.PHONE_MESSAGES_PER_MINUTE
    agent_messages: int = limits.AGENT_MESSAGES_PER_MINUTE
    stream_frames: int = limits.STREAM_FRAMES_PER_SECOND
    key_exchanges: int = limits.KEY_EXCHANGES_PER_MINUTE
    pings: int = limits.PINGS_PER_MINUTE
    invalid: int = limits.INVALID_PER_MINUTE

    def messages(self, role: Role) -> int:
        return self.phone_messages if role is Role.PHONE else self.agent_messages


class Allowance:
    """The buckets and the window of one token and role. They outlive connections, so that
    connecting again does not fill them."""

    __slots__ = ("_buckets", "replacements", "role")

    def __init__(self, role: Role, rates: Rates) -> None:
        self.role = role
        self._buckets = {
            kind: TokenBucket(rate, burst) for kind, (rate, burst) in self._shape(rates).items()
        }
        self.replacements = Window(limits.REPLACEMENTS_PER_MINUTE, 60.0)

    def _shape(self, rates: Rates) -> dict[RateClass, tuple[float, float]]:
        per_minute = {
            RateClass.MESSAGE: rates.messages(self.role),
            RateClass.KEY_EXCHANGE: rates.key_exchanges,
            RateClass.PING: rates.pings,
            RateClass.INVALID: rates.invalid,
        }
        shape = {kind: (count / 60, float(count)) for kind, count in per_minute.items()}
        burst = float(rates.stream_frames * limits.STREAM_BURST_SECONDS)
        shape[RateClass.STREAM] = (float(rates.stream_frames), burst)
        return shape

    def take(self, kind: RateClass, now: float) -> float:
        """0.0 if a frame of this class may pass now, else the seconds until one may."""
        return self._buckets[kind].take(now)

    def resize(self, rates: Rates, now: float) -> None:
        for kind, (rate, burst) in self._shape(rates).items():
            self._buckets[kind].resize(rate, burst, now)

    def full(self, now: float) -> bool:
        return self.replacements.full(now) and all(b.full(now) for b in self._buckets.values())
