"""For everyone: by thumb or by keyboard, zoomed, from right to left, without motion."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect

import coralmux
from tests.phone.harness import (
    SOON,
    ScriptedAgent,
    becomes_true,
    button,
    over,
    pair,
    say,
    textbox,
    to_list,
)
from tests.phone.looks import look

FOCUSED = """
() => {
  const { activeElement: element } = document;
  const label = element.labels?.[0]?.textContent;
  return (element.getAttribute("aria-label") ?? label ?? element.textContent).trim();
}
"""
# Controls that a thumb may miss: those that are seen and smaller than 44 pixels. One of a
# single pixel is for the keyboard and screen readers; a thumb has the long press.
SMALL = """
() => [...document.querySelectorAll("button, select, input, a[href], summary")]
  .map((control) => [control, control.getBoundingClientRect()])
  .filter(([control, box]) => box.width > 1 && control.checkVisibility())
  .filter(([control, box]) => box.height < 43.9 || box.width < 43.9)
  .map(([control]) => control.outerHTML)
"""
OVERFLOW = """
() => [...document.querySelectorAll(".scroll, .bar, body")]
  .filter((element) => element.scrollWidth > element.clientWidth + 1)
  .map((element) => element.className)
"""


async def test_from_right_to_left_the_page_is_turned_round(
    paired_page: Page, agent: ScriptedAgent
) -> None:
    page = paired_page
    await to_list(page)
    await page.evaluate("document.documentElement.dir = 'rtl'")
    avatar, name, menu = [
        await page.locator(part).evaluate("(element) => element.getBoundingClientRect().toJSON()")
        for part in (".row-avatar", ".row-name bdi", ".row > .icon-button")
    ]
    assert menu["right"] < name["left"] < name["right"] < avatar["left"]
    assert await page.evaluate(OVERFLOW) == []
    await look(page, "list-rtl")
    await button(page, "Settings").click()
    back = page.locator(".icon-back")
    assert await back.evaluate("(icon) => getComputedStyle(icon).scale") == "-1 1"
    small, name = [
        await page.locator(part).evaluate("(element) => element.getBoundingClientRect().toJSON()")
        for part in (".settings .avatar", ".settings bdi")
    ]
    assert small["left"] - 20 < name["right"] < small["left"]
    await look(page, "settings-rtl")


async def test_from_right_to_left_a_chat_and_a_new_link_are_turned_round(
    paired_page: Page, agent: ScriptedAgent
) -> None:
    page = paired_page
    await say(page, "Hello")
    await expect(page.get_by_text("You said: Hello")).to_be_visible(timeout=SOON)
    await page.evaluate("document.documentElement.dir = 'rtl'")
    bubble, send, field, back = [
        await page.locator(part).evaluate("(element) => element.getBoundingClientRect().toJSON()")
        for part in (".bubble", ".send", "textarea", ".chat .icon-back, .bar .icon-back")
    ]
    assert bubble["left"] < 40
    assert send["right"] <= field["left"]
    assert back["left"] > field["right"]
    assert await page.evaluate(OVERFLOW) == []
    await look(page, "chat-rtl")
    await to_list(page)
    await button(page, "Pair an agent").click()
    link = page.get_by_role("textbox", name="Or paste the link")
    # An address is read from left to right everywhere.
    assert await link.evaluate("(element) => getComputedStyle(element).direction") == "ltr"
    assert await page.evaluate(OVERFLOW) == []
    await look(page, "pair-rtl")
    await link.fill(agent.url.partition("#")[0] + f"#token=oc_pair_{'0' * 32}")
    await button(page, "Continue").click()
    await expect(page.get_by_text("Not verified", exact=True)).to_be_visible()
    assert await page.evaluate(OVERFLOW) == []
    await look(page, "confirm-rtl")


async def test_with_reduced_motion_nothing_moves(page: Page) -> None:
    moving = "getComputedStyle(document.querySelector('.button')).transitionDuration"
    await page.goto("/phone")
    await button(page, "Pair an agent").wait_for()
    assert await page.evaluate(moving) != "0s"
    await page.emulate_media(reduced_motion="reduce")
    assert await page.evaluate(moving) == "0s"


async def test_with_reduced_motion_an_answer_comes_without_any(
    paired_page: Page, agent: ScriptedAgent
) -> None:
    page = paired_page
    steps: asyncio.Queue[str | None] = asyncio.Queue()

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        while (part := await steps.get()) is not None:
            yield part

    moving = "document.getAnimations().filter(({ playState }) => playState === 'running').length"
    await say(page, "Go")
    await expect(page.locator(".dots")).to_be_visible(timeout=SOON)
    assert await page.evaluate(moving) > 0
    await page.emulate_media(reduced_motion="reduce")
    await becomes_true(page, f"{moving} === 0")
    steps.put_nowait("Going")
    await expect(page.locator(".caret")).to_be_visible(timeout=SOON)
    assert await page.evaluate(moving) == 0
    steps.put_nowait(None)


async def test_one_pairs_and_chats_without_a_mouse(desktop: Page, agent: ScriptedAgent) -> None:
    page = desktop

    async def tab_to(name: str) -> None:
        """As often as it takes, and no further than once round the page."""
        for _ in range(40):
            await page.keyboard.press("Tab")
            if await page.evaluate(FOCUSED) == name:
                return
        raise AssertionError(f"the keyboard does not come to {name}")

    async def enter() -> None:
        await page.keyboard.press("Enter")
        await page.evaluate("new Promise((done) => setTimeout(done, 300))")
        assert await page.evaluate("document.activeElement !== document.body"), "focus is lost"

    await page.goto("/phone")
    await button(page, "Pair an agent").wait_for()
    await tab_to("Pair an agent")
    await enter()
    await tab_to("Scan the code")
    await enter()
    await expect(page.get_by_role("alert")).to_contain_text("There is no camera here")
    await tab_to("Or paste the link")
    await page.keyboard.insert_text(agent.url)
    await enter()
    await expect(page.get_by_role("heading", name="Connect to this agent?")).to_be_visible()
    await tab_to("Connect")
    await enter()
    await expect(button(page, "Open chat")).to_be_focused(timeout=SOON)
    await enter()
    await expect(textbox(page)).to_be_focused()
    agent.answers(failing)
    await page.keyboard.insert_text("Hello")
    await enter()
    await expect(page.locator(".failure")).to_be_visible(timeout=SOON)
    await tab_to("Conversation menu")
    agent.answers(lambda message: f"You said: {message.text}")
    await tab_to("Ask again")
    await enter()
    await expect(page.get_by_role("log").get_by_text("You said: Hello")).to_be_visible(timeout=SOON)
    await tab_to("Options for Agent")
    await enter()
    await page.keyboard.press("End")
    await enter()
    await tab_to("Forget")
    await enter()
    await expect(page.get_by_role("heading", name="Talk to your own AI")).to_be_visible()


async def failing(message: coralmux.ChatMessage) -> str:
    raise coralmux.BackendError("The search is down.")


async def test_menus_and_dialogs_go_by_keyboard(desktop: Page, agent: ScriptedAgent) -> None:
    page = desktop
    await pair(page, agent)
    await button(page, "Options for Agent").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_role("menuitem", name="Details")).to_be_focused()
    await page.keyboard.press("End")
    await expect(page.get_by_role("menuitem", name="Forget")).to_be_focused()
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("menu")).to_be_hidden()
    await expect(button(page, "Options for Agent")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("textbox", name="Name")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(button(page, "Options for Agent")).to_be_focused()


async def test_back_in_the_list_the_focus_is_where_one_came_from(paired_page: Page) -> None:
    await to_list(paired_page)
    await expect(paired_page.get_by_role("listitem").get_by_role("button").first).to_be_focused()


@pytest.mark.parametrize("width", [390, 195], ids=["phone", "zoomed"])
async def test_nothing_is_too_small_for_a_thumb_nor_too_wide_for_the_screen(
    page: Page, agent: ScriptedAgent, width: int
) -> None:
    """At 200 % a phone has half as many pixels across."""
    await page.set_viewport_size({"width": width, "height": 844 * width // 390})

    async def check(view: str) -> None:
        assert await page.evaluate(SMALL) == [], view
        assert await page.evaluate(OVERFLOW) == [], view

    await page.goto("/phone")
    await expect(page.get_by_role("heading", name="Talk to your own AI")).to_be_visible()
    await check("empty list")
    await button(page, "Pair an agent").click()
    await check("pair")
    await page.goto(agent.url)
    await expect(button(page, "Connect")).to_be_visible()
    await check("confirm")
    await pair(page, agent)
    await to_list(page)
    await check("list")
    await button(page, "Settings").click()
    await expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    await check("settings")
    await page.go_back()
    await button(page, "Options for Agent").click()
    await check("menu")
    await page.get_by_role("menuitem", name="Details").click()
    await check("details")
    await button(page, "Forget this agent").click()
    await check("dialog")
    await button(page, "Cancel").click()
    await to_list(page)
    await page.get_by_role("listitem").get_by_role("button").first.click()
    await say(page, "A word as long as " + "Donaudampfschifffahrtsgesellschaft" * 3)
    await expect(page.locator(".markdown")).to_be_visible(timeout=SOON)
    await over(page)
    await check("chat")
    await button(page, "Search").click()
    await page.get_by_role("searchbox").fill("word")
    await check("search")
    await page.keyboard.press("Escape")
    await agent.stop()
    await expect(page.get_by_text("The agent is offline.")).to_be_visible(timeout=SOON)
    await check("banner")
