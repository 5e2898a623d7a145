"""Answers that were cut off are taken from the agent's memory."""

from __future__ import annotations

from playwright.async_api import Page

from tests.phone.conftest import OpenContext
from tests.phone.models import SAID, SEND, add, asked, bare, open_book, ready, reopened, settled
from tests.phone.remembering import Remembering
from tests.support.process import RelayProcess
from tests.support.waiting import eventually


async def ask_remembering(page: Page, agent: Remembering) -> None:
    """Pair, and ask something."""
    await add(page, agent.url)
    await ready(page)
    await page.evaluate("until(pairing.conversation, () => !pairing.conversation.fetching)")
    await page.evaluate(SEND, ["hello"])
    await agent.came.wait()


async def test_an_answer_that_ends_after_a_reload_is_taken_from_the_agents_memory(
    open_profile: OpenContext, relay: RelayProcess
) -> None:
    async with Remembering(relay) as agent, open_profile() as context:
        page = await open_book(await bare(context))
        await ask_remembering(page, agent)
        await page.evaluate("until(pairing.conversation, () => pairing.conversation.messages[1])")
        await page.evaluate("book.flush()")
        await reopened(page)
        await page.evaluate("pairing.conversation.load()")
        await eventually(lambda: agent.looked > 0)
        assert await page.evaluate(SAID) == [["user", "hello", "sent"], ["agent", "", "streaming"]]
        agent.remember("assistant", "what I said")
        assert await settled(page) == [["user", "hello", "done"], ["agent", "what I said", "done"]]
        assert asked(agent) == ["hello"]


async def test_an_answer_cut_off_by_a_reload_is_taken_whole_from_the_agents_memory(
    open_profile: OpenContext, relay: RelayProcess
) -> None:
    async with Remembering(relay, "half ") as agent, open_profile() as context:
        page = await open_book(await bare(context))
        await ask_remembering(page, agent)
        await page.evaluate(
            "until(pairing.conversation, () => pairing.conversation.messages[1]?.text === 'half ')"
        )
        await page.evaluate("book.flush()")
        await reopened(page)
        await page.evaluate("pairing.conversation.load()")
        await eventually(lambda: agent.looked > 0)
        assert (await page.evaluate(SAID))[1] == ["agent", "half ", "streaming"]
        agent.remember("assistant", "half and half")
        assert (await settled(page))[1] == ["agent", "half and half", "done"]


async def test_an_answer_that_the_agent_does_not_remember_fails_after_five_minutes(
    open_profile: OpenContext, relay: RelayProcess
) -> None:
    async with Remembering(relay, "half ") as agent, open_profile() as context:
        page = await open_book(await bare(context))
        await ask_remembering(page, agent)
        # The times between two askings, which pass faster here.
        await page.evaluate(
            """() => {
              const paces = [1, 2, 4, 8, 16, 30].map((seconds) => seconds * 1000);
              globalThis.waited = 0;
              const later = setTimeout;
              globalThis.setTimeout = (work, time) => {
                const [, , caller] = new Error().stack.split("\\n");
                const pace = paces.includes(time) && caller.includes("recall.js");
                if (pace) waited += time;
                return later(work, pace ? 1 : time);
              };
            }"""
        )
        await agent.stop()
        await page.evaluate("until(pairing, () => !pairing.online)")
        await agent.start()
        assert await settled(page) == [["user", "hello", "done"], ["agent", "half ", "failed"]]
        assert 240_000 < await page.evaluate("waited") < 360_000
