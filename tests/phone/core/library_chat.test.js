/** The library against a real relay and a real agent: what is said, in both directions. */

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";
import { webCrypto } from "../../../static/phone/core/index.js";
import { counted, event, onStage, phoneFor, please, state, whole } from "./stage.js";

/** webCrypto, only slow, and some of it slower. */
const slow = {
  ...webCrypto,
  seal: async (...given) => late(await webCrypto.seal(...given)),
  open: async (...given) => late(await webCrypto.open(...given)),
};
const late = (value) => new Promise((done) => setTimeout(done, Math.random() * 6, value));

/** The states that a phone was in, each once; its agent may have come later than itself. */
const passed = (phone) => [...new Set(phone.states)].filter((kind) => kind !== "agent-offline");

const sha256 = (data) => createHash("sha256").update(data).digest("hex");

test("4,000 deltas come whole and in order", onStage, async (t) => {
  const phone = phoneFor(t, await please("pair"));
  const answer = phone.ask("count 4000");
  const heard = [];
  answer.addEventListener("delta", ({ detail }) => heard.push(detail.delta));
  const { deltas, text } = await whole(answer);
  assert.equal(text, counted(4000));
  assert.equal(deltas.join(""), text);
  assert.equal(heard.join(""), text);
  assert.equal(phone.version, 2);
  assert.deepEqual([phone.agent?.name, phone.agent?.verified], ["Stage", true]);
  assert.deepEqual(passed(phone), ["connecting", "handshaking", "ready"]);
  assert.equal(phone.greeting?.limits?.messagesPerMinute, 30);
  const used = (phone.used.dayBytes ?? 0) - (phone.greeting?.dailyUsedBytes ?? 0);
  assert.ok(used > text.length, `${used}`);
});

test("slow cryptography reorders nothing", onStage, async (t) => {
  const phone = phoneFor(t, await please("pair"), { crypto: slow });
  const questions = Array.from({ length: 12 }, (_, index) => `slowly ${index}`);
  const asked = questions.map((question) => phone.ask(question));
  const long = phone.ask("count 200");
  const texts = await Promise.all(asked.map(async (answer) => (await answer.finished).text));
  assert.deepEqual(
    texts,
    questions.map((question) => `You said: ${question}`),
  );
  assert.equal((await long.finished).text, counted(200));
  assert.deepEqual(passed(phone), ["connecting", "handshaking", "ready"]);
});

test("questions side by side get their own answers", onStage, async (t) => {
  const phone = phoneFor(t, await please("pair"));
  const held = phone.ask("hold me");
  await event(held, "delta");
  assert.equal((await phone.ask("meanwhile").finished).text, "You said: meanwhile");
  const [fifty, hundred] = [phone.ask("count 50"), phone.ask("count 100")];
  assert.equal((await fifty.finished).text, counted(50));
  assert.equal((await hundred.finished).text, counted(100));
  await please("release");
  assert.equal((await held.finished).text, "Held. Released.");
});

test("an answer that is cancelled ends with what was said", onStage, async (t) => {
  const phone = phoneFor(t, await please("pair"));
  const answer = phone.ask("hold on");
  await event(answer, "delta");
  answer.cancel();
  const { text, cancelled } = await answer.finished;
  assert.deepEqual([text, cancelled], ["Held.", true]);

  const left = phone.ask("hold this");
  for await (const delta of left) {
    assert.equal(delta, "Held.");
    break;
  }
  assert.equal((await left.finished).cancelled, true);
});

test("a question that is cancelled before the agent comes is never sent", onStage, async (t) => {
  const pairing = await please("pair", { served: false });
  const phone = phoneFor(t, pairing);
  await state(phone, "agent-offline");
  const answer = phone.ask("never mind");
  answer.cancel();
  assert.deepEqual(await answer.finished, {
    text: "",
    attachments: [],
    usage: {},
    cancelled: true,
  });
  await please("serve", { uri: pairing.uri });
  assert.equal((await phone.ask("afterwards").finished).text, "You said: afterwards");
  assert.deepEqual(await please("asked", { text: "never mind" }), []);
});

test("what belongs to a question reaches the agent", onStage, async (t) => {
  const phone = phoneFor(t, await please("pair"));
  const conversation = [{ role: "user", content: "Earlier" }];
  await phone.ask("with more", { agentId: "main", conversation, id: "my-own-id" }).finished;
  const [question] = await please("asked", { text: "with more" });
  assert.deepEqual(
    [question.id, question.agentId, question.turns],
    ["my-own-id", "main", ["Earlier"]],
  );
});

test("requests are answered, and the agent's errors told in its words", onStage, async (t) => {
  const phone = phoneFor(t, await please("pair"));
  assert.deepEqual(await phone.history({ limit: 2 }), [
    { role: "user", content: "Before", timestamp: 1 },
    { role: "user", content: "Before", timestamp: 1 },
  ]);
  const [agent] = await phone.agents();
  assert.equal(agent.name, "Stage");
  await assert.rejects(phone.groups(), { name: "AgentError", code: "UNSUPPORTED" });
  await assert.rejects(phone.ask("fail now").finished, {
    name: "AgentError",
    code: "BACKEND_ERROR",
    message: "The model is out.",
  });
});

test("what is said in a room is told", onStage, async (t) => {
  const phone = phoneFor(t, await please("pair"));
  // Then it has a session with this phone, and knows whom to tell.
  await phone.ask("are you there?").finished;
  const heard = event(phone, "group-message", ({ roomId }) => roomId === "hall");
  await please("group_message", { room: "hall", text: "Tea?" });
  assert.deepEqual(await heard, { roomId: "hall", message: { text: "Tea?" } });
});

test("5,000,000 bytes reach the agent unaltered, with progress", onStage, async (t) => {
  const phone = phoneFor(t, await please("pair"));
  const data = new Uint8Array(
    Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), randomBytes(4_999_992)]),
  );
  const steps = [];
  const onProgress = (_, sent, total) => steps.push([sent, total]);
  const attachments = [
    { name: "../cat.png", type: "image/png", data: new Blob([data]) },
    { name: "none.txt", type: "text/plain", data: new Uint8Array(0) },
  ];
  await phone.ask("look at that", { attachments, onProgress }).finished;
  const [question] = await please("asked", { text: "look at that" });
  assert.deepEqual(question.attachments, [
    { name: "cat.png", type: "image/png", size: 5_000_000, sha256: sha256(data) },
    { name: "none.txt", type: "text/plain", size: 0, sha256: sha256("") },
  ]);
  const first = steps.filter(([, total]) => total > 0).map(([sent]) => sent);
  assert.equal(first.at(-1), 5_000_000);
  assert.ok(first.length > 20);
  assert.deepEqual(
    first,
    first.toSorted((a, b) => a - b),
  );
});

test("what is no picture is not sent as one", onStage, async (t) => {
  const phone = phoneFor(t, await please("pair"));
  const data = new TextEncoder().encode("<svg/>");
  const answer = phone.ask("a picture?", {
    attachments: [{ name: "a.png", type: "image/png", data }],
  });
  await assert.rejects(answer.finished, {
    name: "AttachmentError",
    code: "NOT_A_PICTURE",
    ids: [answer.id],
  });
  assert.deepEqual(await please("asked", { text: "a picture?" }), []);
});

test(
  "a file of the answer comes whole, with progress and what the agent does",
  onStage,
  async (t) => {
    const phone = phoneFor(t, await please("pair"));
    const answer = phone.ask("picture please");
    const steps = [];
    answer.addEventListener("progress", ({ detail }) => steps.push(detail));
    const [tool, { text, attachments }] = await Promise.all([
      event(answer, "tool"),
      answer.finished,
    ]);
    assert.deepEqual(tool, { tool: "painter", status: "running" });
    assert.equal(text, "Here:");
    const [{ name, type, data, size }] = attachments;
    const painted = Buffer.concat([
      Buffer.from("\x89PNG\r\n\x1a\n", "latin1"),
      ...Array(1000).fill(Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))),
    ]);
    assert.deepEqual([name, type, size], ["dot.png", "image/png", painted.length]);
    assert.equal(sha256(data), sha256(painted));
    assert.deepEqual(
      steps.map(({ received }) => received),
      [0, 65_536, 131_072, 196_608, painted.length],
    );
  },
);

test(
  "an agent of version 1 is asked one thing at a time, with pictures inside",
  onStage,
  async (t) => {
    const phone = phoneFor(t, await please("field", { reply: ["Hel", "lo"] }));
    await phone.ready();
    assert.deepEqual([phone.version, phone.agent?.verified], [1, false]);
    const png = new Uint8Array(Buffer.from("\x89PNG\r\n\x1a\nrest", "latin1"));
    const attachments = [{ name: "a.png", type: "image/png", data: png }];
    const answers = [phone.ask("one"), phone.ask("two", { attachments }), phone.ask("three")];
    const tools = answers.map((answer) => event(answer, "tool"));
    for (const answer of answers) {
      const { text, attachments: came } = await answer.finished;
      assert.equal(text, "Hello");
      assert.equal(came[0].type, "image/png");
    }
    assert.equal((await Promise.all(tools)).length, 3);
    const [main] = await phone.agents();
    assert.deepEqual([main.id, main.name], ["main", "Main"]);

    assert.ok(phone.maxInlineBytes > 2_900_000 && phone.maxInlineBytes < 2_950_000);
    const big = new Uint8Array(phone.maxInlineBytes + 2000);
    big.set(png);
    const tooBig = phone.ask("big", {
      attachments: [{ name: "b.png", type: "image/png", data: big }],
    });
    await assert.rejects(tooBig.finished, { name: "AttachmentError", code: "TOO_LARGE_INLINE" });
    const fits = big.subarray(0, phone.maxInlineBytes);
    await phone.ask("fits", { attachments: [{ name: "b.png", type: "image/png", data: fits }] })
      .finished;
    const text = new TextEncoder().encode("text");
    const file = phone.ask("file", {
      attachments: [{ name: "t", type: "text/plain", data: text }],
    });
    await assert.rejects(file.finished, { name: "AttachmentError", code: "PICTURES_ONLY" });
  },
);

test(
  "our own agent is asked in version 1 by token alone, each question in its turn",
  onStage,
  async (t) => {
    const phone = phoneFor(t, await please("pair", { secret: false }));
    const answers = [phone.ask("count 300"), phone.ask("next"), phone.ask("count 20")];
    const texts = await Promise.all(answers.map(async (answer) => (await answer.finished).text));
    assert.deepEqual(texts, [counted(300), "You said: next", counted(20)]);
    assert.equal(phone.version, 1);
  },
);

test(
  "in version 1 the rest of an answer that nobody wants is not taken for the next",
  onStage,
  async (t) => {
    const phone = phoneFor(t, await please("pair", { secret: false }));
    const unwanted = phone.ask("hold in version 1");
    await event(unwanted, "delta");
    unwanted.cancel();
    const next = phone.ask("after it");
    await please("release");
    assert.deepEqual(await unwanted.finished, {
      text: "Held.",
      attachments: [],
      usage: {},
      cancelled: true,
    });
    assert.equal((await next.finished).text, "You said: after it");
  },
);

test("in version 1 what comes too late is not taken for the next answer", onStage, async (t) => {
  const phone = phoneFor(t, await please("pair", { secret: false }));
  await phone.ready();
  const late = phone.ask("hold too long", { timeout: 100 });
  await assert.rejects(late.finished, { name: "RequestTimeout", ids: [late.id] });
  const begun = performance.now();
  const next = phone.ask("after the late one");
  await please("release");
  assert.equal((await next.finished).text, "You said: after the late one");
  assert.ok(performance.now() - begun < 1900, "it waited although the late one had ended");
  assert.equal(late.text, "Held.");
});
