"""The table of types against the contract in PROTOCOL.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coralmux.protocol import types
from coralmux.protocol.close_codes import REASONS, CloseCode
from coralmux.protocol.errors import ErrorCode, PeerCode
from coralmux.protocol.types import RateClass, Role, rate_class

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["chat.stream", "chat.done", "chat.tool_status", "chat.error"])
def test_an_agents_reply_counts_as_stream(name: str) -> None:
    assert rate_class(name, Role.AGENT) is RateClass.STREAM


@pytest.mark.parametrize("name", ["file.chunk", "file.ack"])
@pytest.mark.parametrize("role", list(Role))
def test_chunks_and_acknowledgements_count_as_stream_both_ways(name: str, role: Role) -> None:
    assert rate_class(name, role) is RateClass.STREAM


@pytest.mark.parametrize("name", ["chat.error", "chat.tool_status", "chat.send", "chat.future"])
def test_whatever_else_a_phone_sends_counts_as_message(name: str) -> None:
    assert rate_class(name, Role.PHONE) is RateClass.MESSAGE


@pytest.mark.parametrize("name", ["chat.stream", "chat.done"])
def test_a_phone_may_not_send_what_streams(name: str) -> None:
    assert rate_class(name, Role.PHONE) is None


@pytest.mark.parametrize("name", ["auth", "auth.ok", "auth.fail", "status", "ping", "pong"])
@pytest.mark.parametrize("role", list(Role))
def test_what_is_between_client_and_relay_is_never_forwarded(name: str, role: Role) -> None:
    assert rate_class(name, role) is None


@pytest.mark.parametrize("name", ["agent.new", "group.x", "system.y", "memory.z", "file.other"])
@pytest.mark.parametrize("role", list(Role))
def test_endpoints_may_grow_without_the_relay(name: str, role: Role) -> None:
    assert rate_class(name, role) is RateClass.MESSAGE


@pytest.mark.parametrize("name", ["", "chat", "Chat.send", "admin.x", "key_exchange2", "auth.x"])
def test_unknown_namespaces_are_not_forwarded(name: str) -> None:
    assert rate_class(name, Role.AGENT) is None


def test_every_close_code_has_a_reason_that_fits_a_close_frame() -> None:
    assert set(REASONS) == set(CloseCode)
    assert all(len(reason.encode()) <= 123 for reason in REASONS.values())


def test_protocol_page_names_every_type_error_and_close_code() -> None:
    page = (ROOT / "PROTOCOL.md").read_text()
    missing = [name for name in types.TYPES if f"`{name}`" not in page]
    missing += [code.value for code in (*ErrorCode, *PeerCode) if f"`{code.value}`" not in page]
    missing += [str(int(code)) for code in CloseCode if not re.search(rf"\b{code:d}\b", page)]
    assert not missing
