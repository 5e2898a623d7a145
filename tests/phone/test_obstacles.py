"""Browsers in which the phone cannot work: what the page says in its place, and the way on."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.phone.harness import ScriptedAgent, button
from tests.phone.looks import look

# A browser from before X25519: it makes other keys, and refuses this kind.
OLD = """
const { generateKey } = SubtleCrypto.prototype;
SubtleCrypto.prototype.generateKey = function (algorithm, ...rest) {
  if ((algorithm.name ?? algorithm) !== "X25519") return generateKey.call(this, algorithm, ...rest);
  return Promise.reject(new DOMException("Unrecognized name.", "NotSupportedError"));
};
"""
# A browser that keeps nothing, until its user allows it: the name of a window outlives a reload.
KEEPS_NOTHING = {
    "none": """
if (window.name !== "allowed") {
  Object.defineProperty(globalThis, "indexedDB", { value: undefined });
}
""",
    "denied": """
if (window.name !== "allowed") {
  IDBFactory.prototype.open = () => { throw new DOMException("Denied.", "SecurityError"); };
}
""",
}


async def expect_obstacle(page: Page, *words: str) -> None:
    await expect(page.get_by_role("heading", name="The phone cannot work here")).to_be_visible()
    for text in words:
        await expect(page.get_by_role("main")).to_contain_text(text)
    # The address is the right one.
    await expect(page.get_by_role("link")).to_have_count(0)
    await expect(page.get_by_role("button")).to_have_count(1)
    await expect(button(page, "Try again")).to_be_visible()


async def test_a_browser_that_is_too_old_is_told_what_it_lacks(
    page: Page, agent: ScriptedAgent
) -> None:
    await page.add_init_script(OLD)
    await page.goto(agent.url)
    await expect_obstacle(page, "This browser is too old", "X25519", "Update it")
    await look(page, "insecure-old", wide=True)


@pytest.mark.parametrize("why", KEEPS_NOTHING)
async def test_a_browser_that_keeps_nothing_asks_for_it_and_goes_on_with_the_link(
    page: Page, agent: ScriptedAgent, why: str
) -> None:
    await page.add_init_script(KEEPS_NOTHING[why])
    await page.goto(agent.url)
    await expect_obstacle(page, "This browser keeps nothing", "Allow it to store data")
    await look(page, "insecure-storage", wide=True)
    async with page.expect_event("load"):
        await button(page, "Try again").click()
    await expect_obstacle(page)
    await page.evaluate("window.name = 'allowed'")
    await button(page, "Try again").click()
    # What the page was opened with is not lost by the way, nor left in the address.
    await expect(page.get_by_role("heading", name="Connect to this agent?")).to_be_visible()
    assert "#" not in page.url
