"""Pairings as the phone's app knows them: what a link names, who serves one, what is left of it."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

from playwright.async_api import Page, expect

import coralmux
from tests.phone.conftest import OpenContext
from tests.phone.harness import ScriptedAgent, pair
from tests.phone.models import add, ask, bare, open_book, ready, reopened
from tests.support.process import RelayProcess

BANNER = "until(pairing, () => pairing.banner?.kind === '{}').then(() => pairing.banner)"


async def banner(page: Page, kind: str) -> Any:
    """Wait for it."""
    return await page.evaluate(BANNER.format(kind))


async def test_a_link_names_its_pairing_and_connects_nothing(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    async with open_profile() as context:
        page = await open_book(await bare(context))
        outcome = await page.evaluate(
            """(url) => {
              const { link, known, elsewhere } = book.read(url);
              return [link.host === location.host, known, elsewhere, book.pairings.length];
            }""",
            agent.url,
        )
        assert outcome == [True, None, None, 0]
        assert await page.evaluate("rawRecords().then((records) => records.size)") == 1


async def test_a_link_to_another_relay_leads_to_that_ones_phone(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    other = coralmux.PairingLink("wss://relay.example.com/ws", "a-token", bytes(32))
    async with open_profile() as context:
        page = await open_book(await bare(context))
        assert await page.evaluate("(url) => book.read(url).elsewhere", other.uri()) == other.web()
        anywhere = """async (url) => {
          const { Phonebook } = await part("model/phonebook.js");
          const book = new Phonebook({ storage, page: location, anywhere: true });
          return book.read(url).elsewhere;
        }"""
        assert await page.evaluate(anywhere, other.uri()) is None
        bad = (
            "(url) => { try { book.read(url) } catch (error) { return [error.name, error.part] } }"
        )
        assert await page.evaluate(bad, other.web().replace("psk=", "psk=!")) == [
            "LinkError",
            "psk",
        ]


async def test_a_known_link_changes_nothing_of_its_pairing(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    async with open_profile() as context:
        page = await open_book(await bare(context))
        await add(page, agent.url)
        assert await ask(page, "one") == [
            ["user", "one", "done"],
            ["agent", "You said: one", "done"],
        ]
        again = """async (url) => {
          const { link, known } = book.read(url);
          const error = await book.add(link).catch((error) => error);
          return [known === pairing, error.name, error.id === pairing.id, book.pairings.length];
        }"""
        assert await page.evaluate(again, agent.url) == [True, "AlreadyPaired", True, 1]
        other = coralmux.PairingLink(agent.link.relay, agent.link.token, b"x" * 32)
        assert await page.evaluate(again, other.web()) == [True, "AlreadyPaired", True, 1]
        # The link's own secret is used up: had it replaced the kept one, nothing would be said.
        await reopened(page)
        assert (await ask(page, "two"))[-1] == ["agent", "You said: two", "done"]
        facts = "[pairing.name, pairing.verified, pairing.version, pairing.relay === location.host]"
        assert await page.evaluate(facts) == [agent.agent.name, True, 2, True]


async def test_the_users_name_wins_over_the_agents(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    async with open_profile() as context:
        page = await open_book(await bare(context))
        await add(page, agent.url)
        await ready(page)
        await page.evaluate("pairing.rename(' Kitchen ')")
        await reopened(page)
        assert await page.evaluate("pairing.name") == "Kitchen"
        await page.evaluate("pairing.rename('')")
        assert await page.evaluate("pairing.name") == agent.agent.name


async def test_nothing_is_left_of_a_pairing_that_is_forgotten(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    agent.answers(lambda _: "an-answer-to-be-hidden")
    async with open_profile() as context:
        page = await open_book(await bare(context))
        await add(page, agent.url)
        await ask(page, "a-question-to-be-hidden")
        await page.evaluate(
            """async () => {
              const { conversation } = pairing;
              const data = new Blob(["GIF89a-to-be-hidden"], { type: "image/gif" });
              const picture = { name: "hidden-name.gif", type: "image/gif", data };
              conversation.send("", [picture]);
              conversation.draft = "a-draft-to-be-hidden";
              await pairing.rename("a-name-to-be-hidden");
              await pairing.flush();
            }"""
        )
        raw = await page.evaluate("rawText()")
        kinds = {line.split(":")[0] for line in raw.split("\n") if ":" in line}
        assert {"pairing", "secrets", "seen", "page", "picture", "draft"} <= kinds
        for hidden in ("to-be-hidden", "hidden-name", agent.link.token, agent.agent.name):
            assert hidden not in raw
        await page.evaluate("pairing.forget()")
        assert await page.evaluate("book.pairings.length") == 0
        assert await page.evaluate("rawRecords().then((records) => [...records.keys()])") == ["key"]
        # Nor after whatever was still under way.
        await reopened(page)
        assert await page.evaluate("rawRecords().then((records) => [...records.keys()])") == ["key"]


async def test_the_newest_tab_serves_a_pairing_and_the_older_one_takes_it_back(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    async with open_profile() as context:
        first = await open_book(await bare(context))
        await add(first, agent.url)
        await ask(first, "one")
        second = await open_book(await bare(context))
        await ready(second)
        assert await banner(first, "elsewhere-tab") == {"kind": "elsewhere-tab", "action": "here"}
        assert (await ask(second, "two"))[2:] == [
            ["user", "two", "done"],
            ["agent", "You said: two", "done"],
        ]
        # Its list tells what goes on in the other one.
        await first.evaluate("until(pairing, () => pairing.lastMessage.text === 'You said: two')")
        await first.evaluate("pairing.here()")
        await banner(second, "elsewhere-tab")
        assert [entry[1] for entry in await ask(first, "three")] == [
            "one",
            "You said: one",
            "two",
            "You said: two",
            "three",
            "You said: three",
        ]
        # Who writes is here.
        assert (await ask_from_elsewhere(second, "four"))[-1] == [
            "agent",
            "You said: four",
            "done",
        ]
        assert [message.text for message in agent.asked] == ["one", "two", "three", "four"]


async def ask_from_elsewhere(page: Page, text: str) -> Any:
    return await page.evaluate(
        """async (text) => {
          const question = pairing.conversation.send(text);
          await until(pairing, () => question.settled);
          return said(pairing.conversation);
        }""",
        text,
    )


async def test_tabs_hear_of_pairings_that_come_and_go(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    async with open_profile() as context:
        first = await open_book(await bare(context))
        second = await open_book(await bare(context))
        await add(first, agent.url)
        await second.evaluate("until(book, () => book.pairings[0]?.banner)")
        assert await second.evaluate("book.pairings[0].banner.kind") == "elsewhere-tab"
        await ready(first)
        await second.evaluate("book.pairings[0].forget()")
        await first.evaluate("until(book, () => book.pairings.length === 0)")
        await reopened(first)
        assert await first.evaluate("book.pairings.length") == 0


async def test_another_device_takes_the_place_and_gives_it_back(
    open_profile: OpenContext, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay, encrypted=False)
    await agent.start()
    try:
        async with open_profile() as context, open_profile() as other:
            first = await open_book(await bare(context))
            await add(first, agent.link.uri())
            await ready(first)
            second = await open_book(await bare(other))
            await add(second, agent.link.uri())
            assert await banner(first, "replaced") == {"kind": "replaced", "action": "here"}
            # Coming back from the background takes nothing away.
            await first.evaluate("book.awake()")
            await first.evaluate("pairing.here()")
            await banner(second, "replaced")
            assert (await ask(first, "mine"))[-1] == ["agent", "You said: mine", "done"]
    finally:
        await agent.stop()


async def test_a_revoked_pairing_says_so_and_keeps_what_was_said(
    open_profile: OpenContext, agent: ScriptedAgent, relay: RelayProcess
) -> None:
    async with open_profile() as context:
        page = await open_book(await bare(context))
        await add(page, agent.url)
        await ask(page, "one")
        await agent.stop()
        token = urllib.parse.quote(agent.link.token)
        assert relay.http("DELETE", f"/api/v1/pair/{token}", admin=True)[0] == 204
        assert await banner(page, "revoked") == {"kind": "revoked", "action": "pair-again"}
        await page.evaluate("{ pairing.conversation.send('late'); }")
        await page.evaluate("book.flush()")
        await reopened(page)
        await banner(page, "revoked")
        await page.evaluate("pairing.conversation.load()")
        assert await page.evaluate("said(pairing.conversation)") == [
            ["user", "one", "done"],
            ["agent", "You said: one", "done"],
            ["user", "late", "failed"],
        ]
        assert await page.evaluate("pairing.conversation.messages[2].error") == {"name": "Stopped"}


async def test_an_agent_that_does_not_know_the_link_is_refused(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    wrong = coralmux.PairingLink(agent.link.relay, agent.link.token, bytes(32))
    async with open_profile() as context:
        page = await open_book(await bare(context))
        await add(page, wrong.web())
        await page.evaluate("{ globalThis.question = pairing.conversation.send('hello'); }")
        refused = await banner(page, "refused")
        assert refused == {"kind": "refused", "action": "pair-again", "code": "SECRET_REFUSED"}
        await page.evaluate("until(pairing.conversation, () => question.settled)")
        assert await page.evaluate("[question.state, question.error]") == [
            "failed",
            {"name": "PairingRefused"},
        ]


async def test_bandwidth_is_what_the_relay_counted_and_what_went_since(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    async with open_profile() as context:
        page = await open_book(await bare(context))
        await add(page, agent.url)
        await ready(page)
        before = await page.evaluate("pairing.usage")
        assert before["dayQuota"] == 500 * 1024 * 1024
        assert before["monthQuota"] == 10 * 1024 * 1024 * 1024
        await ask(page, "x" * 10_000)
        after = await page.evaluate("pairing.usage")
        assert 20_000 < after["dayBytes"] - before["dayBytes"] < 60_000
        assert after["monthBytes"] - before["monthBytes"] == after["dayBytes"] - before["dayBytes"]


async def test_several_agents_each_have_a_conversation(
    open_profile: OpenContext, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay)

    @agent.on("agent.list")
    async def agents(request: Any) -> Any:
        return {"agents": [{"id": "ada", "name": "Ada"}, {"id": "bob", "name": "Bob"}]}

    agent.answers(lambda message: f"{message.agent_id} heard {message.text}")
    await agent.start()
    try:
        async with open_profile() as context:
            page = await open_book(await bare(context))
            await add(page, agent.url)
            await page.evaluate("until(pairing, () => pairing.agents.length === 2)")
            assert await page.evaluate("pairing.agentId") == "ada"
            await ask(page, "one")
            await page.evaluate("pairing.chooseAgent('bob')")
            assert (await ask(page, "two"))[-1][1] == "bob heard two"
            await reopened(page)
            assert await page.evaluate("[pairing.agentId, pairing.agents.length]") == ["bob", 2]
            await page.evaluate("pairing.chooseAgent('ada')")
            await page.evaluate("pairing.conversation.load()")
            texts = "pairing.conversation.messages.map(({ text }) => text)"
            assert await page.evaluate(texts) == ["one", "ada heard one"]
            assert await page.evaluate("pairing.lastMessage.text") == "bob heard two"
            raw = await page.evaluate("rawText()")
            assert "ada" not in raw.lower().split(",")
            exported = (await page.evaluate("pairing.export()"))["text"]
            assert "ada heard one" in exported
            assert "bob heard two" in exported
            await page.evaluate("pairing.clear()")
            assert await page.evaluate("pairing.lastMessage") is None
    finally:
        await agent.stop()


async def test_a_tab_that_gives_a_pairing_away_writes_what_it_knows_before(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    go_on = asyncio.Event()

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        yield "half "
        await go_on.wait()
        yield "and more "
        await asyncio.Event().wait()

    async with open_profile() as context:
        first = await open_book(await bare(context))
        await add(first, agent.url)
        await ready(first)
        second = await open_book(await bare(context))
        await ready(second)
        await second.evaluate("{ pairing.conversation.send('hello'); }")
        text = "until(pairing.conversation, () => pairing.conversation.messages[1]?.text === '{}')"
        await second.evaluate(text.format("half "))
        go_on.set()
        await second.evaluate(text.format("half and more "))
        await second.evaluate("{ pairing.conversation.draft = 'unfinished'; }")
        await first.evaluate("pairing.here()")
        await first.evaluate("pairing.conversation.load()")
        said = await first.evaluate("said(pairing.conversation)")
        assert [text for _, text, _ in said] == ["hello", "half and more "]
        assert await first.evaluate("pairing.conversation.draft") == "unfinished"


async def test_a_tab_that_does_not_answer_loses_its_pairing(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    async with open_profile() as context:
        first = await open_book(await bare(context))
        await add(first, agent.url)
        await ready(first)
        # What it is asked for waits for something that never ends.
        await first.evaluate("void (pairing.flush = () => new Promise(() => {}))")
        second = await open_book(await bare(context))
        await ready(second)
        assert await banner(first, "elsewhere-tab") == {"kind": "elsewhere-tab", "action": "here"}


async def test_a_lost_network_is_told_at_once(page: Page, agent: ScriptedAgent) -> None:
    await pair(page, agent)
    notice = page.get_by_text("No network")
    await expect(notice).to_have_count(0)
    await page.context.set_offline(True)
    await expect(notice.first).to_be_visible()
    await page.context.set_offline(False)
    await expect(notice).to_have_count(0)
