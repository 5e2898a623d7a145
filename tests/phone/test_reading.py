"""What was said: scrolled, loaded, searched, exported and deleted."""

from __future__ import annotations

import asyncio
import datetime
import unicodedata
from collections.abc import AsyncIterator

from playwright.async_api import Page, expect

import coralmux
from tests.phone.harness import SOON, ScriptedAgent, becomes_true, over, pair, say, textbox, to_list
from tests.phone.looks import look


async def test_escape_closes_the_search_from_anywhere_but_menus_first(
    desktop: Page, agent: ScriptedAgent
) -> None:
    await pair(desktop, agent)
    search = desktop.get_by_role("search")
    await desktop.get_by_role("button", name="Search").click()
    await expect(search).to_be_visible()
    await textbox(desktop).focus()
    await desktop.get_by_role("button", name="Conversation menu").click()
    menu = desktop.get_by_role("menu", name="Conversation menu")
    await expect(menu).to_be_visible()
    await desktop.keyboard.press("Escape")
    await expect(menu).to_be_hidden()
    await expect(search).to_be_visible()
    await textbox(desktop).focus()
    await desktop.keyboard.press("Escape")
    await expect(search).to_have_count(0)


async def test_what_the_agent_remembers_is_shown_by_days(page: Page, agent: ScriptedAgent) -> None:
    now = datetime.datetime.now().replace(hour=12, minute=0)
    yesterday, past = now - datetime.timedelta(days=1), datetime.datetime(2020, 3, 3, 9, 5)

    @agent.on("chat.history")
    async def history(request: coralmux.Request) -> dict[str, object]:
        return {
            "messages": [
                {"role": role, "content": text, "timestamp": int(at.timestamp() * 1000)}
                for role, text, at in (
                    ("user", "Do you hear me?", past),
                    ("assistant", "Yes.", past),
                    ("user", "And now?", yesterday),
                    ("assistant", "Still.", yesterday),
                )
            ]
        }

    await agent.stop()
    await agent.start()
    await pair(page, agent)
    await expect(page.locator(".day")).to_have_text(["March 3, 2020", "Yesterday"])
    await expect(page.locator(".markdown")).to_have_text(["Yes.", "Still."])
    await say(page, "Hello")
    await expect(page.locator(".day")).to_have_text(["March 3, 2020", "Yesterday", "Today"])


SCROLL = "e => [Math.round(e.scrollTop), e.scrollHeight - e.clientHeight - e.scrollTop]"


async def test_at_midnight_today_becomes_yesterday(page: Page, agent: ScriptedAgent) -> None:
    tomorrow = datetime.date.today() + datetime.timedelta(days=1)
    midnight = datetime.datetime.combine(tomorrow, datetime.time())
    await page.clock.install(time=midnight - datetime.timedelta(minutes=2))
    await pair(page, agent)
    await say(page, "Good night")
    await expect(page.get_by_text("You said: Good night")).to_be_visible(timeout=SOON)
    await expect(page.locator(".day")).to_have_text(["Today"])
    await page.clock.fast_forward(130_000)
    await expect(page.locator(".day")).to_have_text(["Yesterday"])
    await to_list(page)
    await expect(page.get_by_role("listitem")).to_contain_text("Yesterday")


async def test_the_list_follows_an_answer_unless_the_reader_went_up(
    page: Page, agent: ScriptedAgent
) -> None:
    steps: asyncio.Queue[str | None] = asyncio.Queue()

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        while (part := await steps.get()) is not None:
            yield part

    async def paragraphs(first: int, last: int) -> None:
        for n in range(first, last):
            steps.put_nowait(f"Paragraph {n}.\n\n")
        await expect(page.get_by_text(f"Paragraph {last - 1}.")).to_be_attached()

    await pair(page, agent)
    await say(page, "Tell me much")
    messages = page.locator(".messages")
    await paragraphs(0, 60)
    await expect(page.get_by_text("Paragraph 59.")).to_be_in_viewport()
    assert (await messages.evaluate(SCROLL))[1] <= 1

    await messages.evaluate("e => { e.scrollTop -= 400 }")
    newest = page.get_by_role("button", name="Jump to the newest message")
    await expect(newest).to_be_visible()
    before = (await messages.evaluate(SCROLL))[0]
    await paragraphs(60, 90)
    assert (await messages.evaluate(SCROLL))[0] == before
    steps.put_nowait(None)
    await over(page)
    await expect(newest).to_have_accessible_name("Jump to the newest message, 1 unread")
    await newest.click()
    await expect(page.get_by_text("Paragraph 89.")).to_be_in_viewport()
    await expect(newest).to_have_count(0)


async def come_back_to_a_hundred_messages(page: Page, agent: ScriptedAgent) -> None:
    """Numbered from 0; those at the beginning are on pages of the storage that are not read yet."""

    @agent.on("chat.history")
    async def history(request: coralmux.Request) -> dict[str, object]:
        entries = [
            {"role": "assistant", "content": f"Message {n}. " + "word " * (n * 7 % 40)}
            for n in range(100)
        ]
        return {"messages": entries}

    await agent.stop()
    await agent.start()
    await pair(page, agent)
    await expect(page.get_by_text("Message 99.")).to_be_in_viewport()
    await page.reload()
    await expect(page.get_by_text("Message 99.")).to_be_in_viewport()
    await expect(page.get_by_text("Message 0.")).to_have_count(0)


async def test_search_finds_and_shows_what_is_on_a_page_that_was_not_read_yet(
    page: Page, agent: ScriptedAgent
) -> None:
    await come_back_to_a_hundred_messages(page, agent)
    await page.get_by_role("button", name="Search").click()
    field = page.get_by_role("searchbox", name="Search in this conversation")
    await field.fill("message 3.")
    await expect(page.locator(".search-count")).to_have_text("1 of 1")
    await expect(page.get_by_text("Message 3.")).to_be_in_viewport(ratio=1)
    await becomes_true(
        page, "String([...(CSS.highlights.get('found-current') ?? [])]) === 'Message 3.'"
    )
    await expect(page.get_by_text("Message 99.")).not_to_be_in_viewport()


async def test_older_messages_come_in_above_without_moving_what_is_read(
    page: Page, agent: ScriptedAgent
) -> None:
    await come_back_to_a_hundred_messages(page, agent)
    messages = page.locator(".messages")
    count = await page.locator(".message").count()
    await page.evaluate(
        """
        () => {
          window.moves = [];
          const list = document.querySelector(".messages");
          let anchor = null, top = 0;
          const frame = () => {
            const now = document.querySelectorAll(".message").length;
            if (anchor && now !== anchor.count) {
              moves.push(Math.abs(anchor.element.getBoundingClientRect().top - anchor.top));
              anchor = null;
            } else {
              const element = [...document.querySelectorAll(".message")].find(
                (one) => one.getBoundingClientRect().top > 200);
              anchor = { element, count: now, top: element.getBoundingClientRect().top };
            }
            requestAnimationFrame(frame);
          };
          requestAnimationFrame(frame);
        }
        """
    )
    await messages.evaluate("e => { e.scrollTop = 60 }")
    await expect(page.locator(".message")).to_have_count(100)
    assert count < 100
    await page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    moves = await page.evaluate("moves")
    assert moves
    assert max(moves) <= 4, moves


async def test_search_marks_letters_that_are_written_in_parts(
    desktop: Page, agent: ScriptedAgent
) -> None:
    # As some input methods and file systems write them: a letter and its accent, syllables in jamo.
    parts = unicodedata.normalize("NFD", "İn the café they say 안녕하세요, twice: CAFÉ")
    agent.answers(lambda message: parts)
    await pair(desktop, agent)
    await say(desktop, "Go")
    await over(desktop)
    await desktop.get_by_role("button", name="Search").click()
    field = desktop.get_by_role("searchbox", name="Search in this conversation")
    marked = """async (wanted) => {
      const found = () => [...(CSS.highlights.get("found-current") ?? [])]
        .map((range) => String(range).normalize());
      while (String(found()) !== wanted) await new Promise(requestAnimationFrame);
    }"""
    for text, finds in (("café", "café,CAFÉ"), ("녕하", "녕하")):
        await field.fill(text)
        await expect(desktop.locator(".search-count")).to_have_text("1 of 1")
        await asyncio.wait_for(desktop.evaluate(marked, finds), SOON / 1000)


async def test_search_finds_marks_and_goes_from_one_find_to_the_next(
    desktop: Page, agent: ScriptedAgent
) -> None:
    agent.answers(lambda message: f"I know **{message.text}** well.\n\n" + "filler\n\n" * 20)
    await pair(desktop, agent)
    for word in ("Coral", "anemone", "coral reef"):
        await say(desktop, word)
        await expect(desktop.locator(".markdown").last).to_contain_text(f"I know {word} well.")
    await over(desktop)
    await desktop.locator(".messages").focus()
    await desktop.keyboard.press("/")
    field = desktop.get_by_role("searchbox", name="Search in this conversation")
    await expect(field).to_be_focused()
    await field.fill("CORAL")
    count = desktop.locator(".search-count")
    await expect(count).to_have_text("4 of 4")
    found = "[...CSS.highlights.get('found-current')].map(String)"
    assert await desktop.evaluate(found) == ["coral"]
    assert await desktop.evaluate("CSS.highlights.get('found').size") == 3
    await desktop.keyboard.press("Enter")
    await expect(count).to_have_text("3 of 4")
    await desktop.get_by_role("button", name="Earlier match").click()
    await desktop.get_by_role("button", name="Earlier match").click()
    await expect(count).to_have_text("1 of 4")
    assert await desktop.evaluate(found) == ["Coral"]
    await expect(desktop.locator(".bubble").first).to_be_in_viewport()
    await look(desktop, "search")
    await desktop.get_by_role("button", name="Later match").click()
    await expect(count).to_have_text("2 of 4")
    await field.fill("starfish")
    await expect(count).to_have_text("Not found")
    await desktop.keyboard.press("Escape")
    await expect(field).to_have_count(0)
    assert await desktop.evaluate("CSS.highlights.size") == 0


async def test_a_conversation_is_exported_and_deleted(page: Page, agent: ScriptedAgent) -> None:
    await pair(page, agent)
    await say(page, "Remember this")
    await expect(page.locator(".markdown")).to_have_text("You said: Remember this")
    await page.get_by_role("button", name="Conversation menu").click()
    async with page.expect_download() as downloading:
        await page.get_by_role("menuitem", name="Export conversation").click()
    download = await downloading.value
    saved = await download.path()
    text = await asyncio.to_thread(saved.read_text)
    assert download.suggested_filename == "Agent.md"
    assert "**You**" in text
    assert text.index("Remember this") < text.index("You said: Remember this")

    await page.get_by_role("button", name="Conversation menu").click()
    await page.get_by_role("menuitem", name="Delete conversation").click()
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.locator(".message")).to_have_count(2)
    await page.get_by_role("button", name="Conversation menu").click()
    await page.get_by_role("menuitem", name="Delete conversation").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(page.locator(".message")).to_have_count(0)
    await expect(page.get_by_text("Say hello to")).to_be_visible()
