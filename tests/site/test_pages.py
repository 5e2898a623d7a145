"""The relay's pages in a real browser: what an operator sees, clicks and must not see again."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tests.support.client import log_in, pair
from tests.support.process import RelayProcess, relay_process

# One browser and one relay for all tests here, so one event loop too.
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

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
SOON = 30_000.0

PASSWORD = "a long test password"
LIST = "/admin/pairing/pairingtoken/"
ADD = LIST + "add/"

SIZES = {"phone": (390, 844), "desktop": (1200, 800)}
REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
    reportViolation(`${event.violatedDirective}: ${event.blockedURI} at ${event.sourceFile}`));
"""
# The texts that stand out from their background by less than WCAG's 4.5 to 1
# (3 to 1 for large ones), or are smaller than 11 pixels.
UNREADABLE = """
() => {
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const luminance = (colour) => {
        const [r, g, b] = channels(colour).slice(0, 3).map((value) => {
            value /= 255;
            return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const background = (element) => {
        for (; element; element = element.parentElement) {
            const colour = getComputedStyle(element).backgroundColor;
            if (channels(colour)[3] !== 0) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const hasText = (element) => element.matches("input:not([type=hidden])")
        || [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    return [...document.body.querySelectorAll("*")]
        .filter((element) => hasText(element) && element.checkVisibility())
        .flatMap((element) => {
            const style = getComputedStyle(element);
            const size = parseFloat(style.fontSize);
            const [dark, light] = [luminance(style.color), luminance(background(element))]
                .sort((a, b) => a - b);
            const contrast = (light + 0.05) / (dark + 0.05);
            const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
            if (contrast >= (large ? 3 : 4.5) && size >= 11) return [];
            const text = (element.value ?? element.textContent).trim().slice(0, 40);
            return [`"${text}": ${size}px, ${contrast.toFixed(2)} to 1`];
        });
}
"""

# How far the dark modules of a QR code are from the sides of its white frame.
MARGINS = """
(code) => {
    const outer = code.parentElement.getBoundingClientRect();
    const inner = code.querySelector(".qrline").getBoundingClientRect();
    return [inner.left - outer.left, outer.right - inner.right];
}
"""

OpenPage = Callable[..., AbstractAsyncContextManager[Page]]
Operator = dict[str, Any]

_numbers = count(1)


@pytest.fixture(scope="module")
def relay(chromium: str) -> Iterator[RelayProcess]:
    """A relay with one admin user; none is started where there is no browser."""
    with relay_process() as relay:
        made = relay.manage(
            *("createsuperuser", "--noinput"),
            *("--username", "operator", "--email", "operator@example.org"),
            env={"DJANGO_SUPERUSER_PASSWORD": PASSWORD},
        )
        assert made.returncode == 0, made.stderr
        yield relay


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture(scope="module")
def open_page(browser: Browser, relay: RelayProcess) -> OpenPage:
    """A page of its own browser profile; it fails on errors in the console and the like."""

    @asynccontextmanager
    async def open_page(**options: Any) -> AsyncIterator[Page]:
        faults: list[str] = []
        context = await browser.new_context(base_url=f"http://127.0.0.1:{relay.port}", **options)
        context.set_default_timeout(SOON)
        await context.expose_binding("reportViolation", lambda _, text: faults.append(text))
        await context.add_init_script(REPORT_VIOLATIONS)
        context.on("weberror", lambda error: faults.append(str(error.error)))
        context.on(
            "console",
            lambda message: (
                faults.append(f"{message.text} at {message.location}")
                if message.type in ("error", "warning")
                else None
            ),
        )
        page = await context.new_page()
        try:
            yield page
            # Whatever was reported before this answer has arrived with it.
            await page.evaluate("new Promise((done) => setTimeout(done))")
        finally:
            await context.close()
        assert faults == []

    return open_page


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(open_page: OpenPage) -> Operator:
    """Options of `open_page` for somebody who has logged in through the page."""
    async with open_page() as page:
        await page.goto("/admin/")
        await page.get_by_label("Username").fill("operator")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_role("heading", name="Pairings and access")).to_be_visible(
            timeout=SOON
        )
        return {"storage_state": await page.context.storage_state()}


async def issue(page: Page, label: str | None = None) -> tuple[str, str]:
    """Issue a token through the page and stay on the page that shows it: label, token."""
    label = label or f"Anna's phone {next(_numbers)}"
    await page.goto(ADD)
    await page.get_by_label("Label").fill(label)
    await page.get_by_role("button", name="Save").click()
    shown = page.get_by_label("Token, for the agent and the phone")
    await expect(shown).to_have_value(re.compile("^oc_pair_[0-9a-f]{32}$"), timeout=SOON)
    return label, await shown.input_value()


def row_of(page: Page, label: str) -> Locator:
    return page.locator("#result_list tbody tr").filter(
        has=page.get_by_role("link", name=label, exact=True)
    )


async def expect_in_list(page: Page, label: str, **columns: str | re.Pattern[str]) -> None:
    """Load the list until the token's row reads so: the relay writes usage in batches."""
    for attempt in count():
        await page.goto(LIST)
        row = row_of(page, label)
        texts = {name: await row.locator(f".field-{name}").inner_text() for name in columns}
        if all(re.fullmatch(wanted, texts[name]) for name, wanted in columns.items()):
            return
        assert attempt < 50, texts


async def expect_to_fit(page: Page) -> None:
    """Nothing sticks out sideways, and every text can be read."""
    wide, narrow = await page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= narrow, "the page scrolls sideways"
    assert await page.evaluate(UNREADABLE) == []


async def test_a_token_is_shown_once_with_its_qr_code(
    open_page: OpenPage, operator: Operator, relay: RelayProcess
) -> None:
    async with open_page(**operator) as page:
        _, token = await issue(page)
        link = await page.get_by_label("Link for the phone").input_value()
        assert (
            link == f"openclaw://pair?token={token}&relay=ws%3A%2F%2F127.0.0.1%3A{relay.port}%2Fws"
        )
        await expect(page.get_by_label("Relay address")).to_have_value(relay.url)
        code = page.locator("svg.qr")
        await expect(code).to_be_visible()
        box = await code.bounding_box()
        assert box is not None
        assert box["width"] >= 200, "too small for a camera"
        assert box["width"] == pytest.approx(box["height"], abs=1)
        left, right = await code.evaluate(MARGINS)
        assert left == pytest.approx(right, abs=1), "the code is cut, or its margin is"
        assert left >= 4 * 6, "less than four modules of quiet margin"

        # The browser sends the form again, as it does when a user confirms it.
        await page.reload()
        await expect(page.get_by_text("it was shown only once")).to_be_visible(timeout=SOON)
        assert token not in await page.content()
        # The other ways back to it do not show it either.
        await page.go_back()
        assert token not in await page.content()
        await page.goto(LIST)
        await page.locator("#result_list tbody tr a").first.click()
        await expect(page.get_by_role("link", name="Usage by day")).to_be_visible(timeout=SOON)
        assert token not in await page.content()
    assert token[12:] not in relay.output


async def test_an_issued_token_works_and_the_list_tells_who_is_online_and_what_is_used(
    open_page: OpenPage, operator: Operator, relay: RelayProcess
) -> None:
    async with open_page(**operator) as page:
        label, token = await issue(page)
        await page.get_by_role("link", name="Done").click()
        await expect_in_list(page, label, online="–", state="active", used_today="0\\sbytes")
        async with log_in(relay.url, token, "agent"):
            await expect_in_list(page, label, online="agent")
        await expect_in_list(page, label, online="–")
        async with pair(relay.url, token) as (phone, agent):
            await phone.send("chat.send", {"text": "x" * 2000})
            await agent.expect("chat.send")
            await expect_in_list(
                page,
                label,
                online="agent, phone",
                used_today="2\\.\\d\\sKB",
                used_month="2\\.\\d\\sKB",
            )
        await page.goto("/admin/pairing/dailyusage/")
        await expect(page.locator("#result_list tbody tr").filter(has_text=label)).to_be_visible()


async def test_revoking_from_the_list_asks_first_and_closes_the_live_socket(
    open_page: OpenPage, operator: Operator, relay: RelayProcess
) -> None:
    async with open_page(**operator) as page:
        label, token = await issue(page)
        other, other_token = await issue(page)
        async with (
            log_in(relay.url, token, "agent") as agent,
            log_in(relay.url, other_token, "agent") as bystander,
        ):
            await page.goto(LIST)
            await row_of(page, label).get_by_role("checkbox").check()
            await page.locator("select[name=action]").select_option("revoke_tokens")
            await page.get_by_role("button", name="Go").click()
            confirm = page.locator(".revoke")
            await expect(confirm.get_by_text(label)).to_be_visible(timeout=SOON)
            await expect(confirm.get_by_text(other)).to_have_count(0)
            await agent.barrier()

            await confirm.get_by_role("button", name="Revoke").click()
            await expect(page.get_by_text("Revoked 1 token;")).to_be_visible(timeout=SOON)
            assert await agent.closed() == 4003
            await expect_in_list(page, label, online="–", state="revoked")
            await expect_in_list(page, other, online="agent", state="active")
            await bystander.barrier()


async def test_revoking_from_the_token_s_own_page(
    open_page: OpenPage, operator: Operator, relay: RelayProcess
) -> None:
    async with open_page(**operator) as page:
        label, token = await issue(page)
        async with log_in(relay.url, token, "phone") as phone:
            await page.goto(LIST)
            await row_of(page, label).get_by_role("link", name=label).click()
            await page.get_by_role("button", name="Revoke").click()
            await page.get_by_role("link", name="Keep it").click()
            await phone.barrier()
            await row_of(page, label).get_by_role("link", name=label).click()
            await page.get_by_role("button", name="Revoke").click()
            await page.locator(".revoke").get_by_role("button", name="Revoke").click()
            assert await phone.closed() == 4003
            await expect_in_list(page, label, state="revoked")
        await row_of(page, label).get_by_role("link", name=label).click()
        await expect(page.get_by_role("link", name="Usage by day")).to_be_visible(timeout=SOON)
        await expect(page.get_by_role("button", name="Revoke")).to_have_count(0)


async def test_the_index_leads_to_the_api_s_documentation_and_the_admin(
    open_page: OpenPage,
) -> None:
    async with open_page() as page:
        await page.goto("/")
        await page.get_by_role("link", name="API documentation").click()
        await expect(page.locator(".opblock").first).to_be_visible(timeout=SOON)
        await page.locator(".opblock").first.click()
        await expect(page.get_by_role("button", name="Try it out")).to_be_visible(timeout=SOON)
        await page.goto("/")
        await page.get_by_role("link", name="Administration").click()
        await expect(page.get_by_label("Username")).to_be_visible(timeout=SOON)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
async def test_pages_fit_and_can_be_read(
    size: str, theme: str, open_page: OpenPage, operator: Operator, tmp_path: Path
) -> None:
    width, height = SIZES[size]
    look = {"viewport": {"width": width, "height": height}, "color_scheme": theme}
    async with open_page(**operator, **look) as page:
        await page.goto("/")
        await page.screenshot(path=tmp_path / "index.png", full_page=True)
        await expect_to_fit(page)

        label, _ = await issue(page, f"A label as long as people make them, {size} {theme}")
        await page.screenshot(path=tmp_path / "issued.png", full_page=True)
        await expect_to_fit(page)
        assert (
            await page.locator("svg.qr").evaluate(
                "(code) => getComputedStyle(code.parentElement).backgroundColor"
            )
            == "rgb(255, 255, 255)"
        ), "many readers cannot invert"

        await page.goto(LIST)
        await page.screenshot(path=tmp_path / "list.png", full_page=True)
        await row_of(page, label).get_by_role("link", name=label).click()
        revoke = page.get_by_role("button", name="Revoke")
        await expect(revoke).to_be_visible(timeout=SOON)
        await page.screenshot(path=tmp_path / "token.png", full_page=True)
        await revoke.click()
        await expect(page.locator(".revoke")).to_be_visible(timeout=SOON)
        await page.screenshot(path=tmp_path / "revoke.png", full_page=True)
        await expect_to_fit(page)
        await page.goto("/api/docs")
        await expect(page.locator(".opblock").first).to_be_visible(timeout=SOON)
        await page.screenshot(path=tmp_path / "docs.png", full_page=True)


async def test_these_tests_would_notice_what_the_policy_forbids(open_page: OpenPage) -> None:
    async def run_inline_script() -> None:
        async with open_page() as page:
            await page.goto("/")
            await page.evaluate(
                "document.head.append(Object.assign(document.createElement('script'),"
                " {textContent: '1'}))"
            )

    with pytest.raises(AssertionError, match="script-src"):
        await run_inline_script()
