"""One browser for all tests of the phone, a profile for each of them.

All of them run in one event loop, since the browser does. An async fixture that uses it is
`@pytest_asyncio.fixture(loop_scope="session")`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from coralmux_site import phone_files
from tests.bridge.bridges import Bridge
from tests.bridge.bridges import bridge as bridge_at
from tests.phone.harness import (
    BROWSER_ARGUMENTS,
    DESKTOP,
    PHONE,
    Faults,
    ScriptedAgent,
    open_context,
    pair,
)
from tests.phone.models import add, bare, open_book, ready
from tests.support.parts import chromium, lacking
from tests.support.process import RelayProcess, relay_process

__all__ = ["chromium"]

HERE = Path(__file__).parent

OpenContext = Callable[..., AbstractAsyncContextManager[BrowserContext]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE not in item.path.parents:
            continue
        if pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    """A relay for the module's tests. Whoever ends or revokes things has a pairing of his own."""
    with relay_process() as relay:
        yield relay
        assert "Traceback" not in relay.output, relay.output


@pytest.fixture(scope="session")
def packages() -> None:
    """What the page is made of beside our files."""
    try:
        phone_files.served()
    except phone_files.PackagesMissing as missing:
        lacking(str(missing))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: str, packages: None) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
def faults() -> Iterator[Faults]:
    """The test fails on an error in a page's console and the like, unless it allows it."""
    faults = Faults()
    yield faults
    faults.check()


@pytest.fixture
def open_profile(browser: Browser, relay: RelayProcess, faults: Faults) -> OpenContext:
    """Browser profiles, as many as wanted: `async with open_profile(**PHONE) as context:`.

    Options are those of Playwright's `new_context`; "/phone" is an address in it.
    """

    @asynccontextmanager
    async def open_profile(**options: Any) -> AsyncIterator[BrowserContext]:
        options = {"base_url": f"http://127.0.0.1:{relay.port}", "locale": "en-US", **options}
        async with open_context(browser, faults, **options) as context:
            yield context

    return open_profile


@pytest_asyncio.fixture(loop_scope="session")
async def page(open_profile: OpenContext) -> AsyncIterator[Page]:
    """A phone's browser, with nothing open yet."""
    async with open_profile(**PHONE) as context:
        yield await context.new_page()


@pytest_asyncio.fixture(loop_scope="session")
async def desktop(open_profile: OpenContext) -> AsyncIterator[Page]:
    """A desktop's browser, another profile than `page`."""
    async with open_profile(**DESKTOP) as context:
        yield await context.new_page()


@pytest_asyncio.fixture(loop_scope="session")
async def agent(relay: RelayProcess) -> AsyncIterator[ScriptedAgent]:
    """An agent that is there, says what it was told, and has a pairing that nobody used."""
    agent = ScriptedAgent(relay)
    await agent.start()
    yield agent
    await agent.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def bridge(relay: RelayProcess, tmp_path: Path) -> AsyncIterator[Bridge]:
    """`coralmux-agent run` with the echo; its link is `bridge.links[0].web()`."""
    async with bridge_at(relay, tmp_path) as bridge:
        yield bridge


@pytest_asyncio.fixture(loop_scope="session")
async def paired_page(page: Page, agent: ScriptedAgent) -> Page:
    """The phone's browser in the chat with `agent`."""
    await pair(page, agent)
    return page


@pytest_asyncio.fixture(loop_scope="session")
async def paired(open_profile: OpenContext, agent: ScriptedAgent) -> AsyncIterator[Page]:
    """The app without its views, with this pairing, connected."""
    async with open_profile() as context:
        page = await open_book(await bare(context))
        await add(page, agent.url)
        await ready(page)
        yield page
