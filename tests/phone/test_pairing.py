"""Pairing: a link comes by the address, by the clipboard or by the camera, and waits for a yes."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
import segno
from playwright.async_api import Browser, Page, async_playwright, expect

import coralmux
from tests.bridge.bridges import Bridge
from tests.phone.conftest import OpenContext
from tests.phone.harness import (
    BROWSER_ARGUMENTS,
    DESKTOP,
    PHONE,
    SOON,
    Faults,
    ScriptedAgent,
    button,
    open_context,
    pair,
    say,
)
from tests.phone.looks import look
from tests.support.process import RelayProcess

CAMERA_WIDTH, CAMERA_HEIGHT = 640, 480
SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
TOKEN = "oc_pair_0123456789abcdef0123456789abcdef"

REMEMBER_STREAMS = """
const media = navigator.mediaDevices;
const open = media?.getUserMedia.bind(media);
globalThis.streams = [];
if (open) media.getUserMedia = async (wanted) => {
  const stream = await open(wanted);
  streams.push(stream);
  return stream;
};
"""
# Ends when the camera is on, or off again.
CAMERA = """
async (on) => {
  const late = Date.now() + 15000;
  while (!streams.length || streams.some((stream) => stream.active) !== on) {
    if (Date.now() > late) throw new Error("the camera did not turn " + (on ? "on" : "off"));
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
"""


def heading(page: Page, name: str):
    return page.get_by_role("heading", name=name)


async def paste(page: Page, text: str) -> None:
    """From anywhere: the page for pairing, with this in its field."""
    await page.goto("/phone")
    await button(page, "Pair an agent").click()
    await page.get_by_label("Or paste the link").fill(text)
    await button(page, "Continue").click()


async def revoke(relay: RelayProcess, agent: ScriptedAgent) -> None:
    await agent.stop()
    token = quote(agent.link.token)
    status, _ = await asyncio.to_thread(relay.http, "DELETE", f"/api/v1/pair/{token}", admin=True)
    assert status == 204


async def test_a_link_is_named_and_nothing_is_connected_before_a_yes(
    page: Page, agent: ScriptedAgent, relay: RelayProcess
) -> None:
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    await page.goto(agent.url)
    await expect(heading(page, "Connect to this agent?")).to_be_visible()
    await expect(page.get_by_role("definition").first).to_have_text(f"127.0.0.1:{relay.port}")
    # Nothing is proved before there is a handshake, and the link holds no name.
    await expect(page.get_by_text("Checked when you connect")).to_be_visible()
    await expect(page.get_by_text("It tells its name once it is connected")).to_be_visible()
    await expect(page.get_by_text("verified", exact=False)).to_have_count(0)
    await button(page, "Not now").click()
    await expect(heading(page, "Talk to your own AI")).to_be_visible()
    await page.reload()
    await expect(heading(page, "Talk to your own AI")).to_be_visible()
    assert sockets == []


async def test_a_connected_agent_becomes_the_open_chat_by_a_tap_alone(
    page: Page, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay, name="Marvin")
    await page.goto(agent.url)
    await button(page, "Connect").click()
    await expect(heading(page, "The agent is not there yet")).to_be_visible(timeout=SOON)
    await expect(button(page, "Open chat")).to_be_disabled()
    await agent.start()
    try:
        await expect(heading(page, "Connected to Marvin, verified")).to_be_visible(timeout=SOON)
        await expect(page.get_by_role("textbox", name="Message")).to_have_count(0)
        await expect(button(page, "Open chat")).to_be_focused()
        await button(page, "Open chat").click()
        await say(page, "Hello")
        await expect(page.get_by_text("You said: Hello")).to_be_visible(timeout=SOON)
    finally:
        await agent.stop()


async def test_a_link_can_be_pasted(page: Page, agent: ScriptedAgent) -> None:
    await paste(page, f"  {agent.link.uri()}\n")
    await button(page, "Connect").click()
    await expect(button(page, "Open chat")).to_be_enabled(timeout=SOON)


async def test_the_first_link_of_a_pasted_text_is_taken(page: Page, agent: ScriptedAgent) -> None:
    await paste(page, f"Open this: {agent.url}. Or, in a terminal: {agent.link.uri()}")
    await button(page, "Connect").click()
    await expect(heading(page, "Connected to Agent, verified")).to_be_visible(timeout=SOON)


async def test_half_a_link_is_never_taken_for_one_without_a_secret(
    page: Page, agent: ScriptedAgent
) -> None:
    before, after = agent.url.split("&psk=")
    # A field of one line makes nothing of line breaks; spaces come from mail programs.
    await paste(page, f"Open this: {before} &psk={after}")
    await expect(page.get_by_role("alert")).to_contain_text("The link is not complete")
    await expect(button(page, "Connect")).to_have_count(0)


async def test_a_picture_of_the_code_is_read(page: Page, agent: ScriptedAgent) -> None:
    picture = io.BytesIO()
    segno.make(agent.url).save(picture, kind="png", scale=9, border=4)
    await page.goto("/phone")
    await button(page, "Pair an agent").click()
    async with page.expect_file_chooser() as choosing:
        await button(page, "Choose a picture of the code").click()
    chooser = await choosing.value
    await chooser.set_files({"name": "a.txt", "mimeType": "image/png", "buffer": b"no picture"})
    await expect(page.get_by_role("alert")).to_contain_text("No code was found")
    await chooser.set_files(
        {"name": "code.png", "mimeType": "image/png", "buffer": picture.getvalue()}
    )
    await expect(heading(page, "Connect to this agent?")).to_be_visible(timeout=SOON)


async def test_a_link_that_is_known_changes_nothing_and_opens_its_chat(
    page: Page, agent: ScriptedAgent
) -> None:
    await pair(page, agent)
    await page.goto("about:blank")
    await page.goto(agent.url)
    await expect(heading(page, "You have this agent already")).to_be_visible()
    await expect(button(page, "Connect")).to_have_count(0)
    await button(page, "Open chat").click()
    await say(page, "Still you?")
    await expect(page.get_by_text("You said: Still you?")).to_be_visible(timeout=SOON)


async def test_a_link_of_a_pairing_that_has_ended_asks_to_forget_that_first(
    page: Page, agent: ScriptedAgent, relay: RelayProcess
) -> None:
    await pair(page, agent)
    await revoke(relay, agent)
    await expect(button(page, "Pair again")).to_be_visible()
    await page.goto("about:blank")
    await page.goto(agent.url)
    await expect(heading(page, "The pairing with Agent has ended")).to_be_visible(timeout=SOON)
    await expect(page.get_by_text("Forget it first")).to_be_visible()
    await expect(button(page, "Connect")).to_have_count(0)
    await button(page, "Forget Agent").click()
    await button(page, "Forget").click()
    await expect(heading(page, "Connect to this agent?")).to_be_visible()
    await expect(button(page, "Connect")).to_be_visible()


@pytest.mark.parametrize("options", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_a_revoked_pairing_leads_to_where_one_pairs_again(
    open_profile: OpenContext, agent: ScriptedAgent, relay: RelayProcess, options: dict[str, Any]
) -> None:
    async with open_profile(**options) as context:
        page = await context.new_page()
        await pair(page, agent)
        await revoke(relay, agent)
        await button(page, "Pair again").click()
        await expect(heading(page, "Pair an agent")).to_be_focused()
        await expect(button(page, "Scan the code")).to_be_visible()
        await button(page, "Back").click()
        await expect(button(page, "Pair again")).to_be_visible()


async def test_a_link_that_is_opened_in_the_chat_asks_before_anything_else(
    page: Page, agent: ScriptedAgent, relay: RelayProcess
) -> None:
    await pair(page, agent)
    other = coralmux.PairingLink.new(agent.link.relay, relay.token())
    await page.evaluate("(url) => { location.href = url; }", other.web())
    await expect(heading(page, "Connect to this agent?")).to_be_visible()
    await button(page, "Not now").click()
    await expect(page.get_by_role("listitem")).to_have_count(1)


async def test_a_link_without_a_secret_is_not_verified(page: Page, relay: RelayProcess) -> None:
    agent = ScriptedAgent(relay, encrypted=False)
    await agent.start()
    try:
        await page.goto(agent.url)
        await expect(page.get_by_text("Not verified", exact=True)).to_be_visible()
        await expect(page.get_by_text("whoever runs the relay could read along")).to_be_visible()
        await button(page, "Connect").click()
        await expect(heading(page, "Connected to Agent, not verified")).to_be_visible(timeout=SOON)
        await button(page, "Open chat").click()
        await expect(page.locator(".standing")).to_contain_text("Not verified")
        await expect(page.get_by_text("What you write here is encrypted, but")).to_be_visible()
    finally:
        await agent.stop()


async def test_a_link_to_another_relay_offers_that_relay_s_phone(page: Page) -> None:
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    relay = quote("wss://relay.example.com/ws", safe="")
    await page.goto(f"/phone#token={TOKEN}&psk={SECRET}&relay={relay}")
    await expect(heading(page, "The link belongs to another relay")).to_be_visible()
    there = page.get_by_role("link", name="Open relay.example.com")
    await expect(there).to_have_attribute(
        "href", f"https://relay.example.com/phone#token={TOKEN}&psk={SECRET}"
    )
    await expect(there).to_have_attribute("rel", "noopener noreferrer")
    await expect(button(page, "Connect")).to_have_count(0)
    assert sockets == []


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("wss://relay.example.com/ws", "no pairing link"),
        (f"/login#token={TOKEN}&psk={SECRET}", "not complete"),
        (f"coralmux://pair?relay=ftp%3A%2F%2Fexample.com&token={TOKEN}", "relay's address"),
        (f"/phone#psk={SECRET}", "The token"),
        (f"/phone#token={TOKEN}&psk={SECRET[:-3]}", "The secret"),
    ],
    ids=["scheme", "form", "relay", "token", "psk"],
)
async def test_a_bad_link_is_told_by_the_part_that_is_wrong(
    page: Page, relay: RelayProcess, link: str, words: str
) -> None:
    text = f"http://127.0.0.1:{relay.port}{link}" if link.startswith("/") else link
    await paste(page, text)
    await expect(page.get_by_role("alert")).to_contain_text(words)
    assert SECRET[:20] not in await page.get_by_role("alert").inner_text()
    await expect(page.get_by_label("Or paste the link")).to_have_value(text)


async def test_a_bad_link_in_the_address_is_told_too(page: Page) -> None:
    await page.goto(f"/phone#token={TOKEN}&psk=short")
    await expect(page.get_by_role("alert")).to_contain_text("The secret in the link is damaged")
    await expect(page.get_by_label("Or paste the link")).to_have_value("")


async def test_a_link_that_somebody_has_used_is_refused(
    open_profile: OpenContext, page: Page, agent: ScriptedAgent
) -> None:
    await pair(page, agent)
    await say(page, "First")
    await expect(page.get_by_text("You said: First")).to_be_visible(timeout=SOON)
    async with open_profile(**PHONE) as context:
        second = await context.new_page()
        await second.goto(agent.url)
        await button(second, "Connect").click()
        await expect(second.get_by_role("alert")).to_contain_text(
            "The agent does not accept this link", timeout=SOON
        )
        await button(second, "Remove this pairing").click()
        await button(second, "Forget").click()
        await expect(heading(second, "Talk to your own AI")).to_be_visible()


async def test_a_token_that_the_relay_does_not_know_ends_with_what_to_do(
    page: Page, relay: RelayProcess
) -> None:
    await page.goto(f"/phone#token={TOKEN}&psk={SECRET}")
    await button(page, "Connect").click()
    await expect(page.get_by_role("alert")).to_contain_text("Make a new link", timeout=SOON)


async def test_what_the_relay_s_page_means_for_trust_is_said(
    page: Page, agent: ScriptedAgent, relay: RelayProcess
) -> None:
    await page.goto(agent.url)
    more = page.get_by_text("could serve another page that does")
    await expect(more).to_be_hidden()
    await page.get_by_text("More about trust").click()
    await expect(more).to_be_visible()


async def test_back_leads_to_the_list_and_never_to_a_link_again(
    page: Page, agent: ScriptedAgent
) -> None:
    await page.goto("/phone")
    await pair(page, agent)
    await page.go_back()
    await expect(page.get_by_role("listitem")).to_have_count(1)
    await page.go_forward()
    await expect(page.get_by_role("textbox", name="Message")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("textbox", name="Message")).to_be_visible()


async def test_without_a_camera_the_page_says_what_else_to_do(page: Page) -> None:
    await page.goto("/phone")
    await button(page, "Pair an agent").click()
    await button(page, "Scan the code").click()
    await expect(page.get_by_role("alert")).to_contain_text("There is no camera here")
    await expect(page.get_by_label("Or paste the link")).to_be_visible()


async def test_a_camera_that_is_denied_says_where_to_allow_it(
    chromium: str, faults: Faults, relay: RelayProcess
) -> None:
    # There is one, and headless Chromium answers its own question with no.
    arguments = [*BROWSER_ARGUMENTS, "--use-fake-device-for-media-stream"]
    async with async_playwright() as playwright:
        denying = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        here = f"http://127.0.0.1:{relay.port}"
        async with open_context(denying, faults, base_url=here, **PHONE) as context:
            page = await context.new_page()
            await page.goto("/phone")
            await button(page, "Pair an agent").click()
            await button(page, "Scan the code").click()
            alert = page.get_by_role("alert")
            await expect(alert).to_contain_text("The camera is not allowed here", timeout=SOON)
            await expect(button(page, "Scan the code")).to_be_visible()
            await look(page, "scanner-denied", wide=True)
        await denying.close()


def film(path: Path, code: segno.QRCode) -> None:
    """Write what a camera sees that looks at the code, as a Y4M of two frames."""
    modules = [[bool(dark) for dark in row] for row in code.matrix_iter(border=4)]
    scale = CAMERA_HEIGHT // len(modules)
    left = (CAMERA_WIDTH - scale * len(modules)) // 2
    white = b"\xd0" * CAMERA_WIDTH
    luma = bytearray()
    for row in modules:
        line = bytearray(white)
        for column, dark in enumerate(row):
            if dark:
                at = left + column * scale
                line[at : at + scale] = b"\x20" * scale
        luma += bytes(line) * scale
    luma += white * (CAMERA_HEIGHT - scale * len(modules))
    frame = b"FRAME\n" + bytes(luma) + b"\x80" * (CAMERA_WIDTH * CAMERA_HEIGHT // 2)
    head = f"YUV4MPEG2 W{CAMERA_WIDTH} H{CAMERA_HEIGHT} F10:1 Ip A1:1 C420jpeg\n"
    path.write_bytes(head.encode() + frame * 2)


@pytest_asyncio.fixture(loop_scope="session")
async def seeing(chromium: str, bridge: Bridge, tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser whose camera looks at the bridge's code, and that knows a name for the relay."""
    camera = tmp_path / "camera.y4m"
    film(camera, segno.make(bridge.links[0].web(), error="m"))
    arguments = [
        *BROWSER_ARGUMENTS,
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
        "--host-resolver-rules=MAP phone.example.com 127.0.0.1",
    ]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        await browser.close()


async def test_the_code_is_scanned_by_the_camera_which_is_off_then(
    seeing: Browser, faults: Faults, relay: RelayProcess
) -> None:
    here = f"http://127.0.0.1:{relay.port}"
    async with open_context(seeing, faults, base_url=here, **PHONE) as context:
        await context.add_init_script(REMEMBER_STREAMS)
        page = await context.new_page()
        await page.goto("/phone")
        await button(page, "Pair an agent").click()
        await button(page, "Scan the code").click()
        await expect(heading(page, "Connect to this agent?")).to_be_visible(timeout=SOON)
        await page.evaluate(CAMERA, False)
        await button(page, "Connect").click()
        await button(page, "Open chat").click()
        await say(page, "Hello")
        await expect(page.locator(".markdown")).to_have_text("Hello", timeout=SOON)


async def test_the_camera_is_off_when_the_user_leaves(
    seeing: Browser, faults: Faults, relay: RelayProcess
) -> None:
    here = f"http://127.0.0.1:{relay.port}"
    async with open_context(seeing, faults, base_url=here, **PHONE) as context:
        await context.add_init_script(REMEMBER_STREAMS)
        page = await context.new_page()
        # A camera that sees nothing: no frame has a size.
        await context.add_init_script(
            "Object.defineProperty(HTMLVideoElement.prototype, 'videoWidth', { value: 0 });"
        )
        await page.goto("/phone")
        await button(page, "Pair an agent").click()
        await button(page, "Scan the code").click()
        await page.evaluate(CAMERA, True)
        await look(page, "scanner", wide=True)
        await page.go_back()
        await page.evaluate(CAMERA, False)


async def test_on_an_insecure_origin_the_page_offers_the_secure_one(
    seeing: Browser, faults: Faults, bridge: Bridge, relay: RelayProcess
) -> None:
    origin = f"phone.example.com:{relay.port}"
    fragment = bridge.links[0].web().partition("#")[2]
    async with open_context(seeing, faults, **PHONE) as context:
        faults.allow("Cross-Origin-Opener-Policy")
        page = await context.new_page()
        await page.goto(f"http://{origin}/phone#{fragment}")
        await expect(heading(page, "The phone cannot work here")).to_be_visible()
        await expect(page.get_by_role("link", name="Open it over https")).to_have_attribute(
            "href", f"https://{origin}/phone#{fragment}"
        )
        await expect(page.get_by_role("button")).to_have_count(0)
        await look(page, "insecure", wide=True)
