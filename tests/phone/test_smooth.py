"""The chat stays smooth: no long tasks while much is shown, and the first word at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from playwright.async_api import Page, expect

import coralmux
from tests.phone.conftest import OpenContext
from tests.phone.harness import PHONE, SOON, ScriptedAgent, over, pair, say
from tests.phone.long_tasks import LONGEST_TASK_MS, TOLERANCE, WATCH_TASKS, longest_task

FIRST_WORD_MS = 100

# Notes when a message came from the socket.
WATCH_SOCKET = """
window.arrived = [];
const Original = WebSocket;
window.WebSocket = class extends Original {
  constructor(...args) {
    super(...args);
    this.addEventListener("message", () => arrived.push(performance.now()));
  }
};
"""

# Counts the times that the answer is drawn, and the frames in which that happens.
COUNT_DRAWINGS = """
() => {
  window.drawings = 0;
  window.frames = 0;
  window.fromFrame = 0;
  let last = 0;
  const frame = () => { frames += 1; requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  new MutationObserver(() => {
    if (last !== frames) fromFrame += 1;
    last = frames;
    drawings += 1;
  }).observe(document.querySelector(".messages"), {
    childList: true, characterData: true, subtree: true,
  });
}
"""

# Resolves when the first word is on the screen, with the milliseconds since it came.
FIRST_WORD = """
() => {
  window.firstWord = new Promise((done) => {
    const observer = new MutationObserver(() => {
      if (!document.querySelector(".markdown")?.textContent.includes("First")) return;
      observer.disconnect();
      requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => done(performance.now() - arrived.at(-1));
        port2.postMessage(null);
      });
    });
    observer.observe(document.querySelector(".messages"), {
      childList: true, characterData: true, subtree: true,
    });
  });
}
"""


async def test_an_answer_of_a_thousand_deltas_causes_no_long_task(
    page: Page, agent: ScriptedAgent
) -> None:
    words = [f"word **{n}** and `code` " if n % 9 else f"\n\n- item {n}\n" for n in range(1_000)]

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        for word in words:
            yield word
            # As a quick model would, and in a rhythm that leaves each delta a message of its own.
            await asyncio.sleep(0.004)
        yield "The end."

    await page.add_init_script(WATCH_TASKS + WATCH_SOCKET)
    await pair(page, agent)
    await page.evaluate(COUNT_DRAWINGS)
    answers = page.locator(".markdown")

    async def ask_for_them() -> None:
        count = await answers.count()
        await page.evaluate("arrived.length = 0")
        await say(page, "Tell me a thousand things")
        await expect(answers).to_have_count(count + 1, timeout=SOON)
        await expect(answers.last).to_contain_text("The end.", timeout=2 * SOON)
        await over(page)

    longest = await longest_task(page, ask_for_them)
    arrived, drawings, frames = await page.evaluate("[arrived.length, drawings, fromFrame]")
    sys.stdout.write(
        f"{arrived} messages, {drawings} drawings in {frames} frames, "
        f"the longest task {longest:.0f} ms\n"
    )
    assert arrived >= 1_000
    assert longest <= LONGEST_TASK_MS * TOLERANCE
    assert drawings <= frames + 10, "drawn more than once a frame"
    # Nothing of it is missing: the last list has its item, and all numbers are there.
    text = await answers.last.inner_text()
    assert [n for n in range(1_000) if str(n) not in text] == []


async def test_the_first_word_is_seen_at_once(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    times: list[float] = []
    heard = asyncio.Event()

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        heard.clear()
        yield "First"
        # No other message comes after it until it was seen.
        await heard.wait()
        yield " and last."

    async with open_profile(**PHONE) as context:
        page = await context.new_page()
        await page.add_init_script(WATCH_SOCKET)
        await pair(page, agent)
        for _ in range(3):
            await page.evaluate(FIRST_WORD)
            await say(page, "Go")
            times.append(await page.evaluate("firstWord"))
            heard.set()
            await expect(page.get_by_text("First and last.")).to_have_count(1)
            await page.get_by_role("button", name="Conversation menu").click()
            await page.get_by_role("menuitem", name="Delete conversation").click()
            await page.get_by_role("button", name="Delete", exact=True).click()
            await expect(page.locator(".message")).to_have_count(0)
    sys.stdout.write(f"first word after {', '.join(f'{time:.0f}' for time in times)} ms\n")
    assert min(times) <= FIRST_WORD_MS * TOLERANCE
