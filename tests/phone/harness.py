"""The phone as people have it: a browser's page, and an agent that answers it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

import coralmux
from tests.client.meeting import agent_for, new_link, serving
from tests.support.process import RelayProcess

ROOT = Path(__file__).parents[2]

# Debian's browser, without anything that calls out.
BROWSER_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Patience, in milliseconds, for a page on a busy machine.
SOON = 15_000.0

PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}

_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  reportViolation(`${event.violatedDirective}: ${event.blockedURI} at ${event.sourceFile}`));
"""

Handler = Callable[[coralmux.ChatMessage], Any]


class Faults:
    """What goes wrong in pages without anybody seeing it: errors, warnings, violations."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._allowed: list[str] = []

    def allow(self, pattern: str) -> None:
        """This test brings such errors about; `pattern` is searched for in them."""
        self._allowed.append(pattern)

    def add(self, text: str) -> None:
        self.all.append(text)

    @property
    def found(self) -> list[str]:
        return [
            text
            for text in self.all
            if not any(re.search(pattern, text) for pattern in self._allowed)
        ]

    async def watch(self, context: BrowserContext) -> None:
        """All pages of the context, from now on."""
        await context.expose_binding("reportViolation", lambda _, text: self.add(str(text)))
        await context.add_init_script(_REPORT_VIOLATIONS)
        context.on("weberror", lambda error: self.add(f"uncaught: {error.error}"))
        context.on(
            "console",
            lambda message: (
                self.add(f"{message.text} at {message.location}")
                if message.type in ("error", "warning")
                else None
            ),
        )

    def check(self) -> None:
        assert not self.found, "\n".join(self.found)


@contextlib.asynccontextmanager
async def open_context(browser: Browser, faults: Faults, **options: Any) -> AsyncIterator[Any]:
    """A browser profile of its own."""
    context = await browser.new_context(**options)
    try:
        context.set_default_timeout(SOON)
        await faults.watch(context)
        yield context
    finally:
        await context.close()


class ScriptedAgent:
    """A real agent with one pairing; what it answers is for the test to say.

    `asked` are the messages that it was asked, in order. `options` are coralmux.Agent's.
    """

    def __init__(self, relay: RelayProcess, *, encrypted: bool = True, **options: Any) -> None:
        self.link = new_link(relay)
        if not encrypted:
            self.link = coralmux.PairingLink(self.link.relay, self.link.token)
        self.asked: list[coralmux.ChatMessage] = []
        self.agent: coralmux.Agent
        self._options = {"store": coralmux.MemoryStore(), **options}
        self._answer: Handler = lambda message: f"You said: {message.text}"
        self._requests: dict[str, Any] = {}
        self._serving = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """What its code says: the address of the phone's page, with the secrets."""
        return self.link.web()

    def answers(self, answer: Handler) -> Handler:
        """Answer so, from now on. A decorator.

        `answer` takes the ChatMessage; it returns a text, or is a coroutine function that
        does, or an async generator, as a handler of `Agent.on_chat` is.
        """
        self._answer = answer
        return answer

    def on(self, type: str) -> Callable[[Any], Any]:
        """Decorator: as `Agent.on`. Before `start`."""

        def register(handler: Any) -> Any:
            self._requests[type] = handler
            return handler

        return register

    async def start(self) -> None:
        """Serve. After `stop`, serve again; the secrets were kept."""
        self.agent = agent_for(self.link, **self._options)
        self.agent.on_chat(self._reply)
        for type, handler in self._requests.items():
            self.agent.on(type)(handler)
        await self._serving.enter_async_context(serving(self.agent))

    async def stop(self) -> None:
        """Leave the relay."""
        await self._serving.aclose()

    async def _reply(self, message: coralmux.ChatMessage) -> AsyncIterator[Any]:
        self.asked.append(message)
        answer = self._answer(message)
        if isinstance(answer, AsyncIterator):
            async with contextlib.aclosing(answer):
                async for part in answer:
                    yield part
        elif isinstance(answer, Awaitable):
            yield await answer
        else:
            yield answer


async def pair(page: Page, agent: ScriptedAgent) -> None:
    """Open the agent's link, say yes, and be in its chat."""
    await page.goto(agent.url)
    await page.get_by_role("button", name="Connect", exact=True).click()
    await page.get_by_role("button", name="Open chat").click()
    await expect(page.get_by_role("textbox", name="Message")).to_be_visible(timeout=SOON)


async def say(page: Page, text: str) -> None:
    """Type it into the open chat and send it."""
    await page.get_by_role("textbox", name="Message").fill(text)
    await page.get_by_role("button", name="Send", exact=True).click()


def textbox(page: Page) -> Locator:
    """Where a question is written."""
    return page.get_by_role("textbox", name="Message")


async def over(page: Page) -> None:
    """No answer is under way."""
    await expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    await expect(page.locator(".caret")).to_have_count(0)


async def becomes_true(page: Page, expression: str) -> None:
    """Of the page. Playwright's own `wait_for_function` needs the `eval` that the CSP forbids."""
    async with asyncio.timeout(SOON / 1000):
        while not await page.evaluate(expression):
            await asyncio.sleep(0.02)


def button(page: Page, name: str) -> Locator:
    """The one of exactly this name."""
    return page.get_by_role("button", name=name, exact=True)


def row(page: Page, name: str) -> Locator:
    """An agent's, in the list."""
    return page.get_by_role("listitem").filter(has_text=name)


async def to_list(page: Page) -> None:
    """On a desktop it is there all the time."""
    agents = page.get_by_role("list", name="Agents")
    while not await agents.is_visible():
        await button(page, "Back").click()
    await expect(agents).to_be_visible()
