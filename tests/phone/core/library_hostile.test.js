/** The library against a relay that does what it likes: no wrong word is shown, nothing taken twice. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, test } from "node:test";
import { counted, onStage, phoneFor, please } from "./stage.js";

const WHOLE = counted(40);

/** What became of a question, and that all of what was shown is from its beginning. */
async function become(phone, question, timeout) {
  const answer = phone.ask(question, { timeout });
  const shown = [];
  let error = null;
  try {
    for await (const delta of answer) shown.push(delta);
  } catch (raised) {
    error = raised;
  }
  assert.equal(shown.join(""), answer.text);
  return { error: error?.name ?? null, text: answer.text, id: answer.id };
}

/** A tamper of tests.support.interference, and how the answer may end. */
const DEEDS = [
  [{ tamper: "Drop", type: "chat.stream", sender: "agent", nth: 5 }, [null]],
  [{ tamper: "Drop", type: "chat.done", sender: "agent" }, ["RequestTimeout"]],
  [{ tamper: "Drop", type: "chat.send", sender: "phone" }, ["MessageLost", "RequestTimeout"]],
  [{ tamper: "Replay", type: "chat.stream", sender: "agent", nth: 5 }, ["ConnectionLost"]],
  [{ tamper: "Replay", type: "chat.send", sender: "phone" }, ["ConnectionLost"]],
  [{ tamper: "Reorder", type: "chat.stream", sender: "agent", nth: 5 }, ["ConnectionLost"]],
  [{ tamper: "Flip", type: "chat.stream", sender: "agent", nth: 5 }, ["ConnectionLost"]],
  [{ tamper: "Flip", type: "chat.send", sender: "phone" }, ["ConnectionLost"]],
  [{ tamper: "Recount", type: "chat.stream", sender: "agent", nth: 5 }, ["ConnectionLost"]],
  [{ tamper: "Truncate", type: "chat.done", sender: "agent" }, ["ConnectionLost"]],
  [
    { tamper: "Relabel", type: "chat.stream", sender: "agent", nth: 5, to: "chat.done" },
    ["ConnectionLost"],
  ],
  [{ tamper: "Renumber", type: "chat.stream", sender: "agent", nth: 5 }, ["ConnectionLost"]],
  [{ tamper: "AnswerForOther", type: "chat.send", sender: "phone" }, ["ConnectionLost"]],
  [
    {
      tamper: "ForgeError",
      type: "chat.send",
      sender: "phone",
      code: "RATE_LIMITED",
      to: "phone",
      more: { retry_after_ms: 10 },
    },
    ["RelayRefused"],
  ],
  [
    { tamper: "ForgeError", type: "chat.send", sender: "phone", code: "PEER_OFFLINE", to: "phone" },
    ["PeerOffline"],
  ],
  [
    {
      tamper: "ForgeError",
      type: "chat.send",
      sender: "phone",
      code: "BACKEND_ERROR",
      to: "phone",
    },
    [null],
  ],
];

// Each has a relay of its own, and waits for its time-outs beside the others.
describe("a relay that meddles", { ...onStage, concurrency: true }, () => {
  for (const [deed, ends] of DEEDS) {
    const { tamper, type, sender } = deed;
    const wanted = ends.map((end) => end ?? "the whole answer").join(" or ");
    test(`${tamper} of a ${type} of the ${sender} ends in ${wanted}`, async (t) => {
      const pairing = await please("hostile", deed);
      const phone = phoneFor(t, pairing);
      await phone.ready();
      const { error, text, id } = await become(phone, "count 40", 2000);
      assert.ok(ends.includes(error), `${error}`);
      assert.ok(WHOLE.startsWith(text), "what was shown is not what the agent said");
      if (error === null) assert.equal(text, WHOLE);
      assert.equal(await please("struck", { uri: pairing.uri }), 1);
      const asked = await please("asked", { text: "count 40" });
      assert.ok(asked.filter((question) => question.id === id).length <= 1, "taken twice");
      // And it goes on: the next handshake begins 5 s after the last one.
      assert.equal((await become(phone, "count 3", 8000)).text, "0 1 2 ");
    });
  }

  test("a question that is dropped is told to be lost once another one arrives", async (t) => {
    const pairing = await please("hostile", { tamper: "Drop", type: "chat.send", sender: "phone" });
    const phone = phoneFor(t, pairing);
    await phone.ready();
    const lost = phone.ask("lost");
    const next = phone.ask("next");
    assert.equal((await next.finished).text, "You said: next");
    await assert.rejects(lost.finished, { name: "MessageLost", ids: [lost.id] });
    assert.deepEqual(await please("asked", { text: "lost" }), []);
  });

  test("a message that is sent again because of a forged refusal is taken once", async (t) => {
    const pairing = await please("hostile", {
      tamper: "ForgeError",
      type: "group.message",
      sender: "agent",
      code: "PEER_OFFLINE",
      to: "agent",
    });
    const { uri } = pairing;
    const phone = phoneFor(t, pairing);
    const heard = [];
    phone.addEventListener("group-message", ({ detail }) => heard.push(detail.message.text));
    // Then it has a session with this phone, and knows whom to tell.
    await phone.ask("are you there?").finished;
    await please("group_message", { uri, room: "hall", text: "Tea?" });
    const twice = { uri, sender: "agent", type: "group.message" };
    while ((await please("sent", twice)) < 2) await new Promise((done) => setTimeout(done, 50));
    await phone.agents();
    assert.deepEqual(heard, ["Tea?"]);
  });

  for (const [tamper, type, sender, nth] of [
    ["Drop", "file.chunk", "phone", 3],
    ["Drop", "file.ack", "agent", 4],
    ["Flip", "file.chunk", "phone", 3],
    ["Replay", "file.ack", "agent", 4],
  ]) {
    test(`${tamper} of a ${type} of the ${sender} delays a file, and changes nothing of it`, async (t) => {
      const pairing = await please("hostile", { tamper, type, sender, nth });
      const phone = phoneFor(t, pairing);
      const data = new Uint8Array(700_000).map((_, index) => index >> 8);
      const attachments = [{ name: "a.bin", type: "application/octet-stream", data }];
      const text = `take this, ${tamper} ${type}`;
      await phone.ask(text, { attachments }).finished;
      const [{ attachments: came }] = await please("asked", { text });
      assert.equal(came[0].sha256, createHash("sha256").update(data).digest("hex"));
      assert.equal(await please("struck", { uri: pairing.uri }), 1);
    });
  }
});
