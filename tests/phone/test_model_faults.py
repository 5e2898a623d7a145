"""What the phone's app does where what it kept is damaged, gone, or cannot be read just now."""

from __future__ import annotations

import asyncio
import time

from playwright.async_api import Page

import coralmux
from tests.phone.conftest import OpenContext
from tests.phone.harness import ScriptedAgent
from tests.phone.models import add, ask, bare, open_book, ready, reopened
from tests.support.process import RelayProcess

# The browser fails at this method of the storage while `broken` holds.
BREAK = """
(name) => {
  const { prototype } = storage.constructor;
  const whole = prototype[name];
  globalThis.broken = true;
  prototype[name] = async function (...given) {
    if (broken) throw new DOMException("the disk", "UnknownError");
    return await whole.apply(this, given);
  };
}
"""
DAMAGE = """
async (prefix) => {
  const { createStore, entries, set } = await import("idb-keyval");
  const kept = createStore("coralmux", "kept");
  for (const [name, record] of await entries(kept)) {
    if (name.startsWith(prefix)) await set(name, { ...record, iv: new Uint8Array(12) }, kept);
  }
}
"""
REMOVE = """
async (prefix) => {
  const names = await storage.names(prefix);
  await storage.remove(...names);
}
"""
SAID = "said(pairing.conversation)"


async def test_a_damaged_pairing_locks_no_other_one_out(
    paired: Page, agent: ScriptedAgent, relay: RelayProcess
) -> None:
    await paired.evaluate("book.flush()")
    await paired.evaluate(DAMAGE, "pairing:")
    other = ScriptedAgent(relay)
    await other.start()
    try:
        await add(paired, other.url)
        await ready(paired)
        await reopened(paired)
        assert await paired.evaluate("[book.pairings.length, book.damaged.length]") == [1, 1]
        await ready(paired)
        await paired.evaluate("book.forgetDamaged(book.damaged[0])")
        assert await paired.evaluate("book.damaged") == []
        await reopened(paired)
        assert await paired.evaluate("[book.pairings.length, book.damaged.length]") == [1, 0]
        assert len(await paired.evaluate("storage.names('secrets:')")) == 1
    finally:
        await other.stop()


async def test_a_pairing_whose_key_is_gone_says_so_and_sends_nothing(
    paired: Page, agent: ScriptedAgent
) -> None:
    await ask(paired, "before")
    await paired.evaluate("book.flush()")
    await paired.evaluate(REMOVE, "secrets:")
    await reopened(paired)
    banner = await paired.evaluate("until(pairing, () => pairing.banner?.kind === 'lost')")
    assert banner
    assert await paired.evaluate("pairing.banner.action") == "pair-again"
    assert (await ask(paired, "after"))[-1] == ["user", "after", "failed"]
    failure = "pairing.conversation.messages.at(-1).error.name"
    assert await paired.evaluate(failure) == "SecretLost"
    assert [message.text for message in agent.asked] == ["before"]


async def test_where_the_key_cannot_be_read_it_is_tried_again(
    paired: Page, agent: ScriptedAgent
) -> None:
    await paired.evaluate("book.flush()")
    await paired.reload()
    await paired.evaluate(
        """async () => {
          const { Storage } = await part("storage/database.js");
          const { memory } = Storage.prototype;
          globalThis.broken = true;
          Storage.prototype.memory = function (id) {
            const whole = memory.call(this, id);
            const load = async () => {
              if (broken) throw new DOMException("the disk", "UnknownError");
              return await whole.load();
            };
            return { ...whole, load };
          };
        }"""
    )
    await open_book(paired)
    await paired.evaluate("until(pairing, () => pairing.banner?.kind === 'storage')")
    assert await paired.evaluate("pairing.banner.action") == "now"
    await paired.evaluate("pairing.now()")
    await paired.evaluate("until(pairing, () => pairing.banner?.kind === 'storage')")
    await paired.evaluate("broken = false; pairing.now()")
    await ready(paired)
    assert (await ask(paired, "again"))[-1] == ["agent", "You said: again", "done"]


async def test_a_pairing_that_cannot_be_deleted_goes_on(paired: Page, agent: ScriptedAgent) -> None:
    await paired.evaluate(BREAK, "wipe")
    rejected = await paired.evaluate("pairing.forget().then(() => false, () => true)")
    assert rejected
    assert (await ask(paired, "still there"))[-1] == ["agent", "You said: still there", "done"]
    await reopened(paired)
    await paired.evaluate("pairing.conversation.load()")
    assert len(await paired.evaluate(SAID)) == 2


async def test_a_question_whose_picture_is_gone_fails_and_holds_up_nothing(
    paired: Page, agent: ScriptedAgent
) -> None:
    await agent.stop()
    await paired.evaluate("until(pairing, () => !pairing.online)")
    await paired.evaluate(
        """async () => {
          const { conversation } = pairing;
          for (const text of ["damaged", "gone"]) {
            const data = new Blob([text], { type: "image/png" });
            conversation.send(text, [{ name: "a.png", type: "image/png", data }]);
          }
          conversation.send("plain");
          await pairing.flush();
        }"""
    )
    [_, gone] = await paired.evaluate(
        "pairing.conversation.messages.flatMap(({pictures}) => pictures.map(({id}) => id))"
    )
    await paired.evaluate(DAMAGE, "picture:")
    name = await paired.evaluate(
        "async (id) => (await storage.names('picture:')).find((name) => name.includes(id))", gone
    )
    await paired.evaluate("(name) => storage.remove(name)", name)
    await agent.start()
    await reopened(paired)
    await paired.evaluate(
        """async () => {
          const { conversation } = pairing;
          await conversation.load();
          await until(conversation, () => conversation.messages.every(({ settled }) => settled));
        }"""
    )
    assert await paired.evaluate(SAID) == [
        ["user", "damaged", "failed"],
        ["user", "gone", "failed"],
        ["user", "plain", "done"],
        ["agent", "You said: plain", "done"],
    ]
    codes = "pairing.conversation.messages.map(({ error }) => error?.code ?? null)"
    assert await paired.evaluate(codes) == ["damaged", "damaged", None, None]


async def test_what_was_said_before_is_not_written_over_where_it_cannot_be_read(
    paired: Page, agent: ScriptedAgent
) -> None:
    await ask(paired, "before")
    await paired.evaluate("book.flush()")
    await reopened(paired)
    await ready(paired)
    # The conversation has not been opened yet.
    await paired.evaluate(BREAK, "names")
    await paired.evaluate("pairing.conversation.load()")
    await paired.evaluate("until(pairing, () => pairing.banner?.kind === 'storage')")
    assert await ask(paired, "unread") == [
        ["user", "unread", "done"],
        ["agent", "You said: unread", "done"],
    ]
    await paired.evaluate("broken = false")
    await ask(paired, "after")
    texts = ["before", "You said: before", "unread", "You said: unread"]
    texts += ["after", "You said: after"]
    assert [text for _, text, _ in await paired.evaluate(SAID)] == texts
    await paired.evaluate("book.flush()")
    await reopened(paired)
    await paired.evaluate(
        """async () => {
          const { conversation } = pairing;
          await conversation.load();
          while (conversation.hasOlder) await conversation.loadOlder();
        }"""
    )
    assert [text for _, text, _ in await paired.evaluate(SAID)] == texts
    asked = [message.text for message in agent.asked]
    assert asked == ["before", "unread", "after"]


async def test_deleting_a_conversation_deletes_what_cannot_be_read_too(
    paired: Page, agent: ScriptedAgent
) -> None:
    await ask(paired, "before")
    await paired.evaluate("book.flush()")
    await paired.evaluate(DAMAGE, "page:")
    await reopened(paired)
    await paired.evaluate("pairing.conversation.load().then(() => pairing.conversation.clear())")
    assert await paired.evaluate("storage.names('page:')") == []


async def test_an_agent_of_version_1_that_answers_no_requests_keeps_no_question_waiting(
    open_profile: OpenContext, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay, encrypted=False)

    async def never(request: coralmux.Request) -> dict[str, object]:
        requests.append(request)
        await asyncio.sleep(3600)
        return {}

    requests: list[coralmux.Request] = []
    agent.on("agent.list")(never)
    agent.on("chat.history")(never)
    await agent.start()
    try:
        async with open_profile() as context:
            page = await open_book(await bare(context))
            await add(page, agent.link.uri())
            await ready(page)
            await page.evaluate("pairing.conversation.load()")
            began = time.monotonic()
            said = await ask(page, "Anybody?")
            assert said[-1] == ["agent", "You said: Anybody?", "done"]
            assert time.monotonic() - began < 15
            # It is asked once, and not before each question.
            await ask(page, "Still there?")
            assert len(requests) == 1
    finally:
        await agent.stop()
