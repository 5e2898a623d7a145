"""What is kept in the browser: sealed, and gone when it is forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from playwright.async_api import BrowserContext, Page

from tests.phone.models import bare, shrink

OPEN = """
async () => {
  const { Storage } = await part("storage/database.js");
  globalThis.storage = await Storage.open();
  globalThis.rejection = (promise) => promise.then(() => null, (error) => [error.name, error.code]);
}
"""


@pytest_asyncio.fixture(loop_scope="session")
async def context(open_profile: Any) -> AsyncIterator[BrowserContext]:
    async with open_profile() as context:
        yield context


@pytest_asyncio.fixture(loop_scope="session")
async def tab(context: BrowserContext) -> Page:
    return await opened(context)


async def opened(context: BrowserContext) -> Page:
    page = await bare(context)
    await page.evaluate(OPEN)
    return page


async def test_what_was_written_is_read_after_a_reload(tab: Page) -> None:
    await tab.evaluate(
        """async () => {
          await storage.create("one", { token: "a token" }, null);
          await storage.write("draft:one:x", { text: "좋은 아침 ☀️" });
          await storage.writeBytes("picture:one:p", new Uint8Array([0, 255, 7]));
        }"""
    )
    await tab.reload()
    await tab.evaluate(OPEN)
    assert await tab.evaluate("storage.read('pairing:one')") == {"token": "a token"}
    assert await tab.evaluate("storage.read('draft:one:x')") == {"text": "좋은 아침 ☀️"}
    assert await tab.evaluate(
        "storage.readBytes('picture:one:p').then((bytes) => [...new Uint8Array(bytes)])"
    ) == [0, 255, 7]
    assert await tab.evaluate("storage.read('draft:one:y')") is None


async def test_records_show_nothing_and_their_key_is_not_handed_out(tab: Page) -> None:
    await tab.evaluate(
        """async () => {
          await storage.create("one", { token: "a-token-to-be-hidden" }, null);
          await storage.write("draft:one:x", "words-to-be-hidden");
        }"""
    )
    raw = await tab.evaluate("rawText()")
    assert "draft:one:x" in raw
    assert "to-be-hidden" not in raw
    # The search finds what stands there openly.
    await tab.evaluate(
        """async () => {
          const { createStore, set } = await import("idb-keyval");
          const bytes = new TextEncoder().encode("words-to-be-hidden");
          await set("open", { bytes }, createStore("coralmux", "kept"));
        }"""
    )
    assert "to-be-hidden" in await tab.evaluate("rawText()")
    refused = await tab.evaluate(
        """async () => {
          const key = (await rawRecords()).get("key");
          return await crypto.subtle.exportKey("raw", key).catch((error) => error.name);
        }"""
    )
    assert refused == "InvalidAccessError"


async def test_a_record_in_the_place_of_another_is_not_taken(tab: Page) -> None:
    outcome = await tab.evaluate(
        """async () => {
          await storage.create("one", {}, null);
          await storage.write("draft:one:x", "x");
          await storage.write("draft:one:y", "y");
          const { createStore, get, set } = await import("idb-keyval");
          const kept = createStore("coralmux", "kept");
          await set("draft:one:y", await get("draft:one:x", kept), kept);
          return [await storage.read("draft:one:x"), await rejection(storage.read("draft:one:y"))];
        }"""
    )
    assert outcome == ["x", ["StoreError", "damaged"]]


async def test_a_pairing_that_is_kept_is_not_replaced(tab: Page) -> None:
    outcome = await tab.evaluate(
        """async () => [
          await storage.create("one", { name: "first" }, null),
          await storage.create("one", { name: "second" }, { link: true }),
          await storage.read("pairing:one"),
          [...(await rawRecords()).keys()],
        ]"""
    )
    assert outcome == [True, False, {"name": "first"}, ["key", "pairing:one"]]


async def test_nothing_is_left_of_a_wiped_pairing_and_nothing_comes_back(tab: Page) -> None:
    kept = await tab.evaluate(
        """async () => {
          await storage.create("one", {}, { current: null, next: null, link: true });
          await storage.create("two", {}, null);
          for (const name of ["seen:one", "page:one:x:000000", "draft:one:x", "picture:one:p"]) {
            await storage.write(name, 1);
          }
          await storage.write("draft:two:x", 2);
          const late = storage.write("picture:one:q", 1);
          await storage.wipe("one");
          await late;
          await storage.write("draft:one:x", 1);
          await storage.memory("one").save("one", { secrets: {}, peerName: "", seen: [] });
          return [...(await rawRecords()).keys()];
        }"""
    )
    assert kept == ["draft:two:x", "key", "pairing:two"]


async def test_tabs_that_open_at_once_share_the_key(context: BrowserContext) -> None:
    first, second = await bare(context), await bare(context)
    opening = first.evaluate(OPEN), second.evaluate(OPEN)
    for one in opening:
        await one
    await first.evaluate("storage.create('one', { name: 'of the first' }, null)")
    assert await second.evaluate("storage.read('pairing:one')") == {"name": "of the first"}


async def test_a_full_browser_is_told_as_such_and_keeps_what_it_had(
    context: BrowserContext,
) -> None:
    page = await bare(context)
    await shrink(page, 100_000)
    await page.evaluate(OPEN)
    await page.evaluate("storage.create('one', { name: 'kept' }, null)")
    outcome = await page.evaluate(
        "rejection(storage.writeBytes('picture:one:p', new Uint8Array(5_000_000)))"
    )
    assert outcome == ["StoreError", "full"]
    assert await page.evaluate("storage.read('pairing:one')") == {"name": "kept"}


async def test_a_browser_that_keeps_nothing_says_so(context: BrowserContext) -> None:
    page = await bare(context)
    outcome = await page.evaluate(
        """async () => {
          const { Storage } = await part("storage/database.js");
          Object.defineProperty(globalThis, "indexedDB", { value: undefined });
          return await Storage.open().catch((error) => [error.name, error.code]);
        }"""
    )
    assert outcome == ["StoreError", "blocked"]
