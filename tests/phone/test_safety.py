"""What the page must never do, whoever asks it to."""

from __future__ import annotations

from playwright.async_api import Page


async def test_the_page_opens(page: Page) -> None:
    await page.goto("/phone")
    assert await page.title() == "CoralMux"


async def test_the_fragment_is_taken_once(page: Page) -> None:
    await page.goto("/phone#token=x")
    assert page.url.endswith("/phone")
