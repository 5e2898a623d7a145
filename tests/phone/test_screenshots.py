"""A picture of each screen, at phone and desktop size, light and dark, in build/screenshots."""

from __future__ import annotations

from playwright.async_api import Page

from tests.phone.harness import SCREENSHOTS, screens
from tests.phone.tour import tour
from tests.support.process import RelayProcess


async def test_each_screen_of_a_telephone(page: Page, relay: RelayProcess) -> None:
    await take(page, relay)


async def test_each_screen_of_a_desktop(desktop: Page, relay: RelayProcess) -> None:
    await take(desktop, relay)


async def take(page: Page, relay: RelayProcess) -> None:
    """Nothing may stick out at the side, either."""
    names = []
    async for name in tour(page, relay):
        assert await page.evaluate(
            "document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth"
        ), name
        await screens(page, name)
        names.append(name)
    assert len(names) > 10
    assert all(len(list(SCREENSHOTS.glob(f"{name}-*-dark.png"))) >= 1 for name in names)
