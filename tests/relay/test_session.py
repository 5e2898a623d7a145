"""The rules of one connection, without a socket and with the clock in the test's hand."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralmux.protocol import envelope
from coralmux.protocol.close_codes import CloseCode
from coralmux.protocol.errors import ErrorCode
from coralmux.protocol.limits import MAX_AUTH_BYTES
from coralmux.protocol.types import RateClass, Role
from relay.limits import Allowance, Rates
from relay.session import (
    Action,
    Answer,
    Authenticate,
    Close,
    Forward,
    Hold,
    Refuse,
    Session,
    SessionMisuse,
    State,
)
from relay.usage import Usage, UsageBook

NOON = 1_800_000_000.0


def frame(type: str, id: str = "", payload: dict[str, Any] | None = None) -> bytes:
    return envelope.encode(type, payload, ts=0, id=id)


def auth(role: str = "phone", token: str = "t") -> bytes:
    return frame("auth", "auth-id", {"token": token, "role": role})


def usage(**numbers: int) -> Usage:
    quotas = {"daily_quota": 10**9, "monthly_quota": 10**9}
    defaults = {**quotas, "used_today": 0, "used_this_month": 0}
    return Usage(UsageBook(), 1, day=date(2027, 1, 15), **{**defaults, **numbers})


def open_session(
    role: Role = Role.PHONE, *, rates: Rates | None = None, quota: Usage | None = None, **more: Any
) -> Session:
    session = Session(**more)
    assert isinstance(session.receive(auth(role), 0.0, NOON), Authenticate)
    session.opened(Allowance(role, rates or Rates()), quota or usage())
    return session


# The first frame


def test_auth_asks_for_the_token_to_be_looked_up() -> None:
    session = Session()
    action = session.receive(auth("agent", "oc_pair_x"), 0.0, NOON)
    assert action == Authenticate("oc_pair_x", Role.AGENT, "auth-id")
    assert session.state is State.AUTHENTICATING
    assert "oc_pair_x" not in repr(action)


WRONG_TYPES = frame("auth", "x", {"token": 1, "role": "phone"})
HUGE = frame("auth", "x", {"token": "t" * MAX_AUTH_BYTES, "role": "phone"})


@pytest.mark.parametrize(
    ("first", "code", "error"),
    [
        (frame("ping", "x"), CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED),
        (frame("chat.send", "x"), CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED),
        (b"{", CloseCode.UNAUTHORIZED, ErrorCode.INVALID_MESSAGE),
        (frame("auth", "x"), CloseCode.UNAUTHORIZED, ErrorCode.INVALID_MESSAGE),
        (WRONG_TYPES, CloseCode.UNAUTHORIZED, ErrorCode.INVALID_MESSAGE),
        (HUGE, CloseCode.TOO_LARGE, ErrorCode.MESSAGE_TOO_LARGE),
    ],
)
def test_anything_but_a_good_auth_ends_the_connection_with_an_error(
    first: bytes, code: CloseCode, error: ErrorCode
) -> None:
    session = Session()
    action = session.receive(first, 0.0, NOON)
    assert isinstance(action, Close)
    assert (action.code, action.failed_auth) == (code, False)
    assert action.error is not None
    assert action.error.code is error
    assert action.error.ref == ("x" if first != b"{" else "")
    assert session.state is State.CLOSED


def test_only_a_bad_role_or_token_is_answered_auth_fail() -> None:
    session = Session()
    action = session.receive(auth("robot"), 0.0, NOON)
    assert isinstance(action, Close)
    assert (action.code, action.failed_auth) == (CloseCode.UNAUTHORIZED, True)
    assert action.error is not None
    assert action.error.ref == "auth-id"


# Open


def test_forwarded_types_are_forwarded_with_their_class() -> None:
    session = open_session(Role.AGENT)
    for name, kind in [
        ("chat.stream", RateClass.STREAM),
        ("agent.result", RateClass.MESSAGE),
        ("key_exchange", RateClass.KEY_EXCHANGE),
        ("file.new_idea", RateClass.MESSAGE),
    ]:
        assert session.receive(frame(name, "i"), 0.0, NOON) == Forward("i", kind)


def test_the_one_rule_of_direction_has_its_words() -> None:
    session = open_session(Role.PHONE)
    for name in ("chat.stream", "chat.done"):
        action = session.receive(frame(name, "i"), 0.0, NOON)
        assert action == Refuse(ErrorCode.INVALID_MESSAGE, "Phone cannot send stream messages", "i")


@pytest.mark.parametrize("name", ["auth", "auth.ok", "auth.fail", "status", "pong", "x.y", ""])
def test_what_is_never_forwarded_is_refused_by_name(name: str) -> None:
    action = open_session().receive(frame(name, "i"), 0.0, NOON)
    assert isinstance(action, Refuse)
    assert (action.code, action.ref) == (ErrorCode.INVALID_MESSAGE, "i")


def test_a_ping_is_answered_with_its_id() -> None:
    assert open_session().receive(frame("ping", "p"), 0.0, NOON) == Answer("p")


def test_not_utf8_closes_with_1007() -> None:
    session = open_session()
    assert session.receive(b'{"type":"\xff"}', 0.0, NOON) == Close(CloseCode.NOT_UTF8)
    assert session.state is State.CLOSED


def test_a_message_of_the_limit_passes_and_one_byte_more_does_not() -> None:
    exact = frame("chat.send", "i", {"t": "x" * 100})
    session = open_session(max_bytes=len(exact))
    assert isinstance(session.receive(exact, 0.0, NOON), Forward)
    action = session.receive(exact + b" ", 0.0, NOON)
    assert isinstance(action, Close)
    assert action.code is CloseCode.TOO_LARGE
    assert action.error is not None
    assert (action.error.code, action.error.ref) == (ErrorCode.MESSAGE_TOO_LARGE, "i")


def test_over_the_message_allowance_is_refused_at_once_with_a_true_wait() -> None:
    session = open_session(rates=Rates(phone_messages=2))
    for _ in range(2):
        assert isinstance(session.receive(frame("chat.send"), 0.0, NOON), Forward)
    action = session.receive(frame("chat.send", "late"), 0.0, NOON)
    assert isinstance(action, Refuse)
    assert (action.code, action.ref) == (ErrorCode.RATE_LIMITED, "late")
    assert action.retry_after_ms is not None
    then = action.retry_after_ms / 1000
    assert isinstance(session.receive(frame("chat.send", "late"), then, NOON), Forward)


@pytest.mark.parametrize(
    ("role", "name"), [(Role.AGENT, "chat.stream"), (Role.PHONE, "ping"), (Role.PHONE, "bad.type")]
)
def test_stream_ping_and_invalid_are_held_then_pass_or_are_given_up(role: Role, name: str) -> None:
    rates = Rates(stream_frames=1, pings=5, invalid=5)
    session = open_session(role, rates=rates)
    for _ in range(5):
        assert not isinstance(session.receive(frame(name, "i"), 0.0, NOON), Hold)
    held = session.receive(frame(name, "held"), 0.0, NOON)
    assert isinstance(held, Hold)
    with pytest.raises(SessionMisuse):
        session.receive(frame(name), 0.0, NOON)
    assert isinstance(session.retry(0.0, NOON), Hold)
    passed = session.retry(held.seconds, NOON)
    assert not isinstance(passed, Hold)
    again = session.receive(frame(name, "given up"), held.seconds, NOON)
    assert isinstance(again, Hold)
    refusal = session.give_up(held.seconds, NOON)
    assert isinstance(refusal, Refuse)
    assert (refusal.code, refusal.ref) == (ErrorCode.RATE_LIMITED, "given up")
    assert refusal.retry_after_ms is not None


def test_over_the_quota_is_refused_but_key_exchange_and_errors_pass() -> None:
    session = open_session(Role.AGENT, quota=usage(daily_quota=10, used_today=10))
    refused = session.receive(frame("chat.stream", "i"), 0.0, NOON)
    assert isinstance(refused, Refuse)
    assert (refused.code, refused.ref) == (ErrorCode.DAILY_QUOTA_EXCEEDED, "i")
    assert refused.retry_after_ms is not None
    then = NOON + refused.retry_after_ms / 1000
    for name in ("key_exchange", "chat.error"):
        small = frame(name, "i", {"x": "y" * 3000})
        large = frame(name, "i", {"x": "y" * 5000})
        assert isinstance(session.receive(small, 0.0, NOON), Forward)
        assert isinstance(session.receive(large, 0.0, NOON), Refuse)
    assert isinstance(session.receive(frame("chat.stream", "i"), 0.0, then), Forward)


# Any input


def test_illegal_calls_raise_and_change_nothing() -> None:
    session = Session()
    with pytest.raises(SessionMisuse):
        session.opened(Allowance(Role.PHONE, Rates()), usage())
    with pytest.raises(SessionMisuse):
        session.retry(0.0, NOON)
    with pytest.raises(SessionMisuse):
        session.give_up(0.0, NOON)
    assert session.state is State.NEW
    session.receive(auth(), 0.0, NOON)
    with pytest.raises(SessionMisuse):
        session.receive(auth(), 0.0, NOON)
    assert session.state is State.AUTHENTICATING


NAMES = st.sampled_from(
    ["chat.send", "chat.stream", "chat.done", "chat.error", "key_exchange", "ping", "pong", "auth",
     "file.chunk", "status", "odd.one", "agent.result"]
)  # fmt: skip
ENVELOPES = st.builds(
    lambda name, id, size: frame(name, id, {"x": "y" * size}),
    NAMES,
    st.text(max_size=8),
    st.integers(0, 400),
)
KEYS = st.sampled_from(["type", "id", "payload", "v"])
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)
FRAMES = ENVELOPES | st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())


@given(FRAMES)
def test_no_first_frame_raises(data: bytes) -> None:
    action = Session().receive(data, 0.0, NOON)
    assert isinstance(action, (Authenticate, Close))


@given(
    role=st.sampled_from(Role),
    arrivals=st.lists(st.tuples(FRAMES, st.floats(0, 2), st.booleans()), max_size=60),
    quota=st.integers(0, 5000),
)
def test_every_frame_gets_one_action_and_nothing_is_lost_doubled_or_reordered(
    role: Role, arrivals: list[tuple[bytes, float, bool]], quota: int
) -> None:
    """What goes in comes out once, in order: forwarded, answered, or refused by name."""
    counter = usage(daily_quota=quota)
    rates = Rates(phone_messages=5, agent_messages=5, stream_frames=1, pings=2, invalid=2)
    session = open_session(role, rates=rates, quota=counter, max_bytes=300)
    now = 0.0
    outcomes: list[tuple[bytes, Action]] = []
    for data, pause, patient in arrivals:
        now += pause
        action = session.receive(data, now, NOON)
        while isinstance(action, Hold):
            assert action.seconds > 0
            if not patient:
                action = session.give_up(now, NOON)
                break
            now += action.seconds
            action = session.retry(now, NOON)
        outcomes.append((data, action))
        assert isinstance(action, (Forward, Answer, Refuse, Close))
        if isinstance(action, Forward):
            counter.count(role, len(data), NOON)
        if isinstance(action, Close):
            break
    for data, action in outcomes:
        if isinstance(action, (Forward, Answer)):
            message = envelope.decode(data)
            assert action.ref == message.id
        elif isinstance(action, Refuse) and action.code is not ErrorCode.INVALID_MESSAGE:
            assert action.retry_after_ms is not None
            assert action.retry_after_ms > 0
    forwarded = sum(len(data) for data, action in outcomes if isinstance(action, Forward))
    assert forwarded == counter.used_today
