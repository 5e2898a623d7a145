"""What axe-core, the checker of accessibility, finds on each screen: nothing serious."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Page

from tests.phone.harness import ROOT
from tests.phone.tour import tour
from tests.support.process import RelayProcess

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
# Colours may be on their way from one scheme's to the other's.
SETTLED = """
async () => {
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  await Promise.allSettled(document.getAnimations().map((animation) => animation.finished));
}
"""
SERIOUS = ("serious", "critical")


async def serious(page: Page) -> list[str]:
    """What it finds in the page as it stands, with the elements that it is about."""
    if not await page.evaluate("typeof axe === 'object'"):
        await page.evaluate(f"() => {{ {AXE.read_text('utf-8')} }}")
    found: dict[str, Any] = await page.evaluate("axe.run({ resultTypes: ['violations'] })")
    assert len(found["passes"]) > 5, "it looked at nothing"
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found["violations"]
        if violation["impact"] in SERIOUS
        for node in violation["nodes"]
    ]


async def check(page: Page, relay: RelayProcess) -> None:
    await page.emulate_media(reduced_motion="reduce")
    async for name in tour(page, relay):
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            await page.evaluate(SETTLED)
            assert not await serious(page), f"{name}, {scheme}"


async def test_each_screen_of_a_telephone(page: Page, relay: RelayProcess) -> None:
    await check(page, relay)


async def test_each_screen_of_a_desktop(desktop: Page, relay: RelayProcess) -> None:
    await check(desktop, relay)


async def test_it_would_find_something(page: Page) -> None:
    await page.goto("/phone")
    await page.get_by_role("button").first.wait_for()
    await page.evaluate("document.body.append(document.createElement('button'))")
    assert any("button-name" in text for text in await serious(page))
