from __future__ import annotations

import ipaddress

import pytest
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from pairing import addresses

PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


def client(peer: str | None, forwarded: str | None, trusted: object = PROXIES) -> str:
    return addresses.client_address(peer=peer, forwarded=forwarded, trusted=trusted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.0.0.7", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.7", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "nonsense, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("::ffff:203.0.113.9", None, "203.0.113.9"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", None, "fe80::1"),
        (None, "198.51.100.1", "unknown"),
        ("", "198.51.100.1", "unknown"),
        ("/run/socket", None, "unknown"),
    ],
)
def test_forwarded_headers_count_as_far_as_trusted_proxies_wrote_them(
    peer: str | None, forwarded: str | None, expected: str
) -> None:
    assert client(peer, forwarded) == expected


def test_nobody_is_trusted_by_default() -> None:
    assert client("10.0.0.1", "198.51.100.1", trusted=[]) == "10.0.0.1"


@given(peer=st.text() | st.none(), forwarded=st.text() | st.none())
def test_garbage_never_raises(peer: str | None, forwarded: str | None) -> None:
    found = client(peer, forwarded)
    assert found == "unknown" or ipaddress.ip_address(found)
    assert addresses.limit_key(found)


@given(
    forwarded=st.lists(st.ip_addresses().map(str) | st.text(max_size=5)).map(",".join),
    peer=st.ip_addresses(network="10.0.0.0/8").map(str),
)
def test_an_address_that_a_trusted_proxy_saw_cannot_be_forged_from_the_left(
    forwarded: str, peer: str
) -> None:
    assert client(peer, f"{forwarded},198.51.100.1") == "198.51.100.1"


def test_ipv6_is_limited_by_its_64() -> None:
    assert addresses.limit_key("2001:db8:1:2::1") == addresses.limit_key("2001:db8:1:2:ffff::9")
    assert addresses.limit_key("2001:db8:1:2::1") != addresses.limit_key("2001:db8:1:3::1")


def test_ipv4_is_limited_by_address_mapped_or_not() -> None:
    assert addresses.limit_key("203.0.113.9") == addresses.limit_key("::ffff:203.0.113.9")
    assert addresses.limit_key("203.0.113.9") != addresses.limit_key("203.0.113.10")


def test_scope_and_request_tell_the_same_address(coralmux: object) -> None:
    coralmux(TRUSTED_PROXIES=PROXIES)  # type: ignore[operator]
    scope = {
        "client": ("10.0.0.1", 5),
        "headers": [(b"x-forwarded-for", b"1.1.1.1"), (b"X-Forwarded-For", b"198.51.100.1")],
    }
    request = RequestFactory().get(
        "/", headers={"X-Forwarded-For": "1.1.1.1, 198.51.100.1"}, REMOTE_ADDR="10.0.0.1"
    )
    assert addresses.of_scope(scope) == addresses.of_request(request) == "198.51.100.1"
    assert addresses.of_login(request) == "198.51.100.1"


def test_a_scope_without_a_client_is_unknown() -> None:
    assert addresses.of_scope({"client": None, "headers": []}) == "unknown"
    assert addresses.of_scope({}) == "unknown"


def test_axes_gets_no_address_rather_than_a_word() -> None:
    assert addresses.of_login(RequestFactory().get("/", REMOTE_ADDR="")) is None
