"""What the phone's app knows, without its views: the same page with nothing drawn on it."""

from __future__ import annotations

from typing import Any

from playwright.async_api import BrowserContext, Page, Route

from tests.phone.harness import ScriptedAgent

# `until` waits for what a model tells by its events; a test that waits in vain says for what.
# `part` is a module of the app.
_TOOLS = """
globalThis.part = (path) =>
  import(new URL(path, document.querySelector("script[type=module]").src).href);
globalThis.until = (target, condition, patience = 15000) => new Promise((resolve, reject) => {
  const events = ["change", "append", "remove", "older", "banner"];
  const stop = () => {
    clearTimeout(timer);
    for (const event of events) target.removeEventListener(event, look);
  };
  const look = () => {
    const found = condition();
    if (!found) return;
    stop();
    resolve(found);
  };
  const timer = setTimeout(() => {
    stop();
    reject(new Error(`in vain: ${condition}`));
  }, patience);
  for (const event of events) target.addEventListener(event, look);
  look();
});
globalThis.rawRecords = () => new Promise((resolve, reject) => {
  const opening = indexedDB.open("coralmux");
  opening.onerror = () => reject(opening.error);
  opening.onsuccess = () => {
    const kept = opening.result.transaction("kept").objectStore("kept");
    const keys = kept.getAllKeys(), values = kept.getAll();
    kept.transaction.oncomplete = () => {
      opening.result.close();
      resolve(new Map(keys.result.map((key, index) => [key, values.result[index]])));
    };
  };
});
globalThis.rawText = async () => {
  // Every byte of every record, as one character each.
  const seen = (value) => {
    if (value instanceof ArrayBuffer) return seen(new Uint8Array(value));
    if (ArrayBuffer.isView(value)) return Array.from(value, (b) => String.fromCharCode(b)).join("");
    if (value instanceof CryptoKey || value === null) return "";
    if (typeof value === "object") return Object.entries(value).map(([k, v]) => k + seen(v)).join();
    return String(value);
  };
  return [...(await rawRecords())].map(([key, value]) => key + seen(value)).join("\\n");
};
globalThis.said = (conversation) =>
  conversation.messages.map(({ role, text, state }) => [role, text, state]);
"""

_OPEN = """
async () => {
  const { Storage } = await part("storage/database.js");
  const { Phonebook } = await part("model/phonebook.js");
  globalThis.storage = await Storage.open();
  globalThis.book = new Phonebook({ storage, page: location, locks: navigator.locks });
  await book.load();
  book.connect();
  globalThis.pairing = book.pairings[0];
}
"""


SEND = "(texts) => { for (const text of texts) pairing.conversation.send(text); }"
SAID = "said(pairing.conversation)"


async def bare(context: BrowserContext) -> Page:
    """A new page that does nothing by itself."""
    page = await context.new_page()

    async def nothing(route: Route) -> None:
        await route.fulfill(body="", content_type="text/javascript")

    await page.route("**/app/main.js", nothing)
    await page.add_init_script(_TOOLS)
    await page.goto("/phone")
    return page


async def shrink(page: Page, quota: int) -> None:
    """The browser has so many bytes for the page. It asks for its quota once in 30 s only."""
    devtools = await page.context.new_cdp_session(page)
    origin = await page.evaluate("location.origin")
    await devtools.send("Storage.overrideQuotaForOrigin", {"origin": origin, "quotaSize": quota})


async def open_book(page: Page) -> Page:
    """The page opens what is kept, as `book`, `storage` and `pairing`, and connects."""
    await page.evaluate(_OPEN)
    return page


async def reopened(page: Page) -> Page:
    """The same tab after a reload."""
    await page.reload()
    return await open_book(page)


async def add(page: Page, url: str) -> None:
    """The user agrees to this link; `pairing` is the new one."""
    await page.evaluate(
        "async (url) => { globalThis.pairing = await book.add(book.read(url).link); }", url
    )


async def ready(page: Page) -> None:
    await page.evaluate("until(pairing, () => pairing.online)")


async def ask(page: Page, text: str) -> Any:
    """Send it, and return what was said when its answer has ended."""
    return await page.evaluate(
        """async (text) => {
          const { conversation } = pairing;
          const question = conversation.send(text);
          await until(conversation, () => question.settled);
          return said(conversation);
        }""",
        text,
    )


async def settled(page: Page) -> Any:
    """What was said once nothing is under way any more."""
    return await page.evaluate(
        """async () => {
          const { conversation } = pairing;
          await conversation.load();
          const settled = () => conversation.messages.every((message) => message.settled);
          await until(conversation, settled);
          return said(conversation);
        }"""
    )


def asked(agent: ScriptedAgent) -> list[str]:
    """What came to it, in order."""
    return [message.text for message in agent.asked]
