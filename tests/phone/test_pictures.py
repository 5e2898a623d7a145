"""Pictures with questions and in answers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from collections.abc import AsyncIterator
from typing import Any
from zlib import compress, crc32

from playwright.async_api import FileChooser, Page, expect

import coralmux
from tests.phone.harness import SOON, ScriptedAgent, pair, say
from tests.phone.looks import look
from tests.support.process import RelayProcess

LIMIT = 5_000_000


def picture(red: int, green: int, blue: int, width: int = 320, height: int = 200) -> bytes:
    """A PNG of one colour."""

    def chunk(type: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + type + data + struct.pack(">I", crc32(type + data))

    rows = (b"\0" + bytes((red, green, blue)) * width) * height
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


RED, GREEN, BLUE = (picture(*color) for color in ((190, 60, 40), (30, 120, 80), (30, 60, 130)))


def of_size(count: int) -> bytes:
    """A picture of exactly so many bytes: what is behind its end is shown by nobody."""
    return picture(30, 120, 130, 800, 600).ljust(count, b"\0")


def file(name: str, type: str, data: bytes) -> Any:
    return {"name": name, "mimeType": type, "buffer": data}


# A picture of the size of a telephone's photograph, larger than what can be sent.
PHOTOGRAPH = """
async () => {
  const canvas = new OffscreenCanvas(2000, 1500);
  const context = canvas.getContext("2d");
  const noise = context.createImageData(2000, 1500);
  for (let i = 0; i < noise.data.length; i += 65536) {
    crypto.getRandomValues(noise.data.subarray(i, i + 65536));
  }
  context.putImageData(noise, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/png" });
  const files = new DataTransfer();
  files.items.add(new File([blob], "holiday.png", { type: "image/png" }));
  const input = document.querySelector("input.gallery");
  input.files = files.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
  return blob.size;
}
"""

# A picture as the web has them: WebP under the name of a JPEG.
WEBP = """
async () => {
  const canvas = new OffscreenCanvas(64, 64);
  canvas.getContext("2d").fillRect(0, 0, 32, 32);
  const blob = await canvas.convertToBlob({ type: "image/webp" });
  const files = new DataTransfer();
  files.items.add(new File([blob], "photo.jpg", { type: "image/jpeg" }));
  const input = document.querySelector("input.gallery");
  input.files = files.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}
"""

# Gives files to the page as the clipboard or a drag does.
GIVE = """
({ type, selector, name, mime, data }) => {
  const files = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  files.items.add(new File([bytes], name, { type: mime }));
  const event = type === "paste"
    ? new ClipboardEvent("paste", { clipboardData: files, bubbles: true, cancelable: true })
    : new DragEvent(type, { dataTransfer: files, bubbles: true, cancelable: true });
  document.querySelector(selector).dispatchEvent(event);
}
"""

# Notes how far the bars of pictures come.
PROGRESS = """
() => {
  window.progress = [];
  new MutationObserver(() => {
    const bar = document.querySelector(".picture progress");
    if (bar) progress.push(bar.value);
  }).observe(document.querySelector(".messages"), {
    subtree: true, childList: true, attributes: true,
  });
}
"""


async def chooser_behind(page: Page, item: str) -> FileChooser:
    """What the system is asked for by this item of the menu for pictures."""
    await page.get_by_role("button", name="Add pictures").click()
    async with page.expect_file_chooser() as choosing:
        await page.get_by_role("menuitem", name=item).click()
    return await choosing.value


async def give(page: Page, type: str, selector: str, name: str, mime: str, data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    what = {"type": type, "selector": selector, "name": name, "mime": mime, "data": encoded}
    await page.evaluate(GIVE, what)


async def test_a_picture_of_five_million_bytes_arrives_unaltered_with_its_caption(
    page: Page, agent: ScriptedAgent
) -> None:
    data = of_size(LIMIT)
    await pair(page, agent)
    await page.evaluate(PROGRESS)
    await page.locator("input.gallery").set_input_files(file("reef.png", "image/png", data))
    await expect(page.get_by_role("img", name="Picture reef.png")).to_be_visible()
    await say(page, "What is this?")
    await expect(page.locator(".previews")).to_have_count(0)
    await expect(page.locator(".markdown")).to_have_text("You said: What is this?", timeout=60_000)
    [message] = agent.asked
    [received] = message.attachments
    assert (received.name, received.mime_type) == ("reef.png", "image/png")
    assert hashlib.sha256(received.data).digest() == hashlib.sha256(data).digest()
    progress = await page.evaluate("progress")
    assert len(set(progress)) > 3
    assert progress == sorted(progress)
    await expect(page.locator(".picture progress")).to_have_count(0)


async def test_pictures_are_chosen_shown_and_taken_back(page: Page, agent: ScriptedAgent) -> None:
    await pair(page, agent)
    gallery = await chooser_behind(page, "Choose pictures")
    assert gallery.is_multiple()
    assert await gallery.element.get_attribute("capture") is None
    await gallery.set_files(
        [
            file("red.png", "image/png", RED),
            file("blue.png", "image/png", BLUE),
        ]
    )
    await page.get_by_role("button", name="Remove red.png").click()
    await expect(page.get_by_role("img", name="Picture red.png")).to_have_count(0)
    camera = await chooser_behind(page, "Take a photo")
    assert not camera.is_multiple()
    assert await camera.element.get_attribute("capture") == "environment"
    await camera.set_files(file("shot.png", "image/png", GREEN))
    await look(page, "composer-pictures", wide=True)
    # They are there after a look at the list.
    await page.get_by_role("button", name="Back").click()
    await page.get_by_role("list", name="Agents").get_by_role("button").first.click()
    await expect(page.locator(".preview img")).to_have_count(2)
    # A caption is not needed.
    await page.get_by_role("button", name="Send", exact=True).click()
    await expect(page.locator(".message.agent .foot")).to_have_count(1, timeout=SOON)
    assert [one.name for one in agent.asked[0].attachments] == ["blue.png", "shot.png"]
    assert agent.asked[0].text == ""


async def test_pictures_are_pasted_and_dropped(desktop: Page, agent: ScriptedAgent) -> None:
    await pair(desktop, agent)
    await give(desktop, "paste", "textarea", "pasted.png", "image/png", RED)
    await expect(desktop.get_by_role("img", name="Picture pasted.png")).to_be_visible()
    await give(desktop, "dragover", ".messages", "dropped.png", "image/png", BLUE)
    await expect(desktop.get_by_text("Drop pictures here")).to_be_visible()
    await give(desktop, "drop", ".messages", "dropped.png", "image/png", BLUE)
    await expect(desktop.get_by_text("Drop pictures here")).to_have_count(0)
    await expect(desktop.get_by_role("img", name="Picture dropped.png")).to_be_visible()
    await give(desktop, "drop", ".messages", "notes.txt", "text/plain", b"words")
    await expect(desktop.get_by_text("Only pictures can be sent")).to_be_visible()
    await expect(desktop.locator(".preview")).to_have_count(2)


async def test_a_picture_is_what_its_bytes_say_whatever_its_name(
    page: Page, agent: ScriptedAgent
) -> None:
    await pair(page, agent)
    await page.evaluate(WEBP)
    await expect(page.get_by_role("img", name="Picture photo.jpg")).to_be_visible()
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    await page.locator("input.gallery").set_input_files(file("drawing.svg", "image/svg+xml", svg))
    await expect(page.get_by_role("alert")).to_contain_text("Only pictures can be sent")
    await expect(page.locator(".preview")).to_have_count(1)
    await say(page, "Which kind?")
    await expect(page.locator(".markdown")).to_have_text("You said: Which kind?", timeout=SOON)
    [received] = agent.asked[0].attachments
    assert (received.name, received.mime_type) == ("photo.jpg", "image/webp")
    assert received.data[8:12] == b"WEBP"


async def test_a_file_that_is_dropped_beside_the_chat_does_not_replace_the_page(
    desktop: Page, agent: ScriptedAgent
) -> None:
    await pair(desktop, agent)
    prevented = """
    (selector) => {
      const files = new DataTransfer();
      files.items.add(new File(["words"], "a.txt", { type: "text/plain" }));
      const event = (type) => new DragEvent(
        type, { dataTransfer: files, bubbles: true, cancelable: true });
      const target = document.querySelector(selector);
      return ["dragover", "drop"].map((type) => !target.dispatchEvent(event(type)));
    }
    """
    assert await desktop.evaluate(prevented, "h1") == [True, True]
    await expect(desktop.locator(".preview")).to_have_count(0)


async def test_a_picture_that_is_too_large_is_told_and_made_smaller(
    page: Page, agent: ScriptedAgent
) -> None:
    await pair(page, agent)
    assert await page.evaluate(PHOTOGRAPH) > LIMIT
    await expect(page.get_by_role("alert")).to_contain_text("up to 5 MB can be sent")
    send = page.get_by_role("button", name="Send", exact=True)
    await expect(send).to_be_disabled()
    await look(page, "composer-too-large", wide=True)
    await page.get_by_role("button", name="Make it smaller").click()
    await expect(send).to_be_enabled(timeout=SOON)
    await send.click()
    await expect(page.locator(".message.agent .foot")).to_have_count(1, timeout=60_000)
    [received] = agent.asked[0].attachments
    assert received.name == "holiday.jpg"
    assert len(received.data) <= LIMIT
    image = page.locator(".message.me .picture img")
    width, height = await image.evaluate("e => [e.naturalWidth, e.naturalHeight]")
    assert width * 1500 == height * 2000


async def test_a_picture_that_is_scaled_down_for_an_agent_of_version_1_says_so(
    page: Page, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay, encrypted=False)
    await agent.start()
    try:
        await pair(page, agent)
        assert await page.evaluate(PHOTOGRAPH) > LIMIT
        await expect(page.locator(".previews")).to_contain_text(
            "Larger pictures are scaled down for this agent."
        )
        await page.get_by_role("button", name="Send", exact=True).click()
        await expect(page.locator(".message.agent .foot")).to_have_count(1, timeout=60_000)
        await expect(page.locator(".message.me .foot")).to_contain_text(
            "Scaled down for this agent"
        )
        assert len(agent.asked[0].attachments[0].data) < LIMIT
    finally:
        await agent.stop()


async def test_pictures_of_an_answer_are_opened_large_and_saved(
    page: Page, agent: ScriptedAgent
) -> None:
    large = of_size(3_000_000)
    sent = asyncio.Event()

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[object]:
        yield "Look: "
        yield coralmux.Attachment("reef.png", "image/png", large)
        yield coralmux.Attachment("map.png", "image/png", picture(30, 60, 130, 400, 900))
        yield coralmux.Attachment("notes.txt", "text/plain", b"words")
        sent.set()

    await pair(page, agent)
    await page.evaluate(PROGRESS)
    await say(page, "Show me")
    await asyncio.wait_for(sent.wait(), SOON / 1000)
    message = page.locator(".message.agent")
    await expect(message.locator(".foot")).to_have_count(1, timeout=SOON)
    assert await page.evaluate("new Set(progress).size") > 3
    await expect(page.locator(".picture progress")).to_have_count(0)
    await expect(message.locator(".picture img")).to_have_count(2)
    await look(page, "pictures", wide=True)
    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Save notes.txt").click()
    assert (await downloading.value).suggested_filename == "notes.txt"

    await page.get_by_role("button", name="Open picture reef.png").click()
    viewer = page.get_by_role("dialog")
    await expect(viewer).to_have_accessible_name("Picture 1 of 2: reef.png")
    image = viewer.get_by_role("img")
    await expect(image).to_be_visible()
    small = await image.bounding_box()
    await viewer.get_by_role("button", name="Zoom").click()
    zoomed = await image.bounding_box()
    assert small is not None
    assert zoomed is not None
    assert zoomed["width"] > 2 * small["width"]
    await viewer.get_by_role("button", name="Zoom").click()
    await look(page, "viewer")
    async with page.expect_download() as downloading:
        await viewer.get_by_role("button", name="Save").click()
    download = await downloading.value
    saved = await download.path()
    assert await asyncio.to_thread(saved.read_bytes) == large
    await page.keyboard.press("ArrowRight")
    await expect(viewer).to_have_accessible_name("Picture 2 of 2: map.png")
    await expect(viewer.get_by_role("button", name="Next picture")).to_be_disabled()
    await page.keyboard.press("ArrowLeft")
    await expect(viewer).to_have_accessible_name("Picture 1 of 2: reef.png")
    await page.keyboard.press("Escape")
    await expect(viewer).to_have_count(0)
    await expect(page.get_by_role("button", name="Open picture reef.png")).to_be_focused()

    # Back leaves the picture, not the chat.
    await page.get_by_role("button", name="Open picture map.png").click()
    await expect(viewer).to_be_visible()
    await page.evaluate("history.back()")
    await expect(viewer).to_have_count(0)
    await expect(message).to_be_visible()
    await page.get_by_role("button", name="Open picture map.png").click()
    await viewer.get_by_role("button", name="Close").click()
    await expect(viewer).to_have_count(0)
    assert await page.evaluate("[history.state.route.view, history.state.viewer]") == ["chat", None]

    # They are there when the page comes back.
    await page.reload()
    await expect(message.locator(".picture img")).to_have_count(2)
    natural = "e => e.decode().then(() => [e.naturalWidth, e.naturalHeight])"
    assert await message.locator(".picture img").first.evaluate(natural) == [800, 600]
