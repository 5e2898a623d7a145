"""Every screen of the phone, one after the other, as somebody meets them."""

from __future__ import annotations

import datetime
import struct
import zlib
from collections.abc import AsyncIterator

from playwright.async_api import Page, expect

import coralmux
from tests.phone.harness import SOON, ScriptedAgent, over, say, to_list
from tests.support.process import RelayProcess

ANSWER = """\
Three trains go **this evening**, all from platform 4:

| Leaves | Arrives | Changes |
|:-------|:--------|--------:|
| 17:42  | 19:05   | 0       |
| 18:12  | 19:58   | 1       |
| 19:42  | 21:05   | 0       |

To be told when one is late:

```python
async for train in timetable.watch("17:42"):
    if train.delay:
        yield f"{train.delay} minutes late"
```

Shall I book the [first one](https://example.com/trains)?
"""
# A day in the browser's clock, so that a picture of today is one of tomorrow, too.
NOON = datetime.datetime(2026, 6, 1, 12, 30, tzinfo=datetime.UTC)


def garden(width: int, height: int) -> bytes:
    """A PNG of some sky above some green."""

    def chunk(type: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + type + data + struct.pack(">I", zlib.crc32(type + data))
        )

    def row(y: int) -> bytes:
        part = y / height
        color = (150 + 90 * part, 190 + 50 * part, 235 - 40 * part)
        if part > 0.6:
            color = (120 - 70 * part, 190 - 90 * part, 110 - 50 * part)
        return b"\0" + bytes(int(value) for value in color) * width

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(row(y) for y in range(height)))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def answer(message: coralmux.ChatMessage) -> AsyncIterator[object]:
    async def parts() -> AsyncIterator[object]:
        if "picture" in message.text:
            yield "Here it is, from the camera above the door."
            yield coralmux.Attachment("garden.png", "image/png", garden(640, 400))
        elif "trains" in message.text:
            yield coralmux.ToolStatus("timetable", "running")
            yield ANSWER
        else:
            yield f"You said: {message.text}"

    return parts()


async def librarians(request: coralmux.Request) -> dict[str, object]:
    names = ("Catalogue and opening hours", "Loans", "Reading room")
    return {"agents": [{"id": name.split()[0], "name": name} for name in names]}


async def tour(page: Page, relay: RelayProcess) -> AsyncIterator[str]:
    """The name of each screen, while the page shows it."""
    button, log = page.get_by_role("button"), page.get_by_role("log")
    await page.clock.set_fixed_time(NOON)
    marvin = ScriptedAgent(relay, name="Marvin")
    marvin.answers(answer)
    library = ScriptedAgent(relay, name="Library")
    library.on("agent.list")(librarians)
    old = ScriptedAgent(relay, encrypted=False, name="Old faithful")
    await marvin.start()
    await library.start()
    await old.start()
    try:
        await page.goto("/phone")
        await expect(page.get_by_role("heading", name="Talk to your own AI")).to_be_visible()
        yield "welcome"

        await page.get_by_role("button", name="Pair an agent").first.click()
        await expect(page.get_by_role("textbox", name="Or paste the link")).to_be_visible()
        yield "pair"

        await page.goto(f"/phone#token=oc_pair_{'0' * 32}&relay=wss%3A%2F%2Frelay.example.com%2Fws")
        await expect(page.get_by_role("link", name="Open relay.example.com")).to_be_visible()
        yield "elsewhere"

        await page.goto("about:blank")
        await page.goto(f"/phone#token={old.link.token}")
        await expect(page.get_by_text("Not verified", exact=True)).to_be_visible()
        yield "confirm-not-verified"

        await button.filter(has_text="Connect").click()
        await expect(button.filter(has_text="Open chat")).to_be_visible(timeout=SOON)
        yield "connected-not-verified"

        await page.goto(library.url)
        await button.filter(has_text="Connect").click()
        await button.filter(has_text="Open chat").click()
        await expect(page.get_by_role("combobox", name="Agent")).to_be_visible(timeout=SOON)
        yield "agents"
        await say(page, "Is the book on tides back?")
        await expect(log.get_by_text("You said: Is the book")).to_be_visible(timeout=SOON)

        await page.goto(marvin.url)
        await expect(button.filter(has_text="Connect")).to_be_visible()
        yield "confirm"

        await button.filter(has_text="Connect").click()
        await expect(button.filter(has_text="Open chat")).to_be_visible(timeout=SOON)
        yield "connected"

        await button.filter(has_text="Open chat").click()
        await expect(page.get_by_role("textbox", name="Message")).to_be_visible()
        yield "chat-empty"

        await say(page, "Which trains can I take home?")
        await expect(log.get_by_text("Shall I book the")).to_be_visible(timeout=SOON)
        await over(page)
        yield "chat"

        await say(page, "And a picture of the garden, please")
        await expect(page.get_by_role("img", name="garden.png")).to_be_visible(timeout=SOON)
        await over(page)
        yield "chat-picture"

        await page.get_by_role("img", name="garden.png").click()
        await expect(page.get_by_role("dialog")).to_be_visible()
        yield "viewer"

        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Search").click()
        await page.get_by_role("searchbox").fill("train")
        await expect(page.get_by_role("search").get_by_text("2 of 2")).to_be_visible()
        yield "search"

        await page.get_by_role("searchbox").fill("submarine")
        await expect(page.get_by_role("search").get_by_role("status")).to_have_text("Not found")
        yield "search-none"

        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Conversation menu").click()
        await expect(page.get_by_role("menu")).to_be_visible()
        yield "menu"

        await page.keyboard.press("Escape")
        await to_list(page)
        await expect(page.get_by_text("Connecting")).to_have_count(0, timeout=SOON)
        yield "list"

        for item in ("Rename", "Forget"):
            await page.get_by_role("button", name="Options for Marvin").click()
            await page.get_by_role("menuitem", name=item).click()
            await expect(page.get_by_role("dialog")).to_be_visible()
            yield item.lower()
            await page.get_by_role("button", name="Cancel").click()

        await page.get_by_role("button", name="Options for Marvin").click()
        await page.get_by_role("menuitem", name="Details").click()
        await expect(page.get_by_role("heading", name="Details")).to_be_visible()
        await expect(page.get_by_role("meter", name="Today")).to_be_visible(timeout=SOON)
        yield "details"

        await to_list(page)
        await page.get_by_role("button", name="Settings").click()
        await expect(page.get_by_role("heading", name="Settings")).to_be_visible()
        yield "settings"

        await to_list(page)
        await (
            page.get_by_role("listitem")
            .filter(has_text="Marvin")
            .get_by_role("button")
            .first.click()
        )
        await marvin.stop()
        await expect(page.get_by_text("offline").first).to_be_visible(timeout=SOON)
        await say(page, "Are you still there?")
        yield "waiting"
        await marvin.start()
    finally:
        await marvin.stop()
        await library.stop()
        await old.stop()
