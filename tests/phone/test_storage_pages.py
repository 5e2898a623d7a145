"""Conversations at rest: pages, of which a new message rewrites the last one only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from playwright.async_api import Page

from tests.phone.models import bare

OPEN = """
async () => {
  const { Storage } = await part("storage/database.js");
  const { Pages } = await part("storage/pages.js");
  globalThis.storage = await Storage.open();
  await storage.create("one", {}, null);
  globalThis.writes = [];
  const write = storage.write.bind(storage);
  storage.write = async (name, value) => {
    writes.push(Number.parseInt(name.split(":")[3], 36));
    await write(name, value);
  };
  globalThis.troubles = [];
  globalThis.message = (text) => ({ text, toJSON() { return { text: this.text }; } });
  globalThis.openPages = async () => {
    const pages = new Pages(storage, (error) => troubles.push(error));
    await pages.open("page:one:x:");
    return pages;
  };
  globalThis.texts = async (pages) =>
    (await pages.older(({ text }) => message(text))).map(({ text }) => text);
  globalThis.fill = async (count) => {
    const pages = await openPages();
    const all = Array.from({ length: count }, (_, index) => message(`${index}`));
    for (const one of all) await pages.append(one);
    return { pages, all };
  };
}
"""


@pytest_asyncio.fixture(loop_scope="session")
async def tab(open_profile: Any) -> AsyncIterator[Page]:
    async with open_profile() as context:
        page = await bare(context)
        await page.evaluate(OPEN)
        yield page


async def test_messages_come_back_page_by_page_from_the_newest(tab: Page) -> None:
    outcome = await tab.evaluate(
        """async () => {
          await fill(150);
          const pages = await openPages();
          const read = [];
          while (pages.hasOlder) read.push(await texts(pages));
          return [read.map((page) => [page.length, page[0], page.at(-1)]), await texts(pages)];
        }"""
    )
    assert outcome == [[[22, "128", "149"], [64, "64", "127"], [64, "0", "63"]], []]


async def test_a_new_message_rewrites_the_last_page_only(tab: Page) -> None:
    outcome = await tab.evaluate(
        """async () => {
          await fill(130);
          writes.length = 0;
          const pages = await openPages();
          await pages.older(({ text }) => message(text));
          await pages.append(message("new"));
          return writes;
        }"""
    )
    assert outcome == [2]


async def test_long_messages_fill_a_page_sooner(tab: Page) -> None:
    outcome = await tab.evaluate(
        """async () => {
          const { pages, all } = await fill(2);
          const long = message("x".repeat(300_000));
          for (const one of [long, message("next")]) await pages.append(one);
          return [all[0].page, long.page, (await texts(await openPages()))];
        }"""
    )
    assert outcome == [0, 0, ["next"]]


async def test_what_was_said_before_the_pages_were_found_comes_behind_them(tab: Page) -> None:
    outcome = await tab.evaluate(
        """async () => {
          await fill(70);
          const { Pages } = await part("storage/pages.js");
          const pages = new Pages(storage, (error) => troubles.push(error.name));
          const early = [message("early"), message("also")];
          for (const one of early) await pages.append(one);
          await pages.remove(early[1]);
          const before = [pages.opened, troubles.length];
          await pages.open("page:one:x:");
          early[0].text = "changed";
          await pages.keep(early[0]);
          const again = await openPages();
          const read = [];
          while (again.hasOlder) read.unshift(...(await texts(again)));
          return [before, pages.opened, read.length, read.slice(-2)];
        }"""
    )
    assert outcome == [[False, 3], True, 71, ["69", "changed"]]


async def test_all_pages_can_be_deleted_also_those_that_cannot_be_read(tab: Page) -> None:
    outcome = await tab.evaluate(
        """async () => {
          await fill(130);
          const { createStore, get, set } = await import("idb-keyval");
          const kept = createStore("coralmux", "kept");
          const name = "page:one:x:000001";
          await set(name, { ...(await get(name, kept)), iv: new Uint8Array(12) }, kept);
          const pages = await openPages();
          await texts(pages);
          await pages.clear();
          const left = await storage.names("page:one:x:");
          await pages.append(message("new"));
          return [left, await texts(await openPages())];
        }"""
    )
    assert outcome == [[], ["new"]]


async def test_a_message_that_goes_on_changing_is_written_at_once_and_once_in_a_second(
    tab: Page,
) -> None:
    outcome = await tab.evaluate(
        """async () => {
          const { pages, all } = await fill(3);
          writes.length = 0;
          const channel = new MessageChannel();
          const turn = () => new Promise((resolve) => {
            channel.port1.onmessage = resolve;
            channel.port2.postMessage(0);
          });
          const began = performance.now();
          while (performance.now() - began < 1500) {
            all[2].text += ".";
            pages.keepSoon(all[2]);
            await turn();
          }
          const while_changing = writes.length;
          await pages.flush();
          const kept = (await texts(await openPages())).at(-1);
          return [while_changing, writes.length, kept === all[2].text];
        }"""
    )
    assert outcome == [2, 3, True]


async def test_removed_messages_and_emptied_pages_are_gone(tab: Page) -> None:
    outcome = await tab.evaluate(
        """async () => {
          const { pages, all } = await fill(66);
          await pages.remove(all[3]);
          await Promise.all([pages.remove(all[64]), pages.remove(all[65])]);
          const again = await openPages();
          const names = [...(await rawRecords()).keys()].filter((name) => name.startsWith("page"));
          return [names, (await texts(again)).length];
        }"""
    )
    assert outcome == [["page:one:x:000000"], 63]


async def test_a_page_that_cannot_be_read_is_left_alone(tab: Page) -> None:
    outcome = await tab.evaluate(
        """async () => {
          await fill(70);
          const { createStore, get, set } = await import("idb-keyval");
          const kept = createStore("coralmux", "kept");
          const damaged = { ...(await get("page:one:x:000001", kept)), iv: new Uint8Array(12) };
          await set("page:one:x:000001", damaged, kept);
          const pages = await openPages();
          const error = await texts(pages).catch(({ code }) => code);
          await pages.append(message("new"));
          const older = (await texts(pages)).length;
          const left = await get("page:one:x:000001", kept);
          const untouched = left.iv.every((byte) => byte === 0);
          return [error, older, untouched, await texts(await openPages())];
        }"""
    )
    assert outcome == ["damaged", 64, True, ["new"]]


async def test_closed_pages_write_nothing(tab: Page) -> None:
    outcome = await tab.evaluate(
        """async () => {
          const { pages, all } = await fill(1);
          writes.length = 0;
          pages.keepSoon(all[0]);
          pages.close();
          await pages.append(message("late"));
          await pages.flush();
          return [writes, troubles.length];
        }"""
    )
    assert outcome == [[], 0]
