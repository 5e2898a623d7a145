"""Talking to an agent: questions are written, answers stream, and what can be done with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from playwright.async_api import Page, expect

import coralmux
from tests.bridge.bridges import bridge
from tests.phone.conftest import OpenContext
from tests.phone.harness import PHONE, SOON, ScriptedAgent, over, pair, say, textbox
from tests.phone.looks import look
from tests.support.model import model_server as model_server
from tests.support.process import RelayProcess

MARKDOWN = """# Primes

Here is a **short** program with `inline code` and a [link](https://example.com/a?b=c):

```python
def primes(n):
    return [i for i in range(2, n) if all(i % d for d in range(2, i))]
```

- [x] write it
- [ ] test it
- nested
  1. one
  2. two

| Name | Value |
|:-----|------:|
| a    | 1     |
| b    | 22    |

> A quote.
"""

# As a screen reader would hear it.
LISTEN = """
window.spoken = [];
document.ariaNotify = (text) => spoken.push(text);
"""


async def test_an_answer_streams_with_a_caret_and_one_line_that_tells_of_tools(
    page: Page, agent: ScriptedAgent
) -> None:
    steps: asyncio.Queue[object] = asyncio.Queue()

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[object]:
        while (part := await steps.get()) is not None:
            yield part

    await page.add_init_script(LISTEN)
    await pair(page, agent)
    await say(page, "Find it")
    newest = page.locator(".message.agent")
    await expect(newest.get_by_text("is thinking")).to_be_attached()
    steps.put_nowait(coralmux.ToolStatus("search", "running"))
    await expect(newest.locator(".tool")).to_have_text("search…")
    steps.put_nowait(coralmux.ToolStatus("search", "done"))
    await expect(newest.locator(".tool")).to_have_text("search: done")
    steps.put_nowait(coralmux.ToolStatus("lookup", "error"))
    await expect(newest.locator(".tool")).to_have_text("lookup: failed")
    steps.put_nowait("Found **it** at ")
    await expect(newest.locator(".markdown")).to_have_text("Found it at")
    await expect(newest.locator(".caret")).to_be_visible()
    assert await newest.locator("strong").inner_text() == "it"
    await expect(newest.locator(".tool")).to_have_count(1)
    assert await page.evaluate("spoken") == []
    steps.put_nowait("home.")
    steps.put_nowait(None)
    await over(page)
    await expect(newest.locator(".tool")).to_have_count(0)
    await expect(newest.locator(".markdown")).to_have_text("Found it at home.")
    # A screen reader hears it once, and whole.
    assert await page.evaluate("spoken") == ["Agent: Found **it** at home."]
    await expect(page.locator(".message.me .state")).to_have_text("Answered")


async def test_markdown_is_drawn_and_a_code_block_is_copied(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    agent.answers(lambda message: MARKDOWN)
    permissions = ["clipboard-read", "clipboard-write"]
    async with open_profile(**PHONE, permissions=permissions) as context:
        page = await context.new_page()
        await pair(page, agent)
        await say(page, "Show me")
        await over(page)
        message = page.locator(".message.agent")
        # One size down: the page has a heading of its own.
        await expect(message.get_by_role("heading", level=3, name="Primes")).to_be_visible()
        await expect(message.get_by_role("cell", name="22")).to_be_visible()
        await expect(message.get_by_role("checkbox")).to_have_count(2)
        await expect(message.get_by_role("checkbox").first).to_be_checked()
        assert await message.locator("ul ol li").all_inner_texts() == ["one", "two"]
        await expect(message.locator("blockquote")).to_have_text("A quote.")
        await message.get_by_role("group", name="Code, python").focus()
        await message.get_by_role("button", name="Copy", exact=True).click()
        await expect(message.get_by_role("button", name="Copied")).to_be_visible()
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied == MARKDOWN.split("```")[1].removeprefix("python\n").rstrip("\n")
        await message.get_by_role("button", name="Copy message").click()
        await expect(page.locator(".toast")).to_have_text("Copied")
        assert await page.evaluate("navigator.clipboard.readText()") == MARKDOWN
        width = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] == width[1]
        await look(page, "chat")


async def test_a_clipboard_that_is_closed_says_so(page: Page, agent: ScriptedAgent) -> None:
    await page.add_init_script(
        "navigator.clipboard.writeText = () => Promise.reject(new Error('denied'))"
    )
    agent.answers(lambda message: "```\ncode\n```")
    await pair(page, agent)
    await say(page, "Show me")
    await over(page)
    await page.get_by_role("button", name="Copy message").click()
    await expect(page.locator(".toast")).to_contain_text("Not copied")
    code = page.get_by_role("button", name="Copy", exact=True)
    await code.click()
    await expect(code).to_have_text("Copy")


async def test_stop_ends_the_answer_and_the_agent_s_work(page: Page, agent: ScriptedAgent) -> None:
    stopped = asyncio.Event()

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        try:
            yield "Once upon a time"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise

    await pair(page, agent)
    await say(page, "Tell me a story")
    await expect(page.locator(".markdown")).to_have_text("Once upon a time")
    await page.get_by_role("button", name="Stop").click()
    await asyncio.wait_for(stopped.wait(), SOON / 1000)
    await over(page)
    await expect(page.locator(".message.agent .foot")).to_contain_text("Stopped")
    await expect(page.locator(".markdown")).to_have_text("Once upon a time")


async def test_a_failure_is_told_in_words_and_asked_again(page: Page, agent: ScriptedAgent) -> None:
    @agent.answers
    async def failing(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        yield "Well, "
        raise coralmux.BackendError("The search is down. Try again in an hour.")

    await pair(page, agent)
    await say(page, "Search")
    await expect(page.locator(".failure")).to_have_text("The search is down. Try again in an hour.")
    await look(page, "failure", wide=True)
    agent.answers(lambda message: "Here it is.")
    await page.get_by_role("button", name="Ask again").click()
    await expect(page.locator(".markdown")).to_have_text("Here it is.")
    await expect(page.locator(".failure")).to_have_count(0)
    assert [message.text for message in agent.asked] == ["Search", "Search"]
    await expect(page.locator(".message")).to_have_count(2)


async def test_a_failure_that_the_page_has_words_for_is_told_in_its_language(
    open_profile: OpenContext,
) -> None:
    async with open_profile(**{**PHONE, "locale": "ko-KR"}) as context:
        page = await context.new_page()
        await page.goto("/phone")
        await expect(page.get_by_role("button").first).to_be_visible()
        words = """async (failures) => {
          const main = document.querySelector("script[type=module]").src;
          const { failureText } = await import(new URL("views/failures.js", main).href);
          return failures.map((failure) => failureText(failure));
        }"""
        codes = ["DUPLICATE", "UNSUPPORTED", "BACKEND_ERROR", "ITS_OWN"]
        told = [{"name": "AgentError", "code": code, "text": "English."} for code in codes]
        assert await page.evaluate(words, [*told, {"name": "PeerOffline"}, {"name": "Error"}]) == [
            "에이전트가 이미 받은 메시지예요. 다시 물어봐 주세요.",
            "에이전트가 지원하지 않는 기능이에요. 다른 것을 물어봐 주세요.",
            "English.",
            "English.",
            "에이전트가 오프라인이에요. 돌아오면 다시 물어봐 주세요.",
            "문제가 생겼어요. 다시 물어봐 주세요.",
        ]


async def long_press(page: Page, selector: str, *, wobble: int = 0) -> None:
    """Rest a finger on it until its menu is there, and lift it."""
    box = await page.locator(selector).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touches = await page.context.new_cdp_session(page)

    async def touch(type: str, *points: dict[str, float]) -> None:
        await touches.send("Input.dispatchTouchEvent", {"type": type, "touchPoints": [*points]})

    await touch("touchStart", {"x": x, "y": y})
    if wobble:
        where = {"clientX": x + wobble, "clientY": y, "pointerType": "touch", "bubbles": True}
        await page.locator(selector).dispatch_event("pointermove", where)
    await expect(page.get_by_role("menu", name="Message actions")).to_be_visible()
    await touch("touchEnd")
    # What the browser does because of it has happened.
    await page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    await touches.detach()


async def test_a_long_press_or_a_key_opens_what_can_be_done_with_a_message(
    page: Page, agent: ScriptedAgent
) -> None:
    await pair(page, agent)
    await say(page, "Hello")
    await expect(page.locator(".markdown")).to_have_text("You said: Hello")
    menu = page.get_by_role("menu", name="Message actions")
    await long_press(page, ".bubble")
    await expect(menu.get_by_role("menuitem")).to_have_text(["Copy", "Ask again", "Delete"])
    # A tap beside it closes it.
    await page.touchscreen.tap(20, 300)
    await expect(menu).to_have_count(0)
    await long_press(page, ".bubble", wobble=6)
    await menu.get_by_role("menuitem", name="Ask again").tap()
    await expect(menu).to_have_count(0)
    await expect(page.locator(".message.me .state")).to_have_text("Answered")
    assert [message.text for message in agent.asked] == ["Hello", "Hello"]
    await long_press(page, ".bubble")
    await expect(menu).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(menu).to_have_count(0)
    button = page.locator(".message.me").get_by_role("button", name="Message actions")
    await button.focus()
    await page.keyboard.press("Enter")
    await expect(menu.get_by_role("menuitem", name="Copy")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(button).to_be_focused()


async def test_a_message_is_deleted_after_a_question_and_stays_away(
    desktop: Page, agent: ScriptedAgent
) -> None:
    await pair(desktop, agent)
    for text in ("one", "two"):
        await say(desktop, text)
        await expect(desktop.locator(".markdown").last).to_have_text(f"You said: {text}")
    await over(desktop)
    bubbles = desktop.locator(".bubble")

    async def delete(button: str) -> None:
        await desktop.get_by_role("button", name="Message actions").first.focus()
        await desktop.keyboard.press("Enter")
        await desktop.keyboard.press("End")
        await desktop.keyboard.press("Enter")
        dialog = desktop.get_by_role("dialog", name="Delete this message?")
        await dialog.get_by_role("button", name=button, exact=True).click()
        await expect(dialog).to_have_count(0)

    await delete("Cancel")
    await expect(bubbles).to_have_text(["one", "two"])
    await expect(desktop.get_by_role("button", name="Message actions").first).to_be_focused()
    await delete("Delete")
    await expect(bubbles).to_have_text(["two"])
    # The focus is at what stands there now.
    await expect(desktop.locator(".message").first).to_be_focused()
    await desktop.reload()
    await expect(desktop.locator(".markdown").last).to_have_text("You said: two")
    await expect(bubbles).to_have_text(["two"])
    for _ in range(3):
        await delete("Delete")
    await expect(desktop.locator(".message")).to_have_count(0)
    await expect(desktop.get_by_role("log")).to_be_focused()


async def test_an_answer_without_words_says_so(page: Page, agent: ScriptedAgent) -> None:
    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        return
        yield ""

    await pair(page, agent)
    await say(page, "Hello")
    await expect(page.locator(".message.agent .said")).to_have_text("No words came.")


async def test_the_bar_is_one_row_on_a_narrow_telephone(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    async with open_profile(**{**PHONE, "viewport": {"width": 320, "height": 568}}) as context:
        page = await context.new_page()
        await pair(page, agent)
        buttons = page.locator(".chat-bar > button")
        tops = await buttons.evaluate_all("all => all.map((e) => e.getBoundingClientRect().top)")
        assert len(tops) == 3
        assert max(tops) - min(tops) < 2


async def test_one_of_several_agents_is_chosen(page: Page, agent: ScriptedAgent) -> None:
    @agent.on("agent.list")
    async def agents(request: coralmux.Request) -> dict[str, object]:
        return {"agents": [{"id": "cook", "name": "Cook"}, {"id": "poet", "name": "Poet"}]}

    await agent.stop()
    await agent.start()
    await pair(page, agent)
    picker = page.get_by_role("combobox", name="Agent")
    await expect(picker).to_have_value("cook")
    await say(page, "Soup?")
    await expect(page.locator(".markdown")).to_have_text("You said: Soup?")
    await picker.select_option("poet")
    await expect(page.locator(".message")).to_have_count(0)
    await say(page, "A rhyme")
    await expect(page.locator(".markdown")).to_have_text("You said: A rhyme")
    assert [message.agent_id for message in agent.asked] == ["cook", "poet"]
    await picker.select_option("cook")
    await expect(page.locator(".bubble")).to_have_text("Soup?")


async def test_enter_sends_on_a_desktop_and_never_amid_a_syllable(
    desktop: Page, agent: ScriptedAgent
) -> None:
    await pair(desktop, agent)
    field = textbox(desktop)
    await expect(field).to_be_focused()
    await expect(desktop.get_by_role("button", name="Send", exact=True)).to_be_disabled()
    await desktop.keyboard.type("one")
    height = (await field.bounding_box() or {})["height"]
    await desktop.keyboard.press("Shift+Enter")
    await desktop.keyboard.type("two")
    assert (await field.bounding_box() or {})["height"] > height
    await expect(field).to_have_value("one\ntwo")
    # While an input method composes, Enter is its own.
    composing = {"key": "Enter", "isComposing": True, "bubbles": True, "cancelable": True}
    await field.dispatch_event("keydown", composing)
    await field.dispatch_event("keydown", {"key": "Enter", "keyCode": 229, "bubbles": True})
    await expect(field).to_have_value("one\ntwo")
    await desktop.keyboard.press("Enter")
    await expect(field).to_have_value("")
    await expect(field).to_be_focused()
    await expect(desktop.locator(".bubble")).to_have_text("one\ntwo")
    await expect(desktop.locator(".markdown")).to_contain_text("two")
    assert agent.asked[0].text == "one\ntwo"


async def test_enter_is_a_new_line_under_a_thumb(page: Page, agent: ScriptedAgent) -> None:
    await pair(page, agent)
    field = textbox(page)
    await field.fill("one")
    await field.press("Enter")
    await expect(field).to_have_value("one\n")
    await expect(page.locator(".message")).to_have_count(0)


# Resolves when something whose name begins so is in the database.
KEPT = """
(prefix) => new Promise((done) => {
  const opening = indexedDB.open("coralmux");
  opening.onsuccess = () => {
    const look = () => {
      const asked = opening.result.transaction("kept").objectStore("kept").getAllKeys();
      asked.onsuccess = () => {
        if (!asked.result.some((key) => String(key).startsWith(prefix))) return look();
        opening.result.close();
        done();
      };
    };
    look();
  };
})
"""


async def test_a_draft_is_kept(page: Page, agent: ScriptedAgent) -> None:
    await pair(page, agent)
    await textbox(page).fill("Not yet sen")
    await page.evaluate(KEPT, "draft:")
    await page.reload()
    await expect(textbox(page)).to_have_value("Not yet sen")
    await page.get_by_role("button", name="Send", exact=True).click()
    await expect(page.locator(".markdown")).to_have_text("You said: Not yet sen")
    await over(page)
    await page.reload()
    await expect(page.locator(".markdown")).to_have_text("You said: Not yet sen")
    await expect(textbox(page)).to_have_value("")


async def test_a_real_model_answers_in_the_page(
    page: Page, relay: RelayProcess, model_server: str, tmp_path: Path
) -> None:
    config = (
        f'backend = "openai"\n[openai]\nbase_url = "{model_server}"\nmodel = "smollm2"\n'
        "max_tokens = 24\ntemperature = 0\n"
    )
    async with bridge(relay, tmp_path, config) as there:
        await page.goto(there.links[0].web())
        await page.get_by_role("button", name="Connect", exact=True).click()
        await page.get_by_role("button", name="Open chat").click()
        await say(page, "What is the capital of France?")
        await expect(page.locator(".message.agent .foot")).to_have_count(1, timeout=2 * SOON)
        assert len(await page.locator(".markdown").inner_text()) > 10
        await say(page, "And of Italy?")
        await expect(page.locator(".message.agent .foot")).to_have_count(2, timeout=2 * SOON)
        await expect(page.locator(".markdown").last).not_to_be_empty()
        await look(page, "chat-model", wide=True)
