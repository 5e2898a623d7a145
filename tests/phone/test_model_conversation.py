"""What was said: kept, found, exported, deleted, and remembered by the agent."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

from playwright.async_api import Page

import coralmux
from tests.phone.conftest import OpenContext
from tests.phone.harness import ScriptedAgent
from tests.phone.models import add, ask, bare, open_book, ready, reopened
from tests.support.process import RelayProcess

# A picture of noise, which no encoder makes smaller, as PNG of about 3 bytes a pixel.
NOISE = """
async ([width, height]) => {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let at = 0; at < image.data.length; at += 65536) {
    crypto.getRandomValues(image.data.subarray(at, at + 65536));
  }
  for (let at = 3; at < image.data.length; at += 4) image.data[at] = 255;
  context.putImageData(image, 0, 0);
  globalThis.blob = await canvas.convertToBlob({ type: "image/png" });
  return blob.size;
}
"""
SEND_BLOB = """
async () => {
  const { conversation } = pairing;
  const question = conversation.send("look", [{ name: "a.png", type: "image/png", data: blob }]);
  await until(conversation, () => question.settled);
  const [picture] = question.pictures;
  return [question.state, question.error?.code ?? null, picture.scaled, picture.progress ?? null];
}
"""


async def test_what_was_said_is_read_again_without_the_agent(
    paired: Page, agent: ScriptedAgent
) -> None:
    said = await ask(paired, "one")
    await agent.stop()
    await paired.evaluate("book.flush()")
    await reopened(paired)
    await paired.evaluate("pairing.conversation.load()")
    assert await paired.evaluate("said(pairing.conversation)") == said
    assert await paired.evaluate("[pairing.unread, pairing.lastMessage.text]") == [
        1,
        "You said: one",
    ]


async def test_a_thousand_deltas_change_the_screen_no_faster_than_it_is_drawn(
    paired: Page, agent: ScriptedAgent
) -> None:
    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[str]:
        for number in range(1000):
            yield f"{number} "

    changes, took, text, writes = await paired.evaluate(
        """async () => {
          const { conversation } = pairing;
          let writes = 0;
          const write = storage.write.bind(storage);
          storage.write = (name, value) => {
            writes += name.startsWith("page:");
            return write(name, value);
          };
          let changes = 0;
          conversation.addEventListener("change", () => { changes += 1; });
          const began = performance.now();
          const question = conversation.send("count");
          await until(conversation, () => question.settled);
          const took = performance.now() - began;
          return [changes, took, conversation.messages[1].text, writes];
        }"""
    )
    assert text == "".join(f"{number} " for number in range(1000))
    # Two messages, one change each in 16 ms, and a few of the question's.
    assert changes < took / 16 * 2 + 12
    assert writes < took / 1000 + 8


async def test_older_messages_come_page_by_page_and_search_finds_all(
    paired: Page, agent: ScriptedAgent
) -> None:
    # As many as a page and a half has; kept, not asked.
    await agent.stop()
    await paired.evaluate("until(pairing, () => !pairing.online)")
    await paired.evaluate(
        """async () => {
          const { conversation } = pairing;
          for (let index = 0; index < 100; index += 1) {
            conversation.stop(conversation.send(`Message ${index} of ÄRGER`));
          }
          await book.flush();
        }"""
    )
    await reopened(paired)
    outcome = await paired.evaluate(
        """async () => {
          const { conversation } = pairing;
          await conversation.load();
          const first = [conversation.messages.length, conversation.hasOlder];
          await conversation.loadOlder();
          const all = [conversation.messages.length, conversation.hasOlder];
          const order = conversation.messages.map(({ text }) => Number(text.split(" ")[1]));
          const found = await conversation.search("ärger");
          const one = await conversation.search("message 7 ");
          return [first, all, order, found.length, one[0].message.text.slice(one[0].index)];
        }"""
    )
    assert outcome == [[36, True], [100, False], list(range(100)), 100, "Message 7 of ÄRGER"]


async def test_a_conversation_is_exported_whole_as_markdown(paired: Page) -> None:
    await ask(paired, "How *are* you?")
    outcome = await paired.evaluate(
        """async () => {
          await pairing.rename("Kitchen / lamp");
          return await pairing.conversation.export({ me: "I", date: () => "today" });
        }"""
    )
    assert outcome == {
        "name": "Kitchen  lamp.md",
        "text": (
            "# Kitchen / lamp\n\n**I**, today\n\nHow *are* you?\n\n"
            "**Kitchen / lamp**, today\n\nYou said: How *are* you?\n"
        ),
    }


async def test_deleted_messages_are_gone_for_good(paired: Page) -> None:
    await ask(paired, "one")
    await ask(paired, "two")
    await paired.evaluate("pairing.conversation.remove(pairing.conversation.messages[0])")
    await reopened(paired)
    await paired.evaluate("pairing.conversation.load()")
    texts = "pairing.conversation.messages.map(({ text }) => text)"
    assert await paired.evaluate(texts) == ["You said: one", "two", "You said: two"]
    await paired.evaluate("pairing.conversation.clear()")
    assert await paired.evaluate("pairing.lastMessage") is None
    await reopened(paired)
    await paired.evaluate("pairing.conversation.load()")
    assert await paired.evaluate(texts) == []
    names = "rawRecords().then((records) => [...records.keys()].map((key) => key.split(':')[0]))"
    assert "page" not in await paired.evaluate(names)


async def test_a_draft_is_kept_until_it_is_sent(paired: Page) -> None:
    await paired.evaluate("{ pairing.conversation.draft = 'unfinished'; }")
    await paired.evaluate("book.flush()")
    await reopened(paired)
    await paired.evaluate("pairing.conversation.load()")
    assert await paired.evaluate("pairing.conversation.draft") == "unfinished"
    await ask(paired, "finished")
    await paired.evaluate("book.flush()")
    await reopened(paired)
    await paired.evaluate("pairing.conversation.load()")
    assert await paired.evaluate("pairing.conversation.draft") == ""


async def test_answers_count_as_unread_until_they_are_seen(paired: Page) -> None:
    await ask(paired, "one")
    await ask(paired, "two")
    assert await paired.evaluate("[pairing.unread, pairing.conversation.unread]") == [2, 2]
    await paired.evaluate("pairing.conversation.markRead()")
    await paired.evaluate("book.flush()")
    await reopened(paired)
    assert await paired.evaluate("pairing.unread") == 0


async def test_what_the_agent_remembers_comes_once_and_is_not_doubled(
    open_profile: OpenContext, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay)
    times = []

    @agent.on("chat.history")
    async def history(request: Any) -> Any:
        times.append(request)
        return {
            "messages": [
                {"role": "system", "content": "secret rules", "timestamp": None},
                {"role": "user", "content": "before", "timestamp": 1_700_000_000},
                {"role": "assistant", "content": "said before", "timestamp": 1_700_000_001_000},
                {"role": "user", "content": "now", "timestamp": None},
            ]
        }

    await agent.start()
    try:
        async with open_profile() as context:
            page = await open_book(await bare(context))
            await add(page, agent.url)
            expected = [
                ["user", "before", "done"],
                ["agent", "said before", "done"],
                ["user", "now", "done"],
                ["agent", "You said: now", "done"],
            ]
            await ask(page, "now")
            await page.evaluate(
                "until(pairing.conversation, () => pairing.conversation.messages.length === 4)"
            )
            assert await page.evaluate("said(pairing.conversation)") == expected
            at = "pairing.conversation.messages.slice(0, 2).map(({ at }) => at)"
            assert await page.evaluate(at) == [1_700_000_000_000, 1_700_000_001_000]
            await page.evaluate("book.flush()")
            await reopened(page)
            await ready(page)
            await page.evaluate("pairing.conversation.load()")
            assert await page.evaluate("said(pairing.conversation)") == expected
            await page.evaluate("pairing.conversation.clear()")
            await reopened(page)
            assert await ask(page, "new") == [
                ["user", "new", "done"],
                ["agent", "You said: new", "done"],
            ]
            assert len(times) == 1
    finally:
        await agent.stop()


async def test_a_picture_goes_out_as_it_is_and_is_kept_sealed(
    paired: Page, agent: ScriptedAgent
) -> None:
    # Real pictures have any size: this one is filled up behind its end.
    await paired.evaluate(NOISE, [200, 100])
    digest = await paired.evaluate(
        """async () => {
          const rest = new Uint8Array(5_000_000 - blob.size);
          globalThis.blob = new Blob([blob, rest], { type: "image/png" });
          const hash = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
          return Array.from(new Uint8Array(hash), (b) => b.toString(16).padStart(2, "0")).join("");
        }"""
    )
    assert await paired.evaluate(SEND_BLOB) == ["done", None, False, None]
    [sent] = agent.asked[0].attachments
    assert len(sent.data) == 5_000_000
    assert hashlib.sha256(sent.data).hexdigest() == digest
    await paired.evaluate("book.flush()")
    await reopened(paired)
    again = await paired.evaluate(
        """async () => {
          await pairing.conversation.load();
          const [picture] = pairing.conversation.messages[0].pictures;
          const { name, type, width, height } = picture;
          const image = new Image();
          image.src = await picture.url();
          await image.decode();
          const size = (await picture.blob()).size;
          picture.release();
          return [name, type, width, height, size, image.naturalWidth];
        }"""
    )
    assert again == ["a.png", "image/png", 200, 100, 5_000_000, 200]


async def test_a_picture_that_cannot_be_sent_is_refused_before(paired: Page) -> None:
    outcome = await paired.evaluate(
        """() => {
          const { conversation } = pairing;
          const code = (type, size) => {
            const data = new Blob([new Uint8Array(size)], { type });
            try {
              conversation.send("", [{ name: "a", type, data }]);
            } catch (error) {
              return [error.name, error.code];
            }
          };
          return [
            code("image/png", 5_000_001),
            code("text/html", 1),
            conversation.messages.length,
          ];
        }"""
    )
    assert outcome == [["AttachmentError", "TOO_LARGE"], ["AttachmentError", "NOT_A_PICTURE"], 0]


async def test_a_picture_is_scaled_down_for_version_1(
    open_profile: OpenContext, relay: RelayProcess
) -> None:
    agent = ScriptedAgent(relay, encrypted=False)
    await agent.start()
    try:
        async with open_profile() as context:
            page = await open_book(await bare(context))
            await add(page, agent.link.uri())
            await ready(page)
            size = await page.evaluate(NOISE, [1500, 1200])
            assert size > 5_000_000
            assert await page.evaluate(SEND_BLOB) == ["done", None, True, None]
            [sent] = agent.asked[0].attachments
            assert sent.mime_type == "image/jpeg"
            assert 100_000 < len(sent.data) < 3_000_000
            await page.evaluate(NOISE, [20, 10])
            assert (await page.evaluate(SEND_BLOB))[2] is False
            assert agent.asked[1].attachments[0].mime_type == "image/png"
    finally:
        await agent.stop()


async def test_files_of_an_answer_are_kept_and_run_nowhere(
    paired: Page, agent: ScriptedAgent
) -> None:
    page_of_theirs = b"<script>alert(1)</script>"
    gif = b"GIF89a" + os.urandom(300_000)

    @agent.answers
    async def answer(message: coralmux.ChatMessage) -> AsyncIterator[Any]:
        yield "here"
        yield coralmux.Attachment("a.gif", "image/gif", gif)
        yield coralmux.Attachment("b.html", "text/html", page_of_theirs)

    progress = await paired.evaluate(
        """async () => {
          const { conversation } = pairing;
          const seen = [];
          conversation.addEventListener("change", () => {
            for (const { name, coming, progress } of conversation.messages[1]?.pictures ?? []) {
              if (coming) seen.push([name, progress]);
            }
          });
          const question = conversation.send("files?");
          await until(conversation, () => question.settled);
          return seen;
        }"""
    )
    assert progress
    assert all(0 <= part <= 1 for _, part in progress)
    await paired.evaluate("until(pairing, () => pairing.unread === 1)")
    await paired.evaluate("book.flush()")
    await reopened(paired)
    kept = await paired.evaluate(
        """async () => {
          await pairing.conversation.load();
          const { pictures } = pairing.conversation.messages[1];
          return await Promise.all(pictures.map(async (picture) => {
            const blob = await picture.blob();
            return [picture.name, picture.shown, blob.type, blob.size];
          }));
        }"""
    )
    assert kept == [
        ["a.gif", True, "image/gif", len(gif)],
        ["b.html", False, "application/octet-stream", len(page_of_theirs)],
    ]


async def test_chosen_pictures_stay_until_they_are_sent(paired: Page) -> None:
    outcome = await paired.evaluate(
        """async () => {
          const data = new Blob(["GIF89a"], { type: "image/gif" });
          pairing.conversation.chosen = [{ name: "a.gif", type: "image/gif", data }];
          const { chosen } = pairing.conversation;
          pairing.conversation.send("look", chosen);
          return [chosen.length, pairing.conversation.chosen.length];
        }"""
    )
    assert outcome == [1, 0]
