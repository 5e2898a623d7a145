"""How a screen looks: taken as a picture, and checked for what would keep somebody out."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Page

from tests.phone.harness import DESKTOP, ROOT

SCREENSHOTS = ROOT / "build" / "screenshots"

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
# Colours may be on their way from one scheme's to the other's.
SETTLED = """
async () => {
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  await Promise.allSettled(document.getAnimations().map((animation) => animation.finished));
}
"""
SERIOUS = ("serious", "critical")
OVERFLOW = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"


async def look(page: Page, name: str, *, wide: bool = False) -> None:
    """Take the page to build/screenshots, light and dark, and check it as it stands.

    Nothing sticks out at the side, and axe-core, the checker of accessibility, finds nothing
    serious. `wide`: then again in the window of a desktop.
    """
    await look_at(page, name)
    before = page.viewport_size
    if wide and before is not None:
        await page.set_viewport_size(DESKTOP["viewport"])
        await look_at(page, name)
        await page.set_viewport_size(before)


async def look_at(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    size = page.viewport_size
    assert size is not None
    kind = "phone" if size["width"] < 900 else "desktop"
    assert await page.evaluate(OVERFLOW) <= 0, f"{name} is wider than the window"
    surfaces = set()
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        await page.evaluate(SETTLED)
        path = SCREENSHOTS / f"{name}-{kind}-{scheme}.png"
        await page.screenshot(path=path, animations="disabled", caret="initial")
        surfaces.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
        found = await serious(page)
        assert not found, f"{name}, {scheme}: {found}"
    assert len(surfaces) == 2, f"{name} is the same in light and dark"
    await page.emulate_media(color_scheme="light", reduced_motion="no-preference")


async def serious(page: Page) -> list[str]:
    """What axe-core finds in the page as it stands, with the elements that it is about."""
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
