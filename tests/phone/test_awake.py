"""The page that comes back from the background, where nobody told it what became of its line."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Page, WebSocketRoute, expect

from tests.phone.conftest import OpenContext
from tests.phone.harness import PHONE, SOON, Faults, ScriptedAgent, pair, say
from tests.support.process import relay_process

REFUSED = "ERR_CONNECTION_REFUSED|WebSocket connection to|ERR_CONNECTION_RESET"

# Milliseconds: a look takes 3 s, and a page that does not look asks after 25 s of silence.
AT_ONCE = 10_000.0


class Air:
    """Between the page and the relay: while it is not `dead`, everything that is sent arrives."""

    def __init__(self) -> None:
        self.sockets = 0
        self._dead: set[int] = set()

    async def carry(self, page: Page) -> None:
        await page.route_web_socket(re.compile("/ws"), self._socket)

    def die(self) -> None:
        """Of the sockets that are open, neither side hears anything more, not even an end."""
        self._dead |= set(range(1, self.sockets + 1))

    def _socket(self, page: WebSocketRoute) -> None:
        self.sockets += 1
        number = self.sockets
        relay = page.connect_to_server()

        def join(one: WebSocketRoute, other: WebSocketRoute) -> None:
            def message(data: str | bytes) -> None:
                if number not in self._dead:
                    other.send(data)

            async def close(code: int | None, reason: str | None) -> None:
                if number not in self._dead:
                    await other.close(code=code, reason=reason)

            one.on_message(message)
            one.on_close(close)

        join(page, relay)
        join(relay, page)


@pytest.mark.parametrize(
    "event",
    [
        "document.dispatchEvent(new Event('visibilitychange'))",
        "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))",
        "dispatchEvent(new Event('online'))",
        "dispatchEvent(new Event('offline'))",
    ],
    ids=["visible", "pageshow", "online", "offline"],
)
async def test_a_line_that_died_without_a_word_is_found_dead_and_replaced(
    page: Page, agent: ScriptedAgent, event: str
) -> None:
    air = Air()
    await air.carry(page)
    await pair(page, agent)
    await say(page, "Before")
    await expect(page.locator(".markdown")).to_have_text("You said: Before", timeout=SOON)
    assert air.sockets == 1
    air.die()
    assert await page.evaluate("document.visibilityState") == "visible"
    await page.evaluate(event)
    await say(page, "After")
    await expect(page.locator(".markdown").last).to_have_text("You said: After", timeout=AT_ONCE)
    assert air.sockets == 2
    assert [message.text for message in agent.asked] == ["Before", "After"]
    await expect(page.locator(".failure")).to_have_count(0)


async def test_a_page_that_comes_back_from_the_background_connects_at_once(
    open_profile: OpenContext, faults: Faults
) -> None:
    faults.allow(REFUSED)
    with relay_process() as relay:
        agent = ScriptedAgent(relay)
        await agent.start()
        try:
            base = f"http://127.0.0.1:{relay.port}"
            async with open_profile(**{**PHONE, "base_url": base}) as context:
                page = await context.new_page()
                await pair(page, agent)
                await asyncio.to_thread(relay.terminate)
                # There is time left that nobody who has come back wants to wait.
                await expect(page.locator(".banner [aria-hidden]")).to_have_text(
                    re.compile(r"Reconnecting in ([3-9]|\d\d) s"), timeout=2 * SOON
                )
                async with page.expect_websocket(timeout=1_500):
                    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
                await asyncio.to_thread(relay.start)
                await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
                await expect(page.locator(".banner")).to_be_empty(timeout=2 * SOON)
        finally:
            await agent.stop()
