"""The list of agents, their details, and the settings."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

import coralmux
from tests.phone.conftest import OpenContext
from tests.phone.harness import PHONE, SOON, ScriptedAgent, button, pair, row, say, to_list
from tests.support.process import RelayProcess

# The names of all records that the page keeps.
KEPT = """
async () => {
  const open = indexedDB.open("coralmux");
  await new Promise((resolve) => { open.onsuccess = resolve; });
  const records = open.result.transaction("kept").objectStore("kept").getAllKeys();
  await new Promise((resolve) => { records.onsuccess = resolve; });
  open.result.close();
  return records.result;
}
"""
# From here on, nothing that is renamed can be kept.
BROKEN_RENAME = """
async () => {
  const main = document.querySelector('script[src$="app/main.js"]').src;
  const { Pairing } = await import(new URL("model/pairing.js", main).href);
  Pairing.prototype.rename = () => Promise.reject(new Error("broken"));
}
"""


async def choose(page: Page, name: str, item: str) -> None:
    """From the menu of an agent in the list."""
    await button(page, f"Options for {name}").click()
    await page.get_by_role("menuitem", name=item).click()


async def test_without_an_agent_the_page_teaches_how_to_get_one(
    open_profile: OpenContext, relay: RelayProcess
) -> None:
    async with open_profile(**PHONE, permissions=["clipboard-read", "clipboard-write"]) as context:
        page = await context.new_page()
        await page.goto("/phone")
        command = f"coralmux-agent run --relay ws://127.0.0.1:{relay.port}"
        await expect(page.get_by_text(command)).to_be_visible()
        await button(page, "Copy the command").click()
        await expect(button(page, "Copied")).to_be_visible()
        assert await page.evaluate("navigator.clipboard.readText()") == command


async def test_a_row_says_who_is_there_what_was_said_and_what_is_unread(
    page: Page, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay, name="Marvin")
    agent.answers(lambda message: f"**{message.text}**, you said")
    await agent.start()
    await pair(page, agent)
    await say(page, "Hello")
    await expect(page.get_by_text("Hello, you said")).to_be_visible(timeout=SOON)
    await to_list(page)
    marvin = row(page, "Marvin")
    await expect(marvin).to_contain_text("Hello, you said")
    await expect(marvin).to_contain_text("online")
    await expect(marvin.get_by_role("time")).to_have_text(re.compile(r"\d:\d\d"))
    await expect(marvin).not_to_contain_text("unread")
    await agent.stop()
    await expect(marvin).to_contain_text("offline", timeout=SOON)


async def test_a_row_uses_its_whole_width_and_keeps_its_side_for_any_script(
    page: Page, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay, name="مساعد المطبخ")
    agent.answers(lambda _: "a long answer " * 9)
    await agent.start()
    await pair(page, agent)
    await say(page, "Hello")
    await expect(page.get_by_text("a long answer").first).to_be_visible(timeout=SOON)
    await to_list(page)
    listed = row(page, "مساعد")
    await expect(listed).to_contain_text("a long answer", timeout=SOON)
    avatar, name, text, time = [
        await listed.locator(part).evaluate("(element) => element.getBoundingClientRect().toJSON()")
        for part in (".row-avatar", ".row-name bdi", ".row-text", ".row-time")
    ]
    assert avatar["right"] < name["left"] == text["left"] < avatar["right"] + 20
    assert text["right"] >= time["right"] - 1
    await agent.stop()


async def test_a_name_that_cannot_be_kept_is_told_in_the_dialog(
    paired_page: Page, agent: ScriptedAgent
) -> None:
    page = paired_page
    await to_list(page)
    await choose(page, "Agent", "Rename")
    await page.evaluate(BROKEN_RENAME)
    await page.get_by_role("textbox", name="Name").fill("Kitchen")
    await button(page, "Save").click()
    await expect(page.get_by_role("alert")).to_contain_text("could not be kept")
    await expect(page.get_by_role("textbox", name="Name")).to_have_value("Kitchen")
    await button(page, "Cancel").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_an_answer_that_comes_behind_one_s_back_is_counted(
    paired_page: Page, agent: ScriptedAgent
) -> None:
    page = paired_page
    left = asyncio.Event()

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> str:
        await left.wait()
        return f"You said: {message.text}"

    await say(page, "Later")
    await to_list(page)
    left.set()
    await expect(page.get_by_role("listitem")).to_contain_text("1 unread message", timeout=SOON)
    await expect(page).to_have_title("(1) CoralMux")
    await page.get_by_role("listitem").click()
    await expect(page.get_by_text("You said: Later")).to_be_visible()
    await to_list(page)
    await expect(page.get_by_role("listitem")).not_to_contain_text("unread")
    await expect(page).to_have_title("CoralMux")


async def test_an_agent_is_renamed_and_gets_its_own_name_back(
    page: Page, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay, name="Marvin")
    await agent.start()
    await pair(page, agent)
    await to_list(page)
    await choose(page, "Marvin", "Rename")
    await expect(page.get_by_role("textbox", name="Name")).to_be_focused()
    await page.keyboard.type("Kitchen")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.reload()
    await expect(row(page, "Kitchen")).to_be_visible()
    await choose(page, "Kitchen", "Rename")
    await page.get_by_role("textbox", name="Name").fill("")
    await button(page, "Save").click()
    await expect(row(page, "Marvin")).to_be_visible()
    await agent.stop()


TYPED_AT_ONCE = """async (item) => {
    item.click();
    while (document.activeElement?.tagName !== "INPUT") await null;
    document.execCommand("insertText", false, "K");
    await new Promise((resolve) => setTimeout(resolve, 300));
    document.execCommand("insertText", false, "itchen");
    return document.activeElement.value;
}"""


async def test_the_old_name_is_selected_before_the_first_key_can_come(
    page: Page, agent: ScriptedAgent
) -> None:
    await pair(page, agent)
    await to_list(page)
    await button(page, "Options for Agent").click()
    rename = page.get_by_role("menuitem", name="Rename")
    async with asyncio.timeout(10):
        assert await rename.evaluate(TYPED_AT_ONCE) == "Kitchen"


async def test_forgetting_asks_first_and_wipes_all_that_was_kept(
    paired_page: Page, agent: ScriptedAgent
) -> None:
    page = paired_page
    await say(page, "Hello")
    await expect(page.get_by_text("You said: Hello")).to_be_visible(timeout=SOON)
    await to_list(page)
    await choose(page, "Agent", "Forget")
    await expect(page.get_by_role("dialog", name="Forget Agent?")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    assert len(await page.evaluate(KEPT)) > 2
    await choose(page, "Agent", "Forget")
    await button(page, "Forget").click()
    await expect(page.get_by_role("heading", name="Talk to your own AI")).to_be_visible()
    assert await page.evaluate(KEPT) == ["key"]
    await page.reload()
    await expect(page.get_by_role("heading", name="Talk to your own AI")).to_be_visible()


async def test_details_say_what_a_pairing_is_and_uses(page: Page, relay: RelayProcess) -> None:
    agent = ScriptedAgent(relay, name="Marvin")
    await agent.start()
    await pair(page, agent)
    # Several kilobytes, which an account of nothing would not show.
    await say(page, "Hello " * 2_000)
    await expect(page.locator(".markdown")).to_be_visible(timeout=SOON)
    await to_list(page)
    await button(page, "Settings").click()
    row = page.get_by_role("button").filter(has_text="Marvin")
    await expect(row).to_contain_text(re.compile(r"\d\d+ kB today, \d\d+ kB this month"))
    await button(page, "Back").click()
    await choose(page, "Marvin", "Details")
    facts = page.get_by_role("main")
    for text in (
        re.compile(r"Marvin, version \d"),
        f"127.0.0.1:{relay.port}",
        "Verified",
        "Version 2, end to end",
    ):
        await expect(facts.get_by_role("definition").filter(has_text=text)).to_be_visible()
    today = page.get_by_role("meter", name="Today")
    await expect(today).to_have_attribute("aria-valuetext", re.compile(r"^\d\d+ kB of 524 MB$"))
    month = page.get_by_role("meter", name="This month")
    await expect(month).to_have_attribute("aria-valuetext", re.compile(r"^\d\d+ kB of 11 GB$"))
    await expect(page.get_by_text("Starts anew")).to_have_count(2)
    await agent.stop()


async def test_a_conversation_is_exported_and_its_messages_are_deleted(
    paired_page: Page, tmp_path: Path
) -> None:
    page = paired_page
    await say(page, "Hello")
    await expect(page.get_by_text("You said: Hello")).to_be_visible(timeout=SOON)
    await to_list(page)
    await choose(page, "Agent", "Details")
    async with page.expect_download() as downloading:
        await button(page, "Export all messages with Agent").click()
    download = await downloading.value
    assert download.suggested_filename == "Agent.md"
    await download.save_as(tmp_path / "saved.md")
    text = (tmp_path / "saved.md").read_text("utf-8")
    assert re.search(r"\*\*You\*\*, .*\n\nHello\n\n\*\*Agent\*\*, .*\n\nYou said: Hello\n", text)

    await button(page, "Delete all messages with Agent").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete all messages").click()
    await button(page, "Back").click()
    await expect(row(page, "Agent")).to_contain_text("No messages yet")


async def test_of_several_agents_all_messages_are_exported_and_deleted(
    page: Page, agent: ScriptedAgent, tmp_path: Path
) -> None:
    @agent.on("agent.list")
    async def agents(request: coralmux.Request) -> dict[str, object]:
        return {"agents": [{"id": "cook", "name": "Cook"}, {"id": "poet", "name": "Poet"}]}

    await agent.stop()
    await agent.start()
    await pair(page, agent)
    for name, text in (("cook", "Soup?"), ("poet", "Rhyme?")):
        await page.get_by_role("combobox", name="Agent").select_option(name)
        await say(page, text)
        await expect(page.get_by_text(f"You said: {text}")).to_be_visible(timeout=SOON)
    await to_list(page)
    await choose(page, "Agent", "Details")
    async with page.expect_download() as downloading:
        await button(page, "Export all messages with Agent").click()
    download = await downloading.value
    await download.save_as(tmp_path / "saved.md")
    text = (tmp_path / "saved.md").read_text("utf-8")
    assert download.suggested_filename == "Agent.md"
    assert re.search(
        r"^# Cook\n.*You said: Soup\?\n.*^# Poet\n.*You said: Rhyme\?\n", text, re.M | re.S
    )

    await button(page, "Delete all messages with Agent").click()
    dialog = page.get_by_role("dialog", name="Delete all messages with Agent?")
    await dialog.get_by_role("button", name="Delete all messages").click()
    await expect(dialog).to_have_count(0)
    await button(page, "Back").click()
    await expect(row(page, "Agent")).to_contain_text("No messages yet")


async def test_forgetting_from_the_chat_s_details_ends_at_the_list(paired_page: Page) -> None:
    page = paired_page
    await to_list(page)
    await choose(page, "Agent", "Details")
    await button(page, "Forget this agent").click()
    await button(page, "Forget").click()
    await expect(page.get_by_role("heading", name="Talk to your own AI")).to_be_visible()
    assert await page.evaluate("history.state?.depth ?? 0") == 0


async def test_settings_tell_version_and_storage(page: Page, relay: RelayProcess) -> None:
    await page.goto("/phone")
    await button(page, "Settings").click()
    await expect(page.get_by_role("heading", name="Settings")).to_be_focused()
    await expect(
        page.get_by_text(re.compile(r"^Version \d+\.\d+\.\d+-[0-9a-f]{8}$"))
    ).to_be_visible()
    await expect(page.get_by_text(re.compile(r"^\d.* in use$"))).to_be_visible()
    await page.go_back()
    await expect(page.get_by_role("heading", name="Talk to your own AI")).to_be_visible()


async def test_a_desktop_has_list_and_chat_side_by_side(
    desktop: Page, agent: ScriptedAgent, relay: RelayProcess
) -> None:
    other = ScriptedAgent(relay, name="Marvin")
    await other.start()
    await pair(desktop, agent)
    await desktop.goto("about:blank")
    await pair(desktop, other)
    agents = desktop.get_by_role("navigation", name="Agents")
    await expect(agents.get_by_role("listitem")).to_have_count(2)
    await expect(agents.locator("[aria-current]")).to_contain_text("Marvin")
    await row(desktop, "Agent").get_by_role("button").first.click()
    await expect(agents.locator("[aria-current]")).to_contain_text("Agent")
    await say(desktop, "Hello")
    await expect(desktop.get_by_role("main").get_by_text("You said: Hello")).to_be_visible(
        timeout=SOON
    )
    await other.stop()


@pytest.mark.parametrize("name", ["Settings", "Pair an agent"])
async def test_on_a_desktop_back_leads_to_the_chat_that_was_open(
    desktop: Page, agent: ScriptedAgent, name: str
) -> None:
    message = desktop.get_by_role("textbox", name="Message")
    await pair(desktop, agent)
    for way in (desktop.go_back, button(desktop, "Back").click):
        await button(desktop, name).click()
        await button(desktop, name).click()
        await expect(desktop.get_by_role("heading", name=name)).to_be_visible()
        await way()
        await expect(message).to_be_visible()


async def test_on_a_desktop_one_chat_takes_the_place_of_another(
    desktop: Page, agent: ScriptedAgent, relay: RelayProcess
) -> None:
    other = ScriptedAgent(relay, name="Marvin")
    await other.start()
    await pair(desktop, agent)
    await desktop.goto("about:blank")
    await pair(desktop, other)
    await row(desktop, "Agent").get_by_role("button").first.click()
    await expect(desktop.locator("[aria-current]")).to_contain_text("Agent")
    await desktop.go_back()
    await expect(desktop.get_by_text("Choose an agent to talk to.")).to_be_visible()
    await other.stop()
