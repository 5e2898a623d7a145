"""How much the page loads and how soon it can be used.

Times are the best of three on a machine that may be busy with other tests; a failure is three
times the budget.
"""

from __future__ import annotations

import sys

from playwright.async_api import expect

from tests.phone.conftest import OpenContext
from tests.phone.harness import PHONE, SOON

SHELL_BYTES = 250_000
INTERACTIVE_MS = 1_500
TOLERANCE = 3

# As they came over the wire, without their headers.
LOADED = """
() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .map((entry) => [entry.name, entry.encodedBodySize, entry.decodedBodySize])
"""


async def test_the_page_and_all_that_it_loads_is_small(open_profile: OpenContext) -> None:
    async with open_profile(**PHONE) as context:
        page = await context.new_page()
        await page.goto("/phone", wait_until="networkidle")
        await expect(page.get_by_role("button").first).to_be_visible(timeout=SOON)
        loaded = await page.evaluate(LOADED)
    assert len(loaded) > 20
    assert all(size for _, size, _ in loaded), "an empty answer is none"
    total = sum(size for _, size, _ in loaded)
    sys.stdout.write(f"{len(loaded)} files, {total:,} bytes packed\n")
    assert total <= SHELL_BYTES, sorted((size, name) for name, size, _ in loaded)[-10:]


# Shown, and nothing else to do: a click would be answered at once.
USABLE = """
window.usable = new Promise((done) => {
  new MutationObserver((_, observer) => {
    if (!document.querySelector("button")) return;
    observer.disconnect();
    requestIdleCallback(() => done(performance.now()));
  }).observe(document, { subtree: true, childList: true });
});
"""


async def test_the_page_can_be_used_soon(open_profile: OpenContext) -> None:
    times: list[float] = []
    for _ in range(3):
        async with open_profile(**PHONE) as context:
            page = await context.new_page()
            await page.add_init_script(USABLE)
            await page.goto("/phone", wait_until="commit")
            times.append(await page.evaluate("usable"))
    sys.stdout.write(f"interactive after {', '.join(f'{time:.0f}' for time in times)} ms\n")
    assert min(times) <= INTERACTIVE_MS * TOLERANCE
