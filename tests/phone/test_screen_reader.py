"""What a screen reader says by itself: each end once, and nothing on the way to it."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

from playwright.async_api import Page, expect

import coralmux
from tests.phone.harness import SOON, ScriptedAgent, becomes_true, button, over, pair, say
from tests.support.process import RelayProcess

LISTEN = """
window.spoken = [];
document.ariaNotify = (text) => spoken.push(text);
"""

# A browser without it. What is heard then are elements that come into a region that was there.
HEAR = """
(region) => {
  window.spoken = [];
  const heard = (records) => {
    for (const { addedNodes } of records)
      for (const node of addedNodes) spoken.push(node.textContent);
  };
  new MutationObserver(heard).observe(region, { childList: true });
}
"""


async def spoken(page: Page) -> Any:
    return await page.evaluate("spoken")


async def heard(page: Page, agent: ScriptedAgent) -> None:
    await page.add_init_script(LISTEN)
    await pair(page, agent)
    await page.evaluate("spoken.length = 0")


async def test_quick_answers_are_each_heard_once(page: Page, agent: ScriptedAgent) -> None:
    await heard(page, agent)
    for number in range(4):
        await say(page, f"Question {number}")
        await expect(page.get_by_text(f"You said: Question {number}")).to_be_visible(timeout=SOON)
        await over(page)
    assert await spoken(page) == [f"Agent: You said: Question {number}" for number in range(4)]


async def test_that_no_words_came_is_heard(page: Page, agent: ScriptedAgent) -> None:
    agent.answers(lambda message: "")
    await heard(page, agent)
    await say(page, "Nothing?")
    await expect(page.get_by_text("No words came.")).to_be_visible(timeout=SOON)
    assert await spoken(page) == ["Agent: No words came."]


async def test_what_an_answer_brings_along_is_heard(page: Page, agent: ScriptedAgent) -> None:
    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[object]:
        yield "Here:"
        yield coralmux.Attachment("notes.txt", "text/plain", b"words")

    await heard(page, agent)
    await say(page, "Notes?")
    await expect(page.get_by_role("button", name="Save notes.txt")).to_be_visible(timeout=SOON)
    await over(page)
    assert await spoken(page) == ["Agent: Here: notes.txt"]


async def test_a_failure_is_heard_with_its_reason(page: Page, agent: ScriptedAgent) -> None:
    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        yield "Well, "
        raise coralmux.BackendError("The search is down.")

    await heard(page, agent)
    await say(page, "Find it")
    await expect(page.locator(".failure")).to_be_visible(timeout=SOON)
    assert await spoken(page) == ["Agent: Well, The search is down."]


async def test_that_an_answer_was_stopped_is_heard(page: Page, agent: ScriptedAgent) -> None:
    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        yield "One"
        await asyncio.Event().wait()

    await heard(page, agent)
    await say(page, "Count")
    await expect(page.locator(".markdown")).to_have_text("One", timeout=SOON)
    await button(page, "Stop").click()
    await over(page)
    assert await spoken(page) == ["Agent: One Stopped"]


async def test_a_question_that_fails_is_heard(
    page: Page, agent: ScriptedAgent, relay: RelayProcess
) -> None:
    await heard(page, agent)
    await agent.stop()
    await expect(page.get_by_text("The agent is offline.")).to_be_visible(timeout=SOON)
    await say(page, "Anybody?")
    token = urllib.parse.quote(agent.link.token)
    status, _ = await asyncio.to_thread(relay.http, "DELETE", f"/api/v1/pair/{token}", admin=True)
    assert status == 204
    await expect(page.locator(".failure")).to_be_visible(timeout=SOON)
    [words] = await spoken(page)
    assert words == "The relay does not take this pairing any more. Pair again."


async def test_without_aria_notify_a_region_says_the_same_words_twice(
    page: Page, agent: ScriptedAgent
) -> None:
    agent.answers(lambda message: "Yes.")
    await page.add_init_script("document.ariaNotify = undefined;")
    await pair(page, agent)
    region = page.locator("body > [role=status]")
    await expect(region).to_be_empty()
    await region.evaluate(HEAR)
    for count in (1, 2):
        await say(page, "Sure?")
        await becomes_true(page, f"spoken.length === {count}")
        await over(page)
        # It can be read, and is not seen.
        await expect(page.get_by_role("status").get_by_text("Agent: Yes.")).to_have_count(1)
        box = await region.bounding_box()
        assert box is not None
        assert box["width"] * box["height"] <= 1
    assert await spoken(page) == ["Agent: Yes."] * 2
