"""Questions that wait, go out in order, and come back where they are not known to have arrived."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from playwright.async_api import Page

import coralmux
from tests.phone.conftest import OpenContext
from tests.phone.harness import Faults, ScriptedAgent
from tests.phone.models import (
    SAID,
    SEND,
    add,
    ask,
    asked,
    bare,
    open_book,
    ready,
    reopened,
    settled,
    shrink,
)
from tests.support.process import RelayProcess, relay_process


async def test_questions_wait_over_a_reload_and_go_out_in_order_once_each(
    paired: Page, agent: ScriptedAgent
) -> None:
    await agent.stop()
    await paired.evaluate("until(pairing, () => pairing.banner?.kind === 'agent-offline')")
    await paired.evaluate(SEND, ["one", "two"])
    await paired.evaluate("book.flush()")
    await reopened(paired)
    await paired.evaluate(SEND, ["three"])
    await paired.evaluate("until(pairing, () => pairing.banner?.kind === 'agent-offline')")
    await paired.evaluate("pairing.conversation.load()")
    assert await paired.evaluate(SAID) == [
        ["user", "one", "waiting"],
        ["user", "two", "waiting"],
        ["user", "three", "waiting"],
    ]
    await agent.start()
    said = await settled(paired)
    assert sorted(said) == sorted(
        [["user", text, "done"] for text in ("one", "two", "three")]
        + [["agent", f"You said: {text}", "done"] for text in ("one", "two", "three")]
    )
    assert asked(agent) == ["one", "two", "three"]


async def test_what_waits_goes_out_although_its_conversation_is_not_opened(
    paired: Page, agent: ScriptedAgent
) -> None:
    await agent.stop()
    await paired.evaluate("until(pairing, () => !pairing.online)")
    await paired.evaluate(SEND, ["one"])
    await paired.evaluate("book.flush()")
    await reopened(paired)
    await agent.start()
    await paired.evaluate("until(pairing, () => pairing.unread === 1)")
    assert asked(agent) == ["one"]


async def test_a_question_that_waits_can_be_kept_back(paired: Page, agent: ScriptedAgent) -> None:
    await agent.stop()
    await paired.evaluate("until(pairing, () => !pairing.online)")
    await paired.evaluate(SEND, ["not this", "nor this", "this"])
    await paired.evaluate(
        """async () => {
          const { conversation } = pairing;
          conversation.stop(conversation.messages[0]);
          await conversation.remove(conversation.messages[1]);
        }"""
    )
    await agent.start()
    assert await settled(paired) == [
        ["user", "not this", "cancelled"],
        ["user", "this", "done"],
        ["agent", "You said: this", "done"],
    ]
    assert asked(agent) == ["this"]


async def test_answers_of_version_2_run_side_by_side(paired: Page, agent: ScriptedAgent) -> None:
    second = asyncio.Event()

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> str:
        if message.text == "one":
            await second.wait()
        else:
            second.set()
        return f"{message.text}!"

    await paired.evaluate(SEND, ["one", "two"])
    assert [text for role, text, _ in await settled(paired) if role == "agent"] == ["one!", "two!"]


async def test_version_1_is_asked_one_after_another(
    open_profile: OpenContext, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay, encrypted=False)
    running: list[str] = []
    together: list[int] = []

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        running.append(message.text)
        together.append(len(running))
        for part in ("a", "b", "c"):
            yield part
        running.remove(message.text)

    await agent.start()
    try:
        async with open_profile() as context:
            page = await open_book(await bare(context))
            await add(page, agent.link.uri())
            await page.evaluate(SEND, ["one", "two", "three"])
            assert [text for role, text, _ in await settled(page) if role == "agent"] == ["abc"] * 3
            assert asked(agent) == ["one", "two", "three"]
            assert together == [1, 1, 1]
            assert await page.evaluate("[pairing.version, pairing.verified]") == [1, False]
    finally:
        await agent.stop()


async def test_an_answer_that_is_cut_off_fails_and_can_be_asked_for_again(
    paired: Page, agent: ScriptedAgent
) -> None:
    forever = asyncio.Event()

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        yield "half "
        if len(agent.asked) == 1:
            await forever.wait()
        yield "and half"

    await paired.evaluate(SEND, ["hello"])
    await paired.evaluate(
        """until(pairing.conversation,
          () => pairing.conversation.messages[1]?.text === "half ")"""
    )
    await agent.stop()
    await paired.evaluate("until(pairing, () => !pairing.online)")
    # The agent may come back, and remember all of it. This one remembers nothing.
    assert await paired.evaluate(SAID) == [
        ["user", "hello", "sent"],
        ["agent", "half ", "streaming"],
    ]
    await agent.start()
    assert await settled(paired) == [["user", "hello", "done"], ["agent", "half ", "failed"]]
    error = await paired.evaluate("pairing.conversation.messages[1].error")
    assert error == {"name": "ConnectionLost"}
    await paired.evaluate("{ pairing.conversation.retry(pairing.conversation.messages[1]); }")
    assert await settled(paired) == [["user", "hello", "done"], ["agent", "half and half", "done"]]
    assert agent.asked[0].id != agent.asked[1].id


async def test_an_answer_that_was_coming_when_the_page_was_left_has_failed(
    paired: Page, agent: ScriptedAgent
) -> None:
    forever = asyncio.Event()

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        yield "half "
        await forever.wait()

    await paired.evaluate(SEND, ["hello"])
    await paired.evaluate(
        """until(pairing.conversation,
          () => pairing.conversation.messages[1]?.text === "half ")"""
    )
    await paired.evaluate("book.flush()")
    await reopened(paired)
    assert await settled(paired) == [["user", "hello", "done"], ["agent", "half ", "failed"]]
    assert asked(agent) == ["hello"]


async def test_a_question_without_an_answer_is_asked_again_and_never_twice(
    open_profile: OpenContext, relay: RelayProcess
) -> None:
    """It got there, and its answer was lost: the agent remembers it."""
    agent = ScriptedAgent(relay)
    remembered: list[dict[str, Any]] = []
    came = asyncio.Event()

    @agent.on("chat.history")
    async def history(request: Any) -> Any:
        return {"messages": remembered}

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> str:
        remembered.append({"role": "user", "content": message.text, "timestamp": 1})
        remembered.append({"role": "assistant", "content": "what I said", "timestamp": 2})
        came.set()
        await asyncio.Event().wait()
        return "never"

    await agent.start()
    try:
        async with open_profile() as context:
            page = await open_book(await bare(context))
            await add(page, agent.url)
            await ready(page)
            await page.evaluate("until(pairing.conversation, () => !pairing.conversation.fetching)")
            await page.evaluate(SEND, ["hello"])
            await came.wait()
            await agent.stop()
            await page.evaluate(
                """until(pairing.conversation,
                  () => pairing.conversation.messages[0].state === "waiting")"""
            )
            await agent.start()
            assert await settled(page) == [
                ["user", "hello", "done"],
                ["agent", "what I said", "done"],
            ]
            assert asked(agent) == ["hello"]
    finally:
        await agent.stop()


async def test_an_answer_is_lost_at_once_where_the_agent_remembers_nothing(
    paired: Page, agent: ScriptedAgent
) -> None:
    came = asyncio.Event()

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> str:
        if len(agent.asked) > 1:
            return "again"
        came.set()
        await asyncio.Event().wait()
        return "never"

    await paired.evaluate(SEND, ["hello"])
    await came.wait()
    await agent.stop()
    await paired.evaluate("until(pairing, () => !pairing.online)")
    await agent.start()
    assert await settled(paired) == [["user", "hello", "done"], ["agent", "", "failed"]]
    error = await paired.evaluate("pairing.conversation.messages[1].error")
    assert (error["name"], error["code"]) == ("AgentError", "DUPLICATE")
    await paired.evaluate("{ pairing.conversation.retry(pairing.conversation.messages[1]); }")
    assert (await settled(paired))[1] == ["agent", "again", "done"]


async def test_an_agents_own_words_of_a_failure_are_kept(
    paired: Page, agent: ScriptedAgent
) -> None:
    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> str:
        raise coralmux.BackendError("The oven is cold.")

    await paired.evaluate(SEND, ["bake"])
    await settled(paired)
    await paired.evaluate("book.flush()")
    await reopened(paired)
    await settled(paired)
    assert await paired.evaluate("pairing.conversation.messages[1].error") == {
        "name": "AgentError",
        "code": "BACKEND_ERROR",
        "text": "The oven is cold.",
    }


async def test_an_answer_is_stopped(paired: Page, agent: ScriptedAgent) -> None:
    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        yield "so far"
        await asyncio.Event().wait()

    await paired.evaluate(SEND, ["hello"])
    await paired.evaluate(
        "until(pairing.conversation, () => pairing.conversation.messages[1]?.text === 'so far')"
    )
    await paired.evaluate("{ pairing.conversation.stop(pairing.conversation.messages[1]); }")
    assert await settled(paired) == [["user", "hello", "done"], ["agent", "so far", "cancelled"]]


async def test_the_relay_restarts_while_an_answer_comes(
    open_profile: OpenContext, faults: Faults
) -> None:
    faults.allow("WebSocket connection to .* failed")
    with relay_process() as relay:
        agent = ScriptedAgent(relay)

        @agent.answers
        async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
            yield "half "
            if len(agent.asked) == 1:
                await asyncio.Event().wait()
            yield "and half"

        await agent.start()
        try:
            async with open_profile(base_url=f"http://127.0.0.1:{relay.port}") as context:
                page = await open_book(await bare(context))
                await add(page, agent.url)
                await page.evaluate(SEND, ["hello"])
                await page.evaluate(
                    """until(pairing.conversation,
                      () => pairing.conversation.messages[1]?.text === "half ")"""
                )
                relay.terminate()
                banner = await page.evaluate(
                    "until(pairing, () => pairing.banner?.until).then(() => pairing.banner)"
                )
                assert banner["kind"] == "reconnecting"
                assert banner["action"] == "now"
                await page.evaluate(SEND, ["still there?"])
                relay.start()
                await page.evaluate("pairing.now()")
                said = await settled(page)
                assert said[1] == ["agent", "half ", "failed"]
                assert said[-1] == ["agent", "half and half", "done"]
        finally:
            await agent.stop()


async def test_beyond_the_rate_questions_wait_for_the_time_that_the_relay_names(
    open_profile: OpenContext, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay)
    token = relay.token(phone_messages_per_minute=20)
    agent.link = coralmux.PairingLink.new(relay.url, token)
    await agent.start()
    try:
        async with open_profile() as context:
            page = await open_book(await bare(context))
            await add(page, agent.url)
            await ready(page)
            texts = [f"{number}" for number in range(20)]
            await page.evaluate(SEND, texts)
            banner = await page.evaluate(
                """until(pairing, () => pairing.banner?.kind === "rate-limit")
                  .then(() => ({ ...pairing.banner, now: Date.now() }))"""
            )
            assert banner["code"] == "RATE_LIMITED"
            assert 0 < banner["until"] - banner["now"] <= 4_000
            await settled(page)
            assert asked(agent) == texts
            assert await page.evaluate("pairing.banner") is None
    finally:
        await agent.stop()


async def test_questions_wait_while_the_quota_is_used_up(
    open_profile: OpenContext, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay)
    agent.link = coralmux.PairingLink.new(relay.url, relay.token(daily_quota_bytes=20_000))
    await agent.start()
    try:
        async with open_profile() as context:
            page = await open_book(await bare(context))
            await add(page, agent.url)
            await ask(page, "x" * 20_000)
            await page.evaluate(SEND, ["late"])
            banner = await page.evaluate(
                "until(pairing, () => pairing.banner?.kind === 'quota').then(() => pairing.banner)"
            )
            midnight = (time.time() // 86_400 + 1) * 86_400
            assert banner["code"] == "DAILY_QUOTA_EXCEEDED"
            assert abs(banner["until"] / 1000 - midnight) < 60
            await page.evaluate(
                """until(pairing.conversation,
                  () => pairing.conversation.messages.at(-1).state === "waiting")"""
            )
            assert asked(agent) == ["x" * 20_000]
    finally:
        await agent.stop()


async def test_nothing_is_lost_on_the_screen_when_the_browser_is_full(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    agent.answers(lambda _: "short")
    async with open_profile() as context:
        page = await bare(context)
        await shrink(page, 100_000)
        await open_book(page)
        await add(page, agent.url)
        await ready(page)
        await page.evaluate(SEND, ["y" * 3_000_000])
        said = await settled(page)
        assert [len(said[0][1]), said[1]] == [3_000_000, ["agent", "short", "done"]]
        assert len(agent.asked[0].text) == 3_000_000
        assert await page.evaluate(
            "until(pairing, () => pairing.banner?.kind === 'storage').then(() => pairing.banner)"
        ) == {"kind": "storage", "code": "full"}


async def test_each_answer_stands_behind_its_question_also_after_a_reload(
    paired: Page, agent: ScriptedAgent
) -> None:
    await agent.stop()
    await paired.evaluate("until(pairing, () => !pairing.online)")
    await paired.evaluate(SEND, ["one", "two"])
    await agent.start()
    expected = ["one", "You said: one", "two", "You said: two"]
    assert [text for _, text, _ in await settled(paired)] == expected
    await paired.evaluate("book.flush()")
    await reopened(paired)
    await paired.evaluate("pairing.conversation.load()")
    assert [text for _, text, _ in await paired.evaluate(SAID)] == expected
