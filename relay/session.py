"""The rules of one connection, as a pure machine: frames in, actions out.

Theory of operation. A session is NEW until its first frame, which must be
`auth`; AUTHENTICATING while somebody looks the token up; OPEN once that ended
well; CLOSED for good after that. Each frame gets exactly one action:

    NEW            auth                   -> Authenticate     AUTHENTICATING
    NEW            anything else          -> Close(4001)      CLOSED
    AUTHENTICATING opened()                                   OPEN
    OPEN           a forwarded type       -> Forward
    OPEN           ping                   -> Answer
    OPEN           a broken frame         -> Refuse(INVALID_MESSAGE)
    OPEN           over an allowance      -> Refuse(RATE_LIMITED), or Hold
    OPEN           over the quota         -> Refuse(..._QUOTA_EXCEEDED)
    any            not UTF-8              -> Close(1007)      CLOSED
    any            too large              -> Close(1009)      CLOSED

Hold means "not yet": the frame stays with the session, and the caller asks
again by `retry`, or ends the wait by `give_up`, which refuses the frame. A held
frame must get its action before the next one is received.

What the machine deliberately does not know: sockets, clocks (every `now` and
`wall` is passed in), the database, and whether the peer is there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import msgspec

from coralmux.protocol import envelope
from coralmux.protocol.close_codes import CloseCode
from coralmux.protocol.errors import ErrorCode, InvalidMessage, NotUtf8
from coralmux.protocol.limits import MAX_AUTH_BYTES, MAX_MESSAGE_BYTES, QUOTA_EXEMPT_BYTES
from coralmux.protocol.types import (
    FORWARDED,
    STREAM_ONLY_FROM_AGENT,
    RateClass,
    Role,
    rate_class,
)

# Classes whose sender is slowed instead of refused at once.
_SLOWED = frozenset({RateClass.STREAM, RateClass.PING, RateClass.INVALID})

# What passes although the quota is used up, so that nobody waits for ever.
_QUOTA_EXEMPT = frozenset({"key_exchange", "chat.error"})

Frame = bytes | bytearray


class State(Enum):
    NEW = "new"
    AUTHENTICATING = "authenticating"
    OPEN = "open"
    CLOSED = "closed"


class SessionMisuse(RuntimeError):
    """The caller did something the state does not allow: a bug on our side."""


class Allowed(Protocol):
    """The allowance of the session's token and role (relay.limits.Allowance)."""

    def take(self, kind: RateClass, now: float) -> float: ...


class Exhaustion(Protocol):
    @property
    def code(self) -> ErrorCode: ...
    @property
    def seconds(self) -> float: ...


class Quota(Protocol):
    """The quota of the session's token (relay.usage.Usage)."""

    def exhausted(self, wall: float) -> Exhaustion | None: ...


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Look the token up, then call `opened` or close."""

    token: str = field(repr=False)
    role: Role
    ref: str


@dataclass(slots=True)
class Forward:
    """Hand the frame to the peer, byte for byte."""

    ref: str
    kind: RateClass


@dataclass(frozen=True, slots=True)
class Answer:
    """Send a `pong` that carries the ping's id."""

    ref: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Send a `chat.error`; the frame goes nowhere."""

    code: ErrorCode
    message: str
    ref: str = ""
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Ask again in so many seconds, reading nothing more meanwhile."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Close:
    """Send the error, if any (`auth.fail` where `failed_auth`), then the close frame."""

    code: CloseCode
    error: Refuse | None = None
    failed_auth: bool = False


Action = Authenticate | Forward | Answer | Refuse | Hold | Close


class _AuthPayload(msgspec.Struct):
    token: str
    role: str


_auth_decoder = msgspec.json.Decoder(_AuthPayload)


class Session:
    """One connection's rules. `now` is monotonic, `wall` Unix time, both in seconds."""

    __slots__ = (
        "_allowance",
        "_forwarded",
        "_held",
        "_max_bytes",
        "_quota",
        "role",
        "state",
    )

    def __init__(self, *, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.state = State.NEW
        self.role: Role | None = None
        self._max_bytes = max_bytes
        self._held: tuple[RateClass, envelope.Envelope | InvalidMessage, int] | None = None

    def opened(self, allowance: Allowed, quota: Quota, *, max_bytes: int | None = None) -> None:
        """The token was good: from now on frames are forwarded."""
        if self.state is not State.AUTHENTICATING or self.role is None:
            raise SessionMisuse(f"opened in state {self.state.value}")
        self._allowance = allowance
        self._quota = quota
        self._forwarded = FORWARDED[self.role]
        if max_bytes is not None:
            self._max_bytes = max_bytes
        self.state = State.OPEN

    def close(self) -> None:
        self._held = None
        self.state = State.CLOSED

    def receive(self, data: Frame, now: float, wall: float) -> Action:
        """The action for the next frame."""
        if self._held is not None:
            raise SessionMisuse("a frame is held")
        if self.state is State.OPEN:
            size = len(data)
            if size > self._max_bytes:
                return self.too_large(data)
            try:
                message = envelope.decode(data)
            except NotUtf8:
                return self._end(Close(CloseCode.NOT_UTF8))
            except InvalidMessage as error:
                return self._admit_invalid(error, now)
            kind = self._forwarded.get(message.type)
            if kind is None:
                return self._unusual(message, size, now, wall)
            return self._admit(kind, message, size, now, wall)
        if self.state is State.NEW:
            return self._first(data)
        raise SessionMisuse(f"a frame in state {self.state.value}")

    def too_large(self, head: Frame) -> Close:
        """The action for a message over the limit, of which only the beginning may be there."""
        what = "The first message" if self.state is State.NEW else "The message"
        limit = MAX_AUTH_BYTES if self.state is State.NEW else self._max_bytes
        error = Refuse(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"{what} is over the limit of {limit} bytes. Send it in smaller parts.",
            envelope.peek_id(head),
        )
        return self._end(Close(CloseCode.TOO_LARGE, error))

    def retry(self, now: float, wall: float) -> Action:
        """The action for the held frame, asked again."""
        if self._held is None:
            raise SessionMisuse("no frame is held")
        kind, message, size = self._held
        self._held = None
        if isinstance(message, InvalidMessage):
            return self._admit_invalid(message, now)
        return self._admit(kind, message, size, now, wall)

    def give_up(self, now: float, wall: float) -> Action:
        """The held frame asked for the last time: refused, unless it may pass just now.

        Its sender was slowed for as long as is bearable.
        """
        if self._held is None:
            raise SessionMisuse("no frame is held")
        kind, message, _ = self._held
        action = self.retry(now, wall)
        if isinstance(action, Hold):
            self._held = None
            ref = message.ref if isinstance(message, InvalidMessage) else message.id
            return _rate_limited(kind, ref, action.seconds)
        return action

    # States other than OPEN

    def _first(self, data: Frame) -> Action:
        if len(data) > MAX_AUTH_BYTES:
            return self.too_large(data)
        try:
            message = envelope.decode(data)
            if message.type != "auth":
                return self._unauthorized("Send auth first, with a token and a role.", message.id)
            payload = _auth_decoder.decode(message.payload)
        except NotUtf8:
            return self._end(Close(CloseCode.NOT_UTF8))
        except InvalidMessage as error:
            refusal = Refuse(ErrorCode.INVALID_MESSAGE, str(error), error.ref)
            return self._end(Close(CloseCode.UNAUTHORIZED, refusal))
        except msgspec.MsgspecError:
            text = "auth needs a payload with token and role, both strings."
            refusal = Refuse(ErrorCode.INVALID_MESSAGE, text, message.id)
            return self._end(Close(CloseCode.UNAUTHORIZED, refusal))
        try:
            self.role = Role(payload.role)
        except ValueError:
            text = 'The role must be "phone" or "agent".'
            return self.auth_failed(text, message.id)
        self.state = State.AUTHENTICATING
        return Authenticate(payload.token, self.role, message.id)

    def auth_failed(self, text: str, ref: str, code: CloseCode = CloseCode.UNAUTHORIZED) -> Close:
        """The action when the token or role is no good: clients give up for good on it."""
        refusal = Refuse(ErrorCode.UNAUTHORIZED, text, ref)
        return self._end(Close(code, refusal, failed_auth=True))

    def _unauthorized(self, text: str, ref: str) -> Close:
        return self._end(Close(CloseCode.UNAUTHORIZED, Refuse(ErrorCode.UNAUTHORIZED, text, ref)))

    def _end(self, action: Close) -> Close:
        self.close()
        return action

    # The state OPEN

    def _unusual(self, message: envelope.Envelope, size: int, now: float, wall: float) -> Action:
        """A type that is not in the table of what this role may have forwarded."""
        name = message.type
        assert self.role is not None
        if name == "ping":
            return self._admit(RateClass.PING, message, size, now, wall)
        if self.role is Role.PHONE and name in STREAM_ONLY_FROM_AGENT:
            text = "Phone cannot send stream messages"
        elif name == "auth":
            text = "This connection is authenticated already."
        elif (kind := rate_class(name, self.role)) is not None:
            return self._admit(kind, message, size, now, wall)
        elif name in ("auth.ok", "auth.fail", "status", "pong"):
            text = "Only the relay sends messages of this type."
        else:
            text = (
                "Unknown message type. It must begin with chat., agent., group., system., "
                "memory. or file., or be key_exchange or ping."
            )
        return self._admit_invalid(InvalidMessage(text, ref=message.id), now)

    def _admit(
        self, kind: RateClass, message: envelope.Envelope, size: int, now: float, wall: float
    ) -> Action:
        wait = self._allowance.take(kind, now)
        if wait:
            if kind in _SLOWED:
                self._held = (kind, message, size)
                return Hold(wait)
            return _rate_limited(kind, message.id, wait)
        if kind is RateClass.PING:
            return Answer(message.id)
        exhausted = self._quota.exhausted(wall)
        if exhausted and not (size <= QUOTA_EXEMPT_BYTES and message.type in _QUOTA_EXEMPT):
            return quota_refusal(exhausted, message.id)
        return Forward(message.id, kind)

    def _admit_invalid(self, error: InvalidMessage, now: float) -> Action:
        wait = self._allowance.take(RateClass.INVALID, now)
        if wait:
            self._held = (RateClass.INVALID, error, 0)
            return Hold(wait)
        return Refuse(ErrorCode.INVALID_MESSAGE, str(error), error.ref)


def quota_refusal(exhausted: Exhaustion, ref: str = "") -> Refuse:
    """The error for a used-up quota, with the time at which it starts anew."""
    span = "day" if exhausted.code is ErrorCode.DAILY_QUOTA_EXCEEDED else "month"
    text = (
        f"The bandwidth quota of this {span} is used up. It starts anew with the next UTC {span}."
    )
    return Refuse(exhausted.code, text, ref, _milliseconds(exhausted.seconds))


def _rate_limited(kind: RateClass, ref: str, wait: float) -> Refuse:
    what = {
        RateClass.MESSAGE: "messages",
        RateClass.STREAM: "stream frames",
        RateClass.KEY_EXCHANGE: "key exchanges",
        RateClass.PING: "pings",
        RateClass.INVALID: "invalid messages",
    }[kind]
    ms = _milliseconds(wait)
    text = f"Too many {what}. Send this again in {math.ceil(ms / 1000)} s."
    return Refuse(ErrorCode.RATE_LIMITED, text, ref, ms)


def _milliseconds(seconds: float) -> int:
    # One more than it takes: at the time that is named, the message passes.
    return math.ceil(seconds * 1000) + 1
