"""Pairings that are neither connected nor over: busy agents, and other tabs that have the place."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from playwright.async_api import Page, WebSocket, expect

from tests.phone.conftest import OpenContext
from tests.phone.harness import PHONE, SOON, ScriptedAgent, button, pair, row, say, to_list
from tests.phone.looks import look
from tests.support import client
from tests.support.process import RelayProcess
from tests.support.waiting import eventually

SILENT = "The agent is there but does not answer"


@contextlib.asynccontextmanager
async def silence(relay: RelayProcess, agent: ScriptedAgent) -> AsyncIterator[None]:
    """In the agent's place, somebody who never says a word."""
    await agent.stop()
    async with client.log_in(relay.url, agent.link.token, "agent"):
        yield


async def wait_in_vain(page: Page) -> None:
    """Until no answer is expected any more. Half a minute, which the page's clock skips."""
    for _ in range(4):
        await page.clock.fast_forward(11_000)
        # What the page sends then goes through the relay before its time goes on.
        await page.evaluate("new Promise((done) => requestAnimationFrame(done))")


async def test_an_agent_that_does_not_answer_is_waited_for(
    page: Page, relay: RelayProcess, agent: ScriptedAgent
) -> None:
    await page.clock.install()
    await pair(page, agent)
    async with silence(relay, agent):
        banner = page.locator(".chat .banner")
        await expect(banner).to_contain_text("Connecting", timeout=SOON)
        await wait_in_vain(page)
        await expect(banner).to_contain_text(SILENT, timeout=SOON)
        await expect(button(page, "Now")).to_be_visible()
        await expect(button(page, "Pair again")).to_have_count(0)
        await look(page, "no-answer", wide=True)
        await say(page, "When you have time")
        await expect(page.get_by_text("Waiting", exact=True)).to_be_visible()
        await to_list(page)
        await expect(row(page, "Agent")).to_contain_text("The agent does not answer")
        await row(page, "Agent").get_by_role("button").first.click()
    # One that left needs not answer.
    await expect(banner).to_contain_text("The agent is offline", timeout=SOON)
    await agent.start()
    await expect(page.get_by_text("You said: When you have time")).to_be_visible(timeout=SOON)
    assert [message.text for message in agent.asked] == ["When you have time"]


async def test_a_new_pairing_waits_for_an_agent_that_does_not_answer(
    page: Page, relay: RelayProcess, agent: ScriptedAgent
) -> None:
    await page.clock.install()
    async with silence(relay, agent):
        await page.goto(agent.url)
        sent: list[object] = []

        def follow(line: WebSocket) -> None:
            line.on("framesent", lambda frame: sent.append(frame))

        page.on("websocket", follow)
        await button(page, "Connect").click()
        # Its token, and the first step of the handshake.
        await eventually(lambda: len(sent) == 2)
        await wait_in_vain(page)
        await expect(page.get_by_role("heading", name=SILENT)).to_be_visible(timeout=SOON)
        await expect(button(page, "Remove this pairing")).to_have_count(0)
    await expect(page.get_by_role("heading", name="The agent is not there")).to_be_visible(
        timeout=SOON
    )
    await agent.start()
    await expect(button(page, "Open chat")).to_be_enabled(timeout=SOON)


async def test_a_new_pairing_that_another_tab_has_taken_is_taken_back(
    relay: RelayProcess, agent: ScriptedAgent, open_profile: OpenContext
) -> None:
    await agent.stop()
    async with open_profile(**PHONE) as context:
        page, other = await context.new_page(), await context.new_page()
        await page.goto(agent.url)
        await button(page, "Connect").click()
        await expect(page.get_by_role("heading", name="The agent is not there")).to_be_visible(
            timeout=SOON
        )
        await other.goto("/phone")
        await expect(page.get_by_role("alert")).to_contain_text("open in another tab", timeout=SOON)
        await expect(button(page, "Remove this pairing")).to_have_count(0)
        await look(page, "held", wide=True)
        await button(page, "Use here").click()
        await expect(page.get_by_role("heading", name="The agent is not there")).to_be_visible()
        await agent.start()
        await expect(button(page, "Open chat")).to_be_enabled(timeout=SOON)
