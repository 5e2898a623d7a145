"""Whatever an agent says only shows: it runs nothing, loads nothing, hangs nothing."""

from __future__ import annotations

import re

from playwright.async_api import Page, Request, expect

import coralmux
from tests.phone.harness import (
    SOON,
    Faults,
    ScriptedAgent,
    becomes_true,
    button,
    pair,
    say,
    textbox,
    to_list,
)
from tests.phone.long_tasks import LONGEST_TASK_MS, TOLERANCE, WATCH_TASKS, longest_task
from tests.support.field import FieldConnector
from tests.support.field_peer import Payload
from tests.support.process import RelayProcess

SCRIPTS = """
<script>document.title = "run"</script>
<img src=x onerror="document.title = 'run'">
<svg onload="document.title = 'run'"></svg>
<iframe srcdoc="<script>parent.document.title = 'run'</script>"></iframe>
<a href="javascript:document.title='run'">html link</a>
<form action="https://example.com/"><input name=q><button>Go</button></form>
<style>body { display: none }</style>

[one](javascript:document.title='run')
[two](JaVaScRiPt&colon;document.title='run')
[three](data:text/html,<script>document.title='run'</script>)
[four](vbscript:x) [five](/relative) [six](//example.com/x) [seven](file:///etc/passwd)
[eight]( java\tscript:document.title='run')
<javascript:document.title='run'>

![picture](https://example.com/track.png?who=me)
![inline](data:image/svg+xml;base64,PHN2Zy8+)

[good](https://example.com/good "title") and https://example.com/bare and
[mail](mailto:a@example.com)

<b onclick="document.title='run'">bold</b> <b>really bold</b> x<sub>2</sub>

`<script>code</script>`

The end.
"""


async def ask(page: Page, agent: ScriptedAgent, answer: str) -> None:
    agent.answers(lambda message: answer)
    await say(page, "Go")
    await expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    await expect(page.locator(".message.agent")).to_have_count(1, timeout=SOON)


async def test_scripts_and_addresses_that_run_things_are_only_text(
    page: Page, agent: ScriptedAgent
) -> None:
    requests: list[Request] = []
    await pair(page, agent)
    page.on("request", lambda request: requests.append(request))
    before = await page.evaluate("document.documentElement.querySelectorAll('script').length")
    await ask(page, agent, SCRIPTS)
    message = page.locator(".message.agent .markdown")
    await expect(message.get_by_text("The end.")).to_be_visible()

    names = await message.evaluate(
        "e => [...new Set([...e.querySelectorAll('*')].map((one) => one.localName))].sort()"
    )
    allowed = {"a", "b", "br", "code", "div", "p", "span", "sub"}
    assert set(names) <= allowed
    attributes = await message.evaluate(
        "e => [...new Set([...e.querySelectorAll('*')].flatMap((one) => one.getAttributeNames()))]"
    )
    assert set(attributes) <= {"class", "dir", "href", "rel", "target", "title"}
    links = await message.evaluate(
        "e => [...e.querySelectorAll('a')].map((a) => [a.textContent, a.href, a.target, a.rel])"
    )
    assert links == [
        [text, address, "_blank", "noopener noreferrer"]
        for text, address in (
            ("picture", "https://example.com/track.png?who=me"),
            ("good", "https://example.com/good"),
            ("https://example.com/bare", "https://example.com/bare"),
            ("mail", "mailto:a@example.com"),
        )
    ]
    # It is all there to be read.
    text = await message.inner_text()
    for part in (
        "<script>document.title",
        "onerror=",
        "<style>body",
        "<script>code",
        "really bold",
    ):
        assert part in text
    assert await page.title() == "CoralMux"
    assert await page.evaluate("document.querySelectorAll('script').length") == before
    await expect(page.get_by_role("textbox", name="Message")).to_be_visible()
    assert [request.url for request in requests] == []


async def test_a_link_opens_a_page_that_knows_nothing_of_this_one(
    page: Page, agent: ScriptedAgent, relay: object
) -> None:
    await pair(page, agent)
    origin = await page.evaluate("location.origin")
    await ask(page, agent, f"[open]({origin}/)")
    async with page.context.expect_page() as opening:
        await page.get_by_role("link", name="open").click()
    opened = await opening.value
    assert await opened.evaluate("[window.opener, document.referrer]") == [None, ""]


async def test_a_turned_direction_of_reading_ends_with_its_message(
    page: Page, agent: ScriptedAgent
) -> None:
    await pair(page, agent)
    await ask(page, agent, "before \u202e\u2067\u202d gnp.exe")
    order = """
    (element) => {
      const letters = [...element.querySelectorAll("time")].map((one) => {
        const range = document.createRange();
        const text = one.firstChild;
        range.setStart(text, 0);
        range.setEnd(text, 1);
        const first = range.getBoundingClientRect().left;
        range.setStart(text, text.length - 1);
        range.setEnd(text, text.length);
        return first < range.getBoundingClientRect().left;
      });
      return letters;
    }
    """
    assert await page.locator(".messages").evaluate(order) == [True, True]
    text = await page.locator(".message.agent .markdown").evaluate("e => e.textContent")
    assert text == "before \u202e\u2067\u202d gnp.exe", "nothing is taken away"


async def test_each_paragraph_of_an_answer_is_read_in_its_own_direction(
    page: Page, agent: ScriptedAgent
) -> None:
    await pair(page, agent)
    await ask(page, agent, "مرحبا بالعالم\n\nHello\n\n> اقتباس")
    directions = await page.locator(".message.agent .markdown").evaluate(
        "e => [...e.firstChild.children].map((one) => getComputedStyle(one).direction)"
    )
    assert directions == ["rtl", "ltr", "rtl"]


async def test_a_name_that_turns_the_direction_of_reading_turns_no_words_around_it(
    page: Page, agent: ScriptedAgent
) -> None:
    await pair(page, agent)
    await to_list(page)

    async def choose(name: str, item: str) -> None:
        await button(page, f"Options for {name}").click()
        await page.get_by_role("menuitem", name=item).click()

    await choose("Agent", "Rename")
    field = page.get_by_role("textbox", name="Name")
    await field.fill("a\u202eb")
    await button(page, "Save").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    # Of all that a row says, flat, as a screen reader has it.
    listed = page.get_by_role("list", name="Agents").locator(".row-open")
    await expect(listed).to_have_accessible_name(re.compile(r"\bab\b"))
    await expect(listed).not_to_have_accessible_name(re.compile("[\u202a-\u202e\u2066-\u2069]"))
    await choose("ab", "Rename")
    await expect(field).to_have_value("a\u202eb")
    await button(page, "Cancel").click()
    await choose("ab", "Forget")
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_have_accessible_name("Forget ab?")
    assert await dialog.get_by_role("heading").evaluate("e => e.textContent") == "Forget ab?"


class Linking(FieldConnector):
    """One of the field that names its pictures by their addresses."""

    async def _send_sealed(self, type: str, payload: Payload) -> None:
        if type == "chat.done":
            picture = {"type": "image", "mime_type": "image/png"}
            payload["attachments"] = [
                {**picture, "url": "https://example.com/reef.png", "name": "reef.png"},
                {**picture, "url": "https://example.com/track.png?who=me"},
                {**picture, "url": "javascript:document.title='run'", "name": "run.png"},
            ]
        await super()._send_sealed(type, payload)


async def test_a_picture_that_is_only_an_address_is_a_link_that_nobody_follows(
    page: Page, relay: RelayProcess
) -> None:
    requests: list[str] = []
    page.context.on("request", lambda request: requests.append(request.url))
    link = coralmux.PairingLink(relay.url, relay.token())
    async with Linking(link.relay, link.token, reply=["Look at these."]):
        await page.goto(link.web())
        await button(page, "Connect").click()
        await button(page, "Open chat").click()
        await page.evaluate("document.ariaNotify = (text) => { window.spoken = text; }")
        await say(page, "Show me")
        await becomes_true(page, "window.spoken?.includes('reef.png, https://example.com/track')")
        for _ in range(2):
            links = page.locator(".message.agent .links a")
            await expect(links).to_have_text(
                ["reef.png", "https://example.com/track.png?who=me"], timeout=SOON
            )
            assert await links.evaluate_all("all => all.map((a) => [a.href, a.target, a.rel])") == [
                [address, "_blank", "noopener noreferrer"]
                for address in (
                    "https://example.com/reef.png",
                    "https://example.com/track.png?who=me",
                )
            ]
            await expect(page.locator(".message.agent img")).to_have_count(0)
            await expect(page.locator(".message.agent .markdown")).to_have_text("Look at these.")
            await expect(page.locator(".message.agent .failure")).to_be_visible()
            # As it is kept, too.
            await page.reload()
        await expect(links).to_have_count(2)
    assert requests
    assert not [url for url in requests if "example.com" in url]


TABLE = "|" + "c|" * 10 + "\n|" + "-|" * 10 + "\n" + ("|" + "1|" * 10 + "\n") * 1_000
WIDE = "|" + "c|" * 3_000 + "\n|" + "-|" * 3_000 + "\n|" + "1|" * 3_000 + "\n"

GIANTS = {
    "a line of a megabyte": "x" * 1_000_000,
    "a megabyte of words": "word **bold** " * 75_000,
    "a table of ten thousand cells": TABLE,
    "a table of three thousand columns": WIDE,
    "ten thousand quotes within each other": ">" * 10_000 + " x",
    "lists within each other": "\n".join("  " * n + "- x" for n in range(300)),
    "lists within quotes": "> - " * 5_000 + "x",
    "ten thousand brackets": "[" * 10_000 + "](" * 4_000,
    "emphasis without end": "*a_" * 6_000,
    "emphasis within emphasis": "**a _b " * 2_000 + "_**" * 2_000,
    "a list item of many lines": "- a\n" + "b\n" * 50_000,
    "many blocks": "para *x* `y`\n\n" * 10_000,
    "code without end": "```\n" + "let x = 1;\n" * 17_000,
    "many tags": "<sub>" * 5_000,
}


TO_THE_FRONT_AND_BACK = """
async () => {
  const list = document.querySelector(".messages");
  const frame = () => new Promise(requestAnimationFrame);
  for (const top of [0, list.scrollHeight, list.scrollHeight / 2, list.scrollHeight]) {
    list.scrollTop = top;
    await frame();
  }
}
"""


async def test_what_cannot_be_formatted_is_shown_as_it_was_written(
    page: Page, agent: ScriptedAgent, faults: Faults
) -> None:
    faults.allow("no tables today")
    await page.add_init_script(
        """
        const make = document.createElement;
        Document.prototype.createElement = function (name, ...rest) {
          if (name === "table") throw new Error("no tables today");
          return make.call(this, name, ...rest);
        };
        """
    )
    await pair(page, agent)
    table = "A **table**:\n\n| a | b |\n|---|---|\n| c | d |\n"
    agent.answers(lambda message: table)
    await say(page, "Go")
    newest = page.locator(".markdown").last
    await expect(newest).to_contain_text("| c | d |", timeout=SOON)
    await expect(newest).to_contain_text("A **table**:")
    agent.answers(lambda message: "And **now**?")
    await say(page, "Go")
    await expect(newest.get_by_text("now", exact=True)).to_be_visible(timeout=SOON)


async def test_giants_neither_hang_nor_break_the_page(page: Page, agent: ScriptedAgent) -> None:
    await page.add_init_script(WATCH_TASKS)
    await pair(page, agent)
    newest = page.locator(".markdown").last
    for name, text in GIANTS.items():
        end = f"The end of {name}."
        agent.answers(lambda message, answer=f"{text}\n\n{end}": answer)

        async def ask_for_it(end: str = end) -> None:
            await say(page, "Go")
            await expect(newest).to_contain_text(end, timeout=SOON)
            # What takes long is drawn in slices, with pauses between them.
            await expect(page.locator(".caret")).to_have_count(0, timeout=2 * SOON)
            # The page answers: it goes to the front of the message and back, and writes.
            await page.evaluate(TO_THE_FRONT_AND_BACK)
            await textbox(page).fill("Still here")

        assert await longest_task(page, ask_for_it) <= LONGEST_TASK_MS * TOLERANCE, name
        width = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], name

    async def read_again() -> None:
        await page.reload()
        await expect(newest).to_contain_text(end, timeout=SOON)

    # From storage, all at once.
    assert await longest_task(page, read_again) <= LONGEST_TASK_MS * TOLERANCE
