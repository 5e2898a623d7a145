"""The page from a server of one's own, which is no relay."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.phone.harness import PHONE, SOON, Faults, ScriptedAgent, open_context, say
from tests.support.process import clean_environment


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def write(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coralmux_site.cli", "phone-page", str(folder)],
        env=clean_environment(CORALMUX_STATE_DIR=str(folder.parent / "state")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of the page, in a folder of a web server."""
    written = write(tmp_path / "site" / "chat")
    assert written.returncode == 0, written.stderr
    handler = functools.partial(Quiet, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/chat/"
        server.shutdown()
        thread.join()


async def test_it_pairs_with_the_relay_that_the_link_names_and_opens_without_a_network(
    browser: Browser, faults: Faults, agent: ScriptedAgent, server: str
) -> None:
    async with open_context(browser, faults, **PHONE) as context:
        page = await context.new_page()
        await page.goto(agent.link.web(server))
        assert page.url == server
        await page.get_by_role("button", name="Connect", exact=True).click()
        await page.get_by_role("button", name="Open chat").click()
        await say(page, "Hello from afar")
        await expect(page.get_by_text("You said: Hello from afar")).to_be_visible(timeout=SOON)
        assert page.url == server

        await page.evaluate("navigator.serviceWorker.ready")
        answered = await page.reload()
        assert answered is not None
        assert answered.from_service_worker
        await expect(page.get_by_text("You said: Hello from afar")).to_be_visible(timeout=SOON)


async def test_its_policy_stands_in_the_page_itself_and_holds(
    browser: Browser, faults: Faults, server: str
) -> None:
    faults.allow("This document requires|trusted-types")
    async with open_context(browser, faults, **PHONE) as context:
        page = await context.new_page()
        answered = await page.goto(server)
        assert answered is not None
        assert "content-security-policy" not in answered.headers, "the server sends none"
        policy = page.locator('meta[http-equiv="Content-Security-Policy"]')
        await expect(policy).to_have_attribute(
            "content", re.compile("default-src 'none'.*require-trusted-types-for 'script'")
        )
        await expect(page.get_by_role("heading", name="Talk to your own AI")).to_be_visible()
        refused = await page.evaluate(
            "() => { try { document.body.innerHTML = '<b>x</b>'; } catch (e) { return e.name; } }"
        )
        assert refused == "TypeError"
        assert await page.locator("body > b").count() == 0


@pytest.mark.slow
def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "mine.txt").write_text("mine")
    refused = write(tmp_path / "page")
    assert refused.returncode == 1
    assert "is not empty" in refused.stderr
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["mine.txt"]
