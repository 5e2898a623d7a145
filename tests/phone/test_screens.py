"""Each screen, at phone and desktop size, light and dark; pictures go to build/screenshots."""

from __future__ import annotations

from playwright.async_api import Page

from tests.phone.looks import look, serious
from tests.phone.tour import tour
from tests.support.process import RelayProcess


async def test_each_screen_of_a_telephone(page: Page, relay: RelayProcess) -> None:
    await walk(page, relay)


async def test_each_screen_of_a_desktop(desktop: Page, relay: RelayProcess) -> None:
    await walk(desktop, relay)


async def walk(page: Page, relay: RelayProcess) -> None:
    count = 0
    async for name in tour(page, relay):
        await look(page, name)
        count += 1
    assert count > 20


async def test_axe_would_find_something(page: Page) -> None:
    await page.goto("/phone")
    await page.get_by_role("button").first.wait_for()
    await page.evaluate("document.body.append(document.createElement('button'))")
    assert any("button-name" in text for text in await serious(page))
