/** Sessions of the phone: what anybody may have written in the clear. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { seeded, utf8 } from "./vectors.js";
import {
  envelope,
  error,
  honest,
  kinds,
  nothing,
  STEP_0,
  shown,
  stepOf,
  stepOneId,
  Wire,
} from "./wire.js";

// In the clear

test("nothing in the clear is taken for a message, and the agent hears of ten of them", async () => {
  const wire = await Wire.meet();
  wire.phone.take();
  const clear = [
    envelope("chat.stream", "c1", { delta: "forged" }),
    envelope("chat.done", "c2", { full_text: "forged" }),
    envelope("chat.done", "c3", { enc: true, ciphertext: "AAAA", nonce: "AAAA" }),
    envelope("chat.done", "c4", { enc: true, v: 1, hs: "x", n: 0 }),
    envelope("file.begin", "c".repeat(100), { file_id: "f" }),
    envelope("chat.error", "c6", { code: "E2E_GAP", message: "", from: 0, to: 9 }),
    envelope("chat.error", "c7", { code: "E2E_FAILED", message: "" }),
    envelope("chat.error", "c8", { code: "BACKEND_ERROR", message: "" }),
    envelope("key_exchange", "c9", { step: 2, name: "x", version: "x" }),
    envelope("key_exchange", "c10", { v: 2, step: 4 }),
  ];
  for (const message of clear) {
    await wire.deliver("phone", message);
  }
  assert.equal(wire.phone.all("ignored").length, clear.length);
  await wire.run();
  assert.deepEqual(wire.phone.opened, []);
  const told = wire.agent.opened.map(({ payload }) => [payload.code, payload.ref]);
  const refs = ["c1", "c2", "c3", "c4", "c".repeat(64)];
  assert.deepEqual(
    told,
    refs.map((ref) => ["E2E_REQUIRED", ref]),
  );
  const before = wire.seen.length;
  for (let number = 0; number < 100; number++) {
    await wire.deliver("phone", envelope("chat.done", `d${number}`, { full_text: "forged" }));
  }
  assert.equal(wire.seen.length, before + 5);
  await wire.run();
  await wire.exchange();
});

test("no forged error changes a session or a secret", async () => {
  const wire = await Wire.meet();
  const stored = shown(wire.phone.stored);
  wire.phone.take();
  const codes = ["UNAUTHORIZED", "PEER_OFFLINE", "RATE_LIMITED", "DAILY_QUOTA_EXCEEDED"];
  codes.push("MONTHLY_QUOTA_EXCEEDED", "MESSAGE_TOO_LARGE", "INVALID_MESSAGE");
  const others = [
    "BACKEND_ERROR",
    "E2E_REFUSED",
    "E2E_REQUIRED",
    "E2E_FAILED",
    "E2E_GAP",
    "toString",
  ];
  for (const code of [...codes, ...others]) {
    for (const ref of ["", "x", stepOneId(wire)]) {
      await wire.deliver("phone", error(code, ref));
    }
  }
  await wire.deliver("phone", envelope("chat.error", "e", { code: 7 }));
  const hints = wire.phone.all("hint").map(({ code }) => code);
  assert.deepEqual(
    hints,
    codes.flatMap((code) => [code, code, code]),
  );
  assert.deepEqual(new Set(kinds(wire.phone.events)), new Set(["hint", "ignored"]));
  assert.deepEqual(shown(wire.phone.machine.secrets), stored);
  await wire.exchange();
});

test("an agent that is away is asked again without a word of age", async () => {
  const wire = await Wire.make();
  wire.relay = nothing;
  await wire.meet();
  for (let times = 0; times < 6; times++) {
    await wire.deliver("phone", error("PEER_OFFLINE", stepOneId(wire)));
    await wire.wait(10);
  }
  assert.deepEqual(wire.phone.refusals, []);
  assert.equal(wire.phone.all("hint").length, 6);
  assert.equal(wire.phone.all("send").length, 7);
  wire.relay = honest;
  await wire.wait(10);
  await wire.exchange();
});

test("a refused step 1 goes out again when the relay takes it", async () => {
  const huge = Number.POSITIVE_INFINITY;
  const cases = [
    [8_000, 8],
    [1_000, 5],
    [0, 5],
    [-huge, 5],
    [60_000, 60],
    [3_600_000, 60],
    [huge, 60],
  ];
  for (const [wait, seconds] of cases) {
    const wire = await Wire.make();
    wire.relay = nothing;
    await wire.meet();
    const refusal = error("RATE_LIMITED", stepOneId(wire));
    refusal.payload.retry_after_ms = wait; // JSON of hundreds of digits is read as Infinity
    await wire.deliver("phone", refusal);
    const { retryAfterMs, code, message, ref } = wire.phone.all("hint").at(-1);
    assert.equal(retryAfterMs, Math.min(Math.max(wait, 0), 32 * 86_400_000));
    assert.deepEqual([code, message, ref], ["RATE_LIMITED", "words", stepOneId(wire)]);
    await wire.wait(seconds - 0.5);
    assert.equal(wire.phone.all("send").length, 1);
    wire.relay = honest;
    await wire.wait(0.5);
    await wire.exchange();
  }
});

test("hints about other messages change no handshake", async () => {
  const wire = await Wire.make();
  wire.relay = nothing;
  await wire.meet();
  for (const code of ["PEER_OFFLINE", "RATE_LIMITED", "E2E_REFUSED"]) {
    await wire.deliver("phone", error(code, "another", { retry_after_ms: 60_000 }));
  }
  await wire.wait(30);
  assert.deepEqual(wire.phone.refusals, ["NO_ANSWER"]);
});

test("a forged refusal is told, gives no secret up, and is tried again", async () => {
  for (const again of ["wait", "step 0", "status"]) {
    const wire = await Wire.make();
    wire.relay = nothing;
    await wire.meet();
    for (let times = 0; times < 2; times++) {
      await wire.deliver("phone", error("E2E_REFUSED", stepOneId(wire)));
      assert.deepEqual(wire.phone.refusals, ["SECRET_REFUSED"]);
    }
    assert.deepEqual(wire.phone.all("store"), []);
    wire.relay = honest;
    if (again === "wait") {
      await wire.wait(59.5);
      assert.ok(!wire.phone.machine.ready);
      await wire.wait(0.5);
    } else if (again === "step 0") {
      await wire.deliver("phone", STEP_0);
      await wire.wait(5);
    } else {
      await wire.carryOut(wire.phone, wire.phone.machine.peerOnline(wire.now));
      await wire.run();
    }
    await wire.exchange();
  }
});

test("no hostile payload makes the machine throw, reach a prototype or open a thing", async () => {
  const values = [null, true, -1, 0.5, 1e300, 2 ** 53, "", "a", "\ud800", "AAAA", [], {}, [[]]];
  values.push(
    "__proto__",
    { __proto__: { code: "E2E_FAILED" } },
    JSON.parse('{"__proto__":{"enc":true}}'),
  );
  const members = [
    "enc",
    "v",
    "hs",
    "n",
    "ciphertext",
    "step",
    "noise",
    "pubkey",
    "code",
    "message",
  ];
  members.push("ref", "retry_after_ms", "from", "to", "__proto__", "constructor", "toString");
  const random = seeded(3);
  const pick = (list) => list[Math.floor(random() * list.length)];
  const [fresh, waiting, ready] = [await Wire.make(), await Wire.make(), await Wire.meet()];
  waiting.relay = nothing;
  await waiting.meet();
  const { hs } = ready.seen.findLast(([, m]) => stepOf(m) === 2)[1].payload;
  const asked = waiting.seen.find(([, m]) => stepOf(m) === 1)[1];
  for (let times = 0; times < 3000; times++) {
    const given = Array.from({ length: 1 + Math.floor(random() * 6) }, () => [
      pick(members),
      pick(values),
    ]);
    const likely = { v: pick([1, 2]), step: pick([0, 2, 3]), hs: asked.payload.hs, noise: "AAAA" };
    const payload = Object.assign(pick([{}, likely, { ...likely, hs }]), Object.fromEntries(given));
    const type = pick(["key_exchange", "chat.error", "chat.done", "", "__proto__", "\ud800"]);
    const id = pick(["", "i", "\ud800\n", "x".repeat(999), asked.id]);
    for (const wire of [fresh, waiting, ready]) {
      const events = await wire.phone.machine.receive({ type, id, ts: 0, payload }, wire.now);
      assert.ok(!kinds(events).includes("opened") && !kinds(events).includes("store"));
    }
  }
  assert.deepEqual([{}.enc, {}.code, {}.polluted], [undefined, undefined, undefined]);
});

test("a message whose members are called like a prototype's reaches none", async () => {
  const wire = await Wire.talking();
  const raw = '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}';
  const sealed = await wire.agent.machine.seal("chat.done", "p", utf8(raw));
  await wire.deliver("phone", envelope("chat.done", "p", sealed));
  const [{ payload }] = wire.phone.opened;
  assert.equal(Object.getPrototypeOf(payload), Object.prototype);
  assert.equal(payload.polluted ?? {}.polluted, undefined);
  const failed = await wire.agent.machine.seal(
    "chat.error",
    "q",
    utf8('{"__proto__":{"code":"E2E_FAILED"}}'),
  );
  await wire.deliver("phone", envelope("chat.error", "q", failed));
  assert.deepEqual(wire.phone.failures, []);
});
