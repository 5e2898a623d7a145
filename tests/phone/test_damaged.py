"""What the app shows of a pairing whose records are damaged, gone, or cannot be read just now."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

from playwright.async_api import Page, expect

from tests.phone.conftest import OpenContext
from tests.phone.harness import (
    PHONE,
    SOON,
    ScriptedAgent,
    button,
    over,
    pair,
    row,
    say,
    textbox,
    to_list,
)
from tests.phone.looks import look
from tests.support.process import RelayProcess, relay_process

# Work on the records whose names begin with `prefix`, in the browser's own database.
KEPT = """
async ({ prefix, work }) => {
  const opening = indexedDB.open("coralmux");
  await new Promise((resolve) => { opening.onsuccess = resolve; });
  const change = opening.result.transaction("kept", "readwrite");
  const kept = change.objectStore("kept");
  const names = [];
  kept.openCursor(IDBKeyRange.bound(prefix, `${prefix}\\uffff`)).onsuccess = ({ target }) => {
    const cursor = target.result;
    if (!cursor) return;
    names.push(cursor.key);
    if (work === "damage") cursor.update({ ...cursor.value, iv: new Uint8Array(12) });
    if (work === "remove") cursor.delete();
    cursor.continue();
  };
  await new Promise((resolve) => { change.oncomplete = resolve; });
  opening.result.close();
  return names;
}
"""
# From the next page on, while `broken`: the browser fails where secrets are read.
NO_SECRETS = """
globalThis.broken = true;
const { get } = IDBObjectStore.prototype;
IDBObjectStore.prototype.get = function (name) {
  if (broken && String(name).startsWith("secrets:")) {
    throw new DOMException("the disk", "UnknownError");
  }
  return get.call(this, name);
};
"""


async def leave(page: Page) -> None:
    """For a page of the same origin without the app: nothing writes to its database."""
    await page.goto("/")


async def kept(page: Page, prefix: str = "", work: str = "look") -> Any:
    """The names of the records; `work` is damage, remove or look."""
    return await page.evaluate(KEPT, {"prefix": prefix, "work": work})


async def said_hello(page: Page, agent: ScriptedAgent) -> None:
    await pair(page, agent)
    await say(page, "Hello")
    await expect(page.locator(".markdown")).to_have_text("You said: Hello", timeout=SOON)
    await over(page)


async def expect_end(page: Page, hint: str, words: str) -> None:
    """The pairing is of no use any more, which its row and its chat tell."""
    await expect(row(page, "Agent")).to_contain_text(hint, timeout=SOON)
    await row(page, "Agent").get_by_role("button").first.click()
    await expect(page.locator(".banner")).to_contain_text(words)
    await expect(textbox(page)).to_be_disabled()
    await expect(textbox(page)).to_have_attribute("placeholder", "Messages cannot be sent here.")
    await expect(page.locator(".markdown")).to_have_text("You said: Hello")


async def test_a_damaged_pairing_says_so_in_its_row_and_is_forgotten_from_there(
    page: Page, agent: ScriptedAgent
) -> None:
    await said_hello(page, agent)
    await leave(page)
    assert len(await kept(page, "pairing:", "damage")) == 1
    await page.goto("/phone")
    damaged = row(page, "An agent's pairing cannot be read any more.")
    await expect(damaged).to_contain_text("Forget it, and pair again.")
    await expect(damaged.get_by_role("button")).to_have_count(1)
    await look(page, "damaged", wide=True)
    dialog = page.get_by_role("dialog", name="Forget this agent?")
    await damaged.get_by_role("button", name="Forget").click()
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(dialog).to_have_count(0)
    await expect(damaged).to_be_visible()
    await damaged.get_by_role("button", name="Forget").click()
    await dialog.get_by_role("button", name="Forget").click()
    await expect(page.get_by_role("heading", name="Talk to your own AI")).to_be_visible()
    await expect(page.get_by_role("heading", name="CoralMux")).to_be_focused()
    assert await kept(page) == ["key"]


async def test_a_pairing_whose_key_is_gone_tells_to_pair_again(
    page: Page, agent: ScriptedAgent
) -> None:
    await said_hello(page, agent)
    await leave(page)
    assert len(await kept(page, "secrets:", "remove")) == 1
    await page.goto("/phone")
    await expect_end(
        page, "The key of the pairing is gone", "The key of this pairing is not in this browser"
    )
    await look(page, "lost", wide=True)
    await button(page, "Pair again").click()
    await expect(page.get_by_role("heading", name="Pair an agent")).to_be_focused()


async def test_a_key_that_cannot_be_read_just_now_is_read_when_its_user_says_so(
    page: Page, agent: ScriptedAgent
) -> None:
    await said_hello(page, agent)
    await page.add_init_script(NO_SECRETS)
    await page.reload()
    banner = page.locator(".banner")
    await expect(banner).to_contain_text("This browser cannot keep messages.", timeout=SOON)
    await look(page, "storage", wide=True)
    await say(page, "Later")
    await expect(page.locator(".message.waiting")).to_have_count(1)
    await to_list(page)
    await expect(row(page, "Agent")).to_contain_text("This browser cannot keep messages")
    await row(page, "Agent").get_by_role("button").first.click()
    await page.evaluate("broken = false")
    await banner.get_by_role("button", name="Now").click()
    await expect(page.locator(".markdown").last).to_have_text("You said: Later", timeout=SOON)
    await expect(banner).to_be_empty()
    assert [message.text for message in agent.asked] == ["Hello", "Later"]


async def test_a_relay_that_has_lost_its_pairings_does_not_know_this_one(
    open_profile: OpenContext,
) -> None:
    with relay_process() as relay:
        base = f"http://127.0.0.1:{relay.port}"
        async with open_profile(**{**PHONE, "base_url": base}) as context:
            page = await context.new_page()
            await paired_once(page, relay)
            await asyncio.to_thread(relay.stop)
            shutil.rmtree(relay.state_dir)
            await asyncio.to_thread(relay.start)
            await page.goto("/phone")
            await expect_end(
                page,
                "The relay does not know this pairing",
                "The relay does not know this pairing.",
            )
            await expect(button(page, "Pair again")).to_be_visible()


async def paired_once(page: Page, relay: RelayProcess) -> None:
    """With an agent that has left since; the page has, too."""
    agent = ScriptedAgent(relay)
    await agent.start()
    try:
        await said_hello(page, agent)
        await leave(page)
    finally:
        await agent.stop()
