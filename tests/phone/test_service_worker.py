"""The page opens without a network, and changes to a new version when its user says so."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.phone.edition import Editions
from tests.phone.harness import (
    PHONE,
    SOON,
    Faults,
    ScriptedAgent,
    becomes_true,
    open_context,
    pair,
    say,
)
from tests.support.process import RelayProcess

CACHED = """
async () => Object.fromEntries(await Promise.all((await caches.keys()).map(
  async (name) => [name, (await (await caches.open(name)).keys()).map((kept) => kept.url)])))
"""
# The page is in the hands of the service worker, and all of it is kept.
IN_ITS_HANDS = """
async () => {
  const { active } = await navigator.serviceWorker.ready;
  while (active.state !== "activated" || !navigator.serviceWorker.controller) {
    await new Promise((changed) => setTimeout(changed, 20));
  }
}
"""
EDITION = "document.querySelector('script[type=module]').src"


@pytest.fixture
def editions(tmp_path: Path) -> Iterator[Editions]:
    editions = Editions(tmp_path)
    try:
        editions.relay.start()
        yield editions
    finally:
        editions.relay.stop()
    editions.relay.check_output()


@pytest_asyncio.fixture(loop_scope="session")
async def there(browser: Browser, editions: Editions, faults: Faults) -> AsyncIterator[Page]:
    """A phone's browser at that relay."""
    faults.allow("WebSocket connection|ERR_CONNECTION_REFUSED")
    url = f"http://127.0.0.1:{editions.relay.port}"
    async with open_context(browser, faults, base_url=url, **PHONE) as context:
        yield await context.new_page()


@pytest_asyncio.fixture(loop_scope="session")
async def its_agent(editions: Editions) -> AsyncIterator[ScriptedAgent]:
    agent = ScriptedAgent(editions.relay)
    await agent.start()
    yield agent
    await agent.stop()


async def test_the_page_and_its_files_are_kept_by_fixed_addresses_and_nothing_else(
    page: Page, agent: ScriptedAgent, relay: RelayProcess
) -> None:
    await pair(page, agent)
    await page.evaluate(IN_ITS_HANDS)
    await page.goto(agent.url)
    await say_hello(page)
    [(name, kept)] = (await page.evaluate(CACHED)).items()
    worker = relay.http("GET", "/phone/service-worker.js")[1]
    paths = json.loads(worker.partition("const PATHS = ")[2].partition(";")[0])
    assert sorted(kept) == sorted(f"http://127.0.0.1:{relay.port}{path}" for path in paths)
    assert re.fullmatch("coralmux-phone-[0-9a-f]{16}", name)


async def say_hello(page: Page) -> None:
    await expect(page.get_by_role("button").first).to_be_visible(timeout=SOON)


async def test_what_is_not_the_page_s_goes_to_the_relay(page: Page, relay: RelayProcess) -> None:
    await page.goto("/phone")
    await page.evaluate(IN_ITS_HANDS)
    response = await page.goto("/phone")
    assert response is not None
    assert response.from_service_worker
    for path in ("/health", "/api/openapi.json", "/"):
        async with page.expect_response(f"**{path}") as answered:
            await page.evaluate("(path) => fetch(path)", path)
        assert not (await answered.value).from_service_worker, path


async def test_old_messages_can_be_read_while_nothing_answers(
    there: Page, editions: Editions, its_agent: ScriptedAgent
) -> None:
    await pair(there, its_agent)
    await say(there, "Are you there?")
    await expect(there.get_by_text("You said: Are you there?")).to_be_visible(timeout=SOON)
    await there.evaluate(IN_ITS_HANDS)
    await its_agent.stop()
    editions.relay.stop()
    await there.reload()
    await open_chat(there)
    await expect(there.get_by_text("You said: Are you there?")).to_be_visible(timeout=SOON)
    await expect(there.get_by_text("Are you there?", exact=True)).to_be_visible()
    editions.relay.start()
    await its_agent.start()
    await say(there, "And now?")
    await expect(there.get_by_text("You said: And now?")).to_be_visible(timeout=2 * SOON)


async def open_chat(page: Page) -> None:
    """From the list, where the page begins there."""
    box = page.get_by_role("textbox", name="Message")
    await expect(box.or_(page.get_by_role("listitem").first)).to_be_visible(timeout=SOON)
    if not await box.is_visible():
        await page.get_by_role("listitem").first.click()
    await expect(box).to_be_visible(timeout=SOON)


async def test_a_new_version_waits_until_it_is_wanted_and_loses_nothing(
    there: Page, editions: Editions, its_agent: ScriptedAgent
) -> None:
    await pair(there, its_agent)
    await say(there, "Remember me")
    await expect(there.get_by_text("You said: Remember me")).to_be_visible(timeout=SOON)
    await there.evaluate(IN_ITS_HANDS)
    [first] = await there.evaluate(CACHED)
    edition = await there.evaluate(EDITION)

    editions.change("app/strings/en.js", '"CoralMux"', '"CoralMux the Second"')
    editions.restart()
    await there.reload()
    offer = there.get_by_role("button", name=re.compile("update|reload|new version", re.IGNORECASE))
    await expect(offer).to_be_visible(timeout=2 * SOON)
    assert await there.evaluate(EDITION) == edition, "not before it is wanted"
    assert len(await there.evaluate(CACHED)) == 2

    async with there.expect_navigation():
        await offer.click()
    await becomes_true(there, f"{EDITION} !== {edition!r}")
    await there.evaluate(IN_ITS_HANDS)
    [second] = await there.evaluate(CACHED)
    assert second != first
    await open_chat(there)
    await expect(there.get_by_text("You said: Remember me")).to_be_visible(timeout=SOON)
    await expect(offer).to_have_count(0)
