"""The policy that every page carries, and whose word on https counts."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory

from coralmux_site.middleware import content_security_policy, forwarded_scheme

pytestmark = pytest.mark.django_db

PAGES = ["/", "/admin/login/", "/api/docs", "/api/openapi.json", "/health", "/api/nothing", "/x"]


def policy_of(response: Any) -> dict[str, list[str]]:
    parts = [part.split() for part in response["Content-Security-Policy"].split(";")]
    return {part[0]: part[1:] for part in parts}


def check_policy(policy: dict[str, list[str]]) -> None:
    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == ["'self'"]
    assert policy["style-src"] == ["'self'"]
    assert policy["img-src"] == ["'self'", "data:"]
    assert policy["base-uri"] == ["'none'"]
    assert policy["frame-ancestors"] == ["'none'"]
    assert policy["form-action"] == ["'self'"]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_carries_the_strict_policy(path: str) -> None:
    check_policy(policy_of(Client().get(path)))


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_carries_it_over_asgi(path: str) -> None:
    check_policy(policy_of(await AsyncClient().get(path)))


@pytest.mark.parametrize("path", ["/", "/admin/login/", "/api/docs"])
def test_pages_have_nothing_inline_that_the_policy_would_stop(path: str) -> None:
    page = Client().get(path).content.decode()
    assert "<style" not in page
    assert " style=" not in page
    assert "javascript:" not in page
    for script in page.split("<script")[1:]:
        assert "src=" in script.split(">")[0] or "application/json" in script.split(">")[0]


def test_a_page_with_a_policy_of_its_own_keeps_it() -> None:
    middleware = content_security_policy(
        lambda _request: HttpResponse(headers={"Content-Security-Policy": "default-src 'self'"})
    )
    assert middleware(RequestFactory().get("/"))["Content-Security-Policy"] == "default-src 'self'"


@pytest.mark.parametrize(
    ("peer", "header", "secure"),
    [
        ("10.0.0.1", "https", True),
        ("10.0.0.1", "http", False),
        ("10.0.0.1", None, False),
        ("203.0.113.9", "https", False),
        ("", "https", False),
    ],
)
def test_only_trusted_proxies_say_that_a_request_came_by_https(
    settings: Any, peer: str, header: str | None, secure: bool
) -> None:
    settings.CORALMUX = {
        **settings.CORALMUX,
        "TRUSTED_PROXIES": [ipaddress.ip_network("10.0.0.0/8")],
    }
    headers = {} if header is None else {"X-Forwarded-Proto": header}
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR=peer)
    forwarded_scheme(lambda _request: HttpResponse())(request)
    assert request.is_secure() is secure
