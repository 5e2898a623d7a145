"""Proxies, from the environment or by hand, and what is said of those that fail."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest

from tests.client.connection.dialling import connected, connection_to, failure, greet_and_wait
from tests.client.servers import certificate, connect_proxy, scripted
from tests.support.process import free_port


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "no_proxy", "ws_proxy", "wss_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


async def test_the_environments_proxy_is_used_without_tls(no_proxies: pytest.MonkeyPatch) -> None:
    async with scripted(greet_and_wait) as relay, connect_proxy() as proxy:
        no_proxies.setenv("http_proxy", proxy.url)
        async with connected(f"ws://relay.invalid:{relay.port}/ws", proxy=True):
            assert proxy.asked == [f"relay.invalid:{relay.port}"]


async def test_the_environments_proxy_is_used_and_tls_is_verified_through_it(
    no_proxies: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, context = certificate(tmp_path, name="relay.invalid")
    trusting = ssl.create_default_context(cafile=str(file))
    async with (
        scripted(greet_and_wait, ssl_context=context) as relay,
        connect_proxy() as proxy,
    ):
        no_proxies.setenv("https_proxy", proxy.url)
        url = f"wss://relay.invalid:{relay.port}/ws"
        async with connected(url, proxy=True, ssl=trusting):
            assert proxy.asked == [f"relay.invalid:{relay.port}"]
        assert "self-signed" in (await failure(connection_to(url, proxy=True))).cause


async def test_no_proxy_makes_an_exception(no_proxies: pytest.MonkeyPatch) -> None:
    async with scripted(greet_and_wait) as relay, connect_proxy() as proxy:
        no_proxies.setenv("http_proxy", proxy.url)
        no_proxies.setenv("no_proxy", "127.0.0.1")
        async with connected(relay.url, proxy=True):
            assert proxy.asked == []


async def test_a_proxy_given_by_hand_is_used(no_proxies: pytest.MonkeyPatch) -> None:
    async with (
        scripted(greet_and_wait) as relay,
        connect_proxy() as proxy,
        connected(f"ws://relay.invalid:{relay.port}/ws", proxy=proxy.url),
    ):
        assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (b"407 Proxy Authentication Required", "user name and password"),
        (b"403 Forbidden", "(HTTP 403)"),
    ],
)
async def test_a_proxy_that_refuses_is_named(
    no_proxies: pytest.MonkeyPatch, refusal: bytes, words: str
) -> None:
    async with connect_proxy(refuse_with=refusal) as proxy:
        no_proxies.setenv("http_proxy", proxy.url)
        cause = (await failure(connection_to("ws://relay.invalid/ws", proxy=True))).cause
        assert "proxy" in cause
        assert words in cause


async def test_a_proxy_that_is_not_there_is_named(no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("http_proxy", f"http://user:hidden@127.0.0.1:{free_port()}")
    cause = (await failure(connection_to("ws://relay.invalid/ws", proxy=True))).cause
    assert "it may be the proxy" in cause
    assert "hidden" not in cause


async def test_an_address_that_is_no_proxy_is_named_without_its_password(
    no_proxies: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    no_proxies.setenv("http_proxy", "gopher://user:hidden@127.0.0.1:70")
    cause = (await failure(connection_to("ws://relay.invalid/ws", proxy=True))).cause
    assert "Correct https_proxy" in cause
    assert "hidden" not in cause + caplog.text
