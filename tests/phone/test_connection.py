"""How the chat tells of its connection, and what happens to messages meanwhile."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path

from playwright.async_api import Page, WebSocketRoute, expect

import coralmux
from tests.bridge.bridges import bridge
from tests.phone.conftest import OpenContext
from tests.phone.harness import PHONE, SOON, Faults, ScriptedAgent, button, over, pair, say
from tests.phone.looks import look
from tests.phone.remembering import Remembering
from tests.support.process import RelayProcess, relay_process

REFUSED = "ERR_CONNECTION_REFUSED|WebSocket connection to|ERR_CONNECTION_RESET"


async def test_messages_wait_while_the_agent_is_away_and_go_out_in_order(
    page: Page, agent: ScriptedAgent
) -> None:
    await pair(page, agent)
    banner = page.locator(".banner")
    await expect(banner).to_be_empty()
    await agent.stop()
    await expect(banner).to_contain_text("The agent is offline.")
    await expect(page.locator(".standing")).to_contain_text("Offline")
    for word in ("one", "two", "three"):
        await say(page, word)
    await expect(page.locator(".message.waiting")).to_have_count(3)
    await expect(page.locator(".message.waiting .state").first).to_have_text("Waiting")
    await look(page, "agent-offline", wide=True)
    await page.reload()
    await expect(page.locator(".message.waiting")).to_have_count(3)
    await agent.start()
    await expect(page.locator(".markdown")).to_have_count(3, timeout=SOON)
    await expect(page.locator(".message.waiting")).to_have_count(0)
    await expect(banner).to_be_empty()
    assert [message.text for message in agent.asked] == ["one", "two", "three"]


async def test_the_relay_restarts_amid_an_answer_and_the_page_comes_back(
    open_profile: OpenContext, faults: Faults
) -> None:
    faults.allow(REFUSED)
    with relay_process() as relay:
        agent = ScriptedAgent(relay)
        begun = asyncio.Event()

        @agent.answers
        async def slow(message: coralmux.ChatMessage) -> AsyncIterator[str]:
            yield "It was a dark"
            begun.set()
            await asyncio.Event().wait()

        await agent.start()
        try:
            base = f"http://127.0.0.1:{relay.port}"
            async with open_profile(**{**PHONE, "base_url": base}) as context:
                page = await context.new_page()
                await pair(page, agent)
                await say(page, "Tell me a story")
                await asyncio.wait_for(begun.wait(), SOON / 1000)
                await expect(page.locator(".markdown")).to_have_text("It was a dark")
                await asyncio.to_thread(relay.terminate)
                banner = page.locator(".banner")
                await expect(banner).to_contain_text("Reconnecting", timeout=SOON)
                # It counts down for the eye alone.
                await expect(banner.locator("[aria-hidden]")).to_have_text(
                    re.compile(r"Reconnecting in \d+ s"), timeout=SOON
                )
                await expect(banner.locator(".visually-hidden")).to_have_text("Reconnecting…")
                await look(page, "reconnecting", wide=True)
                agent.answers(lambda message: "It was a bright morning.")
                await asyncio.to_thread(relay.start)
                await expect(banner).to_be_empty(timeout=2 * SOON)
                # The answer that was cut says so, and can be asked for again.
                await expect(page.locator(".failure")).to_be_visible(timeout=SOON)
                await page.get_by_role("button", name="Ask again").click()
                await expect(page.locator(".markdown").last).to_have_text(
                    "It was a bright morning.", timeout=2 * SOON
                )
                await expect(page.locator(".failure")).to_have_count(0)
        finally:
            await agent.stop()


# Goes on once it may, whoever listens.
STORY = """\
import pathlib, time
print("It was a dark", end="", flush=True)
while not pathlib.Path("morning").exists():
    time.sleep(0.05)
print(" and stormy night.", end="")
"""


async def test_an_answer_that_a_bridge_ends_while_the_relay_restarts_is_whole(
    open_profile: OpenContext, faults: Faults, tmp_path: Path
) -> None:
    faults.allow(REFUSED)
    (tmp_path / "story.py").write_text(STORY)
    command = json.dumps([sys.executable, "story.py"])
    config = f'backend = "command"\n[command]\ncommand = {command}\n'
    with relay_process() as relay:
        base = f"http://127.0.0.1:{relay.port}"
        async with (
            bridge(relay, tmp_path, config) as there,
            open_profile(**{**PHONE, "base_url": base}) as context,
        ):
            page = await context.new_page()
            await page.goto(there.links[0].web())
            await button(page, "Connect").click()
            await button(page, "Open chat").click()
            await say(page, "Tell me a story")
            answer = page.locator(".markdown")
            await expect(answer).to_have_text("It was a dark", timeout=SOON)
            await asyncio.to_thread(relay.terminate)
            await expect(page.locator(".banner")).to_contain_text("Reconnecting", timeout=SOON)
            (tmp_path / "morning").touch()
            await asyncio.to_thread(relay.start)
            await expect(page.locator(".banner")).to_be_empty(timeout=2 * SOON)
            await expect(answer).to_have_text("It was a dark and stormy night.", timeout=2 * SOON)
            await over(page)
            await expect(page.locator(".message")).to_have_count(2)
            await expect(page.locator(".failure")).to_have_count(0)


async def test_now_comes_back_at_once(open_profile: OpenContext, faults: Faults) -> None:
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
                # The pauses grow; in one that is long nothing would happen by itself.
                banner = page.locator(".banner")
                counted = banner.locator("[aria-hidden]")
                await expect(counted).to_have_text(
                    re.compile(r"Reconnecting in ([4-9]|\d\d) s"), timeout=4 * SOON
                )
                await asyncio.to_thread(relay.start)
                began = time.monotonic()
                await banner.get_by_role("button", name="Now").click()
                await expect(page.locator(".standing .dot.online")).to_be_visible(timeout=SOON)
                assert time.monotonic() - began < 3
        finally:
            await agent.stop()


async def test_a_reload_amid_an_answer_loses_nothing_of_it(page: Page, relay: RelayProcess) -> None:
    answer = page.locator(".markdown")
    async with Remembering(relay, "It was a dark") as agent:
        await pair(page, agent)
        await say(page, "Tell me a story")
        await expect(answer).to_have_text("It was a dark", timeout=SOON)
        await page.reload()
        # How much of it was written in the last moment nobody knows.
        agent.remember("assistant", "It was a dark and stormy night.")
        await expect(answer).to_have_text("It was a dark and stormy night.", timeout=2 * SOON)
        await over(page)
        await expect(page.locator(".message")).to_have_count(2)
        assert [message.text for message in agent.asked] == ["Tell me a story"]


async def test_a_pairing_that_is_revoked_says_so_at_once_and_keeps_what_was_said(
    page: Page, agent: ScriptedAgent, relay: RelayProcess
) -> None:
    await pair(page, agent)
    await say(page, "Hello")
    await expect(page.locator(".markdown")).to_have_text("You said: Hello")
    await agent.stop()
    token = urllib.parse.quote(agent.link.token)
    status, _ = await asyncio.to_thread(relay.http, "DELETE", f"/api/v1/pair/{token}", admin=True)
    assert status == 204
    banner = page.locator(".banner")
    await expect(banner).to_contain_text("This pairing was revoked.")
    await expect(banner.get_by_role("button", name="Pair again")).to_be_visible()
    field = page.get_by_role("textbox", name="Message")
    await expect(field).to_be_disabled()
    await expect(field).to_have_attribute("placeholder", "Messages cannot be sent here.")
    await expect(page.locator(".markdown")).to_have_text("You said: Hello")
    await look(page, "revoked", wide=True)


async def test_of_two_tabs_the_newest_serves_and_the_other_takes_it_back(
    page: Page, agent: ScriptedAgent
) -> None:
    await pair(page, agent)
    await say(page, "one")
    await expect(page.locator(".markdown")).to_have_text("You said: one")
    second = await page.context.new_page()
    await second.goto("/phone")
    await second.get_by_role("button", name=re.compile("^online|Agent")).first.click()
    await expect(second.locator(".markdown")).to_have_text("You said: one")
    banner = page.locator(".banner")
    await expect(banner).to_contain_text("Open in another tab.")
    await say(second, "two")
    await expect(second.locator(".markdown")).to_have_count(2)
    await expect(second.locator(".message.agent .foot")).to_have_count(2)
    await banner.get_by_role("button", name="Use here").click()
    # What was said in the other tab is here.
    await expect(page.locator(".markdown")).to_have_count(2)
    await expect(second.locator(".banner")).to_contain_text("Open in another tab.")
    await say(page, "three")
    await expect(page.locator(".markdown")).to_have_count(3)
    assert [message.text for message in agent.asked] == ["one", "two", "three"]


async def test_another_device_takes_the_place_and_gives_it_back(
    page: Page, open_profile: OpenContext, relay: RelayProcess
) -> None:
    # A link by token alone opens on any number of devices.
    agent = ScriptedAgent(relay, encrypted=False)
    await agent.start()
    try:
        await pair(page, agent)
        async with open_profile(**PHONE) as context:
            other = await context.new_page()
            await pair(other, agent)
            banner = page.locator(".banner")
            await expect(banner).to_contain_text("In use on another device.")
            await banner.get_by_role("button", name="Use here").click()
            await expect(other.locator(".banner")).to_contain_text("In use on another device.")
            await expect(banner).to_be_empty()
            await say(page, "mine")
            await expect(page.locator(".markdown")).to_have_text("You said: mine")
    finally:
        await agent.stop()


async def test_a_quota_that_is_used_up_names_the_time_at_which_it_begins_anew(
    page: Page, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay)
    agent.link = coralmux.PairingLink.new(relay.url, relay.token(daily_quota_bytes=20_000))
    await agent.start()
    try:
        await pair(page, agent)
        await say(page, "word " * 3_000)
        await say(page, "more " * 3_000)
        banner = page.locator(".banner")
        await expect(banner).to_contain_text("The data allowance is used up.", timeout=SOON)
        # A screen reader is told the time as well.
        await expect(banner.locator("p")).to_have_text(
            re.compile(r"Messages go on \w+( \d+)?, \d+:\d\d")
        )
        await expect(banner.locator("[aria-hidden]")).to_have_count(0)
        await expect(page.locator(".message.waiting")).to_have_count(1)
        await look(page, "quota", wide=True)
    finally:
        await agent.stop()


async def test_the_rate_limit_counts_down_and_what_waits_goes_out_by_itself(
    page: Page, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay)
    # More than a minute's worth, typed in far less than the ten seconds in which
    # the allowance would have grown by two.
    agent.link = coralmux.PairingLink.new(relay.url, relay.token(phone_messages_per_minute=12))
    await agent.start()
    try:
        await pair(page, agent)
        words = [f"word {n}" for n in range(14)]
        for word in words:
            await say(page, word)
        banner = page.locator(".banner")
        count = banner.locator("[aria-hidden]")
        await expect(count).to_have_text(re.compile(r"Messages go on in \d+ s"), timeout=SOON)
        first = await count.inner_text()
        await expect(count).not_to_have_text(first)
        # Once, without the seconds, for a screen reader.
        await expect(banner.locator(".visually-hidden")).to_have_text(
            "Too fast. Messages go on in a moment."
        )
        await expect(page.locator(".message.waiting").first).to_be_visible()
        await expect(page.locator(".message.waiting")).to_have_count(0, timeout=60_000)
        await expect(page.get_by_text("You said: word 13", exact=True)).to_be_visible(timeout=SOON)
        await expect(page.locator(".failure")).to_have_count(0)
        assert [message.text for message in agent.asked] == words
    finally:
        await agent.stop()


async def test_a_connection_that_takes_its_time_says_so(page: Page, agent: ScriptedAgent) -> None:
    await pair(page, agent)
    held = asyncio.Event()

    async def hold(route: WebSocketRoute) -> None:
        held.set()

    await page.route_web_socket(re.compile("/ws"), hold)
    await page.reload()
    await expect(page.locator(".banner")).to_have_text("Connecting…")
    assert held.is_set()
