"""Keeps a reply inside what the relay allows: deltas wait a little and travel joined.

Theory of operation. One Pacer stands before everything that an agent sends under one
token: a bucket a little smaller than the relay's own. One Coalescer stands before each
reply and gathers what the model says. Whenever the model says something, or a delay has
passed, the caller asks the pacer; at 0.0 it takes the gathered text and sends it. A model
slower than the limit never waits, and a faster one is sent in fewer, longer deltas.
Neither knows a clock, a connection or a model.
"""

from __future__ import annotations

from collections import deque

from coralmux.protocol.limits import AGENT_MESSAGES_PER_MINUTE, STREAM_BURST_SECONDS

# Bytes (UTF-8) of one delta. Far above what a second of the fastest model says, so it
# cuts only what came in one piece; far below the relay's message limit even when JSON
# writes six bytes for a control character and base64 puts a third on top.
MAX_DELTA = 16 * 1024

# A relay that announces nothing counts everything that an agent sends: 120 a minute,
# which is 2 a second, the burst being the minute's worth. Both are undercut, since our
# clock and the relay's differ and frames bunch up on the way. 26 of the burst are kept
# for what must not wait (first deltas, chat.done, errors, results), so that a reply which
# eats up the rest still ends, and the next ones still begin.
_UNANNOUNCED_RATE = AGENT_MESSAGES_PER_MINUTE / 60 * 0.9
_UNANNOUNCED_BURST = 90.0
_UNANNOUNCED_RESERVE = 26.0

# Of n frames a second that are announced, 0.9 n are used. The relay's bucket holds five
# seconds' worth of them: one is used for bursts of deltas and two are kept for what must
# not wait; the last two stay untouched, so that frames which a bad network held up may
# arrive all at once.
_SHARE = 0.9
_RESERVE_SECONDS = STREAM_BURST_SECONDS - 3

# Sums of floats fall short of a whole frame by less than this. It has to be added where
# the wait is told as well: a wait of nearly nothing would not move the clock.
_EPSILON = 1e-6


class Pacer:
    """A token bucket for the frames that one token and role sends, over all its replies.

    `frames_per_second` is the sustained rate, None for no limit; `burst` frames may go at
    once, and urgent ones may use up `reserve` more. It outlives connections, as the
    relay's own buckets do: connecting again fills nothing. `now` is in seconds of any
    clock that never goes back.
    """

    __slots__ = ("_burst", "_held_until", "_level", "_rate", "_reserve", "_stamp")

    def __init__(
        self, frames_per_second: float | None, burst: float, *, reserve: float = 0.0
    ) -> None:
        if frames_per_second is not None and frames_per_second <= 0:
            raise ValueError("frames_per_second must be over 0, or None for no limit")
        if burst < 1 or reserve < 0:
            raise ValueError("burst must be at least 1, and reserve not below 0")
        self._rate = frames_per_second
        self._burst = burst
        self._reserve = reserve
        self._level = burst + reserve
        self._stamp: float | None = None
        self._held_until: float | None = None

    @classmethod
    def announced(cls, stream_frames_per_second: int | None) -> Pacer:
        """For the number that `auth.ok` gives under `limits`.

        0 is no limit, None means that nothing was announced: a relay of version 1.
        """
        rate, burst, reserve = _shape(stream_frames_per_second)
        return cls(rate, burst, reserve=reserve)

    def announce(self, stream_frames_per_second: int | None, now: float) -> None:
        """Take over the limit of a new connection; what was used stays used."""
        self._advance(now)
        used = self._burst + self._reserve - self._level
        self._rate, self._burst, self._reserve = _shape(stream_frames_per_second)
        self._level = max(0.0, self._burst + self._reserve - used)

    def delay(self, now: float, urgent: bool = False) -> float:
        """Seconds until a frame may go; 0.0 is now. Asking changes nothing.

        Urgent frames (first deltas, chat.done, errors) leave the reserve out of account:
        they wait only for what the relay would refuse anyway.
        """
        if self._held_until is not None and now < self._held_until:
            return self._held_until - now
        if self._rate is None:
            return 0.0
        missing = 1.0 + (0.0 if urgent else self._reserve) - self._level_at(now)
        return 0.0 if missing <= _EPSILON else missing / self._rate

    def take(self, now: float, urgent: bool = False) -> float:
        """Count a frame that goes now, and return 0.0; or take nothing and return `delay`."""
        if wait := self.delay(now, urgent):
            return wait
        self.sent(now)
        return 0.0

    def sent(self, now: float) -> None:
        """Count a frame that was sent without asking, such as a key exchange or a result.

        It may leave a debt, which later frames wait for.
        """
        self._advance(now)
        if self._rate is not None:
            self._level -= 1.0

    def limited(self, now: float, retry_after: float) -> None:
        """The relay refused a frame: others have used the allowance up.

        Nothing goes for `retry_after` seconds, after which the refused frame may, as an
        urgent one.
        """
        self._advance(now)
        until = now + max(0.0, retry_after)
        if self._held_until is None or until > self._held_until:
            self._held_until = until
        # The relay's bucket holds one frame then, and nobody knows of more.
        self._stamp = self._held_until
        self._level = 1.0

    def _advance(self, now: float) -> None:
        self._level = self._level_at(now)
        self._stamp = now if self._stamp is None else max(now, self._stamp)

    def _level_at(self, now: float) -> float:
        if self._rate is None or self._stamp is None:
            return self._level
        gained = max(0.0, now - self._stamp) * self._rate
        return min(self._burst + self._reserve, self._level + gained)


def _shape(announced: int | None) -> tuple[float | None, float, float]:
    """Rate, burst and reserve for what a relay announced."""
    if announced is None:
        return _UNANNOUNCED_RATE, _UNANNOUNCED_BURST, _UNANNOUNCED_RESERVE
    if announced <= 0:
        return None, 1.0, 0.0
    return announced * _SHARE, float(announced), float(announced * _RESERVE_SECONDS)


class Coalescer:
    """Gathers the text of one reply and hands it out as numbered deltas.

    The deltas joined are `full_text`, whatever the timing.
    """

    __slots__ = ("_half", "_seq", "_taken", "_waiting", "pending")

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, int]] = deque()  # pieces and their bytes
        self._taken: list[str] = []
        self._half = ""
        self._seq = 0
        self.pending = 0  # bytes (UTF-8) that wait to be taken

    def __repr__(self) -> str:
        return f"Coalescer(seq={self._seq}, pending={self.pending})"

    @property
    def urgent(self) -> bool:
        """Whether the next delta is the first, which is never to be delayed."""
        return self._seq == 0

    @property
    def full_text(self) -> str:
        """Everything that was added, what still waits included."""
        return "".join(self._taken) + "".join(piece for piece, _ in self._waiting)

    def add(self, text: str) -> None:
        """Add what the model said; nothing at all is no delta.

        Models hand on emoji cut in half, as lone surrogates, which no UTF-8 can carry.
        Halves that follow each other become one character again, also from one call to
        the next; a half without its other one becomes U+FFFD.
        """
        if self._half or not text.isascii():
            text = self._mended(self._half + text)
        for piece, size in _pieces(text):
            self._waiting.append((piece, size))
            self.pending += size

    def finish(self) -> None:
        """Nothing more comes: half a character that still waits for its other one is let go."""
        if self._half:
            self._half = ""
            self.add("\ufffd")

    def take(self) -> tuple[str, int] | None:
        """The next delta and its number from 1 on, or None if nothing waits.

        A delta has at most MAX_DELTA bytes; the rest stays for the next one.
        """
        if not self._waiting:
            return None
        delta, size = self._waiting.popleft()
        if self._waiting and size + self._waiting[0][1] <= MAX_DELTA:
            parts = [delta]
            while self._waiting and size + self._waiting[0][1] <= MAX_DELTA:
                part, more = self._waiting.popleft()
                parts.append(part)
                size += more
            delta = "".join(parts)
        self.pending -= size
        self._seq += 1
        self._taken.append(delta)
        return delta, self._seq

    def _mended(self, text: str) -> str:
        self._half = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return text


def _pieces(text: str) -> list[tuple[str, int]]:
    """The text in pieces of at most MAX_DELTA bytes, cut between characters."""
    data = text.encode()
    if len(data) <= MAX_DELTA:
        return [(text, len(data))] if data else []
    pieces = []
    start = 0
    while start < len(data):
        end = min(start + MAX_DELTA, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # inside a character
            end -= 1
        pieces.append((data[start:end].decode(), end - start))
        start = end
    return pieces
