"""What the page must never do, whoever asks it to."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.async_api import Page, Request, expect

from tests.phone.harness import SOON, Faults, ScriptedAgent, becomes_true, pair, say
from tests.support.process import RelayProcess

# Whatever the browser keeps of this page by itself, and the page by its own doing.
EVERYTHING_KEPT = """
async () => {
  const kept = [JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie];
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) {
      kept.push(request.url, await (await cache.match(request)).text());
    }
  }
  // Its entry for the page itself ends with the page, and no script can take it away.
  for (const entry of performance.getEntriesByType("resource")) kept.push(entry.name);
  if (globalThis.navigation) for (const entry of navigation.entries()) kept.push(entry.url);
  kept.push(document.title, document.documentElement.outerHTML, JSON.stringify(history.state));
  return kept.join("\\n");
}
"""


async def test_a_chat_talks_to_this_relay_and_to_nobody_else(
    page: Page, agent: ScriptedAgent, relay: RelayProcess
) -> None:
    requests: list[Request] = []
    sockets: list[str] = []
    page.context.on("request", lambda request: requests.append(request))
    page.on("websocket", lambda socket: sockets.append(socket.url))
    agent.answers(
        lambda _: (
            "![](https://example.com/a.png) <img src='http://example.com/b.png'> "
            "[more](https://example.com/) <link rel=prefetch href=//example.com/c>"
            "<video src=https://example.com/d></video><style>@import url(//example.com/e)</style>"
        )
    )
    await pair(page, agent)
    await say(page, "Show me")
    await expect(page.get_by_role("link", name="more")).to_be_visible(timeout=SOON)
    here = f"127.0.0.1:{relay.port}"
    assert len(requests) > 10
    for request in requests:
        if not request.url.startswith(("blob:", "data:")):
            assert urlsplit(request.url).netloc == here, request.url
    assert sockets
    assert {urlsplit(url).netloc for url in sockets} == {here}


async def test_the_link_is_nowhere_once_it_was_read(
    page: Page, agent: ScriptedAgent, relay: RelayProcess
) -> None:
    requests: list[str] = []
    page.context.on("request", lambda request: requests.append(request.url))
    page.context.on("request", lambda request: requests.append(str(request.headers)))
    await page.goto("about:blank")
    await page.goto(agent.url)
    assert page.url == f"http://127.0.0.1:{relay.port}/phone"
    await pair(page, agent)
    await say(page, "Hello")
    await expect(page.get_by_text("You said: Hello")).to_be_visible(timeout=SOON)
    await page.evaluate("navigator.serviceWorker.ready")

    fragment = agent.url.partition("#")[2]
    token, secret = agent.link.token, fragment.rpartition("psk=")[2]
    assert len(secret) > 40
    places = {
        "requests": "\n".join(requests),
        "browser": await page.evaluate(EVERYTHING_KEPT),
        "relay": relay.output,
    }
    assert "/phone" in places["requests"]
    assert "/static/" in places["browser"]
    for name, text in places.items():
        assert token not in text, name
        assert secret not in text, name


async def test_the_address_of_a_link_is_in_no_history(page: Page, agent: ScriptedAgent) -> None:
    await page.goto("/")
    await page.goto(agent.url)
    await expect(page.get_by_role("button", name="Connect", exact=True)).to_be_visible()
    # Opened in the same tab: nothing is loaded, and still nothing stays.
    await page.evaluate("(url) => { location.href = url; }", agent.url)
    await becomes_true(page, "location.hash === '' && !location.href.includes('#')")
    await becomes_true(page, "navigation.entries().every((entry) => !entry.url.includes('#'))")


async def test_the_fragment_is_handed_over_once(page: Page) -> None:
    await page.route("**/app/main.js", lambda route: route.fulfill(content_type="text/javascript"))
    await page.goto("/phone#token=x")
    assert page.url.endswith("/phone")
    assert await page.evaluate("[coralmuxFragment(), coralmuxFragment()]") == ["#token=x", ""]
    await page.evaluate("location.hash = 'token=y'")
    await becomes_true(page, "location.hash === ''")
    assert await page.evaluate("[coralmuxFragment(), coralmuxFragment()]") == ["#token=y", ""]


async def test_trusted_types_hold_the_page_s_own_code_too(page: Page, faults: Faults) -> None:
    faults.allow("This document requires|trusted-types|Trusted")
    await page.goto("/phone")
    await page.get_by_role("button").first.wait_for()
    for attempt in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.createElement('script').src = '/x.js'",
        "document.createElement('script').text = 'ran = true'",
        "document.body.setAttribute('onclick', 'ran = true')",
        "setTimeout('ran = true')",
        "trustedTypes.createPolicy('another', {})",
        "trustedTypes.createPolicy('coralmux', {})",
    ):
        refused = await page.evaluate(
            f"() => {{ try {{ {attempt}; return ''; }} catch (error) {{ return error.name; }} }}"
        )
        assert refused == "TypeError", attempt
    assert len(faults.all) >= 7


async def test_other_origins_are_out_of_reach(page: Page, faults: Faults) -> None:
    faults.allow("Content Security Policy|connect-src|img-src")
    away = "http://127.0.0.1:9"
    await page.goto("/phone")
    reached = await page.evaluate(
        """async (away) => {
          const picture = new Image();
          const loaded = new Promise((resolve) => {
            picture.onload = () => resolve(true);
            picture.onerror = () => resolve(false);
          });
          picture.src = `${away}/x.png`;
          const fetched = fetch(away).then(() => true, () => false);
          return [await loaded, await fetched];
        }""",
        away,
    )
    assert reached == [False, False]
    assert {text.partition(":")[0] for text in faults.all if away in text} >= {
        "connect-src",
        "img-src",
    }
